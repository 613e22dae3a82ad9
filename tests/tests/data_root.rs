//! The data root: kept across hosts, guarded against two of them, refused when it cannot be written.

use dind_tests::{Host, Process, Volume, docker, until};

/// An engine without a host: dockerd, with a containerd that it starts itself.
const BARE: &str =
    "for place in /sys/fs/cgroup/* /proc/sys; do mount -o remount,bind,rw $place; done; exec dockerd";

#[test]
fn a_volume_keeps_its_images_and_containers_across_hosts() {
    let data = Volume::new();
    let first = Host::options().volume(&data, "/var/lib/docker").start();
    first.load_busybox();
    first.load_image("redis");
    first.run_redis("kept", &["--restart", "always"]);
    assert_eq!(first.count_up("kept"), 1);
    assert_eq!(first.status()["last_stop"], "first");
    let certificate = first.exec(["cat", "/certs/ca/cert.pem"]).ok();
    first.stop();
    first.assert_exited(0);
    drop(first);
    let second = Host::options().volume(&data, "/var/lib/docker").start();
    assert_eq!(second.status()["last_stop"], "clean");
    second.assert_runs_containers();
    second.wait_healthy("kept");
    assert_eq!(second.count_up("kept"), 2);
    second.assert_redis_owns_its_data("kept");
    assert_ne!(
        second.exec(["cat", "/certs/ca/cert.pem"]).ok(),
        certificate,
        "certificates belong to the container"
    );
    assert_eq!(second.alarms(), []);
}

#[test]
fn a_data_root_in_use_by_another_host_is_refused() {
    let data = Volume::new();
    let first = Host::options().volume(&data, "/var/lib/docker").start();
    first.load_busybox();
    Host::options().volume(&data, "/var/lib/docker").refused(69, &["/var/lib/docker", "another host"]);
    first.assert_runs_containers();
    assert_eq!(first.service("dockerd")["restarts"], 0);
}

#[test]
fn a_read_only_data_root_is_refused() {
    let data = Volume::new();
    Host::options().volume(&data, "/var/lib/docker:ro").refused(69, &["/var/lib/docker", "read-only"]);
    assert_eq!(data.listing(), "");
}

#[test]
fn a_data_root_may_have_a_lost_and_found_in_it() {
    let data = Volume::new();
    data.run("mkdir", &["lost+found"]).ok();
    let host = Host::options().volume(&data, "/var/lib/docker").start();
    host.load_busybox();
    host.assert_runs_containers();
    assert_eq!(host.alarms(), []);
}

/// As a server of files does that is gone: whoever asks for anything in it waits for ever.
#[test]
fn a_data_root_that_does_not_answer_is_waited_for_by_somebody_else() {
    let hang = "set -e; mkdir -p /hung /var/lib/docker/lower /var/lib/docker/upper /var/lib/docker/work
        cd /var/lib/docker; [ -e /dev/fuse ] || mknod /dev/fuse c 10 229
        fuse-overlayfs -o lowerdir=lower,upperdir=upper,workdir=work /hung
        pkill -STOP fuse-overlayfs; exec dind-init --data-root /hung";
    let host = Host::options().run(["--entrypoint", "sh"]).arguments(["-c", hang]).create();
    docker(["start", host.name()]).ok();
    until("the host to say what it waits for", 30, || {
        host.logs().contains("still waiting for the data root").then_some(())
    });
    host.stop();
    host.assert_exited(0);
    assert!(host.logs().contains("stopped before it was up, because of SIGTERM"), "{}", host.logs());
    // One that answers in the end is used.
    docker(["start", host.name()]).ok();
    until("the data root to hang", 30, || {
        let stopped = |it: &Process| it.name == "fuse-overlayfs" && it.state == 'T';
        host.processes().iter().any(stopped).then_some(())
    });
    host.shell("pkill -CONT fuse-overlayfs").ok();
    host.wait();
}

/// A host that ends before its engine ran says nothing about the data root to the next one.
#[test]
fn a_refused_host_leaves_the_mark_of_a_clean_stop() {
    let data = Volume::new();
    let with_data = || Host::options().volume(&data, "/var/lib/docker");
    let first = with_data().start();
    first.stop();
    drop(first);
    with_data().env("LOCAL", "maybe").refused(64, &["LOCAL"]);
    with_data().file("/certs/ca/cert.pem", 0o644, "not a certificate\n").refused(64, &["/certs/ca/cert.pem"]);
    with_data().env("DOCKER_OPTS", "--frobnicate=yes").refused(64, &["frobnicate"]);
    assert_eq!(with_data().start().status()["last_stop"], "clean");
}

/// A data root moves freely between a host and an engine that runs by itself, in both directions.
#[test]
fn a_data_root_of_a_bare_dockerd_is_taken_over_and_given_back() {
    let data = Volume::new();
    let bare = || {
        Host::options().volume(&data, "/var/lib/docker").run(["--entrypoint", "sh"]).arguments(["-c", BARE])
    };
    let answers = |host: &Host| {
        docker(["start", host.name()]).ok();
        until("a bare dockerd to answer", 30, || (host.docker(["version"]).code == Some(0)).then_some(()));
    };
    let first = bare().create();
    answers(&first);
    first.load_busybox();
    first.load_image("redis");
    first.run_redis("kept", &["--restart", "always"]);
    assert_eq!(first.count_up("kept"), 1);
    first.assert_runs_containers();
    first.stop();
    drop(first);

    let host = Host::options().volume(&data, "/var/lib/docker").start();
    host.assert_runs_containers();
    host.wait_healthy("kept");
    assert_eq!(host.count_up("kept"), 2);
    host.docker(["tag", "busybox", "seen-by-the-host"]).ok();
    assert_eq!(host.alarms(), []);
    host.stop();
    host.assert_exited(0);
    drop(host);

    let last = bare().create();
    answers(&last);
    assert_eq!(last.docker(["run", "--rm", "seen-by-the-host", "echo", "and back"]).ok(), "and back");
    last.wait_healthy("kept");
    assert_eq!(last.count_up("kept"), 3);
    last.assert_redis_owns_its_data("kept");
}
