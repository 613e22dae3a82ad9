//! What the machine or the image lacks: an error that names it, exit code 69.

use std::os::unix::net::UnixListener;

use dind_tests::{Call, Host, HostOptions, Volume, image};

#[test]
fn a_missing_program_is_named() {
    for program in ["dockerd", "containerd"] {
        let script = format!("rm $(command -v {program}) && exec dind-init");
        let options = Host::options().run(["--entrypoint", "sh"]).arguments(["-c", &script]);
        options.refused(69, &[&format!("{program} is not in this image")]);
    }
}

pub(crate) fn a_port_already_taken_is_named(first: &Host) {
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
fn a_run_folder_of_somebody_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = ["docker/containerd/task", "containerd/containerd.sock.lock", "secrets/token", "docker.pid"];
    for file in theirs.map(|file| folder.path().join(file)) {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "theirs").unwrap();
    }
    let assert_untouched = |files: &[&str]| {
        for file in files {
            assert_eq!(std::fs::read_to_string(folder.path().join(file)).unwrap(), "theirs", "{file}");
        }
    };
    let mount = format!("{}:/run", folder.path().display());
    // An engine that answers there is somebody's.
    let engine = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
    let refused = Host::options().run(["-v", &mount]);
    refused.refused(69, &["an engine runs here already: it answers on /var/run/docker.sock"]);
    assert_untouched(&theirs);
    drop(engine);
    // One that is gone leaves its folders to whoever comes next, but for what dockerd itself replaces.
    let host = Host::options().run(["-v", &mount]).start();
    host.load_busybox();
    host.assert_runs_containers();
    host.stop();
    host.assert_exited(0);
    assert_untouched(&theirs[..3]);
}

pub(crate) fn a_second_host_in_the_same_place_is_refused_and_harms_nothing(host: &Host) {
    host.load_busybox();
    host.exec(["dind-init"]).exits(69).says(&["an engine runs here already", "\n  help: "]);
    let flush = ["dind-init", "helper", "flush", "/var/lib/docker", "/var/lib/docker", "--clean"];
    host.exec(flush).exits(64).says(&["flush is a part of"]);
    host.assert_runs_containers();
    assert_eq!(host.status()["phase"], "ready");
    assert_eq!(host.shell("cat /var/lib/docker/dind.lock").ok(), "running");
}

#[test]
fn without_its_capabilities_a_host_says_what_it_lacks() {
    let bare = Call::new("docker").args(["run", "--rm", image()]).within(30).run();
    bare.exits(69).says(&["this container lacks NET_ADMIN and SYS_ADMIN and SYS_PTRACE", "\n  help: "]);
}

#[test]
fn a_host_runs_on_uncommon_ground() {
    let table: [&[&str]; 7] = [
        &["--security-opt", "systempaths=unconfined"],
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
    Host::options().run(["--user", "1000"]).refused(69, &["runs as user 1000", "leave --user out"]);
}

#[test]
fn control_groups_are_left_alone_when_that_is_wished() {
    let host = Host::options().env("DIND_CGROUPS", "keep").start();
    let mounts = host.shell("grep -E ' /sys/fs/cgroup/?[^ ]* cgroup2? ' /proc/mounts").ok();
    assert!(mounts.lines().all(|line| line.contains(" ro,")), "{mounts}");
    let doctor = host.exec(["dind-init", "doctor"]).ok();
    assert!(doctor.contains("left as they are") && doctor.contains("DIND_CGROUPS is keep"), "{doctor}");
    host.load_busybox();
    host.docker(["run", "--rm", "busybox", "true"]).fails().says(&["read-only file system"]);
}
