//! `dind context`: a context of the docker command for a host.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::endpoint::{Address, ContainerId, docker_folder};
use crate::failure::{Failure, Result};
use crate::hosts::Host;
use crate::{Context as Calling, hash, output, reach};

/// What a context that was written here says in its metadata, so that no other is ever overwritten or removed.
const MARK: &str = "dind.host";

/// And the endpoint that the host is on: another one that answers with the host's id removes nothing.
const ENDPOINT: &str = "dind.endpoint";

/// Write a context with which the docker command uses a host
///
/// `docker --context NAME ps`, or `docker context use NAME`. It is removed with the host (dind rm), or by `docker context rm`.
#[derive(Debug, Args)]
pub(crate) struct Context {
    /// The host
    pub(crate) name: String,
    /// Name of the context [default: that of the host]
    #[arg(long, value_name = "NAME")]
    pub(crate) r#as: Option<String>,
}

/// Does it.
pub(crate) async fn run(calling: &Calling, context: Context) -> Result<()> {
    let name = context.r#as.as_deref().unwrap_or(&context.name);
    check(name)?;
    let place = Place::of(name);
    place.must_be_ours(name)?;
    let endpoint = calling.connect().await?;
    let host = Host::find(&endpoint, &context.name).await?;
    let status = reach::status(&endpoint, &host).await?;
    let reach = reach::find(&endpoint, &host, &status).await?;
    let mut certificates = Vec::new();
    if let Some(folder) = &reach.certificates {
        for file in ["ca.pem", "cert.pem", "key.pem"] {
            let content = fs::read(folder.join(file)).map_err(|e| {
                Failure::new(format!("cannot read {}: {e}", folder.join(file).display()), "try again")
            })?;
            certificates.push((file, content));
        }
    }
    let meta = json!({
        "Name": name,
        "Metadata": {
            "Description": format!("dind host {}", host.name),
            MARK: host.id.as_str(),
            ENDPOINT: endpoint.address.to_string(),
        },
        "Endpoints": { "docker": { "Host": format!("tcp://{}", reach.place), "SkipTLSVerify": false } },
    });
    place.put(meta.to_string().as_bytes(), &certificates).map_err(|e| {
        Failure::new(
            format!("cannot write the context {name} to {}: {e}", docker_folder().display()),
            "make room or give permission there, or name another folder in DOCKER_CONFIG",
        )
    })?;
    output::print(&format!("{name}\n"))
}

/// Removes the contexts that were written for a host.
pub(crate) fn forget(endpoint: &Address, id: &ContainerId) {
    let of_host = Owner { id: id.clone(), endpoint: Some(endpoint.to_string()) };
    let Ok(folders) = fs::read_dir(docker_folder().join("contexts/meta")) else { return };
    for folder in folders.flatten() {
        let meta = folder.path();
        if owner(&meta).ok().flatten().is_some_and(|owner| owner == of_host) {
            let tls = docker_folder().join("contexts/tls").join(folder.file_name());
            let _ = fs::remove_dir_all(meta);
            let _ = fs::remove_dir_all(tls);
        }
    }
}

/// Where the docker command keeps a context: folders named by the hash of its name.
struct Place {
    meta: PathBuf,
    tls: PathBuf,
}

impl Place {
    fn of(name: &str) -> Self {
        let contexts = docker_folder().join("contexts");
        let id = hash::sha256(name.as_bytes());
        Self { meta: contexts.join("meta").join(&id), tls: contexts.join("tls").join(&id) }
    }

    fn must_be_ours(&self, name: &str) -> Result<()> {
        match owner(&self.meta) {
            Ok(Some(_)) => Ok(()),
            // Neither is there a folder for it to be in: writing it says so.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
            Ok(None) => Err(Failure::new(
                format!("there is a context {name} already, and dind did not write it"),
                format!("give another name: --as NAME; or remove that one: docker context rm {name}"),
            )),
            Err(e) => Err(Failure::new(
                format!(
                    "there is a context {name} already, and {} cannot be read: {e}",
                    self.meta.join("meta.json").display()
                ),
                format!("give another name: --as NAME; or remove that one: rm -r {}", self.meta.display()),
            )),
        }
    }

    /// Puts a context into place. It is written whole beside the others, where the docker command does not look, so that an error
    /// leaves what was there.
    fn put(&self, meta: &[u8], certificates: &[(&str, Vec<u8>)]) -> io::Result<()> {
        let contexts = self.meta.ancestors().nth(2).unwrap_or(&self.meta);
        let staged = contexts.join(format!("dind.{}", std::process::id()));
        // Of a process that ended in the middle, and had this one's id.
        let _ = fs::remove_dir_all(&staged);
        let put = write(&staged.join("meta"), "meta.json", meta)
            .and_then(|()| {
                certificates
                    .iter()
                    .try_for_each(|(file, content)| write(&staged.join("tls/docker"), file, content))
            })
            .and_then(|()| {
                folder(self.meta.parent().unwrap_or(contexts))?;
                folder(self.tls.parent().unwrap_or(contexts))
            })
            .and_then(|()| self.swap(&staged));
        let _ = fs::remove_dir_all(&staged);
        put
    }

