//! One container, and its starts and ends on the clock.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Result, bail, ensure};

use crate::engine;
use crate::process::Process;

/// How long a start or a stop may take before it counts as failed.
const DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at a process: what is seen is at most this old.
const LOOK: Duration = Duration::from_micros(500);

/// Between two tries to reach the API while its socket is not there. Once it is, the answer is waited for, not polled.
const KNOCK: Duration = Duration::from_millis(2);

/// Where the kernel keeps a container's cgroup, by cgroup version (or hierarchy) and by the engine's cgroup driver.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/devices"];

/// A container that is removed, with its anonymous volume, when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Container {
    id: String,
    entrypoint: String,
}

/// A start on the clock.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) first: Process,
    /// From the exec of the entrypoint until the API answered.
    pub(crate) ready: Duration,
    /// From the exec of the entrypoint until PID 1 had become dockerd, where it ever does.
    pub(crate) script: Option<Duration>,
}

impl Container {
    /// Makes a container; once it runs, its PID 1 bears the name `entrypoint`.
    pub(crate) fn create(arguments: &[&str], entrypoint: &str) -> Result<Self> {
        Ok(Self { id: engine::create(arguments)?, entrypoint: entrypoint.into() })
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Starts it, and waits until the API in it answers.
    pub(crate) fn start(&self) -> Result<Started> {
        let (first, since) = self.launch()?;
        // /var/run is an absolute link in the image, which would lead to the machine's own /run.
        let socket = first.file("root/run/docker.sock");
        let mut script = None;
        while !ping(&socket) {
            if script.is_none() && first.name() == "dockerd" {
                script = Some(since.elapsed());
            }
            if first.has_ended() || since.elapsed() > DEADLINE {
                bail!("the API in the container did not answer; its last lines:\n{}", self.last_lines());
            }
            thread::sleep(KNOCK);
        }
        Ok(Started { first, ready: since.elapsed(), script })
    }

    /// Starts it; gives its PID 1, and when that had its exec.
    ///
    /// `starttime` in /proc/PID/stat will not do: at that time runc forked what is to become PID 1, and then prepares the
    /// container for some 250 ms, which are not the image's.
    pub(crate) fn launch(&self) -> Result<(Process, Instant)> {
        let arguments = ["start", &self.id];
        let mut call = Some(engine::spawn(&arguments)?);
        let begin = Instant::now();
        let found = loop {
            if let Some(first) = self.first() {
                break (first, Instant::now());
            }
            if call.as_mut().is_some_and(|call| matches!(call.try_wait(), Ok(Some(_)))) {
                finish(call.take(), &arguments)?;
            }
            ensure!(
                begin.elapsed() < DEADLINE,
                "no PID 1 '{}' was seen in the cgroups of a container; its last lines:\n{}\n  help: the engine must \
                 keep cgroups at docker/ID or system.slice/docker-ID.scope, and run as root on this machine",
                self.entrypoint,
                self.last_lines()
            );
            thread::sleep(LOOK);
        };
        finish(call, &arguments)?;
        Ok(found)
    }

    /// PID 1, if its exec has been.
    fn first(&self) -> Option<Process> {
        let cgroups = CGROUPS.iter().flat_map(|root| {
            [format!("{root}/docker/{}", self.id), format!("{root}/system.slice/docker-{}.scope", self.id)]
        });
        let pids = cgroups
            .filter_map(|cgroup| fs::read_to_string(cgroup + "/cgroup.procs").ok())
            .find(|pids| !pids.is_empty())?;
        let mut processes = pids.lines().filter_map(|pid| pid.parse().ok()).map(Process);
        processes.find(|process| process.name() == self.entrypoint && process.is_first())
    }

    /// Sends SIGTERM to PID 1 and waits for its end, and then until the engine knows of it.
    pub(crate) fn stop(&self, first: Process) -> Result<Duration> {
        let begin = Instant::now();
        first.terminate()?;
        while !first.has_ended() {
            ensure!(begin.elapsed() < DEADLINE, "PID 1 did not end; its last lines:\n{}", self.last_lines());
            thread::sleep(LOOK);
        }
        let took = begin.elapsed();
        engine::docker(&["wait", &self.id])?;
        Ok(took)
    }

    /// Runs a command in it.
    pub(crate) fn exec(&self, command: &[&str]) -> Result<String> {
        engine::docker(&[&["exec", &*self.id], command].concat())
    }

    /// The same for what takes long: at most so many seconds.
    pub(crate) fn exec_within(&self, seconds: u32, command: &[&str]) -> Result<String> {
        engine::docker_within(seconds, &[&["exec", &*self.id], command].concat())
    }

    fn last_lines(&self) -> String {
        match engine::spawn(&["logs", "--tail", "10", &self.id]).map(Child::wait_with_output) {
            Ok(Ok(output)) => [output.stdout, output.stderr]
                .map(|text| String::from_utf8_lossy(&text).into_owned())
                .concat(),
            _ => "(none)".into(),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The sweep at the end of the run says what could not be removed.
        let _ = engine::remove(&self.id);
    }
}

fn finish(call: Option<Child>, arguments: &[&str]) -> Result<()> {
    let Some(call) = call else { return Ok(()) };
    engine::printed(arguments, &call.wait_with_output()?).map(drop)
}

/// Whether `GET /_ping` is answered with 200. An engine that listens but does not serve yet is waited for.
fn ping(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: dind\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_an_answer_of_200_is_ready() {
        for (answer, ready) in
            [("HTTP/1.1 200 OK\r\n\r\nOK", true), ("HTTP/1.1 503 No\r\n\r\n", false), ("", false)]
        {
            let path = std::env::temp_dir().join(format!("dind-benches-{}.sock", std::process::id()));
            let listener = UnixListener::bind(&path).unwrap();
            let server = thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                stream.read_exact(&mut [0; 20]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(ping(&path), ready, "{answer}");
            server.join().unwrap();
            fs::remove_file(&path).unwrap();
            assert!(!ping(&path), "there is no socket");
        }
    }
}
