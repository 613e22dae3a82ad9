//! The Docker endpoint that hosts are made on. The only place that builds a client, and the border where its answers are parsed.

mod address;
mod answer;
mod choice;
mod ssh;
mod vic;

use std::path::Path;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use futures_util::StreamExt;

pub(crate) use address::{Address, Machine, Place, is_user};
pub(crate) use answer::{BadAnswer, ContainerId, ExecId, ImageId, VolumeName, address, port};
pub(crate) use choice::{Choice, Wish, docker_folder, home, set};

use crate::failure::{Failure, Result};

/// How long an answer may take whose length the engine decides, such as a stop. Shorter waits have deadlines of their own.
const PATIENCE: u64 = 86_400;
/// How long an endpoint may take for its first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(20);
/// The oldest API with all that a host needs: it is of Docker 1.12, and VIC speaks a newer one.
const OLDEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 24 };

/// What an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A Docker engine, or what behaves like one.
    Engine,
    /// vSphere Integrated Containers: each container is a VM.
    Vic,
}

/// An endpoint that has answered.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// The client, with the newest version of the API that both sides speak.
    pub(crate) docker: Docker,
    /// Where it is.
    pub(crate) address: Address,
    /// What it is.
    pub(crate) kind: Kind,
    /// What said that it is the one, for messages.
    pub(crate) source: String,
    /// Version of the engine, as it says.
    pub(crate) version: String,
    /// How it is called, with what names the endpoint.
    command: String,
    /// The host of ours that it is.
    inside: Option<String>,
    /// The version of the API that is spoken with it.
    pub(crate) agreed: ClientVersion,
}

impl Endpoint {
    /// Reaches it, and agrees on a version of the API.
    ///
    /// # Errors
    /// It cannot be reached, does not let us in, or is too old.
    pub(crate) async fn connect(wish: &Wish) -> Result<Self> {
        Self::reach(Choice::make(wish)?, wish.command()).await
    }

    /// The engine in a host of ours, which is spoken to as any other.
    ///
    /// # Errors
    /// It cannot be reached.
    pub(crate) async fn in_host(reach: &crate::reach::Reach) -> Result<Self> {
        let choice = Choice {
            address: Address::Tcp(reach.place.clone()),
            certificates: reach.certificates.clone().map(|folder| choice::Certificates { folder }),
            source: "a host".to_owned(),
        };
        Self::reach(choice, "dind".to_owned()).await
    }

    async fn reach(choice: Choice, command: String) -> Result<Self> {
        let docker = client(&choice)?;
        let asked = async {
            let version = docker.version().await?;
            let is_vic = vic::is_vic(&docker, &version).await;
            Ok((version, if is_vic { Kind::Vic } else { Kind::Engine }))
        };
        let (version, kind) = tokio::time::timeout(FIRST_ANSWER, asked)
            .await
            .map_err(|_| {
                Failure::unavailable(
                    format!(
                        "the Docker endpoint {} does not answer within {} s",
                        choice.address,
                        FIRST_ANSWER.as_secs()
                    ),
                    "look whether its engine hangs, or name another with --host or DOCKER_HOST",
                )
            })?
            .map_err(|error| unreachable(&choice, &error))?;
        let api = version.api_version.clone().unwrap_or_default();
        let agreed = agree(&api).ok_or_else(|| {
            Failure::unavailable(
                format!("the Docker endpoint {} speaks API version {api}, which is too old", choice.address),
                format!("use one that speaks {OLDEST} or newer, as Docker 1.12 and VIC do"),
            )
        })?;
        let endpoint = Self {
            docker: versioned(docker, &agreed),
            agreed,
            inside: choice
                .certificates
                .as_ref()
                .and_then(|certificates| crate::state::owner(&certificates.folder)),
            kind,
            command,
            address: choice.address,
            source: choice.source,
            version: version.version.unwrap_or_default(),
        };
        Ok(endpoint)
    }

    /// The machine on which ports that are published there are reached from here.
    pub(crate) fn machine(&self) -> Machine {
        match &self.address {
            Address::Ssh { authority, machine } => {
                ssh_host_name(authority).unwrap_or_else(|| machine.clone())
            }
            address => address.machine(),
        }
    }

    /// Parses what the endpoint has answered.
    ///
    /// # Errors
    /// It is not what it should be, and then nothing that the endpoint says can be relied on.
    pub(crate) fn parse<T: FromStr<Err = BadAnswer>>(&self, answer: &str) -> Result<T> {
        answer.parse().map_err(|bad| self.distrust(&bad))
    }

    /// The same of an id that an answer may lack.
    ///
    /// # Errors
    /// It lacks it, or it is none.
    pub(crate) fn container_id(&self, answer: Option<&String>) -> Result<ContainerId> {
        self.parse(answer.map_or("", String::as_str))
    }

    /// An error of an endpoint whose answer is not what it should be.
    pub(crate) fn distrust(&self, bad: &BadAnswer) -> Failure {
        Failure::unavailable(
            format!("the Docker endpoint {} cannot be trusted: it answers with {bad}", self.address),
            "find out what answers there before you use it again; name another endpoint with --host or DOCKER_HOST",
        )
    }

    /// Whether it is this machine, so that its loopback and its containers' addresses are ours. A host of ours behind a port of the
    /// loopback interface is another one.
    pub(crate) fn is_here(&self) -> bool {
        self.address.is_here() && self.inside.is_none()
    }

    /// `dind` with what was typed to name the endpoint: how a user goes on with it.
    pub(crate) fn command(&self) -> &str {
        &self.command
    }

