//! How a client reaches a host from here: its address, and the certificates.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::PortMap;
use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use dind_contract::{API_PORT, PLAIN_PORT, Status};
use futures_util::TryStreamExt;

use crate::endpoint::{self, Endpoint, Kind};
use crate::failure::{Failure, Result};
use crate::hosts::Host;
use crate::{inside, state};

/// How long a port may take to be connected to.
const CONNECT: Duration = Duration::from_secs(5);

/// What a client needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Value of `DOCKER_HOST`.
    pub(crate) docker_host: String,
    /// Folder with the client's certificates, where the host speaks TLS.
    pub(crate) certificates: Option<PathBuf>,
}

impl Reach {
    /// The variables for a client; without a value: not to be set.
    pub(crate) fn variables(&self) -> [(&'static str, Option<String>); 4] {
        let certificates = self.certificates.as_ref();
        [
            ("DOCKER_HOST", Some(self.docker_host.clone())),
            ("DOCKER_TLS_VERIFY", certificates.map(|_| "1".to_owned())),
            ("DOCKER_CERT_PATH", certificates.map(|folder| folder.display().to_string())),
            // DOCKER_HOST wins over it, and docker warns of the two.
            ("DOCKER_CONTEXT", None),
        ]
    }
}

/// What the host says of itself.
///
/// # Errors
/// It does not run, or does not answer.
pub(crate) async fn status(endpoint: &Endpoint, host: &Host) -> Result<Status> {
    host.must_run("it cannot be asked how it is")?;
    let answer = inside::ask(endpoint, &host.id, &host.name, &["dind-init", "status", "--json"]).await?;
    let text = answer.ok(&format!("the host {} does not say how it is", host.name), &host.name)?;
    serde_json::from_str(&text).map_err(|e| {
        Failure::new(
            format!("the host {} says how it is in words that this dind does not know: {e}", host.name),
            "its image is of another version: use the dind that built it, or build it again",
        )
    })
}

/// Works out how a client reaches the host, and fetches its certificates.
///
/// # Errors
/// It has no port for the API, none that can be reached from here, or its certificates cannot be had.
pub(crate) async fn find(endpoint: &Endpoint, host: &Host, status: &Status) -> Result<Reach> {
    let local = status.endpoint.docker_host.starts_with("unix:");
    if local {
        return Err(Failure::new(
            format!(
                "the host {} has no port for the Docker API: it is an appliance, or was started with --local",
                host.name
            ),
            format!("use it from inside: dind exec {} docker ps", host.name),
        ));
    }
    let tls = status.endpoint.tls_verify;
    let docker_host = address(endpoint, host, if tls { &[API_PORT] } else { &[API_PORT, PLAIN_PORT] })?;
    answers(&docker_host, host).await?;
    let certificates = match (&status.endpoint.cert_path, tls) {
        (Some(path), true) => Some(certificates(endpoint, host, path).await?),
        _ => None,
    };
    Ok(Reach { docker_host: format!("tcp://{docker_host}"), certificates })
}

/// Whether anything answers there: an endpoint behind a tunnel, or in a host of ours, may say an address that is true only for itself.
async fn answers(address: &str, host: &Host) -> Result<()> {
    let connected = tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect(address)).await;
    let cause = match connected {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(e)) => e.to_string(),
        Err(_) => format!("no answer within {} s", CONNECT.as_secs()),
    };
    Err(Failure::new(
        format!("the host {} cannot be reached from here at {address}: {cause}", host.name),
        format!(
            "look for a firewall or a tunnel in between; or use it through the endpoint: dind exec {} docker ps",
            host.name
        ),
    ))
}

/// `HOST:PORT` by which the first of these ports of the host is reached from here.
///
/// # Errors
/// None of them can be.
pub(crate) fn address(endpoint: &Endpoint, host: &Host, ports: &[u16]) -> Result<String> {
    let machine = endpoint.machine();
    let settings = host.container.network_settings.clone().unwrap_or_default();
    let network_mode = host.container.host_config.as_ref().and_then(|config| config.network_mode.as_deref());
    let port = ports.first().copied().unwrap_or_default();
    if network_mode == Some("host") {
        return Ok(join(&machine, port));
    }
    let here = endpoint.is_here();
    let published = ports.iter().find_map(|&port| published(settings.ports.as_ref()?, port, &machine, here));
    if let Some(address) = published {
        return Ok(address);
    }
    // A container's own address is known on its machine; VIC's networks may be public.
    if here || endpoint.kind == Kind::Vic {
        let networks = settings.networks.unwrap_or_default();
        let mut addresses: Vec<_> =
            networks.into_iter().filter_map(|(name, network)| Some((name, network.ip_address?))).collect();
        addresses.sort();
        if let Some((_, address)) = addresses.into_iter().find(|(_, address)| !address.is_empty()) {
            return Ok(join(&address, port));
        }
    }
    Err(Failure::new(
        format!(
            "port {port} of the host {} cannot be reached from here: it is not published on {machine}",
            host.name
        ),
        format!(
            "make the host with -p {port}; or use it through the endpoint: dind exec {} docker ps",
            host.name
        ),
    ))
}

