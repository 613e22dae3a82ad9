//! The engine's images as they lie on disk (moby, `image/fs.go` and `reference/store.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::layers::{self, sha256};
use crate::sync::write_durably;

/// Name → reference → image, as the engine writes them.
pub(crate) type Repositories = BTreeMap<String, BTreeMap<String, String>>;

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// The graph driver that it belongs to.
    pub(crate) driver: String,
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// Its tags, or its digests where it has no tag.
    pub(crate) names: Vec<String>,
    /// The chain ids of its layers, the lowest first; `None`: its configuration is damaged.
    pub(crate) chains: Option<Vec<String>>,
}

impl Image {
    /// How a user knows it.
    pub(crate) fn title(&self) -> String {
        let short = self.id.get(..12).unwrap_or(&self.id);
        match self.names.as_slice() {
            [] => format!("sha256:{short}"),
            names => format!("{} (sha256:{short})", names.join(", ")),
        }
    }

    /// What brings it back.
    pub(crate) fn remedy(&self) -> String {
        match self.names.first() {
            Some(name) => format!("`docker pull {name}`, or load or build it again"),
            None => "pull, load or build it again".to_owned(),
        }
    }
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

/// Where an image's configuration is, and what else the engine keeps about it.
pub(crate) fn records(driver: &str, id: &str) -> [PathBuf; 2] {
    let place = Path::new("image").join(driver).join("imagedb");
    [place.join("content/sha256").join(id), place.join("metadata/sha256").join(id)]
}

/// The chain ids of layers with these diff ids.
fn chains(diff_ids: &[String]) -> Option<Vec<String>> {
    let mut chains: Vec<String> = Vec::new();
    for diff in diff_ids {
        let diff = layers::digest(diff)?;
        chains.push(layers::chain_id(chains.last().map(String::as_str), &diff));
    }
    Some(chains)
}

/// The chain ids of an image's layers, from its configuration.
pub(crate) fn read_chains(config: &[u8]) -> Option<Vec<String>> {
    let config: Config = serde_json::from_slice(config).ok()?;
    chains(&config.rootfs.diff_ids.unwrap_or_default())
}

/// The drivers that have images here.
fn drivers(engine_root: &Path) -> Vec<String> {
    // Of another driver nothing can be said: its images are left alone.
    layers::drivers()
        .filter(|driver| engine_root.join("image").join(driver).is_dir())
        .map(str::to_owned)
        .collect()
}

/// All images, whole or not.
pub(crate) fn all(engine_root: &Path) -> Vec<Image> {
    let mut images = Vec::new();
    for driver in drivers(engine_root) {
        let repositories = read_repositories(engine_root, &driver);
        let folder = engine_root.join("image").join(&driver).join("imagedb/content/sha256");
        let mut ids: BTreeSet<String> =
            layers::entries(&folder).into_iter().filter(|id| layers::is_name(id)).collect();
        // A name may have outlived what it stands for.
        let named = repositories.values().flat_map(BTreeMap::values).filter_map(|id| layers::digest(id));
        ids.extend(named);
        for id in ids {
            let config = fs::read(folder.join(&id)).ok().filter(|text| sha256(text) == id);
            let chains = config.and_then(|text| read_chains(&text));
            images.push(Image { driver: driver.clone(), names: names(&repositories, &id), chains, id });
        }
    }
    images
}

fn names(repositories: &Repositories, id: &str) -> Vec<String> {
    let of =
        repositories.values().flatten().filter(|(_, image)| layers::digest(image).as_deref() == Some(id));
    let all: Vec<String> = of.map(|(name, _)| name.clone()).collect();
    let tags: Vec<String> = all.iter().filter(|name| !name.contains('@')).cloned().collect();
    if tags.is_empty() { all } else { tags }
}

fn repositories_file(engine_root: &Path, driver: &str) -> PathBuf {
    engine_root.join("image").join(driver).join("repositories.json")
}

fn read_repositories(engine_root: &Path, driver: &str) -> Repositories {
    parse_repositories(&fs::read(repositories_file(engine_root, driver)).unwrap_or_default())
}

/// The names of images, as the engine keeps them; none, where they cannot be read.
pub(crate) fn parse_repositories(text: &[u8]) -> Repositories {
    let document: Value = serde_json::from_slice(text).unwrap_or_default();
    document.get("Repositories").and_then(|it| serde_json::from_value(it.clone()).ok()).unwrap_or_default()
}

/// Takes every name away from these images of a driver.
pub(crate) fn forget_names(engine_root: &Path, driver: &str, ids: &BTreeSet<String>) -> io::Result<()> {
    let is_gone = |image: &String| layers::digest(image).is_some_and(|id| ids.contains(&id));
    change(engine_root, driver, |repositories| {
        for references in repositories.values_mut() {
            references.retain(|_, image| !is_gone(image));
        }
    })
}

/// Takes these names away, whatever they stand for.
pub(crate) fn take_names(engine_root: &Path, driver: &str, names: &BTreeSet<&str>) -> io::Result<()> {
    change(engine_root, driver, |repositories| {
        for references in repositories.values_mut() {
            references.retain(|name, _| !names.contains(name.as_str()));
        }
    })
}

/// Gives names to images; those names that stood for another, and for which.
pub(crate) fn give_names(
    engine_root: &Path,
    driver: &str,
    names: BTreeMap<String, String>,
) -> io::Result<BTreeMap<String, String>> {
    let mut taken = BTreeMap::new();
    change(engine_root, driver, |repositories| {
        for (name, id) in names {
            let references = repositories.entry(repository(&name).to_owned()).or_default();
            if let Some(other) = references.insert(name.clone(), id.clone()).filter(|other| *other != id) {
                taken.insert(name, other);
            }
        }
    })?;
    Ok(taken)
}

/// The repository of a name: `a:1/b` of `a:1/b:2` and of `a:1/b@sha256:…`.
fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    // A colon before the last slash belongs to a port.
    match name.rfind(':').filter(|colon| *colon > name.rfind('/').unwrap_or_default()) {
        Some(colon) => name.get(..colon).unwrap_or(name),
        None => name,
    }
}

