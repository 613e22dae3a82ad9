//! Whether a copy is like its source: each file with its kind, mode, owner, size, time, device number, hard links and attributes.
//! cp(1) complains about what it cannot do, but not of what it cannot see, and file systems round times and drop attributes
//! without a word. The bytes of files are cp's affair.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;

/// The most that the kernel gives of names of attributes, and of the value of one (xattr(7)).
const LONGEST: usize = 64 * 1024;
/// Attributes that are of one place or one machine: a label that the machine's policy gives, and a checksum over the inode.
const OF_ITS_PLACE: [&CStr; 2] = [c"security.selinux", c"security.evm"];

/// What was compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// How many names, but for those of folders.
    pub(super) files: u64,
    /// The room that files take, each counted once, however many names it has.
    pub(super) bytes: u64,
}

/// Device and inode.
type Identity = (u64, u64);

/// Compares what is called `names` in both folders.
///
/// # Errors
/// The first difference: where it is, and what.
pub(super) fn compare(source: &Path, target: &Path, names: &[OsString]) -> Result<Tally, String> {
    let mut walk = Walk::default();
    names.iter().try_for_each(|name| walk.entry(&source.join(name), &target.join(name)))?;
    Ok(walk.tally)
}

#[derive(Default)]
struct Walk {
    /// The copy of each file that has more than one name, and back.
    copies: HashMap<Identity, Identity>,
    sources: HashMap<Identity, Identity>,
    tally: Tally,
}

impl Walk {
    /// As deep as folders lie in each other: no path is longer than 4096 bytes, for cp(1) neither.
    fn entry(&mut self, from: &Path, to: &Path) -> Result<(), String> {
        let differs = |what: &str| format!("{}: {what}", from.display());
        let failed = |e: io::Error| differs(&format!("cannot be compared: {e}"));
        let ours = from.symlink_metadata().map_err(failed)?;
        let copy = to.symlink_metadata().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => differs("it is missing"),
            _ => failed(e),
        })?;
        if let Some(what) = difference(&ours, &copy) {
            return Err(differs(&format!("{what} differs")));
        }
        if ours.is_symlink() && fs::read_link(from).map_err(failed)? != fs::read_link(to).map_err(failed)? {
            return Err(differs("where it leads differs"));
        }
        let attributes = (attributes(from).map_err(failed)?, attributes(to).map_err(failed)?);
        if let Some(name) = attribute(&attributes.0, &attributes.1) {
            return Err(differs(&format!("its attribute {name} differs")));
        }
        if !ours.is_dir() {
            return self.file(&ours, &copy).ok_or_else(|| differs("its hard links differ"));
        }
        let (entries, copies) = (names(from).map_err(failed)?, names(to).map_err(failed)?);
        if entries.len() != copies.len() {
            return Err(differs(&format!("{} entries became {}", entries.len(), copies.len())));
        }
        entries.iter().try_for_each(|name| self.entry(&from.join(name), &to.join(name)))
    }

    /// Counts a file that is no folder; `None`: it shares its content with other names than its source does.
    fn file(&mut self, ours: &Metadata, copy: &Metadata) -> Option<()> {
        self.tally.files += 1;
        let (from, to) = ((ours.dev(), ours.ino()), (copy.dev(), copy.ino()));
        if !self.copies.contains_key(&from) {
            self.tally.bytes += ours.blocks() * 512;
        }
        // Other names may be outside of what is copied, so that their number says nothing.
        if ours.nlink() == 1 && copy.nlink() == 1 {
            return Some(());
        }
        let is_same =
            *self.copies.entry(from).or_insert(to) == to && *self.sources.entry(to).or_insert(from) == from;
        is_same.then_some(())
    }
}

fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

/// What two files differ in, as far as stat(2) tells.
fn difference(ours: &Metadata, copy: &Metadata) -> Option<&'static str> {
    let kind = ours.file_type();
    let is_device = kind.is_char_device() || kind.is_block_device();
    let time = |it: &Metadata| (it.mtime(), it.mtime_nsec());
    if kind != copy.file_type() {
        Some("its kind")
    } else if ours.mode() != copy.mode() {
        Some("its mode")
    } else if (ours.uid(), ours.gid()) != (copy.uid(), copy.gid()) {
        Some("its owner")
    } else if is_device && ours.rdev() != copy.rdev() {
        Some("its device number")
    } else if !ours.is_dir() && ours.len() != copy.len() {
        Some("its size")
    } else if time(ours) != time(copy) {
        Some("its time of change")
    } else {
        None
    }
}

type Attributes = BTreeMap<CString, Vec<u8>>;

/// The first attribute that is not the same.
fn attribute(ours: &Attributes, copy: &Attributes) -> Option<String> {
    let mut names = ours.keys().chain(copy.keys());
    let name = names.find(|name| ours.get(*name) != copy.get(*name))?;
    Some(name.to_string_lossy().into_owned())
}

/// The extended attributes of a file, or of the link that it is.
fn attributes(path: &Path) -> io::Result<Attributes> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends in a zero, and the kernel writes at most as many bytes as it is told are there.
    let list = read(|place, size| unsafe { libc::llistxattr(path.as_ptr(), place.cast(), size) });
    let list = match list {
        // A file system without any.
        Err(e) if e.raw_os_error() == Some(libc::ENOTSUP) => return Ok(Attributes::new()),
        list => list?,
    };
    let names =
        list.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok());
    names
        .filter(|name| !OF_ITS_PLACE.contains(name))
        .map(|name| {
            let value = read(|place, size| {
                // SAFETY: both strings end in a zero, and the kernel writes at most as many bytes as it is told are there.
                unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), place.cast(), size) }
            })?;
            Ok((name.to_owned(), value))
        })
        .collect()
}

/// What the kernel writes to the place that it is given, which has the size of the second argument.
fn read(call: impl Fn(*mut u8, usize) -> isize) -> io::Result<Vec<u8>> {
    let length = |result| Ok(usize::try_from(Errno::result(result)?).unwrap_or_default());
    // Most files have none: that is said without a place for them.
    let wanted: io::Result<usize> = length(call(std::ptr::null_mut(), 0));
    let mut place = match wanted? {
        0 => return Ok(Vec::new()),
        _ => vec![0_u8; LONGEST],
    };
    let written: io::Result<usize> = length(call(place.as_mut_ptr(), place.len()));
    place.truncate(written?);
    Ok(place)
}

#[cfg(test)]
mod tests;
