//! The socket on which services say that they are ready, as sd_notify(3) describes.

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg, setsockopt, sockopt,
};

/// The longest message, in bytes: a report on an application with hundreds of containers.
pub(crate) const LONGEST: usize = 64 * 1024;
/// What a report on the application begins with; sd_notify(3) leaves names that begin with `X_` to whoever wants them.
pub(crate) const APPLICATION: &str = "X_DIND_APPLICATION=";

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

    /// What was said since the last call, each with the pid of who said it, for which the kernel vouches.
    pub(crate) fn heard(&self) -> Vec<(i32, Said)> {
        let mut heard = Vec::new();
        let mut bytes = vec![0; LONGEST];
        // Bounded, so that a sender who never stops cannot hold the loop.
        for _ in 0..64 {
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
            let said = meaning(bytes.get(..length).unwrap_or_default());
            if let (Some(sender), Some(said)) = (sender, said) {
                heard.push((sender, said));
            }
        }
        heard
    }
}

/// What services say here that matters to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// `READY=1`
    Ready,
    /// How the application is, in the words of who looks after it.
    Application(String),
}

fn meaning(message: &[u8]) -> Option<Said> {
    message.split(|byte| *byte == b'\n').find_map(|line| match line.strip_prefix(APPLICATION.as_bytes()) {
        Some(report) => Some(Said::Application(String::from_utf8_lossy(report).into_owned())),
        None => (line == b"READY=1").then_some(Said::Ready),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_known_by_its_pid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let notifications = Notifications::bind(&path).unwrap();
        assert_eq!(notifications.heard(), []);
        let sender = UnixDatagram::unbound().unwrap();
        let messages = [
            "STOPPING=1",
            "READY=1",
            "STATUS=x\nREADY=1\n",
            "READY=10",
            "NOTREADY=1",
            "X_DIND_APPLICATION={}\n",
        ];
        for message in messages {
            sender.send_to(message.as_bytes(), &path).unwrap();
        }
        let ourselves = i32::try_from(std::process::id()).unwrap();
        let said = [Said::Ready, Said::Ready, Said::Application("{}".into())];
        assert_eq!(notifications.heard(), said.map(|said| (ourselves, said)));
    }
}
