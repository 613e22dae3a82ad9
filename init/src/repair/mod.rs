//! What a start after an unclean stop does before the engine runs: it finds what the stop has damaged and sets it aside, so that
//! nothing damaged is ever listed as good. `dind-init verify` looks at everything, and changes nothing.
//!
//! What breaks is known from power cuts made on purpose (`docs/campaigns.md`): the engine writes an image's layers without a
//! sync, and its records about them with one. After a cut the records are there and the files are empty, and whoever loads or
//! pulls the image again gets the same empty files, because the layer is known already. So layers are looked at, not images.

pub(crate) mod containers;
pub(crate) mod images;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use dind_contract::{exit, paths};
use serde::{Deserialize, Serialize};

use crate::ask;
use crate::failure::Failure;
use crate::layers::{self, Checked, Layer};
use crate::sync::Synced;
use containers::State;
use images::Image;

/// What a repair did, for the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What it looked at, in one line.
    pub(crate) summary: String,
    /// What was set aside, a line each, with what brings it back.
    pub(crate) set_aside: Vec<String>,
    /// What could not be done.
    pub(crate) trouble: Option<String>,
}

/// Layers and what is wrong with each of them, by driver and chain id.
type Damaged = BTreeMap<(String, String), String>;

/// Repairs the data root and prints the report: the work of a child of the host's, which waits for it with a deadline.
pub(crate) fn run(data_root: &Path, engine_root: &Path) -> Result<ExitCode, Failure> {
    let report = repair(engine_root, Synced::load(data_root).as_ref()).unwrap_or_else(|e| Report {
        trouble: Some(format!("{} cannot be repaired: {e}", engine_root.display())),
        ..Report::default()
    });
    ask::print(&serde_json::to_string(&report).unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}

/// Finds what an unclean stop has damaged and sets it aside. It can be cut off at any point and done again.
fn repair(engine_root: &Path, synced: Option<&Synced>) -> io::Result<Report> {
    let mut aside = Aside::new(engine_root);
    let all = layers::all(engine_root);
    let is_young = |layer: &&Layer| synced.is_none_or(|synced| !synced.layers.contains(&layer.identity()));
    let young: Vec<&Layer> = all.iter().filter(is_young).collect();
    let (found, checked) = check(engine_root, &young);
    let damaged = with_descendants(&all, found);
    let mut report = Report { summary: summary(young.len(), all.len(), checked), ..Report::default() };

    // Names first: whatever is cut off later, nothing damaged is listed.
    for (image, why) in damaged_images(engine_root, &all, &damaged) {
        images::forget_names(engine_root, &image.driver, &BTreeSet::from([image.id.clone()]))?;
        for place in images::records(&image.driver, &image.id) {
            aside.take(&place)?;
        }
        report.set_aside.push(format!(
            "the image {} is damaged and set aside ({why}); to have it back: {}",
            image.title(),
            image.remedy()
        ));
    }
    let there: BTreeSet<(String, String)> = all.iter().map(key).collect();
    let stands_on_damage = |container: &containers::Container| {
        container
            .stands_on
            .as_ref()
            .is_some_and(|place| damaged.contains_key(place) || !there.contains(place))
    };
    let mut half = 0;
    for container in containers::all(engine_root) {
        if container.state == State::Usable && !stands_on_damage(&container) {
            continue;
        }
        for place in containers::places(engine_root, &container.id).into_iter().rev() {
            aside.take(&place)?;
        }
        if container.state == State::Usable {
            let title = container.title();
            report
                .set_aside
                .push(format!("the container {title} stood on a damaged image and is set aside with it"));
        } else {
            half += 1;
        }
    }
    // From the top: a layer of which the one under it is gone would not be found again.
    let mut gone: Vec<&Layer> = all.iter().filter(|layer| damaged.contains_key(&key(layer))).collect();
    gone.sort_by_key(|layer| std::cmp::Reverse(depth(&all, layer)));
    for layer in gone {
        aside.take(&below(engine_root, &layer.records))?;
        for place in
            layer.cache_id.iter().flat_map(|id| containers::layer_places(engine_root, layer.driver, id))
        {
            aside.take(&place)?;
        }
    }
    if half > 0 {
        report
            .summary
            .push_str(&format!("; {half} containers whose making or removal was cut off are set aside"));
    }
    if !damaged.is_empty()
        || synced.is_none_or(|synced| synced.build_cache != layers::build_cache(engine_root))
    {
        let dropped = drop_build_cache(engine_root, &mut aside)?;
        if dropped {
            report.summary.push_str("; the build cache had changed since the last sync and is emptied");
        }
    }
    for place in engine_root.join("image").read_dir().into_iter().flatten().flatten() {
        // Records that never got their place.
        let _ = fs::remove_dir_all(place.path().join("layerdb/tmp"));
    }
    Ok(report)
}

/// Where things are moved to. What an earlier repair put there makes room.
struct Aside<'a> {
    engine_root: &'a Path,
    begun: bool,
}

