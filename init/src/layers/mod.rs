//! The engine's image layers as they lie on disk (moby, `layer/filestore.go` and the graph drivers), and whether they are
//! whole: each layer comes with a list of its files, their sizes and checksums, which the engine wrote when it unpacked it.

mod overlay;
mod tar_split;

#[cfg(fuzzing)]
pub(crate) use tar_split::read as read_list;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crc::{CRC_64_GO_ISO, Crc, Table};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Layers that are on disk, by [`Layer::identity`].
pub(crate) type Known = BTreeSet<String>;

/// The checksum of a file in a layer's list.
const CHECKSUM: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_GO_ISO);

/// The largest page of memory of any machine, in bytes: a page of the builder's database has the size of one. Reading more than
/// two of them only finds more that has changed.
const LARGEST_PAGE: u64 = 64 * 1024;

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

    /// Whether its files lie in the store of a sealed appliance, and only a link leads there.
    pub(crate) fn is_link(&self, engine_root: &Path) -> bool {
        self.files(engine_root).is_some_and(|files| files.read_link().is_ok())
    }

    /// Compares its files with what the engine wrote down about them.
    ///
    /// # Errors
    /// It is damaged, or cannot be looked at.
    pub(crate) fn check(&self, engine_root: &Path) -> Result<Checked, Wrong> {
        let damaged = |what: &str| Err(Wrong::Damaged(what.to_owned()));
        let Some(place) = self.files(engine_root) else {
            return damaged("its record of where its files are is damaged");
        };
        let recorded = |name: &str| fs::read_to_string(self.records.join(name));
        let diff = recorded("diff").ok().and_then(|text| digest(&text));
        if diff.map(|diff| chain_id(self.parent.as_deref(), &diff)) != Some(self.chain.clone()) {
            return damaged("its records of what it is and what lies under it are damaged");
        }
        if !recorded("size").is_ok_and(|text| text.trim().parse::<i64>().is_ok()) {
            return damaged("its record of its size is damaged");
        }
        let list = File::open(self.records.join("tar-split.json.gz"))
            .map_err(|e| Wrong::of("its list of files cannot be opened", &e))?;
        let files = tar_split::read(list)
            .map_err(|e| Wrong::Damaged(format!("its list of files is damaged: {e}")))?;
        let root = File::open(&place).map_err(|e| Wrong::of("its files are not there", &e))?;
        let mut checked = Checked::default();
        for (path, expected) in files {
            check_file(&root, &place, &path, &expected).map_err(|wrong| wrong.at(&path))?;
            checked.files += 1;
            checked.bytes += expected.size;
        }
        Ok(checked)
    }
}

/// What is wrong with a layer, in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is not what was unpacked.
    Damaged(String),
    /// It could not be looked at: that says nothing about it.
    Unreadable(String),
}

impl Wrong {
    /// What an error means. Where something is not there, or the disk has lost it, the layer is damaged; a process that lacks
    /// memory, descriptors or rights has not seen the layer.
    fn of(what: &str, e: &io::Error) -> Self {
        let text = format!("{what}: {e}");
        match e.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EIO | libc::EUCLEAN | libc::ENXIO) => {
                Self::Damaged(text)
            }
            _ => Self::Unreadable(text),
        }
    }

    fn at(self, path: &Path) -> Self {
        match self {
            Self::Damaged(what) => Self::Damaged(format!("{}: {what}", path.display())),
            Self::Unreadable(what) => Self::Unreadable(format!("{}: {what}", path.display())),
        }
    }
}

/// How often to try again where somebody renames folders at the same moment.
const ATTEMPTS: usize = 100;

