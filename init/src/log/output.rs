//! Where the log goes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

/// The most that a file holds before it is put aside, in bytes.
const KEPT: usize = 1024 * 1024;

/// Where lines go, without ever blocking.
pub(crate) enum Output {
    /// A pipe, terminal or file, opened anew so that `O_NONBLOCK` is ours alone: the flag belongs to the open file
    /// description (open(2)), which we share with whoever gave it to us and with the command of a terminal.
    File(File),
    /// A socket cannot be opened anew; send(2) takes the wish not to block with each call.
    Socket(OwnedFd),
    /// What else cannot be opened anew (there is no /proc yet): poll(2) says before each write whether it would block, which
    /// for a pipe is true of as much as is written at once.
    Shared(OwnedFd),
    /// A file of bounded size: standard output is a command's.
    Kept(Kept),
    /// The same, before there is a place for it.
    Held,
    /// Nobody reads.
    Gone,
}

/// A log in a file. When it is full it is put aside as `PATH.1`, in place of the one before it.
pub(crate) struct Kept {
    path: PathBuf,
    file: File,
    bytes: usize,
}

impl Kept {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let options = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        let file = options?;
        let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    /// Everything that is left of it.
    pub(super) fn read(&self) -> Vec<u8> {
        [self.before(), self.path.clone()]
            .into_iter()
            .flat_map(|path| fs::read(path).unwrap_or_default())
            .collect()
    }

    /// Where the older half is.
    fn before(&self) -> PathBuf {
        self.path.with_extension("1")
    }

    /// Whatever goes wrong (the disk is full, the command has removed the folder) may pass: it is tried again with the next line.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let later = |_| io::Error::from(io::ErrorKind::WouldBlock);
        if self.bytes >= KEPT {
            // Where it is gone already, a new one is begun.
            let _ = fs::rename(&self.path, self.before());
            *self = Self::open(&self.path).map_err(later)?;
        }
        let written = self.file.write(bytes).map_err(later)?;
        self.bytes += written;
        Ok(written)
    }
}

impl Output {
    /// The standard stream `fd` (1 or 2).
    pub(crate) fn standard(fd: RawFd) -> Self {
        let standard: io::Result<OwnedFd> = if fd == 2 {
            io::stderr().as_fd().try_clone_to_owned()
        } else {
            io::stdout().as_fd().try_clone_to_owned()
        };
        let path = format!("/proc/self/fd/{fd}");
        // A file never keeps its writer waiting, and its other writers share our place in it: opened anew, it would have another.
        if fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            return standard.map_or(Self::Gone, |fd| Self::File(File::from(fd)));
        }
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_APPEND;
        if let Ok(file) = OpenOptions::new().append(true).custom_flags(flags).open(path) {
            return Self::File(file);
        }
        standard.map_or(Self::Gone, Self::Socket)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Socket(socket) => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                match send(socket.as_raw_fd(), bytes, flags) {
                    Err(Errno::ENOTSOCK) => {
                        *self = Self::Shared(socket.try_clone()?);
                        self.write(bytes)
                    }
                    sent => Ok(sent?),
                }
            }
            Self::Shared(fd) => {
                let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
                if poll(&mut fds, PollTimeout::ZERO)? == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(nix::unistd::write(&*fd, bytes.get(..libc::PIPE_BUF).unwrap_or(bytes))?)
            }
            Self::Kept(kept) => kept.write(bytes),
            Self::Held => Err(io::ErrorKind::WouldBlock.into()),
            Self::Gone => Ok(bytes.len()),
        }
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::File(file) => Some(file.as_fd()),
            Self::Socket(fd) | Self::Shared(fd) => Some(fd.as_fd()),
            // A file never keeps its writer waiting.
            Self::Kept(_) | Self::Held | Self::Gone => None,
        }
    }
}
