//! A host on cgroup v2, for real: on a machine that has v2, every host is on it, and on one that has v1, this one makes
//! itself a namespace in the machine's v2 hierarchy, with the one controller that Docker leaves to it there (hugetlb).
//! What needs a machine of v2, `tests/vm/cgroup2` runs in a virtual one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use dind_tests::{Call, Ended, Host, HostOptions, POLITE, docker, until};

/// A group in the machine's hierarchy. The container's own would not do: there the engine of a v1 machine could not
/// `docker exec` any more, because its runc knows the rule of the leaves only where all is v2.
const GROUP: &str = "dind-test-cgroup2";

/// What brings a shell into the group, with a controller to delegate, and then into a cgroup namespace with only v2 in
/// it, read-only as Docker leaves it; and what takes all that back.
const ENTER: &str = "mkdir -p /run/v2 && mount -t cgroup2 cgroup2 /run/v2 && echo +hugetlb >/run/v2/cgroup.subtree_control && \
    find /run/v2 -depth -path '*/GROUP*' -type d -exec rmdir {} + && mkdir /run/v2/GROUP && echo $$ >/run/v2/GROUP/cgroup.procs && umount /run/v2 && \
    exec unshare --cgroup sh -c 'umount -R /sys/fs/cgroup && mount -t cgroup2 -o ro cgroup2 /sys/fs/cgroup && exec dind-init'";
const LEAVE: &str = "mkdir -p /run/v2 && mount -t cgroup2 cgroup2 /run/v2 && \
    find /run/v2/GROUP -depth -type d -exec rmdir {} + && echo -hugetlb >/run/v2/cgroup.subtree_control";

fn shell(script: &str) -> HostOptions {
    Host::options().run(["--entrypoint", "sh"]).arguments(["-c", &script.replace("GROUP", GROUP)])
}

/// The machine's hierarchy, put back as it was.
struct PutBack;

impl Drop for PutBack {
    fn drop(&mut self) {
        let left = shell(LEAVE).create().run_to_its_end();
        if !std::thread::panicking() {
            left.ok();
        }
    }
}

/// Asserts that every controller goes on to the groups inside; their names.
#[track_caller]
fn assert_delegated(shell: impl Fn(&str) -> Ended) -> String {
    let offered = shell("cat /sys/fs/cgroup/cgroup.controllers").ok();
    assert!(!offered.is_empty(), "no controller is there to be delegated");
    assert_eq!(shell("cat /sys/fs/cgroup/cgroup.subtree_control").ok(), offered);
    offered
}

/// Asserts that the processes of a host in a container have left the root.
#[track_caller]
fn assert_moved(host: &Host) {
    assert_eq!(host.shell("cat /sys/fs/cgroup/cgroup.procs").ok(), "", "the root has no processes");
    assert!(host.shell("cat /proc/1/cgroup").ok().ends_with("/dind"));
}

/// Asserts that they have, and that every controller goes on, as the host says itself; their names.
#[track_caller]
fn assert_moved_and_delegated(host: &Host) -> String {
    let offered = assert_delegated(|line| host.shell(line));
    assert_moved(host);
    // Where the engine of a v1 machine cannot: see GROUP.
    if docker(["info", "-f", "{{.CgroupVersion}}"]).ok() == "2" {
        host.docker_exec().arg("true").run().ok();
    }
    let logs = host.logs();
    assert!(logs.contains("cgroups: v2, ") && logs.contains("controllers delegated"), "{logs}");
    offered
}

#[test]
fn processes_move_to_a_leaf_and_controllers_are_delegated() {
    let machine = docker(["info", "-f", "{{.CgroupVersion}}"]).ok();
    let (_put_back, options) =
        if machine == "2" { (None, Host::options()) } else { (Some(PutBack), shell(ENTER)) };
    let host = options.start();

    let offered = assert_moved_and_delegated(&host);
    host.load_busybox();
    host.assert_runs_containers();
    assert_eq!(host.docker(["info", "-f", "{{.CgroupVersion}}"]).ok(), "2");
    assert_eq!(host.shell("cat /sys/fs/cgroup/docker/cgroup.controllers").ok(), offered);

    host.stop();
    host.assert_exited(0);
    host.start();
    host.assert_runs_containers();
    host.stop();
    host.assert_exited(0);
}

