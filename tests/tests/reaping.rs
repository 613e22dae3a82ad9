//! No zombie and no stray process, as PID 1 and under another init.

use dind_tests::{Host, until_equal};

const RUNS: usize = 12;

/// A host, as PID 1 or as the child of another init.
#[track_caller]
fn under_init(init: bool) -> Host {
    let options = if init { Host::options().run(["--init"]) } else { Host::options() };
    options.start()
}

/// Waits until the host's own processes are the only ones.
#[track_caller]
fn assert_only_the_host_is_left(host: &Host, init: bool) {
    let mut wanted = vec!["containerd", "dind-init", "dockerd"];
    if init {
        wanted.insert(2, "docker-init");
    }
    until_equal("only the host's own processes to be left", 20, wanted, || host.process_names());
}

/// Runs, execs and failures inside a host; then only the host's own processes are left.
#[test]
fn nested_runs_leave_no_process_behind() {
    for init in [false, true] {
        let host = under_init(init);
        host.load_busybox();
        for run in 0..RUNS {
            let script = format!("sh -c 'sleep 0.0{run} & ' & exit {}", run % 3);
            let ended = host.docker(["run", "--rm", "busybox", "sh", "-c", &script]);
            assert_eq!(ended.code, i32::try_from(run % 3).ok(), "{ended}");
        }
        assert_only_the_host_is_left(&host, init);
    }
}

/// `docker exec HOST` with a daemon in the old manner: forked twice, its parents gone.
#[test]
fn orphans_of_an_exec_are_reaped() {
    for init in [false, true] {
        let host = under_init(init);
        for _ in 0..5 {
            let daemons = "for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.3 &) & done";
            host.docker_exec().args(["sh", "-c", daemons]).run().ok();
        }
        assert_only_the_host_is_left(&host, init);
    }
}

/// Children of the engine's own that lose their parent belong to `dind-init`, also when it is not PID 1.
#[test]
fn orphans_of_the_engine_belong_to_dind_init() {
    for init in [false, true] {
        let host = under_init(init);
        host.load_busybox();
        host.docker(["run", "-d", "busybox", "sleep", "100"]).ok();
        let processes = host.processes();
        let dind_init = processes.iter().find(|process| process.name == "dind-init").unwrap().pid;
        let shim = processes.iter().find(|process| process.name.starts_with("containerd-shim")).unwrap();
        assert_eq!(shim.parent, dind_init, "{processes:?}");
    }
}

#[test]
fn no_signal_but_those_that_stop_it_ends_a_host_that_is_not_pid_1() {
    let host = Host::options().run(["--init"]).start();
    // Those that a C library keeps for itself (32 to 34) are among them; 9 and 19 cannot be blocked, 37 is SIGRTMIN+3.
    let stops = [2, 3, 9, 15, 19, 30, 37];
    for signal in (1..=64).filter(|signal| !stops.contains(signal)) {
        host.shell(&format!("pkill -{signal} -x dind-init")).ok();
    }
    assert_eq!(host.status()["phase"], "ready");
    host.load_busybox();
    host.assert_runs_containers();
    host.stop();
    host.assert_exited(0);
}
