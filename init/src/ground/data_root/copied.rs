//! The two data roots of a copy: the one that it is made of, on which no host may start meanwhile, and the one that it becomes, on
//! which none may before it is whole.
//!
//! Copies share the lock that a host has for itself, so that any number of them can be made at once. The mark `copying` goes to the
//! disk before anything else does, and is replaced when everything is there: whatever cuts a copy off, it is never taken for whole.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dind_contract::paths::{DAMAGED, LOCK_FILE};
use dind_contract::status::LastStop;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{CLEAN, COPYING, Mark, open, write};
use crate::failure::Failure;

/// What mkfs puts into a new file system.
const LOST_AND_FOUND: &str = "lost+found";
/// An attribute of the kind in which overlay keeps what it must know of a file.
const ATTRIBUTE: &std::ffi::CStr = c"trusted.dind";
/// `FICLONE` of ioctl_ficlone(2).
const CLONE: libc::Ioctl = 0x4004_9409;

/// A data root that is being copied: no host starts on it for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Source {
    /// Where it is.
    pub(crate) path: PathBuf,
    last_stop: LastStop,
    lock: Flock<File>,
}

impl Source {
    /// Takes hold of a data root that was left in order.
    ///
    /// # Errors
    /// There is none, a host uses it, or how the last one left it forbids a copy.
    pub(crate) fn lock(path: &Path) -> Result<Self, Failure> {
        let path = folder(path)?;
        let shown = path.display();
        let file = open_to_share(&path).map_err(|e| {
            Failure::unavailable(
                format!("the data root {shown} cannot be locked: {e}"),
                "mount it without `:ro`: nothing is written there but an empty dind.lock, where there is none yet",
            )
        })?;
        let lock = Flock::lock(file, FlockArg::LockSharedNonblock).map_err(|(file, errno)| match errno {
            Errno::EWOULDBLOCK if matches!(Mark::read(&file), Ok(Mark::Copying)) => {
                Failure::unavailable(format!("the data root {shown} is itself a copy in the making"), "wait until it is done")
            }
            Errno::EWOULDBLOCK => Failure::unavailable(
                format!("the data root {shown} is in use by a host"),
                "stop that host first: docker ps --filter volume=NAME tells which it is, if NAME is mounted here",
            ),
            errno => cannot("lock", &path, &errno.into()),
        })?;
        let last_stop = match Mark::read(&lock).map_err(|e| cannot("read the mark of", &path, &e))? {
            Mark::None => LastStop::First,
            Mark::Clean => LastStop::Clean,
            Mark::Copying => return Err(cut_off(&path)),
            Mark::Running => {
                return Err(Failure::unavailable(
                    format!("the last stop of a host on the data root {shown} was not clean"),
                    "start a host on it once, which checks it, and stop that; or copy another",
                ));
            }
        };
        Ok(Self { path, last_stop, lock })
    }

    /// The names of what is to be copied: everything but what belongs to this data root alone.
    pub(crate) fn names(&self) -> Result<Vec<OsString>, Failure> {
        let names = names(&self.path).map_err(|e| cannot("list", &self.path, &e))?;
        let own = [LOCK_FILE, DAMAGED, LOST_AND_FOUND];
        Ok(names.into_iter().filter(|name| own.iter().all(|own| name != own)).collect())
    }
}

/// An empty folder that becomes a copy, and belongs to nobody else meanwhile.
#[derive(Debug)]
pub(crate) struct Target {
    /// Where it is.
    pub(crate) path: PathBuf,
    lock: Flock<File>,
}

