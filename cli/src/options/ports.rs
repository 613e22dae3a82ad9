//! Published ports, as the docker command writes them: `[ADDRESS:][PORT[-PORT]:]PORT[-PORT][/PROTOCOL]`.

use std::net::IpAddr;

use bollard::models::{PortBinding, PortMap};

/// One port of a host, and where it is published on the endpoint's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// The port inside.
    pub(crate) port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: String,
    /// The address outside; all of them if none is said.
    pub(crate) address: Option<IpAddr>,
    /// The port outside; the engine takes a free one if none is said.
    pub(crate) outside: Option<u16>,
}

impl Published {
    /// A TCP port at an address of the endpoint's machine, on a free port.
    pub(crate) fn anywhere(port: u16, address: Option<IpAddr>) -> Self {
        Self { port, protocol: "tcp".to_owned(), address, outside: None }
    }

    /// How the API names the port inside.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.port, self.protocol)
    }
}

/// The ports that one `-p` publishes.
///
/// # Errors
/// It is not understood.
pub(crate) fn parse(text: &str) -> Result<Ports, String> {
    let refuse =
        || format!("{text} is not [ADDRESS:][PORT:]PORT[/PROTOCOL], such as 8000:80 or 127.0.0.1::2376");
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(format!("{protocol} is no protocol of a port: tcp, udp and sctp are"));
    }
    let (front, inside) = rest.rsplit_once(':').map_or((None, rest), |(front, inside)| (Some(front), inside));
    let (address, outside) = match front {
        None => (None, None),
        Some(front) => {
            let (address, outside) = match front.strip_prefix('[').and_then(|front| front.split_once(']')) {
                Some((address, outside)) => (Some(address), outside.strip_prefix(':').unwrap_or(outside)),
                None => front
                    .rsplit_once(':')
                    .map_or((None, front), |(address, outside)| (Some(address), outside)),
            };
            let address = address.filter(|address| !address.is_empty());
            let address = address
                .map(|address| address.parse().map_err(|_| format!("{address} is not an address")))
                .transpose()?;
            (address, (!outside.is_empty()).then_some(outside))
        }
    };
    let inside = range(inside).ok_or_else(refuse)?;
    let outside = outside.map(|outside| range(outside).ok_or_else(refuse)).transpose()?;
    if outside.as_ref().is_some_and(|outside| outside.len() != inside.len()) {
        return Err(format!("{text} has not as many ports outside as inside"));
    }
    let published = inside.into_iter().enumerate().map(|(index, port)| Published {
        port,
        protocol: protocol.to_owned(),
        address,
        outside: outside.as_ref().and_then(|outside| outside.get(index)).copied(),
    });
    Ok(Ports(published.collect()))
}

/// What one `-p` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) Vec<Published>);

fn range(text: &str) -> Option<Vec<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last).then(|| (first..=last).collect())
}

/// What the API wants to hear.
pub(crate) fn bindings(published: &[Published]) -> PortMap {
    let mut map = PortMap::new();
    for port in published {
        map.entry(port.key()).or_default().get_or_insert_default().push(PortBinding {
            host_ip: port.address.map(|address| address.to_string()),
            host_port: port.outside.map(|outside| outside.to_string()),
        });
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (Option<String>, Option<u16>, String) {
        let Ports(ports) = parse(text).unwrap();
        let port = ports.first().unwrap();
        (port.address.map(|address| address.to_string()), port.outside, port.key())
    }

    #[test]
    fn the_forms_of_the_docker_command() {
        for (text, address, outside, key) in [
            ("80", None, None, "80/tcp"),
            ("8000:80", None, Some(8000), "80/tcp"),
            ("127.0.0.1:8000:80", Some("127.0.0.1"), Some(8000), "80/tcp"),
            ("127.0.0.1::80/udp", Some("127.0.0.1"), None, "80/udp"),
            ("[::1]:8000:80", Some("::1"), Some(8000), "80/tcp"),
        ] {
            assert_eq!(one(text), (address.map(str::to_owned), outside, key.to_owned()), "{text}");
        }
        let Ports(ports) = parse("8000-8002:80-82").unwrap();
        assert_eq!(
            ports.iter().map(|port| (port.outside, port.port)).collect::<Vec<_>>(),
            [(Some(8000), 80), (Some(8001), 81), (Some(8002), 82)]
        );
    }

    #[test]
    fn the_rest_is_refused() {
        for text in
            ["", "a", "0", "70000", "80/icmp", "1-2:80", "2-1", "300.0.0.1:1:2", "x:1:2", "1:2:3:4", "a:80"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