/// Asserts that the limits of containers are what they are said to be, and that they bind.
#[track_caller]
fn assert_limits_hold(docker: impl Fn(&[&str]) -> Ended, shell: impl Fn(&str) -> Ended) {
    let burn = ["busybox", "sh", "-c", "while :; do :; done"];
    let limits = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "8"];
    docker(&[&["run", "-d", "--name", "limited"], &limits[..], &burn].concat()).ok();
    let group = format!("/sys/fs/cgroup/docker/{}", docker(&["inspect", "-f", "{{.Id}}", "limited"]).ok());
    let read = |file: &str| shell(&format!("cat {group}/{file}")).ok();
    assert_eq!(read("memory.max"), "67108864");
    assert_eq!(read("pids.max"), "8");
    assert_eq!(read("cpu.max"), "50000 100000");

    let used = || {
        let statistics = read("cpu.stat");
        let line = statistics.lines().find_map(|line| line.strip_prefix("usage_usec "));
        (Instant::now(), Duration::from_micros(line.and_then(|us| us.parse().ok()).expect("cpu.stat has it")))
    };
    let (began, before) = used();
    std::thread::sleep(Duration::from_secs(5));
    let (ended, after) = used();
    let share = (after - before).as_secs_f64() / (ended - began).as_secs_f64();
    assert!(share < 0.6, "half a processor is allowed, {share:.2} were used");
    assert!(!read("cpu.stat").contains("nr_throttled 0"), "{}", read("cpu.stat"));

    let fork = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait";
    let forks = |container| docker(&["exec", container, "sh", "-c", fork]);
    forks("limited").fails().says(&["can't fork"]);
    assert!(!read("pids.events").contains("max 0"), "{}", read("pids.events"));
    docker(&["rm", "-f", "limited"]).ok();
    docker(&["run", "-d", "--name", "free", "busybox", "sleep", "1000"]).ok();
    forks("free").ok();
    docker(&["rm", "-f", "free"]).ok();

    // Asked of the kernel, since an engine under load may miss why a container has ended.
    let take = "busybox dd if=/dev/zero of=/dev/null bs=128M count=1; echo ended with $?; cat /sys/fs/cgroup/memory.events";
    for (limit, said) in [("64m", ["ended with 137", "oom_kill 1"]), ("256m", ["ended with 0", "oom_kill 0"])]
    {
        let taken = docker(&["run", "--rm", "-m", limit, "busybox", "sh", "-c", take]).ok();
        let lines: Vec<&str> = taken.lines().collect();
        assert!(said.iter().all(|line| lines.contains(line)), "{limit}: {taken}");
    }
}

#[test]
#[ignore = "the machine must be a host itself: run tests/vm/cgroup2"]
fn the_machine_itself_is_a_host_on_v2() {
    let shell = |line: &str| Call::new("sh").args(["-c", line]).run();
    assert!(!Path::new("/sys/fs/cgroup/cgroup.type").exists(), "the root group of a machine has no type");
    assert!(shell("cat /sys/fs/cgroup/cgroup.procs").ok().lines().any(|process| process == "1"));
    let offered = assert_delegated(shell);
    for controller in ["cpu", "io", "memory", "pids"] {
        assert!(offered.split(' ').any(|name| name == controller), "{controller}: {offered}");
    }
    let import = "mkdir -p /tmp/bin && cp /bin/busybox /tmp/bin && cd /tmp/bin && for i in sh sleep; do ln -sf busybox $i; done && \
        tar -C /tmp -c bin | docker import -c 'ENV PATH=/bin' - busybox";
    shell(import).ok();
    assert_limits_hold(|args| docker(args.iter().copied()), shell);
}

#[test]
#[ignore = "the machine must be on cgroup v2: run tests/vm/cgroup2"]
fn limits_of_nested_containers_hold() {
    let host = Host::options().run(["-m", "1g"]).start();
    host.shell("echo max >/sys/fs/cgroup/memory.max").fails();
    host.load_busybox();
    assert_limits_hold(|args| host.docker(args), |line| host.shell(line));
}

#[test]
#[ignore = "the machine must be on cgroup v2 and allow --privileged: run tests/vm/cgroup2"]
fn limits_of_nested_containers_hold_in_a_privileged_host() {
    let host = Host::options().privileged().start();
    assert_moved_and_delegated(&host);
    host.load_busybox();
    assert_limits_hold(|args| host.docker(args), |line| host.shell(line));
    host.stop();
    host.assert_exited(0);
    host.start();
    assert_moved_and_delegated(&host);
    host.assert_runs_containers();
}

