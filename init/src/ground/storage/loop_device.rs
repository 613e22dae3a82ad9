//! Loop devices (loop(4)). They are the kernel's, and shared by everybody on the machine: each is set to go by itself when
//! nobody uses it any more, so that none is leaked, however this process ends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// Numbers of the calls (linux/loop.h).
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
/// The device lets go of its file when its last user closes it.
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Device numbers (kernel, devices.txt).
const MAJOR: u64 = 7;
const CONTROL: (&str, u64, u64) = ("/dev/loop-control", 10, 237);
/// How often to ask for a free device: between the answer and its use another may take it.
const ATTEMPTS: u32 = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl Info {
    const EMPTY: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// A loop device that is held open: it stays until this value goes and nothing on it is mounted any more.
pub(crate) struct Device {
    /// Its node.
    pub(crate) path: PathBuf,
    _open: File,
}

/// Puts `file` on a free device; one that was opened to be read only can only be read there.
pub(crate) fn attach(file: &File) -> io::Result<Device> {
    let (control, major, minor) = CONTROL;
    let control = open(Path::new(control), SFlag::S_IFCHR, major, minor, true)?;
    let mut last = io::Error::from_raw_os_error(libc::EBUSY);
    for attempt in 0..ATTEMPTS {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        let number = u64::try_from(number).map_err(|_| io::Error::last_os_error())?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open(&path, SFlag::S_IFBLK, MAJOR, number, true)?;
        let info = Info { flags: LO_FLAGS_AUTOCLEAR, ..Info::EMPTY };
        let fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
        let config = Config { fd, block_size: 0, info, reserved: [0; 8] };
        // SAFETY: the kernel reads one `struct loop_config`, which `config` is, and both files are open.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } == 0 {
            return Ok(Device { path, _open: device });
        }
        last = io::Error::last_os_error();
        if last.raw_os_error() != Some(libc::EBUSY) {
            break;
        }
        pause(attempt);
    }
    Err(io::Error::new(last.kind(), format!("{last} (LOOP_CONFIGURE, Linux 5.8 or newer)")))
}

/// The device on which `file` is already: a second one would be a second cache of the same bytes, and ruin them.
pub(super) fn attached(file: &File) -> io::Result<Option<Device>> {
    let wanted = file.metadata()?;
    // A machine that has never had one has no such folder.
    let Ok(devices) = fs::read_dir("/sys/block") else { return Ok(None) };
    for entry in devices.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix("loop").and_then(|number| number.parse().ok());
        // Only one that is in use has this folder.
        let (Some(number), true) = (number, entry.path().join("loop").exists()) else { continue };
        let path = PathBuf::from(format!("/dev/{name}"));
        let device = open(&path, SFlag::S_IFBLK, MAJOR, number, false)?;
        let mut info = Info::EMPTY;
        // SAFETY: the kernel writes one `struct loop_info64`, which `info` is.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
        if result == 0 && (info.device, info.inode) == (wanted.dev(), wanted.ino()) {
            return Ok(Some(Device { path, _open: device }));
        }
    }
    Ok(None)
}

/// Opens a device; where its node is not there, it is made: a container's /dev has only a few.
pub(super) fn open(path: &Path, kind: SFlag, major: u64, minor: u64, write: bool) -> io::Result<File> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    if !path.exists() {
        match mknod(path, kind, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major, minor)) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(e) => return Err(named(e.into())),
        }
    }
    OpenOptions::new().read(true).write(write).open(path).map_err(named)
}

/// A moment in which others may come to an end, longer from time to time.
pub(super) fn pause(attempt: u32) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a child of the host is an ordinary program, and may sleep"
    )]
    std::thread::sleep(Duration::from_millis(u64::from(attempt.min(50))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
    }
}
