//! The data root: one host at a time, and a mark that tells how the last one left it.

pub(crate) mod copied;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dind_contract::paths::LOCK_FILE;
use dind_contract::status::LastStop;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

const RUNNING: &str = "running\n";
const CLEAN: &str = "clean\n";
/// Of one that becomes a copy of another: what is in it is not all there yet.
const COPYING: &str = "copying\n";
/// What is read of a lock file: more than any mark has.
const LONGEST: usize = 64;

/// What a lock file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Nothing: no host has used it.
    None,
    Clean,
    Copying,
    /// That a host uses it or did until it was killed; half a word, as a power cut may leave it, is the same.
    Running,
}

impl Mark {
    /// Reads it, whoever has it locked.
    fn read(file: &File) -> io::Result<Self> {
        let mut text = [0; LONGEST];
        let length = file.read_at(&mut text, 0)?;
        let text = text.get(..length).unwrap_or_default();
        Ok(match text {
            b"" => Self::None,
            text if text == CLEAN.as_bytes() => Self::Clean,
            text if text == COPYING.as_bytes() => Self::Copying,
            _ => Self::Running,
        })
    }
}

/// A data root that belongs to this host for as long as this value lives. The kernel releases the lock of a killed host.
pub(crate) struct DataRoot {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// How the host before this one left it.
    pub(crate) last_stop: LastStop,
    lock: Flock<File>,
}

impl DataRoot {
    /// Makes the folder if need be, and locks it.
    ///
    /// # Errors
    /// It cannot be written to, or another host uses it.
    pub(super) fn lock(path: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(path).map_err(|e| cannot_write(path, &e))?;
        let file = open(path).map_err(|e| cannot_write(path, &e))?;
        let lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, errno)| match errno {
                Errno::EWOULDBLOCK => in_use(path, Mark::read(&file).ok()),
                errno => cannot_write(path, &errno.into()),
            })?;
        let last_stop = match Mark::read(&lock).map_err(|e| cannot_write(path, &e))? {
            Mark::None => LastStop::First,
            Mark::Clean => LastStop::Clean,
            Mark::Running => LastStop::Unclean,
            Mark::Copying => {
                return Err(Failure::unavailable(
                    format!(
                        "the data root {} is a copy that was cut off before it was whole",
                        path.display()
                    ),
                    "remove it (docker volume rm), and copy again into an empty one",
                ));
            }
        };
        Ok(Self { path: path.to_owned(), last_stop, lock })
    }

    /// Marks it as in use: from here on, only a clean stop leaves it clean.
    ///
    /// # Errors
    /// It cannot be written to.
    pub(crate) fn mark_running(&mut self) -> Result<(), Failure> {
        write(&mut self.lock, RUNNING).map_err(|e| cannot_write(&self.path, &e))
    }
}

/// Looks at the data root and changes nothing: the work of a child, which may hang with the disk or the server of files under it.
pub(crate) fn look(path: &Path) -> Looked {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    // What is wrong with them is said when they are locked.
    let _ = fs::metadata(path);
    let _ = OpenOptions::new().read(true).custom_flags(flags).open(path.join(LOCK_FILE));
    Looked {}
}

/// That the data root answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Looked {}

/// Opens the lock file. The data root may come from anywhere: a link or a pipe in its place is not followed.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(flags)
        .open(path.join(LOCK_FILE))?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other(format!("{LOCK_FILE} is no file")))
    }
}

/// Writes `word` into the lock file, durably. It is never empty on the way: a kill in the middle reads as a stop that was
/// not clean.
fn write(file: &mut File, word: &str) -> io::Result<()> {
    file.rewind()?;
    file.write_all(word.as_bytes())?;
    file.set_len(word.len() as u64)?;
    file.sync_all()
}

/// Marks the data root at `path` as cleanly left.
pub(crate) fn mark_clean(path: &Path) -> io::Result<()> {
    write(&mut open(path)?, CLEAN)
}

/// Why a host cannot have a data root for itself; `mark`: what it says while somebody else has it locked.
fn in_use(path: &Path, mark: Option<Mark>) -> Failure {
    let path = path.display();
    match mark {
        Some(Mark::Copying) => Failure::unavailable(
            format!("the data root {path} is becoming a copy of another, which is not done yet"),
            "start the host when it is",
        ),
        Some(Mark::Running) => Failure::unavailable(
            format!("the data root {path} is in use by another host"),
            "stop that host, or give this one a volume of its own",
        ),
        // A host that starts or ends, or those who copy it: they write nothing.
        _ => Failure::unavailable(
            format!("the data root {path} is in use by another host, or is being copied"),
            "stop that host or wait until the copy is done, or give this host a volume of its own",
        ),
    }
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
        let open = || {
            let mut root = DataRoot::lock(folder.path())?;
            root.mark_running().map(|()| root.last_stop)
        };
        assert_eq!(open(), Ok(LastStop::First));
        assert_eq!(open(), Ok(LastStop::Unclean));
        mark_clean(folder.path()).unwrap();
        assert_eq!(open(), Ok(LastStop::Clean));
        assert_eq!(open(), Ok(LastStop::Unclean));
        // Half a word, as a power cut might leave it.
        for half in [&b"cle"[..], b"clean\ng\n", b"\xff"] {
            fs::write(folder.path().join(LOCK_FILE), half).unwrap();
            assert_eq!(open(), Ok(LastStop::Unclean));
        }
    }

    #[test]
    fn half_a_copy_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCK_FILE), COPYING).unwrap();
        let failure = DataRoot::lock(folder.path()).err().unwrap();
        assert_eq!(failure.code, 69);
        assert!(failure.cause.contains("a copy that was cut off"), "{}", failure.cause);
    }

    #[test]
    fn a_link_or_a_pipe_in_place_of_the_lock_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join(LOCK_FILE);
        let other = folder.path().join("other");
        fs::write(&other, "untouched").unwrap();
        std::os::unix::fs::symlink(&other, &place).unwrap();
        assert!(DataRoot::lock(folder.path()).is_err());
        assert_eq!(fs::read_to_string(&other).unwrap(), "untouched");
        fs::remove_file(&place).unwrap();
        nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(DataRoot::lock(folder.path()).is_err());
    }

    #[test]
    fn two_hosts_cannot_share_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataRoot::lock(folder.path()).unwrap();
        let failure = DataRoot::lock(folder.path()).err().unwrap();
        assert_eq!(failure.code, 69);
        assert!(failure.cause.contains("in use by another host"), "{}", failure.cause);
        drop(first);
        assert!(DataRoot::lock(folder.path()).is_ok());
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let failure = DataRoot::lock(&file).err().unwrap();
        assert!(failure.cause.contains(&file.display().to_string()), "{}", failure.cause);
    }
}