/// Changes the names of a driver's images, and writes them if they have changed.
fn change(engine_root: &Path, driver: &str, change: impl FnOnce(&mut Repositories)) -> io::Result<()> {
    let before = read_repositories(engine_root, driver);
    let mut after = before.clone();
    change(&mut after);
    after.retain(|_, references| !references.is_empty());
    if after == before {
        return Ok(());
    }
    let file = repositories_file(engine_root, driver);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    write_durably(&file, &serde_json::to_vec(&serde_json::json!({ "Repositories": after }))?)
}

/// Whether the file of the names can be read, where there is one.
pub(crate) fn names_are_readable(engine_root: &Path, driver: &str) -> bool {
    match fs::read(repositories_file(engine_root, driver)) {
        Ok(text) => serde_json::from_slice::<Value>(&text).is_ok_and(|it| it.is_object()),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The chain id of the highest of these layers.
    pub(crate) fn chain_of(diffs: &[String]) -> String {
        let diffs: Vec<String> = diffs.iter().map(|diff| format!("sha256:{diff}")).collect();
        chains(&diffs).unwrap().pop().unwrap()
    }

    /// The id of an image with this configuration.
    pub(crate) fn id_of(config: &[u8]) -> String {
        sha256(config)
    }

    #[test]
    fn names_are_given_and_taken() {
        let folder = tempfile::tempdir().unwrap();
        let names = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect()
        };
        let given =
            names(&[("a:1", "sha256:x"), ("h:5000/b:2", "sha256:y"), ("h:5000/b@sha256:0", "sha256:y")]);
        assert_eq!(give_names(folder.path(), "overlay2", given).unwrap(), BTreeMap::new());
        let read = read_repositories(folder.path(), "overlay2");
        assert_eq!(read.keys().collect::<Vec<_>>(), ["a", "h:5000/b"]);
        assert_eq!(read["h:5000/b"].len(), 2);
        let taken = give_names(folder.path(), "overlay2", names(&[("a:1", "sha256:z")])).unwrap();
        assert_eq!(taken, names(&[("a:1", "sha256:x")]));
        take_names(folder.path(), "overlay2", &BTreeSet::from(["a:1"])).unwrap();
        assert_eq!(read_repositories(folder.path(), "overlay2").keys().collect::<Vec<_>>(), ["h:5000/b"]);
    }

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let diffs = ["a", "b"].map(|digit| digit.repeat(64));
        assert_eq!(chain_of(&diffs[..1]), diffs[0]);
        // printf 'sha256:aa… sha256:bb…' | sha256sum
        let both = format!("sha256:{} sha256:{}", diffs[0], diffs[1]);
        assert_eq!(chain_of(&diffs), sha256(both.as_bytes()));
        assert_eq!(chains(&["md5:x".to_owned()]), None);
    }
}
