//! The engine that a campaign torments, in its container: a host, or dockerd alone.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::command::{Call, Ended};
use crate::engine;
use crate::options::RUN_OPTIONS;

/// An engine without a host: dockerd, with a containerd that it starts itself.
const BARE: &str = "for cgroup in /sys/fs/cgroup/*; do mount -o remount,bind,rw $cgroup; done; exec dockerd";
/// How many seconds an engine has to answer.
const START: u64 = 120;
/// How many seconds one command may take: a gigabyte is loaded on a busy machine.
const PATIENCE: u64 = 300;

/// Who runs the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// `dind-init` as PID 1.
    Host,
    /// `dind-init` as the child of another init.
    HostUnderInit,
    /// `dind-init` as PID 1, told not to sync after acknowledgements (`DIND_SYNC=off`): only its repair is left.
    HostUnsynced,
    /// The same, of a sealed appliance: the images that it began with are in the store.
    Sealed,
    /// dockerd, started by a script.
    Bare,
}

/// A container with an engine in it, removed when dropped.
#[derive(Debug)]
pub(super) struct Engine {
    name: String,
    way: Way,
    /// Whether containerd's image store keeps its images.
    pub(super) in_containerd: bool,
}

impl Engine {
    /// Makes the container of this image, with `data` (a volume or a folder) as its data root and these more options of dockerd and of
    /// `docker run`.
    pub(super) fn create(
        way: Way,
        image: &str,
        data: &str,
        dockerd: &[String],
        run: &[String],
    ) -> Result<Self> {
        engine::prepare();
        let engine = Self { name: engine::unique_name(), way, in_containerd: false };
        let create = Call::new("docker").args(["create", "--name", &engine.name]).args(engine::labels());
        let create = create.args(RUN_OPTIONS).args(["-v", &format!("{data}:/var/lib/docker")]).args(run);
        let options = dockerd.join(" ");
        let create = create.args(["-e", "LOCAL=true", "-e", &format!("DOCKER_OPTS={options}")]);
        let create = match way {
            Way::Host | Way::Sealed => create.arg(image),
            Way::HostUnsynced => create.args(["-e", "DIND_SYNC=off"]).arg(image),
            Way::HostUnderInit => create.args(["--init", "--entrypoint", "sleep", image, "infinity"]),
            Way::Bare => {
                let script = format!("{BARE} {options}");
                // A host unmasks /proc by itself.
                create.args(["--security-opt", "systempaths=unconfined"]).args([
                    "--no-healthcheck",
                    "--entrypoint",
                    "sh",
                    image,
                    "-c",
                    &script,
                ])
            }
        };
        expect(create)?;
        Ok(engine)
    }

    /// The container's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Starts the engine and waits until it answers; how long that took.
    ///
    /// # Errors
    /// When it does not, with its last words.
    pub(super) fn start(&self) -> Result<Duration> {
        let begin = Instant::now();
        expect(Call::new("docker").args(["start", &self.name]))?;
        self.run_under_init()?;
        self.wait()?;
        Ok(begin.elapsed())
    }

    /// Starts a host again whose container goes on without it.
    pub(super) fn run_under_init(&self) -> Result<()> {
        if self.way == Way::HostUnderInit {
            expect(self.exec(&["-d"], &["sh", "-c", "exec dind-init >>/log 2>&1"]))?;
        }
        Ok(())
    }

    /// Waits until the engine answers.
    pub(super) fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(START);
        loop {
            let asked = match self.way {
                Way::Host | Way::HostUnsynced | Way::HostUnderInit | Way::Sealed => {
                    self.exec(&[], &["dind-init", "wait", "--timeout", "30"])
                }
                Way::Bare => self.exec(&[], &["docker", "version"]),
            };
            let answer = asked.attempt().map_err(Error::msg)?;
            if answer.code == Some(0) {
                return Ok(());
            }
            let is_running = self.inspect("{{.State.Running}}")? == "true";
            if !is_running || Instant::now() > deadline {
                bail!("the engine does not answer: {answer}\n{}", self.last_words());
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// `docker exec OPTIONS CONTAINER COMMAND`.
    pub(super) fn exec(&self, options: &[&str], command: &[&str]) -> Call {
        let exec = Call::new("docker").arg("exec").args(options);
        exec.arg(&self.name).args(command).within(PATIENCE)
    }

    /// Runs `docker ARGS` inside.
    pub(super) fn docker(&self, args: &[&str]) -> Result<Ended> {
        self.exec(&[], &["docker"]).args(args).attempt().map_err(Error::msg)
    }

    /// Runs `docker ARGS` inside, which must succeed; what it prints.
    pub(super) fn ask(&self, args: &[&str]) -> Result<String> {
        expect(self.exec(&[], &["docker"]).args(args))
    }

    /// `docker inspect --format` of the container.
    pub(super) fn inspect(&self, format: &str) -> Result<String> {
        expect(Call::new("docker").args(["inspect", "--format", format, &self.name]))
    }

    /// When the last sync of the data root that has ended had begun; `None`: there was none, or nobody syncs.
    pub(super) fn last_sync(&self) -> Option<OffsetDateTime> {
        if self.way == Way::Bare {
            return None;
        }
        let status = self.exec(&[], &["dind-init", "status", "--json"]).attempt().ok()?;
        let status: Value = serde_json::from_str(&status.stdout).ok()?;
        OffsetDateTime::parse(status["last_sync"].as_str()?, &Rfc3339).ok()
    }

    /// `docker kill`.
    pub(super) fn kill(&self) -> Result<()> {
        expect(Call::new("docker").args(["kill", &self.name])).map(drop)
    }

    /// `docker stop`, within this many seconds; its exit code.
    pub(super) fn stop(&self, seconds: u32) -> Result<i32> {
        expect(Call::new("docker").args(["stop", "-t", &seconds.to_string(), &self.name]).within(PATIENCE))?;
        Ok(self.inspect("{{.State.ExitCode}}")?.parse()?)
    }

    /// Everything it has written.
    pub(super) fn logs(&self) -> String {
        let logs = Call::new("docker").args(["logs", &self.name]).attempt();
        let logs = logs.map_or_else(|trouble| trouble, |logs| logs.stdout + &logs.stderr);
        if self.way != Way::HostUnderInit {
            return logs;
        }
        self.exec(&[], &["cat", "/log"]).attempt().map_or(logs, |log| log.stdout)
    }

    /// What the host itself has said since that many lines, without its services.
    pub(super) fn own_words(&self, since: usize) -> String {
        let logs = self.logs();
        let own: Vec<&str> = logs.lines().skip(since).filter(|line| line.contains(" dind-init: ")).collect();
        own.join("\n")
    }

    /// The last lines of everything.
    pub(super) fn last_words(&self) -> String {
        let logs = self.logs();
        let lines: Vec<&str> = logs.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = Call::new("docker").args(["rm", "-fv", &self.name]).attempt();
    }
}

/// Runs a command that must succeed; what it prints.
pub(super) fn expect(call: Call) -> Result<String> {
    let ended = call.attempt().map_err(Error::msg)?;
    if ended.code != Some(0) {
        bail!("{ended}");
    }
    Ok(ended.stdout.trim_end().to_owned())
}
