//! Options for dockerd, from the environment, from arguments, from daemon.json.

use dind_tests::{Client, Host, HostOptions, until_equal};

fn info(host: &Host, format: &str) -> String {
    host.docker(["info", "--format", format]).ok()
}

/// The engine's labels, sorted: it says them in any order.
fn labels(host: &Host) -> Vec<String> {
    let mut labels: Vec<String> = serde_json::from_str(&info(host, "{{json .Labels}}")).unwrap();
    labels.sort();
    labels
}

#[test]
fn quotes_in_docker_opts_hold_words_together() {
    let options = r#"--insecure-registry 10.0.0.1 --label "a=b c" --label 'd=$HOME' --label e=f\ g"#;
    let host = Host::options().env("DOCKER_OPTS", options).start();
    assert_eq!(labels(&host), ["a=b c", "d=$HOME", "e=f g"]);
    let registries = info(&host, "{{json .RegistryConfig}}");
    assert!(registries.contains("10.0.0.1"), "{registries}");
}

#[test]
fn arguments_are_options_for_dockerd() {
    let forms: [&[&str]; 2] = [&["--label", "a=b c", "--debug"], &["dockerd", "--label", "a=b c", "--debug"]];
    for arguments in forms {
        let host = Host::options().env("DOCKER_OPTS", "--label d=e").arguments(arguments).start();
        assert_eq!(labels(&host), ["a=b c", "d=e"], "{arguments:?}");
        assert_eq!(info(&host, "{{.Debug}}"), "true", "{arguments:?}");
    }
    let host = Host::options().arguments(["dockerd"]).start();
    assert_eq!(host.listening_ports(), [2376]);
}

#[test]
fn what_a_host_decides_can_be_said_otherwise() {
    let host = Host::options().arguments(["--data-root", "/var/lib/docker/deeper"]).start();
    assert_eq!(info(&host, "{{.DockerRootDir}}"), "/var/lib/docker/deeper");
    drop(host);
    let host = Host::options().arguments(["-H", "tcp://0.0.0.0:4000"]).start();
    assert_eq!(host.listening_ports(), [2376, 4000]);
    host.client_at(&format!("tcp://{}:4000", host.ip())).docker(["version"]).ok();
}

#[test]
fn what_docker_dind_users_say_today_works() {
    let host = Host::options()
        .arguments(["dockerd", "--host=unix:///var/run/docker.sock", "--host=tcp://0.0.0.0:2376"])
        .start();
    assert_eq!(host.listening_ports(), [2376]);
    host.client().docker(["version"]).ok();
    drop(host);
    let plain = ["--tls=false", "--host=tcp://0.0.0.0:2375"];
    let host = Host::options().env("DOCKER_TLS_CERTDIR", "").arguments(plain).start();
    let _ = Client::plain(&format!("tcp://{}:2375", host.ip())).docker(["version"]).ok();
}

fn with_daemon_json(text: &str) -> HostOptions {
    Host::options().file("/etc/docker/daemon.json", 0o644, text)
}

#[test]
fn daemon_json_is_honoured_and_sighup_reads_it_again() {
    let host = with_daemon_json(r#"{"labels": ["one=1"], "debug": false}"#).start();
    assert_eq!(info(&host, "{{json .Labels}} {{.Debug}}"), r#"["one=1"] false"#);
    let before = host.pid_of("dockerd");
    host.put(&[(
        "/etc/docker/daemon.json".into(),
        0o644,
        br#"{"labels": ["two=2"], "debug": true}"#.to_vec(),
    )]);
    host.signal("HUP");
    let reread = || info(&host, "{{json .Labels}} {{.Debug}}");
    until_equal("dockerd to read daemon.json again", 20, r#"["two=2"] true"#, reread);
    assert_eq!(host.pid_of("dockerd"), before);
    host.stop();
    host.assert_exited(0);
}

#[test]
fn a_pipe_in_place_of_daemon_json_keeps_nobody_waiting() {
    let script =
        "mkdir -p /etc/docker; rm -f /etc/docker/daemon.json; mkfifo /etc/docker/daemon.json; exec dind-init";
    let options = Host::options().run(["--entrypoint", "sh"]).arguments(["-c", script]);
    options.refused(64, &["/etc/docker/daemon.json", "it is no file"]);
}

#[test]
fn a_broken_daemon_json_is_refused() {
    let table = [
        ("{\"debug\": tru", "not JSON"),
        ("[]", "not a JSON object"),
        (r#"{"hosts": ["tcp://0.0.0.0:2376"]}"#, "\"hosts\""),
        (r#"{"tls": true}"#, "\"tls\""),
        (r#"{"tlsverify": false}"#, "\"tlsverify\""),
        (r#"{"tlscert": "/x"}"#, "\"tlscert\""),
        (r#"{"exec-root": "/x"}"#, "\"exec-root\""),
        (r#"{"containerd": "/x"}"#, "\"containerd\""),
        (r#"{"live-restore": true}"#, "\"live-restore\""),
    ];
    let (first, cause) = table[0];
    with_daemon_json(first).refused(64, &["/etc/docker/daemon.json", cause]);
    let refusals = Host::options().refusals();
    for (text, cause) in table {
        refusals.container().put(&[("/etc/docker/daemon.json".into(), 0o644, text.into())]);
        refusals.refuses(&[], &[], 64, &["/etc/docker/daemon.json", cause]);
    }
}

/// What dockerd itself finds wrong: its own words reach the user, with the exit code of a bad argument or setting.
#[test]
fn an_option_that_dockerd_refuses_ends_the_host_with_its_words() {
    Host::options().env("DOCKER_OPTS", "--frobnicate=yes").refused(64, &["frobnicate"]);
    Host::options().arguments(["--log-level", "shouting"]).refused(64, &["shouting"]);
    with_daemon_json(r#"{"frobnicate": true}"#).refused(64, &["frobnicate"]);
    with_daemon_json(r#"{"debug": true}"#).arguments(["--debug"]).refused(64, &["debug"]);
}

#[test]
fn options_that_would_clash_are_refused_by_name() {
    let table = [
        ("--exec-root=/x", "--exec-root"),
        ("--containerd /x.sock", "--containerd"),
        ("--live-restore", "--live-restore"),
        ("--tlscacert /x", "--tlscacert"),
        ("--tlscert /x", "--tlscert"),
        ("--tlskey /x", "--tlskey"),
        ("--tlsverify=false", "--tlsverify=false"),
        ("-H fd://", "fd://"),
        ("--data-root relative", "relative"),
        ("--label", "--label"),
        ("--version", "--version"),
        ("word", "word"),
    ];
    let refusals = Host::options().refusals();
    for (line, named) in table {
        refusals.refuses_setting(&format!("DOCKER_OPTS={line}"), &["DOCKER_OPTS", named]);
    }
    Host::options().arguments(["--live-restore"]).refused(64, &["--live-restore"]);
    let port = "tcp://0.0.0.0:4000";
    refusals.refuses(&["env", "LOCAL=true"], &["-H", port], 64, &["LOCAL", port]);
}
