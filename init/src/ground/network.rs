//! Addresses of this machine, and ports that a host is about to use.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use dind_contract::{API_PORT, variables};
use nix::ifaddrs::getifaddrs;

use super::decision::Decision;
use super::pools::Pool;
use super::{dns, pools};
use crate::failure::Failure;
use crate::options::DaemonOptions;
use crate::resolver;
use crate::settings::Settings;

/// The MTU that dockerd gives to networks unless it is told otherwise. Where the way out takes less, large packets of
/// nested containers would vanish, and their connections hang.
const ETHERNET_MTU: u32 = 1500;

/// What a user wants of networks inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// Their MTU.
    pub(crate) mtu: Option<u32>,
    /// The name servers of nested containers.
    pub(crate) dns: Vec<IpAddr>,
    /// Where they take their addresses from.
    pub(crate) pools: Vec<Pool>,
}

impl Wishes {
    /// Reads `DIND_MTU`, `DIND_DNS` and `DIND_ADDRESS_POOLS`.
    ///
    /// # Errors
    /// One that is not usable, or is decided by dockerd's options, too.
    pub(crate) fn parse<'a>(
        get: impl Fn(&str) -> Option<&'a str>,
        daemon: &DaemonOptions,
    ) -> Result<Self, Failure> {
        let get = |name: &str| get(name).filter(|text| !text.trim().is_empty());
        for (name, twice, what) in [
            (variables::DIND_MTU, daemon.mtu_is_set, "the MTU"),
            (variables::DIND_DNS, daemon.says(&["dns"]), "name servers"),
            (
                variables::DIND_ADDRESS_POOLS,
                daemon.says(&["default-address-pool", "default-address-pools"]),
                "address pools",
            ),
        ] {
            if twice && get(name).is_some() {
                return Err(Failure::usage(
                    format!("{name} is set, and dockerd's options decide on {what}, too"),
                    "leave one of them out",
                ));
            }
        }
        Ok(Self {
            mtu: get(variables::DIND_MTU).map(parse_mtu).transpose()?,
            dns: get(variables::DIND_DNS).map(dns::parse).transpose()?.unwrap_or_default(),
            pools: get(variables::DIND_ADDRESS_POOLS).map(pools::parse).transpose()?.unwrap_or_default(),
        })
    }
}

/// What IPv4 needs at least (RFC 791), and what the header of a packet can name at most.
fn parse_mtu(text: &str) -> Result<u32, Failure> {
    text.trim().parse().ok().filter(|mtu| (68..=65_535).contains(mtu)).ok_or_else(|| {
        Failure::usage(
            format!("{}={text} is not a number of bytes from 68 to 65535", variables::DIND_MTU),
            "set it to what the narrowest part of the way out takes, or leave it out to have that found",
        )
    })
}

/// The machine's addresses, without those of links (`fe80::`), which no name could be given to, and of our own relay.
pub(super) fn addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .filter(|address| *address != resolver::ADDRESS)
        .collect()
}

/// The address from which this machine would speak to the world, which is where it is spoken to. The kernel chooses it by
/// its routes when a datagram socket is connected; nothing is sent to the address, which is one for examples (RFC 5737).
pub(super) fn outside() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

/// Gives networks inside the MTU of the way out.
pub(super) fn decide_mtu(settings: &Settings, found: Option<u32>) -> Decision {
    let with = |decision: Decision, mtu: u32| {
        // The first is for the default bridge, the second for networks that users and Compose make.
        decision.with_arguments([
            format!("--mtu={mtu}"),
            format!("--default-network-opt=bridge=com.docker.network.driver.mtu={mtu}"),
        ])
    };
    if let Some(mtu) = settings.network.mtu {
        let said = found
            .map_or("there is no way out".to_owned(), |found| format!("the way out takes {found} bytes"));
        let decision = Decision::good("mtu", said, format!("{mtu} for every network inside"));
        return with(decision.because("DIND_MTU says so"), mtu);
    }
    let Some(found) = found else {
        return Decision::good("mtu", "there is no way out", format!("{ETHERNET_MTU}, dockerd's own"));
    };
    let said = format!("the way out takes {found} bytes");
    if settings.daemon.mtu_is_set {
        Decision::good("mtu", said, "what DOCKER_OPTS, the arguments or daemon.json say")
    } else if found < ETHERNET_MTU {
        let decision = Decision::good("mtu", said, format!("{found} for every network inside"));
        with(decision.because("larger packets would vanish on the way out, and connections hang"), found)
    } else {
        Decision::good("mtu", said, format!("{ETHERNET_MTU}, dockerd's own"))
    }
}

