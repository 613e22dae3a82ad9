//! Where a Docker endpoint is, as `DOCKER_HOST` says it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use crate::failure::{Failure, Result};

/// Port of the plain API where none is named, as the docker command takes it.
const PLAIN_PORT: u16 = 2375;

/// A machine by its address or its name, as programs are given it: never empty, and never an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine(String);

impl Machine {
    /// Takes names by ssh's own rule (`valid_hostname` in OpenSSH's ssh.c), without what separates the parts of an address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_apart = |c: char| {
            c.is_whitespace() || c.is_control() || "'`\"$\\;&<>|(){}".contains(c) || "/@?#,[]".contains(c)
        };
        if text.is_empty() || text.starts_with('-') || text.contains(is_apart) {
            return None;
        }
        // A colon is in an address of IPv6 alone; behind a percent sign stands the interface that it is on.
        let is_ipv6 = || text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
        (!text.contains(':') || is_ipv6()).then(|| Self(text.to_owned()))
    }

    /// As it is written, without brackets.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// This machine.
    fn local() -> Self {
        Self("localhost".to_owned())
    }

    /// Whether it is this machine.
    fn is_here(&self) -> bool {
        *self == Self::local() || self.0.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl From<IpAddr> for Machine {
    fn from(address: IpAddr) -> Self {
        Self(address.to_string())
    }
}

/// A port of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The machine.
    pub(crate) machine: Machine,
    /// Its port.
    pub(crate) port: u16,
}

impl fmt::Display for Place {
    /// `HOST:PORT`, with an address of IPv6 in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine: Machine(machine), port } = self;
        if machine.contains(':') { write!(f, "[{machine}]:{port}") } else { write!(f, "{machine}:{port}") }
    }
}

/// Where a Docker endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A port.
    Tcp(Place),
    /// A machine on which `docker system dial-stdio` is run.
    Ssh {
        /// Everything after `ssh://`.
        authority: String,
        /// The machine in it.
        machine: Machine,
    },
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
            let (user, host) = match authority.rsplit_once('@') {
                Some((user, host)) => (Some(user), host),
                None => (None, authority),
            };
            let Some(Place { machine, .. }) = split(host).filter(|_| user.is_none_or(is_user)) else {
                return Err(refuse("it must be ssh://[USER@]HOST[:PORT]"));
            };
            return Ok(Self::Ssh { authority: authority.to_owned(), machine });
        }
        let authority = match text.split_once("://") {
            Some(("tcp" | "http" | "https", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some((scheme, _)) => return Err(refuse(&format!("{scheme}:// is not spoken here"))),
            None => text,
        };
        // As the docker command has it, a port alone is one of this machine.
        let local = authority.strip_prefix(':').map(|port| format!("localhost:{port}"));
        let place = split(local.as_deref().unwrap_or(authority));
        place.map(Self::Tcp).ok_or_else(|| refuse("HOST:PORT is expected"))
    }

    /// The machine on which published ports are reached from here.
    pub(crate) fn machine(&self) -> Machine {
        match self {
            Self::Unix(_) => Machine::local(),
            Self::Tcp(Place { machine, .. }) | Self::Ssh { machine, .. } => machine.clone(),
        }
    }

    /// Whether it is this machine, so that its loopback and its containers' addresses are ours.
    pub(crate) fn is_here(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(place) => place.machine.is_here(),
            Self::Ssh { .. } => false,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(place) => write!(f, "tcp://{place}"),
            Self::Ssh { authority, .. } => write!(f, "ssh://{authority}"),
        }
    }
}

/// Whether ssh can be given this as a user's name, by its own rule (`valid_ruser` in OpenSSH's ssh.c): no option, and nothing of a shell's.
pub(crate) fn is_user(text: &str) -> bool {
    let is_apart = |c: char| c.is_control() || "'`\";&<>|(){}".contains(c);
    let option_behind_space = text.split(char::is_whitespace).any(|word| word.starts_with('-'));
    !text.is_empty() && !option_behind_space && !text.contains(is_apart) && !text.ends_with('\\')
}

/// `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`.
fn split(authority: &str) -> Option<Place> {
    let (host, port) = match authority.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(parts) => {
            let (address, port) = parts?;
            // Brackets are for what has colons of its own.
            (
                address.contains(':').then_some(address)?,
                if port.is_empty() { None } else { Some(port.strip_prefix(':')?) },
            )
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(PLAIN_PORT), |port| port.parse().ok())?;
    Some(Place { machine: Machine::parse(host)?, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp(Place { machine: Machine::parse(host).unwrap(), port })
    }

    fn ssh(authority: &str, host: &str) -> Address {
        Address::Ssh { authority: authority.into(), machine: Machine::parse(host).unwrap() }
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
            ("tcp://[fe80::1%eth0]:2376", tcp("fe80::1%eth0", 2376), "fe80::1%eth0"),
            ("ssh://user@a:2222", ssh("user@a:2222", "a"), "a"),
            ("ssh://a", ssh("a", "a"), "a"),
            ("ssh://my_machine", ssh("my_machine", "my_machine"), "my_machine"),
            ("ssh://u@[::1]:22/", ssh("u@[::1]:22", "::1"), "::1"),
        ] {
            let parsed = Address::parse(text, "DOCKER_HOST").unwrap();
            assert_eq!(parsed, address, "{text}");
            assert_eq!(parsed.machine().as_str(), machine, "{text}");
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
            "ssh://user@-oProxyCommand=id",
            "ssh://-oProxyCommand=id@a",
            "ssh://user@",
            "ssh://@a",
            "ssh://a:b",
            "ssh://a;id",
            "ssh://[::1",
            "tcp://[::1",
            "tcp://[a]:1",
            "tcp://[]:1",
            "tcp://::1",
            "tcp://-oProxyCommand=id:2376",
            "tcp://[-oX::1]:1",
            "tcp://a,b:1",
            "-oX:1",
            "-oX",
            ":",
            "a b:1",
        ] {
            let failure = Address::parse(text, "DOCKER_HOST").unwrap_err().to_string();
            assert!(failure.contains(&format!("DOCKER_HOST={text} is not an address")), "{failure}");
        }
    }
    #[test]
    fn machines_and_users_are_no_options() {
        for good in ["10.0.0.1", "::1", "fe80::1%eth0", "vic.example.com", "my_alias", "a+b", "müller"] {
            assert_eq!(Machine::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-oProxyCommand=id",
            "1.2.3.4 -oX",
            "a\n",
            "a\0",
            "$(id)",
            "a`id`",
            "a;id",
            "a:22",
            "-::1",
            "::1%a b",
            "[::1]",
            "user@a",
            "a/b",
        ] {
            assert_eq!(Machine::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Machine::from(IpAddr::from([127, 0, 0, 1])), Machine("127.0.0.1".into()));
        for (text, good) in [
            ("derek", true),
            ("no good", true),
            ("DOMAIN\\derek", true),
            ("a@b", true),
            ("", false),
            ("-oProxyCommand=id", false),
            ("a -oX", false),
            ("--remove", false),
            ("a;id", false),
            ("$(id)", false),
            ("a\n", false),
            ("a\\", false),
        ] {
            assert_eq!(is_user(text), good, "{text:?}");
        }
    }
}
