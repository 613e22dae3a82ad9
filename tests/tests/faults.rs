//! What goes wrong under a host that runs: each fault is made to happen.

use dind_tests::{Host, Network, POLITE, docker, until};

#[test]
fn a_dockerd_that_hangs_is_noticed_and_started_again() {
    let host = Host::options().start();
    host.load_busybox();
    host.run_nested("worker", &["--restart", "always"], POLITE);
    let before = host.pid_of("dockerd");
    host.shell("pkill -STOP -x dockerd").ok();
    host.exec(["dind-init", "health"]).exits(70).says(&["dockerd does not answer", "\n  help: "]);
    until("dockerd to be started again", 60, || (host.service("dockerd")["restarts"] == 1).then_some(()));
    host.wait();
    assert_ne!(host.pid_of("dockerd"), before);
    let said =
        host.alarms().into_iter().any(|line| line.message.starts_with("dockerd has not answered for 30 s"));
    assert!(said, "{}", host.logs());
    host.wait_for_nested("worker");
    host.exec(["dind-init", "health"]).ok();
    host.stop();
    host.assert_exited(0);
}

/// It is woken to hear that it shall end: nothing need be killed.
#[test]
fn services_that_were_stopped_by_a_signal_end_cleanly() {
    let host = Host::options().start();
    host.load_busybox();
    host.run_nested("worker", &[], POLITE);
    host.shell("pkill -STOP -x 'dockerd|containerd'").ok();
    host.stop();
    host.assert_exited(0);
    assert!(!host.logs().contains("is killed"), "{}", host.logs());
    host.start();
    assert_eq!(host.status()["last_stop"], "clean");
}

/// The kernel kills dockerd, and then containerd, for want of memory.
#[test]
fn services_that_the_kernel_kills_for_want_of_memory_come_back() {
    let host = Host::options().run(["-m", "512m", "--memory-swap", "512m"]).start();
    host.load_busybox();
    host.run_nested("worker", &["--restart", "always"], POLITE);
    for service in ["dockerd", "containerd"] {
        // Whom the kernel takes first.
        host.shell(&format!("echo 1000 >/proc/$(pgrep -x {service})/oom_score_adj")).ok();
        // Reads a line that does not end until the memory is used up.
        let line = "head -c 900M /dev/zero | tail -c 900M | wc -c";
        // Under the host's own limit of memory, which binds what the engine starts in it.
        let _ = host.docker_exec().args(["sh", "-c", line]).run();
        until("the service to be started again", 30, || {
            (host.service(service)["restarts"].as_u64() >= Some(1)).then_some(())
        });
        assert!(host.logs().contains(&format!("{service} was killed by signal 9")), "{}", host.logs());
        host.wait();
        host.assert_runs_containers();
    }
    host.wait_for_nested("worker");
    host.stop();
    host.assert_exited(0);
}

#[test]
fn a_host_that_may_not_make_processes_says_so_and_ends() {
    let host = Host::options().start();
    host.load_busybox();
    // Fewer than there are: from now on, fork fails.
    docker(["update", "--pids-limit", "3", host.name()]).ok();
    docker(["kill", "-s", "HUP", host.name()]).ok();
    let dockerd = host.inspect("{{.State.Pid}}");
    let engine = std::fs::read_to_string(format!("/proc/{dockerd}/task/{dockerd}/children")).unwrap();
    let victim = engine.split_whitespace().find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "dockerd")
    });
    let victim = victim.expect("dockerd is a child of the host").parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(host.ends(), 70);
    let logs = host.logs();
    assert!(logs.contains("dockerd could not be started: Resource temporarily unavailable"), "{logs}");
    assert!(logs.contains("dockerd failed for good") && logs.contains("\n  help: "), "{logs}");
    docker(["update", "--pids-limit", "-1", host.name()]).ok();
    host.start();
    host.assert_runs_containers();
}

#[test]
fn an_address_that_changed_gets_a_certificate_and_clients_keep_theirs() {
    // Where no other test takes or frees an address.
    let network = Network::new(&[]);
    let options = || Host::options().run(["--network", network.name()]);
    let host = options().start();
    let client = host.client();
    client.docker(["version"]).ok();
    let before = host.ip();
    host.stop();
    // Somebody else takes the address meanwhile.
    let other = options().env("LOCAL", "true").start();
    host.start();
    let after = host.ip();
    assert_eq!((other.ip(), before == after), (before.clone(), false), "the address has changed");
    let moved =
        dind_tests::Client::with_certificates(&format!("tcp://{after}:2376"), client.into_certificates());
    moved.docker(["version"]).ok();
}

/// What fills a data root up: its bytes, or its names.
fn fill(host: &Host, with: &str) {
    let fill = match with {
        "bytes" => "dd if=/dev/zero of=/var/lib/docker/filler bs=1M 2>/dev/null",
        _ => {
            "mkdir /var/lib/docker/filler; i=0; while touch /var/lib/docker/filler/$i 2>/dev/null; do i=$((i+1)); done"
        }
    };
    let _ = host.shell(&format!("{fill}; true")).ok();
}

#[test]
fn a_full_disk_and_one_without_inodes_are_survived() {
    for (with, tmpfs) in [("bytes", "size=128m"), ("inodes", "nr_inodes=2000,size=256m")] {
        let host = Host::options().run(["--tmpfs", &format!("/var/lib/docker:exec,{tmpfs}")]).start();
        host.load_busybox();
        host.run_nested("worker", &["--restart", "always"], POLITE);
        fill(&host, with);
        // Whoever wants more hears why, and what is there goes on.
        let refused = host.docker(["volume", "create", "more"]);
        let refused =
            if refused.code == Some(0) { host.docker(["commit", "worker", "more"]) } else { refused };
        refused.fails().says(&["no space left on device"]);
        host.exec(["dind-init", "health"]).ok();
        assert_eq!(host.docker(["inspect", "-f", "{{.State.Running}}", "worker"]).ok(), "true", "{with}");
        host.shell("rm -r /var/lib/docker/filler").ok();
        host.docker(["volume", "create", "more"]).ok();
        host.assert_runs_containers();
        host.exec(["dind-init", "verify"]).ok();
        fill(&host, with);
        host.stop();
        host.assert_exited(0);
        assert!(!host.logs().contains("is not synced"), "everything there was on disk: {}", host.logs());
    }
}

/// The data root's own disk keeps its content over stop and start.
#[test]
fn a_host_on_a_full_disk_starts_and_lets_go_of_what_fills_it() {
    let host = Host::options().env("DIND_STORAGE", "loop").env("DIND_STORAGE_SIZE", "600M").start();
    host.load_busybox();
    host.run_nested("worker", &["--restart", "unless-stopped"], POLITE);
    host.docker(["volume", "create", "large"]).ok();
    let hog = "dd if=/dev/zero of=/large/filler bs=1M; true";
    host.docker(["run", "--rm", "-v", "large:/large", "busybox", "sh", "-c", hog]).ok();
    for kill in [false, true] {
        if kill {
            host.signal("KILL");
            host.ends();
        } else {
            host.stop();
            host.assert_exited(0);
        }
        host.start();
        assert_eq!(host.docker(["images", "-q"]).ok().lines().count(), 1, "kill: {kill}");
    }
    host.docker(["rm", "-f", "worker"]).ok();
    host.docker(["volume", "rm", "large"]).ok();
    host.assert_runs_containers();
    host.exec(["dind-init", "verify"]).ok();
}
