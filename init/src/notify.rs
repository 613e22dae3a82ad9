//! The socket on which services say that they are ready, as sd_notify(3) describes.

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg, setsockopt, sockopt,
};

/// The socket. It has a path and no abstract name, which other hosts in the same network namespace would share.
pub(crate) struct Notifications(UnixDatagram);

impl Notifications {
    /// Binds it at `path`.
    ///
    /// # Errors
    /// What bind(2) or setsockopt(2) said.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(Self(socket))
    }

    /// What to poll for `POLLIN`.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The pids, as the kernel vouches for them, of those that have said `READY=1` since the last call.
    pub(crate) fn ready(&self) -> Vec<i32> {
        let mut ready = Vec::new();
        // Bounded, so that a sender who never stops cannot hold the loop.
        for _ in 0..64 {
            let mut bytes = [0; 4096];
            let mut pieces = [IoSliceMut::new(&mut bytes)];
            let mut control = nix::cmsg_space!(UnixCredentials);
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let Ok(message) = recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut pieces, Some(&mut control), flags)
            else {
                break;
            };
            let sender = message.cmsgs().ok().into_iter().flatten().find_map(|control| match control {
                ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
                _ => None,
            });
            let length = message.bytes;
            if let Some(sender) = sender
                && says_ready(bytes.get(..length).unwrap_or_default())
            {
                ready.push(sender);
            }
        }
        ready
    }
}

fn says_ready(message: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_known_by_its_pid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let notifications = Notifications::bind(&path).unwrap();
        assert_eq!(notifications.ready(), [0; 0]);
        let sender = UnixDatagram::unbound().unwrap();
        for message in ["STOPPING=1", "READY=1", "STATUS=x\nREADY=1\n", "READY=10", "NOTREADY=1"] {
            sender.send_to(message.as_bytes(), &path).unwrap();
        }
        let ourselves = i32::try_from(std::process::id()).unwrap();
        assert_eq!(notifications.ready(), [ourselves; 2]);
    }
}
