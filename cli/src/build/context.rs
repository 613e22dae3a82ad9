//! What is sent to the endpoint to build from: an archive made in memory, the same for the same version.

use crate::failure::{Failure, Result};

/// A file of it.
pub(crate) struct File<'a> {
    /// Its path.
    pub(crate) path: &'a str,
    /// Its content.
    pub(crate) content: &'a [u8],
    /// Its mode.
    pub(crate) mode: u32,
}

/// The archive. No time and no user is in it, so that the builder's cache knows it again.
///
/// # Errors
/// It cannot be made, which memory alone could cause.
pub(crate) fn archive(files: &[File<'_>]) -> Result<Vec<u8>> {
    let build = || -> std::io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for file in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(file.content.len() as u64);
            header.set_mode(file.mode);
            header.set_mtime(0);
            archive.append_data(&mut header, file.path, file.content)?;
        }
        archive.into_inner()
    };
    build()
        .map_err(|e| Failure::new(format!("cannot make the build context: {e}"), "report this as a defect"))
}
