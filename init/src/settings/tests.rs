//! Environments and arguments, good and bad.

use proptest::prelude::*;

use super::*;

type Environment = &'static [(&'static str, &'static str)];

fn load(environment: &[(&str, &str)], arguments: &[&str]) -> Result<Settings, Failure> {
    let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    Settings::load(environment, &arguments, |_| Ok(None))
}

#[test]
fn nothing_set_means_tls_and_ten_seconds() {
    let settings = load(&[], &[]).unwrap();
    assert_eq!(settings.listen, Listen::Tls("/certs".into()));
    assert_eq!(settings.stop_timeout, Duration::from_secs(10));
    assert_eq!(settings.time_limit, None);
    assert_eq!(settings.log, Format::Text);
    assert_eq!(settings.on_failure, OnFailure::Restart);
    assert!(settings.warnings.is_empty());
}

#[test]
fn how_it_listens() {
    let tls = |folder: &str| Listen::Tls(folder.into());
    let table: [(Environment, &[&str], Listen); 33] = [
        (&[("LOCAL", "true")], &[], Listen::Local),
        (&[("LOCAL", "")], &[], Listen::Local),
        (&[("LOCAL", "1")], &[], Listen::Local),
        (&[("LOCAL", "yes")], &["--debug"], Listen::Local),
        (&[("LOCAL", "false")], &[], tls("/certs")),
        (&[("LOCAL", "0")], &[], tls("/certs")),
        (&[("LOCAL", "no")], &[], tls("/certs")),
        (&[("LOCAL", "true"), ("DIND_TLS", "off")], &[], Listen::Local),
        (&[("DIND_TLS", "off")], &[], Listen::Plain),
        (&[("DIND_TLS", "on")], &[], tls("/certs")),
        (&[("DOCKER_TLS_CERTDIR", "")], &[], Listen::Plain),
        (&[("DOCKER_TLS_CERTDIR", "/c")], &[], tls("/c")),
        (&[("DOCKER_TLS_CERTDIR", ""), ("DIND_TLS", "on")], &[], tls("/certs")),
        (&[("DOCKER_TLS_CERTDIR", "/c"), ("DIND_TLS", "off")], &[], Listen::Plain),
        (&[], &["--tls=false"], Listen::Plain),
        (&[], &["dockerd", "--tls=false"], Listen::Plain),
        (&[("DOCKER_OPTS", "--tlsverify")], &[], tls("/certs")),
        // docker:dind has plain TCP on a port that is named after `dockerd`, where nothing is said of TLS …
        (&[], &["dockerd", "--host=tcp://0.0.0.0:2375"], Listen::Told),
        (&[], &["dockerd", "-H", "unix:///var/run/docker.sock", "-H", "tcp://127.0.0.1:2375"], Listen::Told),
        (&[], &["dockerd-entrypoint.sh", "dockerd", "--host=tcp://0.0.0.0:2375"], Listen::Told),
        (&[("DOCKER_TLS_CERTDIR", "/certs")], &["dockerd", "--host=tcp://0.0.0.0:2375"], Listen::Told),
        (&[("DOCKER_TLS_CERTDIR", "")], &["dockerd", "--host=tcp://127.0.0.1:4000"], Listen::Told),
        (&[], &["dockerd", "--tls=false", "--host=tcp://127.0.0.1:4000"], Listen::Told),
        // … and otherwise mutual TLS on every port, or plain TCP on both of ours.
        (&[], &["--host=tcp://0.0.0.0:2375"], tls("/certs")),
        (&[], &["dockerd-entrypoint.sh", "--host=tcp://0.0.0.0:2375"], tls("/certs")),
        (&[("DOCKER_OPTS", "-H tcp://0.0.0.0:2375")], &[], tls("/certs")),
        (&[("DOCKER_TLS_CERTDIR", "")], &["--host=tcp://0.0.0.0:2375"], Listen::Plain),
        (&[], &["--tls=false", "--host=tcp://0.0.0.0:2375"], Listen::Plain),
        (&[("DIND_TLS", "on")], &["dockerd", "--host=tcp://0.0.0.0:2375"], tls("/certs")),
        (&[("DIND_TLS", "off")], &["dockerd", "--host=tcp://0.0.0.0:2375"], Listen::Plain),
        (&[], &["dockerd", "--tlsverify", "--host=tcp://0.0.0.0:2375"], tls("/certs")),
        (&[], &["dockerd", "--host=tcp://0.0.0.0:2376"], tls("/certs")),
        (&[], &["dockerd", "--host=unix:///var/run/docker.sock"], tls("/certs")),
    ];
    for (environment, arguments, listen) in table {
        let settings = load(environment, arguments).unwrap();
        assert_eq!(settings.listen, listen, "{environment:?} {arguments:?}");
    }
}

