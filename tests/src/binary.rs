//! The program itself, taken out of the image.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::engine::docker;
use crate::host::Host;

/// `dind-init` as a file of this machine, for as long as the value lives.
#[derive(Debug)]
pub struct Binary {
    folder: TempDir,
}

impl Binary {
    /// Copies it from the image under test.
    ///
    /// # Panics
    /// When there is no image, or no room.
    #[track_caller]
    #[expect(clippy::new_without_default, reason = "it needs an engine")]
    pub fn new() -> Self {
        let host = Host::options().create();
        let folder = tempfile::tempdir().expect("a folder can be made");
        let copy = folder.path().join("dind-init");
        docker(["cp", "-L", &format!("{}:/usr/sbin/dind-init", host.name()), &copy.to_string_lossy()]).ok();
        Self { folder }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("dind-init")
    }
}
