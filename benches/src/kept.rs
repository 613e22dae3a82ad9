//! What it costs that whatever the engine acknowledges is brought to the disk at once: the same work in two hosts of one image,
//! one with syncs and one without (`DIND_SYNC=off`).

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::engine::docker;
use crate::ways::Way;

/// What is taken into the hosts: a static shell for the images, and a registry to pull from.
const TOOLS: [(&str, &str, &str); 2] = [
    ("/bin/busybox", "/bin/busybox", "busybox-static"),
    ("/usr/bin/docker-registry", "/bin/registry", "docker-registry"),
];

/// Makes an image of some 130 MB, in a file and in a registry of the host's own.
const PREPARE: &str = "set -e
mkdir -p /bench/bin && cp /bin/busybox /bench/bin/ && ln -s busybox /bench/bin/sh
for name in a b c d; do head -c 30000000 /dev/urandom >/bench/$name; done
mkdir /bench/many && split -n 1000 /bench/a /bench/many/
tar -cC /bench . | docker import -c 'ENV PATH=/bin' - localhost:5000/bench >/dev/null
docker save -o /bench.tar localhost:5000/bench
printf 'version: 0.1\\nstorage: {filesystem: {rootdirectory: /registry}}\\nhttp: {addr: 127.0.0.1:5000}\\n' >/registry.yml
registry serve /registry.yml >/dev/null 2>&1 &
until docker push -q localhost:5000/bench >/dev/null 2>&1; do sleep 0.2; done
{ echo 'FROM localhost:5000/bench'; for step in 1 2 3 4 5 6; do
    echo \"RUN head -c 10000000 /dev/urandom >/file$step\"; done; } >/Dockerfile";

/// Each kind of work, and what comes before it off the clock.
const WORK: [(&str, &str, &str); 4] = [
    ("docker load", "docker rmi -f localhost:5000/bench >/dev/null", "docker load -q -i /bench.tar"),
    ("docker pull", "docker rmi -f localhost:5000/bench >/dev/null", "docker pull -q localhost:5000/bench"),
    ("docker build, classic", "true", "DOCKER_BUILDKIT=0 docker build -q --no-cache - </Dockerfile"),
    ("docker build, BuildKit", "true", "docker build -q --no-cache - </Dockerfile"),
];

/// The samples of one kind of work, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) name: String,
    pub(crate) with_syncs_ms: Vec<f64>,
    pub(crate) without_ms: Vec<f64>,
}

/// All kinds of work, with no samples yet.
pub(crate) fn nothing() -> Vec<Work> {
    WORK.iter().map(|(name, ..)| Work { name: (*name).into(), ..Work::default() }).collect()
}

/// Checks that there is what this needs.
pub(crate) fn check() -> Result<()> {
    for (program, _, package) in TOOLS {
        ensure!(
            Path::new(program).exists(),
            "{program} is not there\n  help: apt-get install --no-install-recommends {package}"
        );
    }
    Ok(())
}

/// One round: everything in a host with syncs, and everything in one without, in turns.
pub(crate) fn once(round: u32, work: &mut [Work]) -> Result<()> {
    let hosts = [host("on")?, host("off")?];
    for ((_, before, line), samples) in WORK.iter().zip(work) {
        // Who comes first changes, so that nobody always follows the same neighbour.
        let order = if round.is_multiple_of(2) { [0, 1] } else { [1, 0] };
        for which in order {
            let host = &hosts[which];
            host.exec(&["sh", "-c", before])?;
            // What the other has left to be written is not this one's.
            host.exec(&["sync"])?;
            let begin = Instant::now();
            host.exec(&["sh", "-c", line])?;
            let took = milliseconds(begin.elapsed());
            if which == 0 { &mut samples.with_syncs_ms } else { &mut samples.without_ms }.push(took);
        }
    }
    Ok(())
}

fn host(syncs: &str) -> Result<Container> {
    let variable = format!("--env=DIND_SYNC={syncs}");
    let arguments: Vec<String> = std::iter::once(variable).chain(Way::Host.arguments()).collect();
    let host =
        Container::create(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), Way::Host.entrypoint())?;
    for (program, place, _) in TOOLS {
        docker(&["cp", program, &format!("{}:{place}", host.id())])?;
    }
    host.start()?;
    host.exec(&["sh", "-c", PREPARE])?;
    Ok(host)
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
