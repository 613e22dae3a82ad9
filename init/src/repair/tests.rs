//! Repairs of made-up data roots.

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::layers::tests::{chain, write_layer};

/// A data root with two images, `base` and `app` on top of it, a container of each, and a build cache.
fn data_root() -> (TempDir, [String; 2], [String; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let diffs = [chain('a'), chain('b')];
    write_layer(root, &diffs[0], None, &[("bin/sh", b"program")]);
    let top = write_layer(root, &diffs[1], Some(&diffs[0]), &[("app", b"app")]);
    let base = write_image(root, "base:1", &diffs[..1]);
    let app = write_image(root, "app:1", &diffs);
    write_container(root, "c1", "one", &diffs[0], "Running");
    write_container(root, "c2", "two", &top, "Running");
    fs::create_dir_all(root.join("buildkit")).unwrap();
    fs::write(root.join("buildkit/snapshots.db"), "pages").unwrap();
    fs::create_dir_all(root.join("overlay2/abcdefghijklmnopqrstuvwx1/diff")).unwrap();
    (folder, [diffs[0].clone(), top], [base, app])
}

fn write_image(root: &Path, name: &str, diffs: &[String]) -> String {
    let diffs: Vec<String> = diffs.iter().map(|diff| format!("sha256:{diff}")).collect();
    let text = json!({ "rootfs": { "type": "layers", "diff_ids": diffs } }).to_string();
    let id = images::tests::id_of(text.as_bytes());
    let folder = root.join("image/overlay2/imagedb/content/sha256");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(&id), text).unwrap();
    let file = root.join("image/overlay2/repositories.json");
    let mut names: serde_json::Value =
        serde_json::from_slice(&fs::read(&file).unwrap_or_default()).unwrap_or(json!({ "Repositories": {} }));
    let repository = name.split(':').next().unwrap();
    names["Repositories"][repository] = json!({ name: format!("sha256:{id}") });
    fs::write(file, names.to_string()).unwrap();
    id
}

fn write_container(root: &Path, id: &str, name: &str, on: &str, state: &str) {
    let folder = root.join("containers").join(id);
    fs::create_dir_all(&folder).unwrap();
    let config = json!({ "ID": id, "Name": format!("/{name}"), "State": { state: true } });
    fs::write(folder.join("config.v2.json"), config.to_string()).unwrap();
    let mount = root.join("image/overlay2/layerdb/mounts").join(id);
    fs::create_dir_all(&mount).unwrap();
    fs::write(mount.join("parent"), format!("sha256:{on}")).unwrap();
    fs::write(mount.join("mount-id"), format!("rw-{id}")).unwrap();
    fs::create_dir_all(root.join("overlay2").join(format!("rw-{id}"))).unwrap();
}

fn synced(root: &Path, without: &str) -> Synced {
    let mut layers = layers::known(root);
    layers.retain(|identity| without.is_empty() || !identity.contains(without));
    Synced { layers, build_cache: layers::build_cache(root), ..Synced::default() }
}

fn repair_now(root: &Path, synced: Option<&Synced>) -> Result<Report, String> {
    repair(root, synced, synced.is_none_or(|synced| synced.build_cache != layers::build_cache(root)))
}

fn titles(root: &Path) -> Vec<String> {
    images::all(root).iter().flat_map(|image| image.names.clone()).collect()
}

#[test]
fn what_is_whole_stays_as_it_is() {
    let (folder, chains, _) = data_root();
    let root = folder.path();
    let report = repair_now(root, Some(&synced(root, &chains[1]))).unwrap();
    assert_eq!(report.set_aside, [""; 0]);
    assert!(report.summary.starts_with("1 of 2 layers are younger than the last sync"), "{}", report.summary);
    assert_eq!(titles(root).len(), 2);
    assert!(root.join("buildkit/snapshots.db").exists());
    assert!(!root.join(paths::DAMAGED).exists());
    // With no list of what is on disk, everything is checked, and the build cache cannot be trusted.
    let report = repair_now(root, None).unwrap();
    assert!(report.summary.starts_with("2 of 2"), "{}", report.summary);
    assert_eq!((report.set_aside.len(), titles(root).len()), (0, 2));
    assert!(!root.join("buildkit").exists());
    assert!(!root.join("overlay2/abcdefghijklmnopqrstuvwx1").exists());
}

