//! The host in which an appliance is baked: a throwaway one, with an engine of its own, so that the endpoint's images are left alone. Two
//! volumes outlive it: what its engine has pulled and built, and the layers that were sealed.

use std::collections::HashMap;
use std::time::Duration;

use bollard::query_parameters::UploadToContainerOptionsBuilder;
use bytes::Bytes;
use dind_contract::{labels, paths};
use futures_util::Stream;

use super::pipe;
use crate::endpoint::{self, Endpoint};
use crate::failure::{Failure, Result};
use crate::hosts::Host;
use crate::launch::{self, Made};
use crate::options::{HostOptions, Request};
use crate::owner::{self, Owner};
use crate::progress::Progress;
use crate::signals::{Interrupt, interrupted};
use crate::{inside, reach};

/// Where the store is made in the host.
pub(crate) const TARGET: &str = "/var/lib/dind-store";
/// Time between two looks at whether another bake has ended.
const LOOK: Duration = Duration::from_millis(500);
/// How often to try to take the place of one that has ended.
const ATTEMPTS: u32 = 120;
/// What an engine and a store that are not kept are called.
const NOWHERE: &str = "";

/// The host.
pub(crate) struct Baker<'a> {
    /// The endpoint that it is on.
    pub(crate) outside: &'a Endpoint,
    pub(crate) made: Made,
    /// Its own engine.
    pub(crate) engine: Endpoint,
}

/// What it is asked for: its data in the volume `cache`, if that is kept.
pub(crate) async fn request(
    endpoint: &Endpoint,
    options: &HostOptions,
    cache: &str,
    progress: &Progress,
) -> Result<Request> {
    let labels = HashMap::from([(labels::OWNER.to_owned(), owner::this_process())]);
    let mut request = launch::prepare(endpoint, options, labels, progress).await?;
    let host = request.body.host_config.get_or_insert_default();
    if cache != NOWHERE {
        let binds = host.binds.get_or_insert_default();
        binds.push(format!("{cache}:{}", paths::DATA_ROOT));
        binds.push(format!("{cache}-store:{TARGET}"));
    }
    Ok(request)
}

/// Makes its container. Where another bake uses the volumes, its end is waited for.
pub(crate) async fn create(
    endpoint: &Endpoint,
    cache: &str,
    request: Request,
    progress: &Progress,
    interrupt: &mut Interrupt,
) -> Result<Made> {
    if cache == NOWHERE {
        return launch::create(endpoint, None, request, progress, interrupt).await;
    }
    for _ in 0..ATTEMPTS {
        wait_for_others(endpoint, cache, progress, interrupt).await?;
        match launch::create(endpoint, Some(cache), request.clone(), progress, interrupt).await {
            // Another one has been faster, or is being removed and cannot be seen any more.
            Err(failure) if failure.to_string().contains(" is taken on ") => tokio::time::sleep(LOOK).await,
            made => return made,
        }
    }
    Err(Failure::new(
        format!("the name {cache} is taken on {}, and nobody says by what", endpoint.address),
        "give the cache another name: --cache NAME",
    ))
}

/// Waits until no other bake uses the volumes.
async fn wait_for_others(
    endpoint: &Endpoint,
    cache: &str,
    progress: &Progress,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let mut said = false;
    while let Ok(container) = endpoint.docker.inspect_container(cache, None).await {
        let labels = container.config.and_then(|config| config.labels).unwrap_or_default();
        let id = endpoint.container_id(container.id.as_ref())?;
        match labels.get(labels::OWNER).map(|words| owner::of(words)) {
            // Left by one that was killed.
            Some(Owner::Ended) => launch::remove(endpoint, &id, cache, true).await?,
            Some(_) => {
                if !std::mem::replace(&mut said, true) {
                    progress.begin("waiting for another dind bake to end", "");
                }
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    number = interrupt.caught() => return Err(interrupted(number, "nothing was made")),
                }
            }
            None => {
                return Err(Failure::new(
                    format!(
                        "the name {cache} is taken on {} by a container that bakes nothing",
                        endpoint.address
                    ),
                    "give the cache another name: --cache NAME",
                ));
            }
        }
    }
    progress.clear();
    Ok(())
}

impl<'a> Baker<'a> {
    /// Starts it, and reaches its engine.
    pub(crate) async fn start(
        outside: &'a Endpoint,
        made: &Made,
        options: &HostOptions,
        progress: &Progress,
    ) -> Result<Self> {
        launch::announce(made, progress);
        let mut watch = launch::start(outside, made).await?;
        let status = launch::wait(outside, made, &mut watch, options, progress).await?;
        let host = Host::find(outside, made.id.as_str()).await?;
        let reach = reach::find(outside, &host, &status).await?;
        let engine = Endpoint::in_host(&reach).await?;
        Ok(Self { outside, made: made.clone(), engine })
    }

