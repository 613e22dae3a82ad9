//! Networks inside fit what is around the host: packet size, names, addresses.

use dind_tests::{Call, Host, Network, until, until_equal};

const COMPOSE: &str = "services:\n  app:\n    image: busybox\n    command: cat /sys/class/net/eth0/mtu\n";

/// The MTU in containers on the default bridge, on a network that a user made, and on one that Compose made.
#[track_caller]
fn mtus(host: &Host) -> Vec<String> {
    host.load_busybox();
    host.docker(["network", "create", "made"]).ok();
    let cat = |network| ["run", "--rm", "--network", network, "busybox", "cat", "/sys/class/net/eth0/mtu"];
    let mut mtus = vec![host.docker(cat("bridge")).ok(), host.docker(cat("made")).ok()];
    mtus.push(host.docker(["compose", "-f", "/app/compose.yml", "run", "--rm", "--quiet-pull", "app"]).ok());
    mtus
}

#[test]
fn every_network_inside_takes_what_a_narrow_way_out_takes() {
    let network = Network::new(&["-o", "com.docker.network.driver.mtu=1400"]);
    let narrow = Host::options().run(["--network", network.name()]).file("/app/compose.yml", 0o644, COMPOSE);
    assert_eq!(mtus(&narrow.clone().start()), ["1400", "1400", "1400"]);
    assert_eq!(mtus(&narrow.env("DIND_MTU", "1280").start()), ["1280", "1280", "1280"]);
}

/// Asserts that nested containers of every sort find the neighbour of the host by its name.
#[track_caller]
fn assert_names_are_found(host: &Host) {
    for network in ["bridge", "made", "host"] {
        let ask = ["run", "--rm", "--network", network, "busybox", "nc", "neighbour", "80"];
        let answer = || host.docker(ask).stdout;
        let what = format!("the neighbour to answer from {network}");
        until_equal(&what, 20, format!("{}\n", host.ip()), answer);
    }
}

#[test]
fn nested_containers_find_the_names_of_an_outer_network() {
    let network = Network::new(&[]);
    let neighbour = network.neighbour("neighbour");
    let host = Host::options()
        .run(["--network", network.name(), "--dns-search", "inner.example"])
        .run(["--dns-search", "outer.example"])
        .start();
    host.load_busybox();
    host.docker(["network", "create", "made"]).ok();
    assert_names_are_found(&host);
    let resolv_conf = host.docker(["run", "--rm", "busybox", "cat", "/etc/resolv.conf"]).ok();
    assert!(resolv_conf.contains("nameserver 169.254.53.53\n"), "{resolv_conf}");
    assert!(resolv_conf.contains("search inner.example outer.example"), "{resolv_conf}");
    // Both builders.
    for buildkit in ["0", "1"] {
        let setting = format!("DOCKER_BUILDKIT={buildkit}");
        let build = ["exec", "-i", "-e", &setting, host.name(), "docker", "build", "--no-cache", "-"];
        let dockerfile = "FROM busybox\nRUN test -n \"$(nc neighbour 80)\"\n";
        Call::new("docker").args(build).stdin(dockerfile).run().ok();
    }
    // Over TCP, which is for answers that fit no datagram: a query for the neighbour's address as RFC 1035 has it.
    let query = r"\000\033\022\064\001\000\000\001\000\000\000\000\000\000\011neighbour\000\000\001\000\001";
    let ask = format!("printf '{query}' | timeout 10 nc 169.254.53.53 53 | busybox od -An -tu1");
    let answer = host.docker(["run", "--rm", "busybox", "busybox", "sh", "-c", &ask]).ok();
    let numbers = answer.split_whitespace().collect::<Vec<_>>().join(".");
    assert!(numbers.ends_with(&neighbour.ip()), "{numbers} and not {}", neighbour.ip());
}

