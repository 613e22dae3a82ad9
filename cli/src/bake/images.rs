//! Getting the images of an application into the engine that bakes: from archives, from the endpoint's own engine, from a registry, or built.

use std::collections::BTreeSet;
use std::io::Seek;
use std::path::Path;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::archive;
use super::baker::Baker;
use super::names::{Name, untagged};
use super::project::{self, FOLDER, Project};
use crate::endpoint::{self, Endpoint, ImageId};
use crate::failure::{Failure, Result};
use crate::options::Pull;
use crate::progress::Progress;
use crate::{image, output};

/// Opens an archive that was named.
///
/// # Errors
/// It is no file that can be read.
pub(crate) fn open(file: &Path) -> Result<std::fs::File> {
    // Looked at first: to open a pipe is to wait for who writes to it.
    match std::fs::metadata(file) {
        Ok(it) if it.is_file() => std::fs::File::open(file).map_err(|e| unread(file, &e)),
        Ok(_) => Err(unread(file, &"it is no file")),
        Err(e) => Err(unread(file, &e)),
    }
}

fn unread(file: &Path, cause: &dyn std::fmt::Display) -> Failure {
    Failure::usage(
        format!("cannot read the archive {}: {cause}", file.display()),
        "name a file that docker save, or skopeo copy … oci-archive:FILE:NAME has written",
    )
}

/// Passes the archives on that were named; of those in the OCI's layout, the images of `platform`. The names that they have brought.
pub(crate) async fn archives(
    baker: &Baker<'_>,
    files: &[std::path::PathBuf],
    platform: &str,
    progress: &Progress,
) -> Result<BTreeSet<String>> {
    let mut brought = BTreeSet::new();
    for file in files {
        let name = file.display();
        progress.begin(&format!("loading {name}"), &format!("{name} is loaded"));
        let mut opened = open(file)?;
        let completion = archive::completion(&mut opened, platform).map_err(|e| unread(file, &e))?;
        opened.rewind().map_err(|e| unread(file, &e))?;
        let (length, rest) = completion.map_or((u64::MAX, Vec::new()), |it| (it.length, it.rest));
        let all = tokio::fs::File::from_std(opened).take(length).chain(std::io::Cursor::new(rest));
        let (told, heard) = tokio::sync::mpsc::unbounded_channel();
        let stream = futures_util::stream::unfold((all, told), |(mut all, told)| async move {
            let mut piece = vec![0; 256 * 1024];
            match all.read(&mut piece).await {
                Ok(0) => None,
                Ok(length) => {
                    piece.truncate(length);
                    let _ = told.send(length as u64);
                    Some((Ok(Bytes::from(piece)), (all, told)))
                }
                Err(e) => Some((Err(e), (all, told))),
            }
        });
        let lines = counted(baker.load(stream), heard, progress).await.map_err(|cause| {
            Failure::new(
                format!("the archive {name} cannot be loaded: {}", in_words(&cause)),
                room_or(&cause, "make it with docker save, or skopeo copy … oci-archive:FILE:NAME"),
            )
        })?;
        progress.end();
        let names: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("Loaded image: ")).collect();
        if names.is_empty() {
            progress.note(&format!("no image in {name} has a name, so none is found by that of a service"));
        }
        brought.extend(names.into_iter().map(|name| Name::parse(name.trim()).sealed));
    }
    Ok(brought)
}

fn in_words(cause: &str) -> &str {
    // The second where it takes the archive for one of the first engines, which had a folder for each layer.
    if cause.contains("manifest.json: no such file") || cause.contains("/json: no such file") {
        "it has no manifest.json of docker save, and no oci-layout that could be read: one in the OCI's layout may not be compressed"
    } else {
        cause
    }
}

/// Waits for what is loaded, and shows how many bytes were `heard` of.
async fn counted<T>(
    loading: impl Future<Output = T>,
    mut heard: tokio::sync::mpsc::UnboundedReceiver<u64>,
    progress: &Progress,
) -> T {
    let mut loading = std::pin::pin!(loading);
    let mut bytes = 0;
    loop {
        tokio::select! {
            loaded = &mut loading => return loaded,
            Some(piece) = heard.recv() => {
                bytes += piece;
                progress.detail(&indicatif::HumanBytes(bytes).to_string());
            }
        }
    }
}

