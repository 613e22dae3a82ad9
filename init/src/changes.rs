//! Changes that somebody else makes to a file, as inotify(7) tells of them.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Those to one file, from the moment this was made.
pub(crate) struct Changes(Inotify);

impl Changes {
    /// Does not wait for the disk where another process has the file open.
    ///
    /// # Errors
    /// There is no such file, or the machine's `fs.inotify.max_user_instances` are used up.
    pub(crate) fn of(file: &Path) -> nix::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(file, AddWatchFlags::IN_MODIFY)?;
        Ok(Self(inotify))
    }

    /// What to poll for `POLLIN`.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Whether there was any since the last call.
    pub(crate) fn heard(&self) -> bool {
        // The kernel makes one of those that are alike and not read yet, so that one call takes them all.
        self.0.read_events().is_ok_and(|events| !events.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_change_is_heard_once() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let changes = Changes::of(file.path()).unwrap();
        assert!(!changes.heard());
        file.write_all(b"one").unwrap();
        file.write_all(b"two").unwrap();
        assert!(changes.heard());
        assert!(!changes.heard());
        assert!(Changes::of(Path::new("/nowhere/meta.db")).is_err());
    }
}
