//! The data root: one host at a time, and a mark that tells how the last one left it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use dind_contract::paths::LOCK_FILE;
use dind_contract::status::LastStop;
use nix::fcntl::{Flock, FlockArg};

use crate::failure::Failure;

const RUNNING: &str = "running\n";
const CLEAN: &str = "clean\n";

/// A data root that belongs to this host for as long as this value lives. The kernel releases the lock of a killed host.
pub(crate) struct DataRoot {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// How the host before this one left it.
    pub(crate) last_stop: LastStop,
    _lock: Flock<File>,
}

impl DataRoot {
    /// Makes the folder if need be, locks it, and marks it as in use.
    ///
    /// # Errors
    /// It cannot be written to, or another host uses it.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(path).map_err(|e| cannot_write(path, &e))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK_FILE))
            .map_err(|e| cannot_write(path, &e))?;
        let mut lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
                nix::errno::Errno::EWOULDBLOCK => Failure::unavailable(
                    format!("the data root {} is in use by another host", path.display()),
                    "stop that host, or give this one a volume of its own",
                ),
                errno => cannot_write(path, &errno.into()),
            })?;
        let last_stop = mark(&mut lock, RUNNING).map_err(|e| cannot_write(path, &e))?;
        Ok(Self { path: path.to_owned(), last_stop, _lock: lock })
    }
}

/// Writes `word` into the lock file, durably, and returns what the word before it meant. It is never empty on the way:
/// a kill in the middle reads as a stop that was not clean.
fn mark(file: &mut File, word: &str) -> io::Result<LastStop> {
    let mut before = String::new();
    file.read_to_string(&mut before)?;
    file.rewind()?;
    file.write_all(word.as_bytes())?;
    file.set_len(word.len() as u64)?;
    file.sync_all()?;
    Ok(match before.as_str() {
        "" => LastStop::First,
        CLEAN => LastStop::Clean,
        _ => LastStop::Unclean,
    })
}

/// Marks the data root at `path` as cleanly left.
pub(crate) fn mark_clean(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path.join(LOCK_FILE))?;
    mark(&mut file, CLEAN).map(|_| ())
}

fn cannot_write(path: &Path, e: &io::Error) -> Failure {
    let path = path.display();
    match e.kind() {
        io::ErrorKind::ReadOnlyFilesystem => Failure::unavailable(
            format!("the data root {path} is read-only"),
            "mount it without `:ro`, or leave the mount out to use a volume that Docker makes",
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::unavailable(
            format!("the data root {path} has no space left"),
            "make room on its disk (`docker system df` on the machine below shows what uses it)",
        ),
        _ => Failure::unavailable(
            format!("the data root {path} cannot be used: {e}"),
            "mount a writable folder or volume there",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_tells_how_it_was_left() {
        let folder = tempfile::tempdir().unwrap();
        let open = || DataRoot::open(folder.path()).map(|root| root.last_stop);
        assert_eq!(open(), Ok(LastStop::First));
        assert_eq!(open(), Ok(LastStop::Unclean));
        mark_clean(folder.path()).unwrap();
        assert_eq!(open(), Ok(LastStop::Clean));
        assert_eq!(open(), Ok(LastStop::Unclean));
        // Half a word, as a power cut might leave it.
        fs::write(folder.path().join(LOCK_FILE), "cle").unwrap();
        assert_eq!(open(), Ok(LastStop::Unclean));
    }

    #[test]
    fn two_hosts_cannot_share_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataRoot::open(folder.path()).unwrap();
        let failure = DataRoot::open(folder.path()).err().unwrap();
        assert_eq!(failure.code, 69);
        assert!(failure.cause.contains("in use by another host"), "{}", failure.cause);
        drop(first);
        assert!(DataRoot::open(folder.path()).is_ok());
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let failure = DataRoot::open(&file).err().unwrap();
        assert!(failure.cause.contains(&file.display().to_string()), "{}", failure.cause);
    }
}
