//! Takes out of a data root what another version of a sealed appliance had baked in, and says what stood on it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::aside::Aside;
use super::check::{Damaged, key, with_descendants};
use super::images::{self, Image};
use super::{containers, depth};
use crate::layers::{self, Layer};

const DRIVER: &str = "overlay2";

/// What has become of it.
#[derive(Debug, Default)]
pub(crate) struct Replaced {
    /// What a user must know.
    pub(crate) lines: Vec<String>,
    /// Chain ids of layers whose records stay, because containers stand on them.
    pub(crate) kept: BTreeSet<String>,
}

/// Removes the baked images with these ids, if nobody has given them a name of their own, and the layers that are not in the store any
/// more, by chain id. What the user has made on these is set aside. Containers stay, so that Compose makes them anew with their volumes.
///
/// # Errors
/// Something cannot be read, moved or removed. It can be done again.
pub(crate) fn replace_baked(
    root: &Path,
    baked: &BTreeSet<String>,
    gone: &BTreeSet<String>,
) -> io::Result<Replaced> {
    let why = "its layers are not in the store any more";
    let all: Vec<Layer> = layers::all(root).into_iter().filter(|layer| layer.driver == DRIVER).collect();
    let lost = gone.iter().map(|chain| ((DRIVER.to_owned(), chain.clone()), why.to_owned())).collect();
    let mut lost: Damaged = with_descendants(&all, lost);
    lost.retain(|_, reason| reason == why);
    let is_lost = |chain: &String| lost.contains_key(&(DRIVER.to_owned(), chain.clone()));
    let mut replaced = Replaced::default();
    let mut needed: BTreeSet<String> = BTreeSet::new();
    for container in containers::all(root)? {
        let Some((_, chain)) =
            container.stands_on.clone().filter(|(driver, chain)| driver == DRIVER && is_lost(chain))
        else {
            continue;
        };
        let title = container.title();
        replaced.lines.push(format!(
            "the container {title} stands on layers that this version of the appliance does not have: it cannot run until it is made anew; \
             its volumes are kept"
        ));
        let mut at = Some(chain);
        while let Some(chain) = at.filter(|chain| needed.insert(chain.clone())) {
            at = all.iter().find(|layer| layer.chain == chain).and_then(|layer| layer.parent.clone());
        }
    }
    let on_lost = |image: &Image| image.chains.iter().flatten().any(is_lost);
    let images: Vec<Image> = images::all(root).into_iter().filter(|image| image.driver == DRIVER).collect();
    let (earlier, users): (Vec<&Image>, Vec<&Image>) = images
        .iter()
        .filter(|image| on_lost(image) || baked.contains(&image.id) && image.names.is_empty())
        .partition(|image| baked.contains(&image.id));
    for image in users.iter().chain(earlier.iter().filter(|image| !image.names.is_empty())) {
        let title = image.title();
        replaced.lines.push(format!(
            "the image {title} stood on layers that this version of the appliance does not have, and is set aside; to have it back: build it again"
        ));
    }
    let lines = replaced.lines.clone();
    let mut aside = Aside::new(root, &lines);
    let ids: BTreeSet<String> = users.iter().chain(&earlier).map(|image| image.id.clone()).collect();
    images::forget_names(root, DRIVER, &ids)?;
    for image in &earlier {
        for place in images::records(DRIVER, &image.id) {
            remove(&root.join(place))?;
        }
    }
    for place in users.iter().flat_map(|image| images::records(DRIVER, &image.id)) {
        aside.take(&place)?;
    }
    // From the top: a layer of which the one under it is gone would not be found again.
    let mut layers: Vec<&Layer> =
        all.iter().filter(|layer| lost.contains_key(&key(layer)) && !needed.contains(&layer.chain)).collect();
    layers.sort_by_key(|layer| std::cmp::Reverse(depth(&all, layer)));
    for layer in layers {
        let places = layer.cache_id.iter().flat_map(|id| containers::layer_places(root, DRIVER, id));
        if gone.contains(&layer.chain) {
            for place in places {
                remove(&root.join(place))?;
            }
            remove(&layer.records)?;
        } else {
            aside.take(&super::below(root, &layer.records))?;
            for place in places {
                aside.take(&place)?;
            }
        }
    }
    aside.finish()?;
    replaced.kept = gone.intersection(&needed).cloned().collect();
    Ok(replaced)
}

/// Removes a file, a link or a folder with all that is in it, but nothing that a link leads to.
fn remove(path: &Path) -> io::Result<()> {
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    if found.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}
