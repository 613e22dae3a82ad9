//! One run of another program, with a deadline: for the probes' process, which may block.
#![allow(clippy::disallowed_methods, reason = "a child of PID 1 looks after its own children")]

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The most that is read of what it writes.
const LONGEST: usize = 4 * 1024 * 1024;
/// Time between two looks at whether a program that writes no more has ended.
const LOOK: Duration = Duration::from_millis(1);

/// Runs `program` with this input, which is short; what it wrote.
///
/// # Errors
/// It cannot be started, fails or takes too long: why, in one line.
pub(super) fn run<S: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = S>,
    input: &str,
    patience: Duration,
) -> Result<String, String> {
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let deadline = Instant::now() + patience;
    let pipe = std::io::pipe().and_then(|(reader, writer)| Ok((reader, writer.try_clone()?, writer)));
    let (mut reader, stdout, stderr) = pipe.map_err(|e| format!("no pipe for {name}: {e}"))?;
    // A pipe takes this much at once, so that nobody need wait for it to be read.
    let stdin =
        std::io::pipe().and_then(|(stdin, mut writer)| writer.write_all(input.as_bytes()).map(|()| stdin));
    let stdin = stdin.map_err(|e| format!("no pipe for {name}: {e}"))?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn();
    let mut child = child.map_err(|e| format!("{name} cannot be started: {e}"))?;
    let said = read(&mut reader, deadline);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    let said = String::from_utf8_lossy(&said).into_owned();
    match status {
        Some(status) if status.success() => Ok(said),
        Some(status) => Err(format!("{name}: {}", cause(&said, status))),
        None => Err(format!("{name} took longer than {} s", patience.as_secs())),
    }
}

/// What it wrote until it closed its output, or the deadline passed. A program that was started writes to its own end of the
/// pipe; ours went with the command.
fn read(reader: &mut std::io::PipeReader, deadline: Instant) -> Vec<u8> {
    let mut said = Vec::new();
    while said.len() < LONGEST {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        if matches!(ready, Ok(0)) {
            break;
        }
        let mut piece = [0; 8192];
        match reader.read(&mut piece) {
            Ok(length @ 1..) => said.extend_from_slice(piece.get(..length).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    said
}

/// The first line that a program that failed has written, else how it ended.
fn cause(said: &str, status: ExitStatus) -> String {
    let line = said.lines().map(str::trim).find(|line| !line.is_empty());
    line.map_or_else(|| status.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn shell(line: &str, patience: Duration) -> Result<String, String> {
        run(Path::new("/bin/sh"), ["-c", line], "input", patience)
    }

    #[test]
    fn how_a_program_ended_is_said() {
        assert_eq!(shell("cat; echo done", PATIENCE).unwrap(), "inputdone\n");
        assert_eq!(
            shell("echo; echo table is missing >&2; exit 3", PATIENCE).unwrap_err(),
            "sh: table is missing"
        );
        assert_eq!(shell("exit 3", PATIENCE).unwrap_err(), "sh: exit status: 3");
        assert!(
            run(Path::new("/nowhere/x"), [""; 0], "", PATIENCE).unwrap_err().contains("cannot be started")
        );
    }

    #[test]
    fn one_that_hangs_is_killed() {
        for line in ["exec sleep 1000", "exec >&- 2>&-; exec sleep 1000"] {
            let hung = shell(line, Duration::from_millis(200));
            assert!(hung.is_err(), "{line}");
        }
    }
}