/// The clock of a whole machine is set, which is no deed for a machine that others use.
#[test]
#[ignore = "it sets the machine's clock: run tests/vm/cgroup2"]
fn a_clock_that_jumps_disturbs_nothing() {
    let host = Host::options().run(["--cap-add", "SYS_TIME"]).start();
    host.load_busybox();
    host.run_nested("worker", &["--restart", "always"], POLITE);
    // A day forward, two days back, and to where it was.
    for (seconds, tag) in [(86_400, "forward"), (-172_800, "back"), (86_400, "again")] {
        host.shell(&format!("date -s @$(($(date +%s) + {seconds}))")).ok();
        host.exec(["dind-init", "health"]).ok();
        let before = host.status()["last_sync"].clone();
        host.docker(["tag", "busybox", tag]).ok();
        until("a sync after the clock has jumped", 60, || {
            (host.status()["last_sync"] != before).then_some(())
        });
        host.assert_runs_containers();
        // By the clock, whatever is there may be older or younger than the last sync.
        host.signal("KILL");
        host.ends();
        host.start();
        assert!(
            host.logs().contains("repair: 0 of 1 layers are younger than the last sync"),
            "{}",
            host.logs()
        );
        assert!(!host.logs().contains("set aside"), "{}", host.logs());
        assert_eq!(host.docker(["images", "-q", tag]).ok().lines().count(), 1);
        host.wait_for_nested("worker");
        host.stop();
        host.assert_exited(0);
        host.start();
        assert_eq!(host.status()["last_stop"], "clean");
    }
    assert_eq!(host.service("dockerd")["restarts"], 0);
}

/// A container whose processes are in its root until somebody makes the file `/go`, and which then becomes a host; with
/// its group on the machine.
fn late_host() -> (Host, PathBuf) {
    let script = "until [ -e /go ]; do sleep 0.1; done; exec dind-init";
    let host = Host::options().run(["--entrypoint", "sh"]).arguments(["-c", script]).create();
    docker(["start", host.name()]).ok();
    let group = Path::new("/sys/fs/cgroup/docker").join(host.inspect("{{.Id}}"));
    (host, group)
}

#[test]
#[ignore = "the machine must be on cgroup v2: run tests/vm/cgroup2"]
fn a_storm_of_execs_does_not_keep_processes_from_moving() {
    let (host, group) = late_host();
    let began = Instant::now();
    let busy =
        || std::fs::read_to_string(group.join("cgroup.subtree_control")).is_ok_and(|on| on.trim().is_empty());
    let storm = || {
        let mut count = 0;
        while busy() && began.elapsed() < Duration::from_secs(60) {
            host.docker_exec().args(["sh", "-c", "sleep 0.1 & sleep 0.1 & wait"]).run().ok();
            count += 1;
        }
        count
    };
    let count: u32 = std::thread::scope(|scope| {
        let storms: Vec<_> = (0..10).map(|_| scope.spawn(storm)).collect();
        host.exec(["touch", "/go"]).ok();
        storms.into_iter().map(|storm| storm.join().unwrap()).sum()
    });
    assert!(count >= 10, "the storm was a breeze: {count}");
    host.wait();
    assert_moved(&host);
    host.docker_exec().arg("true").run().ok();
    assert!(!host.logs().contains("processes that stay"), "{}", host.logs());
    assert_eq!(host.alarms(), []);
    host.load_busybox();
    host.assert_runs_containers();
    // The kernel refuses cpuset as long as the storm is on, but runc asks for it again with each container.
    assert_delegated(|line| host.shell(line));
}

/// A process of the machine that sits in the group of a host, which sees it there but cannot name or move it.
struct Intruder(Child);

impl Intruder {
    fn enter(group: &Path) -> Self {
        let intruder = Self(Command::new("sleep").arg("1000").spawn().unwrap());
        std::fs::write(group.join("cgroup.procs"), intruder.0.id().to_string()).unwrap();
        intruder
    }
}

impl Drop for Intruder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "the machine must be on cgroup v2: run tests/vm/cgroup2"]
fn a_process_that_leaves_in_time_does_no_harm() {
    let (host, group) = late_host();
    let intruder = Intruder::enter(&group);
    host.exec(["touch", "/go"]).ok();
    until("the leaf", 20, || group.join("dind").exists().then_some(()));
    drop(intruder);
    host.wait();
    assert_moved_and_delegated(&host);
}

#[test]
#[ignore = "the machine must be on cgroup v2: run tests/vm/cgroup2"]
fn a_process_that_stays_is_named() {
    let (host, group) = late_host();
    let intruder = Intruder::enter(&group);
    host.exec(["touch", "/go"]).ok();
    host.wait();
    assert!(host.logs().contains("without all controllers"), "{}", host.logs());
    assert!(host.logs().contains("processes that stay: 1 of another pid namespace"), "{}", host.logs());
    // A later start finds the way free.
    drop(intruder);
    host.stop();
    host.assert_exited(0);
    host.start();
    assert_delegated(|line| host.shell(line));
}
