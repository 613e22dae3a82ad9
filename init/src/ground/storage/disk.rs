//! The data root's own disk, where overlay cannot be used on the data root itself: an ext4 image in it, on a loop device.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use super::layers::failed;
use super::loop_device::{self, Device};
use super::wish::size_in_words;
use super::{DISK, DISK_FILE};
use crate::ground::mounts::{self, Mount};
use crate::ground::program::{self, Program, in_one_line};

/// How long making, checking or growing a file system may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// The same for all of it together: a check, a growth with a check of its own, and the mount.
pub(crate) const DEADLINE: Duration = Duration::from_secs(4 * 600);
/// How often to try again while the kernel is still busy with what a killed host left.
const ATTEMPTS: u32 = 60;
/// Why not as it comes: kernels before 5.15 do not mount one with `orphan_file` that was left unclean; a fresh file is all
/// zeros, and writing more of them would take room; the engine is root, so a reserve for root keeps nothing free.
const FORMAT: [&str; 8] = [
    "-q",
    "-F",
    "-m0",
    "-O^orphan_file",
    "-Elazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1,nodiscard",
    "-text4",
    "-Ldind",
    "-b4096",
];

/// What the child that mounts it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It is mounted; what was done.
    Mounted(String),
    /// It is not.
    Failed {
        /// The object and the cause.
        cause: String,
        /// What to do about it.
        help: String,
    },
}

/// Opens the image at `path`. The data root may come from anywhere: a link or a pipe in its place is not followed.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let image = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    if image.metadata()?.is_file() { Ok(image) } else { Err(io::Error::other("it is no file")) }
}

/// Size in bytes of the file system in the image at `path`, 0 if it cannot be read; `None` where there is no image.
pub(super) fn size(path: &Path) -> Option<u64> {
    path.symlink_metadata().ok()?;
    let mut superblock = [0; 1024];
    let read = open(path).and_then(|image| image.read_exact_at(&mut superblock, 1024));
    Some(read.ok().and_then(|()| parse_size(&superblock)).unwrap_or_default())
}

/// The size that an ext4 superblock gives (kernel, ext4 "Super Block": `s_blocks_count_lo`, `s_log_block_size`, `s_magic`,
/// `s_blocks_count_hi`). The file may be larger, if growing it was interrupted.
fn parse_size(superblock: &[u8; 1024]) -> Option<u64> {
    let number = |at: usize| {
        let bytes: [u8; 4] = superblock.get(at..at + 4)?.try_into().ok()?;
        Some(u64::from(u32::from_le_bytes(bytes)))
    };
    let blocks = number(0x150)? << 32 | number(4)?;
    let is_ext4 = number(0x38)? & 0xFFFF == 0xEF53;
    let block = 1024_u64.checked_shl(u32::try_from(number(0x18)?).ok()?)?;
    blocks.checked_mul(block).filter(|_| is_ext4)
}

/// Makes a new ext4 image of `bytes` at `path`.
pub(super) fn format(path: &Path, bytes: u64, patience: Duration) -> Result<(), String> {
    let image = File::create(path).map_err(failed("cannot make the image"))?;
    image.set_len(bytes).map_err(failed("cannot give the image its size"))?;
    let path = path.to_string_lossy();
    let arguments: Vec<&str> = FORMAT.into_iter().chain([&*path]).collect();
    program::run("mkfs.ext4", arguments, "", patience)?;
    // Before it gets its name: a power cut leaves a whole one or none.
    image.sync_all().map_err(failed("cannot sync the image"))
}

/// Mounts the ext4 on `device` at `place`. What is deleted in it gives its room back to the disk under it.
pub(super) fn mount_ext4(device: &Path, place: &Path) -> Result<(), String> {
    mount(Some(device), place, Some("ext4"), MsFlags::empty(), Some("errors=remount-ro,discard"))
        .map_err(failed("ext4 on a loop device cannot be mounted"))
}

/// Mounts the disk of the data root `root`, which is made or grown to `bytes` if need be. It runs as a child of the host's,
/// in the host's mount namespace, and may take its time.
pub(crate) fn prepare(root: &Path, bytes: u64) -> Answer {
    let image = root.join(DISK_FILE);
    match mount_disk(root, bytes) {
        Ok(said) => Answer::Mounted(said),
        Err(why) => Answer::Failed {
            cause: format!("the disk of the data root, {}, cannot be mounted: {why}", image.display()),
            help: format!(
                "look at the machine below and at {}, or set DIND_STORAGE to do without it",
                image.display()
            ),
        },
    }
}

fn mount_disk(root: &Path, bytes: u64) -> Result<String, String> {
    let root = root.canonicalize().map_err(failed("cannot find the data root"))?;
    let (image, place) = (root.join(DISK_FILE), root.join(DISK));
    if let Some(mounted) = find(&root) {
        if !is_read_only(&mounted.place) {
            return Ok("still mounted, as a killed host left it".to_owned());
        }
        mounts::detach_below(&place);
        umount2(&place, MntFlags::empty())
            .map_err(failed("it is read-only after an error, and still in use"))?;
    }
    let mut said = Vec::new();
    let fresh = size(&image).is_none();
    if fresh {
        make(&root, &image, bytes)?;
        said.push(format!("made, {}", size_in_words(bytes)));
    }
    make_place(&place)?;
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        let device = match device(&image, fresh, bytes, &mut said) {
            Ok(device) => device,
            Err(Problem::Final(why)) => return Err(why),
            Err(Problem::Busy(why)) => {
                last = why;
                loop_device::pause(attempt);
                continue;
            }
        };
        match mount_ext4(&device.path, &place) {
            Ok(()) => {
                if said.is_empty() {
                    said.push("mounted".to_owned());
                }
                return Ok(said.join(", "));
            }
            // A device that was found in use may let go of its file at any moment.
            Err(why) => last = why,
        }
        loop_device::pause(attempt);
    }
    Err(last)
}