impl Target {
    /// Takes hold of an empty folder, and marks it as a copy in the making.
    ///
    /// # Errors
    /// There is none, it is not empty, it is `source`, or it cannot hold a data root's files.
    pub(crate) fn lock(path: &Path, source: &Source) -> Result<Self, Failure> {
        let path = folder(path)?;
        let shown = path.display();
        let identity = |path: &Path| fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
        let same = identity(&path) == identity(&source.path);
        if same || path.starts_with(&source.path) || source.path.starts_with(&path) {
            return Err(Failure::usage(
                format!("{shown} is the data root {}, or one is in the other", source.path.display()),
                "copy into an empty volume of its own",
            ));
        }
        // Looked at before the lock, so that a folder that is refused is left as it was, and again when nobody else can fill it.
        refuse_full(&path)?;
        let file = open(&path).map_err(|e| super::cannot_write(&path, &e))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => Failure::unavailable(
                format!("the folder {shown} is in use by a host or another copy"),
                "copy into an empty volume of its own",
            ),
            errno => cannot("lock", &path, &errno.into()),
        })?;
        refuse_full(&path)?;
        let mut target = Self { path, lock };
        target.try_attribute()?;
        let marked = write(&mut target.lock, COPYING).and_then(|()| File::open(&target.path)?.sync_all());
        marked.map_err(|e| super::cannot_write(&target.path, &e))?;
        Ok(target)
    }

    /// Whether attributes of overlay can be written here. Who may not does not see them in the source either, and would not
    /// miss them. Where the file system has none, cp(1) fails at the first.
    fn try_attribute(&self) -> Result<(), Failure> {
        let file = self.lock.as_raw_fd();
        // SAFETY: the descriptor is open, and the name ends in a zero; nothing is read through the other pointer.
        let result = unsafe { libc::fsetxattr(file, ATTRIBUTE.as_ptr(), std::ptr::null(), 0, 0) };
        match Errno::result(result) {
            Err(Errno::EPERM) => Err(Failure::unavailable(
                format!(
                    "this container may not write overlay's attributes (trusted.*) in {}",
                    self.path.display()
                ),
                "run the copy with --cap-add SYS_ADMIN, as root, and in no user namespace",
            )),
            // Out of room, say: the copy itself will tell.
            Err(_) => Ok(()),
            Ok(_) => {
                // SAFETY: the descriptor is open, and the name ends in a zero.
                let removed = unsafe { libc::fremovexattr(file, ATTRIBUTE.as_ptr()) };
                Errno::result(removed).map(drop).map_err(|e| super::cannot_write(&self.path, &e.into()))
            }
        }
    }

    /// Whether files of `source` are copied without their bytes being read: a small one is tried.
    pub(crate) fn shares_extents_with(&self, source: &Source) -> bool {
        let place = self.path.join("dind.clone");
        let Ok(file) = File::create_new(&place) else { return false };
        // SAFETY: both descriptors are open, and the kernel takes the second as a number.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), CLONE, source.lock.as_raw_fd()) };
        let _ = fs::remove_file(&place);
        result == 0
    }

    /// Everything is there: brings it to the disk, and marks it as its source is marked. Without the sync the mark would promise
    /// what a power cut takes back, and the check that follows one relies on records that an engine writes with a sync.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(crate) fn finish(mut self, source: &Source) -> Result<(), Failure> {
        let synced = File::open(&self.path).and_then(|folder| Ok(nix::unistd::syncfs(&folder)?));
        synced.map_err(|e| cannot("sync", &self.path, &e))?;
        let word = if source.last_stop == LastStop::Clean { CLEAN } else { "" };
        write(&mut self.lock, word).map_err(|e| super::cannot_write(&self.path, &e))
    }
}

/// The folder at `path`, without links on its way.
fn folder(path: &Path) -> Result<PathBuf, Failure> {
    let found = path.canonicalize().and_then(|path| match path.is_dir() {
        true => Ok(path),
        false => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
    });
    found.map_err(|e| {
        let help = format!("mount a volume there: -v NAME:{}", path.display());
        Failure::usage(format!("there is no folder {}: {e}", path.display()), help)
    })
}

/// Opens the lock file of a data root, which may be mounted read-only.
fn open_to_read(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path.join(LOCK_FILE))?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other(format!("{LOCK_FILE} is no file")))
    }
}

/// The same where it is made if no host has ever used the data root.
fn open_to_share(path: &Path) -> io::Result<File> {
    match open_to_read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => open(path),
        opened => opened,
    }
}

/// A lock file that says nothing is what a copy that was refused leaves behind.
fn refuse_full(path: &Path) -> Result<(), Failure> {
    let mark = open_to_read(path).and_then(|file| Mark::read(&file)).ok();
    let may_be_there =
        |name: &OsString| name == LOST_AND_FOUND || name == LOCK_FILE && mark == Some(Mark::None);
    let names = names(path).map_err(|e| cannot("list", path, &e))?;
    let Some(name) = names.into_iter().filter(|name| !may_be_there(name)).min() else { return Ok(()) };
    if mark == Some(Mark::Copying) {
        return Err(cut_off(path));
    }
    Err(Failure::unavailable(
        format!("the folder {} is not empty: there is {name:?} in it", path.display()),
        "copy into an empty volume",
    ))
}

fn names(path: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

/// One that nobody is to use. It may be in the making, too: who is at work there has it locked.
fn cut_off(path: &Path) -> Failure {
    Failure::unavailable(
        format!("the data root {} is a copy that was cut off, or is not done yet", path.display()),
        "if nothing copies there any more, remove it (docker volume rm), and copy again into an empty one",
    )
}

fn cannot(what: &str, path: &Path, e: &io::Error) -> Failure {
    Failure::unavailable(format!("cannot {what} {}: {e}", path.display()), "look at the machine's disk")
}

#[cfg(test)]
mod tests;
