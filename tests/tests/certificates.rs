//! The certificate folder: kept, shared, renewed, or given.

use std::collections::BTreeMap;

use dind_tests::{Authority, Client, Ended, Host, HostOptions, Identity, Volume, docker, image};

/// A whole certificate to look at, and none to read.
const BROKEN: &str = "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n";

/// Runs `docker version` beside the host: in another container, which knows it by `name`, with the shared certificates.
fn sidecar(host: &Host, certificates: &Volume, name: &str, run: &[&str]) -> Ended {
    let alias = format!("--add-host={name}:{}", host.ip());
    let endpoint = format!("DOCKER_HOST=tcp://{name}:2376");
    let mount = format!("{}:/certs:ro", certificates.name());
    let options = ["run", "--rm", "--entrypoint", "docker", &alias, "-e", &endpoint, "-v", &mount];
    let tls = ["-e", "DOCKER_TLS_VERIFY=1", "-e", "DOCKER_CERT_PATH=/certs/client"];
    let version = [image(), "version", "--format", "{{.Server.Version}}"];
    docker(options.iter().chain(&tls).chain(run).chain(&version))
}

fn folders(host: &Host) -> BTreeMap<String, String> {
    let names = ["ca/cert", "ca/key", "server/cert", "server/key", "client/cert", "client/key"];
    let read = |name: &str| host.exec(["cat", &format!("/certs/{name}.pem")]).ok();
    names.into_iter().map(|name| (name.to_owned(), read(name))).collect()
}

pub(crate) fn keys_are_private_and_that_of_the_client_belongs_to_group_2376(host: &Host) {
    let listing = host.shell("cd /certs && find . -printf '%m %U:%G %P\n' | sort -k3").ok();
    let wanted = [
        "755 0:0 ",
        "700 0:0 ca",
        "644 0:0 ca/cert.pem",
        "600 0:0 ca/key.pem",
        "755 0:0 client",
        "644 0:0 client/ca.pem",
        "644 0:0 client/cert.pem",
        "640 0:2376 client/key.pem",
        "700 0:0 server",
        "644 0:0 server/ca.pem",
        "644 0:0 server/cert.pem",
        "600 0:0 server/key.pem",
    ];
    let found: Vec<&str> = listing.lines().collect();
    assert_eq!(found, wanted);
    let read = |user: &str| docker(["exec", "-u", user, host.name(), "cat", "/certs/client/key.pem"]);
    read("1000:2376").ok();
    read("1000:1000").fails();
}

#[test]
fn a_container_beside_the_host_uses_the_shared_certificates() {
    let certificates = Volume::new();
    let host = Host::options().volume(&certificates, "/certs").start();
    let in_group = ["--user", "1000:1000", "--group-add", "2376"];
    let name = host.inspect("{{.Config.Hostname}}");
    sidecar(&host, &certificates, &name, &in_group).ok();
    sidecar(&host, &certificates, &name, &["--user", "1000:1000"]).fails();
}

#[test]
fn new_names_renew_the_server_certificate_and_keep_the_authority() {
    const NAME: &str = "engine.example.test";
    let certificates = Volume::new();
    let first = Host::options().volume(&certificates, "/certs").start();
    let before = folders(&first);
    sidecar(&first, &certificates, NAME, &[]).fails().says(&["x509", NAME]);
    drop(first);
    let second = Host::options().volume(&certificates, "/certs").env("DIND_TLS_SAN", NAME).start();
    let after = folders(&second);
    sidecar(&second, &certificates, NAME, &[]).ok();
    assert_ne!(before["server/cert"], after["server/cert"]);
    for kept in ["ca/cert", "ca/key", "client/cert", "client/key"] {
        assert_eq!(before[kept], after[kept], "{kept}");
    }
}

/// A host that is given a server certificate and, with it, no key of the authority.
fn given(authority: &Authority, server: &Identity) -> HostOptions {
    let ca = authority.certificate();
    let options = Host::options().run(["-p", "127.0.0.1::2376"]).file("/certs/server/ca.pem", 0o644, ca);
    let options = options.file("/certs/server/cert.pem", 0o644, server.cert.as_str());
    options.file("/certs/server/key.pem", 0o600, server.key.as_str())
}

