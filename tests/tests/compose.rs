//! The dynamic appliance: an application's life is its host's.

use dind_tests::{BuiltImage, Host, Terminal, appliance_image, until, until_equal};

/// Two services, one of which writes what it was told, and into its own file system.
const TWO: &str = r#"
services:
  talker:
    build: box
    init: true
    command: [sh, -c, "echo ${GREETING:-nothing} from the talker; echo aside >&2; echo kept >>/kept; exec sleep 1000"]
  quiet:
    build: box
    init: true
    command: [sleep, "1000"]
    depends_on: [talker]
"#;

#[test]
fn an_application_runs_and_its_output_is_the_hosts() {
    let host = Host::options().script(TWO).env("GREETING", "good morning").start();
    host.wait_for_line("talker-1", "good morning from the talker");
    host.wait_for_line("talker-1", "aside");
    assert_eq!(host.listening_ports(), [0; 0], "LOCAL is implied");
    let status = host.status();
    assert_eq!(status["phase"], "ready");
    assert_eq!(status["application"]["project"], "compose");
    assert_eq!(status["application"]["containers"][0]["name"], "quiet-1");
    assert_eq!(status["application"]["containers"][1]["state"], "running");
    assert_eq!(host.service("compose")["state"], "ready");
    let text = host.exec(["dind-init", "status"]).ok();
    assert!(text.contains("talker-1   running"), "{text}");
    assert!(host.exec(["dind-init", "health"]).ok().contains("healthy"));
    // The script may have passwords in it.
    assert_eq!(host.shell("stat -c %a /run/dind/compose.yml /run/dind/application.json").ok(), "600\n600");

    host.stop();
    host.assert_exited(0);
    host.start();
    // What it wrote is there, and what it said before is not said again.
    until_equal("both lives to be in the file", 20, "kept\nkept", || {
        host.docker(["exec", "compose-talker-1", "cat", "/kept"]).stdout.trim_end().to_owned()
    });
    host.wait_for_line("talker-1", "good morning");
    let said = host.lines_of("talker-1");
    assert_eq!(said.iter().filter(|line| line.contains("good morning")).count(), 2, "{said:?}");
    host.stop();
    host.assert_exited(0);
    assert_eq!(host.alarms(), []);
}

/// A service that ends after some time with a code.
fn ending(name: &str, seconds: f32, code: u8, more: &str) -> String {
    ending_after(name, &format!("sleep {seconds}"), code, more)
}

/// A service that ends with a code once this line of shell is done.
fn ending_after(name: &str, line: &str, code: u8, more: &str) -> String {
    format!("  {name}:\n    build: box\n    command: [sh, -c, \"{line}; echo bye; exit {code}\"]\n{more}")
}

#[test]
fn a_host_ends_with_the_first_code_that_is_not_0_in_the_order_of_ending() {
    // The code of the one that ends first, and of the other; who that is, by name.
    for (first, second, expected) in
        [(("a", 0), ("b", 0), 0), (("b", 3), ("a", 4), 3), (("a", 0), ("b", 7), 7)]
    {
        let shared = "    volumes: ['shared:/shared']\n";
        // A second more: each container has a shim of its own, and the engine may see their exits in another order.
        let then = "until [ -e /shared/ended ]; do sleep 0.1; done; sleep 1";
        let script = format!(
            "services:\n{}{}volumes: {{shared: {{}}}}\n",
            ending_after(first.0, "touch /shared/ended", first.1, shared),
            ending_after(second.0, then, second.1, shared)
        );
        let host = Host::options().script(&script).create();
        let ended = host.run_to_its_end();
        assert_eq!(ended.code, Some(expected), "{ended}");
        assert_eq!(host.lines_of("a-1"), ["bye"]);
        assert_eq!(host.lines_of("b-1"), ["bye"]);
        assert!(ended.stdout.contains("stopping, because the application has ended"), "{ended}");
    }
}

#[test]
fn a_service_that_its_policy_brings_back_has_not_ended() {
    let script = format!(
        "services:\n{}{}",
        ending("always", 1.0, 5, "    restart: always\n"),
        ending("thrice", 0.2, 6, "    restart: on-failure:2\n")
    );
    let host = Host::options().script(&script).create();
    dind_tests::docker(["start", host.name()]).ok();
    until_equal("one to have run three times, and to have ended for good", 30, 3, || {
        host.lines_of("thrice-1").len()
    });
    until("the other to have been brought back twice", 30, || {
        (host.lines_of("always-1").len() >= 3).then_some(())
    });
    host.wait_for_line("compose", "thrice-1 ended with code 6");
    assert_eq!(host.inspect("{{.State.Running}}"), "true");
    assert_ne!(host.status()["phase"], "ready", "one has failed for good");
    host.stop();
    host.assert_exited(0);
}

