//! `dind-init verify`: whether every image is whole. It changes nothing, and an engine may run beside it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use dind_contract::{exit, store as format};

use super::check::{self, Damaged, check, damaged_images, with_descendants};
use super::images;
use crate::failure::Failure;
use crate::layers::{self, Checked, Layer};
use crate::{ask, ground, store};

/// Where containerd keeps what images are made of, when it keeps them instead of the engine.
const CONTENT: &str = "containerd/daemon/io.containerd.content.v1.content/blobs";

/// What is wrong in a root, a line each. `known`: the images that were there before its layers were listed. One that an engine
/// brings meanwhile has layers that were not.
fn wrong_in(root: &Path, all: &[Layer], damaged: &Damaged, known: &BTreeSet<String>) -> Vec<String> {
    let mut broken = damaged_images(root, all, damaged);
    broken.retain(|(image, _)| known.contains(&image.id));
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
    for driver in layers::drivers().filter(|driver| !images::names_are_readable(root, driver)) {
        lines.push(format!("the names of the {driver} images cannot be read: repositories.json is damaged"));
    }
    lines
}

/// Checks every layer and image of a data root, and prints what is damaged; ends with 70 when anything is.
pub(crate) fn verify(engine_root: &Path, json: bool) -> Result<ExitCode, Failure> {
    if engine_root.join(ground::DISK_FILE).exists() && !engine_root.join("image").is_dir() {
        return Err(Failure::unavailable(
            format!("the images of {} are on a disk in it that is not mounted", engine_root.display()),
            "run it in a host that uses this data root: docker exec HOST dind-init verify",
        ));
    }
    let has_store = Path::new(format::FOLDER).exists();
    if !has_store && !layers::roots(engine_root).iter().any(|root| root.join("image").is_dir()) {
        if engine_root.join(CONTENT).is_dir() {
            return Err(Failure::unavailable(
                format!(
                    "the images of {} are in containerd's image store, which is not checked",
                    engine_root.display()
                ),
                "what containerd has unpacked bears no checksums; without the feature containerd-snapshotter an engine keeps some",
            ));
        }
        return Err(Failure::unavailable(
            format!("there are no images of an engine in {}", engine_root.display()),
            "run it in a host (docker exec HOST dind-init verify), or name a data root: dind-init verify PATH",
        ));
    }
    let (mut lines, mut checked) = (Vec::new(), Checked::default());
    let store = match store::read(Path::new(format::FOLDER)) {
        Ok(store) => store,
        Err(why) => {
            lines.push(format!("the store of the appliance is damaged: {why}"));
            None
        }
    };
    if let Some(store) = &store {
        let (wrong, bytes) = store::verify(store);
        lines.extend(wrong);
        checked.bytes += bytes;
    }
    let (mut image_count, mut layer_count) = (0, 0);
    for root in layers::roots(engine_root) {
        let known: BTreeSet<String> = images::all(&root).into_iter().map(|image| image.id).collect();
        let mut all = layers::all(&root);
        let links = all.iter().filter(|layer| layer.is_link(&root)).count();
        let mut found = check(&root, &all.iter().filter(|layer| !layer.is_link(&root)).collect::<Vec<_>>());
        if links > 0 && store.is_none() {
            lines.push(format!(
                "{links} layers are links into the store of a sealed appliance, which is not here: verify them in the appliance itself"
            ));
        }
        if let Some(why) = found.unreadable {
            return Err(Failure::unavailable(
                format!("{} cannot be checked: {why}", root.display()),
                "run it as root, in a host that has memory and files to spare",
            ));
        }
        // An engine that runs may have removed some meanwhile.
        all.retain(|layer| layer.records.exists());
        found.damaged.retain(|key, _| all.iter().any(|layer| check::key(layer) == *key));
        lines.extend(wrong_in(&root, &all, &with_descendants(&all, found.damaged), &known));
        checked.files += found.checked.files;
        checked.bytes += found.checked.bytes;
        image_count += known.len();
        layer_count += all.len();
    }
    let bytes = checked.bytes as f64 / 1e6;
    if json {
        let document = serde_json::json!({
            "images": image_count, "layers": layer_count, "files": checked.files, "bytes": checked.bytes, "damaged": lines,
        });
        ask::show(&format!("{document:#}\n"))?;
    } else {
        lines.iter().for_each(|line| ask::print(&format!("{line}\n")));
        let verdict = if lines.is_empty() { "all whole" } else { "not all whole" };
        ask::print(&format!(
            "{image_count} images, {layer_count} layers, {} files, {bytes:.1} MB read: {verdict}\n",
            checked.files
        ));
    }
    Ok(ExitCode::from(if lines.is_empty() { exit::CLEAN } else { exit::FAILED }))
}