#[test]
fn a_relay_that_dies_is_started_again_and_holds_nothing_up() {
    let network = Network::new(&[]);
    let _neighbour = network.neighbour("neighbour");
    // As PID 1 and as the child of another init.
    for init in [&[][..], &["--init"]] {
        let host = Host::options().run(["--network", network.name()]).run(init).start();
        host.load_busybox();
        host.docker(["network", "create", "made"]).ok();
        host.shell(&format!("kill -9 {}", host.pid_of("resolver"))).ok();
        until("the relay to be started again", 20, || {
            let resolver = host.service("resolver");
            (resolver["restarts"] == 1 && resolver["state"] == "ready").then_some(())
        });
        assert_eq!(host.status()["phase"], "ready");
        assert!(!host.logs().contains("ready again"), "{}", host.logs());
        assert_names_are_found(&host);
        host.stop();
        host.assert_exited(0);
        host.start();
        assert_names_are_found(&host);
        host.shell(&format!("kill -9 {}", host.pid_of("resolver"))).ok();
        host.stop();
        host.assert_exited(0);
        assert!(!host.logs().contains("the last stop was not clean"), "{}", host.logs());
    }
}

#[test]
fn a_stranger_outside_does_not_reach_the_relay() {
    let network = Network::new(&[]);
    let _neighbour = network.neighbour("neighbour");
    let on_network = || Host::options().run(["--network", network.name()]);
    let host = on_network().start();
    // It is on the same network, sends to the relay's address by way of the host, and has no relay of its own.
    let stranger = on_network().env("DIND_DNS", "192.0.2.53").start();
    for it in [&host, &stranger] {
        it.load_busybox();
    }
    assert_eq!(stranger.status()["services"].as_array().unwrap().len(), 2);
    let privileged = ["run", "--rm", "--network", "host", "--cap-add", "NET_ADMIN", "busybox", "busybox"];
    let route = ["ip", "route", "add", "169.254.53.53", "via", &host.ip()];
    stranger.docker(privileged.iter().chain(&route)).ok();
    let ask = [
        "run",
        "--rm",
        "busybox",
        "busybox",
        "timeout",
        "8",
        "busybox",
        "nslookup",
        "neighbour",
        "169.254.53.53",
    ];
    let heard = host.docker(ask).stdout;
    assert!(heard.contains("Name:"), "{heard}");
    // The address itself answers: it is the relay that does not.
    let ping = ["run", "--rm", "busybox", "busybox", "ping", "-c", "1", "-W", "5", "169.254.53.53"];
    stranger.docker(ping).ok();
    let unheard = stranger.docker(ask);
    assert!(!unheard.stdout.contains("Name:"), "{unheard}");
}

#[test]
fn who_names_servers_gets_those() {
    let network = Network::new(&[]);
    let on_network = || Host::options().run(["--network", network.name()]);
    for options in [
        on_network().env("DIND_DNS", "192.0.2.53,192.0.2.54"),
        on_network().env("DOCKER_OPTS", "--dns 192.0.2.53 --dns 192.0.2.54"),
    ] {
        let host = options.start();
        host.load_busybox();
        let resolv_conf = host.docker(["run", "--rm", "busybox", "cat", "/etc/resolv.conf"]).ok();
        assert!(resolv_conf.contains("nameserver 192.0.2.53\nnameserver 192.0.2.54\n"), "{resolv_conf}");
        assert_eq!(host.status()["services"].as_array().unwrap().len(), 2);
    }
    let twice = Host::options().env("DIND_DNS", "192.0.2.53").arguments(["--dns=192.0.2.54"]);
    twice.refused(64, &["DIND_DNS is set"]);
}

/// Makes so many networks inside a host that every pool of dockerd is used; all subnets inside, the default bridge's first.
#[track_caller]
fn subnets(host: &Host, count: usize) -> Vec<String> {
    let names: Vec<String> = (0..count).map(|number| format!("made-{number}")).collect();
    let create = format!("for name in {}; do docker network create $name; done", names.join(" "));
    host.shell(&create).ok();
    let format = "{{range .IPAM.Config}}{{.Subnet}}{{end}}";
    let inspect = ["network", "inspect", "-f", format, "bridge"];
    let found = host.docker(inspect.into_iter().chain(names.iter().map(String::as_str))).ok();
    let subnets: Vec<String> = found.lines().map(str::to_owned).collect();
    assert_eq!(subnets.len(), count + 1, "{found}");
    subnets
}

