//! Which layers and images of a data root are damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::images::{self, Image};
use crate::layers::{Checked, Layer, Wrong};

/// Layers and what is wrong with each of them, by driver and chain id.
pub(super) type Damaged = BTreeMap<(String, String), String>;

pub(super) fn key(layer: &Layer) -> (String, String) {
    (layer.driver.to_owned(), layer.chain.clone())
}

/// What a check of layers found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) damaged: Damaged,
    pub(super) checked: Checked,
    /// The first layer that could not be looked at, and why.
    pub(super) unreadable: Option<String>,
}

impl Found {
    fn add(mut self, more: Self) -> Self {
        self.damaged.extend(more.damaged);
        self.checked.files += more.checked.files;
        self.checked.bytes += more.checked.bytes;
        self.unreadable = self.unreadable.or(more.unreadable);
        self
    }
}

/// Checks layers on all processors.
pub(super) fn check(engine_root: &Path, layers: &[&Layer]) -> Found {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Found::default();
        while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
            match layer.check(engine_root) {
                Ok(checked) => found = found.add(Found { checked, ..Found::default() }),
                Err(Wrong::Damaged(wrong)) => drop(found.damaged.insert(key(layer), wrong)),
                Err(Wrong::Unreadable(why)) => {
                    found.unreadable.get_or_insert(format!("the layer sha256:{}: {why}", layer.chain));
                }
            }
        }
        found
    };
    let more = thread::available_parallelism().map_or(1, std::num::NonZero::get).min(layers.len());
    thread::scope(|scope| {
        // Where no thread can be made, this one does it all.
        let threads: Vec<_> =
            (1..more).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let ours = work();
        threads.into_iter().filter_map(|thread| thread.join().ok()).fold(ours, Found::add)
    })
}

/// Adds the layers that lie on damaged ones, or on none where there should be one.
pub(super) fn with_descendants(all: &[Layer], mut damaged: Damaged) -> Damaged {
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
pub(super) fn damaged_images(engine_root: &Path, all: &[Layer], damaged: &Damaged) -> Vec<(Image, String)> {
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
