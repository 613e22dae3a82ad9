//! `dind ssh`: logged in to a host, with nothing to prepare.

mod arguments;

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use clap::Args;
use futures_util::TryStreamExt;

use crate::endpoint::{self, Endpoint, is_user};
use crate::failure::{Failure, Result};
use crate::hosts::Host;
use crate::options::SSH_PORT;
use crate::{Context, inside, reach, state};

/// Log in to a host over ssh
///
/// A key of dind's own, made at the first call, is added to the host for the user, and the host's keys are fetched through the
/// endpoint, so that there is nothing to confirm. The host needs an image with ssh: dind up --ssh.
#[derive(Debug, Args)]
pub(crate) struct Ssh {
    /// The host, or USER@HOST [default user: yours]
    #[arg(value_name = "[USER@]NAME")]
    pub(crate) name: String,
    /// Options of ssh, and a command to run there, such as -L 8000:localhost:8000
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    pub(crate) arguments: Vec<String>,
}

/// Does it: on success the process is ssh from here on.
pub(crate) async fn run(context: &Context, ssh: Ssh) -> Result<u8> {
    let (user, name) = match ssh.name.rsplit_once('@') {
        Some((user, name)) => (user.to_owned(), name),
        None => (user(), ssh.name.as_str()),
    };
    if !is_user(&user) {
        return Err(Failure::usage(
            format!("{user:?} is not a name of a user"),
            "name one that can log in: dind ssh USER@NAME",
        ));
    }
    let (options, command_there) = arguments::split(&ssh.arguments)?;
    let program = which::which("ssh")
        .map_err(|_| Failure::unavailable("there is no ssh in PATH", "install it: openssh-client"))?;
    let endpoint = context.connect().await?;
    let host = Host::find(&endpoint, name).await?;
    host.must_run("nobody can log in")?;
    let place = reach::place(&endpoint, &host, &[SSH_PORT])?;
    let folder = state::folder().join("ssh");
    let key = folder.join(KEY);
    // Before anything is made: a path that ssh cannot be told.
    let identity = option("IdentityFile", &key)?;
    make_key(&folder)?;
    let public = fs::read_to_string(key.with_extension("pub")).map_err(|e| {
        Failure::new(
            format!("cannot read {}.pub: {e}", key.display()),
            format!("remove the folder, a new key will be made: rm -r {}", folder.display()),
        )
    })?;
    let words = ["adduserkey", "--", &user, public.trim()];
    let added = inside::ask(&endpoint, &host.id, &host.name, &words).await?;
    added.ok(&format!("{user} cannot be let in to the host {}", host.name), &host.name)?;
    let known = known_hosts(&endpoint, &host).await?;
    let mut command = Command::new(program);
    command
        // Not -i: it looks for the file before it expands the path.
        .arg("-o")
        .arg(identity)
        .args([
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "GlobalKnownHostsFile=/dev/null",
        ])
        // Under this name the keys are known, whatever the address.
        .args(["-o", &format!("HostKeyAlias={}", host.id.short())])
        .arg("-o")
        .arg(option("UserKnownHostsFile", &known)?)
        .args(["-p", &place.port.to_string(), "-l", &user])
        .args(options)
        .args(["--", place.machine.as_str()])
        .args(command_there);
    let error = command.exec();
    Err(Failure::new(format!("cannot run ssh: {error}"), "look whether it is executable"))
}

fn user() -> String {
    let named = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    named.or_else(|| endpoint::set("USER")).unwrap_or_else(|| "root".to_owned())
}

/// File of our own key, beside its `.pub`.
const KEY: &str = "id_ed25519";

/// Makes our own key at the first call. The pair comes into place as a folder, in one step: of many first calls at a time the first
/// one's stays, whole, and the others use it.
fn make_key(folder: &Path) -> Result<()> {
    if folder.join(KEY).exists() {
        return Ok(());
    }
    let made = folder.with_extension(std::process::id().to_string());
    // Of a process that ended in the middle, and had this one's id.
    let _ = fs::remove_dir_all(&made);
    let placed = generate(&made).and_then(|()| place(&made, folder));
    if placed.is_err() {
        let _ = fs::remove_dir_all(&made);
    }
    placed
}