impl<'a> Aside<'a> {
    fn new(engine_root: &'a Path) -> Self {
        Self { engine_root, begun: false }
    }

    /// Moves what lies at `place`, below the engine's root, out of the engine's sight. That it is not there is no error.
    fn take(&mut self, place: &Path) -> io::Result<()> {
        let from = self.engine_root.join(place);
        if from.symlink_metadata().is_err() {
            return Ok(());
        }
        let folder = self.engine_root.join(paths::DAMAGED);
        if !std::mem::replace(&mut self.begun, true) {
            match fs::remove_dir_all(&folder) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        let to = folder.join(place);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::rename(from, to)
    }
}

/// Empties the build cache: its own records, and the layers that only it has.
fn drop_build_cache(engine_root: &Path, aside: &mut Aside<'_>) -> io::Result<bool> {
    if !engine_root.join("buildkit").exists() {
        return Ok(false);
    }
    aside.take(Path::new("buildkit"))?;
    let used: BTreeSet<String> =
        layers::all(engine_root).into_iter().filter_map(|layer| layer.cache_id).collect();
    for driver in ["overlay2", "fuse-overlayfs", "vfs/dir"] {
        for name in layers::entries(&engine_root.join(driver)) {
            // The engine's own layers have names of 64 digits; the builder's have 25 letters and digits.
            if is_builders(&name) && !used.contains(&name) {
                let short = driver.trim_end_matches("/dir");
                for place in containers::layer_places(engine_root, short, &name) {
                    aside.take(&place)?;
                }
            }
        }
    }
    Ok(true)
}

fn is_builders(name: &str) -> bool {
    name.len() == 25 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn key(layer: &Layer) -> (String, String) {
    (layer.driver.to_owned(), layer.chain.clone())
}

fn below(engine_root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(engine_root).unwrap_or(path).to_owned()
}

/// How many layers lie under this one. Records that lead in a circle are cut off.
fn depth(all: &[Layer], layer: &Layer) -> usize {
    let mut at = layer;
    for depth in 0..all.len() {
        let under = |other: &&Layer| other.driver == at.driver && Some(&other.chain) == at.parent.as_ref();
        match all.iter().find(under) {
            Some(parent) => at = parent,
            None => return depth,
        }
    }
    all.len()
}

/// Checks layers on all processors.
fn check(engine_root: &Path, layers: &[&Layer]) -> (Damaged, Checked) {
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut damaged, mut checked) = (Damaged::new(), Checked::default());
        while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
            match layer.check(engine_root) {
                Ok(more) => {
                    checked.files += more.files;
                    checked.bytes += more.bytes;
                }
                Err(wrong) => drop(damaged.insert(key(layer), wrong)),
            }
        }
        (damaged, checked)
    };
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..processors.min(layers.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).fold(
            (Damaged::new(), Checked::default()),
            |(mut damaged, mut checked), (more_damaged, more)| {
                damaged.extend(more_damaged);
                checked.files += more.files;
                checked.bytes += more.bytes;
                (damaged, checked)
            },
        )
    })
}

