//! A host that may live for so long: it ends by itself, as it does when it is stopped.

use dind_tests::{Host, HostOptions, POLITE, Volume, docker};

/// A dockerd that never comes up.
const HUNG: &str = "#!/bin/sh\nexec sleep 1000\n";

/// The host's own warnings and errors, without the rest.
#[track_caller]
fn alarms(host: &Host) -> Vec<String> {
    host.alarms().into_iter().map(|line| format!("{}: {}", line.level, line.message)).collect()
}

#[test]
fn a_host_ends_cleanly_when_its_time_is_over() {
    let data = Volume::new();
    let options = || Host::options().volume(&data, "/var/lib/docker");
    let host = options().env("DIND_TIME_LIMIT", "25s").start();
    host.load_busybox();
    host.run_nested("worker", &[], POLITE);
    let left = host.status()["seconds_left"].as_u64();
    assert!(left.is_some_and(|left| (1..=25).contains(&left)), "{left:?}");
    let text = host.exec(["dind-init", "status"]).ok();
    assert!(text.contains(" s (DIND_TIME_LIMIT)"), "{text}");
    assert_eq!(host.ends(), 0);
    assert_eq!(alarms(&host), ["warn: stopping, because DIND_TIME_LIMIT is over: 25 s"]);
    drop(host);
    let next = options().start();
    assert_eq!(next.status()["last_stop"], "clean");
    assert_eq!(next.status()["seconds_left"], serde_json::Value::Null);
    let logs = next.nested_logs("worker").ok();
    assert!(logs.ends_with("last words"), "{logs}");
}

#[test]
fn a_host_that_does_not_come_up_ends_in_time() {
    let data = Volume::new();
    let options = || Host::options().volume(&data, "/var/lib/docker");
    let host = options().env("DIND_TIME_LIMIT", "3").file("/usr/sbin/dockerd", 0o755, HUNG).create();
    docker(["start", host.name()]).ok();
    assert_eq!(host.ends(), 0);
    assert_eq!(alarms(&host), ["warn: stopping, because DIND_TIME_LIMIT is over: 3 s"]);
    drop(host);
    assert_eq!(options().start().status()["last_stop"], "clean");
}

/// While somebody else waits for a data root that hangs, as in `tests/data_root.rs`.
#[test]
fn a_host_ends_before_it_begins_when_its_time_is_over() {
    let hang = "set -e; mkdir -p /hung /var/lib/docker/lower /var/lib/docker/upper /var/lib/docker/work
        cd /var/lib/docker; [ -e /dev/fuse ] || mknod /dev/fuse c 10 229
        fuse-overlayfs -o lowerdir=lower,upperdir=upper,workdir=work /hung
        pkill -STOP fuse-overlayfs; exec dind-init --data-root /hung";
    let options = Host::options().run(["--entrypoint", "sh"]).arguments(["-c", hang]);
    let host = options.env("DIND_TIME_LIMIT", "2s").create();
    docker(["start", host.name()]).ok();
    assert_eq!(host.ends(), 0);
    assert_eq!(alarms(&host), ["warn: stopped before it was up, because DIND_TIME_LIMIT is over: 2 s"]);
}

#[test]
fn a_stop_is_not_called_the_end_of_its_time() {
    let host = Host::options().env("DIND_TIME_LIMIT", "365d").start();
    host.stop();
    host.assert_exited(0);
    assert_eq!(alarms(&host), [""; 0]);
}

/// A host for a command of a shell, with a limit.
fn sh(line: &str, limit: &str) -> HostOptions {
    Host::options().arguments(["sh", "-c", line]).env("DIND_TIME_LIMIT", limit)
}

#[test]
fn a_command_is_ended_as_a_stop_ends_it() {
    let polite = "trap 'echo TERM; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let ended = sh(polite, "15s").create().run_to_its_end().exits(3);
    assert_eq!(ended.stdout, "ready\nTERM\n");
    let said = "dind-init: the command was asked to end, because DIND_TIME_LIMIT is over: 15 s\n  help: give its host more time, or leave DIND_TIME_LIMIT out\n";
    assert_eq!(ended.stderr, said);
    let data = Volume::new();
    let deaf = sh("trap '' TERM; while :; do sleep 0.1; done", "15s").volume(&data, "/var/lib/docker");
    assert_eq!(deaf.create().run_to_its_end().exits(137).stderr, said);
    let next = sh("grep -o 'left by a clean stop' /run/dind/log", "1h").volume(&data, "/var/lib/docker");
    assert_eq!(next.create().run_to_its_end().ok(), "left by a clean stop");
}

#[test]
fn a_command_that_was_never_run_is_not_taken_for_done() {
    let host = sh("echo never", "3s").file("/usr/sbin/dockerd", 0o755, HUNG).create();
    let ended = host.refuses(143, &["the command was not run, because DIND_TIME_LIMIT is over: 3 s"]);
    assert_eq!(ended.stdout, "");
}