/// Runs ssh-keygen in a new folder.
fn generate(folder: &Path) -> Result<()> {
    state::private_folder(folder)?;
    let refuse = |cause: String| {
        Failure::unavailable(
            format!("cannot make a key for ssh: {cause}"),
            "install ssh-keygen: openssh-client; it may say more: ssh-keygen -t ed25519 -f NEW-FILE",
        )
    };
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "dind", "-f"])
        .arg(folder.join(KEY))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| refuse(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(refuse(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Gives the folder its name, unless there is one with a key by now. (rename(2) replaces no folder in which something is.)
fn place(made: &Path, folder: &Path) -> Result<()> {
    match fs::rename(made, folder) {
        Ok(()) => Ok(()),
        Err(_) if folder.join(KEY).exists() => {
            let _ = fs::remove_dir_all(made);
            Ok(())
        }
        Err(e) => Err(Failure::new(
            format!("cannot put a key for ssh to {}: {e}", folder.display()),
            format!("remove what is there: rm -r {}", folder.display()),
        )),
    }
}

/// `NAME="PATH"` as ssh's -o takes it: a percent sign begins a token, and quotes and backslashes are those of ssh_config(5).
fn option(name: &str, path: &Path) -> Result<OsString> {
    let bytes = path.as_os_str().as_bytes();
    // ssh_config(5) knows no way to write this so that it stays.
    if bytes.windows(2).any(|pair| pair == b"${") {
        return Err(Failure::new(
            format!("ssh cannot be told of {}: it would put a variable in the place of ${{", path.display()),
            "set XDG_STATE_HOME to another folder, without ${ in its name",
        ));
    }
    let mut text = format!("{name}=\"").into_bytes();
    for &byte in bytes {
        match byte {
            b'%' => text.push(b'%'),
            b'"' | b'\\' => text.push(b'\\'),
            _ => {}
        }
        text.push(byte);
    }
    text.push(b'"');
    Ok(OsString::from_vec(text))
}

/// A file with the host's keys, fetched through the endpoint, which is trusted already.
async fn known_hosts(endpoint: &Endpoint, host: &Host) -> Result<PathBuf> {
    let mut lines = String::new();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let path = format!("/etc/ssh/ssh_host_{kind}_key.pub");
        let options = DownloadFromContainerOptionsBuilder::new().path(&path).build();
        let archive = endpoint.docker.download_from_container(host.id.as_str(), Some(options));
        let archive: Result<Vec<bytes::Bytes>, _> = archive.try_collect().await;
        match archive {
            Ok(pieces) => {
                for (_, content) in reach::files(&pieces.concat()).unwrap_or_default() {
                    let key = String::from_utf8_lossy(&content);
                    lines.push_str(&format!("{} {}\n", host.id.short(), key.trim()));
                }
            }
            Err(error) if endpoint::status(&error) == Some(404) => {}
            Err(error) => {
                return Err(Failure::new(
                    format!("cannot fetch the keys of the host {}: {}", host.name, endpoint::cause(&error)),
                    "try again",
                ));
            }
        }
    }
    if lines.is_empty() {
        return Err(Failure::new(
            format!("the host {} has no host keys: no sshd runs in it", host.name),
            "make one with sshd: dind build --ssh; dind up --ssh",
        ));
    }
    let folder = state::make_of_host(&endpoint.address, &host.id, &host.name)?;
    let file = folder.join("known_hosts");
    state::write(&file, lines.as_bytes())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_what_they_are_in_options_of_ssh() {
        for (path, expected) in [
            ("/a/b", Some(r#"File="/a/b""#)),
            ("/a b/%d", Some(r#"File="/a b/%%d""#)),
            (r#"/a"b\c"#, Some(r#"File="/a\"b\\c""#)),
            ("/a/$HOME {x}", Some(r#"File="/a/$HOME {x}""#)),
            ("/a/${HOME}", None),
        ] {
            let made = option("File", Path::new(path)).ok();
            assert_eq!(made, expected.map(OsString::from), "{path}");
        }
    }

    #[test]
    fn the_first_key_stays() {
        let scratch = std::env::temp_dir().join(format!("dind-key-{}", std::process::id()));
        let folder = scratch.join("ssh");
        let offer = |word: &str| {
            let made = scratch.join(word);
            fs::create_dir_all(&made).unwrap();
            fs::write(made.join(KEY), word).unwrap();
            place(&made, &folder).unwrap();
            assert!(!made.exists());
            fs::read_to_string(folder.join(KEY)).unwrap()
        };
        let (first, second) = (offer("one"), offer("two"));
        fs::write(folder.join("other"), "").unwrap();
        fs::remove_file(folder.join(KEY)).unwrap();
        let blocked = scratch.join("three");
        fs::create_dir_all(&blocked).unwrap();
        let refused = place(&blocked, &folder).unwrap_err().to_string();
        fs::remove_dir_all(&scratch).unwrap();
        assert_eq!((first.as_str(), second.as_str()), ("one", "one"));
        assert!(refused.contains("rm -r"), "{refused}");
    }
}
