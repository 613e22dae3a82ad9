//! What the machine or the image lacks: an error that names it, exit code 69.

use std::os::unix::net::UnixListener;

use dind_tests::{Call, Host, HostOptions, IMAGE, Volume};

#[test]
fn a_missing_program_is_named() {
    for program in ["dockerd", "containerd"] {
        let script = format!("rm $(command -v {program}) && exec dind-init");
        let options = Host::options().run(["--entrypoint", "sh"]).arguments(["-c", &script]);
        options.refused(69, &[&format!("{program} is not in this image")]);
    }
}

#[test]
fn a_port_already_taken_is_named() {
    let first = Host::options().start();
    let same_network = |options: HostOptions| options.run([&format!("--network=container:{}", first.name())]);
    same_network(Host::options()).refused(69, &["2376"]);
    first.load_busybox();
    first.assert_runs_containers();
}

#[test]
fn a_docker_socket_mounted_from_outside_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docker.sock");
    let outside = UnixListener::bind(&path).unwrap();
    let mount = format!("{}:/var/run/docker.sock", path.display());
    Host::options().run(["-v", &mount]).refused(64, &["/var/run/docker.sock is mounted from outside"]);
    assert!(path.exists());
    drop(outside);
}

#[test]
fn without_its_capabilities_a_host_says_what_it_lacks() {
    let bare = Call::new("docker").args(["run", "--rm", IMAGE]).within(30).run();
    bare.exits(69).says(&["this container lacks NET_ADMIN and SYS_ADMIN", "\n  help: "]);
}

#[test]
fn a_host_runs_on_uncommon_ground() {
    let table: [&[&str]; 6] = [
        &["-t"],
        &["--network", "none"],
        &["--tmpfs", "/run"],
        &["--tmpfs", "/var/lib/docker"],
        &["--read-only", "--tmpfs", "/run", "--tmpfs", "/certs"],
        &["-e", "DOCKER_OPTS=--iptables=false"],
    ];
    for options in table {
        let host = Host::options().run(options).start();
        host.load_busybox();
        host.assert_runs_containers();
        host.stop();
        host.assert_exited(0);
    }
}

#[test]
fn what_cannot_be_written_is_named() {
    Host::options().run(["--read-only"]).refused(69, &["/run/", "Read-only", "--tmpfs /run"]);
    let certificates = Volume::new();
    Host::options().volume(&certificates, "/certs:ro").refused(69, &["/certs", "Read-only"]);
    Host::options().run(["--user", "1000"]).refused(69, &["SYS_ADMIN"]);
}