/// Why there is no device yet.
enum Problem {
    Busy(String),
    Final(String),
}

/// The device of the image: the one that it is on, or a free one, when the image has been checked.
fn device(image: &Path, fresh: bool, bytes: u64, said: &mut Vec<String>) -> Result<Device, Problem> {
    let file = open(image).map_err(failed("cannot open it")).map_err(Problem::Final)?;
    let busy = |e: io::Error| Problem::Busy(format!("no loop device can be used: {e}"));
    if let Some(device) = loop_device::attached(&file).map_err(busy)? {
        return Ok(device);
    }
    if !fresh {
        said.extend(check(image).map_err(Problem::Final)?);
        said.extend(grow(image, bytes).map_err(Problem::Final)?);
    }
    loop_device::attach(&file).map_err(busy)
}

fn make(root: &Path, image: &Path, bytes: u64) -> Result<(), String> {
    let unfinished = root.join(format!("{DISK_FILE}.new"));
    match fs::remove_file(&unfinished) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(format!("cannot remove the old one: {e}"));
        }
        _ => {}
    }
    format(&unfinished, bytes, PATIENCE)?;
    fs::rename(&unfinished, image).map_err(failed("cannot give it its name"))?;
    File::open(root).and_then(|folder| folder.sync_all()).map_err(failed("cannot sync the data root"))
}

/// A folder to mount on. The data root may come from anywhere: a link in its place would lead elsewhere.
fn make_place(place: &Path) -> Result<(), String> {
    match fs::create_dir(place) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other.map_err(failed("cannot make the folder for it")),
    }
    match place.symlink_metadata() {
        Ok(found) if found.is_dir() => Ok(()),
        _ => Err(format!("{} is no folder", place.display())),
    }
}

/// As every boot does (fsck(8), "preen"): it replays the journal, and looks closer where the kernel saw an error.
fn check(image: &Path) -> Result<Option<String>, String> {
    let path = image.to_string_lossy();
    match Program::start("e2fsck", ["-p", &path], "")?.finish(PATIENCE)? {
        (0, _) => Ok(None),
        (1 | 2, _) => Ok(Some("repaired".to_owned())),
        (code, said) => Err(format!(
            "e2fsck -p ended with code {code}: {}; to repair it by hand, with the host stopped: e2fsck -f {path}",
            in_one_line(&said)
        )),
    }
}

/// Makes a larger image of it, if more is asked for. It never shrinks.
fn grow(image: &Path, bytes: u64) -> Result<Option<String>, String> {
    if size(image).is_none_or(|has| has >= bytes) {
        return Ok(None);
    }
    let path = image.to_string_lossy();
    // The kernel would grow a mounted one, but only for a process with CAP_SYS_RESOURCE, which a host lacks.
    match Program::start("e2fsck", ["-f", "-p", &path], "")?.finish(PATIENCE)? {
        (0..=2, _) => {}
        (code, said) => return Err(format!("e2fsck -f -p ended with code {code}: {}", in_one_line(&said))),
    }
    open(image).and_then(|file| file.set_len(bytes)).map_err(failed("cannot give it more room"))?;
    program::run("resize2fs", [&*path], "", PATIENCE)?;
    Ok(Some(format!("grown to {}", size_in_words(bytes))))
}

/// Where the disk of the data root `root`, a path without links, is mounted.
fn find(root: &Path) -> Option<Mount> {
    let place = root.join(DISK);
    let is_it = |mounted: &Mount| mounted.place == place && mounted.source.starts_with("/dev/loop");
    mounts::all().into_iter().rev().find(is_it)
}

fn is_read_only(place: &Path) -> bool {
    nix::sys::statvfs::statvfs(place)
        .is_ok_and(|it| it.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

/// Takes down the data root's disk, if it has one that is mounted. What is on it has been synced.
pub(crate) fn release(root: &Path) {
    if let Some(place) = mounted(root) {
        mounts::detach_below(&place);
        // A shell of `docker exec` may be in it: then it stays, whole, and the next host finds it mounted.
        let _ = umount2(&place, MntFlags::empty());
    }
}

/// Where the disk of the data root `root` is mounted, if it is.
pub(crate) fn mounted(root: &Path) -> Option<PathBuf> {
    root.canonicalize().ok().and_then(|root| find(&root)).map(|disk| disk.place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_size_is_the_file_systems_and_not_the_files() {
        let mut superblock = [0; 1024];
        for (at, bytes) in [(4, &[0, 0x10][..]), (0x18, &[2]), (0x38, &[0x53, 0xEF]), (0x150, &[1])] {
            superblock[at..at + bytes.len()].copy_from_slice(bytes);
        }
        assert_eq!(parse_size(&superblock), Some(((1 << 32) + 0x1000) * 4096));
        superblock[0x38] = 0;
        assert_eq!(parse_size(&superblock), None);

        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        assert_eq!(size(&image), None);
        fs::write(&image, "short").unwrap();
        assert_eq!(size(&image), Some(0));
        fs::remove_file(&image).unwrap();
        std::os::unix::fs::symlink("/dev/null", &image).unwrap();
        assert_eq!(size(&image), Some(0), "it is there, and cannot be used");
    }

    proptest! {
        #[test]
        fn any_superblock_is_read(bytes in proptest::collection::vec(any::<u8>(), 1024)) {
            let _ = parse_size(&bytes.try_into().unwrap());
        }
    }
}
