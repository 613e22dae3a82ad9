//! Layers as images have them, and whether a union of them behaves. The same for overlay and fuse-overlayfs.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};

/// Options of the union, for a working directory in which [`make`] was; the topmost lower directory comes first.
pub(super) const OPTIONS: &str = "lowerdir=top:middle:bottom,upperdir=upper,workdir=work";
/// The same with an upper directory that is used only once.
const BARE: &str = "lowerdir=top:middle:bottom,upperdir=bare/upper,workdir=bare/work";
/// Where the union is mounted.
pub(super) const MERGED: &str = "merged";

/// What went wrong: the step, and the kernel's word for it.
pub(super) fn failed<E: std::fmt::Display>(step: &str) -> impl FnOnce(E) -> String {
    move |e| format!("{step}: {e}")
}

/// Makes three lower directories in `at`, and what a union of them needs.
pub(super) fn make(at: &Path) -> Result<(), String> {
    for folder in
        ["bottom/opaque", "middle", "top/opaque", "upper", "work", "bare/upper", "bare/work", MERGED]
    {
        fs::create_dir_all(at.join(folder)).map_err(failed("cannot make a folder"))?;
    }
    for file in ["bottom/low", "bottom/opaque/old", "middle/gone", "middle/kept", "top/opaque/new"] {
        fs::write(at.join(file), file).map_err(failed("cannot write a file"))?;
    }
    Ok(())
}

/// Deletes a file and empties a folder in one of the directories, as the engine does when it unpacks an image.
pub(super) fn delete(at: &Path) -> Result<(), String> {
    make_whiteout(&at.join("top/gone"))?;
    set_opaque(&at.join("top/opaque"))
        .map_err(failed("a layer cannot empty a folder: cannot set trusted.overlay.opaque"))
}

/// How both know a file that a layer deletes (kernel, overlayfs.rst, "whiteouts and opaque directories").
fn make_whiteout(file: &Path) -> Result<(), String> {
    mknod(file, SFlag::S_IFCHR, Mode::empty(), 0)
        .map_err(failed("a layer cannot delete a file: cannot make a whiteout"))
}

fn set_opaque(folder: &Path) -> std::io::Result<()> {
    let path = std::ffi::CString::new(folder.as_os_str().as_encoded_bytes())?;
    // SAFETY: the names are strings that end in a zero byte, the value is one byte long, and all outlive the call.
    let result = unsafe {
        libc::setxattr(path.as_ptr(), c"trusted.overlay.opaque".as_ptr(), c"y".as_ptr().cast(), 1, 0)
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Whether overlay works in `at`, an empty folder that is the working directory, on every count on which an engine relies.
pub(super) fn try_overlay(at: &Path) -> Result<(), String> {
    make(at)?;
    check_types(&at.join("top"))?;
    // A file system that refuses overlay is asked for nothing more: a whiteout confuses fuse-overlayfs when it is under us.
    mount_overlay(BARE)?;
    unmount_overlay()?;
    delete(at)?;
    mount_overlay(OPTIONS)?;
    let result = check(at);
    unmount_overlay()?;
    result
}

fn mount_overlay(options: &str) -> Result<(), String> {
    let mount =
        |options: &str| mount(Some("overlay"), MERGED, Some("overlay"), MsFlags::empty(), Some(options));
    // Without `volatile` (Linux 5.10) the kernel syncs the whole file system when it is unmounted.
    mount(&format!("{options},volatile"))
        .or_else(|_| mount(options))
        .map_err(failed("overlay cannot be mounted"))
}

fn unmount_overlay() -> Result<(), String> {
    umount2(MERGED, MntFlags::MNT_DETACH).map_err(failed("overlay cannot be unmounted"))
}

/// Without the type in each directory entry overlay shows whiteouts as files (xfs with ftype=0), and dockerd refuses it.
fn check_types(folder: &Path) -> Result<(), String> {
    let mut folder = Dir::open(folder, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
        .map_err(failed("cannot read a folder"))?;
    let all = folder.iter().flatten().all(|entry| entry.file_type().is_some());
    if all { Ok(()) } else { Err("directory entries have no type (d_type)".to_owned()) }
}

/// Reads and changes the union in `at`.
pub(super) fn check(at: &Path) -> Result<(), String> {
    let merged = at.join(MERGED);
    let says = |path: &Path, text: &str| match fs::read_to_string(path) {
        Ok(read) if read == text => Ok(()),
        Ok(_) => Err(format!("{} reads as something else", path.display())),
        Err(e) => Err(format!("cannot read {}: {e}", path.display())),
    };
    if merged.join("gone").symlink_metadata().is_ok() {
        return Err("a file that a layer deletes is still there".to_owned());
    }
    let opaque = fs::read_dir(merged.join("opaque")).map_err(failed("cannot read a folder"))?;
    if opaque.flatten().any(|entry| entry.file_name() != "new") {
        return Err("a folder that a layer empties is not empty".to_owned());
    }
    says(&merged.join("kept"), "middle/kept")?;

    fs::write(merged.join("written"), "written").map_err(failed("cannot write a file"))?;
    says(&merged.join("written"), "written")?;
    let copied_up = OpenOptions::new().append(true).open(merged.join("low"));
    copied_up.and_then(|mut file| file.write_all(b"er")).map_err(failed("cannot change a file"))?;
    says(&merged.join("low"), "bottom/lower")?;
    says(&at.join("bottom/low"), "bottom/low")?;

    fs::create_dir(merged.join("made")).map_err(failed("cannot make a folder"))?;
    fs::write(merged.join("made/file"), "inside").map_err(failed("cannot write a file"))?;
    fs::rename(merged.join("made"), merged.join("moved")).map_err(failed("cannot rename a folder"))?;
    says(&merged.join("moved/file"), "inside")?;

    fs::remove_file(merged.join("kept")).map_err(failed("cannot delete a file"))?;
    if merged.join("kept").exists() {
        return Err("a deleted file is still there".to_owned());
    }
    says(&at.join("middle/kept"), "middle/kept")
}
