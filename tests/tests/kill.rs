//! A host that was killed comes back, and cleans up what is its own without a word of alarm.

use dind_tests::{Host, Line, STUBBORN, docker, until};

/// The host's own warnings and errors since a line of its log.
fn alarms_since(host: &Host, lines: usize) -> Vec<Line> {
    host.log_lines().into_iter().skip(lines).filter(Line::is_alarm).collect()
}

#[test]
fn a_killed_host_comes_back_with_what_it_had() {
    let host = Host::options().start();
    host.load_busybox();
    host.load_image("redis");
    host.run_redis("worker", &["--restart", "always"]);
    assert_eq!([(); 3].map(|()| host.count_up("worker")), [1, 2, 3]);
    host.signal("KILL");
    assert_eq!(host.ends(), 137);
    host.start();
    assert_eq!(host.status()["last_stop"], "unclean");
    let said = host.logs().lines().filter(|line| line.contains("last stop was not clean")).count();
    assert_eq!(said, 1, "{}", host.logs());
    host.assert_runs_containers();
    assert_eq!(host.docker(["volume", "ls", "-q"]).ok(), "worker-data");
    host.wait_healthy("worker");
    assert_eq!(host.count_up("worker"), 4);
    host.assert_redis_owns_its_data("worker");
    let dead = host.docker(["ps", "-aq", "--filter", "status=dead"]).ok();
    assert_eq!(dead, "");
    host.stop();
    host.assert_exited(0);
    host.start();
    assert_eq!(host.status()["last_stop"], "clean");
}

/// Whatever the API had answered before the kill is there, whole.
#[test]
fn acknowledged_means_kept() {
    let host = Host::options().start();
    host.load_busybox();
    for round in 0..4 {
        let dockerfile = format!("FROM busybox\nRUN echo {round} > /round\nCMD [\"cat\", \"/round\"]\n");
        host.build(&format!("app:{round}"), &dockerfile);
        host.signal("KILL");
        assert_eq!(host.ends(), 137);
        host.start();
        for kept in 0..=round {
            let ran = host.docker(["run", "--rm", &format!("app:{kept}")]).ok();
            assert_eq!(ran, kept.to_string());
        }
    }
}

#[test]
fn a_kill_in_the_middle_of_the_start_is_survived() {
    let host = Host::options().create();
    for _ in 0..5 {
        docker(["start", host.name()]).ok();
        host.signal("KILL");
        assert_eq!(host.ends(), 137);
    }
    host.start();
    host.load_busybox();
    host.assert_runs_containers();
}

/// What a kill leaves behind is no reason for alarm: pid files (also of a pid that lives now), sockets, certificates.
#[test]
fn stale_files_are_cleaned_without_a_word_of_alarm() {
    let host = Host::options().start();
    let authority = host.exec(["cat", "/certs/ca/cert.pem"]).ok();
    let certificate = host.exec(["cat", "/certs/server/cert.pem"]).ok();
    host.signal("KILL");
    assert_eq!(host.ends(), 137);
    let half = certificate.as_bytes()[..certificate.len() / 2].to_vec();
    host.put(&[
        ("/run/docker.pid".into(), 0o644, b"1".to_vec()),
        ("/run/docker/containerd/containerd.pid".into(), 0o644, b"1".to_vec()),
        ("/certs/server/cert.pem".into(), 0o644, half),
        ("/certs/client/key.pem".into(), 0o640, Vec::new()),
    ]);
    let lines = host.log_lines().len();
    host.start();
    let alarms = alarms_since(&host, lines);
    assert!(alarms.iter().all(|line| line.message.contains("last stop was not clean")), "{alarms:?}");
    assert_eq!(host.exec(["cat", "/certs/ca/cert.pem"]).ok(), authority);
    host.client().docker(["version"]).ok();
    let left = host.shell("find /certs -type f | sort").ok();
    assert_eq!(left.lines().count(), 8, "{left}");
    host.load_busybox();
    host.assert_runs_containers();
}

/// A kill while the very first certificates were written.
#[test]
fn half_written_certificates_are_made_again() {
    let begin = "-----BEGIN CERTIFICATE-----\nMIIBjTCCATOgAwIBAgIU";
    let table: [&[(&str, &str)]; 4] = [
        &[("/certs/ca/key.pem", "")],
        &[("/certs/ca/cert.pem", begin), ("/certs/ca/key.pem", "-----BEGIN PRIVATE KEY-----\nMIGH")],
        &[("/certs/server/cert.pem", begin), ("/certs/server/key.pem", "")],
        &[("/certs/client/cert.pem", ""), ("/certs/client/ca.pem", begin)],
    ];
    for files in table {
        let options =
            files.iter().fold(Host::options(), |options, (path, text)| options.file(path, 0o600, *text));
        let host = options.start();
        assert_eq!(host.alarms(), [], "{files:?}");
        host.client().docker(["version"]).ok();
    }
}

#[test]
fn a_killed_host_that_is_not_pid_1_takes_its_engine_with_it() {
    // The container outlives the host in it, as a VM outlives a service.
    let host = Host::options().run(["--init", "--entrypoint", "sleep"]).arguments(["infinity"]).create();
    docker(["start", host.name()]).ok();
    let run = || {
        docker(["exec", "-d", host.name(), "sh", "-c", "exec dind-init >>/log 2>&1"]).ok();
        host.wait();
    };
    run();
    host.load_busybox();
    host.run_nested("worker", &["--restart", "unless-stopped"], STUBBORN);
    for victims in ["dind-init", "dind-init dockerd"] {
        // The second may have gone with the first already.
        host.shell(&format!("for name in {victims}; do pkill -9 -x $name; done; true")).ok();
        until("the engine to end with its host", 10, || {
            host.shell("pgrep -x 'dockerd|containerd'; true").ok().is_empty().then_some(())
        });
        run();
        assert_eq!(host.status()["last_stop"], "unclean");
        host.assert_runs_containers();
        host.wait_for_nested("worker");
        // The worker of before is no more: there is one.
        assert_eq!(host.shell("pgrep containerd-shim").ok().lines().count(), 1);
    }
    // A second one beside it is refused, even while dockerd is down.
    let dockerd = host.pid_of("dockerd");
    host.shell(&format!("kill -9 {dockerd}; dind-init")).exits(69).says(&["runs here already"]);
    host.wait_for_another("dockerd", dockerd);
    host.assert_runs_containers();
}

#[test]
fn a_host_that_sees_the_processes_of_another_leaves_them_alone() {
    let other = Host::options().start();
    other.load_busybox();
    other.run_nested("theirs", &[], STUBBORN);
    // In one pid namespace with it, as with `--pid=host` beside the machine's own engine.
    let shared = format!("--pid=container:{}", other.name());
    let host = Host::options().run([&shared]).env("DIND_STOP_TIMEOUT", "4").start();
    host.load_busybox();
    host.run_nested("ours", &["--stop-timeout", "60"], STUBBORN);
    let running = || other.docker(["inspect", "-f", "{{.State.Running}}", "theirs"]).ok();
    assert_eq!(running(), "true", "a start ends what a killed host left, and this is none");
    host.stop_within(4);
    host.assert_exited(0);
    assert!(host.logs().contains("containers that still run are killed"), "{}", host.logs());
    assert_eq!(running(), "true");
    other.assert_runs_containers();
}