/// A block of addresses as its first and its last.
fn range(subnet: &str) -> (u32, u32) {
    let (base, bits) = subnet.split_once('/').unwrap();
    let base: std::net::Ipv4Addr = base.parse().unwrap();
    let size = 1_u32 << (32 - bits.parse::<u32>().unwrap());
    (base.to_bits(), base.to_bits() + (size - 1))
}

fn overlap(one: &str, other: &str) -> bool {
    let (one, other) = (range(one), range(other));
    one.0 <= other.1 && other.0 <= one.1
}

#[test]
fn networks_inside_take_no_address_that_the_host_needs() {
    // In the middle of what dockerd gives out by itself.
    let first =
        Network::with_free_subnet(&["172.21.0.0/16", "172.22.0.0/16", "172.23.0.0/16", "172.24.0.0/16"]);
    let second = Network::with_free_subnet(&["192.168.0.0/20", "192.168.16.0/20", "192.168.32.0/20"]);
    let neighbours = [first.neighbour("first"), second.neighbour("second")];
    let host = Host::options()
        .run(["--network", first.name()])
        .env("HTTP_PROXY", "http://172.30.0.5:3128")
        .env("NO_PROXY", "*")
        .env("DOCKER_OPTS", "--registry-mirror https://192.168.50.1")
        .create();
    second.connect(&host);
    host.start();
    host.load_busybox();
    let inside = subnets(&host, 22);
    for needed in [&first.subnet(), &second.subnet(), "172.30.0.5/32", "192.168.50.1/32"] {
        let taken: Vec<_> = inside.iter().filter(|subnet| overlap(subnet, needed)).collect();
        assert!(taken.is_empty(), "{needed} is taken by {taken:?}");
    }
    for (at, subnet) in inside.iter().enumerate() {
        assert!(!inside[..at].iter().any(|other| overlap(other, subnet)), "{inside:?}");
    }
    for (neighbour, network) in neighbours.iter().zip([&first, &second]) {
        for inside in ["bridge", "made-0", "made-21"] {
            let ask = ["run", "--rm", "--network", inside, "busybox", "nc", &neighbour.ip(), "80"];
            let seen = || host.docker(ask).stdout;
            until_equal("the neighbour to answer", 20, format!("{}\n", network.address_of(&host)), seen);
        }
    }
    assert!(host.logs().contains("172.30.0.5, 192.168.50.1 would be out of reach"), "{}", host.logs());
}

#[test]
fn who_names_pools_gets_those() {
    let host = Host::options().env("DIND_ADDRESS_POOLS", "base=10.200.0.0/23,size=24").start();
    let mut inside = subnets(&host, 1);
    inside.sort();
    assert_eq!(inside, ["10.200.0.0/24", "10.200.1.0/24"]);
}

#[test]
fn forwarding_is_on_or_said_to_be_off() {
    let off = || Host::options().run(["--sysctl", "net.ipv4.ip_forward=0"]);
    let forwards = |host: &Host| host.shell("cat /proc/sys/net/ipv4/ip_forward").ok();
    let host = off().start();
    assert_eq!(forwards(&host), "1");
    assert_eq!(host.alarms(), []);
    drop(host);
    let script = "file=/proc/sys/net/ipv4/ip_forward\n\
                  mount --bind $file $file && mount -o remount,bind,ro $file && exec dind-init";
    let host = off().run(["--entrypoint", "sh"]).arguments(["-c", script]).start();
    assert_eq!(forwards(&host), "0");
    let alarms = host.alarms();
    assert!(alarms[0].message.contains("--sysctl net.ipv4.ip_forward=1"), "{alarms:?}");
    host.load_busybox();
    host.assert_runs_containers();
}
