//! What the data root can do, tried on the data root itself, in a mount namespace of its own: whatever becomes of the probe,
//! nothing stays mounted and no loop device stays in use. The folder of one that was killed is removed by the next.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::SFlag;
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

use super::layers::{self, failed};
use super::{DISK_FILE, Way, disk, loop_device};
use crate::ground::mounts;
use crate::ground::program::Program;

/// How the folders of probes begin; the rest is a number.
const FOLDER: &str = "dind-probe.";
/// fuse-overlayfs in the mount table. Where it is under us it takes a whiteout that is made for one of its own, so the file is
/// there and is not, and its folder cannot even be removed: that is known, and not tried again.
const FUSE_KIND: &str = "fuse.fuse-overlayfs";
/// How long a program may take that needs a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Size of the file system that is made to try a loop device.
const SMALL: u64 = 16 << 20;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probe {
    /// The data root's file system, as the mount table calls it.
    pub(super) kind: String,
    /// Bytes that are free on it.
    pub(super) free: u64,
    /// Whether overlay works on it.
    pub(super) overlay: Tried,
    /// Whether an ext4 image on it can be mounted, and overlay works there.
    pub(super) on_loop: Tried,
    /// Whether fuse-overlayfs works on it.
    pub(super) fuse: Tried,
    /// The storage drivers under which it has images, and how many.
    pub(super) images: Vec<(String, usize)>,
    /// Size of the ext4 image that an earlier host made in it.
    pub(super) disk: Option<u64>,
}

/// What came of one way to store images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Tried {
    /// Nobody needed to know.
    #[default]
    Not,
    /// It works.
    Works,
    /// It does not, and why.
    Fails(String),
}

impl From<Result<(), String>> for Tried {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Self::Fails, |()| Self::Works)
    }
}

/// Looks at `data_root`. `wanted`: a way or a driver that somebody asked for, which is tried in any case. Call it in a thread
/// of its own: that gets a mount namespace and a working directory of its own (unshare(2)), the process keeps its.
pub(crate) fn probe(data_root: &Path, wanted: &str) -> Probe {
    // Where no host has been yet, what is above it says the same.
    let place = data_root.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("/"));
    let place = place.canonicalize().unwrap_or_else(|_| place.to_owned());
    let mut probe = Probe {
        kind: kind(&place),
        free: statvfs(&place).map_or(0, |all| all.blocks_available() * all.fragment_size()),
        images: images(data_root),
        disk: disk::size(&data_root.join(DISK_FILE)),
        ..Probe::default()
    };
    let folder = match own_namespace().and_then(|()| Folder::make(&place)) {
        Ok(folder) => folder,
        Err(why) => {
            for tried in [&mut probe.overlay, &mut probe.on_loop, &mut probe.fuse] {
                *tried = Tried::Fails(why.clone());
            }
            return probe;
        }
    };
    let below = |name: &str, try_it: fn(&Path) -> Result<(), String>| -> Tried {
        let at = folder.path.join(name);
        let made = fs::create_dir(&at).map_err(failed("cannot make a folder"));
        made.and_then(|()| enter(&at)).and_then(|()| try_it(&at)).into()
    };
    probe.overlay = below("overlay", layers::try_overlay);
    let fails = probe.overlay != Tried::Works;
    if fails || probe.disk.is_some() || wanted == Way::Loop.word() {
        probe.on_loop = below("loop", try_loop);
    }
    let fuse = Way::Fuse.word();
    let has_fuse = probe.images.iter().any(|(driver, _)| driver == fuse);
    if fails || has_fuse || wanted == fuse {
        probe.fuse = match probe.kind == FUSE_KIND {
            true => Tried::Fails(format!("{FUSE_KIND} cannot hold the whiteouts of another")),
            false => below("fuse", try_fuse),
        };
    }
    let _ = enter(Path::new("/"));
    probe
}

/// The kind of the file system on which `place` lies, a path without links.
fn kind(place: &Path) -> String {
    // Of what is mounted at the same place, the last one is seen.
    let all = mounts::all();
    let under = all.iter().filter(|mounted| place.starts_with(&mounted.place));
    let nearest = under.max_by_key(|mounted| mounted.place.components().count());
    nearest.map_or_else(|| "an unknown file system".to_owned(), |mounted| mounted.kind.clone())
}

