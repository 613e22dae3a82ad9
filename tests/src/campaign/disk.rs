//! A disk that can lose its power: an ext4 of its own in a sparse file, as xfstests does it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{Call, Ended};
use crate::engine;

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: from now on nothing reaches the disk, the journal neither
/// (linux/fs/ext4/ext4.h).
const NO_LOG_FLUSH: u32 = 2;
nix::ioctl_read!(
    /// Shuts an ext4 down. Declared as reading by the kernel's header, though it takes its argument.
    ext4_shutdown, b'X', 125, u32
);

/// Folders of campaigns have names that begin so, followed by who made them: pid namespace and pid.
const PREFIX: &str = "dind-campaign";
/// The disk in such a folder, and where it is mounted. One at a time.
const FILE: &str = "disk.ext4";
const MOUNT: &str = "mount";
/// Larger than anything a campaign writes between two new disks; the file is sparse.
const SIZE: u64 = 40 << 30;

/// A folder for everything that a campaign writes on this machine: disks, archives, a registry's storage.
#[derive(Debug)]
pub struct Place(PathBuf);

impl Place {
    /// Makes an empty folder, after removing those that killed campaigns have left behind, disks and mounts too.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        // Containers first: they hold the mounts.
        engine::prepare();
        sweep();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{}-{count}", owner(), std::process::id());
        let folder = temporary().join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// The disk, and where it is mounted. Unmounted and gone when dropped: declare it before the engine that uses it.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    file: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Makes an empty disk and mounts it.
    ///
    /// # Errors
    /// When `mkfs.ext4` is missing, or this process may not mount.
    pub fn new(place: &Place) -> Result<Self> {
        let folder = place.path().to_owned();
        let disk = Self { file: folder.join(FILE), mount: folder.join(MOUNT), folder };
        fs::create_dir_all(&disk.mount)?;
        File::create(&disk.file)?.set_len(SIZE)?;
        run(Call::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.file.to_string_lossy()), "e2fsprogs")?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Writes everything to the disk.
    pub fn sync(&self) -> Result<()> {
        Ok(nix::unistd::syncfs(File::open(&self.mount)?)?)
    }

    /// Takes its power away: what has not reached the disk never will, and every write from now on fails.
    pub fn cut(&self) -> Result<()> {
        let root = File::open(&self.mount)?;
        let mut flags = NO_LOG_FLUSH;
        // SAFETY: the descriptor is open, and the kernel only reads the number, which lives until the call is over.
        unsafe { ext4_shutdown(root.as_raw_fd(), &raw mut flags) }.context("EXT4_IOC_SHUTDOWN")?;
        Ok(())
    }

    /// Gives it power again, after everyone who used it has ended: unmounts it, and mounts it as after a boot. What
    /// `e2fsck` says of it once the journal is replayed, if anything.
    pub fn power_on(&self) -> Result<Option<String>> {
        unmount(&self.folder)?;
        // The kernel replays the journal.
        self.mount()?;
        unmount(&self.folder)?;
        let checked =
            attempt(Call::new("e2fsck").args(["-fn"]).arg(self.file.to_string_lossy()).within(300))?;
        self.mount()?;
        Ok((checked.code != Some(0)).then(|| checked.to_string()))
    }

    fn mount(&self) -> Result<()> {
        let mount = Call::new("mount").args(["-o", "loop"]);
        run(mount.arg(self.file.to_string_lossy()).arg(self.mount.to_string_lossy()), "mount")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.folder) {
            eprintln!("{error:#}");
        }
        let _ = fs::remove_file(&self.file);
    }
}

/// Unmounts the disk of this folder, and waits until the kernel has let go of it.
///
/// A mount namespace that was made meanwhile has a copy of the mount, and keeps the filesystem alive after `umount`. To mount
/// the file then would put two filesystems on one disk, and what the older one still writes would damage the other.
fn unmount(folder: &Path) -> Result<()> {
    let (mount, file) = (folder.join(MOUNT), folder.join(FILE));
    let mut last = String::new();
    for _ in 0..600 {
        if is_mounted(&mount) {
            last = attempt(Call::new("umount").arg(mount.to_string_lossy()))?.stderr;
        } else if is_attached(&file) {
            last = "a loop device holds it: another mount namespace has a copy of the mount".into();
        } else {
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    bail!("{} cannot be unmounted: {}", mount.display(), last.trim())
}

/// Whether a loop device stands on this file: see sysfs-block-loop in the kernel's documentation of its ABI.
fn is_attached(file: &Path) -> bool {
    let Ok(devices) = fs::read_dir("/sys/block") else { return false };
    let backing = |device: fs::DirEntry| fs::read_to_string(device.path().join("loop/backing_file")).ok();
    devices.flatten().filter_map(backing).any(|name| {
        let name = name.trim_end();
        Path::new(name.strip_suffix(" (deleted)").unwrap_or(name)) == file
    })
}

fn is_mounted(mount: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == mount))
}

/// Removes the folders of campaigns whose process is gone.
fn sweep() {
    let prefix = owner();
    let Ok(entries) = fs::read_dir(temporary()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('-')?.split('-').next());
        if maker.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&entry.path());
        }
    }
}

fn remove(folder: &Path) {
    let removed = unmount(folder).and_then(|()| match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    });
    if let Err(error) = removed {
        eprintln!("{} is left behind: {error:#}", folder.display());
    }
}

/// The folder for temporary files, as the kernel names it.
fn temporary() -> PathBuf {
    let folder = std::env::temp_dir();
    folder.canonicalize().unwrap_or(folder)
}

/// What the names of this pid namespace's folders begin with.
fn owner() -> String {
    let namespace: String = engine::pid_namespace().chars().filter(char::is_ascii_digit).collect();
    format!("{PREFIX}-{namespace}")
}

fn attempt(call: Call) -> Result<Ended> {
    call.attempt().map_err(anyhow::Error::msg)
}

fn run(call: Call, package: &str) -> Result<()> {
    let ended =
        attempt(call).with_context(|| format!("as root: apt-get install {package}, or run ./check"))?;
    ensure!(ended.code == Some(0), "{ended}\n  help: power cuts need root, to mount");
    Ok(())
}
