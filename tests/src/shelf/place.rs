//! The two engines: that of the machine, and that of a host.

use std::time::{Duration, Instant};

use crate::command::{Call, Ended};
use crate::engine::{self, docker};
use crate::host::Host;
use crate::wait::patience;

use super::archive::local_name;

/// How long one `docker` command may take, in seconds.
const COMMAND: u64 = 90;
const PAUSE: Duration = Duration::from_millis(200);

/// An engine that runs images of the shelf.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// The engine of the machine.
    Machine,
    /// The engine of a host, with the images in it.
    Host(&'a Host),
}

impl Place<'_> {
    /// The name of an image there.
    pub(super) fn image(self, name: &str) -> String {
        match self {
            Place::Machine => local_name(name),
            Place::Host(_) => name.to_owned(),
        }
    }

    /// The options that mark what is made there as a test's; what is made in a host goes with the host.
    pub(super) fn labels(self) -> Vec<String> {
        match self {
            Place::Machine => engine::labels(),
            Place::Host(_) => Vec::new(),
        }
    }

    /// The address at which this machine reaches what is published there.
    pub(super) fn address(self) -> String {
        match self {
            Place::Machine => "127.0.0.1".into(),
            Place::Host(host) => host.ip(),
        }
    }

    /// A call of `docker` there.
    pub(super) fn call(self) -> Call {
        match self {
            Place::Machine => Call::new("docker"),
            Place::Host(host) => Call::new("docker").args(["exec", "-i", host.name(), "docker"]),
        }
        .within(COMMAND)
    }

    /// Runs `docker` there; its standard output.
    ///
    /// # Errors
    /// When it fails: how, and with what output.
    pub(super) fn docker<S: AsRef<str>>(self, args: impl IntoIterator<Item = S>) -> Result<String, String> {
        succeed(self.call().args(args))
    }
}

/// Runs an image on the engine of the machine, with these options of `docker run`, until it ends.
#[track_caller]
pub fn run(image: &str, options: &[&str], command: &[&str]) -> Ended {
    let labels = engine::labels();
    let labels = labels.iter().map(String::as_str);
    let words = ["run", "--rm"].into_iter().chain(labels).chain(options.iter().copied());
    docker(words.chain([image]).chain(command.iter().copied()))
}

/// Runs a command; its standard output without the last newline.
///
/// # Errors
/// When it fails: how, and with what output.
pub(super) fn succeed(call: Call) -> Result<String, String> {
    let ended = call.attempt()?;
    match ended.code {
        Some(0) => Ok(ended.stdout.trim_end().to_owned()),
        _ => Err(ended.to_string()),
    }
}

/// Asks `condition` until it is true, for at most `seconds` times [`patience`].
///
/// # Errors
/// When it cannot be asked, or when the time is up: with what it said last.
pub(super) fn wait(
    seconds: u64,
    mut condition: impl FnMut() -> Result<Result<(), String>, String>,
) -> Result<(), String> {
    let seconds = seconds * u64::from(patience());
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match condition()? {
            Ok(()) => return Ok(()),
            Err(last) if Instant::now() >= deadline => return Err(format!("after {seconds} s: {last}")),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
