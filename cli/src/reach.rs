//! How a client reaches a host from here: its address, and the certificates.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::PortMap;
use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use dind_contract::{API_PORT, PLAIN_PORT, Status};
use futures_util::TryStreamExt;

use crate::endpoint::{self, BadAnswer, Endpoint, Kind, Machine, Place};
use crate::failure::{Failure, Result};
use crate::hosts::Host;
use crate::{inside, state};

/// How long a port may take to be connected to.
const CONNECT: Duration = Duration::from_secs(5);

/// What a client needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Where its API is.
    pub(crate) place: Place,
    /// Folder with the client's certificates, where the host speaks TLS.
    pub(crate) certificates: Option<PathBuf>,
}

impl Reach {
    /// The variables for a client; without a value: not to be set.
    pub(crate) fn variables(&self) -> [(&'static str, Option<String>); 4] {
        let certificates = self.certificates.as_ref();
        [
            ("DOCKER_HOST", Some(format!("tcp://{}", self.place))),
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
    let place = place(endpoint, host, if tls { &[API_PORT] } else { &[API_PORT, PLAIN_PORT] })?;
    answers(&place, host).await?;
    let certificates = match (&status.endpoint.cert_path, tls) {
        (Some(path), true) => Some(certificates(endpoint, host, path).await?),
        _ => None,
    };
    Ok(Reach { place, certificates })
}

/// Whether anything answers there: an endpoint behind a tunnel, or in a host of ours, may say an address that is true only for itself.
async fn answers(place: &Place, host: &Host) -> Result<()> {
    let connected = tokio::net::TcpStream::connect((place.machine.as_str(), place.port));
    let connected = tokio::time::timeout(CONNECT, connected).await;
    let cause = match connected {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(e)) => e.to_string(),
        Err(_) => format!("no answer within {} s", CONNECT.as_secs()),
    };
    Err(Failure::new(
        format!("the host {} cannot be reached from here at {place}: {cause}", host.name),
        format!(
            "look for a firewall or a tunnel in between; or use it through the endpoint: dind exec {} docker ps",
            host.name
        ),
    ))
}

/// Where the first of these ports of the host is reached from here.
///
/// # Errors
/// None of them can be, or the endpoint answers with addresses or ports that are none.
pub(crate) fn place(endpoint: &Endpoint, host: &Host, ports: &[u16]) -> Result<Place> {
    let port = ports.first().copied().unwrap_or_default();
    seen_place(endpoint, host, ports)?.ok_or_else(|| {
        Failure::new(
            format!(
                "port {port} of the host {} cannot be reached from here: it is not published on {}",
                host.name,
                endpoint.machine().as_str()
            ),
            format!(
                "make the host with -p {port}; or use it through the endpoint: dind exec {} docker ps",
                host.name
            ),
        )
    })
}

/// The same; `None` where none of them can be.
///
/// # Errors
/// The endpoint answers with addresses or ports that are none.
pub(crate) fn seen_place(endpoint: &Endpoint, host: &Host, ports: &[u16]) -> Result<Option<Place>> {
    let machine = endpoint.machine();
    let settings = host.container.network_settings.clone().unwrap_or_default();
    let network_mode = host.container.host_config.as_ref().and_then(|config| config.network_mode.as_deref());
    let port = ports.first().copied().unwrap_or_default();
    if network_mode == Some("host") {
        return Ok(Some(Place { machine, port }));
    }
    let here = endpoint.is_here();
    let all = settings.ports.unwrap_or_default();
    for &port in ports {
        let published = published(&all, port, &machine, here).map_err(|bad| endpoint.distrust(&bad))?;
        if published.is_some() {
            return Ok(published);
        }
    }
    // A container's own address is known on its machine; VIC's networks may be public.
    if here || endpoint.kind == Kind::Vic {
        // In the order of their names.
        let networks = settings.networks.unwrap_or_default().into_iter().collect::<BTreeMap<_, _>>();
        let addresses = networks.into_values().map(|network| network.ip_address.unwrap_or_default());
        let addresses = addresses.map(|address| endpoint::address(&address)).collect::<Result<Vec<_>, _>>();
        let addresses = addresses.map_err(|bad| endpoint.distrust(&bad))?;
        let own = addresses.into_iter().flatten().next();
        return Ok(own.map(|address| Place { machine: address.into(), port }));
    }
    Ok(None)
}

/// Where a port is published, as seen from here.
fn published(ports: &PortMap, port: u16, machine: &Machine, here: bool) -> Result<Option<Place>, BadAnswer> {
    let bindings = ports.get(&format!("{port}/tcp")).and_then(Option::as_ref);
    for binding in bindings.into_iter().flatten() {
        let outside = endpoint::port(binding.host_port.as_deref().unwrap_or_default())?;
        let address = endpoint::address(binding.host_ip.as_deref().unwrap_or_default())?;
        let machine = match address {
            Some(address) if address.is_loopback() => here.then(|| Machine::from(address)),
            Some(address) if !address.is_unspecified() => Some(Machine::from(address)),
            // On all addresses. The name localhost may mean ::1, where an old engine does not listen.
            _ if here => Some(Machine::from(IpAddr::from(Ipv4Addr::LOCALHOST))),
            _ => Some(machine.clone()),
        };
        if let (Some(machine), Some(port)) = (machine, outside) {
            return Ok(Some(Place { machine, port }));
        }
    }
    Ok(None)
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
        .download_from_container(host.id.as_str(), Some(options))
        .try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
        .map_err(|error| unfit(endpoint::cause(&error)))?;
    let files = files(&archive).map_err(|e| unfit(e.to_string()))?;
    let folder = state::of_host(&endpoint.address, &host.id);
    must_be_text(std::env::var_os("XDG_STATE_HOME").as_deref(), &folder)?;
    state::make_of_host(&endpoint.address, &host.id, &host.name)?;
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        let content = files
            .iter()
            .find(|(file, _)| file == name)
            .ok_or_else(|| unfit(format!("there is no {name}")))?;
        state::write(&folder.join(name), &content.1)?;
    }
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

    fn ports(address: &str, port: &str) -> PortMap {
        let binding = PortBinding { host_ip: Some(address.into()), host_port: Some(port.into()) };
        PortMap::from([("2376/tcp".to_owned(), Some(vec![binding]))])
    }

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
            let (ports, machine) = (ports(address, "1000"), Machine::parse(machine).unwrap());
            let found = published(&ports, 2376, &machine, here).unwrap();
            assert_eq!(found.map(|place| place.to_string()).as_deref(), expected, "{address} of {machine:?}");
            assert_eq!(published(&ports, 22, &machine, here), Ok(None));
        }
        // Made and not started: it will get one.
        let machine = Machine::parse("localhost").unwrap();
        assert_eq!(published(&ports("", ""), 2376, &machine, true), Ok(None));
    }

    #[test]
    fn a_port_published_nowhere_is_an_error() {
        let machine = Machine::parse("localhost").unwrap();
        for (address, port) in [
            ("-oProxyCommand=id", "1000"),
            ("vic.example.com", "1000"),
            ("fe80::1%eth0", "1000"),
            ("127.0.0.1", "1000 -oX"),
            ("127.0.0.1", "65536"),
        ] {
            assert!(published(&ports(address, port), 2376, &machine, true).is_err(), "{address} {port}");
        }
    }
}