#[test]
fn a_host_ends_when_no_policy_is_left() {
    let script = format!("services:\n{}", ending("twice", 0.2, 6, "    restart: on-failure:1\n"));
    let host = Host::options().script(&script).create();
    host.run_to_its_end().exits(6);
    assert_eq!(host.lines_of("twice-1"), ["bye"; 2]);
}

#[test]
fn health_checks_decide_when_it_is_ready() {
    let script = "
services:
  web:
    build: box
    init: true
    command: [sleep, '1000']
    user: '1000'
    healthcheck: {test: [CMD, ls, /well], interval: 500ms, retries: 2}
";
    let host = Host::options().script(script).create();
    dind_tests::docker(["start", host.name()]).ok();
    host.wait_for_line("compose", "Started");
    let said = host.exec(["dind-init", "wait", "--timeout", "1"]).exits(124);
    assert!(said.stderr.contains("web-1"), "{said}");
    host.docker(["exec", "-u", "0", "compose-web-1", "touch", "/well"]).ok();
    host.wait();
    host.docker(["exec", "-u", "0", "compose-web-1", "/bin/busybox", "rm", "/well"]).ok();
    host.wait_for_line("compose", "web-1 is unhealthy");
    until_equal("the host not to be ready any more", 10, "degraded", || {
        host.status()["phase"].as_str().unwrap().to_owned()
    });
    host.exec(["dind-init", "health"]).exits(70).says(&["web-1 is unhealthy"]);
    host.docker(["exec", "-u", "0", "compose-web-1", "touch", "/well"]).ok();
    host.wait();
    host.stop();
    host.assert_exited(0);
}

