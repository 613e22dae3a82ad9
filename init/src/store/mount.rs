//! Mounts the layers of a store, each by a loop device: the store lies on the overlay of the container, on which an erofs cannot be mounted
//! as a file.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::{Store, at, place};
use crate::ground::storage::loop_device;

/// Mounts every layer, or none.
///
/// # Errors
/// The first that cannot be mounted, and why.
pub(super) fn all(store: &Store) -> Result<(), String> {
    for layer in &store.manifest.layers {
        let (file, place) = (store.files(layer), place(&layer.diff_id));
        if let Err(e) = one(&file, &place) {
            super::start::unmount();
            return Err(at(&file)(e));
        }
    }
    Ok(())
}

fn one(file: &Path, place: &Path) -> io::Result<()> {
    fs::create_dir_all(place)?;
    let device = loop_device::attach(&File::open(file)?)?;
    mount(Some(&device.path), place, Some("erofs"), MsFlags::MS_RDONLY, None::<&str>).map_err(|e| match e {
        nix::errno::Errno::ENODEV => io::Error::other("this kernel has no erofs"),
        e => io::Error::new(
            io::Error::from(e).kind(),
            format!("it cannot be mounted: {}", e.desc().to_lowercase()),
        ),
    })
}
