//! Makes the engine's records (moby, `layer/filestore.go`, `image/fs.go`, `daemon/graphdriver/overlay2`) say what a store's manifest says,
//! with links to where its layers are mounted in the place of files.
//!
//! It is done at every start, and only what is not yet so is written: images that were removed come back, and what a power cut has left
//! short is written again. `dind.store` in the data root says which layers are links. Where it is not there for a host that has no such
//! store, or for another engine, the links lead nowhere, and nothing can be run on them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use dind_contract::paths;
use dind_contract::store::Image;
use serde::{Deserialize, Serialize};

use super::{Store, at, chains, digits, place};
use crate::layers;
use crate::repair::{self, images};
use crate::sync::write_durably;

/// The graph driver whose records are written.
pub(super) const DRIVER: &str = "overlay2";
/// Length of the short names of layers, as overlay2 makes them.
const SHORT: usize = 26;

/// What is a link in a data root: the content of `dind.store`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Links {
    /// Digest of the store's manifest.
    pub(super) store: String,
    pub(super) images: Vec<Image>,
    /// Chain ids of the layers.
    pub(super) layers: BTreeSet<String>,
}

impl Links {
    /// Those of a data root; none, where it has none or says nothing good of them.
    pub(super) fn load(data_root: &Path) -> Self {
        let text = fs::read(data_root.join(paths::STORE_FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Those of a data root with nothing but this store's images.
    fn to(store: &Store) -> Self {
        Self {
            store: store.digest.clone(),
            images: store.manifest.images.clone(),
            layers: store.manifest.images.iter().flat_map(|image| chains(&image.layers)).collect(),
        }
    }

    fn save(&self, file: &Path) -> Result<(), String> {
        write_durably(file, &serde_json::to_vec(self).unwrap_or_default()).map_err(at(file))
    }

    /// Those that are links still: the user may have removed their images.
    pub(super) fn left(&self, engine_root: &Path) -> BTreeSet<String> {
        let is_link = |chain: &&String| files(engine_root, chain).read_link().is_ok();
        self.layers.iter().filter(|chain| layers::is_name(chain)).filter(is_link).cloned().collect()
    }

    /// The names of the images, for a line.
    pub(super) fn names(&self) -> String {
        let all: Vec<&str> =
            self.images.iter().map(|image| image.names.first().unwrap_or(&image.id).as_str()).collect();
        all.join(", ")
    }
}

fn files(engine_root: &Path, cache_id: &str) -> PathBuf {
    engine_root.join(DRIVER).join(cache_id).join("diff")
}

/// Takes note in a data root that has none, before the first link is made, that there will be links into this store.
///
/// # Errors
/// The file that cannot be written.
pub(super) fn take_note(store: &Store, data_root: &Path) -> Result<(), String> {
    let file = data_root.join(paths::STORE_FILE);
    if file.exists() { Ok(()) } else { Links::to(store).save(&file) }
}

/// Makes the records of a store's images; lines that a user should read.
///
/// # Errors
/// The file that cannot be written.
pub(super) fn seed(store: &Store, data_root: &Path, engine_root: &Path) -> Result<Vec<String>, String> {
    let before = Links::load(data_root);
    let mut links = Links::to(store);
    let gone: BTreeSet<String> = before.left(engine_root).difference(&links.layers).cloned().collect();
    let ids: BTreeSet<&str> = store.manifest.images.iter().map(|image| digits(&image.id)).collect();
    let old: Vec<&Image> = before.images.iter().filter(|image| !ids.contains(digits(&image.id))).collect();
    let mut lines = Vec::new();
    if !gone.is_empty() || !old.is_empty() {
        let baked: BTreeSet<String> = old.iter().map(|image| digits(&image.id).to_owned()).collect();
        let names = old.iter().flat_map(|image| image.names.iter().chain(&image.digests));
        images::take_names(engine_root, DRIVER, &names.map(String::as_str).collect())
            .map_err(|e| format!("the names of images: {e}"))?;
        let replaced = repair::replace_baked(engine_root, &baked, &gone).map_err(|e| e.to_string())?;
        lines = replaced.lines;
        links.layers.extend(replaced.kept);
    }
    // Before the first link is made, and only if it says something new.
    if links != before {
        links.save(&data_root.join(paths::STORE_FILE))?;
    }
    let sizes: BTreeMap<&str, u64> =
        store.manifest.layers.iter().map(|layer| (layer.diff_id.as_str(), layer.size)).collect();
    let mut done = BTreeSet::new();
    for image in &store.manifest.images {
        let mut below: Option<(String, String)> = None;
        for (diff_id, chain) in image.layers.iter().zip(chains(&image.layers)) {
            let size = sizes.get(diff_id.as_str()).copied().unwrap_or_default();
            let parent = below.as_ref().map(|(chain, lower)| (chain.as_str(), lower.as_str()));
            let lower = Record { store, engine_root, diff_id, chain: &chain, size }
                .write(parent, !done.insert(chain.clone()))?;
            below = Some((chain, lower));
        }
        let record = images::records(DRIVER, digits(&image.id));
        let config = store.config(image);
        let text = fs::read(&config).map_err(at(&config))?;
        let record = engine_root.join(&record[0]);
        let (Some(folder), Some(name)) = (record.parent(), record.file_name().and_then(OsStr::to_str)) else {
            continue;
        };
        Folder::at(folder.to_owned())?.write(name, &text)?;
    }
    lines.extend(give_names(store, engine_root)?);
    Ok(lines)
}

/// Gives the images their names.
fn give_names(store: &Store, engine_root: &Path) -> Result<Vec<String>, String> {
    let wanted = store.manifest.images.iter().flat_map(|image| {
        image.names.iter().chain(&image.digests).map(|name| (name.clone(), image.id.clone()))
    });
    let taken = images::give_names(engine_root, DRIVER, wanted.collect())
        .map_err(|e| format!("the names of images: {e}"))?;
    Ok(taken
        .into_iter()
        .map(|(name, id)| {
            let id = digits(&id).get(..12).unwrap_or_default().to_owned();
            format!("{name} is the baked image again; the one that had this name meanwhile is sha256:{id}")
        })
        .collect())
}

/// A layer's records.
struct Record<'a> {
    store: &'a Store,
    engine_root: &'a Path,
    diff_id: &'a str,
    chain: &'a str,
    size: u64,
}

impl Record<'_> {
    /// Writes what is not there yet, unless the data root has the layer's files itself; how the layer is called in the list of those
    /// under another. `below`: the chain id of the layer under it, and how that is called.
    fn write(&self, below: Option<(&str, &str)>, is_done: bool) -> Result<String, String> {
        let records = self.engine_root.join("image").join(DRIVER).join("layerdb/sha256").join(self.chain);
        let own = fs::read_to_string(records.join("cache-id")).ok().filter(|id| self.is_own(id));
        let cache_id = own.as_deref().unwrap_or(self.chain);
        let folder = self.engine_root.join(DRIVER).join(cache_id);
        let short = match &own {
            Some(_) => fs::read_to_string(folder.join("link")).map_err(at(&folder.join("link")))?,
            None => short(self.chain),
        };
        let list = match below {
            Some((_, lower)) => format!("l/{short}:{lower}"),
            None => format!("l/{short}"),
        };
        if own.is_some() || is_done {
            return Ok(list);
        }
        let layer = Folder::at(folder)?;
        layer.write("link", short.as_bytes())?;
        layer.write("committed", b"")?;
        if let Some((_, lower)) = below {
            layer.write("lower", lower.as_bytes())?;
            Folder::at(layer.path.join("work"))?;
        }
        layer.link("diff", &place(self.diff_id))?;
        let names = Folder::at(self.engine_root.join(DRIVER).join("l"))?;
        names.link(&short, &Path::new("..").join(cache_id).join("diff"))?;
        let records = Folder::at(records)?;
        if let Some((parent, _)) = below {
            records.write("parent", format!("sha256:{parent}").as_bytes())?;
        }
        records.write("diff", self.diff_id.as_bytes())?;
        records.write("size", self.size.to_string().as_bytes())?;
        records.link("tar-split.json.gz", &self.store.tar_split(self.diff_id))?;
        // Last: without it the engine does not take the layer for one.
        records.write("cache-id", cache_id.as_bytes())?;
        Ok(list)
    }

    /// Whether the data root has the files itself: the user has pulled, built or loaded the layer.
    fn is_own(&self, cache_id: &str) -> bool {
        let files = files(self.engine_root, cache_id);
        layers::is_name(cache_id) && files.is_dir() && files.read_link().is_err()
    }
}

/// The short name of a layer, so that the names of many fit into one mount(2): letters and digits, as overlay2 makes them up.
fn short(chain: &str) -> String {
    // The digits of a digest, of which each stands for a letter.
    let letter =
        |digit: char| digit.to_digit(16).and_then(|value| char::from_digit(value + 10, 26)).unwrap_or('A');
    chain.chars().take(SHORT).map(letter).map(|letter| letter.to_ascii_uppercase()).collect()
}

/// A folder for records.
struct Folder {
    path: PathBuf,
    /// It was made just now: nothing in it needs to be compared, which is most of the time that many layers take.
    is_new: bool,
}

impl Folder {
    /// Makes it, unless it is there.
    fn at(path: PathBuf) -> Result<Self, String> {
        let is_new = match fs::create_dir(&path) {
            Ok(()) => true,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => false,
            Err(_) => {
                fs::create_dir_all(&path).map_err(at(&path))?;
                true
            }
        };
        Ok(Self { path, is_new })
    }

