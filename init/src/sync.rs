//! Bringing the data to the disk, by a child of the host's: a disk that hangs holds up nobody but the child.
//!
//! While the engine runs this follows each acknowledgement. With the data, a list of the layers that were there goes to
//! the disk ([`Synced`]): what is on it is safe, and only younger layers can be damaged by a power cut.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dind_contract::paths::SYNC_FILE;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::failure::Failure;
use crate::layers::{self, Known};
use crate::{ground, process, store};

/// What a completed sync has brought to the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Synced {
    /// When it began, RFC 3339, UTC. For people: clocks jump, so nothing is decided by it.
    pub(crate) since: String,
    /// The layers that were complete then.
    pub(crate) layers: Known,
    /// The state of the build cache then.
    pub(crate) build_cache: Option<String>,
    /// Where the engine kept its data: a data root may have more than one place.
    #[serde(default)]
    pub(crate) engine_root: PathBuf,
    /// Layers whose way to the disk an error has cut off: the kernel tells of it once, and then forgets what it could not
    /// write. They stay out of `layers` until a repair has looked at them.
    #[serde(default)]
    pub(crate) doubted: Known,
}

impl Synced {
    /// Of the last sync of this data root; `None`: there was none, or its list is not readable.
    pub(crate) fn load(data_root: &Path) -> Option<Self> {
        serde_json::from_str(&crate::read_if_there(&data_root.join(SYNC_FILE)).ok()??).ok()
    }

    /// What is complete now, and on disk once a sync that begins now has come to its end; `doubted`: but for these.
    fn now(engine_root: &Path, doubted: Known) -> Self {
        Self {
            since: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            layers: layers::known(engine_root).difference(&doubted).cloned().collect(),
            build_cache: layers::build_cache(engine_root),
            engine_root: engine_root.to_owned(),
            doubted,
        }
    }

    /// `suffix`: of the file that becomes the list; two processes may write one at the same time.
    fn save(&self, data_root: &Path, suffix: &str) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        write_durably_by(&data_root.join(SYNC_FILE), suffix, &text)
    }
}

/// Takes note, after a repair, that nothing is doubted any more: it has looked at every layer that was.
pub(crate) fn forget_doubts(data_root: &Path) -> io::Result<()> {
    match Synced::load(data_root) {
        Some(synced) if !synced.doubted.is_empty() => {
            Synced { doubted: Known::new(), ..synced }.save(data_root, "repair")
        }
        _ => Ok(()),
    }
}

/// Replaces a file by one that is whole after a power cut, too: the old one or the new one.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    write_durably_by(path, "new", content)
}

fn write_durably_by(path: &Path, suffix: &str, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension(suffix);
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Brings the data to the disk while the engine runs.
pub(crate) fn run(data_root: &Path, engine_root: &Path) -> Result<ExitCode, Failure> {
    only_as_a_part_of_a_host("sync")?;
    to_disk(data_root, engine_root, "sync")?;
    Ok(ExitCode::SUCCESS)
}

/// Brings the data to the disk when the engine has ended and, if it is left in order, says so in it.
pub(crate) fn finish(data_root: &Path, engine_root: &Path, clean: bool) -> Result<ExitCode, Failure> {
    // By hand it would tear live containers from their mounts, and call the data root clean.
    only_as_a_part_of_a_host("flush")?;
    for folder in ["overlay2", "fuse-overlayfs", "containers"] {
        ground::detach_below(&engine_root.join(folder));
    }
    store::unmount();
    let doubted = to_disk(data_root, engine_root, "flush")?;
    ground::release_disk(data_root);
    if doubted > 0 {
        return Err(Failure::failed(
            format!("the disk refused parts of {doubted} image layers while the host ran"),
            "look at the machine's disk; the next start checks these layers",
        ));
    }
    if clean {
        ground::mark_clean(data_root).map_err(|e| cannot("mark", data_root, &e))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Folders of an engine that may be on a file system of their own.
const FOLDERS: [&str; 7] =
    ["overlay2", "fuse-overlayfs", "vfs", "image", "volumes", "containers", "containerd"];

/// How many layers are doubted.
fn to_disk(data_root: &Path, engine_root: &Path, suffix: &str) -> Result<usize, Failure> {
    let before = Synced::load(data_root).unwrap_or_default();
    let synced = Synced::now(engine_root, before.doubted.clone());
    let folders = FOLDERS.map(|folder| engine_root.join(folder));
    let mut done = BTreeSet::new();
    for root in [engine_root, data_root].into_iter().chain(folders.iter().map(PathBuf::as_path)) {
        let folder = match File::open(root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && root != engine_root => continue,
            opened => opened.map_err(|e| cannot("open", root, &e))?,
        };
        let device = folder.metadata().map_err(|e| cannot("look at", root, &e))?.dev();
        if !done.insert(device) {
            continue;
        }
        if let Err(e) = nix::unistd::syncfs(&folder) {
            // Whatever was not safe before may have lost pages now, and no later sync would tell.
            let doubted = synced.layers.difference(&before.layers).chain(&before.doubted).cloned().collect();
            let _ = Synced { doubted, ..before }.save(data_root, suffix);
            return Err(cannot("sync", root, &e.into()));
        }
    }
    match synced.save(data_root, suffix) {
        // Everything is on disk; a list that is older than it could be only makes the next start check more.
        Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {}
        saved => saved.map_err(|e| cannot("write down the sync of", data_root, &e))?,
    }
    Ok(synced.doubted.len())
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
        let synced = Synced::now(folder.path(), Known::new());
        synced.save(folder.path(), "new").unwrap();
        assert_eq!(Synced::load(folder.path()), Some(synced));
        let path = folder.path().join(SYNC_FILE);
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert_eq!(Synced::load(folder.path()), None);
    }
}
