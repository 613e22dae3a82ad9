//! Hosts in which there is nothing of Debian but the engine's own programs: `dind-init` needs no shell and no tools.

use dind_tests::{BuiltImage, Host, busybox};

/// A host of this image starts, serves, stops cleanly, and starts again with what it had.
#[track_caller]
fn serves_and_stops(image: &BuiltImage) {
    let host = Host::options().image(image.name(), "this test").start();
    host.load_busybox();
    host.assert_runs_containers();
    // Published by docker-proxy and iptables, and reached from outside over TLS.
    let client = host.client();
    let serve = "while :; do echo served | nc -l -p 80; done";
    client.docker(["run", "-d", "--name", "server", "-p", "8000:80", "busybox", "sh", "-c", serve]).ok();
    let ask = ["run", "--rm", "--network", "host", "busybox", "nc", "127.0.0.1", "8000"];
    dind_tests::until("the server to answer", 20, || {
        (client.docker(ask).stdout.trim() == "served").then_some(())
    });
    for question in ["health", "status", "doctor"] {
        host.exec(["dind-init", question]).ok();
    }
    host.stop();
    host.assert_exited(0);
    host.start();
    assert_eq!(host.status()["last_stop"], "clean");
    assert_eq!(host.docker(["ps", "-aq"]).ok().lines().count(), 1);
    host.assert_runs_containers();
    assert_eq!(host.alarms(), []);
}

#[test]
fn nothing_but_the_engine() {
    let image = BuiltImage::of_the_engine();
    let options = || Host::options().image(image.name(), "this test");
    let shell = options().run(["--entrypoint", "sh"]).create();
    dind_tests::docker(["start", shell.name()]).fails().says(&["\"sh\"", "not found"]);
    drop(shell);
    // It has no /run either. With a read-only root none can be made, and that, not a container on trial, is what is missing.
    for host in [options(), options().run(["--read-only"])] {
        let doctor = host.arguments(["doctor"]).create().run_to_its_end();
        assert!(doctor.stdout.contains("\n  containers\n"), "{doctor}");
    }
    options().run(["--read-only"]).refused(69, &["/run", "--tmpfs /run"]);
    serves_and_stops(&image);
}

#[test]
fn busybox_and_the_engine() {
    let engine = BuiltImage::of_the_engine();
    let dockerfile = format!("FROM {}\nADD rootfs.tar /\n", engine.name());
    let image = BuiltImage::new(&dockerfile, &[("rootfs.tar", &busybox())]);
    serves_and_stops(&image);
    // A job in it has busybox's shell.
    let job = ["sh", "-c", "docker info --format {{.ServerVersion}} && busybox true && echo done"];
    let ended = Host::options().image(image.name(), "this test").arguments(job).create().run_to_its_end();
    assert!(ended.ok().ends_with("done"));
}
