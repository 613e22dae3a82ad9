//! Bringing the data to the disk, by a child of the host's: a disk that hangs holds up nobody but the child.
//!
//! While the engine runs this follows each acknowledgement. With the data, a list of the layers that were there goes to
//! the disk ([`Synced`]): what is on it is safe, and only younger layers can be damaged by a power cut.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use dind_contract::paths::SYNC_FILE;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::failure::Failure;
use crate::layers::{self, Known};
use crate::{ground, process};

/// What a completed sync has brought to the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Synced {
    /// When it began, RFC 3339, UTC. For people: clocks jump, so nothing is decided by it.
    pub(crate) since: String,
    /// The layers that were complete then.
    pub(crate) layers: Known,
    /// The state of the build cache then.
    pub(crate) build_cache: Option<String>,
}

impl Synced {
    /// Of the last sync of this data root; `None`: there was none, or its list is not readable.
    pub(crate) fn load(data_root: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(data_root.join(SYNC_FILE)).ok()?).ok()
    }

    /// What is complete now, and on disk once a sync that begins now has come to its end.
    fn now(engine_root: &Path) -> Self {
        Self {
            since: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            layers: layers::known(engine_root),
            build_cache: layers::build_cache(engine_root),
        }
    }

    fn save(&self, data_root: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        write_durably(&data_root.join(SYNC_FILE), &text)
    }
}

/// Replaces a file by one that is whole after a power cut, too: the old one or the new one.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Brings the data to the disk while the engine runs.
pub(crate) fn run(data_root: &Path, engine_root: &Path) -> Result<ExitCode, Failure> {
    only_as_a_part_of_a_host("sync")?;
    to_disk(data_root, engine_root)?;
    Ok(ExitCode::SUCCESS)
}

/// Brings the data to the disk when the engine has ended and, if it is left in order, says so in it.
pub(crate) fn finish(data_root: &Path, engine_root: &Path, clean: bool) -> Result<ExitCode, Failure> {
    // By hand it would tear live containers from their mounts, and call the data root clean.
    only_as_a_part_of_a_host("flush")?;
    for folder in ["overlay2", "containers"] {
        ground::detach_below(&engine_root.join(folder));
    }
    to_disk(data_root, engine_root)?;
    if clean {
        ground::mark_clean(data_root).map_err(|e| cannot("mark", data_root, &e))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn to_disk(data_root: &Path, engine_root: &Path) -> Result<(), Failure> {
    let synced = Synced::now(engine_root);
    let roots = if data_root == engine_root { vec![engine_root] } else { vec![engine_root, data_root] };
    for root in roots {
        let folder = File::open(root).map_err(|e| cannot("open", root, &e))?;
        nix::unistd::syncfs(&folder).map_err(|e| cannot("sync", root, &e.into()))?;
    }
    match synced.save(data_root) {
        // Everything is on disk; a list that is older than it could be only makes the next start check more.
        Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Ok(()),
        saved => saved.map_err(|e| cannot("write down the sync of", data_root, &e)),
    }
}

fn only_as_a_part_of_a_host(subcommand: &str) -> Result<(), Failure> {
    if process::is_child_of_ourselves() {
        return Ok(());
    }
    Err(Failure::usage(
        format!("{subcommand} is a part of a running host"),
        "stop the host to have everything on disk: docker stop HOST",
    ))
}

fn cannot(what: &str, path: &Path, e: &io::Error) -> Failure {
    Failure::failed(format!("cannot {what} {}: {e}", path.display()), "look at the machine's disk")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_not_whole_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Synced::load(folder.path()), None);
        let synced = Synced::now(folder.path());
        synced.save(folder.path()).unwrap();
        assert_eq!(Synced::load(folder.path()), Some(synced));
        let path = folder.path().join(SYNC_FILE);
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert_eq!(Synced::load(folder.path()), None);
    }
}
