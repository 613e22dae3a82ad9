//! What the command keeps on this machine: clients' certificates and the keys for ssh, readable by the user alone.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::endpoint::{home, set};
use crate::failure::{Failure, Result};

/// The folder of everything: `$XDG_STATE_HOME/dind`, as the XDG base directory specification has it.
pub(crate) fn folder() -> PathBuf {
    set("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| home().join(".local/state"))
        .join("dind")
}

/// The folder of the host with this id. Ids are never given twice, so what is in it is never another host's.
pub(crate) fn of_host(id: &str) -> PathBuf {
    folder().join("hosts").join(short(id))
}

/// As much of an id as the docker command shows.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Makes a folder that only the user can enter, with those above it.
///
/// # Errors
/// It cannot be made.
pub(crate) fn private_folder(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    // One that was there keeps its mode otherwise.
    made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .map_err(|e| unwritable(path, &e))
}

/// Puts a file into place whole, readable by the user alone.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    // A name of its own: two commands may write the same file at the same time.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let partial = path.with_file_name(name);
    let put = || -> io::Result<()> {
        let _ = fs::remove_file(&partial);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(content)?;
        fs::rename(&partial, path)
    };
    put().map_err(|e| {
        let _ = fs::remove_file(&partial);
        unwritable(path, &e)
    })
}

/// File in a host's folder with the host's name.
pub(crate) const NAME: &str = "name";

/// File in a host's folder with the endpoint that the host is on.
pub(crate) const ENDPOINT: &str = "endpoint";

/// The ids, as they are short, of the hosts of an endpoint of which something is kept here.
pub(crate) fn hosts_of(endpoint: &str) -> Vec<String> {
    let folders = fs::read_dir(folder().join("hosts")).into_iter().flatten().flatten();
    folders
        .filter(|folder| fs::read_to_string(folder.path().join(ENDPOINT)).is_ok_and(|text| text == endpoint))
        .map(|folder| folder.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The name of the host whose certificates are in this folder, if it is one of ours.
pub(crate) fn owner(certificates: &Path) -> Option<String> {
    certificates.starts_with(folder()).then(|| fs::read_to_string(certificates.join(NAME)).ok()).flatten()
}

/// Forgets what was kept of a host.
pub(crate) fn forget(id: &str) {
    let _ = fs::remove_dir_all(of_host(id));
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        format!("cannot write {}: {error}", path.display()),
        "make room or give permission there, or name another place in XDG_STATE_HOME",
    )
}
