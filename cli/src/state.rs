//! What the command keeps on this machine: clients' certificates and the keys for ssh, readable by the user alone.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::endpoint::{Address, ContainerId, home, set};
use crate::failure::{Failure, Result};
use crate::hash;

/// How many digits of a hash name a host's folder: too many for two to be the same.
const FOLDER_NAME: usize = 32;

/// The folder of everything: `$XDG_STATE_HOME/dind`, as the XDG base directory specification has it.
pub(crate) fn folder() -> PathBuf {
    set("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| home().join(".local/state"))
        .join("dind")
}

/// The folder of the host with this id at this endpoint. Both name it: an endpoint that knows the id of another's host, and answers
/// with it, reaches nothing that is kept of that.
pub(crate) fn of_host(endpoint: &Address, id: &ContainerId) -> PathBuf {
    let name: String =
        hash::sha256(format!("{endpoint} {id}").as_bytes()).chars().take(FOLDER_NAME).collect();
    folder().join("hosts").join(name)
}

/// Makes that folder, with what says whose it is in it.
///
/// # Errors
/// It cannot be made.
pub(crate) fn make_of_host(endpoint: &Address, id: &ContainerId, name: &str) -> Result<PathBuf> {
    let folder = of_host(endpoint, id);
    private_folder(&folder)?;
    for (file, text) in [(NAME, name), (ID, id.as_str()), (ENDPOINT, &endpoint.to_string())] {
        write(&folder.join(file), text.as_bytes())?;
    }
    Ok(folder)
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
const NAME: &str = "name";

/// File in a host's folder with the host's whole id.
const ID: &str = "id";

/// File in a host's folder with the endpoint that the host is on.
const ENDPOINT: &str = "endpoint";

/// The hosts of an endpoint of which something is kept here.
pub(crate) fn hosts_of(endpoint: &Address) -> Vec<ContainerId> {
    let folders = fs::read_dir(folder().join("hosts")).into_iter().flatten().flatten();
    let text = |folder: &fs::DirEntry, file| fs::read_to_string(folder.path().join(file)).ok();
    folders
        .filter(|folder| text(folder, ENDPOINT).is_some_and(|text| text == endpoint.to_string()))
        .filter_map(|folder| text(&folder, ID)?.parse().ok())
        .collect()
}

/// The name of the host whose certificates are in this folder, if it is one of ours.
pub(crate) fn owner(certificates: &Path) -> Option<String> {
    certificates.starts_with(folder()).then(|| fs::read_to_string(certificates.join(NAME)).ok()).flatten()
}

/// Forgets what was kept of a host.
pub(crate) fn forget(endpoint: &Address, id: &ContainerId) {
    let _ = fs::remove_dir_all(of_host(endpoint, id));
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        format!("cannot write {}: {error}", path.display()),
        "make room or give permission there, or name another place in XDG_STATE_HOME",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_folder_is_directly_below_that_of_all_hosts_and_no_other_hosts() {
        let of_host = |endpoint: &str, id: &str| {
            of_host(&Address::parse(endpoint, "a test").unwrap(), &id.parse::<ContainerId>().unwrap())
        };
        let (here, there) = ("unix:///var/run/docker.sock", "tcp://192.0.2.1:2375");
        let one = of_host(here, "0123456789ab0000");
        assert_eq!(one.parent(), Some(folder().join("hosts").as_path()));
        assert_eq!(one, of_host(here, "0123456789ab0000"));
        assert_ne!(one, of_host(here, "0123456789ab1111"), "the same first twelve digits");
        assert_ne!(one, of_host(there, "0123456789ab0000"), "the same id at another endpoint");
    }
}
