//! The engine's image layers as they lie on disk (moby, `layer/filestore.go` and the graph drivers), and whether they are
//! whole: each layer comes with a list of its files, their sizes and checksums, which the engine wrote when it unpacked it.

mod tar_split;

#[cfg(fuzzing)]
pub(crate) use tar_split::read as read_list;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crc::{CRC_64_GO_ISO, Crc, Table};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Layers that are on disk, by [`Layer::identity`].
pub(crate) type Known = BTreeSet<String>;

/// The checksum of a file in a layer's list.
const CHECKSUM: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_GO_ISO);

/// How the engine stores layers: the graph driver's name, its folder, and where in a layer's folder the files are.
const DRIVERS: [(&str, &str, &str); 3] =
    [("overlay2", "overlay2", "diff"), ("fuse-overlayfs", "fuse-overlayfs", "diff"), ("vfs", "vfs/dir", "")];

/// An image layer, as far as its own records can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    /// The graph driver whose it is.
    pub(crate) driver: &'static str,
    /// Its chain id: 64 hexadecimal digits.
    pub(crate) chain: String,
    /// The chain id of the layer under it.
    pub(crate) parent: Option<String>,
    /// Under what name the graph driver keeps its files; `None`: the record is not readable.
    pub(crate) cache_id: Option<String>,
    /// The folder of its records.
    pub(crate) records: PathBuf,
}

/// How much a check has read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl Layer {
    /// What tells it from every other layer, also from one of the same content that is unpacked again: the engine makes up
    /// a new name for the files each time.
    pub(crate) fn identity(&self) -> String {
        format!("{} {} {}", self.driver, self.chain, self.cache_id.as_deref().unwrap_or_default())
    }

    /// The folder of its files, where the record names one.
    pub(crate) fn files(&self, engine_root: &Path) -> Option<PathBuf> {
        let (_, folder, files) = DRIVERS.iter().find(|(driver, ..)| *driver == self.driver)?;
        Some(engine_root.join(folder).join(self.cache_id.as_deref()?).join(files))
    }

    /// Compares its files with what the engine wrote down about them.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub(crate) fn check(&self, engine_root: &Path) -> Result<Checked, String> {
        let place = self.files(engine_root).ok_or("its record of where its files are is damaged")?;
        let recorded = |name: &str| fs::read_to_string(self.records.join(name));
        for name in ["diff", "size"] {
            if !recorded(name).is_ok_and(|text| !text.trim().is_empty()) {
                return Err(format!("its record {name} is damaged"));
            }
        }
        let list = File::open(self.records.join("tar-split.json.gz"))
            .map_err(|e| format!("its list of files cannot be opened: {e}"))?;
        let files = tar_split::read(list).map_err(|e| format!("its list of files is damaged: {e}"))?;
        let root = File::open(&place).map_err(|e| format!("its files are not there: {e}"))?;
        let mut checked = Checked::default();
        for (path, expected) in files {
            check_file(&root, &path, &expected).map_err(|wrong| format!("{}: {wrong}", path.display()))?;
            checked.files += 1;
            checked.bytes += expected.size;
        }
        Ok(checked)
    }
}

/// Compares one file of a layer with its entry in the list.
fn check_file(root: &File, path: &Path, expected: &tar_split::Expected) -> Result<(), String> {
    // The layer's tar may have had links in its paths; they are followed, but not out of the layer.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = openat2(root.as_fd(), path, how).map_err(|e| format!("cannot be opened: {}", e.desc()))?;
    let mut file = File::from(file);
    let size = file.metadata().map_err(|e| e.to_string())?.len();
    if size != expected.size {
        return Err(format!("has {size} bytes instead of {}", expected.size));
    }
    let Some(wanted) = expected.checksum else { return Ok(()) };
    let mut digest = CHECKSUM.digest();
    let mut piece = vec![0; 256 * 1024];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => digest.update(piece.get(..length).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(format!("cannot be read: {e}")),
        }
    }
    if digest.finalize() == wanted {
        Ok(())
    } else {
        Err("does not have the content that was unpacked".to_owned())
    }
}

/// All layers of every graph driver, whole or not.
pub(crate) fn all(engine_root: &Path) -> Vec<Layer> {
    DRIVERS
        .iter()
        .flat_map(|(driver, ..)| {
            let folder = engine_root.join("image").join(driver).join("layerdb/sha256");
            entries(&folder).into_iter().map(move |chain| {
                let records = folder.join(&chain);
                let read = |name: &str| fs::read_to_string(records.join(name)).ok();
                Layer {
                    driver,
                    parent: read("parent").and_then(|text| digest(&text)),
                    cache_id: read("cache-id").filter(|id| is_name(id)),
                    chain,
                    records,
                }
            })
        })
        .collect()
}

/// The layers that are complete by now. One that is still being unpacked is not among them: the engine gives it its place
/// in one step, at the end.
pub(crate) fn known(engine_root: &Path) -> Known {
    all(engine_root).iter().map(Layer::identity).collect()
}

/// A mark that changes whenever the build cache gets or loses a part. Its database (bbolt) writes one of the two pages at its
/// beginning anew with each change.
pub(crate) fn build_cache(engine_root: &Path) -> Option<String> {
    let mut pages = Vec::new();
    File::open(engine_root.join("buildkit/snapshots.db"))
        .ok()?
        .take(2 * 4096)
        .read_to_end(&mut pages)
        .ok()?;
    Some(format!("{:016x}", CHECKSUM.checksum(&pages)))
}

/// The names in a folder, sorted; none, where it cannot be read.
pub(crate) fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The 64 digits of `sha256:…`.
pub(crate) fn digest(text: &str) -> Option<String> {
    let digits = text.trim().strip_prefix("sha256:")?;
    (digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| digits.to_owned())
}

/// Whether this can be the name of one thing in a folder: nothing in a data root shall lead out of it.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
pub(crate) mod tests;
