//! Making a host, from its image until it is ready; and taking away one that is not wanted.

use std::collections::HashMap;
use std::time::Duration;

use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use dind_contract::{Status, labels};

use crate::endpoint::{self, ContainerId, Endpoint, VolumeName};
use crate::failure::{Failure, Result};
use crate::options::{HostOptions, Request};
use crate::progress::Progress;
use crate::signals::{Interrupt, interrupted};
use crate::watch::Watch;
use crate::{image, ready, state};

/// How long the endpoint may take to answer once nobody wants the answer any more.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the removal of a host may take.
const REMOVAL: Duration = Duration::from_secs(60);

/// A host whose container is made.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    /// The container's id.
    pub(crate) id: ContainerId,
    /// Its name; the engine has made it up if nobody has given one.
    pub(crate) name: String,
}

/// Gets the image and works out the request.
///
/// # Errors
/// The image cannot be had, or the options contradict each other.
pub(crate) async fn prepare(
    endpoint: &Endpoint,
    options: &HostOptions,
    labels: HashMap<String, String>,
    progress: &Progress,
) -> Result<Request> {
    let info = async { endpoint.docker.info().await.map_err(|error| crate::hosts::asking(endpoint, &error)) };
    let image_name = options.image();
    let build_line = options.build_line();
    let image = image::ensure(endpoint, &image_name, options.pull, &build_line, progress);
    let (info, ()) = tokio::try_join!(info, image)?;
    let request = options.request(endpoint, &info, labels)?;
    for line in &request.left_out {
        progress.note(line);
    }
    Ok(request)
}

/// Whether it can be the name of a container, by the engine's own rule.
///
/// # Errors
/// It cannot.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let mut letters = name.chars();
    let first = letters.next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && name.len() > 1 && letters.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
        return Ok(());
    }
    Err(Failure::usage(
        format!("{name:?} cannot be a name of a host"),
        "give at least two letters, digits or _ . - after the first; or none, and the endpoint makes one up",
    ))
}

/// Makes the container. A signal is heard when the endpoint has answered, so that what it has made can be removed; a second one, or
/// half a minute, gives up.
///
/// # Errors
/// The endpoint refuses, in words that name what is to be changed; or a signal came.
pub(crate) async fn create(
    endpoint: &Endpoint,
    name: Option<&str>,
    request: Request,
    progress: &Progress,
    interrupt: &mut Interrupt,
) -> Result<Made> {
    let mut creating = std::pin::pin!(made(endpoint, name, request, progress));
    let number = tokio::select! {
        made = &mut creating => return made,
        number = interrupt.caught() => number,
    };
    progress.note("waiting for the endpoint's answer, to remove what it makes; once more gives up");
    tokio::select! {
        made = &mut creating => {
            if let Ok(made) = made {
                discard(endpoint, &made, interrupt).await?;
            }
            Err(interrupted(number, "nothing is left"))
        }
        _ = interrupt.caught() => Err(interrupted(number, "a container may be left: dind ls -a")),
        () = tokio::time::sleep(ANSWER) => Err(interrupted(number, "a container may be left: dind ls -a")),
    }
}

/// Removes a host that is not wanted any more. Somebody who insists, or a minute, gives up.
///
/// # Errors
/// It cannot be removed, or not in time.
pub(crate) async fn discard(endpoint: &Endpoint, made: &Made, interrupt: &mut Interrupt) -> Result<()> {
    let left = || format!("the host {} may be left: {} rm -f {}", made.name, endpoint.command(), made.name);
    tokio::select! {
        removed = remove(endpoint, &made.id, &made.name, true) => removed,
        number = interrupt.insisted() => Err(interrupted(number, &left())),
        () = tokio::time::sleep(REMOVAL) => Err(Failure::new(left(), "the endpoint does not answer: look at its engine")),
    }
}

/// The volumes that this request names and that are not there: the engine makes them with the host.
pub(crate) async fn new_volumes(endpoint: &Endpoint, request: &Request) -> Vec<VolumeName> {
    let binds = request.body.host_config.iter().flat_map(|host| host.binds.iter().flatten());
    let names = binds.filter_map(|bind| bind.split(':').next()?.parse::<VolumeName>().ok());
    let mut new = Vec::new();
    for name in names {
        let looked = endpoint.docker.inspect_volume(name.as_str()).await;
        if looked.is_err_and(|error| endpoint::status(&error) == Some(404)) {
            new.push(name);
        }
    }
    new
}

async fn made(
    endpoint: &Endpoint,
    name: Option<&str>,
    request: Request,
    progress: &Progress,
) -> Result<Made> {
    let image = request.body.image.clone().unwrap_or_default();
    let options = name.map(|name| CreateContainerOptionsBuilder::new().name(name).build());
    let created = endpoint.docker.create_container(options, request.body).await;
    let created = created.map_err(|error| refused(endpoint, name, &image, &error))?;
    for warning in created.warnings.iter().filter(|warning| !warning.is_empty()) {
        progress.note(&format!("the engine warns: {warning}"));
    }
    let id: ContainerId = endpoint.parse(&created.id)?;
    // Asked for in every case: an engine may make another name of what was given.
    let name = match endpoint.docker.inspect_container(id.as_str(), None).await {
        Ok(container) => container.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        Err(_) => name.map_or_else(|| id.short().to_owned(), str::to_owned),
    };
    Ok(Made { id, name })
}

