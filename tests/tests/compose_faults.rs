//! Appliances when something goes wrong: programs that do not listen, processes that are killed, registries with passwords.

use dind_tests::{
    Call, Host, POLITE, REGISTRY, REGISTRY_PORT, Registry, STUBBORN, docker, until, until_equal,
};

#[test]
fn a_database_has_its_turn_though_what_uses_it_does_not_listen() {
    let script = format!(
        "
services:
  database: {{build: box, command: [sh, -c, {POLITE:?}]}}
  cache: {{build: box, command: [sh, -c, {POLITE:?}], depends_on: [database]}}
  web: {{build: box, command: [sh, -c, {STUBBORN:?}], depends_on: [cache]}}
"
    );
    let host = Host::options().script(&script).start();
    for name in ["database-1", "cache-1", "web-1"] {
        host.wait_for_line(name, "up");
    }
    host.stop();
    host.assert_exited(0);
    assert_eq!(host.lines_of("database-1"), ["up", "last words"], "{}", host.logs());
    assert_eq!(host.lines_of("cache-1"), ["up", "last words"]);
    host.wait_for_line("compose", "web-1 has not ended in its share of the time and is killed");
    assert_eq!(host.alarms(), []);
    // It is there again.
    host.start();
    host.stop();
    host.assert_exited(0);
}

/// Counts, as fast as it can, and is done at some point.
const COUNTING: &str = "
services:
  counter:
    build: box
    command: [sh, -c, 'i=0; while [ $$i -lt 400 ]; do echo line $$i; i=$$((i+1)); sleep 0.02; done; exec sleep 1000']
    init: true
  task:
    build: box
    command: [sh, -c, 'echo once']
";

#[test]
fn who_looks_after_it_may_die_and_nothing_is_lost_or_done_twice() {
    let host = Host::options().script(COUNTING).start();
    for _ in 0..3 {
        let pid = host.pid_of("compose");
        host.shell(&format!("kill -9 {pid}")).ok();
        until("another to look after it", 20, || {
            let service = host.service("compose");
            (service["state"] == "ready" && service["pid"] != pid).then_some(())
        });
    }
    host.wait_for_line("counter-1", "line 399");
    let mut lines = host.lines_of("counter-1");
    // The line that was on its way when one died may come twice.
    lines.dedup();
    let expected: Vec<String> = (0..400).map(|number| format!("line {number}")).collect();
    assert_eq!(lines, expected);
    assert_eq!(host.lines_of("task-1"), ["once"]);
    host.stop();
    host.assert_exited(0);
}

#[test]
fn what_runs_comes_back_with_the_engine_and_what_has_ended_does_not() {
    let host = Host::options().script(COUNTING).start();
    host.wait_for_line("task-1", "once");
    let pid = host.pid_of("dockerd").to_string();
    host.exec(["sh", "-c", &format!("kill -9 {pid}")]).ok();
    host.wait_for_line("compose", "the engine is back");
    until_equal("the counter to run again", 30, "true\n", || {
        host.docker(["inspect", "-f", "{{.State.Running}}", "compose-counter-1"]).stdout
    });
    until_equal("the host to be ready again", 30, "ready", || {
        host.status()["phase"].as_str().unwrap().to_owned()
    });
    assert_eq!(host.lines_of("task-1"), ["once"]);
    host.stop();
    host.assert_exited(0);
}

#[test]
fn a_killed_host_comes_back_with_its_application() {
    let host = Host::options().script(COUNTING).start();
    host.wait_for_line("counter-1", "line 10");
    docker(["kill", host.name()]).ok();
    host.start();
    until_equal("it to count from the beginning", 30, 2, || {
        host.lines_of("counter-1").iter().filter(|line| *line == "line 0").count()
    });
    host.stop();
    host.assert_exited(0);
}

/// What `htpasswd -nbB me secret` prints.
const PASSWORDS: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

