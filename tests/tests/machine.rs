//! What the machine or the image lacks: an error that names it, exit code 69.

use std::os::unix::net::UnixListener;

use dind_tests::{Host, HostOptions, Image};

#[test]
fn a_missing_program_is_named() {
    for program in ["dockerd", "containerd"] {
        let image = Image::derived(&format!("RUN rm $(command -v {program})"));
        Host::options().image(image.name()).refused(69, &[program]);
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
    Host::options().run(["--cap-drop", "SYS_ADMIN"]).refused(69, &["SYS_ADMIN"]);
}
