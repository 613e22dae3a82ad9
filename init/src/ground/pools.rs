//! Where networks inside take their addresses from.
//!
//! dockerd by itself avoids every network to which this host has a route at that moment, and name servers in
//! `/etc/resolv.conf`. It does not know of proxies and mirrors behind the default route: a network inside that took their
//! addresses would cut this host off from them. Only then is it given pools of ours: its own, less those.
#![allow(clippy::disallowed_methods, reason = "names are looked up in a child of PID 1: it may have threads")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use dind_contract::variables;

use super::decision::Decision;
use super::routes::Subnet;
use crate::failure::Failure;
use crate::settings::Settings;

/// How long the look-up of names may take. Whoever names a proxy that cannot be looked up waits as long.
const PATIENCE: Duration = Duration::from_secs(1);

/// A pool that a user gave, as dockerd takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    base: IpAddr,
    bits: u8,
    size: u8,
}

impl Pool {
    fn argument(&self) -> String {
        format!("--default-address-pool=base={}/{},size={}", self.base, self.bits, self.size)
    }
}

/// Reads `DIND_ADDRESS_POOLS`.
pub(super) fn parse(text: &str) -> Result<Vec<Pool>, Failure> {
    text.split_whitespace()
        .map(|word| {
            pool(word).ok_or_else(|| {
                Failure::usage(
                    format!("{}: {word:?} is not a pool of addresses", variables::DIND_ADDRESS_POOLS),
                    "write base=10.200.0.0/16,size=24 for networks of 256 addresses each; spaces separate pools",
                )
            })
        })
        .collect()
}

fn pool(word: &str) -> Option<Pool> {
    let (base, size) = word.strip_prefix("base=")?.split_once(",size=")?;
    let (base, bits) = base.split_once('/')?;
    let (base, bits, size): (IpAddr, u8, u8) = (base.parse().ok()?, bits.parse().ok()?, size.parse().ok()?);
    let most = if base.is_ipv4() { 32 } else { 128 };
    // A network needs an address for its bridge and one for a container.
    (bits <= size && size + 2 <= most).then_some(Pool { base, bits, size })
}

/// The proxies and registries that this host needs, by name or address.
pub(super) fn needed(settings: &Settings) -> Vec<String> {
    let proxies = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];
    let proxies = proxies.iter().filter_map(|name| settings.environment.get(*name)?.to_str());
    let options = [
        "http-proxy",
        "https-proxy",
        "proxies",
        "registry-mirror",
        "registry-mirrors",
        "insecure-registry",
        "insecure-registries",
    ];
    let mut hosts: Vec<String> = proxies
        .chain(settings.daemon.texts(&options))
        .chain(settings.registries.named())
        .filter_map(host)
        .map(str::to_owned)
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// The host in a URL, or in a registry's name with or without a port; none in a block of addresses.
fn host(url: &str) -> Option<&str> {
    let (is_url, rest) = url.split_once("://").map_or((false, url), |(_, rest)| (true, rest));
    if !is_url && rest.contains('/') {
        return None;
    }
    let authority = rest.split('/').next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => host.split(':').next()?,
    };
    (!host.is_empty()).then_some(host)
}

/// Names that are being looked up.
pub(super) struct LookUps {
    began: Instant,
    answers: Vec<(String, Receiver<Vec<IpAddr>>)>,
}

/// Looks `names` up, each in a thread of its own: some may take long.
pub(super) fn look_up(names: &[String]) -> LookUps {
    let answers = names.iter().map(|name| {
        let (sender, receiver) = channel();
        let asked = name.clone();
        thread::spawn(move || {
            let found = (asked.as_str(), 0).to_socket_addrs();
            let _ = sender.send(found.map(|all| all.map(|it| it.ip()).collect()).unwrap_or_default());
        });
        (name.clone(), receiver)
    });
    LookUps { began: Instant::now(), answers: answers.collect() }
}

impl LookUps {
    /// What was found in time.
    pub(super) fn finish(self) -> BTreeMap<String, Vec<IpAddr>> {
        let left = || PATIENCE.saturating_sub(self.began.elapsed());
        let found = self.answers.iter();
        found.map(|(name, answer)| (name.clone(), answer.recv_timeout(left()).unwrap_or_default())).collect()
    }
}

/// Decides on the pools: `needed` are addresses that no network may take, `attached` is what dockerd avoids by itself.
pub(super) fn decide(
    settings: &Settings,
    needed: &BTreeMap<String, Vec<IpAddr>>,
    attached: &[Subnet],
) -> Decision {
    let subject = "address pools";
    let told = &settings.network.pools;
    if !told.is_empty() {
        let arguments: Vec<String> = told.iter().map(Pool::argument).collect();
        let chosen = format!("{} of your own", told.len());
        return Decision::good(subject, "not looked at", chosen)
            .because("DIND_ADDRESS_POOLS says so")
            .with_arguments(arguments);
    }
    if settings.daemon.says(&["default-address-pool", "default-address-pools"]) {
        return Decision::good(subject, "not looked at", "what dockerd's options say");
    }
    let mut avoided = Vec::new();
    for (name, addresses) in needed {
        for address in addresses {
            let IpAddr::V4(v4) = address else { continue };
            let is_taken = attached.iter().any(|subnet| subnet.has(*v4));
            if !is_taken && standard().any(|(subnet, _)| subnet.has(*v4)) {
                avoided.push((
                    *v4,
                    if *name == v4.to_string() { name.clone() } else { format!("{name} ({v4})") },
                ));
            }
        }
    }
    let found = format!("routes to {} networks", attached.len());
    if avoided.is_empty() {
        return Decision::good(subject, found, "dockerd's own, which avoid them and the name servers");
    }
    let free = standard().filter(|(subnet, _)| !avoided.iter().any(|(address, _)| subnet.has(*address)));
    let arguments: Vec<String> = free.map(|(_, text)| format!("--default-address-pool={text}")).collect();
    let names: Vec<String> = avoided.into_iter().map(|(_, name)| name).collect();
    Decision::good(subject, found, "dockerd's own, less those that this host needs for others")
        .because(format!("{} would be out of reach", names.join(", ")))
        .with_arguments(arguments)
}