/// Adds the layers that lie on damaged ones, or on none where there should be one.
fn with_descendants(all: &[Layer], mut damaged: Damaged) -> Damaged {
    let there: BTreeSet<(String, String)> = all.iter().map(key).collect();
    loop {
        let mut more = Damaged::new();
        for layer in all.iter().filter(|layer| !damaged.contains_key(&key(layer))) {
            let Some(parent) = &layer.parent else { continue };
            let parent = (layer.driver.to_owned(), parent.clone());
            if let Some(why) = damaged.get(&parent) {
                more.insert(key(layer), why.clone());
            } else if !there.contains(&parent) {
                more.insert(key(layer), "the layer under it is not there".to_owned());
            }
        }
        if more.is_empty() {
            return damaged;
        }
        damaged.extend(more);
    }
}

/// The images that cannot be used, with the reason.
fn damaged_images(engine_root: &Path, all: &[Layer], damaged: &Damaged) -> Vec<(Image, String)> {
    let there: BTreeSet<(String, String)> = all.iter().map(key).collect();
    let judge = |image: &Image| {
        let Some(chains) = &image.chains else { return Some("its configuration is damaged".to_owned()) };
        chains.iter().find_map(|chain| {
            let key = (image.driver.clone(), chain.clone());
            let missing = || (!there.contains(&key)).then(|| "one of its layers is not there".to_owned());
            damaged.get(&key).cloned().or_else(missing)
        })
    };
    images::all(engine_root).into_iter().filter_map(|image| judge(&image).map(|why| (image, why))).collect()
}

fn summary(looked_at: usize, all: usize, checked: Checked) -> String {
    format!(
        "{looked_at} of {all} layers are younger than the last sync and were checked ({} files, {:.1} MB)",
        checked.files,
        checked.bytes as f64 / 1e6
    )
}

/// Checks every layer and image of a data root, and prints what is damaged; ends with 70 when anything is.
pub(crate) fn verify(engine_root: &Path, json: bool) -> Result<ExitCode, Failure> {
    if !engine_root.join("image").is_dir() {
        return Err(Failure::unavailable(
            format!("there are no images of an engine in {}", engine_root.display()),
            "run it in a host (docker exec HOST dind-init verify), or name a data root: dind-init verify PATH",
        ));
    }
    let mut all = layers::all(engine_root);
    let (mut found, checked) = check(engine_root, &all.iter().collect::<Vec<_>>());
    // An engine that runs may have removed some meanwhile.
    all.retain(|layer| layer.records.exists());
    found.retain(|key, _| all.iter().any(|layer| self::key(layer) == *key));
    let damaged = with_descendants(&all, found);
    let images = images::all(engine_root);
    let broken = damaged_images(engine_root, &all, &damaged);
    let mut lines: Vec<String> = broken
        .iter()
        .map(|(image, why)| {
            format!("the image {} is damaged: {why}; to have it back: {}", image.title(), image.remedy())
        })
        .collect();
    let of_images: BTreeSet<&String> =
        broken.iter().filter_map(|(image, _)| image.chains.as_ref()).flatten().collect();
    for ((driver, chain), why) in damaged.iter().filter(|((_, chain), _)| !of_images.contains(chain)) {
        lines.push(format!("the {driver} layer sha256:{chain}, of no image, is damaged: {why}"));
    }
    for driver in layers::entries(&engine_root.join("image")) {
        if !images::names_are_readable(engine_root, &driver) {
            lines.push(format!(
                "the names of the {driver} images cannot be read: repositories.json is damaged"
            ));
        }
    }
    let bytes = checked.bytes as f64 / 1e6;
    if json {
        let document = serde_json::json!({
            "images": images.len(), "layers": all.len(), "files": checked.files, "bytes": checked.bytes, "damaged": lines,
        });
        ask::print(&format!("{document:#}\n"));
    } else {
        lines.iter().for_each(|line| ask::print(&format!("{line}\n")));
        let verdict = if lines.is_empty() { "all whole" } else { "not all whole" };
        ask::print(&format!(
            "{} images, {} layers, {} files, {bytes:.1} MB read: {verdict}\n",
            images.len(),
            all.len(),
            checked.files
        ));
    }
    Ok(ExitCode::from(if lines.is_empty() { exit::CLEAN } else { exit::FAILED }))
}
