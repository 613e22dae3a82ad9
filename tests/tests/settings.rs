//! Environment variables with bad values.

use dind_tests::{Host, Volume};

/// Variable, value, and what the error says.
const REFUSED: [(&str, &str, &[&str]); 31] = [
    ("LOCAL", "maybe", &["LOCAL=maybe is not a yes or a no", "LOCAL=true"]),
    ("DIND_TLS", "perhaps", &["DIND_TLS=perhaps", "on", "off"]),
    ("DIND_TLS", "", &["DIND_TLS="]),
    ("DIND_LOG", "xml", &["DIND_LOG=xml", "text", "json"]),
    ("DIND_ON_FAILURE", "maybe", &["DIND_ON_FAILURE=maybe", "restart", "exit"]),
    ("DIND_STOP_TIMEOUT", "0", &["DIND_STOP_TIMEOUT=0", "second"]),
    ("DIND_STOP_TIMEOUT", "-1", &["DIND_STOP_TIMEOUT=-1", "second"]),
    ("DIND_STOP_TIMEOUT", "abc", &["DIND_STOP_TIMEOUT=abc", "second"]),
    ("DIND_TIME_LIMIT", "soon", &["DIND_TIME_LIMIT=soon is not a time from 1s to 365d", "6h"]),
    ("DIND_TIME_LIMIT", "-1", &["DIND_TIME_LIMIT=-1 is not a time"]),
    ("DIND_TIME_LIMIT", "1.5h", &["DIND_TIME_LIMIT=1.5h is not a time"]),
    ("DIND_TIME_LIMIT", "366d", &["DIND_TIME_LIMIT=366d is not a time"]),
    ("DIND_TIMELIMIT", "6h", &["DIND_TIMELIMIT", "DIND_TIME_LIMIT"]),
    ("DIND_TLS_SAN", "not a name", &["DIND_TLS_SAN", "not a name"]),
    ("DIND_TSL", "on", &["DIND_TSL", "DIND_TLS"]),
    ("DIND_STOP_TIMOUT", "5", &["DIND_STOP_TIMOUT", "DIND_STOP_TIMEOUT"]),
    ("DOCKER_OPTS", "--label 'a=b", &["DOCKER_OPTS", "quote"]),
    ("DOCKER_OPTS", "--label \"a=b", &["DOCKER_OPTS", "quote"]),
    ("DOCKER_TLS_CERTDIR", "certs", &["DOCKER_TLS_CERTDIR", "certs"]),
    ("COMPOSE_SCRIPT", "services: {}", &["COMPOSE_SCRIPT"]),
    ("DIND_NOFILE", "5:4", &["DIND_NOFILE=5:4", "1024:524288"]),
    ("DIND_BUILD_CACHE", "10", &["DIND_BUILD_CACHE=10 ", "10%"]),
    ("DIND_BUILD_CACHE", "much", &["DIND_BUILD_CACHE=much", "20GB"]),
    ("DIND_tls", "off", &["DIND_tls", "DIND_TLS"]),
    ("DIND_SYNC", "maybe", &["DIND_SYNC=maybe is not on or off"]),
    ("DIND_DNS", "127.0.0.11", &["DIND_DNS: 127.0.0.11"]),
    ("DIND_ADDRESS_POOLS", "10.0.0.0/8", &["DIND_ADDRESS_POOLS", "10.0.0.0/8"]),
    ("DIND_CGROUPS", "off", &["DIND_CGROUPS=off is not auto or keep"]),
    ("DIND_FIREWALL", "both", &["DIND_FIREWALL=both"]),
    ("DIND_STORAGE", "aufs", &["DIND_STORAGE=aufs is not a way to store images"]),
    ("DIND_STORAGE_SIZE", "much", &["DIND_STORAGE_SIZE=much is not a size from 256M to 16T"]),
];

#[test]
fn a_bad_value_is_refused_and_nothing_is_changed() {
    let data = Volume::new();
    let options = || Host::options().volume(&data, "/var/lib/docker");
    let refusals = options().refusals();
    for (variable, value, texts) in REFUSED {
        let ended = refusals.refuses_setting(&format!("{variable}={value}"), texts);
        assert_eq!(ended.stdout, "", "{variable}={value} says more than its error");
    }
    refusals.assert_unchanged();
    // As PID 1, too.
    let (variable, value, texts) = REFUSED[0];
    assert_eq!(options().env(variable, value).refused(64, texts).stdout, "");
    assert_eq!(data.listing(), "");
}

#[test]
fn an_unknown_variable_is_a_warning_but_not_what_kubernetes_and_ci_systems_inject() {
    let injected = [
        ("DIND_SERVICE_HOST", "10.96.0.7"),
        ("DIND_SERVICE_PORT", "2376"),
        ("DIND_SERVICE_PORT_DOCKER_TLS", "2376"),
        ("DIND_PORT", "tcp://10.96.0.7:2376"),
        ("DIND_PORT_2376_TCP", "tcp://10.96.0.7:2376"),
        ("DIND_PORT_2376_TCP_PROTO", "tcp"),
        ("DIND_PORT_2376_TCP_PORT", "2376"),
        ("DIND_PORT_2376_TCP_ADDR", "10.96.0.7"),
        ("DOCKER_DRIVER", "frobnicate"),
        ("DOCKER_HOST", "tcp://10.96.0.7:2376"),
        ("DOCKER_CERT_PATH", "/nowhere"),
    ];
    let options = Host::options().env("DIND_FOO", "bar");
    let host = injected.iter().fold(options, |options, (name, value)| options.env(name, value)).start();
    let alarms = host.alarms();
    assert!(
        matches!(alarms.as_slice(), [line] if line.level == "warn" && line.message.contains("DIND_FOO")),
        "{alarms:?}"
    );
    let warnings = host.status()["warnings"].to_string();
    assert!(warnings.contains("DIND_FOO"), "{warnings}");
    assert_ne!(
        host.docker(["-H", "unix:///var/run/docker.sock", "info", "--format", "{{.Driver}}"]).ok(),
        "frobnicate"
    );
}
