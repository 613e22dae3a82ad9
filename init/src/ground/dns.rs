//! Name servers of nested containers.
//!
//! dockerd gives containers the name servers of its own `/etc/resolv.conf`, but not those on loopback: on the default bridge
//! and in builds they get a public one instead (moby#20037), which does not know the names of the networks around this
//! host, or is not reachable at all. On networks that users make, dockerd itself asks the loopback server for them. So it
//! is told of a relay ([`crate::resolver`]) as soon as there is nothing but loopback.
//!
//! On networks that users make, dockerd asks nobody outside for a name without a dot as soon as its own `resolv.conf` has
//! `options ndots`, even `ndots:0` (moby#53104), which is what Docker writes there for a container on a network of its own.
//! Options that dockerd is told take the place of those in the file, so it is told of the others.

use std::net::IpAddr;

use dind_contract::variables;

use super::decision::Decision;
use crate::failure::Failure;
use crate::resolver;
use crate::settings::Settings;

/// Where dockerd looks, too.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// An option that changes nothing: every resolver asks twice (resolv.conf(5)).
const DEFAULT_OPTION: &str = "attempts:2";

/// Reads `DIND_DNS`.
pub(super) fn parse(text: &str) -> Result<Vec<IpAddr>, Failure> {
    let name = variables::DIND_DNS;
    let help = "separate addresses with commas, for example DIND_DNS=10.0.0.53,10.0.1.53";
    text.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(|word| {
            let address: IpAddr = word
                .parse()
                .map_err(|_| Failure::usage(format!("{name}: {word:?} is not an IP address"), help))?;
            if address.is_loopback() || address.is_unspecified() {
                return Err(Failure::usage(
                    format!("{name}: {address} means something else in each container"),
                    "name servers that containers can reach, or leave it out to have this host's own relayed",
                ));
            }
            Ok(address)
        })
        .collect()
}

/// The name servers in the text of a resolv.conf(5).
fn servers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            // An address of a link has its interface after a percent sign, and is of no use elsewhere.
            words.next().filter(|word| *word == "nameserver").and_then(|_| words.next()?.parse().ok())
        })
        .collect()
}

/// The options that dockerd must be told because the file has `ndots:0`, which does harm in it.
fn options(text: &str) -> Vec<&str> {
    let all: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("options"))
        .flat_map(str::split_whitespace)
        .collect();
    if !all.contains(&"ndots:0") {
        return Vec::new();
    }
    let others: Vec<&str> = all.into_iter().filter(|option| !option.starts_with("ndots")).collect();
    if others.is_empty() { vec![DEFAULT_OPTION] } else { others }
}

/// Decides on the name servers of nested containers; `text` is what is in `resolv.conf`.
pub(super) fn decide(settings: &Settings, text: &str) -> Decision {
    let decision = decide_servers(settings, &servers(text));
    if settings.daemon.says(&["dns-opt", "dns-opts"]) {
        return decision;
    }
    decision.with_arguments(options(text).into_iter().map(|option| format!("--dns-opt={option}")))
}

fn decide_servers(settings: &Settings, servers: &[IpAddr]) -> Decision {
    let list = |servers: &[IpAddr]| servers.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let found = match servers {
        [] => format!("{RESOLV_CONF} names no server"),
        servers => format!("{RESOLV_CONF} names {}", list(servers)),
    };
    let told = &settings.network.dns;
    if !told.is_empty() {
        return Decision::good("dns", found, list(told))
            .because("DIND_DNS says so")
            .with_arguments(told.iter().map(|server| format!("--dns={server}")));
    }
    if settings.daemon.says(&["dns"]) {
        return Decision::good("dns", found, "what dockerd's options say");
    }
    if servers.is_empty() || servers.iter().any(|server| !server.is_loopback()) {
        return Decision::good("dns", found, "the same for nested containers, dockerd's own choice");
    }
    let relay = resolver::ADDRESS;
    let mut decision =
        Decision::good("dns", found, format!("a relay to it on {relay} for nested containers"))
            .because("they cannot reach this host's loopback, and dockerd would give them 8.8.8.8")
            .with_arguments([format!("--dns={relay}")]);
    decision.relayed = servers.to_vec();
    decision
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(environment: &[(&str, &str)]) -> Settings {
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Settings::load(environment, &[], |_| Ok(None)).unwrap()
    }

    fn decided(environment: &[(&str, &str)], text: &str) -> (String, usize) {
        let decision = decide(&settings(environment), text);
        (decision.arguments.join(" "), decision.relayed.len())
    }

    proptest! {
        #[test]
        fn any_resolv_conf_is_read(text in "(nameserver|options|ndots:0|[ -~\n]){0,40}") {
            let _ = (servers(&text), options(&text));
        }
    }

    #[test]
    fn servers_of_resolv_conf() {
        let text = "# made by x\nsearch a.example b.example\nnameserver 127.0.0.11\n nameserver ::1 # x\n\
                    nameserver\nnameserver fe80::1%eth0\noptions ndots:0\nnameservers 1.1.1.1\n";
        assert_eq!(servers(text), ["127.0.0.11".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
    }

    #[test]
    fn an_ndots_of_outer_docker_does_no_harm() {
        for (text, expected) in [
            ("nameserver 127.0.0.11\noptions ndots:0\n", &["attempts:2"][..]),
            ("options edns0 trust-ad ndots:0\noptions timeout:1\n", &["edns0", "trust-ad", "timeout:1"]),
            ("options ndots:5\n", &[]),
            ("options edns0\n", &[]),
            ("", &[]),
        ] {
            assert_eq!(options(text), expected, "{text}");
        }
        let told = [("DOCKER_OPTS", "--dns-opt ndots:2")];
        assert_eq!(decided(&told, "nameserver 10.0.0.1\noptions ndots:0\n").0, "");
        assert_eq!(decided(&[], "nameserver 10.0.0.1\noptions ndots:0\n").0, "--dns-opt=attempts:2");
    }

    #[test]
    fn a_relay_only_where_there_is_nothing_but_loopback() {
        let loopback = "nameserver 127.0.0.11\n";
        let both = "nameserver 127.0.0.53\nnameserver 10.0.0.1\n";
        for (environment, text, arguments, relayed) in [
            (&[][..], loopback, "--dns=169.254.53.53", 1),
            (&[], "nameserver 127.0.0.1\nnameserver ::1\n", "--dns=169.254.53.53", 2),
            (&[], both, "", 0),
            (&[], "nameserver 10.0.0.1\n", "", 0),
            (&[], "", "", 0),
            (&[("DOCKER_OPTS", "--dns 10.0.0.9")], loopback, "", 0),
            (&[("DIND_DNS", "10.0.0.9, fd00::9")], loopback, "--dns=10.0.0.9 --dns=fd00::9", 0),
        ] {
            assert_eq!(decided(environment, text), (arguments.to_owned(), relayed), "{environment:?} {text}");
        }
    }
}
