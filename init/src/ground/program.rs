//! Programs that a child of the host runs to their end, each with a deadline. PID 1 runs none of them.
#![allow(clippy::disallowed_methods, reason = "a child of PID 1 looks after its own children")]

use std::ffi::OsStr;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// The most that is kept of what one writes.
const LONGEST: usize = 4 * 1024 * 1024;
/// Time between two looks at whether a program that writes no more has ended.
const LOOK: Duration = Duration::from_millis(1);

/// A program that runs; it is killed when this value goes, or when the thread that started it ends.
pub(super) struct Program {
    name: String,
    child: Child,
    output: PipeReader,
}

impl Program {
    /// Starts `program`, a path or a name in PATH, with this input, which is short.
    ///
    /// # Errors
    /// Why it cannot be started, in one line.
    pub(super) fn start<S: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = S>,
        input: &str,
    ) -> Result<Self, String> {
        let path = Path::new(program.as_ref());
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let cannot = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound if path.is_absolute() => format!("there is no {}", path.display()),
            io::ErrorKind::NotFound => format!("{name} is in no folder of PATH"),
            _ => format!("cannot start {name}: {e}"),
        };
        let (output, writer) = io::pipe().map_err(cannot)?;
        // A pipe takes this much at once, so that nobody need wait for it to be read.
        let (stdin, mut typed) = io::pipe().map_err(cannot)?;
        typed.write_all(input.as_bytes()).map_err(cannot)?;
        drop(typed);
        let mut command = Command::new(path);
        command.args(arguments).stdin(stdin);
        command.stdout(writer.try_clone().map_err(cannot)?).stderr(writer);
        // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe and allocates nothing.
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let child = command.spawn().map_err(cannot)?;
        // `command` goes here, and with it our ends of the pipe's writer: the output ends with the program.
        Ok(Self { name, child, output })
    }

    /// Waits for its end, for at most `patience`; its exit code, and what it wrote.
    ///
    /// # Errors
    /// It takes too long, or is killed.
    pub(super) fn finish(mut self, patience: Duration) -> Result<(i32, String), String> {
        let deadline = Instant::now() + patience;
        let said = self.read(deadline);
        let status = self
            .wait(deadline)
            .ok_or_else(|| format!("{} was not done after {:.0?}", self.name, patience))?;
        let said = String::from_utf8_lossy(&said).into_owned();
        status.code().map(|code| (code, said)).ok_or_else(|| format!("{} was killed", self.name))
    }

    /// Whether it has ended by itself: what it wrote.
    pub(super) fn has_ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten()?;
        let mut said = String::new();
        let _ = self.output.read_to_string(&mut said);
        Some(in_one_line(&said))
    }

    /// What it wrote until it closed its output, or the deadline passed.
    fn read(&mut self, deadline: Instant) -> Vec<u8> {
        let mut said = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
            match ready {
                Err(Errno::EINTR) if !left.is_zero() => continue,
                Ok(1..) if !left.is_zero() => {}
                _ => break,
            }
            let mut piece = [0; 8192];
            match self.output.read(&mut piece) {
                // What is too much is read, too: a program that cannot write waits.
                Ok(length @ 1..) if said.len() < LONGEST => {
                    said.extend_from_slice(piece.get(..length).unwrap_or_default());
                }
                Ok(1..) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        said
    }

    /// How it ended; `None`: it has not by the deadline.
    fn wait(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(LOOK),
                _ => return None,
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program that must end well; what it wrote.
///
/// # Errors
/// It cannot be started, fails or takes too long: why, in one line.
pub(crate) fn run<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = S>,
    input: &str,
    patience: Duration,
) -> Result<String, String> {
    let program = Program::start(program, arguments, input)?;
    let name = program.name.clone();
    match program.finish(patience)? {
        (0, said) => Ok(said),
        (code, said) if said.trim().is_empty() => Err(format!("{name} ended with code {code}")),
        (_, said) => Err(format!("{name}: {}", in_one_line(&said))),
    }
}

/// What a program wrote, as a part of a line.
pub(super) fn in_one_line(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn shell(line: &str, patience: Duration) -> Result<String, String> {
        run("/bin/sh", ["-c", line], "input", patience)
    }

    #[test]
    fn how_a_program_ended_is_said() {
        assert_eq!(shell("cat; echo done", PATIENCE).unwrap(), "inputdone\n");
        let failed = shell("echo; echo table is missing >&2; echo so; exit 3", PATIENCE);
        assert_eq!(failed.unwrap_err(), "sh: table is missing; so");
        assert_eq!(shell("exit 3", PATIENCE).unwrap_err(), "sh ended with code 3");
        assert_eq!(shell("kill -9 $$", PATIENCE).unwrap_err(), "sh was killed");
        assert_eq!(run("/nowhere/x", [""; 0], "", PATIENCE).unwrap_err(), "there is no /nowhere/x");
        assert_eq!(run("x-y-z", [""; 0], "", PATIENCE).unwrap_err(), "x-y-z is in no folder of PATH");
    }

    #[test]
    fn one_that_hangs_is_killed() {
        for line in ["exec sleep 1000", "exec >&- 2>&-; exec sleep 1000"] {
            let hung = shell(line, Duration::from_millis(200));
            assert_eq!(hung.unwrap_err(), "sh was not done after 200ms", "{line}");
        }
    }
}