/// Opens a file of a layer. The layer's tar may have had links in its paths; they are followed, but not out of the layer.
fn open_inside(root: &File, place: &Path, path: &Path) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    for _ in 0..ATTEMPTS {
        match openat2(root.as_fd(), path, how) {
            Ok(file) => return Ok(File::from(file)),
            Err(Errno::EAGAIN) => {}
            // Linux before 5.6. What a link out of the layer leads to is read and compared, and nothing else.
            Err(Errno::ENOSYS) => {
                return OpenOptions::new().read(true).custom_flags(flags.bits()).open(place.join(path));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Err(Errno::EAGAIN.into())
}

/// Compares one file of a layer with its entry in the list.
fn check_file(root: &File, place: &Path, path: &Path, expected: &tar_split::Expected) -> Result<(), Wrong> {
    let mut file = match open_inside(root, place, path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && overlay::is_moved(root, place, path) => {
            return Ok(());
        }
        opened => opened.map_err(|e| Wrong::of("cannot be opened", &e))?,
    };
    if overlay::has_data_below(&file) {
        return Ok(());
    }
    let size = file.metadata().map_err(|e| Wrong::of("cannot be looked at", &e))?.len();
    if size != expected.size {
        return Err(Wrong::Damaged(format!("has {size} bytes instead of {}", expected.size)));
    }
    let Some(wanted) = expected.checksum else { return Ok(()) };
    let mut digest = CHECKSUM.digest();
    let mut piece = vec![0; 256 * 1024];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => digest.update(piece.get(..length).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Wrong::of("cannot be read", &e)),
        }
    }
    if digest.finalize() == wanted {
        Ok(())
    } else {
        Err(Wrong::Damaged("does not have the content that was unpacked".to_owned()))
    }
}

/// Puts the tar of a layer together again; `list`: its `tar-split.json.gz`, `place`: the folder of its files.
///
/// # Errors
/// The list is not complete, a file cannot be read or has another size, or the tar cannot be written.
pub(crate) fn assemble(list: &Path, place: &Path, tar: &mut impl Write) -> io::Result<()> {
    let root = File::open(place)?;
    tar_split::assemble(File::open(list)?, |path| open_inside(&root, place, path), tar)
}

/// The length of the tar that [`assemble`] makes, in bytes.
///
/// # Errors
/// The list is not complete.
pub(crate) fn tar_size(list: &Path) -> io::Result<u64> {
    tar_split::size(File::open(list)?)
}

/// The folders in which an engine with this root keeps images: it, and one for each pair of ids with `--userns-remap`.
pub(crate) fn roots(engine_root: &Path) -> Vec<PathBuf> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let remapped = entries(engine_root)
        .into_iter()
        .filter(|name| name.split_once('.').is_some_and(|(user, group)| is_number(user) && is_number(group)))
        .map(|name| engine_root.join(name));
    std::iter::once(engine_root.to_owned()).chain(remapped).collect()
}

/// The graph drivers whose layers are known here.
pub(crate) fn drivers() -> impl Iterator<Item = &'static str> {
    DRIVERS.iter().map(|(driver, ..)| *driver)
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
    roots(engine_root).iter().flat_map(|root| all(root)).map(|layer| layer.identity()).collect()
}

/// A mark that changes whenever the build cache gets or loses a part. Its database (bbolt) writes one of the two pages at its
/// beginning anew with each change.
pub(crate) fn build_cache(engine_root: &Path) -> Option<String> {
    let mut pages = Vec::new();
    for root in roots(engine_root) {
        let Ok(file) = File::open(root.join("buildkit/snapshots.db")) else { continue };
        file.take(2 * LARGEST_PAGE).read_to_end(&mut pages).ok()?;
    }
    (!pages.is_empty()).then(|| format!("{:016x}", CHECKSUM.checksum(&pages)))
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

/// The chain id of a layer with this diff id on top of what has the chain id `below`
/// (OCI image specification, "Layer ChainID").
pub(crate) fn chain_id(below: Option<&str>, diff: &str) -> String {
    below.map_or_else(|| diff.to_owned(), |below| sha256(format!("sha256:{below} sha256:{diff}").as_bytes()))
}

/// As 64 hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, bytes)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Whether this can be the name of one thing in a folder: nothing in a data root shall lead out of it.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
pub(crate) mod tests;