    /// The name of the host of ours that this endpoint is, when the certificates that speak to it are ones that we fetched.
    pub(crate) fn is_a_host(&self) -> Option<&str> {
        self.inside.as_deref()
    }

    /// Waits for a container's end; its exit code, where the endpoint says it.
    pub(crate) async fn end_of(&self, id: &ContainerId) -> Option<i64> {
        let mut wait = std::pin::pin!(self.docker.wait_container(id.as_str(), None));
        wait.next().await.and_then(ended)
    }

    /// Whether it speaks this version of the API, such as `(1, 28)`.
    pub(crate) fn speaks(&self, major_version: usize, minor_version: usize) -> bool {
        self.agreed >= ClientVersion { major_version, minor_version }
    }
}

/// What ssh's own configuration makes of a name: an alias is no name that others could resolve.
fn ssh_host_name(authority: &str) -> Option<Machine> {
    let output = std::process::Command::new("ssh")
        .args(["-G", "--", &format!("ssh://{authority}")])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().find_map(|line| line.strip_prefix("hostname ")).and_then(Machine::parse)
}

/// The newest version that both speak; `None` where that is too old.
fn agree(api: &str) -> Option<ClientVersion> {
    let (major, minor) = api.split_once('.')?;
    let theirs = ClientVersion { major_version: major.parse().ok()?, minor_version: minor.parse().ok()? };
    let agreed = if theirs < *API_DEFAULT_VERSION { theirs } else { *API_DEFAULT_VERSION };
    (agreed >= OLDEST).then_some(agreed)
}

/// The client, with the version in the path of every request. bollard asks without one, and an engine takes that for its own newest,
/// whose answers may have changed in ways that bollard does not know.
fn versioned(docker: Docker, version: &ClientVersion) -> Docker {
    let prefix = format!("/v{version}");
    docker.with_request_modifier(move |mut request| {
        let mut parts = request.uri().clone().into_parts();
        let path = parts.path_and_query.as_ref().map_or("/", |path| path.as_str());
        if let Ok(path) = format!("{prefix}{path}").parse() {
            parts.path_and_query = Some(path);
            if let Ok(uri) = http::Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
        request
    })
}

fn client(choice: &Choice) -> Result<Docker> {
    let version = API_DEFAULT_VERSION;
    let made = match (&choice.address, &choice.certificates) {
        (Address::Unix(path), _) => Docker::connect_with_unix(&path.to_string_lossy(), PATIENCE, version),
        (Address::Ssh { authority, .. }, _) => ssh::client(authority, PATIENCE, version),
        (Address::Tcp(_), None) => Docker::connect_with_http(&choice.address.to_string(), PATIENCE, version),
        (Address::Tcp(_), Some(certificates)) => {
            let file = |name: &str| certificates.folder.join(name);
            for name in ["ca.pem", "cert.pem", "key.pem"] {
                readable(&file(name))?;
            }
            Docker::connect_with_ssl(
                &choice.address.to_string(),
                &file("key.pem"),
                &file("cert.pem"),
                &file("ca.pem"),
                PATIENCE,
                version,
            )
        }
    };
    made.map_err(|error| unreachable(choice, &error))
}

fn readable(file: &Path) -> Result<()> {
    std::fs::File::open(file).map(drop).map_err(|e| {
        Failure::unavailable(
            format!("cannot read the client's certificate {}: {e}", file.display()),
            "set DOCKER_CERT_PATH to the folder with ca.pem, cert.pem and key.pem, or unset DOCKER_TLS_VERIFY",
        )
    })
}

/// Why an endpoint cannot be spoken to, and what to do.
fn unreachable(choice: &Choice, error: &bollard::errors::Error) -> Failure {
    let cause = cause(error);
    let help = match &choice.address {
        Address::Unix(_) if cause.contains("ermission denied") => {
            "add yourself to the docker group (and log in again), or name another endpoint with --host or DOCKER_HOST".to_owned()
        }
        Address::Unix(_) => {
            "start the engine (systemctl start docker), or name another endpoint with --host or DOCKER_HOST".to_owned()
        }
        Address::Tcp(_) if choice.certificates.is_none() && (cause.contains("HTTPS server") || cause.contains("invalid HTTP")) => {
            "what answers there is not plain HTTP: if it is TLS, set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH".to_owned()
        }
        Address::Tcp(_) => {
            "look whether the address is right and the engine runs, and whether it wants TLS (DOCKER_TLS_VERIFY, DOCKER_CERT_PATH)".to_owned()
        }
        Address::Ssh { authority, .. } => format!("see whether this works: ssh ssh://{authority} docker system dial-stdio </dev/null"),
    };
    Failure::unavailable(
        format!("cannot reach the Docker endpoint {} ({}): {cause}", choice.address, choice.source),
        help,
    )
}

/// The cause of an error at its root: what the engine answered, or what the system said.
pub(crate) fn cause(error: &bollard::errors::Error) -> String {
    use bollard::errors::Error;
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        Error::SocketNotFoundError(path) => format!("there is no socket {path}"),
        error => {
            let mut last: &dyn std::error::Error = error;
            while let Some(source) = last.source() {
                last = source;
            }
            last.to_string()
        }
    }
}

/// The HTTP status with which the engine refused, if it did.
pub(crate) fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// The exit code in the answer to a wait; bollard makes an error of every one that is not 0.
pub(crate) fn ended(
    answer: Result<bollard::models::ContainerWaitResponse, bollard::errors::Error>,
) -> Option<i64> {
    match answer {
        Ok(answer) => Some(answer.status_code),
        Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => Some(code),
        Err(_) => None,
    }
}
