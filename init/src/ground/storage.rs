//! Where images live: overlay on the data root, else on an ext4 image in it, else fuse-overlayfs, else plain copies. What
//! works is tried, what an earlier host stored is followed, and what a user decides is done or refused.

mod disk;
mod layers;
pub(crate) mod loop_device;
mod probe;
mod wish;

use std::path::{Path, PathBuf};

use super::decision::Decision;
use crate::settings::Settings;

pub(crate) use disk::{Answer, DEADLINE, mounted, prepare, release};
pub(crate) use probe::{Probe, probe};
pub(crate) use wish::Wish;

use probe::Tried;
use wish::{LARGEST, SMALLEST, driver, size_in_words, snapshotter};

/// The ext4 image, in the data root.
pub(crate) const DISK_FILE: &str = "dind.ext4";
/// The folder of the data root on which it is mounted.
const DISK: &str = "disk";

/// A way to store images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The kernel's overlay, on the data root itself.
    Overlay,
    /// The kernel's overlay, on an ext4 image in the data root.
    Loop,
    /// Overlay in user space.
    Fuse,
    /// A whole copy for each layer.
    Vfs,
}

impl Way {
    /// The best first.
    const ALL: [Self; 4] = [Self::Overlay, Self::Loop, Self::Fuse, Self::Vfs];

    /// What it is called in `DIND_STORAGE`.
    const fn word(self) -> &'static str {
        match self {
            Self::Overlay => "overlay2",
            Self::Loop => "loop",
            Self::Fuse => "fuse-overlayfs",
            Self::Vfs => "vfs",
        }
    }

    /// dockerd's storage driver for it.
    const fn driver(self) -> &'static str {
        match self {
            Self::Overlay | Self::Loop => "overlay2",
            Self::Fuse => "fuse-overlayfs",
            Self::Vfs => "vfs",
        }
    }
}

/// The word for the child that probes: what must be tried in any case.
pub(super) fn wanted(settings: &Settings) -> &str {
    match (settings.storage.way, driver(&settings.daemon)) {
        (Some(way), _) => way.word(),
        (None, Some(driver)) => driver,
        (None, None) => "auto",
    }
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) decision: Decision,
    /// Size in bytes of the data root's disk, where there shall be one.
    pub(super) disk: Option<u64>,
}

/// Decides where images live.
pub(super) fn decide(settings: &Settings, probe: &Probe) -> Chosen {
    let found = found(probe);
    if snapshotter(&settings.daemon) {
        let decision = Decision::good("storage", found, "containerd's image store, as dockerd's options say");
        return Chosen { decision: warn_of_overlay(decision, probe, settings), disk: None };
    }
    if let Some(driver) = driver(&settings.daemon) {
        let decision = Decision::good("storage", found, format!("{driver}, as dockerd's options say"));
        let way = Way::ALL.into_iter().find(|way| way.driver() == driver);
        let decision = match way.and_then(|way| why_not(way, settings, probe)) {
            None => decision,
            Some(why) => refuse(decision, &why, "leave --storage-driver (\"storage-driver\") out"),
        };
        return Chosen { decision, disk: None };
    }
    let (way, why) = match settings.storage.way {
        Some(way) => (way, format!("DIND_STORAGE={}", way.word())),
        None => choose(settings, probe),
    };
    let disk = (way == Way::Loop).then(|| disk_size(settings, probe));
    let mut decision = Decision::good("storage", found, chosen(way, disk, settings)).because(why);
    if let Some(why) = why_not(way, settings, probe) {
        return Chosen { decision: refuse(decision, &why, "set DIND_STORAGE=auto"), disk: None };
    }
    decision = decision.with_arguments(["--storage-driver", way.driver()]);
    let mut better = Vec::new();
    if settings.storage.way.is_none() {
        better.extend(better_than(way, settings, probe));
    }
    better.extend(unseen(way, probe));
    if !better.is_empty() {
        decision = decision.but_better(better.join("; "));
    }
    Chosen { decision, disk }
}

/// What an engine with an image store in containerd needs is overlay, too.
fn warn_of_overlay(decision: Decision, probe: &Probe, settings: &Settings) -> Decision {
    match why_not(Way::Overlay, settings, probe) {
        None => decision,
        Some(why) => {
            decision.because(format!("overlay does not work here: {why}")).but_better(volume(settings))
        }
    }
}

fn refuse(mut decision: Decision, why: &str, otherwise: &str) -> Decision {
    let told = std::mem::replace(&mut decision.finding.chosen, "none".to_owned());
    decision
        .because(format!("{told} does not work here: {why}"))
        .missing(format!("{otherwise}, and the host takes what works"))
}

/// The way that a host takes when nobody told it, and why.
fn choose(settings: &Settings, probe: &Probe) -> (Way, String) {
    let works = |way: Way| why_not(way, settings, probe).is_none();
    if probe.disk.is_some() && works(Way::Loop) {
        return (Way::Loop, format!("an earlier host has made {DISK_FILE} in the data root"));
    }
    // What a data root has is there to be used, by a slower way if need be.
    let has = |way: &Way| *way != Way::Loop && count(*way, probe) > 0;
    if let Some(way) = Way::ALL.into_iter().find(|way| has(way) && works(*way)) {
        return match way {
            Way::Overlay => (way, "overlay works on the data root".to_owned()),
            _ => (way, format!("the data root has images under {}", way.driver())),
        };
    }
    let way = Way::ALL.into_iter().find(|way| works(*way)).unwrap_or(Way::Vfs);
    let without = Way::ALL.into_iter().take_while(|other| *other != way);
    let reasons: Vec<String> = without
        .filter_map(|other| Some(format!("{}: {}", other.word(), why_not(other, settings, probe)?)))
        .collect();
    if reasons.is_empty() {
        (way, "overlay works on the data root".to_owned())
    } else {
        (way, reasons.join("; "))
    }
}

