//! A host does what a Docker engine does: it runs, it builds, inside and from outside.

use dind_tests::{Call, Host, until};

pub(crate) fn a_container_runs_inside_a_host(host: &Host) {
    host.load_busybox();
    host.assert_runs_containers();
}

pub(crate) fn an_image_is_built_over_tls_from_outside_and_run(host: &Host) {
    host.load_busybox();
    let client = host.client();
    let dockerfile = "FROM busybox\nRUN echo built inside > /built\nCMD [\"cat\", \"/built\"]\n";
    client.call().args(["build", "-t", "app", "-"]).stdin(dockerfile).run().ok();
    assert_eq!(client.docker(["run", "--rm", "app"]).ok(), "built inside");
    assert_eq!(host.docker(["run", "--rm", "app"]).ok(), "built inside");
}

pub(crate) fn a_nested_container_reaches_the_network_of_the_host(host: &Host) {
    host.load_busybox();
    let serve = "while :; do echo hello | nc -l -p 80; done";
    host.docker(["run", "-d", "--name", "web", "-p", "8000:80", "busybox", "sh", "-c", serve]).ok();
    let address = (host.ip(), 8000);
    let heard = until("a published port of a nested container", 20, || {
        use std::io::Read;
        let mut stream = std::net::TcpStream::connect((address.0.as_str(), address.1)).ok()?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).ok()?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).ok()?;
        (!heard.is_empty()).then_some(heard)
    });
    assert_eq!(heard, "hello\n");
}

#[test]
fn memory_and_cpus_of_the_host_bind_what_runs_inside() {
    let host = Host::options().run(["-m", "4g", "--cpuset-cpus", "0"]).start();
    host.load_busybox();
    host.assert_runs_containers();
    assert_eq!(host.docker(["info", "--format", "{{.NCPU}}"]).ok(), "1");
    let allowed = host.docker(["run", "--rm", "busybox", "sh", "-c", "cat /proc/self/status"]).ok();
    assert!(allowed.lines().any(|line| line == "Cpus_allowed_list:\t0"), "{allowed}");
}