    /// Writes a file, unless it has this content.
    fn write(&self, name: &str, content: &[u8]) -> Result<(), String> {
        let path = self.path.join(name);
        if !self.is_new && fs::read(&path).is_ok_and(|found| found == content) {
            return Ok(());
        }
        fs::write(&path, content).map_err(at(&path))
    }

    /// Makes a link, unless it is there. What is no link is left alone.
    fn link(&self, name: &str, target: &Path) -> Result<(), String> {
        let path = self.path.join(name);
        let make = || -> io::Result<()> {
            match path.read_link() {
                Ok(found) if found == target => return Ok(()),
                Ok(_) => fs::remove_file(&path)?,
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(_) => return Err(io::Error::other("there is something else in the place of a link")),
            }
            symlink(target, &path)
        };
        make().map_err(at(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_like_the_engines() {
        let name = short(&"0123456789abcdef".repeat(4));
        assert_eq!(name, "ABCDEFGHIJKLMNOPABCDEFGHIJ");
        assert_eq!(name.len(), SHORT);
    }

    #[test]
    fn what_is_so_already_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        for is_new in [true, false] {
            let folder = Folder::at(path.clone()).unwrap();
            assert_eq!(folder.is_new, is_new);
            folder.write("file", b"x").unwrap();
            folder.link("link", Path::new("x")).unwrap();
        }
        let folder = Folder::at(path.clone()).unwrap();
        folder.write("file", b"y").unwrap();
        folder.link("link", Path::new("y")).unwrap();
        assert_eq!(path.join("link").read_link().unwrap(), Path::new("y"));
        assert!(folder.link("file", Path::new("x")).unwrap_err().contains("something else"));
        assert_eq!(fs::read(path.join("file")).unwrap(), b"y");
    }
}