/// Says that it is being started.
pub(crate) fn announce(made: &Made, progress: &Progress) {
    progress.begin(
        &format!("starting the container {}", made.name),
        &format!("the container {} is started", made.name),
    );
}

/// Starts it, and watches over it from before its start on.
///
/// # Errors
/// The endpoint cannot: a port is taken, a limit is impossible …
pub(crate) async fn start(endpoint: &Endpoint, made: &Made) -> Result<Watch> {
    let watch = Watch::begin(endpoint, &made.id, &made.name).await?;
    endpoint.docker.start_container(made.id.as_str(), None).await.map_err(|error| {
        let cause = endpoint::cause(&error);
        let help = if cause.contains("port is already allocated") || cause.contains("address already in use") {
            "take another port (-p [ADDRESS:]PORT:PORT), or none to get a free one; who has it: dind ls, docker ps, ss -ltnp"
        } else if cause.contains("operation not permitted") || cause.contains("permission denied") {
            "the endpoint may not give a host what it needs; what that is: dind doctor"
        } else {
            "change the option that this names; the engine's log has more"
        };
        Failure::new(format!("the host {} cannot be started: {cause}", made.name), help)
    })?;
    Ok(watch)
}

/// Waits for a host that has been started, and tells its steps.
///
/// # Errors
/// It ended, or is not ready in time.
pub(crate) async fn wait(
    endpoint: &Endpoint,
    made: &Made,
    watch: &mut Watch,
    options: &HostOptions,
    progress: &Progress,
) -> Result<Status> {
    progress.begin(&format!("{} starts", made.name), &format!("{} is ready", made.name));
    let status = ready::wait(endpoint, made, watch, options.timeout, progress).await?;
    ready::tell(&status, progress);
    progress.end();
    Ok(status)
}

/// Removes a host, what runs in it, its anonymous volumes, the volume that was made for it, and what is kept of it here.
///
/// # Errors
/// The endpoint refuses, or its label names no volume. That it is gone already is none.
pub(crate) async fn remove(endpoint: &Endpoint, id: &ContainerId, name: &str, force: bool) -> Result<()> {
    let own_volume = endpoint
        .docker
        .inspect_container(id.as_str(), None)
        .await
        .ok()
        .and_then(|container| container.config?.labels?.remove(labels::VOLUME))
        .map(|volume| own_volume(name, &volume))
        .transpose()?;
    let options = RemoveContainerOptionsBuilder::new().force(force).v(true).build();
    match endpoint.docker.remove_container(id.as_str(), Some(options)).await {
        Ok(()) => {}
        Err(error) if endpoint::status(&error) == Some(404) => {}
        // Somebody else, or the engine itself (--rm), is at it.
        Err(error) if endpoint::cause(&error).contains("already in progress") => gone(endpoint, id).await,
        Err(error) => {
            return Err(Failure::new(
                format!("the host {name} cannot be removed: {}", endpoint::cause(&error)),
                if force {
                    "try again, or look at the engine's log".to_owned()
                } else {
                    format!("stop it first: dind stop {name}; or use force: dind rm -f {name}")
                },
            ));
        }
    }
    if let Some(volume) = own_volume {
        remove_volume(endpoint, &volume).await?;
    }
    state::forget(&endpoint.address, id);
    Ok(())
}

/// The volume that a host's label names. Whoever made the container wrote the label, and the endpoint need not be to blame for it.
fn own_volume(host: &str, label: &str) -> Result<VolumeName> {
    label.parse().map_err(|bad| {
        Failure::new(
            format!("the host {host} cannot be removed: its label {} has {bad}", labels::VOLUME),
            format!("`dind` did not make it; remove it with the docker command: docker rm -fv {host}"),
        )
    })
}

/// Removes a volume that was made for a host.
///
/// # Errors
/// It is in use. That it is gone already is none.
pub(crate) async fn remove_volume(endpoint: &Endpoint, volume: &VolumeName) -> Result<()> {
    let options = None::<bollard::query_parameters::RemoveVolumeOptions>;
    match endpoint.docker.remove_volume(volume.as_str(), options).await {
        Ok(()) => Ok(()),
        Err(error) if endpoint::status(&error) == Some(404) => Ok(()),
        Err(error) => Err(Failure::new(
            format!("the volume {volume} cannot be removed: {}", endpoint::cause(&error)),
            "try again: dind prune",
        )),
    }
}

/// Waits until a container whose removal is under way is gone; ten seconds at most.
async fn gone(endpoint: &Endpoint, id: &ContainerId) {
    for _ in 0..200 {
        if endpoint
            .docker
            .inspect_container(id.as_str(), None)
            .await
            .is_err_and(|error| endpoint::status(&error) == Some(404))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn refused(endpoint: &Endpoint, name: Option<&str>, image: &str, error: &bollard::errors::Error) -> Failure {
    let cause = endpoint::cause(error);
    match (endpoint::status(error), name) {
        (Some(409), Some(name)) => Failure::new(
            format!("the name {name} is taken on {}", endpoint.address),
            format!(
                "take another name, or none; if it is a host that is not needed any more: dind rm -f {name}"
            ),
        ),
        (Some(404), _) if cause.contains("No such image") => Failure::new(
            format!("there is no image {image} on {}", endpoint.address),
            "see what there is: docker image ls",
        ),
        _ => Failure::new(
            format!("the endpoint refuses to make the host: {cause}"),
            "change the option that this names",
        ),
    }
}
