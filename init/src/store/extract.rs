//! The files of a layer where its erofs cannot be mounted: `fsck.erofs` takes them out. It does not know all attributes, so only their content
//! is used: how the layer's tar is put together is in the store.
#![allow(clippy::disallowed_methods, reason = "an ordinary program, which looks after its own children")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder with a layer's files, which goes with this value.
pub(super) struct Extracted(pub(super) PathBuf);

impl Extracted {
    /// Takes the files of `image` out, into a new folder in `below`.
    ///
    /// # Errors
    /// There is no room, or the image is damaged, in `fsck.erofs`'s words.
    pub(super) fn new(image: &Path, below: &Path) -> io::Result<Self> {
        let folder = below.join("dind-extracted");
        let _ = fs::remove_dir_all(&folder);
        let extracted = Self(folder);
        let output = Command::new("fsck.erofs")
            .arg(format!("--extract={}", extracted.0.display()))
            .arg(image)
            .output()?;
        if output.status.success() {
            return Ok(extracted);
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(io::Error::other(format!(
            "{}: {}",
            image.display(),
            said.lines().next().unwrap_or("fsck.erofs failed")
        )))
    }
}

impl Drop for Extracted {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
