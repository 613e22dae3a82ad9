//! Services that die.

use dind_tests::{Host, POLITE, docker, until, until_equal};

/// Runs a script inside the host, then kills a service and waits until another process has its place.
#[track_caller]
fn kill_after(host: &Host, service: &str, script: &str) {
    let before = host.pid_of(service);
    host.shell(&format!("{script}\nkill -9 {before}")).ok();
    host.wait_for_another(service, before);
}

#[test]
fn a_killed_dockerd_comes_back() {
    let host = Host::options().start();
    host.load_busybox();
    host.load_image("redis");
    host.run_redis("worker", &["--restart", "always"]);
    assert_eq!(host.count_up("worker"), 1);
    host.kill_service("dockerd");
    host.wait();
    assert_eq!(host.service("dockerd")["restarts"], 1);
    assert_eq!(host.service("containerd")["restarts"], 0);
    assert_eq!(host.status()["phase"], "ready");
    host.assert_runs_containers();
    host.wait_healthy("worker");
    assert_eq!(host.count_up("worker"), 2);
    let wanted = ["containerd", "containerd-shim", "dind-init", "dockerd", "redis-server"];
    // A health check may be under way.
    until_equal("nothing to be left of the earlier run", 20, wanted, || host.process_names());
    assert!(host.alarms().iter().any(|line| line.message.contains("dockerd")), "{}", host.logs());
    host.stop();
    host.assert_exited(0);
}

/// A containerd-shim that starts a command waits for dockerd to read its pipes, and reports no process that ends meanwhile.
#[test]
fn a_dockerd_that_is_killed_while_commands_start_finds_the_containers_that_end() {
    let host = Host::options().start();
    host.load_image("redis");
    host.run_redis("worker", &["--restart", "always"]);
    for round in 1..=3 {
        kill_after(
            &host,
            "dockerd",
            "for each in 1 2 3 4; do
                 (while docker exec worker true; do :; done) >/dev/null 2>&1 &
             done
             until ls /var/run/docker/containerd/*/*-stdout | grep -qv init-stdout; do :; done",
        );
        host.wait();
        assert_eq!(host.service("dockerd")["restarts"], round);
        host.wait_healthy("worker");
        assert_eq!(host.count_up("worker"), round);
    }
    assert!(!host.logs().contains("failed to exit within 10s of kill"), "{}", host.logs());
    host.stop();
    host.assert_exited(0);
}

#[test]
fn a_killed_containerd_comes_back() {
    let host = Host::options().start();
    host.load_busybox();
    host.kill_service("containerd");
    host.wait();
    assert_eq!(host.service("containerd")["restarts"], 1);
    host.assert_runs_containers();
    host.stop();
    host.assert_exited(0);
}

#[test]
fn both_killed_at_once_come_back() {
    let host = Host::options().start();
    host.load_busybox();
    let (containerd, dockerd) = (host.pid_of("containerd"), host.pid_of("dockerd"));
    host.shell(&format!("kill -9 {containerd} {dockerd}")).ok();
    until_equal("the host to notice", 20, false, || {
        host.status()["phase"] == "ready" && host.service("dockerd")["pid"] == dockerd
    });
    host.wait();
    host.assert_runs_containers();
    host.stop();
    host.assert_exited(0);
}

#[test]
fn a_stop_while_dockerd_is_down_ends_in_time() {
    let host = Host::options().start();
    host.load_busybox();
    host.run_nested("worker", &[], POLITE);
    host.shell(&format!("kill -9 {}", host.pid_of("dockerd"))).ok();
    host.stop();
    host.assert_exited(70);
    host.start();
    assert_eq!(host.status()["last_stop"], "unclean");
    host.assert_runs_containers();
    host.stop();
    host.assert_exited(0);
    host.start();
    assert_eq!(host.status()["last_stop"], "clean");
}

#[test]
fn dind_on_failure_exit_ends_the_host_with_the_code_of_the_service() {
    let host = Host::options().env("DIND_ON_FAILURE", "exit").start();
    let pid = host.pid_of("dockerd");
    host.shell(&format!("kill -9 {pid}")).ok();
    assert_eq!(host.ends(), 128 + 9, "{}", host.logs());
    let logs = host.logs();
    assert!(logs.contains("\n  help: ") && logs.contains("dockerd"), "{logs}");
}

#[test]
fn five_deaths_in_a_minute_end_the_host() {
    let host = Host::options().start();
    until("the host to give up", 60, || {
        let _ = host.shell("kill -9 $(cat /run/docker.pid)");
        (host.inspect("{{.State.Running}}") == "false").then_some(())
    });
    host.assert_exited(70);
    let errors = docker(["logs", host.name()]).stderr;
    for text in ["dind-init: dockerd failed for good", "\n  | Starting up\n", "\n  help: "] {
        assert!(errors.contains(text), "{text} is not in\n{errors}");
    }
}

/// A dockerd that starts, and never gets up: its own words are shown.
#[test]
fn a_service_that_cannot_start_ends_the_host_with_its_last_lines() {
    let stub = "#!/bin/sh\n\
        echo 'time=\"2026-11-21T22:10:54Z\" level=info msg=\"Starting up\"' >&2\n\
        echo 'failed to start daemon: a cause made up by a test' >&2\n\
        exit 1\n";
    let host = Host::options().file("/usr/sbin/dockerd", 0o755, stub);
    host.refused(70, &["dockerd", "a cause made up by a test"]);
}
