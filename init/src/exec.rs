//! `dind-init exec`: a plain init. It runs one command, reaps every orphan, forwards every signal that can be forwarded, hands over
//! the terminal, and ends as the command ends.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::command::{Command, Foreground};
use crate::failure::Failure;
use crate::reaper::{self, Fate};
use crate::signals;
use crate::supervisor::End;

/// Runs `words` with `environment`, from the first to the last moment.
///
/// # Errors
/// The command cannot be found (127), executed (126) or started (125).
pub(crate) fn run(
    words: &[OsString],
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<ExitCode, Failure> {
    supervise(&Command::find(words, environment)?)
}

/// Runs a command that was found.
///
/// # Errors
/// It cannot be executed (126, 127) or started (125).
pub(crate) fn supervise(command: &Command) -> Result<ExitCode, Failure> {
    let system = |e: io::Error| Failure::failed(format!("cannot take over signals: {e}"), "report this");
    let signals = signals::take_over().map_err(system)?;
    // What leaves its parent comes to us, wherever we are. Where we are PID 1 it does anyway.
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| system(e.into()))?;
    let mut foreground = command.start()?;
    loop {
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        // Whatever it says, looking at everything is right.
        let _ = poll(&mut fds, PollTimeout::NONE);
        while let Ok(Some(signal)) = signals.read_signal() {
            if signal.ssi_signo != libc::SIGCHLD.unsigned_abs() {
                foreground.signal(signal.ssi_signo);
            }
        }
        if let Some(end) = reap(&mut foreground) {
            foreground.ended();
            return Ok(ExitCode::from(end.code()));
        }
    }
}

/// Collects whoever has ended; the command's end, if it is among them.
fn reap(foreground: &mut Foreground) -> Option<End> {
    let mut ended = None;
    for (pid, fate) in reaper::reap() {
        match fate {
            Fate::Ended(end) if pid == foreground.pid => ended = Some(end),
            Fate::Stopped if pid == foreground.pid => foreground.stopped(),
            _ => {}
        }
    }
    ended
}