/// A process in a nested container starts with no signal blocked and none ignored, as on any other engine.
pub(crate) fn signals_reach_what_runs_in_a_nested_container(host: &Host) {
    host.load_busybox();
    host.docker(["run", "-d", "--name", "worker", "busybox", "sleep", "1000"]).ok();
    let run = host.docker(["run", "--rm", "busybox", "cat", "/proc/self/status"]).ok();
    let exec = host.docker(["exec", "worker", "cat", "/proc/self/status"]).ok();
    for status in [run, exec] {
        let masks = status.lines().filter(|line| line.starts_with("SigBlk:") || line.starts_with("SigIgn:"));
        let masks: Vec<&str> = masks.collect();
        assert_eq!(masks, ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"]);
    }
    let script = "trap 'echo heard; exit' USR1; kill -USR1 $$; sleep 1";
    assert_eq!(host.docker(["run", "--rm", "busybox", "sh", "-c", script]).ok(), "heard");
}

/// Containers of another user than root are joined in every way that there is, as on any other engine: that takes SYS_PTRACE.
pub(crate) fn a_container_of_another_user_is_joined(host: &Host) {
    host.load_image("redis");
    host.run_redis("db", &["--ipc", "shareable"]);
    let user = |options: &[&str]| {
        let exec = ["exec"].into_iter().chain(options.iter().copied());
        host.docker(exec.chain(["db", "id", "-u"])).ok()
    };
    assert_eq!(user(&[]), "0");
    assert_eq!(user(&["-u", "redis"]), "999");
    assert_eq!(user(&["-u", "1234"]), "1234");
    assert_eq!(user(&["--privileged", "-u", "redis"]), "999");
    let beside = |options: &[&str], line: &str| {
        let run = ["run", "--rm"].into_iter().chain(options.iter().copied());
        host.docker(run.chain(["redis", "sh", "-c", line])).ok()
    };
    assert_eq!(beside(&["--network", "container:db"], "redis-cli ping"), "PONG");
    let server = "cat /proc/1/comm; grep -w Uid: /proc/1/status | cut -f 2";
    assert_eq!(beside(&["--pid", "container:db"], server), "redis-server\n999");
    assert_eq!(beside(&["--pid", "container:db", "--user", "redis"], server), "redis-server\n999");
    let namespace = |container: &[&str]| beside(container, "readlink /proc/self/ns/ipc");
    let own = host.docker(["exec", "db", "readlink", "/proc/self/ns/ipc"]).ok();
    assert_eq!(namespace(&["--ipc", "container:db"]), own);
    assert_ne!(namespace(&[]), own);
}

/// What a person does with a database that runs: each asks for the processes, files or mounts of another user.
#[test]
fn a_database_is_looked_at_copied_and_committed() {
    let host = Host::options().start();
    host.load_image("redis");
    host.run_redis("db", &[]);
    let top = host.docker(["top", "db", "-o", "pid,uid,comm"]).ok();
    assert!(top.lines().any(|line| line.split_whitespace().skip(1).eq(["999", "redis-server"])), "{top}");
    let stats = host.docker(["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", "db"]).ok();
    assert!(!stats.starts_with("0 ") && !stats.contains(" 0B "), "{stats}");
    host.count_up("db");
    host.docker(["exec", "-u", "redis", "db", "sh", "-c", "echo by redis >/tmp/note"]).ok();
    host.docker(["cp", "db:/tmp/note", "/note"]).ok();
    host.docker(["cp", "/note", "db:/tmp/copied"]).ok();
    assert_eq!(host.docker(["exec", "-u", "redis", "db", "cat", "/tmp/copied"]).ok(), "by redis");
    host.docker(["commit", "db", "kept"]).ok();
    let note = ["run", "--rm", "--entrypoint", "stat", "kept", "-c", "%u:%g %n", "/tmp/note"];
    assert_eq!(host.docker(note).ok(), "999:999 /tmp/note");
    host.docker(["restart", "db"]).ok();
    host.wait_healthy("db");
    assert_eq!(host.count_up("db"), 2);
    host.assert_redis_owns_its_data("db");
    assert_eq!(host.docker(["port", "db"]).ok(), "");
    assert_eq!(host.docker(["kill", "-s", "TERM", "db"]).ok(), "db");
    assert_eq!(host.docker(["wait", "db"]).ok(), "0");
}

pub(crate) fn the_image_brings_compose_and_both_builders(host: &Host) {
    host.load_busybox();
    host.docker(["compose", "version"]).ok();
    host.docker(["buildx", "version"]).ok();
    for buildkit in ["0", "1"] {
        let dockerfile = format!("FROM busybox\nRUN echo {buildkit} > /built\nCMD [\"cat\", \"/built\"]\n");
        let setting = format!("DOCKER_BUILDKIT={buildkit}");
        let build = ["exec", "-i", "-e", &setting, host.name(), "docker", "build", "-t", "app", "-"];
        Call::new("docker").args(build).stdin(dockerfile).run().ok();
        assert_eq!(host.docker(["run", "--rm", "app"]).ok(), buildkit);
    }
}

pub(crate) fn packets_are_no_larger_than_the_way_out_takes(host: &Host) {
    host.load_busybox();
    let mtu = |output: String| output.trim().parse::<u32>().unwrap();
    // Of the host's own interface, of the default bridge, and of a network such as Compose makes.
    let outside = mtu(host.shell("cat /sys/class/net/eth0/mtu").ok());
    host.docker(["network", "create", "made"]).ok();
    for network in ["bridge", "made"] {
        let cat = ["run", "--rm", "--network", network, "busybox", "cat", "/sys/class/net/eth0/mtu"];
        assert_eq!(mtu(host.docker(cat).ok()), outside.min(1500), "{network}");
    }
}
