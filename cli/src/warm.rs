//! Starting on a copy of a warm data root: many hosts can start from one cache, and none can spoil it.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HostConfig, VolumeCreateRequest};
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use dind_contract::{labels, paths};

use crate::endpoint::{self, ContainerId, Endpoint, VolumeName};
use crate::failure::{Failure, Result};
use crate::options::Request;
use crate::progress::Progress;
use crate::ready;

/// Where the copier finds the two data roots.
const SOURCE: &str = "/source";
const TARGET: &str = "/target";

/// Makes an empty volume for a copy of another.
///
/// # Errors
/// There is no such volume, or the engine refuses.
pub(crate) async fn volume(endpoint: &Endpoint, source: &str) -> Result<VolumeName> {
    endpoint.docker.inspect_volume(source).await.map_err(|error| match endpoint::status(&error) {
        Some(404) => Failure::new(
            format!("there is no volume {source} on {}", endpoint.address),
            format!("warm one first: {} run --volume {source} -- docker pull IMAGE", endpoint.command()),
        ),
        _ => Failure::new(
            format!("the volume {source} cannot be looked at: {}", endpoint::cause(&error)),
            "give the name of a volume",
        ),
    })?;
    let request = VolumeCreateRequest {
        // VIC wants to be told; elsewhere it is the default.
        driver: Some("local".to_owned()),
        labels: Some(HashMap::from([
            (labels::COPY_OF.to_owned(), source.to_owned()),
            (labels::OWNER.to_owned(), crate::owner::this_process()),
        ])),
        ..Default::default()
    };
    let made = endpoint.docker.create_volume(request).await.map_err(|error| {
        Failure::new(
            format!("no volume can be made for a copy of {source}: {}", endpoint::cause(&error)),
            "look at the engine's log",
        )
    })?;
    endpoint.parse(&made.name)
}

/// The request for a host on that volume, which goes with it.
pub(crate) fn onto(mut request: Request, volume: Option<&VolumeName>) -> Request {
    if let Some(volume) = volume {
        request.body.labels.get_or_insert_default().insert(labels::VOLUME.to_owned(), volume.to_string());
        let host = request.body.host_config.get_or_insert_default();
        host.binds.get_or_insert_default().push(format!("{volume}:{}", paths::DATA_ROOT));
    }
    request
}

/// Copies, by a container of the host's image that does nothing else.
///
/// # Errors
/// The source is in use or not clean, or there is no room: in the copier's words.
pub(crate) async fn copy(
    endpoint: &Endpoint,
    image: &str,
    source: &str,
    target: &VolumeName,
    progress: &Progress,
) -> Result<()> {
    progress.begin(&format!("copying {source}"), &format!("{source} is copied"));
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(["helper", "copy-data-root", SOURCE, TARGET].map(str::to_owned).to_vec()),
        labels: Some(HashMap::from([
            (labels::OWNER.to_owned(), crate::owner::this_process()),
            (labels::COPY_OF.to_owned(), target.to_string()),
        ])),
        network_disabled: Some(true),
        host_config: Some(HostConfig {
            binds: Some(vec![format!("{source}:{SOURCE}"), format!("{target}:{TARGET}")]),
            // For the trusted.* attributes of overlay's own; devices are made with a capability that every container has.
            cap_add: Some(vec!["SYS_ADMIN".to_owned()]),
            ..Default::default()
        }),
        ..Default::default()
    };
    let fail = |error: bollard::errors::Error| {
        Failure::new(
            format!("the volume {source} cannot be copied: {}", endpoint::cause(&error)),
            "look at the engine's log",
        )
    };
    let copier = endpoint.docker.create_container(None, body).await.map_err(fail)?.id;
    let copier: ContainerId = endpoint.parse(&copier)?;
    let copied = async {
        endpoint.docker.start_container(copier.as_str(), None).await.map_err(fail)?;
        let code = endpoint.end_of(&copier).await.unwrap_or(-1);
        if code == 0 {
            return Ok(());
        }
        let lines = ready::last_lines(endpoint, &copier, "10").await;
        Err(Failure::new(
            format!("the volume {source} cannot be copied: exit code {code}"),
            "its last lines say why",
        )
        .with_details(lines))
    }
    .await;
    remove(endpoint, &copier).await;
    copied?;
    progress.end();
    Ok(())
}

/// Ends a copy that was cut off, so that its volume can be removed.
pub(crate) async fn abandon(endpoint: &Endpoint, target: &VolumeName) {
    let filters = HashMap::from([("label", vec![format!("{}={target}", labels::COPY_OF)])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    for copier in endpoint.docker.list_containers(Some(options)).await.unwrap_or_default() {
        // One with another id than a container's cannot be named; prune says so.
        if let Ok(copier) = endpoint.container_id(copier.id.as_ref()) {
            remove(endpoint, &copier).await;
        }
    }
}

async fn remove(endpoint: &Endpoint, copier: &ContainerId) {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    let _ = endpoint.docker.remove_container(copier.as_str(), Some(options)).await;
}