/// The MTU of the interface by which this machine would speak to the world, if it has a way there.
pub(super) fn mtu() -> Option<u32> {
    let outside = outside()?;
    let interface = getifaddrs().ok()?.find(|interface| {
        let address = interface.address.as_ref().and_then(|address| address.as_sockaddr_in());
        address.is_some_and(|address| IpAddr::V4(address.ip()) == outside)
    })?;
    let text = std::fs::read_to_string(format!("/sys/class/net/{}/mtu", interface.interface_name)).ok()?;
    text.trim().parse().ok()
}

/// Looks whether the TCP `listeners` can be had.
///
/// # Errors
/// Names the first that cannot.
pub(crate) fn check_ports(listeners: &[String]) -> Result<(), Failure> {
    for listener in listeners {
        let Some(address) = address(listener) else { continue };
        match TcpListener::bind(address) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                return Err(Failure::unavailable(
                    format!("port {} is taken: another process listens on {address}", address.port()),
                    "stop that process, give the host a network of its own (no --network host), or set LOCAL=true",
                ));
            }
            Err(e) => {
                return Err(Failure::unavailable(
                    format!("cannot listen on {address}: {e}"),
                    "name an address of this host with -H, or leave -H out to listen on all",
                ));
            }
        }
    }
    Ok(())
}

/// The address of a listener that is written as one; a name is left to dockerd, since looking it up may take long.
fn address(listener: &str) -> Option<SocketAddr> {
    let text = listener.strip_prefix("tcp://")?.trim_end_matches('/');
    text.parse().ok().or_else(|| Some(SocketAddr::new(text.trim_matches(['[', ']']).parse().ok()?, API_PORT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(options: &str) -> Settings {
        let environment = [("DOCKER_OPTS".into(), options.into())];
        Settings::load(environment, &[], |_| Ok(None)).unwrap()
    }

    #[test]
    fn networks_take_no_more_than_the_way_out() {
        let arguments = |options, mtu| decide_mtu(&settings(options), mtu).arguments.join(" ");
        let narrow = arguments("", Some(1400));
        assert!(narrow.contains("--mtu=1400") && narrow.contains("driver.mtu=1400"), "{narrow}");
        for (options, mtu) in [("", Some(1500)), ("", Some(9000)), ("", None), ("--mtu 1200", Some(1400))] {
            assert_eq!(arguments(options, mtu), "", "{options} {mtu:?}");
        }
    }

    fn load(name: &str, value: &str, options: &str) -> Result<Settings, Failure> {
        let environment = [("DOCKER_OPTS".into(), options.into()), (name.into(), value.into())];
        Settings::load(environment, &[], |_| Ok(None))
    }

    #[test]
    fn the_mtu_can_be_told() {
        let decision = decide_mtu(&load("DIND_MTU", "1280", "").unwrap(), Some(1400));
        assert!(decision.arguments.contains(&"--mtu=1280".to_owned()), "{:?}", decision.arguments);
        assert_eq!(load("DIND_MTU", "", "").unwrap().network, Wishes::default());
    }

    #[test]
    fn bad_wishes_are_named() {
        for (name, value, options) in [
            ("DIND_MTU", "67", ""),
            ("DIND_MTU", "1400.5", ""),
            ("DIND_MTU", "65536", ""),
            ("DIND_MTU", "1400", "--mtu 1400"),
            ("DIND_DNS", "ns.example", ""),
            ("DIND_DNS", "10.0.0.1,127.0.0.1", ""),
            ("DIND_DNS", "10.0.0.1", "--dns 10.0.0.1"),
            ("DIND_ADDRESS_POOLS", "10.0.0.0/8", ""),
            (
                "DIND_ADDRESS_POOLS",
                "base=10.0.0.0/8,size=24",
                "--default-address-pool base=10.0.0.0/8,size=24",
            ),
        ] {
            let failure = load(name, value, options).unwrap_err();
            assert_eq!(failure.code, 64, "{name}={value}");
            assert!(failure.cause.contains(name) && !failure.help.is_empty(), "{}", failure.cause);
        }
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let failure = check_ports(&["unix:///x".into(), format!("tcp://{address}")]).unwrap_err();
        assert_eq!(failure.code, 69);
        assert!(failure.cause.contains(&format!("port {}", address.port())), "{}", failure.cause);
        drop(taken);
        check_ports(&[format!("tcp://{address}")]).unwrap();
    }

    #[test]
    fn addresses_of_listeners() {
        assert_eq!(address("tcp://0.0.0.0:1"), Some("0.0.0.0:1".parse().unwrap()));
        assert_eq!(address("tcp://10.0.0.1"), Some("10.0.0.1:2376".parse().unwrap()));
        assert_eq!(address("tcp://[::1]"), Some("[::1]:2376".parse().unwrap()));
        assert_eq!(address("tcp://name:1"), None);
        assert_eq!(address("unix:///x"), None);
    }
}
