//! What a start after an unclean stop does before the engine runs: it finds what the stop has damaged and sets it aside, so that
//! nothing damaged is ever listed as good. `dind-init verify` looks at everything, and changes nothing.
//!
//! What breaks is known from power cuts made on purpose (`docs/campaigns.md`): the engine writes an image's layers without a
//! sync, and its records about them with one. After a cut the records are there and the files are empty, and whoever loads or
//! pulls the image again gets the same empty files, because the layer is known already. So layers are looked at, not images.

mod aside;
mod baked;
mod check;
pub(crate) mod containers;
pub(crate) mod images;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dind_contract::paths;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::layers::{self, Checked, Layer};
use crate::sync::{self, Synced};
use crate::{ask, ground};
use aside::Aside;
use check::{Damaged, check, damaged_images, key, with_descendants};
use containers::{Container, State};
use images::Image;

pub(crate) use baked::replace_baked;
pub(crate) use verify::verify;

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

/// Repairs the data root and prints the report: the work of a child of the host's, which waits for it with a deadline.
pub(crate) fn run(data_root: &Path, engine_root: &Path) -> Result<ExitCode, Failure> {
    // Mounts of a killed host that was not PID 1.
    for folder in ["overlay2", "fuse-overlayfs", "containers", paths::DAMAGED] {
        ground::detach_below(&engine_root.join(folder));
    }
    // A list of another place in the data root says nothing about this one.
    let synced = Synced::load(data_root).filter(|synced| synced.engine_root == engine_root);
    let cache_changed = synced.as_ref().is_none_or(|it| it.build_cache != layers::build_cache(engine_root));
    let mut report = Report::default();
    for root in layers::roots(engine_root) {
        match repair(&root, synced.as_ref(), cache_changed) {
            Ok(more) => report.add(more),
            Err(why) => report.trouble = Some(format!("{} cannot be checked: {why}", root.display())),
        }
    }
    if report.trouble.is_none()
        && let Err(e) = sync::forget_doubts(data_root)
    {
        report.trouble = Some(format!("cannot write to {}: {e}", data_root.display()));
    }
    ask::print(&serde_json::to_string(&report).unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}

impl Report {
    fn add(&mut self, more: Self) {
        if !self.summary.is_empty() {
            self.summary.push_str("; ");
        }
        self.summary.push_str(&more.summary);
        self.set_aside.extend(more.set_aside);
    }
}

/// What is to be set aside, and what is said about it.
#[derive(Default)]
struct Plan {
    lines: Vec<String>,
    images: Vec<Image>,
    containers: Vec<Container>,
    /// How many containers are there in part only.
    halves: usize,
}

/// Finds what an unclean stop has damaged and sets it aside. It can be cut off at any point and done again.
///
/// # Errors
/// Something cannot be read or moved; nothing was judged by it.
fn repair(root: &Path, synced: Option<&Synced>, cache_changed: bool) -> Result<Report, String> {
    let all = layers::all(root);
    let is_young = |layer: &&Layer| synced.is_none_or(|synced| !synced.layers.contains(&layer.identity()));
    // What is a link into a store is whole by the store's own digests, or leads nowhere, which harms nobody.
    let young: Vec<&Layer> = all.iter().filter(is_young).filter(|layer| !layer.is_link(root)).collect();
    let found = check(root, &young);
    if let Some(unreadable) = found.unreadable {
        return Err(unreadable);
    }
    let damaged = with_descendants(&all, found.damaged);
    let plan = plan(root, &all, &damaged).map_err(|e| e.to_string())?;
    let mut report = Report { summary: summary(young.len(), all.len(), found.checked), ..Report::default() };
    let mut aside = Aside::new(root, &plan.lines);
    report.set_aside = aside.unfinished();
    report.set_aside.extend(plan.lines.clone());
    carry_out(root, &all, &damaged, &plan, &mut aside).map_err(|e| e.to_string())?;
    if plan.halves > 0 {
        let halves = plan.halves;
        report
            .summary
            .push_str(&format!("; {halves} containers whose making or removal was cut off are set aside"));
    }
    if (!damaged.is_empty() || cache_changed)
        && drop_build_cache(root, &mut aside).map_err(|e| e.to_string())?
    {
        report.summary.push_str(if cache_changed {
            "; the build cache had changed since the last sync and is emptied"
        } else {
            "; the build cache may stand on what is damaged and is emptied"
        });
    }
    for place in root.join("image").read_dir().into_iter().flatten().flatten() {
        // Records that never got their place.
        let _ = fs::remove_dir_all(place.path().join("layerdb/tmp"));
    }
    aside.finish().map_err(|e| e.to_string())?;
    Ok(report)
}

fn plan(root: &Path, all: &[Layer], damaged: &Damaged) -> io::Result<Plan> {
    let mut plan = Plan::default();
    for (image, why) in damaged_images(root, all, damaged) {
        let (title, remedy) = (image.title(), image.remedy());
        plan.lines
            .push(format!("the image {title} is damaged and set aside ({why}); to have it back: {remedy}"));
        plan.images.push(image);
    }
    let there: BTreeSet<(String, String)> = all.iter().map(key).collect();
    let is_bad = |place: &(String, String)| damaged.contains_key(place) || !there.contains(place);
    for container in containers::all(root)? {
        let title = container.title();
        match container.state {
            State::Usable if !container.stands_on.as_ref().is_some_and(is_bad) => continue,
            State::Usable => {
                plan.lines
                    .push(format!("the container {title} stood on a damaged image and is set aside with it"));
            }
            State::Broken => {
                let why = "its configuration cannot be understood";
                plan.lines.push(format!("the container {title} is damaged and set aside ({why})"));
            }
            State::Half | State::Dead => plan.halves += 1,
        }
        plan.containers.push(container);
    }
    Ok(plan)
}

fn carry_out(
    root: &Path,
    all: &[Layer],
    damaged: &Damaged,
    plan: &Plan,
    aside: &mut Aside<'_>,
) -> io::Result<()> {
    // Names first: whatever is cut off later, nothing damaged is listed.
    for image in &plan.images {
        aside.begin()?;
        images::forget_names(root, &image.driver, &BTreeSet::from([image.id.clone()]))?;
        for place in images::records(&image.driver, &image.id) {
            aside.take(&place)?;
        }
    }
    for container in &plan.containers {
        // The folder by which it is found goes last.
        for place in containers::places(root, &container.id).into_iter().rev() {
            aside.take(&place)?;
        }
    }
    // From the top: a layer of which the one under it is gone would not be found again.
    let mut gone: Vec<&Layer> = all.iter().filter(|layer| damaged.contains_key(&key(layer))).collect();
    gone.sort_by_key(|layer| std::cmp::Reverse(depth(all, layer)));
    for layer in gone {
        aside.take(&below(root, &layer.records))?;
        let ids = layer.cache_id.iter();
        for place in ids.flat_map(|id| containers::layer_places(root, layer.driver, id)) {
            aside.take(&place)?;
        }
    }
    Ok(())
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

fn summary(looked_at: usize, all: usize, checked: Checked) -> String {
    format!(
        "{looked_at} of {all} layers are younger than the last sync and were checked ({} files, {:.1} MB)",
        checked.files,
        checked.bytes as f64 / 1e6
    )
}
