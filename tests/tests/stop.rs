//! Stopping: nothing is lost, whoever asks and however stubborn what runs inside.

use dind_tests::{Host, HostOptions, Line, POLITE, STUBBORN, docker, until, until_equal};

/// Asserts that the host has stopped cleanly: its own exit, dockerd's own last words, nothing killed from outside.
#[track_caller]
fn assert_stopped_cleanly(host: &Host) {
    host.assert_exited(0);
    let lines = host.log_lines();
    let last = |line: &&Line| line.service == "dockerd" && line.message.contains("Daemon shutdown complete");
    assert!(lines.iter().any(|line| last(&line)), "dockerd did not end by its own hand\n{}", host.logs());
}

#[test]
fn ten_rounds_of_stop_and_start() {
    let host = Host::options().start();
    host.load_busybox();
    host.load_image("redis");
    host.run_redis("worker", &["--restart", "unless-stopped"]);
    let authority = host.exec(["cat", "/certs/ca/cert.pem"]).ok();
    let processes = host.process_names();
    for round in 1..=10 {
        host.stop();
        assert_stopped_cleanly(&host);
        host.start();
        host.wait_healthy("worker");
        assert_eq!(host.count_up("worker"), round);
        assert_eq!(host.docker(["ps", "-aq"]).ok().lines().count(), 1, "round {round}");
        assert_eq!(host.status()["last_stop"], "clean", "round {round}");
        assert_eq!(host.exec(["cat", "/certs/ca/cert.pem"]).ok(), authority, "round {round}");
    }
    host.assert_runs_containers();
    host.assert_redis_owns_its_data("worker");
    let logs = host.nested_logs("worker");
    let asked = logs.stdout.matches("User requested shutdown").count();
    assert_eq!(asked, 10, "each stop is redis' own: {logs}");
    until_equal("as many processes as at first", 20, processes, || host.process_names());
    assert_eq!(host.alarms(), []);
}

#[test]
fn a_nested_container_sees_its_sigterm_and_writes_a_last_line() {
    let host = Host::options().start();
    host.load_busybox();
    let script = POLITE.replace("exit 0", "echo kept > /data/last; exit 7");
    host.run_nested("worker", &["-v", "data:/data"], &script);
    host.stop();
    assert_stopped_cleanly(&host);
    host.start();
    let logs = host.nested_logs("worker").ok();
    assert!(logs.ends_with("last words"), "{logs}");
    assert_eq!(host.docker(["inspect", "-f", "{{.State.ExitCode}}", "worker"]).ok(), "7");
    assert_eq!(host.docker(["run", "--rm", "-v", "data:/data", "busybox", "cat", "/data/last"]).ok(), "kept");
}

#[test]
fn a_nested_container_that_ignores_sigterm_does_not_keep_dockerd_from_its_end() {
    let host = Host::options().start();
    host.load_busybox();
    host.run_nested("stubborn", &["--restart", "unless-stopped"], STUBBORN);
    host.stop();
    assert_stopped_cleanly(&host);
    host.start();
    assert_eq!(host.status()["last_stop"], "clean");
    host.wait_for_nested("stubborn");
}

#[test]
fn many_stubborn_containers_fit_a_short_budget() {
    // The second is the least that can be given.
    for budget in [3, 2] {
        let host = Host::options().env("DIND_STOP_TIMEOUT", &budget.to_string()).start();
        host.load_busybox();
        for count in 0..10 {
            host.run_nested(&format!("stubborn-{count}"), &["--stop-timeout", "60"], STUBBORN);
        }
        host.stop_within(budget);
        assert_stopped_cleanly(&host);
        host.start();
        assert_eq!(host.status()["last_stop"], "clean");
        assert_eq!(host.docker(["ps", "-aq"]).ok().lines().count(), 10);
        host.assert_runs_containers();
    }
}

#[test]
fn a_containerd_that_dies_during_a_stop_makes_it_unclean_and_in_time() {
    let host = Host::options().start();
    host.load_busybox();
    host.run_nested("stubborn", &["--stop-timeout", "60"], STUBBORN);
    let containerd = host.pid_of("containerd");
    host.signal("TERM");
    host.shell(&format!("kill -9 {containerd}")).ok();
    assert_eq!(host.ends(), 70, "{}", host.logs());
    assert!(!host.logs().contains("left behind"), "{}", host.logs());
    host.start();
    assert_eq!(host.status()["last_stop"], "unclean");
    host.assert_runs_containers();
}

#[test]
fn a_paused_container_does_not_keep_the_host_from_its_end() {
    let host = Host::options().env("DIND_STOP_TIMEOUT", "5").start();
    host.load_busybox();
    host.run_nested("paused", &[], STUBBORN);
    host.docker(["pause", "paused"]).ok();
    host.stop_within(5);
    assert_stopped_cleanly(&host);
}

#[test]
fn every_stop_signal_stops_cleanly() {
    for signal in ["TERM", "INT", "QUIT", "PWR", "37", "SIGRTMIN+3"] {
        let host = Host::options().start();
        host.signal(signal);
        assert_eq!(host.ends(), 0, "{signal}\n{}", host.logs());
        assert_stopped_cleanly(&host);
    }
}