/// The same host with the authority's certificate and key, so that it can sign.
fn signing(options: HostOptions, authority: &Authority) -> HostOptions {
    let options = options.file("/certs/ca/cert.pem", 0o644, authority.certificate());
    options.file("/certs/ca/key.pem", 0o600, authority.key())
}

#[test]
fn a_given_server_certificate_is_used_as_it_is() {
    let authority = Authority::new("someone else's");
    let server = authority.server();
    let host = given(&authority, &server).start();
    let published = host.inspect("{{(index (index .NetworkSettings.Ports \"2376/tcp\") 0).HostPort}}");
    let endpoint = format!("tcp://127.0.0.1:{published}");
    let client = Client::with_certificates(&endpoint, authority.client().folder(authority.certificate()));
    client.docker(["version"]).ok();
    assert_eq!(host.exec(["cat", "/certs/server/cert.pem"]).ok(), server.cert.trim_end());
    assert_eq!(host.exec(["cat", "/certs/server/key.pem"]).ok(), server.key.trim_end());
    host.exec(["test", "!", "-e", "/certs/ca/key.pem"]).ok();
}

#[test]
fn a_certificate_that_cannot_work_is_refused_and_left_alone() {
    let authority = Authority::new("someone else's");
    let server = authority.server();
    let stranger = Authority::new("stranger").server();
    let broken = Identity { cert: BROKEN.into(), ..server.clone() };
    let swapped = Identity { key: stranger.key.clone(), ..server.clone() };
    let with_ca = |identity| signing(given(&authority, identity), &authority);
    let broken_ca = Host::options().file("/certs/ca/cert.pem", 0o644, BROKEN);
    let broken_ca = broken_ca.file("/certs/ca/key.pem", 0o600, authority.key());
    let table = [
        (given(&authority, &broken), "is not a certificate"),
        (given(&authority, &swapped), "is not the key of"),
        (given(&authority, &authority.server_for(-1)), "expired"),
        (with_ca(&broken), "is not a certificate"),
        (with_ca(&swapped), "is not the key of"),
        (with_ca(&stranger), "was not signed by the CA"),
        (broken_ca, "ca/cert.pem is not"),
    ];
    for (options, cause) in table {
        let host = options.create();
        let folder = || docker(["cp", &format!("{}:/certs", host.name()), "-"]).ok();
        let before = folder();
        host.refuses(64, &["/certs/", cause]);
        assert!(folder() == before, "{cause}: something has changed");
    }
}

#[test]
fn a_given_certificate_that_expires_soon_is_a_warning() {
    let authority = Authority::new("someone else's");
    let host = given(&authority, &authority.server_for(10)).start();
    let status = host.status();
    assert!(
        status["certificate"]["days_left"].as_i64().is_some_and(|days| (9..=10).contains(&days)),
        "{status}"
    );
    assert!(status["warnings"].to_string().contains("certificate"), "{status}");
    let health = host.exec(["dind-init", "health"]);
    assert!(format!("{health}").contains("certificate"), "{health}");
    health.ok();
}

#[test]
fn a_certificate_of_our_own_that_expires_soon_is_renewed() {
    let authority = Authority::new("ours");
    let server = authority.server_as_of_a_host_for(10);
    let host = signing(given(&authority, &server), &authority).start();
    assert_eq!(host.exec(["cat", "/certs/ca/cert.pem"]).ok(), authority.certificate().trim_end());
    assert_ne!(host.exec(["cat", "/certs/server/cert.pem"]).ok(), server.cert.trim_end());
    let days = host.status()["certificate"]["days_left"].as_i64();
    assert!(days.is_some_and(|days| days > 30), "{}", host.status());
    host.client().docker(["version"]).ok();
}

#[test]
fn a_certificate_of_somebody_else_is_kept_beside_the_key_of_its_authority() {
    let authority = Authority::new("a company's");
    let server = authority.server_for(10);
    let host = signing(given(&authority, &server), &authority).start();
    assert_eq!(host.exec(["cat", "/certs/server/cert.pem"]).ok(), server.cert.trim_end());
    assert_eq!(host.exec(["cat", "/certs/server/key.pem"]).ok(), server.key.trim_end());
    assert!(host.status()["warnings"].to_string().contains("is kept, though it lacks"), "{}", host.status());
}