#[test]
fn bad_values_name_the_variable_and_the_next_step() {
    let table: [(Environment, &[&str], &str); 26] = [
        (&[("LOCAL", "maybe")], &[], "LOCAL=maybe is not a yes or a no"),
        (&[("DIND_TLS", "perhaps")], &[], "DIND_TLS=perhaps is not on or off"),
        (&[("DIND_TLS", "")], &[], "DIND_TLS= is not on or off"),
        (&[("DIND_TLS", "on")], &["--tls=false"], "contradict"),
        (&[("DIND_LOG", "xml")], &[], "DIND_LOG=xml is not text or json"),
        (&[("DIND_ON_FAILURE", "x")], &[], "DIND_ON_FAILURE=x is not restart or exit"),
        (&[("DIND_STOP_TIMEOUT", "0")], &[], "DIND_STOP_TIMEOUT=0 is not a number"),
        (&[("DIND_STOP_TIMEOUT", "1")], &[], "DIND_STOP_TIMEOUT=1 is not a number"),
        (&[("DIND_STOP_TIMEOUT", "-1")], &[], "DIND_STOP_TIMEOUT=-1 is not a number"),
        (&[("DIND_STOP_TIMEOUT", "10s")], &[], "DIND_STOP_TIMEOUT=10s is not a number"),
        (&[("DIND_STOP_TIMEOUT", "99999999999999999999")], &[], "is not a number"),
        (&[("DIND_TIME_LIMIT", "1y")], &[], "DIND_TIME_LIMIT=1y is not a time from 1s to 365d"),
        (&[("DIND_TSL", "on")], &[], "DIND_TSL is not a setting"),
        (&[("DIND_STOP_TIMOUT", "5")], &[], "DIND_STOP_TIMOUT is not a setting"),
        (&[("DIND_STOPTIMEOUT", "5")], &[], "DIND_STOPTIMEOUT is not a setting"),
        (&[("DIND_LOGS", "json")], &[], "DIND_LOGS is not a setting"),
        (&[("DIND_tls", "off")], &[], "DIND_tls is not a setting"),
        (&[("DIND_LOCAL", "true")], &[], "DIND_LOCAL is not a setting"),
        (&[("dind_log", "json")], &[], "dind_log is not a setting"),
        (&[("DOCKER_OPTS", "--label \"a=b")], &[], "unbalanced quote"),
        (&[("DOCKER_OPTS", "--exec-root /x")], &[], "DOCKER_OPTS: --exec-root"),
        (&[], &["--exec-root", "/x"], "arguments: --exec-root"),
        (&[("DOCKER_TLS_CERTDIR", "certs")], &[], "DOCKER_TLS_CERTDIR=certs is not an absolute path"),
        (&[("DIND_TLS_SAN", "ok.example,a b")], &[], "\"a b\""),
        (&[("COMPOSE_SCRIPT", "services:")], &[], "COMPOSE_SCRIPT"),
        (&[("LOCAL", "true"), ("DOCKER_OPTS", "-H tcp://0.0.0.0:1")], &[], "LOCAL is set"),
    ];
    for (environment, arguments, cause) in table {
        let failure = load(environment, arguments).unwrap_err();
        assert_eq!(failure.code, 64, "{environment:?}");
        assert!(failure.cause.contains(cause), "{environment:?}: {}", failure.cause);
        assert!(!failure.help.is_empty(), "{environment:?}");
    }
    assert_eq!(load(&[("DIND_TSL", "on")], &[]).unwrap_err().help, "did you mean DIND_TLS?");
}

#[test]
fn unknown_names_warn_and_kubernetes_is_silent() {
    let settings =
        load(&[("DIND_FOO", "1"), ("DIND_SERVICE_HOST", "x"), ("DIND_PORT", "tcp://x")], &[]).unwrap();
    assert_eq!(settings.warnings, ["DIND_FOO is not a setting of a host, so it does nothing"]);
}