/// Gets one image, unless it is among those that archives have brought. `platform` as `linux/amd64`.
pub(crate) async fn get(
    baker: &Baker<'_>,
    name: &Name,
    pull: Pull,
    platform: &str,
    brought: &BTreeSet<String>,
    progress: &Progress,
) -> Result<()> {
    let outside = baker.outside;
    if brought.contains(&name.sealed) && id(&baker.engine, &name.wanted).await.is_some() {
        return Ok(());
    }
    let there = if pull == Pull::Always { None } else { id(outside, &name.wanted).await };
    if let Some(there) = there {
        if id(&baker.engine, &name.wanted).await.as_ref() == Some(&there) && name.digest.is_none() {
            progress.took(&format!("{} is there", name.sealed), std::time::Duration::ZERO);
            return Ok(());
        }
        return copy(outside, baker, name, progress).await;
    }
    if pull == Pull::Never {
        return Err(Failure::new(
            format!("there is no image {} on {}", name.wanted, outside.address),
            "pull or build it there, name an archive with --image-archive, or leave --pull=never out",
        ));
    }
    progress.begin(&format!("pulling {}", name.wanted), &format!("{} is pulled", name.wanted));
    image::fetch_for(&baker.engine, &name.wanted, Some(platform), progress).await.map_err(|cause| {
        let registry = image::registry(&name.wanted);
        let help = if cause.contains("authentication required") || cause.contains("unauthorized") || cause.contains("no basic auth") || cause.contains("denied") {
            format!("log in: docker login {registry}; dind uses what the docker command keeps")
        } else if name.digest.is_some() && (cause.contains("manifest unknown") || cause.contains("not found")) {
            "the registry has no image with this digest any more: look which it has, and change the digest in the Compose file".to_owned()
        } else if cause.contains("http: server gave HTTP response to HTTPS client") || cause.contains("x509") {
            format!("tell the host that bakes of this registry: -e DIND_INSECURE_REGISTRIES={registry}, or -e DIND_CA_CERTIFICATES")
        } else {
            room_or(&cause, &format!("look at its name; have it on {} (docker pull, docker build), or name an archive of it: --image-archive FILE", outside.address))
        };
        Failure::unavailable(format!("the image {} cannot be pulled: {cause}", name.wanted), help)
    })?;
    progress.end();
    Ok(())
}

/// Whether this says that a disk is full, be it the engine's words or a program's.
pub(crate) fn is_full(cause: &str) -> bool {
    cause.to_ascii_lowercase().contains("no space left")
}

/// What to do about a disk that is full, or else `other`.
fn room_or(cause: &str, other: &str) -> String {
    if is_full(cause) {
        "make room where the endpoint keeps its volumes: docker system df shows what takes it, docker volume rm dind-bake dind-bake-store what earlier bakes left".to_owned()
    } else {
        other.to_owned()
    }
}

/// Copies an image from the endpoint's own engine.
async fn copy(outside: &Endpoint, baker: &Baker<'_>, name: &Name, progress: &Progress) -> Result<()> {
    progress.begin(&format!("copying {}", name.wanted), &format!("{} is copied", name.wanted));
    let (sender, told) = tokio::sync::mpsc::unbounded_channel();
    let archive = async_stream(outside.docker.clone(), name.wanted.clone(), sender);
    counted(baker.load(archive), told, progress).await.map_err(|cause| {
        let help = room_or(&cause, "look whether it can be saved: docker save");
        Failure::new(format!("the image {} cannot be copied: {cause}", name.wanted), help)
    })?;
    progress.end();
    Ok(())
}

/// What the engine saves, as a stream that lives for itself.
fn async_stream(
    docker: bollard::Docker,
    name: String,
    told: tokio::sync::mpsc::UnboundedSender<u64>,
) -> impl futures_util::Stream<Item = Result<Bytes, String>> + Send + 'static {
    let (sender, mut pieces) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        let mut saved = std::pin::pin!(docker.export_image(&name));
        while let Some(piece) = saved.next().await {
            let piece = piece.map_err(|error| endpoint::cause(&error));
            if let Ok(bytes) = &piece {
                let _ = told.send(bytes.len() as u64);
            }
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    futures_util::stream::poll_fn(move |context| pieces.poll_recv(context))
}

