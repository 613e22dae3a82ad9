//! Who gets in, and who does not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use dind_tests::{Authority, Client, Ended, Host, Line, ask, questions, until};

const VERSION: [&str; 3] = ["version", "--format", "{{.Server.Version}}"];

/// Asserts that a call was refused, and that dockerd says this reason. The client may not see it: dockerd closes
/// the connection while the client still sends, and a reset can overtake the alert.
#[track_caller]
fn assert_refused(host: &Host, call: impl FnOnce() -> Ended, reason: &str) {
    let before = host.log_lines().len();
    call().fails();
    until("dockerd to say why it refused a client", 10, || {
        let lines = host.log_lines().split_off(before);
        let said =
            |line: &&Line| line.message.contains("TLS handshake error") && line.message.contains(reason);
        lines.iter().find(said).map(|_| ())
    });
}

#[test]
fn only_clients_with_a_certificate_of_ours_get_in() {
    let questions = questions![
        the_ready_line_prints_what_a_client_needs,
        a_client_without_a_certificate_is_refused,
        a_client_with_the_certificate_of_another_authority_is_refused,
        the_certificate_of_a_server_lets_no_client_in,
        http_without_tls_is_refused_on_the_tls_port,
    ];
    ask(&Host::options().start(), questions);
}

fn a_client_without_a_certificate_is_refused(host: &Host) {
    let client = host.client();
    std::fs::remove_file(client.certificates().join("cert.pem")).unwrap();
    std::fs::remove_file(client.certificates().join("key.pem")).unwrap();
    let ca = client.certificates().join("ca.pem");
    let refused = client.call().env_remove("DOCKER_CERT_PATH").env_remove("DOCKER_TLS_VERIFY");
    let refused = refused.args(["--tlsverify", "--tlscacert", ca.to_str().unwrap()]).args(VERSION);
    assert_refused(host, || refused.run(), "tls: client didn't provide a certificate");
}

fn a_client_with_the_certificate_of_another_authority_is_refused(host: &Host) {
    let ours = host.client();
    ours.docker(VERSION).ok();
    let authority = std::fs::read_to_string(ours.certificates().join("ca.pem")).unwrap();
    // One of another name, and one that only calls itself as ours does.
    for (name, reason) in [
        ("stranger", "tls: client didn't provide a certificate"),
        ("dind CA", "x509: certificate signed by unknown authority"),
    ] {
        let stranger = Authority::new(name).client().folder(&authority);
        let stranger = Client::with_certificates(&format!("tcp://{}:2376", host.ip()), stranger);
        assert_refused(host, || stranger.docker(VERSION), reason);
    }
}

fn the_certificate_of_a_server_lets_no_client_in(host: &Host) {
    let client = host.client();
    for name in ["cert.pem", "key.pem"] {
        let server = host.exec(["cat", &format!("/certs/server/{name}")]).ok();
        std::fs::write(client.certificates().join(name), server).unwrap();
    }
    assert_refused(host, || client.docker(VERSION), "x509: certificate specifies an incompatible key usage");
}

fn http_without_tls_is_refused_on_the_tls_port(host: &Host) {
    let mut stream = TcpStream::connect((host.ip(), 2376)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.0 400 Bad Request"), "{answer}");
    assert_eq!(host.listening_ports(), [2376]);
}

#[test]
fn a_published_port_is_reached_over_tls_at_127_0_0_1() {
    let host = Host::options().run(["-p", "127.0.0.1::2376"]).start();
    let published = host.inspect("{{(index (index .NetworkSettings.Ports \"2376/tcp\") 0).HostPort}}");
    for name in ["127.0.0.1", "localhost"] {
        let client = host.client_at(&format!("tcp://{name}:{published}"));
        client.docker(VERSION).ok();
    }
}

fn the_ready_line_prints_what_a_client_needs(host: &Host) {
    let wanted =
        format!("DOCKER_HOST=tcp://{}:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=/certs/client", host.ip());
    let ready = |line: &&Line| line.service == "dind-init" && line.message.contains(&wanted);
    assert_eq!(host.log_lines().iter().filter(ready).count(), 1, "{}", host.logs());
    let endpoint = &host.status()["endpoint"];
    assert_eq!(endpoint["docker_host"], format!("tcp://{}:2376", host.ip()));
    assert_eq!(endpoint["tls_verify"], true);
    assert_eq!(endpoint["cert_path"], "/certs/client");
}

/// Each of these turns TLS off, and says so loudly.
#[test]
fn without_tls_a_plain_client_gets_in_on_both_ports_and_the_log_warns() {
    let off = [
        Host::options().env("DIND_TLS", "off"),
        Host::options().env("DOCKER_TLS_CERTDIR", ""),
        Host::options().arguments(["--tls=false"]),
    ];
    for options in off {
        let host = options.start();
        assert_eq!(host.listening_ports(), [2375, 2376], "{}", host.logs());
        for port in [2375, 2376] {
            let client = Client::plain(&format!("tcp://{}:{port}", host.ip()));
            client.docker(VERSION).ok();
        }
        let alarms = host.alarms();
        assert!(alarms.iter().any(|line| line.level == "warn" && line.message.contains("TLS")), "{alarms:?}");
        assert!(host.logs().contains(&format!("DOCKER_HOST=tcp://{}:2375\n", host.ip())), "{}", host.logs());
        host.exec(["test", "!", "-e", "/certs/client"]).ok();
    }
}

#[test]
fn dind_tls_wins_over_an_empty_certificate_folder() {
    let host = Host::options().env("DIND_TLS", "on").env("DOCKER_TLS_CERTDIR", "").start();
    assert_eq!(host.listening_ports(), [2376]);
    host.client().docker(VERSION).ok();
}