#[test]
fn names_are_addresses_or_dns_names() {
    let names =
        names("DIND_TLS_SAN", "a.example, 10.0.0.7,::1,*.b.example,DNS:C,IP:1.2.3.4,,my_host").unwrap();
    let dns = |name: &str| Name::Dns(name.into());
    let ip = |address: &str| Name::Ip(address.parse().unwrap());
    let expected = [
        dns("a.example"),
        ip("10.0.0.7"),
        ip("::1"),
        dns("*.b.example"),
        dns("c"),
        ip("1.2.3.4"),
        dns("my_host"),
    ];
    assert_eq!(names, expected);
    for bad in ["-a", "a-", "a..b", "1.2.3", "999.1.1.1", "*", "a.*.b", "ä"] {
        assert!(super::names("DIND_TLS_SAN", bad).is_err(), "{bad}");
    }
}

#[test]
fn names_of_both_variables_are_joined() {
    let environment = [("DIND_TLS_SAN", "a.example"), ("DOCKER_TLS_SAN", "DNS:b.example,IP:10.0.0.7 DNS:c")];
    let settings = load(&environment, &[]).unwrap();
    let dns = |name: &str| Name::Dns(name.into());
    assert_eq!(
        settings.names,
        [dns("a.example"), dns("b.example"), Name::Ip([10, 0, 0, 7].into()), dns("c")]
    );
    let failure = load(&[("DOCKER_TLS_SAN", "URI:spiffe://x/y")], &[]).unwrap_err();
    assert!(failure.cause.starts_with("DOCKER_TLS_SAN: \"URI:"), "{}", failure.cause);
}

#[test]
fn a_port_without_tls_and_a_plain_port_with_it_are_said() {
    let said = |arguments: &[&str]| load(&[], arguments).unwrap().about_tls().unwrap_or_default();
    assert_eq!(said(&[]), "");
    assert_eq!(said(&["-H", "tcp://0.0.0.0:4000"]), "");
    assert!(said(&["--tls=false"]).contains("port 2375 or 2376"));
    assert!(
        said(&["dockerd", "-H", "tcp://127.0.0.1:2375"]).contains("reaches tcp://127.0.0.1:2375 is root")
    );
    assert!(said(&["-H", "tcp://0.0.0.0:2375"]).contains("speaks TLS, too"));
}

#[test]
fn services_see_no_client_variables() {
    let settings = load(
        &[("DOCKER_TLS_VERIFY", "1"), ("DOCKER_DRIVER", "vfs"), ("HTTPS_PROXY", "p"), ("PATH", "/bin")],
        &[],
    )
    .unwrap();
    let seen: Vec<_> = settings.environment.keys().map(String::as_str).collect();
    assert_eq!(seen, ["HOME", "HTTPS_PROXY", "PATH"]);
    assert_eq!(settings.environment["PATH"], "/bin");
}

#[test]
fn a_configuration_file_that_is_named_must_be_there() {
    let failure = load(&[], &["--config-file", "/nowhere.json"]).unwrap_err();
    assert!(failure.cause.contains("/nowhere.json"), "{}", failure.cause);
}

proptest! {
    #[test]
    fn quoting_and_splitting_are_inverse(labels in proptest::collection::vec("[ -~\n]{1,20}", 0..5)) {
        let words: Vec<String> =
            labels.iter().flat_map(|label| ["--label".to_owned(), label.clone()]).collect();
        let text = shell_words::join(&words);
        let settings = load(&[("DOCKER_OPTS", &text)], &[]).unwrap();
        prop_assert_eq!(settings.daemon.passed, words);
    }

    #[test]
    fn no_environment_is_worse_than_an_error(
        name in prop_oneof![
            proptest::sample::select(variables::ALL.map(|variable| variable.name.to_owned()).to_vec()),
            "DIND_[A-Z_]{0,20}",
        ],
        value in prop_oneof!["\\PC{0,30}", "[0-9a-z.:/,=%KMGTB -]{0,30}"],
    ) {
        match load(&[(&name, &value)], &[]) {
            Ok(settings) => prop_assert!(settings.stop_timeout >= Duration::from_secs(2)),
            Err(failure) => prop_assert!(failure.code == 64 && !failure.help.is_empty()),
        }
    }
}
