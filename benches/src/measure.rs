//! The order of work of a run.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use time::OffsetDateTime;

use crate::container::{Container, Started};
use crate::driving::{self, Driving};
use crate::engine::{IMAGE, docker};
use crate::kept;
use crate::results::{Footprint, Idle, Machine, Results, Times};
use crate::ways::Way;

/// The plain script takes part in so many rounds only: each sleeps 16 s.
const PLAIN_ROUNDS: u32 = 3;

/// Between the last work and what is called idle.
const SETTLE: Duration = Duration::from_secs(1);

/// The same before memory is read and wakes are counted, which a late line of dockerd's log would spoil.
const SETTLE_LONG: Duration = Duration::from_secs(5);

/// For how many seconds wakes are counted.
const WATCH: u64 = 10;

/// Makes a small image without a registry, so that the data root is not empty.
const MAKE_IMAGE: &str = "tar -cC / etc/hostname | docker import - bench";

/// Measures everything there is.
pub(crate) fn everything(rounds: u32) -> Result<Results> {
    let load = load()?;
    let (idle, engine_in_image) = idle()?;
    let [mut host, mut bare, mut plain] = [(); 3].map(|()| Times::default());
    for round in 0..rounds {
        let mut ways = vec![(Way::Host, &mut host), (Way::Bare, &mut bare)];
        if round < PLAIN_ROUNDS {
            ways.push((Way::Plain, &mut plain));
        }
        // Who comes first changes, so that nobody always follows the same neighbour.
        let turn = usize::try_from(round)? % ways.len();
        ways.rotate_left(turn);
        for (way, times) in ways {
            once(way, times).with_context(|| format!("round {} of {}", round + 1, way.name()))?;
            say(&format!("round {} of {rounds}: {}: {}", round + 1, way.name(), last(times)));
        }
    }
    let mut driving = Driving::default();
    for round in 0..rounds {
        driving::once(round, &mut driving).with_context(|| format!("round {} of dind up", round + 1))?;
        say(&format!("round {} of {rounds}: dind up and docker run", round + 1));
    }
    driving::lists(rounds, &mut driving)?;
    let mut work = kept::nothing();
    for round in 0..rounds {
        kept::once(round, &mut work).with_context(|| format!("round {} of syncs", round + 1))?;
        say(&format!("round {} of {rounds}: with syncs and without", round + 1));
    }
    Ok(Results {
        date: OffsetDateTime::now_utc().date().to_string(),
        machine: machine(load, engine_in_image)?,
        host,
        bare,
        plain,
        idle,
        work,
        driving,
    })
}

/// One round of one way.
fn once(way: Way, times: &mut Times) -> Result<()> {
    let container = create(way)?;
    let Started { first, ready, script } = container.start()?;
    container.exec(&["sh", "-c", MAKE_IMAGE])?;
    thread::sleep(SETTLE);
    let stop = container.stop(first)?;
    if way != Way::Plain {
        times.restart_ms.push(milliseconds(container.start()?.ready));
    }
    times.ready_ms.push(milliseconds(ready));
    times.stop_ms.push(milliseconds(stop));
    times.script_ms.extend(script.map(milliseconds));
    Ok(())
}

fn create(way: Way) -> Result<Container> {
    let arguments = way.arguments();
    Container::create(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), way.entrypoint())
}

/// What dind-init needs while idle, next to tini; and the version of the engine in the image.
fn idle() -> Result<(Idle, String)> {
    say("idle: 15 s");
    let host = create(Way::Host)?;
    let init = host.start()?.first;
    let engine = host.exec(&["docker", "version", "--format", "{{.Server.Version}}"])?;
    let sleeper = Container::create(
        &["--init", "--no-healthcheck", "--entrypoint=sleep", IMAGE, "infinity"],
        "docker-init",
    )?;
    let (tini, _) = sleeper.launch()?;
    thread::sleep(SETTLE_LONG);
    let before = [init.switches()?, tini.switches()?];
    thread::sleep(Duration::from_secs(WATCH));
    let after = [init.footprint()?, tini.footprint()?];
    let [init_footprint, tini] =
        [0, 1].map(|index: usize| Footprint { wakes: after[index].wakes - before[index], ..after[index] });
    let binary_bytes = fs::metadata(init.file("exe")).context("cannot see the binary of dind-init")?.len();
    Ok((Idle { binary_bytes, seconds: WATCH, init: init_footprint, tini }, engine))
}

/// Where it is measured.
pub(crate) fn machine(load: f64, engine_in_image: String) -> Result<Machine> {
    let revision = r#"{{index .Config.Labels "org.opencontainers.image.revision"}}"#;
    Ok(Machine {
        cores: thread::available_parallelism()?.get(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim_end().into(),
        cgroup: docker(&["info", "--format", "v{{.CgroupVersion}}"])?,
        load,
        engine: docker(&["info", "--format", "{{.ServerVersion}}, {{.Driver}}"])?,
        engine_in_image,
        image_revision: docker(&["image", "inspect", "--format", revision, IMAGE])?,
    })
}

/// The load average over a minute.
pub(crate) fn load() -> Result<f64> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().and_then(|load| load.parse().ok());
    load.context("cannot read /proc/loadavg")
}

/// To a tenth: no clock used here is better than that.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

fn last(times: &Times) -> String {
    let of = |what: &str, samples: &[f64]| samples.last().map(|sample| format!("{what} {sample:.0} ms"));
    let said = [of("ready", &times.ready_ms), of("stop", &times.stop_ms), of("restart", &times.restart_ms)];
    said.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Progress is for whoever waits: on stderr, so that stdout has the table alone.
pub(crate) fn say(line: &str) {
    eprintln!("dind-benches: {line}");
}
