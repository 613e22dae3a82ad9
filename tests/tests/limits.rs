//! Open files and processes.

use dind_tests::{Call, Host, HostOptions};

/// Soft and hard limit of open files in a container, after `docker exec`, and in a step of a build.
fn limits(host: &Host) -> [String; 3] {
    const ASK: &str = "echo =$(ulimit -Sn):$(ulimit -Hn)=";
    let found = |text: String| text.split('=').find(|part| part.contains(':')).map(str::to_owned);
    host.load_busybox();
    host.docker(["run", "-d", "--name", "worker", "busybox", "sleep", "1000"]).ok();
    let run = host.docker(["run", "--rm", "busybox", "sh", "-c", ASK]).ok();
    let exec = host.docker(["exec", "worker", "sh", "-c", ASK]).ok();
    let dockerfile = format!("FROM busybox\nRUN {ASK} > /limits\nCMD [\"cat\", \"/limits\"]\n");
    let build = ["exec", "-i", host.name(), "docker", "build", "-t", "app", "-"];
    Call::new("docker").args(build).stdin(dockerfile).run().ok();
    let built = host.docker(["run", "--rm", "app"]).ok();
    [run, exec, built].map(|text| found(text).expect("ulimit prints a number"))
}

fn with_at_most(files: u64) -> HostOptions {
    Host::options().run(["--ulimit", &format!("nofile={files}:{files}")])
}

#[test]
fn containers_and_builds_start_with_a_sane_limit_of_open_files() {
    let host = with_at_most(8192).start();
    assert_eq!(limits(&host), ["1024:8192"; 3]);
    // The services themselves may use all that there is.
    for service in ["dockerd", "containerd"] {
        let text = host.shell(&format!("cat /proc/{}/limits", host.pid_of(service))).ok();
        let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
        // Go raises its soft limit to the hard one, or to one less.
        let soft: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
        assert!(soft >= 8191, "{service}: {line}");
    }
}

#[test]
fn the_limit_of_open_files_can_be_set() {
    let host = with_at_most(8192).env("DIND_NOFILE", "300:400").start();
    let [run, exec, built] = limits(&host);
    assert_eq!([run, exec], ["300:400"; 2]);
    // A build step is a child of dockerd, which needs more than that.
    assert_eq!(built, "300:8192");
    drop(host);
    let host = with_at_most(8192).env("DIND_NOFILE", "300:1000000").start();
    assert_eq!(limits(&host)[0], "300:8192");
    assert!(
        host.alarms().iter().any(|line| line.message.contains("--ulimit nofile=1000000")),
        "{:?}",
        host.alarms()
    );
}

#[test]
fn limits_that_somebody_set_for_dockerd_stand() {
    let host = with_at_most(8192).env("DOCKER_OPTS", "--default-ulimit nofile=500:600").start();
    assert_eq!(limits(&host)[0], "500:600");
    drop(host);
    // One for something else is joined.
    let host = with_at_most(8192).env("DOCKER_OPTS", "--default-ulimit core=0:0").start();
    host.load_busybox();
    let asked = host.docker(["run", "--rm", "busybox", "sh", "-c", "ulimit -Sn; ulimit -c"]).ok();
    assert_eq!(asked, "1024\n0");
    drop(host);
    let file = r#"{"default-ulimits": {"core": {"Name": "core", "Soft": 0, "Hard": 0}}}"#;
    let host = with_at_most(8192).file("/etc/docker/daemon.json", 0o644, file).start();
    host.load_busybox();
    let asked = host.docker(["run", "--rm", "busybox", "sh", "-c", "ulimit -Sn; ulimit -c"]).ok();
    assert_eq!(asked, "1024\n0");
}

#[test]
fn a_low_limit_of_processes_is_worth_a_word() {
    let host = Host::options().run(["--pids-limit", "400"]).start();
    host.load_busybox();
    host.assert_runs_containers();
    let alarms = host.alarms();
    assert!(
        matches!(alarms.as_slice(), [line] if line.message.starts_with("pids: ") && line.message.contains("--pids-limit")),
        "{alarms:?}"
    );
}