/// The networks that dockerd gives out by itself (moby, `libnetwork/ipamutils`), as it is told of them.
fn standard() -> impl Iterator<Item = (Subnet, String)> {
    let large = (17..=31).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..16).map(|part| (Ipv4Addr::new(192, 168, part * 16, 0), 20));
    large
        .chain(small)
        .map(|(base, bits)| (Subnet::new(base, bits), format!("base={base}/{bits},size={bits}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(environment: &[(&str, &str)]) -> Settings {
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Settings::load(environment, &[], |_| Ok(None)).unwrap()
    }

    fn decided(environment: &[(&str, &str)], needed: &[(&str, &str)]) -> Decision {
        let mut map: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for (name, address) in needed {
            map.entry((*name).to_owned()).or_default().push(address.parse().unwrap());
        }
        let attached = [Subnet::new(Ipv4Addr::new(172, 17, 0, 0), 16)];
        decide(&settings(environment), &map, &attached)
    }

    #[test]
    fn hosts_of_urls() {
        for (url, expected) in [
            ("http://proxy.example:3128", Some("proxy.example")),
            ("http://user:p@ss@10.0.0.1:3128/", Some("10.0.0.1")),
            ("https://[fd00::1]:5000/v2", Some("fd00::1")),
            ("proxy:3128", Some("proxy")),
            ("10.0.0.0/8", None),
            ("", None),
            ("http://", None),
        ] {
            assert_eq!(host(url), expected, "{url}");
        }
    }

    #[test]
    fn proxies_and_mirrors_are_needed() {
        let options = "--registry-mirror http://172.20.0.5:5000 --insecure-registry 10.0.0.0/8 \
                       --registry-mirror https://b.example";
        let settings = settings(&[
            ("HTTPS_PROXY", "http://a.example:1"),
            ("DOCKER_OPTS", options),
            ("DIND_REGISTRY_MIRRORS", "https://c.example"),
        ]);
        assert_eq!(needed(&settings), ["172.20.0.5", "a.example", "b.example", "c.example"]);
        assert!(
            look_up(&["127.0.0.1".to_owned()]).finish()["127.0.0.1"].contains(&Ipv4Addr::LOCALHOST.into())
        );
    }

    #[test]
    fn pools_are_given_only_where_they_must_be() {
        for needed in [
            &[][..],
            &[("10.0.0.1", "10.0.0.1")],
            // Attached: dockerd avoids it by itself.
            &[("172.17.0.9", "172.17.0.9")],
            &[("a", "fd00::1")],
        ] {
            assert!(decided(&[], needed).arguments.is_empty(), "{needed:?}");
        }
        let decision = decided(&[], &[("172.20.0.5", "172.20.0.5"), ("mirror", "192.168.17.3")]);
        let arguments = decision.arguments.join(" ");
        assert_eq!(decision.arguments.len(), 29);
        assert!(!arguments.contains("172.20.") && !arguments.contains("192.168.16."), "{arguments}");
        assert!(arguments.contains("base=172.18.0.0/16,size=16") && arguments.contains("192.168.0.0/20"));
        assert_eq!(decision.finding.why, "172.20.0.5, mirror (192.168.17.3) would be out of reach");
    }

    #[test]
    fn who_has_decided_is_obeyed() {
        let text = "base=10.200.0.0/16,size=24 base=fd00::/48,size=64";
        let told = decided(&[("DIND_ADDRESS_POOLS", text)], &[("p", "172.20.0.5")]);
        assert_eq!(
            told.arguments,
            [
                "--default-address-pool=base=10.200.0.0/16,size=24",
                "--default-address-pool=base=fd00::/48,size=64"
            ]
        );
        let options = ("DOCKER_OPTS", "--default-address-pool base=10.0.0.0/8,size=24");
        assert!(decided(&[options], &[("p", "172.20.0.5")]).arguments.is_empty());
    }

    #[test]
    fn pools_are_read_or_refused() {
        for bad in [
            "10.0.0.0/8",
            "base=10.0.0.0/8",
            "base=10.0.0.0/8,size=7",
            "base=10.0.0.0/33,size=33",
            "base=10.0.0.0/8,size=31",
            "base=x/8,size=24",
            "base=10.0.0.0/8,size=24,",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("  ").unwrap(), []);
    }
}
