//! What a run leaves behind: every sample, and where it was taken. This is the JSON file.

use serde::{Deserialize, Serialize};

use crate::driving::Driving;
use crate::kept::Work;
use crate::statistics::{Spread, ratio};

/// Everything one run measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// The day, as YYYY-MM-DD, in UTC.
    pub(crate) date: String,
    pub(crate) machine: Machine,
    /// `docker run OPTIONS dind-debian`.
    pub(crate) host: Times,
    /// The same image, dockerd started by a two-line script.
    pub(crate) bare: Times,
    /// The same image, dockerd started by the script that opens a TCP port without TLS.
    pub(crate) plain: Times,
    pub(crate) idle: Idle,
    /// The same work with and without syncs; empty in samples of older versions.
    #[serde(default)]
    pub(crate) work: Vec<Work>,
    /// The command `dind`, next to the docker command; empty in samples of older versions.
    #[serde(default)]
    pub(crate) driving: Driving,
}

/// Where it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// `v1` or `v2`.
    pub(crate) cgroup: String,
    /// The load average over a minute, before the run began.
    pub(crate) load: f64,
    /// The engine of the machine, and its storage driver.
    pub(crate) engine: String,
    /// The engine in the image.
    pub(crate) engine_in_image: String,
    /// The commit the image was built from.
    pub(crate) image_revision: String,
}

/// The samples of one way to run a host, in milliseconds, one a round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Times {
    /// From the exec of the container's entrypoint, on an empty data root, until `GET /_ping` has its 200.
    pub(crate) ready_ms: Vec<f64>,
    /// The same at a second start, with an image in the data root.
    pub(crate) restart_ms: Vec<f64>,
    /// From SIGTERM until PID 1 has ended, with nothing running but an image in the data root.
    pub(crate) stop_ms: Vec<f64>,
    /// How much of `ready_ms` went by before the script had become dockerd; empty where there is no script.
    pub(crate) script_ms: Vec<f64>,
}

/// One kind of sample.
pub(crate) type Figure = fn(&Times) -> &[f64];

/// What PID 1 needs while nothing happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Idle {
    /// The size of the dind-init binary in the image, in bytes.
    pub(crate) binary_bytes: u64,
    /// For how many seconds `wakes` were counted, without a health check.
    pub(crate) seconds: u64,
    pub(crate) init: Footprint,
    /// The machine's own docker-init (`docker run --init`), which is tini, above a `sleep`.
    pub(crate) tini: Footprint,
}

/// What a process needs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Footprint {
    /// `Private_Dirty` of /proc/PID/smaps_rollup.
    pub(crate) private_dirty_kib: u64,
    /// `Private_Clean` and `Private_Dirty` together: also the pages of its binary that only it maps.
    pub(crate) private_kib: u64,
    /// Context switches, voluntary or not, of all its threads.
    pub(crate) wakes: u64,
}

/// One of the aims, and what was measured.
#[derive(Debug, PartialEq)]
pub(crate) struct Aim {
    pub(crate) text: &'static str,
    pub(crate) measured: String,
    pub(crate) met: bool,
}

const MEGABYTE: f64 = 1e6;

impl Results {
    /// The ratio of the work that syncs make the most of; `None` when one was not measured.
    fn costliest(&self) -> Option<f64> {
        let ratios: Option<Vec<f64>> =
            self.work.iter().map(|work| ratio(&work.with_syncs_ms, &work.without_ms)).collect();
        ratios?.into_iter().max_by(f64::total_cmp)
    }

