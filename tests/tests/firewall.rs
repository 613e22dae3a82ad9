//! The kind of iptables that dockerd uses: chosen, followed, told, or done without.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use dind_tests::{Host, HostOptions, Network, until, until_equal};
use serde_json::Value;

/// The finding of the host's own `doctor` on this subject.
#[track_caller]
fn finding(host: &Host, subject: &str) -> Value {
    let document = host.exec(["dind-init", "doctor", "--json"]).ok();
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["host"], true);
    let findings = document["findings"].as_array().cloned().unwrap_or_default();
    findings.into_iter().find(|finding| finding["subject"] == subject).expect(subject)
}

/// A host whose first program is a line of shell.
fn after(line: &str) -> HostOptions {
    let script = format!("{line}\nexec dind-init");
    Host::options().run(["--entrypoint", "sh"]).arguments(["-ec", &script])
}

/// The rules of one kind inside a host.
#[track_caller]
fn rules(host: &Host, kind: &str) -> String {
    host.exec([&format!("iptables-{kind}-save")]).ok()
}

/// What a published port says.
#[track_caller]
fn hear(address: &str, port: u16) -> String {
    until("a published port of a nested container", 30, || {
        let mut stream = TcpStream::connect((address, port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).ok()?;
        (!heard.is_empty()).then_some(heard)
    })
}

/// Publishes port 8000, on which a nested container says hello.
#[track_caller]
fn publish(host: &Host) {
    let serve = "while :; do echo hello | nc -l -p 80; done";
    host.docker(["run", "-d", "-p", "8000:80", "busybox", "sh", "-c", serve]).ok();
}

#[test]
fn each_kind_makes_networks_that_work() {
    for (kind, other) in [("nft", "legacy"), ("legacy", "nft")] {
        let network = Network::new(&[]);
        let neighbour = network.neighbour("neighbour");
        let host = Host::options()
            .run(["--network", network.name()])
            .env("DIND_FIREWALL", kind)
            // Without the proxy only rules bring packets to a published port.
            .env("DOCKER_OPTS", "--userland-proxy=false")
            .start();
        host.load_busybox();
        assert!(rules(&host, kind).contains("-j MASQUERADE"), "{kind}: {}", rules(&host, kind));
        assert!(!rules(&host, other).contains("docker0"), "{kind}: {}", rules(&host, other));
        let firewall = finding(&host, "firewall");
        assert!(firewall["chosen"].as_str().unwrap().starts_with(&format!("iptables-{kind}")), "{firewall}");
        assert_eq!(firewall["why"], format!("DIND_FIREWALL is {kind}"));
        assert_eq!(host.alarms(), []);
        publish(&host);
        assert_eq!(hear(&host.ip(), 8000), "hello\n", "{kind}");
        // By name and by address, the neighbour sees the host, not the container behind it.
        for address in ["neighbour", &neighbour.ip()] {
            let seen = || host.docker(["run", "--rm", "busybox", "nc", address, "80"]).stdout;
            until_equal("the neighbour to answer", 20, format!("{}\n", host.ip()), seen);
        }
        host.stop();
        host.assert_exited(0);
    }
}

#[test]
fn rules_that_are_there_are_followed() {
    for (kind, other) in [("nft", "legacy"), ("legacy", "nft")] {
        let host = after(&format!("iptables-{kind} -A INPUT -s 192.0.2.1 -j DROP")).start();
        let firewall = finding(&host, "firewall");
        assert_eq!(firewall["why"], "there are rules of this kind here already", "{firewall}");
        assert!(rules(&host, kind).contains("docker0"), "{}", rules(&host, kind));
        assert!(!rules(&host, other).contains("docker0"), "{}", rules(&host, other));
        host.load_busybox();
        host.assert_runs_containers();
    }
}

/// An outer engine brings its name server into the host with rules of its own kind, which do not bind this one.
#[test]
fn rules_of_an_outer_name_server_are_not_followed() {
    let network = Network::new(&[]);
    let options = |kind: &str| {
        let line = format!(
            "rm /usr/sbin/iptables /usr/sbin/ip6tables
             ln -s iptables-{kind} /usr/sbin/iptables; ln -s ip6tables-{kind} /usr/sbin/ip6tables"
        );
        after(&line).run(["--network", network.name()])
    };
    for kind in ["nft", "legacy"] {
        let host = options(kind).start();
        let firewall = finding(&host, "firewall");
        assert!(!firewall["why"].as_str().unwrap().contains("already"), "{firewall}");
    }
}

const NO_IP6TABLES: &str = "for name in $(cd /usr/sbin; ls -d ip6tables*); do
    rm /usr/sbin/$name
    printf '#!/bin/sh\\necho no IPv6 here >&2\\nexit 3\\n' > /usr/sbin/$name
    chmod 755 /usr/sbin/$name
done";

#[test]
fn without_ip6tables_a_host_says_so_and_runs() {
    let host = after(NO_IP6TABLES).start();
    let alarms = host.alarms();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert!(alarms[0].message.contains("no rules for IPv6") && alarms[0].message.contains("no IPv6 here"));
    assert_eq!(finding(&host, "firewall")["verdict"], "fallback");
    let options = host.shell(&format!("tr '\\0' ' ' < /proc/{}/cmdline", host.pid_of("dockerd"))).ok();
    assert!(options.contains("--ip6tables=false"), "{options}");
    host.load_busybox();
    host.assert_runs_containers();
}

/// A kernel without the table `raw`, as on many small boards.
#[test]
fn without_a_raw_table_dockerd_is_told() {
    let line = "for kind in nft legacy; do for name in iptables-$kind iptables-$kind-restore; do
        rm /usr/sbin/$name
        cat > /usr/sbin/$name <<END
#!/bin/sh
case \" \\$* \" in *' raw '* | *noflush*) echo 'table raw does not exist' >&2; exit 3 ;; esac
exec /usr/sbin/xtables-$kind-multi iptables \"\\$@\"
END
        chmod 755 /usr/sbin/$name
    done; done";
    let host = after(line).start();
    let alarms = host.alarms();
    assert!(alarms[0].message.contains("no table raw"), "{alarms:?}");
    let environment = host.shell(&format!("tr '\\0' '\\n' < /proc/{}/environ", host.pid_of("dockerd"))).ok();
    assert!(environment.contains("DOCKER_INSECURE_NO_IPTABLES_RAW=1"), "{environment}");
    host.load_busybox();
    publish(&host);
    assert_eq!(hear(&host.ip(), 8000), "hello\n");
}

#[test]
fn without_any_iptables_ports_are_published_by_the_proxy() {
    let remove = "rm /usr/sbin/xtables-nft-multi /usr/sbin/xtables-legacy-multi";
    let host = after(remove).start();
    let alarms = host.alarms();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert!(alarms[0].message.contains("none: dockerd makes no rules"), "{alarms:?}");
    host.load_busybox();
    publish(&host);
    assert_eq!(hear(&host.ip(), 8000), "hello\n");
    drop(host);
    let forced = after(remove).env("DIND_FIREWALL", "legacy");
    forced.refused(69, &["firewall", "leave DIND_FIREWALL out"]);
}

#[test]
fn who_wants_no_rules_gets_none() {
    let table = [
        Host::options().env("DIND_FIREWALL", "off"),
        Host::options().env("DOCKER_OPTS", "--iptables=false"),
        Host::options().file("/etc/docker/daemon.json", 0o644, r#"{"iptables": false}"#),
    ];
    for options in table {
        let host = options.start();
        assert!(!rules(&host, "nft").contains("docker0") && !rules(&host, "legacy").contains("docker0"));
        assert_eq!(finding(&host, "firewall")["found"], "not looked at");
        assert_eq!(host.alarms(), []);
    }
    let twice = Host::options().env("DIND_FIREWALL", "nft").arguments(["--iptables=false"]);
    twice.refused(64, &["DIND_FIREWALL=nft", "iptables"]);
}