/// Where a port is published, as seen from here.
fn published(ports: &PortMap, port: u16, machine: &str, here: bool) -> Option<String> {
    let bindings = ports.get(&format!("{port}/tcp"))?.as_ref()?;
    bindings.iter().find_map(|binding| {
        let outside = binding.host_port.as_deref()?.parse().ok()?;
        let address = binding.host_ip.as_deref().unwrap_or_default();
        match address.parse::<std::net::IpAddr>() {
            Ok(address) if address.is_loopback() => here.then(|| join(&address.to_string(), outside)),
            Ok(address) if !address.is_unspecified() => Some(join(&address.to_string(), outside)),
            // On all addresses. The name localhost may mean ::1, where an old engine does not listen.
            _ if here => Some(join("127.0.0.1", outside)),
            _ => Some(join(machine, outside)),
        }
    })
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Copies the client's certificates to a folder of this host's own, and only of the files that a client needs.
async fn certificates(endpoint: &Endpoint, host: &Host, path: &str) -> Result<PathBuf> {
    let unfit = |cause: String| {
        Failure::new(
            format!("cannot fetch the client's certificates of the host {} ({path}): {cause}", host.name),
            format!("look at what is there: dind exec {} ls -l {path}", host.name),
        )
    };
    let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
    let archive: Vec<u8> = endpoint
        .docker
        .download_from_container(&host.id, Some(options))
        .try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
        .map_err(|error| unfit(endpoint::cause(&error)))?;
    let files = files(&archive).map_err(|e| unfit(e.to_string()))?;
    let folder = state::of_host(&host.id);
    must_be_text(std::env::var_os("XDG_STATE_HOME").as_deref(), &folder)?;
    state::private_folder(&folder)?;
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        let content = files
            .iter()
            .find(|(file, _)| file == name)
            .ok_or_else(|| unfit(format!("there is no {name}")))?;
        state::write(&folder.join(name), &content.1)?;
    }
    state::write(&folder.join(state::NAME), host.name.as_bytes())?;
    state::write(&folder.join(state::ENDPOINT), endpoint.address.to_string().as_bytes())?;
    Ok(folder)
}

/// What a client is told is text, so it cannot be told of a folder whose name is none.
fn must_be_text(state_home: Option<&OsStr>, folder: &Path) -> Result<()> {
    // A name that is no text is not followed, so the folder would be another one than was asked for.
    let (name, value) = match state_home {
        Some(value) if value.to_str().is_none() => ("XDG_STATE_HOME", value),
        _ if folder.to_str().is_none() => ("HOME", folder.as_os_str()),
        _ => return Ok(()),
    };
    Err(Failure::new(
        format!("a client cannot be told of the folder {}: {name} is not UTF-8", Path::new(value).display()),
        "set XDG_STATE_HOME to a folder with a name in UTF-8",
    ))
}

/// The largest certificate or key that is taken.
const LARGEST: u64 = 1 << 20;

/// The files directly in the folder that an archive holds, by their names alone: nothing in it decides where anything is written.
pub(crate) fn files(archive: &[u8]) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in tar::Archive::new(archive).entries()? {
        let entry = entry?;
        let name = entry.path()?.file_name().map(|name| name.to_string_lossy().into_owned());
        if let (true, Some(name)) = (entry.header().entry_type().is_file(), name) {
            let mut content = Vec::new();
            entry.take(LARGEST).read_to_end(&mut content)?;
            files.push((name, content));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use bollard::models::PortBinding;

    use super::*;

    #[test]
    fn a_folder_without_a_textual_name_is_refused() {
        let bad = OsStr::from_bytes(b"/tmp/\xff");
        assert_eq!(must_be_text(None, Path::new("/tmp")), Ok(()));
        assert_eq!(must_be_text(Some(OsStr::new("/tmp")), Path::new("/tmp")), Ok(()));
        for (state_home, folder, name) in
            [(Some(bad), Path::new("/tmp"), "XDG_STATE_HOME is not"), (None, Path::new(bad), "HOME is not")]
        {
            let said = must_be_text(state_home, folder).unwrap_err().to_string();
            assert!(said.contains(name) && said.contains("help: set XDG_STATE_HOME"), "{said}");
        }
    }

    #[test]
    fn a_published_port_is_seen_from_where_the_client_is() {
        for (address, machine, here, expected) in [
            ("0.0.0.0", "localhost", true, Some("127.0.0.1:1000")),
            ("", "localhost", true, Some("127.0.0.1:1000")),
            ("127.0.0.1", "localhost", true, Some("127.0.0.1:1000")),
            ("0.0.0.0", "far.example.com", false, Some("far.example.com:1000")),
            ("::", "fd00::1", false, Some("[fd00::1]:1000")),
            ("10.0.0.7", "far.example.com", false, Some("10.0.0.7:1000")),
            // Of that machine's own loopback, and so out of reach.
            ("127.0.0.1", "far.example.com", false, None),
        ] {
            let binding = PortBinding { host_ip: Some(address.into()), host_port: Some("1000".into()) };
            let ports = PortMap::from([("2376/tcp".to_owned(), Some(vec![binding]))]);
            assert_eq!(published(&ports, 2376, machine, here).as_deref(), expected, "{address} of {machine}");
            assert_eq!(published(&ports, 22, machine, here), None);
        }
    }
}