/// The id of the image that has this name in an engine.
async fn id(engine: &Endpoint, name: &str) -> Option<ImageId> {
    engine.docker.inspect_image(name).await.ok()?.id?.parse().ok()
}

/// Copies the images that builds begin with, where the endpoint has them: no registry need have them.
pub(crate) async fn bases(
    baker: &Baker<'_>,
    project: &Project,
    folder: &Path,
    progress: &Progress,
) -> Result<()> {
    for dockerfile in project.dockerfiles() {
        let Ok(inside) = dockerfile.strip_prefix(FOLDER) else { continue };
        let Ok(text) = std::fs::read_to_string(folder.join(inside)) else { continue };
        for base in project::bases(&text) {
            let name = Name::parse(&base);
            let there = id(baker.outside, &name.wanted).await;
            if there.is_some() && there != id(&baker.engine, &name.wanted).await {
                copy(baker.outside, baker, &name, progress).await?;
            }
        }
    }
    Ok(())
}

/// Builds what is to be built, with Compose.
pub(crate) async fn build(
    baker: &Baker<'_>,
    lines: bool,
    environment: Vec<String>,
    progress: &Progress,
) -> Result<()> {
    progress.begin("building", "what is to be built is built");
    let mut last: Vec<String> = Vec::new();
    let heard = |line: &str| {
        if lines {
            output::say(line);
        }
        progress.detail(line);
    };
    let words = ["sh", "-c", "exec docker compose --progress plain build 2>&1"];
    let answer = baker.run(&words, Some(FOLDER), environment, heard).await?;
    if answer.code == Some(0) {
        progress.end();
        return Ok(());
    }
    last.extend(answer.stdout.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
    let from = last.len().saturating_sub(20);
    let help = room_or(
        &answer.stdout,
        "its last lines say why; images that a build begins with come from the endpoint's engine or a registry",
    );
    Err(Failure::new("the application's images cannot be built", help).with_details(last.split_off(from)))
}

/// What the store is to be made of: each image once, with all the names that services call it by.
pub(crate) async fn request(baker: &Baker<'_>, project: &Project, platform: &str) -> Result<Value> {
    let mut images: std::collections::BTreeMap<String, (Vec<String>, Vec<String>)> =
        std::collections::BTreeMap::new();
    for service in project.services() {
        let name = &service.image;
        let found = baker.engine.docker.inspect_image(&name.wanted).await;
        let image = match found {
            Ok(image) => image,
            // An archive and a build give no digest.
            Err(_) if name.digest.is_some() => {
                return Err(Failure::new(
                    format!(
                        "the image {} is not the one with the digest {}",
                        name.sealed,
                        name.digest.as_deref().unwrap_or_default()
                    ),
                    "an archive brings no digests: leave the digest out of the Compose file, or pull the image",
                ));
            }
            Err(error) => {
                return Err(Failure::new(
                    format!(
                        "the image {} of the service {} is not there: {}",
                        name.wanted,
                        service.name,
                        endpoint::cause(&error)
                    ),
                    "look whether the build gives it this name, or the archive has it",
                ));
            }
        };
        let its = format!(
            "{}/{}",
            image.os.clone().unwrap_or_else(|| "linux".to_owned()),
            image.architecture.clone().unwrap_or_default()
        );
        if !platform.starts_with(&its) {
            return Err(Failure::new(
                format!("the image {} is for {its}, and the appliance for {platform}", name.wanted),
                "take the image for the appliance's platform, or bake on a host of that platform",
            ));
        }
        let id: ImageId = baker.engine.parse(&image.id.unwrap_or_default())?;
        let entry = images.entry(id.to_string()).or_default();
        entry.0.push(name.sealed.clone());
        let repository = untagged(&name.sealed);
        let digests = image.repo_digests.unwrap_or_default().into_iter();
        entry.1.extend(digests.filter(|digest| digest.split('@').next() == Some(repository)));
    }
    let images: Vec<Value> = images
        .into_iter()
        .map(|(id, (mut names, mut digests))| {
            names.sort();
            names.dedup();
            digests.sort();
            digests.dedup();
            json!({ "id": id, "names": names, "digests": digests })
        })
        .collect();
    Ok(json!({ "platform": platform, "images": images }))
}