#[test]
fn a_damaged_layer_takes_what_stands_on_it_along() {
    let (folder, chains, ids) = data_root();
    let root = folder.path();
    let known = synced(root, &chains[1]);
    fs::write(root.join("overlay2").join(format!("cache-{}", &chains[1][..8])).join("diff/app"), "").unwrap();
    let report = repair_now(root, Some(&known)).unwrap();
    assert_eq!(titles(root), ["base:1"]);
    assert_eq!(report.set_aside.len(), 2, "{:?}", report.set_aside);
    let said = &report.set_aside[0];
    assert!(
        said.contains("app:1") && said.contains("has 0 bytes") && said.contains("docker pull app:1"),
        "{said}"
    );
    assert!(report.set_aside[1].contains("two"), "{:?}", report.set_aside);
    assert!(root.join("containers/c1").exists() && !root.join("containers/c2").exists());
    assert_eq!(layers::all(root).len(), 1, "loading it again unpacks it again");
    let aside = root.join(paths::DAMAGED).join("1");
    assert!(aside.join("image/overlay2/imagedb/content/sha256").join(&ids[1]).exists());
    assert!(aside.join("containers/c2/config.v2.json").exists());
    assert!(!root.join(format!("overlay2/l/L{}", &chains[1][..8])).is_symlink());
    // Done again, it finds nothing more to do.
    let again = repair_now(root, Some(&known)).unwrap();
    assert_eq!(again.set_aside, [""; 0]);
    assert!(aside.join("containers/c2").exists(), "kept until something else is set aside");
}

#[test]
fn damage_below_is_damage_above() {
    let (folder, chains, _) = data_root();
    let root = folder.path();
    let known = synced(root, &chains[0]);
    fs::remove_file(root.join("overlay2").join(format!("cache-{}", &chains[0][..8])).join("diff/bin/sh"))
        .unwrap();
    repair_now(root, Some(&known)).unwrap();
    assert_eq!(titles(root), [""; 0]);
    assert_eq!(layers::all(root), []);
}

#[test]
fn a_name_without_its_image_is_forgotten() {
    let (folder, _, ids) = data_root();
    let root = folder.path();
    let place = root.join("image/overlay2/imagedb/content/sha256").join(&ids[1]);
    for content in [None, Some(""), Some("{}")] {
        write_image(root, "app:1", &[chain('a'), chain('b')]);
        match content {
            None => fs::remove_file(&place).unwrap(),
            Some(text) => fs::write(&place, text).unwrap(),
        }
        let report = repair_now(root, Some(&synced(root, ""))).unwrap();
        assert_eq!(titles(root), ["base:1"]);
        assert!(report.set_aside[0].contains("app:1"), "{:?}", report.set_aside);
        assert!(!place.exists());
    }
}

#[test]
fn halves_of_containers_are_set_aside() {
    let (folder, chains, _) = data_root();
    let root = folder.path();
    let known = synced(root, "");
    fs::create_dir_all(root.join("containers/half/checkpoints")).unwrap();
    write_container(root, "c3", "dead", &chains[0], "Dead");
    write_container(root, "c4", "going", &chains[0], "RemovalInProgress");
    let report = repair_now(root, Some(&known)).unwrap();
    assert!(
        report.summary.contains("3 containers whose making or removal was cut off"),
        "{}",
        report.summary
    );
    assert_eq!(report.set_aside, [""; 0]);
    assert_eq!(layers::entries(&root.join("containers")), ["c1", "c2"]);
    assert!(!root.join("overlay2/rw-c3").exists());
}