    /// The aims, in the order in which they are told. One without samples is not met.
    pub(crate) fn aims(&self) -> Vec<Aim> {
        let of_bare = ratio(&self.host.ready_ms, &self.bare.ready_ms);
        let of_plain = ratio(&self.host.ready_ms, &self.plain.ready_ms);
        let stop = ratio(&self.host.stop_ms, &self.bare.stop_ms);
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let (memory, binary) =
            (self.idle.init.private_kib as f64 * 1024.0 / MEGABYTE, self.idle.binary_bytes as f64 / MEGABYTE);
        let added = Spread::of(&self.driving.added_ms).map(|added| added.median);
        let said = |ratio: Option<f64>| ratio.map_or("not measured".into(), |ratio| format!("{ratio:.3}"));
        let within = |ratio: Option<f64>, limit| ratio.is_some_and(|ratio| ratio <= limit);
        vec![
            Aim {
                text: "ready in at most 0.4 of bare dockerd's time",
                measured: said(of_bare),
                met: within(of_bare, 0.4),
            },
            Aim {
                text: "ready in at most 1/30 of the plain script's time",
                measured: of_plain.map_or("not measured".into(), |ratio| format!("1/{:.1}", 1.0 / ratio)),
                met: within(of_plain, 1.0 / 30.0),
            },
            Aim {
                text: "stopped in at most 0.1 of bare dockerd's time",
                measured: said(stop),
                met: within(stop, 0.1),
            },
            Aim {
                text: "dind-init under 1.5 MB of private memory",
                measured: format!("{memory:.2} MB"),
                met: memory < 1.5,
            },
            Aim {
                text: "dind-init under 3 MB on disk",
                measured: format!("{binary:.2} MB"),
                met: binary < 3.0,
            },
            Aim {
                // It asks dockerd every 10 s whether it still answers; tini looks for zombies every second.
                text: "idle, dind-init wakes less often than tini",
                measured: format!(
                    "{} of {} in {} s",
                    self.idle.init.wakes, self.idle.tini.wakes, self.idle.seconds
                ),
                met: self.idle.init.wakes < self.idle.tini.wakes,
            },
            Aim {
                text: "syncs cost a load, pull or build at most 5 %",
                measured: said(self.costliest()),
                met: within(self.costliest(), 1.05),
            },
            Aim {
                text: "dind up adds at most 50 ms",
                measured: added.map_or("not measured".into(), |added| format!("{added:.0} ms")),
                met: added.is_some_and(|added| added <= 50.0),
            },
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Made-up results in which every aim is met.
    pub(crate) fn sample() -> Results {
        let times = |ready: &[f64], stop: &[f64], script: &[f64]| Times {
            ready_ms: ready.into(),
            restart_ms: ready.into(),
            stop_ms: stop.into(),
            script_ms: script.into(),
        };
        let mut plain = times(&[17_400.0], &[1000.0], &[40.0]);
        plain.restart_ms.clear();
        Results {
            date: "2026-11-21".into(),
            machine: Machine {
                cores: 2,
                kernel: "6.18.0".into(),
                cgroup: "v1".into(),
                load: 0.25,
                engine: "20.10.24, overlay2".into(),
                engine_in_image: "26.1.5".into(),
                image_revision: "0123456789abcdef".into(),
            },
            host: times(&[300.0, 310.0, 320.0], &[25.0, 30.0, 31.0], &[]),
            bare: times(&[1300.0, 1250.0, 1400.0], &[1010.0, 1012.0, 1015.0], &[40.0]),
            plain,
            idle: Idle {
                binary_bytes: 2_500_000,
                seconds: 10,
                init: Footprint { private_dirty_kib: 300, private_kib: 1200, wakes: 0 },
                tini: Footprint { private_dirty_kib: 96, private_kib: 120, wakes: 10 },
            },
            work: vec![Work {
                name: "docker load".into(),
                with_syncs_ms: vec![1020.0],
                without_ms: vec![1000.0],
            }],
            driving: Driving {
                up_ms: vec![600.0],
                docker_up_ms: vec![700.0],
                added_ms: vec![40.0],
                ls_ms: vec![30.0],
                docker_ps_ms: vec![50.0],
            },
        }
    }

    #[test]
    fn json_brings_back_what_was_written() {
        let json = serde_json::to_string(&sample()).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&json).unwrap(), sample());
    }

    #[test]
    fn each_aim_is_met_or_missed_by_itself() {
        assert!(sample().aims().iter().all(|aim| aim.met), "{:?}", sample().aims());
        let spoil: [fn(&mut Results); 8] = [
            |results| results.bare.ready_ms = vec![700.0],
            |results| results.plain.ready_ms = vec![9000.0],
            |results| results.host.stop_ms = vec![102.0],
            |results| results.idle.init.private_kib = 1465,
            |results| results.idle.binary_bytes = 3_000_000,
            |results| results.idle.init.wakes = 10,
            |results| results.work[0].with_syncs_ms = vec![1100.0],
            |results| results.driving.added_ms = vec![51.0],
        ];
        for (index, spoil) in spoil.into_iter().enumerate() {
            let mut results = sample();
            spoil(&mut results);
            let missed: Vec<_> = results
                .aims()
                .iter()
                .enumerate()
                .filter(|(_, aim)| !aim.met)
                .map(|(index, _)| index)
                .collect();
            assert_eq!(missed, [index]);
        }
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        let mut results = sample();
        results.plain = Times::default();
        let aims = results.aims();
        assert_eq!((aims[1].met, &*aims[1].measured), (false, "not measured"));
    }
}
