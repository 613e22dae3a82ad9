//! Where a Docker endpoint is, as `DOCKER_HOST` says it.

use std::fmt;
use std::path::PathBuf;

use crate::failure::{Failure, Result};

/// Port of the plain API where none is named, as the docker command takes it.
const PLAIN_PORT: u16 = 2375;

/// Where a Docker endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A port.
    Tcp {
        /// Its name or address, without brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// A machine on which `docker system dial-stdio` is run: everything after `ssh://`.
    Ssh(String),
}

impl Address {
    /// Understands what the docker command understands.
    ///
    /// # Errors
    /// It is none of the three kinds; `source` says where it was found.
    pub(crate) fn parse(text: &str, source: &str) -> Result<Self> {
        let refuse = |cause: &str| {
            Failure::usage(
                format!("{source}={text} is not an address of a Docker endpoint: {cause}"),
                "give unix:///var/run/docker.sock, tcp://HOST:PORT or ssh://USER@HOST",
            )
        };
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(refuse("the path of the socket must begin with a slash"))
            };
        }
        if let Some(rest) = text.strip_prefix("ssh://") {
            let authority = rest.strip_suffix('/').unwrap_or(rest);
            return if authority.is_empty() || authority.contains('/') || authority.starts_with('-') {
                Err(refuse("it must be ssh://[USER@]HOST[:PORT]"))
            } else {
                Ok(Self::Ssh(authority.to_owned()))
            };
        }
        let authority = match text.split_once("://") {
            Some(("tcp" | "http" | "https", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some((scheme, _)) => return Err(refuse(&format!("{scheme}:// is not spoken here"))),
            None => text,
        };
        let (host, port) = split(authority).ok_or_else(|| refuse("HOST:PORT is expected"))?;
        Ok(Self::Tcp { host, port })
    }

    /// The name or address by which ports published on the endpoint's machine are reached from here.
    pub(crate) fn machine(&self) -> &str {
        match self {
            Self::Unix(_) => "localhost",
            Self::Tcp { host, .. } => host,
            Self::Ssh(authority) => {
                let host = authority.rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
                split(host).map_or(host, |_| host.rsplit_once(':').map_or(host, |(host, _)| host))
            }
        }
    }

    /// Whether it is this machine, so that its loopback and its containers' addresses are ours.
    pub(crate) fn is_here(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost"
                    || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
            }
            Self::Ssh(_) => false,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Ssh(authority) => write!(f, "ssh://{authority}"),
        }
    }
}

/// `HOST`, `HOST:PORT`, `:PORT` or `[ADDRESS]:PORT`.
fn split(authority: &str) -> Option<(String, u16)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if port.is_empty() => PLAIN_PORT,
            None => return None,
        };
        return Some((host.to_owned(), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, PLAIN_PORT),
    };
    if host.chars().any(|c| c.is_whitespace() || matches!(c, '/' | '@' | '?' | '#')) {
        return None;
    }
    let host = if host.is_empty() { "localhost" } else { host };
    (!authority.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.into(), port }
    }

    #[test]
    fn understands_what_the_docker_command_understands() {
        for (text, address, machine) in [
            ("unix:///var/run/docker.sock", Address::Unix("/var/run/docker.sock".into()), "localhost"),
            ("tcp://10.0.0.1:2376", tcp("10.0.0.1", 2376), "10.0.0.1"),
            ("tcp://vic.example.com:2376/", tcp("vic.example.com", 2376), "vic.example.com"),
            ("http://a:1", tcp("a", 1), "a"),
            ("a:1", tcp("a", 1), "a"),
            (":2375", tcp("localhost", 2375), "localhost"),
            ("tcp://a", tcp("a", 2375), "a"),
            ("tcp://[::1]:2376", tcp("::1", 2376), "::1"),
            ("ssh://user@a:2222", Address::Ssh("user@a:2222".into()), "a"),
            ("ssh://a", Address::Ssh("a".into()), "a"),
        ] {
            let parsed = Address::parse(text, "DOCKER_HOST").unwrap();
            assert_eq!(parsed, address, "{text}");
            assert_eq!(parsed.machine(), machine, "{text}");
            assert_eq!(Address::parse(&parsed.to_string(), "DOCKER_HOST").unwrap(), address, "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_by_name() {
        for text in [
            "",
            "npipe:////./pipe/x",
            "tcp://a:b",
            "unix://docker.sock",
            "ssh://",
            "ssh://-oX",
            "tcp://[::1",
            "a b:1",
        ] {
            let failure = Address::parse(text, "DOCKER_HOST").unwrap_err().to_string();
            assert!(failure.contains(&format!("DOCKER_HOST={text} is not an address")), "{failure}");
        }
    }
}
