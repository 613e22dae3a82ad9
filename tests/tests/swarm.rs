//! Hosts as the nodes of a Swarm: on one network, joined by what Docker publishes for it, with the options of any host.

use std::collections::BTreeSet;

use dind_tests::{Client, Host, Network, until, until_equal};

/// So many replicas, two a node.
const REPLICAS: usize = 6;

/// A service that says to who asks which of its replicas it is.
const SERVER: &str = "while :; do busybox hostname | nc -l -p 80; done";

/// On which nodes replicas run that are to run, sorted.
#[track_caller]
fn places(manager: &Client) -> Vec<String> {
    let list = ["service", "ps", "web", "--filter", "desired-state=running"];
    let list = list.into_iter().chain(["--format", "{{.Node}} {{.CurrentState}}"]);
    let tasks = manager.docker(list).ok();
    let running = tasks
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, state)| state.starts_with("Running"));
    let mut nodes: Vec<String> = running.map(|(node, _)| node.to_owned()).collect();
    nodes.sort();
    nodes
}

/// The states of the nodes, by name.
#[track_caller]
fn nodes(manager: &Client) -> String {
    let list = manager.docker(["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]).ok();
    let mut lines: Vec<&str> = list.lines().collect();
    lines.sort_unstable();
    lines.join(", ")
}

/// The replicas that a container on the service's network reaches from this host, each at an address of its own.
#[track_caller]
fn reached_from(client: &Client) -> BTreeSet<String> {
    // Through the host's overlay to those of the others.
    let ask = "for ip in $(busybox nslookup tasks.web 127.0.0.11 | awk '/^Address: /{print $2}'); do \
               nc -w 5 $ip 80 </dev/null; done";
    let run = ["run", "--rm", "--network", "between", "busybox", "sh", "-c", ask];
    client.docker(run).stdout.lines().map(str::to_owned).collect()
}

#[test]
fn three_hosts_are_a_swarm_that_heals() {
    let network = Network::new(&[]);
    let names = ["one", "two", "three"];
    let hosts = names.map(|name| {
        let host = Host::options().run(["--network", network.name(), "--hostname", name]).create();
        dind_tests::docker(["start", host.name()]).ok();
        host
    });
    for host in &hosts {
        host.wait();
        host.load_busybox();
    }
    let [one, two, three] = hosts.each_ref().map(Host::client);
    one.docker(["swarm", "init"]).ok();
    // Soon enough for a test; a node counts as down when it has missed three.
    one.docker(["swarm", "update", "--dispatcher-heartbeat", "2s"]).ok();
    let token = one.docker(["swarm", "join-token", "-q", "worker"]).ok();
    let manager = format!("{}:2377", hosts[0].ip());
    for worker in [&two, &three] {
        worker.docker(["swarm", "join", "--token", &token, &manager]).ok();
    }
    until_equal("all nodes to be ready", 30, "one Ready, three Ready, two Ready", || nodes(&one));

    one.docker(["network", "create", "--driver", "overlay", "--attachable", "between"]).ok();
    // By each address and not by a common one: for that the kernel needs IPVS, which not every machine has.
    let create = ["service", "create", "--detach", "--name", "web", "--network", "between", "--init"];
    let create = create.into_iter().chain(["--endpoint-mode", "dnsrr", "--no-resolve-image", "--replicas"]);
    one.docker(create.chain([REPLICAS.to_string().as_str(), "busybox", "sh", "-c", SERVER])).ok();
    let spread = ["one", "one", "three", "three", "two", "two"];
    until_equal("two replicas on each node", 60, spread, || places(&one));
    for client in [&one, &two, &three] {
        until_equal("all replicas to be reached", 60, REPLICAS, || reached_from(client).len());
    }

    // A node is lost, as in a power cut, and what ran there runs elsewhere.
    hosts[2].signal("KILL");
    until("the replicas to run elsewhere", 60, || {
        let places = places(&one);
        (places.len() == REPLICAS && !places.contains(&"three".to_owned())).then_some(())
    });
    until_equal("the node to count as down", 60, "one Ready, three Down, two Ready", || nodes(&one));
    until_equal("all replicas to be reached", 60, REPLICAS, || reached_from(&two).len());

    // It comes back by itself, and does its part again.
    hosts[2].start();
    assert_eq!(hosts[2].status()["last_stop"], "unclean");
    until_equal("all nodes to be ready", 60, "one Ready, three Ready, two Ready", || nodes(&one));
    one.docker(["service", "scale", "--detach", "web=12"]).ok();
    until("replicas to run on it", 60, || places(&one).contains(&"three".to_owned()).then_some(()));
    for host in &hosts {
        host.stop();
        host.assert_exited(0);
    }
}

/// A service of hosts, as the API takes it. The docker command has no options for `Privileges`.
const HOSTS: &str = r#"{
    "Name": "by-the-api",
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "host",
            "CapabilityAdd": ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE"],
            "Privileges": {"Seccomp": {"Mode": "unconfined"}, "AppArmor": {"Mode": "disabled"}}
        },
        "RestartPolicy": {"Condition": "none"}
    },
    "Mode": {"Replicated": {"Replicas": 2}}
}"#;

