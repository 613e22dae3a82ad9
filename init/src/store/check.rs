//! Whether a store is whole. At a start: the manifest against its digest, every file's size, every superblock. On demand: every byte.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crc::{CRC_32_ISCSI, Crc};
use dind_contract::store::{self as format, Content, Manifest};

use super::{Store, at, digits, make};
use crate::layers::{self, sha256};

/// The largest manifest, in bytes.
const LONGEST: u64 = 64 * 1024 * 1024;
/// Where the superblock of an erofs is, and what it begins with (kernel, fs/erofs/erofs_fs.h).
const SUPERBLOCK: usize = 1024;
const MAGIC: u32 = 0xE0F5_E1E2;
/// In `feature_compat`: the superblock has a checksum.
const HAS_CHECKSUM: u32 = 1;
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Reads a store and checks what can be checked without reading all of it; `None`: there is no store in this folder.
///
/// # Errors
/// It is damaged: the file and what is wrong with it.
pub(crate) fn read(folder: &Path) -> Result<Option<Store>, String> {
    if !folder.exists() {
        return Ok(None);
    }
    let file = folder.join(format::MANIFEST);
    let mut text = Vec::new();
    let read = File::open(&file).and_then(|file| file.take(LONGEST).read_to_end(&mut text));
    read.map_err(at(&file))?;
    let sealed = folder.join(format::DIGEST);
    let wanted = fs::read_to_string(&sealed).map_err(at(&sealed))?;
    let digest = format!("sha256:{}", sha256(&text));
    if wanted.trim() != digest {
        return Err(format!(
            "{} is not the one that was sealed in: it is {digest}, not {}",
            file.display(),
            wanted.trim()
        ));
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    if manifest.version != format::VERSION {
        let (theirs, ours) = (manifest.version, format::VERSION);
        return Err(format!(
            "{}: version {theirs} of the format is not known here, only {ours}",
            file.display()
        ));
    }
    let store = Store { folder: folder.to_owned(), digest, manifest };
    store.check()?;
    Ok(Some(store))
}

impl Store {
    fn check(&self) -> Result<(), String> {
        let known: std::collections::BTreeSet<&str> =
            self.manifest.layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        for image in &self.manifest.images {
            let file = self.config(image);
            let config = fs::read(&file).map_err(at(&file))?;
            if layers::digest(&image.id).is_none_or(|id| id != sha256(&config)) {
                return Err(format!("{} is damaged: it is not {}", file.display(), image.id));
            }
            if let Some(other) = image.layers.iter().find(|layer| !known.contains(layer.as_str())) {
                return Err(format!("the manifest has no layer {other}, which the image {} needs", image.id));
            }
        }
        for layer in &self.manifest.layers {
            if layers::digest(&layer.diff_id).is_none() {
                return Err(format!("the manifest has a layer {:?}, which is no digest", layer.diff_id));
            }
            let (files, list) = (self.files(layer), self.tar_split(&layer.diff_id));
            has_size(&files, &layer.files)?;
            has_size(&list, &layer.tar_split)?;
            superblock(&files).map_err(at(&files))?;
        }
        Ok(())
    }
}

fn has_size(path: &Path, content: &Content) -> Result<(), String> {
    let size = path.metadata().map_err(at(path))?.len();
    if size == content.size {
        return Ok(());
    }
    Err(format!("{} is cut short: it has {size} bytes instead of {}", path.display(), content.size))
}

/// Checks the superblock of an erofs against its own checksum.
fn superblock(path: &Path) -> io::Result<()> {
    let damaged = || io::Error::other("it is damaged: its superblock is not as it was written");
    let file = File::open(path)?;
    let mut block = vec![0; 4096 - SUPERBLOCK];
    let length = file.read_at(&mut block, u64::try_from(SUPERBLOCK).unwrap_or_default())?;
    block.truncate(length);
    let number = |at: usize| {
        let bytes: Option<[u8; 4]> = block.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes)
    };
    let (magic, checksum, features) = (number(0), number(4), number(8));
    let block_size =
        block.get(12).and_then(|bits| 1_usize.checked_shl(u32::from(*bits))).ok_or_else(damaged)?;
    if magic != Some(MAGIC) || features.is_none_or(|it| it & HAS_CHECKSUM == 0) {
        return Err(damaged());
    }
    // The sum is over the rest of the first block, with nought in its own place.
    block.get_mut(4..8).ok_or_else(damaged)?.fill(0);
    let summed = block.get(..block_size.saturating_sub(SUPERBLOCK)).ok_or_else(damaged)?;
    // The kernel does not invert it at the end.
    if checksum == Some(!CHECKSUM.checksum(summed)) { Ok(()) } else { Err(damaged()) }
}

/// Reads every byte of a store; what is wrong, a line each, and how many bytes were read.
pub(crate) fn verify(store: &Store) -> (Vec<String>, u64) {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    for layer in &store.manifest.layers {
        for (path, wanted) in
            [(store.files(layer), &layer.files), (store.tar_split(&layer.diff_id), &layer.tar_split)]
        {
            match make::content(&path) {
                Ok(found) if found == *wanted => bytes += found.size,
                Ok(_) => lines.push(format!("{} is damaged: it is not {}", path.display(), wanted.digest)),
                Err(e) => lines.push(format!("{} cannot be read: {e}", path.display())),
            }
        }
    }
    let damaged = |layer: &String| lines.iter().any(|line| line.contains(digits(layer)));
    let images = store.manifest.images.iter().filter(|image| image.layers.iter().any(damaged));
    let named: Vec<String> = images
        .map(|image| format!("the baked image {} is damaged", image.names.first().unwrap_or(&image.id)))
        .collect();
    lines.extend(named);
    (lines, bytes)
}
