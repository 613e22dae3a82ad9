//! One running host.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;

use serde_json::Value;

use crate::client::Client;
use crate::command::Call;
use crate::engine::docker;
use crate::log::Line;
use crate::options::HostOptions;
use crate::wait::{patience, until};

/// A host: its container, removed with its anonymous volumes at the end of the test.
#[derive(Debug)]
pub struct Host {
    name: String,
    /// The container's id and environment, once they are known.
    pub(crate) container: OnceLock<(String, Vec<(String, String)>)>,
    /// The pid of its PID 1 on this machine, as it was when last looked up; 0 before.
    pub(crate) pid: AtomicU32,
    /// Whether programs run in it by `docker exec` alone.
    pub(crate) by_docker_exec: bool,
}

impl Host {
    /// How to run a host: the documented options and nothing else, until more is said.
    pub fn options() -> HostOptions {
        HostOptions::default()
    }

    pub(crate) fn new(name: String) -> Self {
        Self { name, container: OnceLock::new(), pid: AtomicU32::new(0), by_docker_exec: false }
    }

    /// One that somebody else has made; it is removed at the end of the test all the same.
    pub fn named(name: &str) -> Self {
        Self::new(name.to_owned())
    }

    /// The same, where every program runs by `docker exec`, with what the container may do and no more.
    #[must_use]
    pub fn by_docker_exec(mut self) -> Self {
        self.by_docker_exec = true;
        self
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts the container, and waits until the host says that it is ready.
    #[track_caller]
    pub fn start(&self) {
        docker(["start", &self.name]).ok();
        self.wait();
    }

    /// Waits until the host says that it is ready.
    #[track_caller]
    pub fn wait(&self) {
        let timeout = (60 * patience()).to_string();
        self.call("dind-init").args(["wait", "--timeout", &timeout]).within(70).run().ok();
    }

    /// `docker stop`, with nothing said about time.
    #[track_caller]
    pub fn stop(&self) {
        docker(["stop", &self.name]).ok();
    }

    /// `docker stop -t`.
    #[track_caller]
    pub fn stop_within(&self, seconds: u32) {
        docker(["stop", "-t", &seconds.to_string(), &self.name]).ok();
    }

    /// `docker kill -s SIGNAL`.
    #[track_caller]
    pub fn signal(&self, signal: &str) {
        docker(["kill", "-s", signal, &self.name]).ok();
    }

    /// Waits for the container's end; its exit code.
    #[track_caller]
    pub fn ends(&self) -> i32 {
        let code = Call::new("docker").args(["wait", &self.name]).within(60).run().ok();
        code.parse().expect("docker wait prints an exit code")
    }

    /// Asserts that the container has ended with this exit code.
    #[track_caller]
    pub fn assert_exited(&self, code: i32) {
        let state = self.inspect("{{.State.Status}} with {{.State.ExitCode}}");
        assert_eq!(state, format!("exited with {code}"), "the host {}\n{}", self.name, self.logs());
    }

    /// What `docker inspect --format` says of the container.
    #[track_caller]
    pub fn inspect(&self, format: &str) -> String {
        docker(["inspect", "--format", format, &self.name]).ok()
    }

    /// Everything the host has written, from its first start on.
    #[track_caller]
    pub fn logs(&self) -> String {
        let logs = docker(["logs", &self.name]);
        logs.stdout + &logs.stderr
    }

    /// The lines of the host's log.
    #[track_caller]
    pub fn log_lines(&self) -> Vec<Line> {
        self.logs().lines().filter_map(Line::parse).collect()
    }

    /// The host's own warnings and errors.
    #[track_caller]
    pub fn alarms(&self) -> Vec<Line> {
        self.log_lines().into_iter().filter(Line::is_alarm).collect()
    }

    /// The address of the container.
    #[track_caller]
    pub fn ip(&self) -> String {
        self.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    }

    /// What `dind-init status --json` says.
    #[track_caller]
    pub fn status(&self) -> Value {
        let status = self.exec(["dind-init", "status", "--json"]).ok();
        serde_json::from_str(&status)
            .unwrap_or_else(|error| panic!("status --json is not JSON: {error}\n{status}"))
    }

    /// What `status` says of one service.
    #[track_caller]
    pub fn service(&self, name: &str) -> Value {
        let status = self.status();
        let services = status["services"].as_array().cloned().unwrap_or_default();
        let found = services.into_iter().find(|service| service["name"] == name);
        found.unwrap_or_else(|| panic!("status knows no service {name}: {status}"))
    }

    /// The pid, inside the host, of a service that runs.
    #[track_caller]
    pub fn pid_of(&self, service: &str) -> u64 {
        let status = self.service(service);
        status["pid"].as_u64().unwrap_or_else(|| panic!("{service} does not run: {status}"))
    }

    /// Kills a service, and waits until another process has its place and is ready. What looks at the host at once may see it as it was:
    /// a process that is killed takes some time to end.
    #[track_caller]
    pub fn kill_service(&self, service: &str) {
        let before = self.pid_of(service);
        self.shell(&format!("kill -9 {before}")).ok();
        self.wait_for_another(service, before);
    }

    /// Waits until another process than this one is the service, and is ready.
    #[track_caller]
    pub fn wait_for_another(&self, service: &str, before: u64) {
        until(&format!("another {service} to be ready"), 30, || {
            let now = self.service(service);
            (now["state"] == "ready" && now["pid"].as_u64() != Some(before)).then_some(())
        });
    }

    /// A client outside, at the container's address, with the host's client certificate.
    #[track_caller]
    pub fn client(&self) -> Client {
        self.client_at(&format!("tcp://{}:2376", self.ip()))
    }

    /// A client outside, at this endpoint, with the host's client certificate.
    #[track_caller]
    pub fn client_at(&self, endpoint: &str) -> Client {
        let folder = tempfile::tempdir().expect("a folder for certificates can be made");
        let source = format!("{}:/certs/client/.", self.name);
        docker(["cp", &source, &folder.path().to_string_lossy()]).ok();
        Client::with_certificates(endpoint, folder)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = Call::new("docker").args(["logs", "--tail", "200", &self.name]).run();
            eprintln!("--- the last lines of host {}\n{}{}---", self.name, logs.stdout, logs.stderr);
        }
        let _ = docker(["rm", "-fv", &self.name]);
    }
}
