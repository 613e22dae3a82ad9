//! Programs that run inside a host.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::command::{Call, Ended};
use crate::host::Host;

/// Of Debian's util-linux; by its path, because the search is in the host's PATH.
const NSENTER: &str = "/usr/bin/nsenter";

impl Host {
    /// A call of a program inside the host, as root and with the host's environment.
    ///
    /// It joins the host's namespaces, which costs a tenth of what `docker exec` does. Where that cannot be, because we are not
    /// root or the engine is another machine's, it is `docker exec`. What is said of `docker exec` itself is tested with it.
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
        let pid = self.pid_here()?;
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let variables: Vec<(&str, &str)> =
            environment.split_terminator('\0').filter_map(|pair| pair.split_once('=')).collect();
        // A process has none in the moment in which it becomes another program.
        variables.iter().find(|(name, _)| *name == "PATH")?;
        let call = Call::new(NSENTER).args(["--target", &pid.to_string(), "--all", "--"]);
        Some(call.only_env(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()))))
    }

    /// The pid of the host's PID 1, if it is a process of this machine that we may join.
    #[track_caller]
    fn pid_here(&self) -> Option<u32> {
        if !nix::unistd::geteuid().is_root() || !Path::new(NSENTER).exists() {
            return None;
        }
        let known = self.pid.load(Ordering::Relaxed);
        if self.id.get().is_some_and(|id| is_of(known, id)) {
            return Some(known);
        }
        let asked =
            Call::new("docker").args(["inspect", "--format", "{{.Id}} {{.State.Pid}}", self.name()]).run();
        let (id, pid) = asked.stdout.trim_end().split_once(' ')?;
        let pid = pid.parse().ok()?;
        self.pid.store(pid, Ordering::Relaxed);
        is_of(pid, self.id.get_or_init(|| id.to_owned())).then_some(pid)
    }
}

/// Whether this pid is, here and now, a process of the container with this id, by the name of its control group.
fn is_of(pid: u32, id: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(id))
}
