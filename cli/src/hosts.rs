//! Hosts on an endpoint: containers of images with our label.

use std::collections::HashMap;

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryNetworkSettings,
};
use bollard::query_parameters::ListContainersOptionsBuilder;
use dind_contract::labels;
use futures_util::future::join_all;

use crate::endpoint::{self, ContainerId, Endpoint, Kind};
use crate::failure::{Failure, Result};

/// What a host's container runs; a container of its image that runs something else is none.
const INIT: &str = "dind-init";

/// One host, as the engine describes its container.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// The container's id.
    pub(crate) id: ContainerId,
    /// Its name, without the slash.
    pub(crate) name: String,
    /// All that the engine says of it.
    pub(crate) container: ContainerInspectResponse,
}

/// One host, as a list has it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    /// The container's id.
    pub(crate) id: ContainerId,
    /// Its name, without the slash.
    pub(crate) name: String,
    /// All that the list says of it.
    pub(crate) container: ContainerSummary,
}

impl Host {
    /// Finds it by name, id, or the beginning of an id.
    ///
    /// # Errors
    /// There is none, it is a container that is no host, or the endpoint gives it an id that is none.
    pub(crate) async fn find(endpoint: &Endpoint, name: &str) -> Result<Self> {
        // The engine's own rule for names. `.` and `..` would be other paths of its API.
        let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
            return Err(Failure::usage(
                format!("{name:?} is not a name of a host"),
                "see what there is: dind ls -a",
            ));
        }
        let container = match endpoint.docker.inspect_container(name, None).await {
            Ok(container) => container,
            Err(error) if endpoint::status(&error) == Some(404) => return Err(missing(endpoint, name).await),
            Err(error) => return Err(asking(endpoint, &error)),
        };
        let host = Self {
            id: endpoint.container_id(container.id.as_ref())?,
            name: container.name.clone().unwrap_or_default().trim_start_matches('/').to_owned(),
            container,
        };
        if host.label(labels::FLAVOUR).is_none() {
            return Err(Failure::new(
                format!(
                    "the container {} is not a host: its image has no label {}",
                    host.name,
                    labels::FLAVOUR
                ),
                "see which hosts there are: dind ls -a; other containers are the docker command's",
            ));
        }
        Ok(host)
    }

    /// A label of its container or of its image.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.container.config.as_ref()?.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// Whether its container runs.
    pub(crate) fn runs(&self) -> bool {
        self.container.state.as_ref().and_then(|state| state.running).unwrap_or(false)
    }

    /// Whether it has ended, and with which exit code.
    pub(crate) fn ended(&self) -> Option<i64> {
        let state = self.container.state.as_ref()?;
        let ended =
            matches!(state.status, Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD));
        ended.then_some(state.exit_code.unwrap_or(-1))
    }

    /// An environment variable of its container.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let variables = self.container.config.as_ref()?.env.as_ref()?;
        variables.iter().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
    }

    /// An error unless it runs; `what` is what cannot be done otherwise.
    pub(crate) fn must_run(&self, what: &str) -> Result<()> {
        if self.runs() {
            return Ok(());
        }
        let ended = self.ended().map_or_else(String::new, |code| format!(": it ended with exit code {code}"));
        Err(Failure::new(
            format!("the host {} does not run{ended}, so {what}", self.name),
            format!("start it: dind start {}", self.name),
        ))
    }
}

/// The containers that are hosts, as one list call gives them; with a label, where one is given.
///
/// # Errors
/// The endpoint does not answer, or gives one of them an id that is none.
pub(crate) async fn list(endpoint: &Endpoint, all: bool, label: Option<&str>) -> Result<Vec<Listed>> {
    let filters = HashMap::from([("label", [labels::FLAVOUR].into_iter().chain(label).collect())]);
    let options = ListContainersOptionsBuilder::new().all(all).filters(&filters).build();
    let containers =
        endpoint.docker.list_containers(Some(options)).await.map_err(|error| asking(endpoint, &error))?;
    let hosts = containers.into_iter().filter(is_host).map(|container| {
        let id = endpoint.container_id(container.id.as_ref())?;
        Ok(Listed { id, name: name(&container), container })
    });
    let hosts: Vec<Listed> = hosts.collect::<Result<_>>()?;
    if endpoint.kind == Kind::Vic {
        return Ok(join_all(hosts.into_iter().map(|host| filled(endpoint, host))).await);
    }
    Ok(hosts)
}

/// VIC finds containers by their labels, but a list of its has neither labels nor networks.
async fn filled(endpoint: &Endpoint, mut host: Listed) -> Listed {
    if let Ok(container) = endpoint.docker.inspect_container(host.id.as_str(), None).await {
        host.container.labels = container.config.and_then(|config| config.labels);
        let networks = container.network_settings.and_then(|settings| settings.networks);
        host.container.network_settings = Some(ContainerSummaryNetworkSettings { networks });
    }
    host
}

/// A client's container may be one of a host's image, too: what it runs says what it is.
fn is_host(container: &ContainerSummary) -> bool {
    // What copies a data root is a container of the image, too.
    if container.labels.as_ref().is_some_and(|all| all.contains_key(labels::COPY_OF)) {
        return false;
    }
    let command = container.command.as_deref().unwrap_or_default();
    command.split_whitespace().next().is_some_and(|program| program.rsplit('/').next() == Some(INIT))
}

/// The name of a container in a list.
fn name(container: &ContainerSummary) -> String {
    let names = container.names.as_deref().unwrap_or_default();
    // Links give a container more names, with more slashes.
    let own = names.iter().find(|name| name.matches('/').count() <= 1).or(names.first());
    own.map_or_else(String::new, |name| name.trim_start_matches('/').to_owned())
}

async fn missing(endpoint: &Endpoint, wanted: &str) -> Failure {
    let message = format!("there is no host {wanted} on {}", endpoint.address);
    if let Some(name) = endpoint.is_a_host() {
        return Failure::new(
            message,
            format!(
                "this shell's DOCKER_HOST is the host {name} itself; to leave it: eval \"$(dind env --unset)\""
            ),
        );
    }
    // An endpoint that cannot be trusted is worse than a host that is not there.
    let hosts = match list(endpoint, true, None).await {
        Ok(hosts) => hosts,
        Err(failure) => return failure,
    };
    let near = hosts
        .iter()
        .map(|host| &host.name)
        .max_by(|a, b| strsim::jaro(a, wanted).total_cmp(&strsim::jaro(b, wanted)));
    match near {
        Some(near) if strsim::jaro(near, wanted) > 0.8 => {
            Failure::new(message, format!("did you mean {near}? all of them: dind ls -a"))
        }
        Some(_) => Failure::new(message, "see what there is: dind ls -a"),
        None => Failure::new(message, format!("there are none at all; make one: dind up {wanted}")),
    }
}

/// An endpoint that cannot answer a question.
pub(crate) fn asking(endpoint: &Endpoint, error: &bollard::errors::Error) -> Failure {
    Failure::unavailable(
        format!("the Docker endpoint {} cannot answer: {}", endpoint.address, endpoint::cause(error)),
        "look at the engine's log, or try again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_in_a_container_of_the_image_is_no_host() {
        for (command, host) in [
            ("/usr/sbin/dind-init", true),
            ("/usr/sbin/dind-init --debug", true),
            ("/usr/sbin/dind-init sh -c 'docker build .'", true),
            ("docker version", false),
            ("", false),
        ] {
            let container = ContainerSummary { command: Some(command.into()), ..Default::default() };
            assert_eq!(is_host(&container), host, "{command}");
        }
    }
}
