//! `LOCAL`: a host that nobody reaches over the network.

use dind_tests::Host;

#[test]
fn a_local_host_listens_on_no_port_at_all() {
    for value in ["true", ""] {
        let host = Host::options().env("LOCAL", value).start();
        assert_eq!(host.listening_ports(), [0_u16; 0], "LOCAL={value}\n{}", host.logs());
        assert_eq!(host.status()["endpoint"]["docker_host"], "unix:///var/run/docker.sock");
        assert!(host.logs().contains("DOCKER_HOST=unix:///var/run/docker.sock"), "{}", host.logs());
        host.load_busybox();
        host.assert_runs_containers();
        host.stop();
        host.assert_exited(0);
    }
}

#[test]
fn local_said_no_to_is_not_local() {
    let host = Host::options().env("LOCAL", "no").start();
    assert_eq!(host.listening_ports(), [2376], "{}", host.logs());
    host.client().docker(["version"]).ok();
}
