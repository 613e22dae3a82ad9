//! `dind-init status`, `wait`, `health` and Docker's own health check.

use dind_tests::{Host, STUBBORN, docker, image, until};
use serde_json::Value;

pub(crate) fn docker_shows_the_host_healthy(host: &Host) {
    until("Docker to show the host healthy", 30, || {
        (host.inspect("{{.State.Health.Status}}") == "healthy").then_some(())
    });
    host.exec(["dind-init", "health"]).ok();
}

pub(crate) fn status_says_how_the_host_is(host: &Host) {
    let status = host.status();
    assert_eq!(status["phase"], "ready");
    assert_eq!(status["warnings"], Value::Array(Vec::new()));
    assert!(status["ready_ms"].as_u64().is_some(), "{status}");
    assert!(status["certificate"]["days_left"].as_i64().is_some_and(|days| days > 30), "{status}");
    for service in ["containerd", "dockerd"] {
        assert_eq!(host.service(service)["state"], "ready");
    }
    let text = host.exec(["dind-init", "status"]).ok();
    for word in ["ready", "dockerd", "containerd", &format!("tcp://{}:2376", host.ip())] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
}

#[test]
fn wait_gives_up_when_its_time_is_over() {
    let host = Host::options().file("/usr/sbin/dockerd", 0o755, "#!/bin/sh\nexec sleep 1000\n").create();
    docker(["start", host.name()]).ok();
    until("the host to answer", 20, || {
        host.exec(["dind-init", "status"]).stdout.contains("starting").then_some(())
    });
    let ended = host.exec(["dind-init", "wait", "--timeout", "2"]);
    let ended = ended.exits(124).says(&["dind-init: ", "dockerd", "\n  help: "]);
    assert!(ended.stderr.contains("not ready after 2 s"), "{ended}");
    host.exec(["dind-init", "health"]).fails();
    assert_eq!(host.status()["phase"], "starting");
    host.stop();
    assert_ne!(host.inspect("{{.State.ExitCode}}"), "137", "{}", host.logs());
}

#[test]
fn an_engine_that_stopped_answering_is_not_healthy() {
    let host = Host::options().start();
    let pid = host.pid_of("dockerd");
    host.shell(&format!("kill -STOP {pid}")).ok();
    host.exec(["dind-init", "health"]).fails().says(&["dind-init: ", "\n  help: "]);
    host.shell(&format!("kill -CONT {pid}")).ok();
    until("the host to be healthy again", 30, || {
        (host.exec(["dind-init", "health"]).code == Some(0)).then_some(())
    });
}

/// A daemon that has stopped answering is the one that is killed: said so, exit 70, and the next start knows.
#[test]
fn an_engine_that_stopped_answering_does_not_keep_the_host_from_its_end() {
    let host = Host::options().env("DIND_STOP_TIMEOUT", "4").start();
    host.load_busybox();
    // It keeps dockerd from ending before it hangs.
    host.run_nested("stubborn", &["--stop-timeout", "60"], STUBBORN);
    let pid = host.pid_of("dockerd");
    // Again and again, since a stop wakes whoever was stopped.
    let hang = format!("while kill -STOP {pid}; do :; done");
    docker(["exec", "-d", host.name(), "sh", "-c", &hang]).ok();
    host.stop_within(4);
    host.assert_exited(70);
    host.start();
    assert_eq!(host.status()["last_stop"], "unclean");
}

#[test]
fn asking_where_no_host_runs_is_a_clear_error() {
    let _host = Host::options().create();
    let forms: [&[&str]; 4] = [&["status"], &["status", "--json"], &["health"], &["wait", "--timeout", "1"]];
    for args in forms {
        let ask =
            ["run", "--rm", "--entrypoint", "dind-init", image()].into_iter().chain(args.iter().copied());
        let ended = docker(ask).fails().says(&["dind-init: ", "\n  help: "]);
        assert_eq!(ended.stdout, "", "{args:?}");
    }
}

#[test]
fn help_and_version_are_printed() {
    let _host = Host::options().create();
    let ask = |arg: &str| docker(["run", "--rm", "--entrypoint", "dind-init", image(), arg]).ok();
    let help = ask("--help");
    for word in ["status", "wait", "health", "DOCKER_OPTS", "LOCAL", "DIND_TLS"] {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    assert!(ask("--version").starts_with("dind-init "));
}
