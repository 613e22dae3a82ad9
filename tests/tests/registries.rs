//! Registries: with a certificate of a private authority, without TLS, as mirrors, and through proxies.

use dind_tests::{Authority, Host, HostOptions, REGISTRY, REGISTRY_PORT, Registry};
use serde_json::Value;

/// The certificates of the host's own CA are elsewhere.
const FOLDER: &str = "/etc/company";

fn image() -> String {
    format!("{REGISTRY}:{REGISTRY_PORT}/team/app:1")
}

/// Pushes busybox to the registry and pulls it back.
#[track_caller]
fn push_and_pull(host: &Host) {
    host.load_busybox();
    host.docker(["tag", "busybox", &image()]).ok();
    host.docker(["push", "-q", &image()]).ok();
    host.docker(["rmi", &image(), "busybox"]).ok();
    host.docker(["pull", "-q", &image()]).ok();
    assert_eq!(host.docker(["run", "--rm", &image(), "echo", "pulled"]).ok(), "pulled");
}

#[test]
fn a_registry_with_a_certificate_of_a_private_authority() {
    let authority = Authority::new("a company");
    let registry = Registry::start(Some(&authority.server_named(REGISTRY)));
    let without = registry.known_to(Host::options()).start();
    without.load_busybox();
    without.docker(["tag", "busybox", &image()]).ok();
    without.docker(["push", &image()]).fails().says(&["x509"]);
    drop(without);
    // As a folder, and as a file.
    let pem = || Host::options().file("/etc/company/ca.pem", 0o644, authority.certificate());
    for path in [FOLDER, "/etc/company/ca.pem"] {
        let host = registry.known_to(pem()).env("DIND_CA_CERTIFICATES", path).start();
        push_and_pull(&host);
        assert_eq!(registry.tags("team/app"), "1");
        // With the system's own, and not in their place.
        let bundle = host.exec(["cat", "/run/dind/ca-certificates.pem"]).ok();
        assert!(bundle.contains(authority.certificate().trim()), "{path}");
        assert!(bundle.matches("BEGIN CERTIFICATE").count() > 50, "{path}");
        // A build pulls with them, too.
        host.build("built", &format!("FROM {}\nRUN echo built\n", image()));
        assert_eq!(host.alarms(), []);
    }
}

#[test]
fn what_is_no_certificate_is_refused() {
    let refusals = Host::options().refusals();
    let refuses = |path: &str, texts: &[&str]| {
        let _ = refusals.refuses_setting(&format!("DIND_CA_CERTIFICATES={path}"), texts);
    };
    refuses("ca.pem", &["DIND_CA_CERTIFICATES=ca.pem is not an absolute path"]);
    refuses("/nowhere/ca.pem", &["DIND_CA_CERTIFICATES: cannot read /nowhere/ca.pem", "mount"]);
    let put = |path: &str, text: &str| refusals.container().put(&[(path.into(), 0o644, text.into())]);
    put("/etc/company/README", "none here");
    refuses(FOLDER, &[FOLDER, "no certificate"]);
    put("/etc/company/ca.crt", "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n");
    refuses(FOLDER, &["/etc/company/ca.crt", "damaged"]);
}

#[test]
fn a_registry_without_tls() {
    let registry = Registry::start(None);
    let without = registry.known_to(Host::options()).start();
    without.load_busybox();
    without.docker(["tag", "busybox", &image()]).ok();
    without.docker(["push", &image()]).fails().says(&["HTTP response to HTTPS client"]);
    drop(without);
    let name = format!("{REGISTRY}:{REGISTRY_PORT}");
    let with =
        |options: HostOptions| registry.known_to(options.env("DIND_INSECURE_REGISTRIES", &name)).start();
    push_and_pull(&with(Host::options()));
    // What daemon.json and DOCKER_OPTS say beside it is joined, and the host comes up.
    let file = r#"{"insecure-registries": ["10.1.0.0/16"]}"#;
    let by_file = with(Host::options().file("/etc/docker/daemon.json", 0o644, file));
    push_and_pull(&by_file);
    drop(by_file);
    let by_option = with(Host::options().env("DOCKER_OPTS", "--insecure-registry 10.1.0.0/16"));
    push_and_pull(&by_option);
    let known = by_option.docker(["info", "--format", "{{json .RegistryConfig}}"]).ok();
    assert!(known.contains("10.1.0.0/16") && known.contains(&name), "{known}");
}

