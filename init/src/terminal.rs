//! The terminal, and whose it is: the process group in its foreground may read from it, and hears Ctrl-C (credentials(7),
//! termios(3)).

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::unistd::{Pid, getpgrp, getsid, tcgetpgrp, tcsetpgrp};

/// Our controlling terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    fd: OwnedFd,
}

impl Terminal {
    /// The terminal, if our session has one.
    pub(crate) fn ours() -> Option<Self> {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let fd = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]
            .into_iter()
            // ENOTTY, too, where it is a terminal and not the one that controls our session.
            .find(|fd| tcgetpgrp(fd).is_ok())
            .and_then(|fd| fd.try_clone_to_owned().ok());
        // Who asks for a password opens it by this name, whatever the streams are.
        let by_name =
            || OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/tty");
        Some(Self { fd: fd.or_else(|| by_name().ok().map(OwnedFd::from))? })
    }

    /// Whether our own process group is in the foreground.
    pub(crate) fn is_with_us(&self) -> bool {
        tcgetpgrp(&self.fd) == Ok(getpgrp())
    }

    /// Puts a process group into the foreground. SIGTTOU is blocked here, so that this does not stop us.
    pub(crate) fn give_to(&self, group: i32) {
        let _ = tcsetpgrp(&self.fd, Pid::from_raw(group));
    }

    /// Puts our own process group there again, for whoever reads from the terminal after us.
    pub(crate) fn take_back(&self) {
        let _ = tcsetpgrp(&self.fd, getpgrp());
    }

    /// The same terminal for a child to use between fork and exec.
    pub(crate) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }
}

/// Whether a shell with job control may be above us, who could bring us back when we were stopped: it is in our session, and has given
/// us a process group that is not its own.
pub(crate) fn has_job_control() -> bool {
    let Ok(session) = getsid(None) else { return false };
    let parent = nix::unistd::getppid();
    // A parent outside our pid namespace is 0, which would be ourselves.
    parent.as_raw() != 0 && getpgrp() != session && getsid(Some(parent)) == Ok(session)
}