/// The storage drivers under which an engine has images in `data_root`.
fn images(data_root: &Path) -> Vec<(String, usize)> {
    let Ok(drivers) = fs::read_dir(data_root.join("image")) else { return Vec::new() };
    let mut found: Vec<_> = drivers
        .flatten()
        .filter_map(|driver| {
            let count = fs::read_dir(driver.path().join("imagedb/content/sha256")).ok()?.count();
            (count > 0).then(|| (driver.file_name().to_string_lossy().into_owned(), count))
        })
        .collect();
    found.sort();
    found
}

fn own_namespace() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("cannot make a mount namespace"))?;
    let flags = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(failed("cannot make / private"))
}

fn enter(folder: &Path) -> Result<(), String> {
    std::env::set_current_dir(folder).map_err(failed("cannot enter a folder"))
}

/// The folder of one probe, locked while it is at work, so that no other takes it for left behind.
struct Folder {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Folder {
    fn make(place: &Path) -> Result<Self, String> {
        remove_leftovers(place);
        let cannot = |e: io::Error| format!("cannot make a folder in {}: {e}", place.display());
        let mut number = std::process::id();
        loop {
            let path = place.join(format!("{FOLDER}{number}"));
            match fs::create_dir(&path) {
                // Another pid namespace may have the same number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number = number.wrapping_add(1),
                Err(e) => return Err(cannot(e)),
                Ok(()) => match lock(&path) {
                    // Another may have taken it for a leftover before it was locked.
                    Some(lock) if path.exists() => return Ok(Self { path, _lock: lock }),
                    _ if path.exists() => return Err(cannot(io::Error::other("it cannot be locked"))),
                    _ => {}
                },
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn lock(folder: &Path) -> Option<Flock<File>> {
    Flock::lock(File::open(folder).ok()?, FlockArg::LockExclusiveNonblock).ok()
}

/// Removes the folders of probes that are gone. The kernel has unlocked them.
fn remove_leftovers(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(FOLDER));
        let is_ours = number.is_some_and(|number| number.parse::<u32>().is_ok())
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_ours && let Some(_lock) = lock(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn try_loop(at: &Path) -> Result<(), String> {
    let (image, mounted) = (at.join("image"), at.join("disk"));
    disk::format(&image, SMALL, PATIENCE)?;
    let file =
        File::options().read(true).write(true).open(&image).map_err(failed("cannot open the image"))?;
    let device = loop_device::attach(&file).map_err(failed("no loop device can be used"))?;
    fs::create_dir(&mounted).map_err(failed("cannot make a folder"))?;
    disk::mount_ext4(&device.path, &mounted)?;
    let result = enter(&mounted).and_then(|()| layers::try_overlay(&mounted));
    enter(at)?;
    umount2(&mounted, MntFlags::MNT_DETACH).map_err(failed("ext4 cannot be unmounted"))?;
    result.map_err(|why| format!("overlay does not work on ext4 either: {why}"))
}

fn try_fuse(at: &Path) -> Result<(), String> {
    // dockerd wants the node, too; a container's /dev does not have it.
    loop_device::open(Path::new("/dev/fuse"), SFlag::S_IFCHR, 10, 229, true)
        .map_err(failed("FUSE cannot be used"))?;
    layers::make(at)?;
    layers::delete(at)?;
    let merged = at.join(layers::MERGED);
    let before = fs::metadata(&merged).map_err(failed("cannot look at a folder"))?.dev();
    let mut program = Program::start("fuse-overlayfs", ["-f", "-o", layers::OPTIONS, layers::MERGED], "")?;
    let deadline = Instant::now() + PATIENCE;
    while fs::metadata(&merged).is_ok_and(|now| now.dev() == before) {
        if let Some(said) = program.has_ended() {
            return Err(format!("fuse-overlayfs cannot mount: {said}"));
        }
        if Instant::now() >= deadline {
            return Err(format!("fuse-overlayfs was not up after {} s", PATIENCE.as_secs()));
        }
        loop_device::pause(1);
    }
    let result = layers::check(at);
    umount2(&merged, MntFlags::MNT_DETACH).map_err(failed("fuse-overlayfs cannot be unmounted"))?;
    // It ends with its last mount; else it is killed.
    drop(program);
    result
}
