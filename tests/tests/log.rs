//! The log: one line an event, each with its service; and a reader who stops reading.

use dind_tests::Host;
use serde_json::Value;

#[test]
fn as_text_every_line_has_its_level_and_service() {
    let host = Host::options().start();
    host.stop();
    let logs = host.logs();
    for line in logs.lines() {
        let read = dind_tests::Line::parse(line).unwrap_or_else(|| panic!("not a line of a log: {line}"));
        assert!(["dind-init", "dockerd", "containerd"].contains(&&*read.service), "{line}");
        assert!(["debug", "info", "warn", "error"].contains(&&*read.level), "{line}");
        assert!(line.as_bytes()[..24].is_ascii() && line[..24].ends_with('Z'), "{line}");
    }
    assert!(logs.contains(" dockerd: "), "{logs}");
}

#[test]
fn as_json_every_line_is_an_object_with_its_service() {
    let host = Host::options().env("DIND_LOG", "json").start();
    host.stop();
    host.assert_exited(0);
    let logs = host.logs();
    let mut services = Vec::new();
    for line in logs.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["time", "level", "service", "message"] {
            assert!(value[key].is_string(), "no {key}: {line}");
        }
        services.push(value["service"].as_str().unwrap().to_owned());
    }
    for service in ["dind-init", "dockerd"] {
        assert!(services.iter().any(|name| name == service), "no line of {service}\n{logs}");
    }
}

/// Standard output and error are a full pipe that nobody drains.
#[test]
fn a_log_reader_who_stops_reading_does_not_stop_the_host() {
    let script = "mkfifo /full && exec 3<>/full && head -c 65536 /dev/zero >&3 && exec dind-init >&3 2>&3";
    let host = Host::options().run(["--entrypoint", "sh"]).arguments(["-c", script]).start();
    host.load_busybox();
    host.assert_runs_containers();
    host.stop();
    host.assert_exited(0);
}

/// The same with a bad setting: the host still ends, with its code.
#[test]
fn an_error_that_nobody_reads_still_ends_the_host() {
    let script = "mkfifo /full && exec 3<>/full && head -c 65536 /dev/zero >&3 && exec dind-init >&3 2>&3";
    let options = Host::options().run(["--entrypoint", "sh"]).env("LOCAL", "maybe").arguments(["-c", script]);
    options.create().run_to_its_end().exits(64);
}

/// Output that is closed, as by `docker run ... >&-` in a script.
#[test]
fn a_closed_log_does_not_stop_the_host() {
    let host =
        Host::options().run(["--entrypoint", "sh"]).arguments(["-c", "exec dind-init >&- 2>&-"]).start();
    host.stop();
    host.assert_exited(0);
}
