//! The status document: what `dind-init status --json` prints and the status socket sends.

use serde::{Deserialize, Serialize};

use crate::ground::Finding;

/// Where a host is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Services are being started for the first time.
    Starting,
    /// The Docker API answers.
    Ready,
    /// It was ready, and a service is being restarted.
    Degraded,
    /// It is going down.
    Stopping,
}

impl Phase {
    /// The word for it in the document.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Stopping => "stopping",
        }
    }
}

/// Where a service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// Not started yet.
    Waiting,
    /// Its process runs and has not said that it is ready.
    Starting,
    /// It works.
    Ready,
    /// It died and will be started again.
    Backoff,
    /// It has been asked to end.
    Stopping,
    /// It has ended and stays down.
    Stopped,
}

impl ServiceState {
    /// The word for it in the document.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Backoff => "backoff",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// How the host before this one left the data root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LastStop {
    /// No host has used it.
    First,
    /// In order, with everything on disk.
    Clean,
    /// It was killed, lost its power, or could not end in time.
    Unclean,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name, as in the log.
    pub name: String,
    /// Where it is in its life.
    pub state: ServiceState,
    /// Its process, while there is one.
    pub pid: Option<i32>,
    /// How many times it was started again after it died.
    pub restarts: u32,
}

/// Where a container of the application is in its life, in the engine's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// It has never run.
    Created,
    /// It runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It has ended, and its restart policy brings it back.
    Restarting,
    /// It is being removed.
    Removing,
    /// It has ended for good.
    Exited,
    /// Its removal has failed.
    Dead,
}

impl ContainerState {
    /// The word for it in the document.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// What a container's health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nothing yet.
    Starting,
    /// It works.
    Healthy,
    /// It does not.
    Unhealthy,
}

impl Health {
    /// The word for it in the document.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One container of the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its service and its number among the service's containers, as the log marks its lines: `web-1`.
    pub name: String,
    /// Where it is in its life.
    pub state: ContainerState,
    /// What its health check says, where it has one.
    pub health: Option<Health>,
    /// What it ended with, when it has ended.
    pub exit_code: Option<u8>,
    /// How often its restart policy brought it back.
    pub restarts: u32,
}

/// The Compose application that an appliance runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Its name, with which the names of its containers, networks and volumes begin.
    pub project: String,
    /// Its containers, by name.
    pub containers: Vec<Container>,
}

/// How a client reaches the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Value for the client's `DOCKER_HOST`.
    pub docker_host: String,
    /// Whether the client needs `DOCKER_TLS_VERIFY=1`.
    pub tls_verify: bool,
    /// Folder inside the host with the client's certificates; a copy of it is the client's `DOCKER_CERT_PATH`.
    pub cert_path: Option<String>,
}

impl Endpoint {
    /// The environment with which a client reaches the host: `NAME=value`, separated by spaces.
    #[must_use]
    pub fn environment(&self) -> String {
        let mut words = vec![format!("DOCKER_HOST={}", self.docker_host)];
        if self.tls_verify {
            words.push("DOCKER_TLS_VERIFY=1".to_owned());
        }
        words.extend(self.cert_path.as_ref().map(|path| format!("DOCKER_CERT_PATH={path}")));
        words.join(" ")
    }
}

/// The server's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Last moment of its validity, RFC 3339, UTC. It is the earliest of server, client and CA.
    pub expires: String,
    /// Whole days until then; negative when it is over.
    pub days_left: i64,
}

/// A step of the start and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was done.
    pub name: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// What a host says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of `dind-init`.
    pub version: String,
    /// Where the host is in its life.
    pub phase: Phase,
    /// Its services, in the order of their start.
    pub services: Vec<Service>,
    /// The application that it is there for, in an appliance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<Application>,
    /// How a client reaches it.
    pub endpoint: Endpoint,
    /// The certificate that ends first, when TLS is on.
    pub certificate: Option<Certificate>,
    /// How the host before this one left the data root.
    pub last_stop: LastStop,
    /// Milliseconds from the start of `dind-init` until it was ready for the first time.
    pub ready_ms: Option<u64>,
    /// Seconds until the host stops because its time (`DIND_TIME_LIMIT`) is over, as this was said. `None`: it has no limit.
    pub seconds_left: Option<u64>,
    /// When the last sync of the data root that came to its end had begun, RFC 3339, UTC: what was acknowledged before is
    /// on disk. `None`: there was none since the start.
    pub last_sync: Option<String>,
    /// The steps of the start.
    pub steps: Vec<Step>,
    /// What the host found under it, what it chose, and why.
    pub ground: Vec<Finding>,
    /// What deserves attention though the host works.
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_text_are_the_words_of_the_document() {
        for phase in [Phase::Starting, Phase::Ready, Phase::Degraded, Phase::Stopping] {
            assert_eq!(serde_json::to_string(&phase).unwrap(), format!("\"{}\"", phase.word()));
        }
        for state in [
            ServiceState::Waiting,
            ServiceState::Starting,
            ServiceState::Ready,
            ServiceState::Backoff,
            ServiceState::Stopping,
            ServiceState::Stopped,
        ] {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{}\"", state.word()));
        }
        for state in [
            ContainerState::Created,
            ContainerState::Running,
            ContainerState::Paused,
            ContainerState::Restarting,
            ContainerState::Removing,
            ContainerState::Exited,
            ContainerState::Dead,
        ] {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{}\"", state.word()));
        }
        for health in [Health::Starting, Health::Healthy, Health::Unhealthy] {
            assert_eq!(serde_json::to_string(&health).unwrap(), format!("\"{}\"", health.word()));
        }
    }

    #[test]
    fn the_environment_names_only_what_a_client_needs() {
        let mut endpoint = Endpoint {
            docker_host: "tcp://172.17.0.2:2376".into(),
            tls_verify: true,
            cert_path: Some("/certs/client".into()),
        };
        assert_eq!(
            endpoint.environment(),
            "DOCKER_HOST=tcp://172.17.0.2:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=/certs/client"
        );
        endpoint.tls_verify = false;
        endpoint.cert_path = None;
        assert_eq!(endpoint.environment(), "DOCKER_HOST=tcp://172.17.0.2:2376");
    }
}