    /// Sends it an archive, to be unpacked in `folder`.
    pub(crate) async fn send(
        &self,
        folder: &str,
        archive: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<()> {
        let options = UploadToContainerOptionsBuilder::new().path(folder).build();
        let body = bollard::body_try_stream(archive);
        self.outside.docker.upload_to_container(self.made.id.as_str(), Some(options), body).await.map_err(|error| {
            Failure::new(
                format!("the application cannot be sent to {}: {}", self.outside.address, endpoint::cause(&error)),
                "look whether the files can be read here, and whether the endpoint has room: docker system df",
            )
        })
    }

    /// Sends it one file.
    pub(crate) async fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let archive = crate::build::context::archive(&[crate::build::context::File {
            path: name,
            content,
            mode: 0o600,
        }])?;
        let archive = Bytes::from(archive);
        self.send("/", futures_util::stream::once(async move { Ok(archive) })).await
    }

    /// Runs a program in it; each line of its output is heard.
    pub(crate) async fn run(
        &self,
        words: &[&str],
        folder: Option<&str>,
        environment: Vec<String>,
        heard: impl FnMut(&str),
    ) -> Result<inside::Answer> {
        inside::run_with(self.outside, &self.made.id, words, folder, environment, heard).await.map_err(
            |error| {
                error.told(|cause| {
                    Failure::new(
                        format!("the host that bakes cannot run {}: {cause}", words.first().unwrap_or(&"")),
                        "bake again; if it fails again, look at the endpoint's engine",
                    )
                })
            },
        )
    }

    /// Passes an archive of images on to its engine.
    pub(crate) async fn load<E: std::fmt::Display + Send + 'static>(
        &self,
        archive: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Result<Vec<String>, String> {
        load(&self.engine, archive).await
    }
}

/// Has an engine load an archive of images; the lines that it says.
///
/// # Errors
/// The cause, in the engine's words.
pub(crate) async fn load<E: std::fmt::Display + Send + 'static>(
    engine: &Endpoint,
    archive: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Result<Vec<String>, String> {
    use futures_util::StreamExt;
    let options = bollard::query_parameters::ImportImageOptionsBuilder::new().quiet(true).build();
    let archive = archive.map(|piece| piece.map_err(|error| std::io::Error::other(error.to_string())));
    let mut said = engine.docker.import_image(options, bollard::body_try_stream(archive), None);
    let mut lines = Vec::new();
    while let Some(piece) = said.next().await {
        let piece = piece.map_err(|error| endpoint::cause(&error))?;
        if let Some(error) = piece.error_detail.and_then(|detail| detail.message) {
            return Err(error);
        }
        lines.extend(piece.stream.unwrap_or_default().lines().map(str::to_owned));
    }
    Ok(lines)
}

/// A folder's files as an archive, below `prefix`; what is version control's own is left out. `told` hears of each file's bytes.
pub(crate) fn pack(
    folder: std::path::PathBuf,
    prefix: &'static str,
    told: impl Fn(u64) + Send + 'static,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let (mut out, stream) = pipe::outgoing();
    // A thread: it may have much to read, and blocks when nobody takes it.
    std::thread::spawn(move || {
        let mut write = || -> std::io::Result<()> {
            let mut archive = tar::Builder::new(std::io::BufWriter::with_capacity(256 * 1024, &mut out));
            archive.follow_symlinks(false);
            add(&mut archive, &folder, std::path::Path::new(prefix), &told)?;
            archive.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            Ok(())
        };
        if let Err(e) = write() {
            out.fail(&e);
        }
    });
    stream
}

fn add<W: std::io::Write>(
    archive: &mut tar::Builder<W>,
    here: &std::path::Path,
    there: &std::path::Path,
    told: &impl Fn(u64),
) -> std::io::Result<()> {
    let named = |e: std::io::Error| std::io::Error::new(e.kind(), format!("{}: {e}", here.display()));
    let found = here.symlink_metadata().map_err(named)?;
    if found.is_dir() {
        archive.append_dir(there, here).map_err(named)?;
        let mut names = std::fs::read_dir(here)
            .map_err(named)?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(named)?;
        names.sort();
        for name in names.iter().filter(|name| *name != ".git") {
            add(archive, &here.join(name), &there.join(name), told)?;
        }
        return Ok(());
    }
    // Sockets and pipes are nobody's source.
    if found.is_file() || found.is_symlink() {
        archive.append_path_with_name(here, there).map_err(named)?;
        told(found.len());
    }
    Ok(())
}
