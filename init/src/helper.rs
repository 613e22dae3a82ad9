//! Work before the loop that may hang, or that needs other programs: done by a child with a deadline, so that PID 1 never
//! waits in anything but `poll`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use dind_contract::Status;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::interrupts::Interrupts;
use crate::log::Log;
use crate::status::StatusSocket;
use crate::{process, reaper};

/// The most that a helper may answer, in bytes; the rest is not read.
const LONGEST: usize = 16 * 1024 * 1024;
/// Time between two lines that say what is being waited for.
const NOTICE: Duration = Duration::from_secs(10);

/// Those who ask a host how it is while a helper works.
pub(crate) struct Door {
    pub(crate) socket: StatusSocket,
    /// What they hear, with what is being waited for among its warnings.
    pub(crate) status: Status,
}

impl Door {
    fn welcome(&mut self, what: &str, seconds_left: Option<u64>) {
        self.socket.forget_gone();
        if self.socket.accept() {
            let mut status = Status { seconds_left, ..self.status.clone() };
            status.warnings.push(format!("still waiting for {what}"));
            self.socket.tell(&status);
        }
    }
}

/// Why a host does not come up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotUp {
    /// Something that a user must read.
    Failed(Failure),
    /// It was asked to stop; the signal's name and number.
    Stopped { why: String, number: u32 },
    /// Its time, of this length, is over.
    TimeOver(Duration),
}

impl From<Failure> for NotUp {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Another process of this very program, at work.
pub(crate) struct Helper {
    /// What it does, as in "waiting for WHAT".
    what: &'static str,
    /// Until its output has ended.
    pid: Option<i32>,
    output: PipeReader,
    deadline: Instant,
    /// Whether a wish to stop waits until it has ended.
    undisturbed: bool,
}

impl Helper {
    /// Starts `dind-init ARGUMENTS` with this environment. It has `patience` for its work.
    ///
    /// # Errors
    /// No process can be made.
    pub(crate) fn start(
        what: &'static str,
        arguments: &[String],
        environment: &BTreeMap<String, OsString>,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let started = process::start_ourselves(arguments, environment).map_err(|e| {
            Failure::unavailable(
                format!("cannot start the process for {what}: {e}"),
                "give the host more processes (--pids-limit) or memory (-m)",
            )
        })?;
        Ok(Self {
            what,
            pid: Some(started.pid),
            output: started.output,
            deadline: Instant::now() + patience,
            undisturbed: false,
        })
    }

    /// One that must not be cut off, because it is changing something that would not stand it. A wish to stop is heard when it
    /// has ended.
    pub(crate) fn undisturbed(mut self) -> Self {
        self.undisturbed = true;
        self
    }

    /// Waits for the helper's end, and gives its answer. One is whole or it does not parse, so the exit status is not looked
    /// at: whoever reaps first has it.
    ///
    /// # Errors
    /// A stop was asked for, or its own time or the host's is over: the helper is killed then. Or it has ended without an answer.
    pub(crate) fn answer<T: DeserializeOwned>(
        self,
        interrupts: &Interrupts,
        log: &mut Log,
        door: Option<&mut Door>,
    ) -> Result<T, NotUp> {
        let what = self.what;
        let said = self.finish(interrupts, log, door)?;
        serde_json::from_slice(&said).map_err(|_| {
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            let failure = if said.is_empty() {
                Failure::unavailable(
                    format!("the process for {what} was killed"),
                    "give the host more memory (-m), if that was the reason: the machine's kernel log says it",
                )
            } else {
                Failure::failed(format!("{what} failed: {said}"), "report this as a defect")
            };
            failure.into()
        })
    }

    /// What it wrote until it ended.
    fn finish(
        mut self,
        interrupts: &Interrupts,
        log: &mut Log,
        mut door: Option<&mut Door>,
    ) -> Result<Vec<u8>, NotUp> {
        let mut answer = Vec::new();
        let mut notice = Instant::now() + NOTICE;
        while answer.len() < LONGEST {
            if !self.undisturbed
                && let Some(stop) = interrupts.stop()
            {
                return Err(stop);
            }
            reaper::reap();
            if let Some(door) = &mut door {
                door.welcome(self.what, interrupts.seconds_left());
            }
            let mut piece = [0; 8192];
            match self.output.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => {
                    answer.extend_from_slice(piece.get(..length).unwrap_or_default());
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            }
            let now = Instant::now();
            if now >= self.deadline {
                return Err(Failure::unavailable(
                    format!("{} did not come to an end in time", self.what),
                    "look at the machine: its disk may hang, or it may be out of memory or processes",
                )
                .into());
            }
            if now >= notice {
                log.info(&format!("still waiting for {}", self.what));
                notice = now + NOTICE;
            }
            let wake = self.deadline.min(notice);
            let wake = interrupts.ends().filter(|_| !self.undisturbed).map_or(wake, |ends| ends.min(wake));
            let left = wake.saturating_duration_since(now) + Duration::from_millis(1);
            let mut fds = vec![PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
            if !self.undisturbed {
                fds.push(PollFd::new(interrupts.signals.as_fd(), PollFlags::POLLIN));
            }
            fds.extend(door.iter().map(|door| PollFd::new(door.socket.fd(), PollFlags::POLLIN)));
            // Whatever it says, looking at everything is right.
            let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        }
        if answer.len() < LONGEST {
            // It ends by itself, and its number may soon be another's.
            self.pid = None;
        }
        reaper::reap();
        Ok(answer)
    }
}

impl Drop for Helper {
    /// Nobody waits for it any more.
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            process::send(pid, Signal::SIGKILL);
        }
    }
}
