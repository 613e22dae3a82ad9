//! Programs, `docker-compose` first of all, run for the application by whoever looks after it.
#![allow(
    clippy::disallowed_methods,
    reason = "a child of PID 1 looks after its own children, in threads of its own"
)]

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// Time between two looks at whether one that writes no more has ended.
const LOOK: Duration = Duration::from_millis(5);

/// A program that runs.
#[derive(Debug, Clone)]
pub(super) struct Running(Arc<Mutex<Option<Child>>>);

impl Running {
    /// Ends it at once.
    pub(super) fn kill(&self) {
        if let Some(child) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let _ = child.kill();
        }
    }
}

/// Runs a program; `say` gets each of its lines, and `end` its exit code, 128 and more if it was killed.
pub(super) fn run(
    program: &'static str,
    arguments: Vec<String>,
    say: impl Fn(String) + Send + 'static,
    end: impl FnOnce(i32) + Send + 'static,
) -> Running {
    let running = Running(Arc::default());
    let shared = Arc::clone(&running.0);
    let (spawned, is_spawned) = std::sync::mpsc::channel();
    // The thread that starts it waits for its end: it is killed when that thread ends.
    thread::spawn(move || {
        let output = match start(program, &arguments) {
            Ok((child, output)) => {
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
                output
            }
            Err(e) => {
                let _ = spawned.send(());
                say(format!("{program} cannot be started: {e}"));
                return end(126);
            }
        };
        let _ = spawned.send(());
        let mut lines = BufReader::new(output);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim();
            if !text.is_empty() {
                say(text.to_owned());
            }
            line.clear();
        }
        loop {
            let mut child = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let status = child.as_mut().map(Child::try_wait);
            match status {
                Some(Ok(None)) => {}
                Some(Ok(Some(status))) => {
                    *child = None;
                    drop(child);
                    return end(status.code().unwrap_or(128));
                }
                Some(Err(_)) | None => return end(128),
            }
            drop(child);
            thread::sleep(LOOK);
        }
    });
    let _ = is_spawned.recv();
    running
}

fn start(program: &str, arguments: &[String]) -> io::Result<(Child, io::PipeReader)> {
    let (output, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
    }
    Ok((command.spawn()?, output))
}
