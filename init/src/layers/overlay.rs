//! What overlay leaves out of a layer that was written through a mount of it, where the kernel is set to (`redirect_dir` and
//! `metacopy`, module parameters that some distributions turn on; Documentation/filesystems/overlayfs.rst). BuildKit makes such
//! layers. A folder that was renamed has its content in the layer below, under its old name; a file of which only owner or mode
//! were changed has its data there. The layer below has a list of its own, by which it is checked.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::open_inside;

/// The data is in the layer below.
const METACOPY: &CStr = c"trusted.overlay.metacopy";
/// The content is in the layer below, under the name that is the attribute's value.
const REDIRECT: &CStr = c"trusted.overlay.redirect";

/// Whether only the metadata of a file is in its layer.
pub(super) fn has_data_below(file: &File) -> bool {
    has(file, METACOPY)
}

/// Whether a path that is not in a layer leads through a folder that was renamed.
pub(super) fn is_moved(root: &File, place: &Path, path: &Path) -> bool {
    path.ancestors()
        .skip(1)
        .filter(|folder| !folder.as_os_str().is_empty())
        .any(|folder| open_inside(root, place, folder).is_ok_and(|folder| has(&folder, REDIRECT)))
}

fn has(file: &File, attribute: &CStr) -> bool {
    // SAFETY: the name ends in a zero, and with a size of 0 nothing is written: only the length is asked for.
    let length = unsafe { libc::fgetxattr(file.as_raw_fd(), attribute.as_ptr(), std::ptr::null_mut(), 0) };
    length >= 0
}
