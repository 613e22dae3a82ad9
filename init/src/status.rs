//! The status socket: whoever connects gets the status as one line of JSON at once, and another after each change.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use dind_contract::Status;

/// Of more listeners than this, the oldest are sent away: they are most likely one that forgets to hang up.
const MOST: usize = 64;

/// The socket and those who listen.
pub(crate) struct StatusSocket {
    listener: UnixListener,
    /// Those who have come in and heard nothing yet.
    newcomers: Vec<UnixStream>,
    listeners: Vec<UnixStream>,
}

impl StatusSocket {
    /// Binds it at `path`, for root.
    ///
    /// # Errors
    /// What bind(2) said.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, newcomers: Vec::new(), listeners: Vec::new() })
    }

    /// What to poll for `POLLIN`.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Those who listen, to poll for their hanging up.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd)
    }

    /// Lets in whoever waits at the door; says whether anyone did.
    pub(crate) fn accept(&mut self) -> bool {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.listeners.len() + self.newcomers.len() >= MOST && !self.listeners.is_empty() {
                self.listeners.remove(0);
            }
            if self.newcomers.len() < MOST && stream.set_nonblocking(true).is_ok() {
                self.newcomers.push(stream);
            }
        }
        !self.newcomers.is_empty()
    }

    /// Tells everyone the status; those who have just come in hear it for the first time.
    pub(crate) fn tell(&mut self, status: &Status) {
        let line = serde_json::to_string(status).unwrap_or_default() + "\n";
        let mut all = std::mem::take(&mut self.listeners);
        all.append(&mut self.newcomers);
        // One that does not read, so that the line does not fit, is given up: it shall not keep us.
        self.listeners = all
            .into_iter()
            .filter_map(|mut stream| stream.write_all(line.as_bytes()).ok().map(|()| stream))
            .collect();
    }

    /// Forgets those who have hung up.
    pub(crate) fn forget_gone(&mut self) {
        self.listeners.retain(|stream| {
            let mut byte = [0];
            // They say nothing: whatever comes is the end, or somebody who has mistaken the door.
            matches!(
                nix::sys::socket::recv(
                    std::os::fd::AsRawFd::as_raw_fd(stream),
                    &mut byte,
                    nix::sys::socket::MsgFlags::MSG_DONTWAIT,
                ),
                Err(nix::errno::Errno::EAGAIN)
            )
        });
    }
}