#[test]
fn images_come_from_a_private_registry_with_a_mounted_docker_config() {
    let registry = Registry::with_passwords(PASSWORDS);
    let address = format!("{REGISTRY}:{REGISTRY_PORT}");
    // "me:secret"
    let config = format!(r#"{{"auths": {{"{address}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#);
    let options = || registry.known_to(Host::options()).env("DIND_INSECURE_REGISTRIES", &address);
    let maker = options().file("/root/.docker/config.json", 0o600, config.as_str()).start();
    maker.load_busybox();
    let image = format!("{address}/private/box");
    maker.docker(["tag", "busybox", &image]).ok();
    maker.docker(["push", "-q", &image]).ok();
    drop(maker);
    let script =
        format!("services:\n  web:\n    image: {image}\n    command: [echo, from a private registry]\n");
    let appliance = || options().script(&script).env("DIND_ON_FAILURE", "exit");
    let host = appliance().file("/root/.docker/config.json", 0o600, config.as_str()).create();
    host.run_to_its_end().ok();
    assert_eq!(host.lines_of("web-1"), ["from a private registry"]);
    // Without it nobody gets in.
    appliance().create().run_to_its_end().exits(1).says(&["no basic auth credentials"]);
}

#[test]
fn a_reader_that_is_slow_loses_nothing_of_the_application() {
    // More than everything between the container and whoever reads can hold; a number a line, of a hundred bytes.
    let script = "
services:
  talker:
    build: box
    command: [sh, -c, 'exec awk \"BEGIN {for (i = 0; i < 60000; i++) printf \\\"%0100d\\\\n\\\", i}\"']
";
    let host = Host::options().script(script).create();
    let name = host.name();
    // Nobody reads until the application can write no more, and then everything: the engine below waits for the reader where it is
    // told to block.
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let read = format!("docker start -a {name} | (until [ -e {} ]; do sleep 0.1; done; cat)", go.display());
    let said = std::thread::scope(|scope| {
        let reader = scope.spawn(|| Call::new("bash").args(["-c", &read]).within(120).run().ok());
        // Looked for before the application begins: the engine may not answer for a container whose reader does not read.
        until("the host to run", 20, || (host.shell("true").code == Some(0)).then_some(()));
        // How much of it the engine in the host has: the same at ten looks, a tenth of a second apart.
        let (mut before, mut same) = (String::new(), 0);
        until("the application to be held up by its reader, or to be done", 60, || {
            let now = host.shell("cat /var/lib/docker/containers/*/*-json.log | wc -c").stdout;
            same = if now == before && now.trim() != "0" { same + 1 } else { 0 };
            before = now;
            (same == 10).then_some(())
        });
        std::fs::write(&go, "").unwrap();
        reader.join().unwrap()
    });
    let numbers: Vec<usize> =
        said.lines().filter_map(|line| line.split_once(" talker-1: ")?.1.trim().parse().ok()).collect();
    assert_eq!(numbers, (0..60_000).collect::<Vec<usize>>());
    assert!(!said.contains("lines were lost"));
    host.assert_exited(0);
}

#[test]
fn a_stop_in_the_middle_of_a_start_is_clean() {
    let script = "
services:
  first: {build: box, init: true, command: [sleep, '1000'], healthcheck: {test: [CMD, 'false'], interval: 1h, start_period: 1h}}
  second: {build: box, depends_on: {first: {condition: service_healthy}}}
";
    let host = Host::options().script(script).create();
    docker(["start", host.name()]).ok();
    host.wait_for_line("compose", "Waiting");
    host.stop();
    host.assert_exited(0);
    assert_eq!(host.alarms(), []);
    // At any other moment, too.
    for words in ["data root", "Starting up", "transferring context", "Waiting"] {
        let said = || host.logs().matches(words).count();
        let before = said();
        docker(["start", host.name()]).ok();
        until(words, 30, || (said() > before).then_some(()));
        host.stop();
        host.assert_exited(0);
    }
    assert_eq!(host.alarms(), []);
}

#[test]
fn whoever_restarts_a_container_by_hand_does_not_end_the_host() {
    let script = "
services:
  web: {build: box, init: true, command: [sh, -c, 'echo up; exec sleep 1000']}
";
    let host = Host::options().script(script).start();
    host.docker(["restart", "compose-web-1"]).ok();
    host.docker(["compose", "-p", "compose", "restart"]).ok();
    until_equal("all three lives to be in the log", 20, 3, || host.lines_of("web-1").len());
    assert_eq!(host.inspect("{{.State.Running}}"), "true");
    // Who stops it for good ends the application.
    host.docker(["stop", "compose-web-1"]).ok();
    assert_eq!(host.ends(), 143);
}

#[test]
fn what_a_stop_has_ended_is_there_again_whatever_its_policy() {
    let service = |name: &str, policy: &str| {
        format!("  {name}: {{build: box, init: true, command: [sleep, '1000'], restart: {policy:?}}}\n")
    };
    let policies = [("a", "no"), ("b", "always"), ("c", "unless-stopped"), ("d", "on-failure")];
    let services: String = policies.iter().map(|(name, policy)| service(name, policy)).collect();
    // In no time, too: then dockerd stops them.
    let host =
        Host::options().script(&format!("services:\n{services}")).env("DIND_STOP_TIMEOUT", "3").start();
    for _ in 0..2 {
        host.stop_within(3);
        host.assert_exited(0);
        host.start();
        let running = host.docker(["ps", "--format", "{{.Names}}"]).ok();
        assert_eq!(running.lines().count(), policies.len(), "{running}");
    }
    // A hurry ends them at once, and cleanly.
    docker(["kill", "-s", "TERM", host.name()]).ok();
    docker(["kill", "-s", "TERM", host.name()]);
    assert_eq!(host.ends(), 0);
}
