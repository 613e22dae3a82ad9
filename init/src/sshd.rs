//! What sshd needs before it starts: a port that is free, and host keys. They are made at the first start, by ssh-keygen, which a
//! child of the host (`dind-init helper host-keys`) runs; what is there already is kept.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dind_contract::paths;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::ground::run_program;
use crate::settings::Settings;

/// The longest that one run of ssh-keygen may take: these kinds of keys take milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// The kinds of host keys, as ssh-keygen(1) names them. The names of their files are in `with-ssh/sshd_config`, too.
const KINDS: [&str; 2] = ["ed25519", "ecdsa"];
const FOLDER: &str = "/etc/ssh";
const PORT: u16 = 22;

/// Whether a host here runs sshd.
pub(crate) fn is_wanted() -> bool {
    Path::new(paths::SSHD_CONFIG).is_file()
}

/// What sshd is configured by: the files that its user added, which count first, and ours.
fn config() -> String {
    let added = fs::read_dir(format!("{}.d", paths::SSHD_CONFIG)).ok();
    let mut files: Vec<PathBuf> = added.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|it| it == "conf"));
    files.sort();
    files.push(paths::SSHD_CONFIG.into());
    files.iter().filter_map(|file| crate::read_if_there(file).ok().flatten()).fold(
        String::new(),
        |mut all, text| {
            all.push_str(&text);
            all.push('\n');
            all
        },
    )
}

/// The ports on which sshd listens with this configuration; none where it names addresses, which are left to sshd.
fn ports(config: &str) -> Vec<u16> {
    let mut ports = Vec::new();
    for line in config.lines() {
        let mut words = line.split(|it: char| it.is_whitespace() || it == '=').filter(|it| !it.is_empty());
        let Some(keyword) = words.next() else { continue };
        if keyword.eq_ignore_ascii_case("ListenAddress") {
            return Vec::new();
        }
        if keyword.eq_ignore_ascii_case("Port") {
            ports.extend(words.next().and_then(|word| word.parse::<u16>().ok()));
        }
    }
    if ports.is_empty() { vec![PORT] } else { ports }
}

/// Looks whether sshd can have its ports.
///
/// # Errors
/// Names the first that it cannot.
pub(crate) fn check_ports() -> Result<(), Failure> {
    let listeners = ports(&config()).into_iter().map(|port| format!("tcp://0.0.0.0:{port}"));
    crate::ground::network::check_ports(&listeners.collect::<Vec<_>>()).map_err(|failure| Failure {
        help: format!(
            "stop that process, give the host a network of its own (no --network host), or mount another `Port` as a \
             file in {}.d",
            paths::SSHD_CONFIG
        ),
        ..failure
    })
}

/// The child that makes the keys, while other work is done.
///
/// # Errors
/// No process can be made.
pub(crate) fn start_host_keys(settings: &Settings) -> Result<crate::helper::Helper, Failure> {
    let patience = PATIENCE * 5;
    crate::helper::Helper::start(
        "sshd's host keys",
        &["host-keys".to_owned()],
        &settings.environment,
        patience,
    )
}

/// What that child prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HostKeys {
    /// They are there.
    Ready {
        /// The kinds that were made now.
        made: Vec<String>,
        /// The fingerprint of each.
        fingerprints: Vec<String>,
    },
    /// They cannot be.
    Failed {
        /// The object and the cause.
        cause: String,
        /// The next step.
        help: String,
    },
}

impl HostKeys {
    /// What is logged of it.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn said(self) -> Result<String, Failure> {
        match self {
            Self::Ready { made, fingerprints } => {
                let how = if made.is_empty() { "kept" } else { "made" };
                Ok(format!("{how}, {}", fingerprints.join(", ")))
            }
            Self::Failed { cause, help } => Err(Failure::unavailable(cause, help)),
        }
    }
}

/// Makes the keys that are missing and prints what came of it: the work of the child.
pub(crate) fn print_host_keys() -> String {
    let answer = prepare(Path::new(FOLDER))
        .unwrap_or_else(|Failure { cause, help, .. }| HostKeys::Failed { cause, help });
    serde_json::to_string(&answer).unwrap_or_default()
}

fn prepare(folder: &Path) -> Result<HostKeys, Failure> {
    let (mut made, mut fingerprints) = (Vec::new(), Vec::new());
    for kind in KINDS {
        let key = folder.join(format!("ssh_host_{kind}_key"));
        if !key.exists() {
            make(kind, &key)?;
            made.push(kind.to_owned());
        }
        let arguments = ["-l", "-f"].map(std::ffi::OsString::from);
        let said = run_program("ssh-keygen", arguments.into_iter().chain([key.clone().into()]), "", PATIENCE)
            .map_err(|why| {
                Failure::unavailable(
                    format!("the host key {} is not usable: {why}", key.display()),
                    "replace it, or remove it: the next start makes a new one, which clients will not know",
                )
            })?;
        fingerprints.extend(fingerprint(&said).map(|print| format!("{kind} {print}")));
    }
    Ok(HostKeys::Ready { made, fingerprints })
}

/// The fingerprint in what `ssh-keygen -l` says: `256 SHA256:… comment (ED25519)`.
fn fingerprint(said: &str) -> Option<&str> {
    said.split_whitespace().find(|word| word.starts_with("SHA256:"))
}

/// Makes one key, which is whole on the disk as soon as it has its name.
fn make(kind: &str, key: &Path) -> Result<(), Failure> {
    let cannot = |why: String| {
        Failure::unavailable(
            format!("cannot make the host key {}: {why}", key.display()),
            "give the host a writable /etc/ssh, with room, or mount host keys there",
        )
    };
    let io = |e: io::Error| cannot(e.to_string());
    let folder = key.parent().unwrap_or(Path::new(FOLDER));
    // What a host that was killed left half done.
    let unfinished = folder.join(format!(".dind-{kind}"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(io)?;
    }
    fs::create_dir(&unfinished).map_err(io)?;
    let new = unfinished.join("key");
    let arguments = ["-q", "-N", "", "-C", "", "-t", kind, "-f"].map(std::ffi::OsString::from);
    run_program("ssh-keygen", arguments.into_iter().chain([new.clone().into()]), "", PATIENCE)
        .map_err(cannot)?;
    // The private key last: where it is, both are.
    for (from, to) in [(new.with_extension("pub"), key.with_extension("pub")), (new, key.to_owned())] {
        File::open(&from).and_then(|file| file.sync_all()).map_err(io)?;
        fs::rename(&from, &to).map_err(io)?;
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    fs::remove_dir_all(&unfinished).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_that_are_configured() {
        for (config, expected) in [
            ("", vec![22]),
            ("# Port 23\nUsePAM no", vec![22]),
            ("Port 2222\n", vec![2222]),
            ("port=2222\n  PORT\t2223 # why\n", vec![2222, 2223]),
            ("Port 2222\nListenAddress 127.0.0.1\n", vec![]),
            ("Port many\n", vec![22]),
        ] {
            assert_eq!(ports(config), expected, "{config}");
        }
    }

    #[test]
    fn what_is_said_of_host_keys() {
        assert_eq!(fingerprint("256 SHA256:abc no comment (ED25519)\n"), Some("SHA256:abc"));
        let ready = HostKeys::Ready { made: vec![], fingerprints: vec!["ed25519 SHA256:a".into()] };
        assert_eq!(ready.said().unwrap(), "kept, ed25519 SHA256:a");
        let failed = HostKeys::Failed { cause: "a".into(), help: "b".into() };
        assert_eq!(failed.said().unwrap_err().code, 69);
    }
}
