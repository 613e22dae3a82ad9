//! The ways to run a Docker host that are compared, all on the same image.

use crate::engine::IMAGE;

/// What every way gets, as in ./quickstart, where each has its reason. The health check is left out because it is
/// dind-init's, and would disturb the others.
pub(crate) const OPTIONS: &[&str] = &[
    "--cap-add=SYS_ADMIN",
    "--cap-add=NET_ADMIN",
    "--cap-add=SYS_PTRACE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--security-opt=systempaths=unconfined",
    "--device-cgroup-rule=a *:* rwm",
    "--no-healthcheck",
];

/// Without it nothing runs inside, unless with --privileged.
const WRITABLE: &str =
    "for m in $(grep -oE '/sys/fs/cgroup[^ ]*' /proc/mounts); do mount -o remount,bind,rw $m; done";

/// A way to run a Docker host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `docker run -d OPTIONS dind-debian`.
    Host,
    /// dockerd on its own, behind a script of two lines.
    Bare,
    /// The same with a TCP port and no TLS, for which dockerd sleeps 16 s on purpose.
    Plain,
}

impl Way {
    /// What it is called in every table and plot.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "this host",
            Self::Bare => "bare dockerd",
            Self::Plain => "plain TCP script",
        }
    }

    /// The arguments of `docker create`.
    pub(crate) fn arguments(self) -> Vec<String> {
        let script = |dockerd: &str| vec![IMAGE.into(), "-c".into(), format!("{WRITABLE}\nexec {dockerd}")];
        let (entrypoint, command) = match self {
            Self::Host => (None, vec![IMAGE.into()]),
            Self::Bare => (Some("--entrypoint=sh"), script("dockerd")),
            Self::Plain => (
                Some("--entrypoint=sh"),
                script("dockerd -H unix:///var/run/docker.sock -H tcp://0.0.0.0:2376"),
            ),
        };
        OPTIONS.iter().copied().chain(entrypoint).map(String::from).chain(command).collect()
    }

    /// The name of PID 1 once the entrypoint runs.
    pub(crate) fn entrypoint(self) -> &'static str {
        match self {
            Self::Host => "dind-init",
            Self::Bare | Self::Plain => "sh",
        }
    }
}
