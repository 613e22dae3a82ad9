//! Programs that run inside a host.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::command::{Call, Ended};
use crate::host::Host;

/// Of Debian's util-linux; by its path, because the search is in the host's PATH.
const NSENTER: &str = "/usr/bin/nsenter";

impl Host {
    /// A call of a program inside the host, as root, in `/`, and with the environment of the host's container.
    ///
    /// It joins the host's namespaces, which costs a tenth of what `docker exec` does. Where that cannot be, because we are not
    /// root or the engine is another machine's, it is `docker exec`.
    ///
    /// Tests of `docker exec` call [`docker_exec`](Self::docker_exec), and so do those of what binds a container: a program that
    /// joins namespaces is outside the container's control group (memory, processes, devices), and has this process's own
    /// capabilities, seccomp profile and limits. A signal ends it without an exit code; of `docker exec` it is 128 and more.
    #[track_caller]
    pub fn call(&self, program: &str) -> Call {
        self.entered().unwrap_or_else(|| self.docker_exec()).arg(program)
    }

    /// `docker exec -i HOST`.
    pub fn docker_exec(&self) -> Call {
        Call::new("docker").args(["exec", "-i", self.name()])
    }

    /// Runs a program inside the host.
    #[track_caller]
    pub fn exec<S: AsRef<str>>(&self, words: impl IntoIterator<Item = S>) -> Ended {
        let mut words = words.into_iter();
        let program = words.next().expect("a program is named");
        self.call(program.as_ref()).args(words).run()
    }

    /// Runs a line of shell inside the host.
    #[track_caller]
    pub fn shell(&self, line: &str) -> Ended {
        self.exec(["sh", "-c", line])
    }

    /// Runs the host's own `docker` inside it.
    #[track_caller]
    pub fn docker<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Ended {
        self.call("docker").args(args).run()
    }

    /// A call that goes into the namespaces of the host's PID 1.
    #[track_caller]
    fn entered(&self) -> Option<Call> {
        if self.by_docker_exec {
            return None;
        }
        let pid = self.pid_here()?;
        let (_, environment) = self.container.get()?;
        let call = Call::new(NSENTER).args(["--target", &pid.to_string(), "--all", "--"]);
        Some(call.only_env(environment.iter().cloned()).env("HOME", "/root"))
    }

    /// The pid of the host's PID 1, if it is a process of this machine that we may join.
    #[track_caller]
    fn pid_here(&self) -> Option<u32> {
        if !nix::unistd::geteuid().is_root() || !Path::new(NSENTER).exists() {
            return None;
        }
        let known = self.pid.load(Ordering::Relaxed);
        if self.container.get().is_some_and(|(id, _)| is_of(known, id)) {
            return Some(known);
        }
        let format = "{{.Id}} {{.State.Pid}} {{json .Config.Env}}";
        let found = Call::new("docker").args(["inspect", "--format", format, self.name()]).run().stdout;
        let mut words = found.trim_end().splitn(3, ' ');
        let (id, pid, environment) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        let environment: Vec<String> = serde_json::from_str(environment).ok()?;
        let pairs = environment.iter().filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.pid.store(pid, Ordering::Relaxed);
        let (id, _) = self.container.get_or_init(|| (id.to_owned(), pairs));
        is_of(pid, id).then_some(pid)
    }
}

/// Whether this pid is, here and now, a process of the container with this id, by the name of its control group.
fn is_of(pid: u32, id: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(id))
}