    /// Gives the staged folders their names, and takes those that had them away; undone when it cannot be done to the end.
    fn swap(&self, staged: &Path) -> io::Result<()> {
        let moves = [
            (self.tls.clone(), staged.join("tls.before")),
            (staged.join("tls"), self.tls.clone()),
            (self.meta.clone(), staged.join("meta.before")),
            (staged.join("meta"), self.meta.clone()),
        ];
        let mut done: Vec<&(PathBuf, PathBuf)> = Vec::new();
        for step in &moves {
            match fs::rename(&step.0, &step.1) {
                Ok(()) => done.push(step),
                // There was none before, or the host has no certificates.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    for (from, to) in done.into_iter().rev() {
                        let _ = fs::rename(to, from);
                    }
                    return Err(e);
                }
            }
        }
        Ok(())
    }
}

/// Makes a folder that only the user can enter, with those above it.
fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a new file that only the user can read, and the folder that it is in.
fn write(into: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    folder(into)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(into.join(name))?;
    file.write_all(content)
}

/// The host that a context was written for.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    id: ContainerId,
    endpoint: Option<String>,
}

/// The host that a context was written for, if it was written here.
///
/// # Errors
/// There is no context, or it cannot be read.
fn owner(meta: &Path) -> io::Result<Option<Owner>> {
    let meta: Value = serde_json::from_slice(&fs::read(meta.join("meta.json"))?)?;
    let text = |name: &str| meta["Metadata"][name].as_str();
    let id = text(MARK).and_then(|id| id.parse().ok());
    Ok(id.map(|id| Owner { id, endpoint: text(ENDPOINT).map(str::to_owned) }))
}

/// The docker command's own rule: `^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$`, and `default` is its own.
fn check(name: &str) -> Result<()> {
    let mut letters = name.chars();
    let first = letters.next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = name.len() > 1 && letters.all(|c| c.is_ascii_alphanumeric() || "_.+-".contains(c));
    if first && rest && name != "default" {
        return Ok(());
    }
    Err(Failure::usage(
        format!("{name:?} cannot be a name of a context"),
        "give one of at least two letters, digits or _ . + - after the first: --as NAME",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_replaced_whole_or_not_at_all() {
        let scratch = std::env::temp_dir().join(format!("dind-context-{}", std::process::id()));
        let contexts = scratch.join("contexts");
        let place = Place { meta: contexts.join("meta/id"), tls: contexts.join("tls/id") };
        let [a, b, c] = ["a", "b", "c"].map(|digit| digit.repeat(64));
        let meta = |host: &str| json!({ "Metadata": { MARK: host } }).to_string().into_bytes();
        let owner = || owner(&place.meta).unwrap().map(|owner| owner.id.to_string());
        let certificates = [("ca.pem", b"ca".to_vec())];
        let names = || {
            let folders = fs::read_dir(&contexts).unwrap().flatten();
            let mut names: Vec<_> = folders.map(|folder| folder.file_name()).collect();
            names.sort();
            names
        };
        place.must_be_ours("one").unwrap();
        place.put(&meta(&a), &certificates).unwrap();
        assert_eq!(owner().as_ref(), Some(&a));
        assert!(place.tls.join("docker/ca.pem").exists());
        // What cannot be written: two files of one name.
        let twice = [certificates[0].clone(), certificates[0].clone()];
        place.put(&meta(&b), &twice).unwrap_err();
        assert_eq!(owner().as_ref(), Some(&a));
        assert!(place.tls.join("docker/ca.pem").exists());
        // Without certificates, those of before go.
        place.put(&meta(&c), &[]).unwrap();
        assert_eq!(owner().as_ref(), Some(&c));
        assert!(!place.tls.exists());
        assert_eq!(names(), ["meta", "tls"]);
        fs::write(place.meta.join("meta.json"), "{").unwrap();
        let said = place.must_be_ours("one").unwrap_err().to_string();
        fs::remove_dir_all(&scratch).unwrap();
        assert!(said.contains("cannot be read") && said.contains("rm -r"), "{said}");
    }

    #[test]
    fn names_of_contexts() {
        for (name, good) in [
            ("one", true),
            ("a.b+c-d_e", true),
            ("default", false),
            ("", false),
            ("x", false),
            ("-a", false),
            ("a/b", false),
        ] {
            assert_eq!(check(name).is_ok(), good, "{name}");
        }
    }
}