#[test]
fn a_mirror_stands_in_for_docker_hub() {
    let registry = Registry::start(None);
    let url = format!("http://{REGISTRY}:{REGISTRY_PORT}");
    let insecure = format!("{REGISTRY}:{REGISTRY_PORT}");
    let first = registry.known_to(Host::options().env("DIND_INSECURE_REGISTRIES", &insecure)).start();
    first.load_busybox();
    let name = format!("{insecure}/library/from-the-mirror:1");
    first.docker(["tag", "busybox", &name]).ok();
    first.docker(["push", "-q", &name]).ok();
    drop(first);
    // It needs no entry of its own among the insecure ones.
    let host = registry.known_to(Host::options().env("DIND_REGISTRY_MIRRORS", &url)).start();
    host.docker(["pull", "-q", "from-the-mirror:1"]).ok();
    let mirrors = || host.docker(["info", "--format", "{{json .RegistryConfig.Mirrors}}"]).ok();
    assert!(mirrors().contains(&url), "{}", mirrors());
    // A configuration that is written later does not lose it.
    let file = br#"{"registry-mirrors": ["http://another.example:5000"]}"#.to_vec();
    host.put(&[("/etc/docker/daemon.json".into(), 0o644, file)]);
    host.signal("HUP");
    dind_tests::until("dockerd to know both mirrors", 20, || {
        (mirrors().contains(&url) && mirrors().contains("another.example")).then_some(())
    });
    // One that cannot be used changes nothing.
    host.put(&[("/etc/docker/daemon.json".into(), 0o644, b"{".to_vec())]);
    host.signal("HUP");
    dind_tests::until("the host to refuse the file", 20, || {
        host.alarms()
            .iter()
            .any(|line| line.message.contains("/etc/docker/daemon.json is not JSON"))
            .then_some(())
    });
    assert!(mirrors().contains("another.example"), "{}", mirrors());
}

#[test]
fn values_that_dockerd_would_not_take_are_refused_by_name() {
    let refusals = Host::options().refusals();
    for (variable, value, texts) in [
        ("DIND_REGISTRY_MIRRORS", "mirror.example", &["mirror.example", "https://"]),
        ("DIND_REGISTRY_MIRRORS", "https://me:secret@mirror.example", &["\"mirror.example\"", "user name"]),
        ("DIND_INSECURE_REGISTRIES", "http://r:5000", &["http://r:5000", "HOST:PORT"]),
    ] {
        let ended = refusals.refuses_setting(&format!("{variable}={value}"), texts);
        assert!(!ended.stderr.contains("secret"), "{ended}");
    }
}

#[test]
fn proxies_reach_containers_and_builds_and_no_log() {
    const PROXY: &str = "http://me:secret@proxy.example:3128";
    let with = || Host::options().env("HTTP_PROXY", PROXY).env("NO_PROXY", "localhost,.example");
    let host = with().start();
    host.load_busybox();
    let asked = host.docker(["run", "--rm", "busybox", "sh", "-c", "echo $HTTP_PROXY $no_proxy"]).ok();
    assert_eq!(asked, format!("{PROXY} localhost,.example"));
    host.build("app", "FROM busybox\nRUN echo $http_proxy > /proxy\nCMD [\"cat\", \"/proxy\"]\n");
    assert_eq!(host.docker(["run", "--rm", "app"]).ok(), PROXY);
    assert_eq!(host.docker(["info", "--format", "{{.NoProxy}}"]).ok(), "localhost,.example");
    assert!(!host.logs().contains("secret"), "{}", host.logs());
    assert!(!host.status().to_string().contains("secret"));
    drop(host);
    // What a user wrote there stays.
    let own = r#"{"proxies": {"default": {"httpProxy": "http://own.example"}}}"#;
    let host = with().file("/root/.docker/config.json", 0o600, own).start();
    let kept: Value = serde_json::from_str(&host.exec(["cat", "/root/.docker/config.json"]).ok()).unwrap();
    assert_eq!(kept, serde_json::from_str::<Value>(own).unwrap());
}