/// Cut off before the names were gone, after them, and in the middle of the moves.
#[test]
fn a_repair_that_is_cut_off_is_ended_by_the_next_and_says_the_same() {
    for moved in [&[][..], &["containers/c2"], &["containers/c2", "overlay2/rw-c2"]] {
        let (folder, chains, _) = data_root();
        let root = folder.path();
        let known = synced(root, &chains[1]);
        fs::write(root.join("overlay2").join(format!("cache-{}", &chains[1][..8])).join("diff/app"), "")
            .unwrap();
        let lines = ["the image app:1 is damaged".to_owned(), "the container two stood on it".to_owned()];
        let mut first = Aside::new(root, &lines);
        first.begin().unwrap();
        images::forget_names(
            root,
            "overlay2",
            &images::all(root).into_iter().map(|image| image.id).collect(),
        )
        .unwrap();
        for place in moved {
            first.take(Path::new(place)).unwrap();
        }
        let report = repair_now(root, Some(&known)).unwrap();
        assert_eq!(report.set_aside[..2], lines);
        assert!(!root.join("containers/c2").exists() && layers::all(root).len() == 1);
        for place in moved {
            assert!(root.join(paths::DAMAGED).join("1").join(place).exists(), "what it moved is kept");
        }
        assert_eq!(repair_now(root, Some(&known)).unwrap().set_aside, [""; 0], "said once");
    }
}

#[test]
fn what_another_driver_keeps_is_left_alone() {
    let (folder, ..) = data_root();
    let root = folder.path();
    fs::rename(root.join("image/overlay2"), root.join("image/btrfs")).unwrap();
    let report = repair_now(root, None).unwrap();
    assert_eq!(report.set_aside, [""; 0]);
    assert!(root.join("containers/c1").exists() && root.join("image/btrfs/imagedb/content/sha256").exists());
}

#[test]
fn a_container_whose_configuration_is_damaged_is_named() {
    let (folder, ..) = data_root();
    let root = folder.path();
    fs::write(root.join("containers/c1/config.v2.json"), "{").unwrap();
    let report = repair_now(root, Some(&synced(root, ""))).unwrap();
    assert_eq!(
        report.set_aside,
        ["the container c1 is damaged and set aside (its configuration cannot be understood)"]
    );
    assert!(root.join("containers/c2").exists());
}

#[test]
fn every_pair_of_ids_has_images_of_its_own() {
    let (folder, ..) = data_root();
    let root = folder.path();
    let remapped = root.join("100000.100000");
    fs::create_dir(&remapped).unwrap();
    for name in ["image", "overlay2", "containers", "buildkit"] {
        fs::rename(root.join(name), remapped.join(name)).unwrap();
    }
    assert_eq!(layers::roots(root), [root.to_owned(), remapped.clone()]);
    assert_eq!(layers::known(root).len(), 2);
    assert!(layers::build_cache(root).is_some());
}

proptest::proptest! {
    #[test]
    fn any_record_is_read(text in "[ -~\n]{0,60}|\\{\"(Name|State|rootfs|Repositories)\":[ -~]{0,40}\\}") {
        let text = text.as_bytes();
        let _ = (images::read_chains(text), images::parse_repositories(text), containers::parse(text));
    }
}

#[test]
fn nothing_in_a_data_root_leads_out_of_it() {
    let (folder, _, _) = data_root();
    let root = folder.path().join("inner");
    fs::create_dir_all(root.join("image/overlay2/layerdb/sha256")).unwrap();
    write_container(&root, "c1", "one", &chain('f'), "Dead");
    fs::write(root.join("image/overlay2/layerdb/mounts/c1/mount-id"), "../../containers/c1").unwrap();
    repair_now(&root, None).unwrap();
    assert!(folder.path().join("containers/c1").exists());
}
