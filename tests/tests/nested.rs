//! A host does what a Docker engine does: it runs, it builds, inside and from outside.

use dind_tests::{Call, Host, until};

#[test]
fn a_container_runs_inside_a_host() {
    let host = Host::options().start();
    host.load_busybox();
    host.assert_runs_containers();
}

#[test]
fn an_image_is_built_over_tls_from_outside_and_run() {
    let host = Host::options().start();
    host.load_busybox();
    let client = host.client();
    let dockerfile = "FROM busybox\nRUN echo built inside > /built\nCMD [\"cat\", \"/built\"]\n";
    client.call().args(["build", "-t", "app", "-"]).stdin(dockerfile).run().ok();
    assert_eq!(client.docker(["run", "--rm", "app"]).ok(), "built inside");
    assert_eq!(host.docker(["run", "--rm", "app"]).ok(), "built inside");
}

#[test]
fn a_nested_container_reaches_the_network_of_the_host() {
    let host = Host::options().start();
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
    Call::new("docker").args(["exec", host.name(), "docker", "rm", "-f", "web"]).run().ok();
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
