//! Clients that commit rows until they are disturbed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::super::engine::Engine;
use super::database::Database;
use super::ledger::{Ledger, WRITERS};

/// How many seconds the first answer may take.
const FIRST: u64 = 60;
/// How many seconds after the fault clients may go on: where they outlive it, they commit what they have read already.
const LAST: u64 = 10;
/// How often the clock is looked at.
const PAUSE: Duration = Duration::from_millis(5);

/// Lets clients commit rows, and makes the fault this long after the first of them was answered.
///
/// # Errors
/// When the clients cannot commit, or end undisturbed, or when the fault cannot be made.
pub(super) fn disturb(
    engine: &Engine,
    database: Database,
    ledger: &Ledger,
    after: Duration,
    fault: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let disturbed = AtomicBool::new(false);
    let mut clients = (0..WRITERS).map(|_| Client::start(engine, database)).collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let mut readers = Vec::new();
        for (stdin, stdout) in clients.iter_mut().filter_map(Client::pipes) {
            scope.spawn(|| send(stdin, ledger, &disturbed));
            readers.push(scope.spawn(|| receive(stdout, |id| ledger.answer(id))));
        }
        let ended = || readers.iter().any(thread::ScopedJoinHandle::is_finished);
        let before = ledger.answered().len();
        let begun = wait(Duration::from_secs(FIRST), || ended() || ledger.answered().len() > before);
        wait(after, ended);
        // Before the pipes are closed: it would end the clients.
        let undisturbed = ended();
        let made = if undisturbed || !begun { Ok(()) } else { fault() };
        disturbed.store(true, Ordering::Release);
        wait(Duration::from_secs(LAST), || readers.iter().all(thread::ScopedJoinHandle::is_finished));
        // Also ends those who write into its pipe, or read from it.
        let words: Vec<String> = clients.iter_mut().map(Client::end).collect();
        ensure!(!undisturbed, "a client ended undisturbed: {}", words.join("; "));
        ensure!(begun, "no row was answered within {FIRST} s: {}", words.join("; "));
        made
    })
}

/// Waits until something is so, for at most this long; whether it is.
fn wait(most: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < most {
        if is_so() {
            return true;
        }
        sleep(PAUSE);
    }
    is_so()
}

/// Sends rows, as fast as they are taken.
fn send(mut to: impl Write, ledger: &Ledger, disturbed: &AtomicBool) {
    while !disturbed.load(Ordering::Acquire) {
        if to.write_all(ledger.insertion().1.as_bytes()).is_err() {
            return;
        }
    }
}

/// Notes the ids that come, until no more do. Half an id, from an answer that was cut off, is none.
fn receive(from: impl Read, answer: impl Fn(u64)) {
    let mut from = BufReader::new(from);
    let mut line = String::new();
    while from.read_line(&mut line).is_ok_and(|length| length > 0) {
        if let Some(id) = line.strip_suffix('\n').and_then(|id| id.parse().ok()) {
            answer(id);
        }
        line.clear();
    }
}

/// A client of the database.
struct Client {
    process: Child,
    stderr: File,
}

impl Client {
    fn start(engine: &Engine, database: Database) -> Result<Self> {
        let stderr = tempfile::tempfile()?;
        let process = Command::new("docker")
            .args(["exec", "-i", engine.name()])
            .args(database.client())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone()?)
            .spawn()
            .context("cannot run docker")?;
        Ok(Self { process, stderr })
    }

    /// What it reads and what it prints; once.
    fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        self.process.stdin.take().zip(self.process.stdout.take())
    }

    /// Ends it where it has not ended by itself; what it complained about.
    fn end(&mut self) -> String {
        let mut words = String::new();
        let ended = self.process.kill().and_then(|()| self.process.wait());
        let read =
            ended.and_then(|_| self.stderr.rewind()).and_then(|()| self.stderr.read_to_string(&mut words));
        match read {
            Ok(_) => words.trim().to_owned(),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_answer_that_was_cut_off_is_none() {
        let ledger = Ledger::new(1);
        receive(&b"12\n13\nERROR:  the database system is shutting down\n1"[..], |id| ledger.answer(id));
        assert_eq!(*ledger.answered(), [12, 13].into());
    }

    #[test]
    fn rows_are_sent_until_nobody_takes_them() {
        struct Two(usize);
        impl Write for Two {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let ledger = Ledger::new(1);
        send(Two(2), &ledger, &AtomicBool::new(false));
        assert_eq!(ledger.insertion().0, 4);
    }
}
