//! Programs that a child of the host runs to their end, each with a deadline. PID 1 runs none of them.
#![expect(
    clippy::disallowed_methods,
    reason = "a child of the host is an ordinary program, and waits for its own children"
)]

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// A program that runs; it is killed when this value goes, or when whoever started it does.
pub(super) struct Program {
    name: String,
    child: Child,
    output: io::PipeReader,
}

impl Program {
    /// Starts `name`, found in PATH.
    pub(super) fn start(name: &str, arguments: &[&str]) -> Result<Self, String> {
        let cannot = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => format!("{name} is in no folder of PATH"),
            _ => format!("cannot start {name}: {e}"),
        };
        let (output, writer) = io::pipe().map_err(cannot)?;
        let mut command = Command::new(name);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(writer.try_clone().map_err(cannot)?).stderr(writer);
        // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe and allocates nothing.
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let child = command.spawn().map_err(cannot)?;
        // `command` goes here, and with it our ends of the pipe's writer: the output ends with the program.
        Ok(Self { name: name.to_owned(), child, output })
    }

    /// Waits for its end, for at most `patience`; its exit code, and what it wrote.
    pub(super) fn finish(mut self, patience: Duration) -> Result<(i32, String), String> {
        let deadline = Instant::now() + patience;
        let mut said = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{} was not done after {} s", self.name, patience.as_secs()));
            }
            let mut fds = [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            if poll(&mut fds, timeout).is_ok_and(|ready| ready > 0) {
                let mut piece = [0; 4096];
                match self.output.read(&mut piece) {
                    Ok(0) => break,
                    Ok(length) => said.extend_from_slice(piece.get(..length).unwrap_or_default()),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(format!("cannot read what {} says: {e}", self.name)),
                }
            }
        }
        let status = self.child.wait().map_err(|e| format!("cannot wait for {}: {e}", self.name))?;
        let said = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
        match status.code() {
            Some(code) => Ok((code, said)),
            None => Err(format!("{} was killed", self.name)),
        }
    }

    /// Whether it has ended by itself: what it wrote.
    pub(super) fn has_ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten()?;
        let mut said = String::new();
        let _ = self.output.read_to_string(&mut said);
        Some(said.trim().replace('\n', "; "))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program that must end well.
pub(super) fn run(name: &str, arguments: &[&str], patience: Duration) -> Result<(), String> {
    match Program::start(name, arguments)?.finish(patience)? {
        (0, _) => Ok(()),
        (code, said) => Err(format!("{name} ended with code {code}: {said}")),
    }
}
