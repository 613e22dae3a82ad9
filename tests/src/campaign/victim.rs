//! Who is killed, and how it comes back.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::engine::{Engine, Way, expect};
use super::random::Random;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    /// The whole container, by the engine of the machine; then it is started again.
    Container,
    /// The same; then a new one takes over the volume.
    ContainerForGood,
    /// `dind-init` where it is not PID 1: what it leaves behind lives on.
    Init,
    Dockerd,
    Containerd,
    Shim,
}

impl Victim {
    pub(super) fn choose(way: Way, random: &mut Random) -> Self {
        use Victim::{Container, ContainerForGood, Containerd, Dockerd, Init, Shim};
        let all: &[Self] = match way {
            Way::HostUnderInit => &[Init, Init, Init, Container, Dockerd, Containerd],
            _ => &[Container, Container, ContainerForGood, ContainerForGood, Dockerd, Containerd, Shim],
        };
        *random.pick(all).unwrap_or(&Container)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Victim::Container => "docker kill",
            Victim::ContainerForGood => "docker kill and a new host",
            Victim::Init => "dind-init",
            Victim::Dockerd => "dockerd",
            Victim::Containerd => "containerd",
            Victim::Shim => "a shim",
        }
    }

    /// Whether everything in the host ends with it.
    pub(super) fn is_whole_host(self) -> bool {
        matches!(self, Victim::Container | Victim::ContainerForGood)
    }

    pub(super) fn kill(self, engine: &Engine) -> Result<()> {
        let process = match self {
            Victim::Container | Victim::ContainerForGood => return engine.kill(),
            Victim::Init => "dind-init",
            Victim::Dockerd => "dockerd",
            Victim::Containerd => "containerd",
            Victim::Shim => "containerd-shim",
        };
        // Until it is reaped: only then does the host know, and does not call itself ready. There may be no shim.
        let script = format!(
            "pid=$(pgrep -o '^{process}') || exit 0; kill -9 $pid; while [ -e /proc/$pid ]; do sleep 0.02; done"
        );
        expect(engine.exec(&[], &["sh", "-c", &script]))?;
        Ok(())
    }

    /// Brings the engine back, or waits until its host has; how long that took. `create` makes the container that takes over.
    pub(super) fn revive(
        self,
        engine: &mut Engine,
        create: impl FnOnce() -> Result<Engine>,
    ) -> Result<Duration> {
        match self {
            Victim::Container => engine.start(),
            Victim::ContainerForGood => {
                *engine = create()?;
                engine.start()
            }
            Victim::Init => {
                engine.run_under_init()?;
                timed(engine)
            }
            Victim::Dockerd | Victim::Containerd | Victim::Shim => timed(engine),
        }
    }
}

/// Waits until the engine answers again; how long that took.
fn timed(engine: &Engine) -> Result<Duration> {
    let begin = Instant::now();
    engine.wait()?;
    Ok(begin.elapsed())
}