#[test]
fn a_second_signal_hurries_and_loses_nothing() {
    let host = Host::options().env("DIND_STOP_TIMEOUT", "60").start();
    host.load_busybox();
    host.run_nested("stubborn", &["--stop-timeout", "50"], STUBBORN);
    host.signal("TERM");
    until("the host to begin its stop", 20, || {
        let phase = host.exec(["dind-init", "status", "--json"]);
        (phase.code != Some(0) || phase.stdout.contains("\"stopping\"")).then_some(())
    });
    host.signal("INT");
    // Less than the container's own 50 s: docker wait would run into its deadline.
    until_equal("the hurried stop", 30, "false", || host.inspect("{{.State.Running}}"));
    assert_stopped_cleanly(&host);
    host.start();
    assert_eq!(host.status()["last_stop"], "clean");
}

#[test]
fn a_stop_right_after_the_start_is_clean() {
    let host = Host::options().create();
    docker(["start", host.name()]).ok();
    // Docker says that it has started a container before its program runs, and a PID 1 that is not ours yet gets no signal.
    until("dind-init to run", 20, || host.logs().contains("as PID 1").then_some(()));
    host.stop();
    host.assert_exited(0);
    host.start();
    assert_ne!(host.status()["last_stop"], "unclean");
}

/// As PID 1, and under another init: both ends are clean, with nothing left over.
#[test]
fn a_host_under_another_init_stops_cleanly() {
    let both: [HostOptions; 2] = [Host::options(), Host::options().run(["--init"])];
    for options in both {
        let host = options.start();
        host.load_busybox();
        host.run_nested("worker", &[], POLITE);
        host.stop();
        assert_stopped_cleanly(&host);
        host.start();
        assert_eq!(host.status()["last_stop"], "clean");
        assert!(host.nested_logs("worker").ok().ends_with("last words"));
    }
}

/// dockerd waits five seconds for whoever keeps a connection, after everything else: no container pays for that, and no stop.
#[test]
fn a_client_that_stays_does_not_spoil_the_stop() {
    let host = Host::options().env("DIND_STOP_TIMEOUT", "6").start();
    host.load_busybox();
    host.run_nested("stubborn", &["--stop-timeout", "60"], STUBBORN);
    docker(["exec", "-d", host.name(), "sh", "-c", "docker events >/heard"]).ok();
    until("a client that listens", 10, || {
        host.docker(["tag", "busybox", "busybox"]).ok();
        (host.shell("grep -q ' tag ' /heard").code == Some(0)).then_some(())
    });
    host.stop_within(6);
    host.assert_exited(0);
    assert!(host.logs().contains("Daemon shutdown complete"), "{}", host.logs());
    host.start();
    assert_eq!(host.status()["last_stop"], "clean");
}

/// It ends by its own signal, SIGINT, with clients at work: what they have committed is written, and nothing is recovered afterwards.
#[test]
fn a_postgres_under_load_shuts_down_by_its_own_signal() {
    let host = Host::options().start();
    host.load_image("postgres");
    let run =
        ["run", "-d", "--name", "db", "--restart", "unless-stopped", "-v", "rows:/var/lib/postgresql/data"];
    host.docker(run.into_iter().chain(["-e", "POSTGRES_PASSWORD=secret", "postgres"])).ok();
    let ready = || {
        until("postgres to be ready", 60, || {
            let asked = host.docker(["exec", "-u", "postgres", "db", "pg_isready", "-h", "127.0.0.1"]);
            (asked.code == Some(0)).then_some(())
        });
    };
    let query = |sql: &str| host.docker(["exec", "-u", "postgres", "db", "psql", "-qAt", "-c", sql]).ok();
    ready();
    host.docker(["exec", "-u", "postgres", "db", "pgbench", "-i", "-q"]).ok();
    host.docker(["exec", "-d", "-u", "postgres", "db", "pgbench", "-n", "-c", "4", "-T", "600"]).ok();
    let committed = || query("SELECT count(*) FROM pgbench_history").parse::<u64>().unwrap();
    let before = until("transactions", 60, || Some(committed()).filter(|count| *count > 100));

    host.stop();
    assert_stopped_cleanly(&host);
    host.start();
    host.wait_for_nested("db");
    ready();
    let logs = host.nested_logs("db");
    let logs = logs.stdout + &logs.stderr;
    // The first shutdown is that of the server that makes the database.
    let stop = logs.rsplit_once("received fast shutdown request").map_or("", |(_, stop)| stop);
    assert!(stop.contains("database system is shut down"), "{logs}");
    assert!(stop.contains("database system was shut down at"), "{logs}");
    assert!(!logs.contains("was interrupted") && !logs.contains("automatic recovery"), "{logs}");
    assert!(committed() >= before);
    // Every transaction adds the same to an account, a teller, a branch and the history.
    let sums = ["SELECT sum(abalance) FROM pgbench_accounts", "SELECT sum(tbalance) FROM pgbench_tellers"];
    let history = query("SELECT sum(delta) FROM pgbench_history");
    for sum in sums {
        assert_eq!(query(sum), history, "{sum}");
    }
    assert_eq!(host.status()["last_stop"], "clean");
}