#[test]
fn a_compose_file_that_does_not_parse_is_refused_with_its_line() {
    let refusals = Host::options().script("").refusals();
    for (script, texts) in [
        (
            "services:\n  web:\n    image: x\n   bad: 1\n  db:\n",
            &["COMPOSE_SCRIPT, line 4", "bad: 1", "yaml"][..],
        ),
        ("services:\n  web:\n    command: [a,\n      b]\n    image: [x\n", &["line 5", "image: [x"]),
        ("services:\n  web:\n\timage: x\n", &["line 3", r#""\timage: x""#, "cannot start any token"]),
        ("services:\n  web:\n    image: a: b\n", &["line 3", "image: a: b"]),
        ("services: {}\n", &["no service"]),
        ("services:\n  web:\n    imagee: x\n    image: x\n", &["line 3", "imagee: x", "not allowed"]),
        ("services:\n  web:\n    image: x\n    depends_on: [db]\n", &["line 2", "undefined service"]),
        ("services:\n  web:\n    image: x\n    ports: 80\n", &["line 4", "ports"]),
        ("services:\n  web:\n    image: ${NEEDED?is needed}\n", &["NEEDED", "is needed"]),
    ] {
        refusals.refuses_setting(&format!("COMPOSE_SCRIPT={script}"), texts);
    }
    // As PID 1, too.
    let host = Host::options().script("services: {}").create();
    host.refuses(64, &["no service"]);
    assert!(!host.logs().contains("dockerd:"), "nothing has started: {}", host.logs());
}

#[test]
fn an_appliance_has_one_compose_file() {
    Host::options().dynamic().refused(64, &["has no application", "COMPOSE_SCRIPT"]);
    Host::options().fixed().refused(64, &["has no application"]);
    let two = Host::options().script("services: {}").file("/docker-compose.yml", 0o644, "services: {}");
    two.refused(64, &["more than one Compose file: /docker-compose.yml and COMPOSE_SCRIPT"]);
    Host::options().env("COMPOSE_SCRIPT", "services: {}").refused(64, &["dind-compose-dynamic"]);
}

#[test]
fn a_file_a_folder_and_what_lies_beside_them() {
    let file = "
name: called
services:
  web:
    build: box
    command: [sh, -c, 'cat /settings; echo $$FROM_ENV_FILE and ${FROM_DOT_ENV}; exec sleep 1000']
    init: true
    env_file: web.env
    configs: [settings]
configs:
  settings: {file: ./settings}
";
    let host = Host::options()
        .dynamic()
        .file("/compose/compose.yaml", 0o644, file)
        .file("/compose/web.env", 0o644, "FROM_ENV_FILE=one\n")
        .file("/compose/.env", 0o644, "FROM_DOT_ENV=two\n")
        .file("/compose/settings", 0o644, "from a config\n")
        .start();
    host.wait_for_line("web-1", "from a config");
    host.wait_for_line("web-1", "one and two");
    assert_eq!(host.status()["application"]["project"], "called");
}

#[test]
fn what_cannot_come_up_ends_the_host() {
    // One that another waits for has failed: it is not run again.
    let script = format!(
        "services:\n{}  web:\n    build: box\n    depends_on: {{task: {{condition: \
         service_completed_successfully}}}}\n",
        ending("task", 0.1, 9, "")
    );
    let host = Host::options().script(&script).create();
    host.run_to_its_end().exits(9);
    assert_eq!(host.lines_of("task-1"), ["bye"]);
    // An image that nobody has.
    let script = "services:\n  web:\n    image: 127.0.0.1:1/nothing\n    pull_policy: always\n";
    let host = Host::options().script(script).env("DIND_ON_FAILURE", "exit").create();
    let ended = host.run_to_its_end();
    assert_eq!(ended.code, Some(1), "{ended}");
    assert!(
        ended.stderr.contains("compose ended with code 1") && ended.stderr.contains("127.0.0.1:1"),
        "{ended}"
    );
}

#[test]
fn ctrl_c_on_an_attached_host_stops_it() {
    let host = Host::options().script(TWO).run(["-it"]).create();
    let mut terminal = Terminal::start("docker", ["start", "-ai", host.name()]);
    terminal.shows("from the talker");
    host.wait();
    terminal.types("\x03");
    assert_eq!(terminal.ends(), 0);
    host.assert_exited(0);
}

#[test]
fn a_command_on_an_appliance_runs_beside_its_application() {
    let host = Host::options().script(TWO).arguments(["docker", "ps", "--format", "{{.Names}}"]).create();
    let names = host.run_to_its_end().ok();
    assert_eq!(names, "compose-quiet-1\ncompose-talker-1");
}

#[test]
fn a_static_appliance_is_an_image_of_its_own_and_its_next_version_replaces_it() {
    let version = |said: &str, more: &str| {
        let compose = format!(
            "services:\n  web:\n    build: box\n    init: true\n    command: [sh, -c, 'echo {said}; cat /built; exec sleep 1000']\n\
             \x20   volumes: ['data:/data']\n{more}volumes: {{data: {{}}}}\n"
        );
        let dockerfile = format!(
            "FROM {}\nCOPY docker-compose.yml /\nCOPY box /box\nLABEL dind.test=yes\n",
            appliance_image("static")
        );
        let rootfs = dind_tests::busybox();
        let context = format!("FROM scratch\nADD rootfs.tar /\nCOPY built /built\nENV PATH=/bin\n# {said}\n");
        BuiltImage::new(
            &dockerfile,
            &[
                ("docker-compose.yml", compose.as_bytes()),
                ("box/Dockerfile", context.as_bytes()),
                ("box/built", format!("built for {said}\n").as_bytes()),
                ("box/rootfs.tar", &rootfs),
            ],
        )
    };
    let old = "  old:\n    build: box\n    init: true\n    command: [sleep, '1000']\n    restart: always\n";
    let (one, two) = (version("one", old), version("two", ""));
    let data = dind_tests::Volume::new();
    let run =
        |image: &BuiltImage| Host::options().image(image.name(), "").volume(&data, "/var/lib/docker").start();
    let host = run(&one);
    host.wait_for_line("web-1", "built for one");
    host.docker(["exec", "compose-web-1", "sh", "-c", "echo kept >/data/kept"]).ok();
    host.stop();
    drop(host);
    let host = run(&two);
    host.wait_for_line("web-1", "two");
    host.wait_for_line("web-1", "built for two");
    assert_eq!(host.docker(["exec", "compose-web-1", "cat", "/data/kept"]).ok(), "kept");
    assert_eq!(
        host.docker(["ps", "-a", "--format", "{{.Names}}"]).ok(),
        "compose-web-1",
        "what was left out is gone"
    );
    host.stop();
    host.assert_exited(0);
    assert_eq!(host.alarms(), []);
}