/// Sends a service to the API on the engine's socket; prints what it answers.
const SEND: &str = r#"use IO::Socket::UNIX;
    my $s = IO::Socket::UNIX->new("/var/run/docker.sock") or die;
    print $s "POST /v1.44/services/create HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: ", length $ARGV[0],
        "\r\n\r\n", $ARGV[0];
    print while <$s>;"#;

/// The containers of a service's tasks, the ended ones too.
#[track_caller]
fn tasks(node: &Host, service: &str) -> Vec<String> {
    let list = ["ps", "-aq", "--filter", &format!("label=com.docker.swarm.service.name={service}")];
    node.docker(list).ok().lines().map(str::to_owned).collect()
}

#[test]
fn hosts_are_replicas_of_a_service_without_being_privileged() {
    let node = Host::options().start();
    node.load_busybox();
    node.import_engine("host");
    node.docker(["swarm", "init"]).ok();

    // The docker command can give capabilities, and nothing of what forbids them: the host says so, and ends.
    let create = ["service", "create", "--detach", "--no-resolve-image", "--name", "by-the-command"];
    let capabilities =
        ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"].into_iter().flat_map(|name| ["--cap-add", name]);
    let create = create.into_iter().chain(capabilities);
    node.docker(create.chain(["--restart-condition", "none", "host"])).ok();
    let task = until("the task to end", 60, || {
        let tasks = tasks(&node, "by-the-command");
        tasks
            .into_iter()
            .find(|id| node.docker(["inspect", "-f", "{{.State.Status}}", id]).stdout == "exited\n")
    });
    assert_eq!(node.docker(["inspect", "-f", "{{.State.ExitCode}}", &task]).ok(), "69");
    node.docker(["logs", &task]).says(&["may not join a session keyring", "seccomp=unconfined"]);

    // The API can, since 1.44.
    let answer = node.exec(["perl", "-e", SEND, HOSTS]).ok();
    assert!(answer.contains("201 Created"), "{answer}");
    until_equal("two hosts to run", 60, 2, || {
        let running = ["ps", "-q", "--filter", "label=com.docker.swarm.service.name=by-the-api"];
        node.docker(running).ok().lines().count()
    });
    for host in tasks(&node, "by-the-api") {
        let inside = |line: &str| node.shell(&format!("docker exec -i {host} {line}"));
        inside("dind-init wait --timeout 60").ok();
        node.shell(&format!("docker save busybox | docker exec -i {host} docker load")).ok();
        assert_eq!(
            inside("docker run --rm busybox echo from a host in a service").ok(),
            "from a host in a service"
        );
        // What a service cannot be given is the rule for devices.
        assert!(inside("dind-init doctor").ok().contains("--device-cgroup-rule"));
    }
    // The tasks are stopped as containers are.
    node.docker(["service", "rm", "by-the-api"]).ok();
    until("the hosts to be gone", 60, || tasks(&node, "by-the-api").is_empty().then_some(()));
    node.stop();
    node.assert_exited(0);
}