/// Why a way is not open, if it is not.
fn why_not(way: Way, settings: &Settings, probe: &Probe) -> Option<String> {
    let tried = match way {
        Way::Overlay => &probe.overlay,
        Way::Loop if disk_size(settings, probe) < SMALLEST => {
            return Some(format!("only {} are free", size_in_words(probe.free)));
        }
        Way::Loop => &probe.on_loop,
        Way::Fuse => &probe.fuse,
        Way::Vfs => return None,
    };
    match tried {
        Tried::Works => None,
        Tried::Not => Some("it was not tried".to_owned()),
        Tried::Fails(why) => Some(why.clone()),
    }
}

/// Size of the disk: what is there, or more if that is asked for; at first three quarters of what is free, so that the disk
/// under it does not fill up at once.
fn disk_size(settings: &Settings, probe: &Probe) -> u64 {
    let page = 1 << 20;
    let share = (probe.free / 4 * 3 / page * page).min(LARGEST);
    match (probe.disk, settings.storage.size) {
        (None, asked) => asked.unwrap_or(share),
        (Some(has), asked) => has.max(asked.unwrap_or_default()).max(SMALLEST),
    }
}

/// How many images the data root has that this way would show.
fn count(way: Way, probe: &Probe) -> usize {
    probe.images.iter().find(|(driver, _)| *driver == way.driver()).map_or(0, |(_, count)| *count)
}

fn found(probe: &Probe) -> String {
    let overlay = match &probe.overlay {
        Tried::Works => "overlay works on it".to_owned(),
        Tried::Not => "overlay was not tried on it".to_owned(),
        Tried::Fails(why) => why.clone(),
    };
    format!("{} with {} free; {overlay}", probe.kind, size_in_words(probe.free))
}

fn chosen(way: Way, disk: Option<u64>, settings: &Settings) -> String {
    let place = |name: &str| settings.daemon.data_root.join(name);
    match (way, disk) {
        (Way::Loop, Some(bytes)) => format!(
            "overlay2 on an ext4 image of {}, {}, on a loop device",
            size_in_words(bytes),
            place(DISK_FILE).display()
        ),
        _ if settings.storage.size.is_some() => {
            format!("{}, which takes no heed of DIND_STORAGE_SIZE", way.word())
        }
        _ => way.word().to_owned(),
    }
}

fn volume(settings: &Settings) -> String {
    format!("a data root on ext4 or xfs, such as a volume (-v NAME:{})", settings.daemon.data_root.display())
}

/// What would be better than this way, and what it costs.
fn better_than(way: Way, settings: &Settings, probe: &Probe) -> Option<String> {
    let cost = match way {
        Way::Overlay => return None,
        Way::Loop => {
            "the image takes room as it fills, and if the disk under it is full first, writes in it fail"
        }
        Way::Fuse => "every file access goes through a process",
        Way::Vfs => "each layer and each container is a whole copy",
    };
    let instead = match (probe.overlay == Tried::Works, way) {
        (true, Way::Loop) => {
            format!("DIND_STORAGE=overlay2, which works here, but does not show what is in {DISK_FILE}")
        }
        (true, _) => "DIND_STORAGE=overlay2, which works here, but does not show these images".to_owned(),
        (false, _) => volume(settings),
    };
    Some(format!("{instead}: {cost}"))
}

/// What the data root has that this way does not show.
fn unseen(way: Way, probe: &Probe) -> Option<String> {
    let shown = if way == Way::Loop { "" } else { way.driver() };
    let mut unseen: Vec<String> = probe
        .images
        .iter()
        .filter(|(driver, _)| driver != shown)
        .map(|(driver, count)| format!("{count} images under {driver}"))
        .collect();
    if way != Way::Loop && probe.disk.is_some() {
        unseen.push(format!("what is in {DISK_FILE}"));
    }
    (!unseen.is_empty())
        .then(|| format!("not visible now, but still in the data root: {}", unseen.join(", ")))
}

/// Whether the engine will keep its images the way overlay2 does.
pub(super) fn is_overlay2(settings: &Settings, probe: &Probe) -> bool {
    let driver = driver(&settings.daemon).unwrap_or_default();
    let arguments = decide(settings, probe).decision.arguments;
    !snapshotter(&settings.daemon)
        && (driver == "overlay2" || arguments.iter().any(|word| word == "overlay2"))
}

/// Where containerd keeps the names of its images, in the engine's data, where dockerd's options choose its image store: of some builds
/// an engine tells nobody, and this file alone shows that they are done.
pub(super) fn image_names(settings: &Settings, engine_root: &Path) -> Option<PathBuf> {
    let file = "containerd/daemon/io.containerd.metadata.v1.bolt/meta.db";
    snapshotter(&settings.daemon).then(|| engine_root.join(file))
}

/// Where the engine keeps its data if the data root `root` has a disk.
pub(super) fn on_disk(root: &Path) -> PathBuf {
    root.join(DISK)
}

#[cfg(test)]
mod tests;
