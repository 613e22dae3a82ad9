//! Who may ask: containers of this host, and the host itself. The relay's address is one of this machine, and Linux answers
//! on every interface for every address it has (the weak host model, RFC 1122), so a neighbour outside could reach it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::ifaddrs::getifaddrs;

/// Addresses from which questions are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    address: Ipv4Addr,
    mask: Ipv4Addr,
}

impl Range {
    fn has(&self, other: Ipv4Addr) -> bool {
        let cut = |address: Ipv4Addr| u32::from(address) & u32::from(self.mask);
        cut(self.address) == cut(other)
    }
}

/// The addresses inside, as they were known last.
pub(super) struct Inside {
    relay: Ipv4Addr,
    known: Mutex<Vec<Range>>,
}

impl Inside {
    pub(super) fn new(relay: Ipv4Addr) -> Self {
        Self { relay, known: Mutex::new(Vec::new()) }
    }

    /// Whether `address` is one of a container of this host, or its own. Networks come and go: they are looked at again for
    /// an address that is in none of those known.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        if address == self.relay || address.is_loopback() {
            return true;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.iter().any(|range| range.has(address)) {
            *known = ranges();
        }
        known.iter().any(|range| range.has(address))
    }
}

/// Our own addresses, and the subnets of bridges: a container's interface is a port of one. What leads outside is none, or,
/// in the machine's own network namespace, the one that has the default route.
fn ranges() -> Vec<Range> {
    let way_out = way_out(&fs::read_to_string("/proc/net/route").unwrap_or_default());
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|interface| {
            let address = interface.address.as_ref()?.as_sockaddr_in()?.ip();
            let name = interface.interface_name;
            let is_bridge = Path::new("/sys/class/net").join(&name).join("bridge").exists();
            let mask = match interface.netmask.as_ref().and_then(|mask| mask.as_sockaddr_in()) {
                Some(mask) if is_bridge && !way_out.contains(&name) => mask.ip(),
                _ => Ipv4Addr::BROADCAST,
            };
            Some(Range { address, mask })
        })
        .collect()
}

/// The interfaces that have a default route, from the text of `/proc/net/route` (proc_pid_net(5)).
fn way_out(table: &str) -> Vec<String> {
    table
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            (words.next() == Some("00000000")).then(|| name.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_what_shares_its_prefix() {
        let range = |address: &str, mask: &str| Range {
            address: address.parse().unwrap(),
            mask: mask.parse().unwrap(),
        };
        let bridge = range("172.18.0.1", "255.255.0.0");
        assert!(bridge.has(Ipv4Addr::new(172, 18, 200, 7)));
        assert!(!bridge.has(Ipv4Addr::new(172, 19, 0, 2)));
        assert!(!range("10.0.0.7", "255.255.255.255").has(Ipv4Addr::new(10, 0, 0, 8)));
    }

    #[test]
    fn the_way_out_is_where_the_default_route_leads() {
        let table = "Iface\tDestination\tGateway\neth0\t00000000\t010012AC\ndocker0\t000011AC\t00000000\n";
        assert_eq!(way_out(table), ["eth0"]);
        assert_eq!(way_out(""), [""; 0]);
    }

    #[test]
    fn we_are_inside_ourselves_and_strangers_are_not() {
        let inside = Inside::new(Ipv4Addr::new(169, 254, 53, 53));
        assert!(inside.has("169.254.53.53".parse().unwrap()));
        assert!(inside.has("127.0.0.1".parse().unwrap()));
        assert!(!inside.has("192.0.2.77".parse().unwrap()));
        assert!(!inside.has("fe80::1".parse().unwrap()));
    }
}
