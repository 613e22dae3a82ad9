//! Certificates: made, kept, renewed, refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn names_of(hostname: &str) -> Vec<Name> {
    names(&[], hostname, &["10.1.2.3".parse().unwrap()])
}

fn text(folder: &TempDir, file: &str) -> String {
    fs::read_to_string(folder.path().join(file)).unwrap()
}

fn parsed(folder: &TempDir, file: &str) -> Parsed {
    Parsed::read(&text(folder, file), file).unwrap()
}

/// A folder with certificates, as a first start makes them.
fn made() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = prepare(folder.path(), &names_of("host"), now()).unwrap();
    assert_eq!(made.said, "CA made, server certificate made, client certificate made");
    folder
}

fn again(folder: &TempDir) -> Result<Certificates, Failure> {
    prepare(folder.path(), &names_of("host"), now())
}

#[test]
fn a_first_start_makes_all_and_a_second_keeps_all() {
    let folder = made();
    let ca = parsed(&folder, "ca/cert.pem");
    assert!(ca.is_ca);
    for leaf in ["server", "client"] {
        let cert = parsed(&folder, &format!("{leaf}/cert.pem"));
        assert!(cert.is_signed_by(&ca) && !cert.is_ca);
        cert.check_key(&text(&folder, &format!("{leaf}/key.pem")), leaf, leaf).unwrap();
        assert_eq!(text(&folder, &format!("{leaf}/ca.pem")), text(&folder, "ca/cert.pem"));
        assert_eq!(cert.expires, now() + LEAF_VALIDITY);
    }
    let server = parsed(&folder, "server/cert.pem");
    for name in ["host", "localhost", "docker", "dind"] {
        assert!(server.names.contains(&Name::Dns(name.into())), "{name}");
    }
    for address in ["10.1.2.3", "127.0.0.1", "::1"] {
        assert!(server.names.contains(&Name::Ip(address.parse().unwrap())), "{address}");
    }
    let before =
        [text(&folder, "ca/cert.pem"), text(&folder, "server/cert.pem"), text(&folder, "client/key.pem")];
    assert_eq!(again(&folder).unwrap().said, "kept");
    let after =
        [text(&folder, "ca/cert.pem"), text(&folder, "server/cert.pem"), text(&folder, "client/key.pem")];
    assert_eq!(before, after);
}

#[test]
fn keys_are_secret() {
    let folder = made();
    for (file, expected) in [
        ("ca", 0o700),
        ("ca/key.pem", 0o600),
        ("server", 0o700),
        ("server/key.pem", 0o600),
        ("client", 0o755),
        ("client/cert.pem", 0o644),
    ] {
        let mode = fs::metadata(folder.path().join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, expected, "{file}");
    }
    let client = fs::metadata(folder.path().join("client/key.pem")).unwrap().permissions().mode() & 0o007;
    assert_eq!(client, 0, "not for everybody");
}

#[test]
fn what_a_killed_run_left_is_made_whole() {
    for (file, expected) in [
        ("ca/cert.pem", "CA made, server certificate made, client certificate made"),
        ("server/cert.pem", "server certificate made"),
        ("server/key.pem", "server certificate renewed"),
        ("client/cert.pem", "client certificate made"),
        ("client/key.pem", "client certificate renewed"),
    ] {
        let whole = made();
        let half = text(&whole, file)[..60].to_owned();
        for broken in [None, Some(String::new()), Some(half)] {
            let folder = made();
            let path = folder.path().join(file);
            match &broken {
                // No killed run leaves the rest without the CA's certificate: see below.
                None if file == "ca/cert.pem" => continue,
                None => fs::remove_file(&path).unwrap(),
                Some(text) => fs::write(&path, text).unwrap(),
            }
            fs::write(folder.path().join("server/cert.pem.unfinished"), "half").unwrap();
            assert_eq!(again(&folder).unwrap().said, expected, "{file} {broken:?}");
            assert!(!folder.path().join("server/cert.pem.unfinished").exists());
            assert_eq!(again(&folder).unwrap().said, "kept", "{file} {broken:?}");
        }
    }
}

#[test]
fn new_names_renew_the_server_and_nothing_else() {
    let folder = made();
    let client = text(&folder, "client/cert.pem");
    let ca = text(&folder, "ca/cert.pem");
    let renewed = prepare(folder.path(), &names_of("other"), now()).unwrap();
    assert_eq!(renewed.said, "server certificate renewed");
    assert!(parsed(&folder, "server/cert.pem").names.contains(&Name::Dns("other".into())));
    assert_eq!([client, ca], [text(&folder, "client/cert.pem"), text(&folder, "ca/cert.pem")]);
}

#[test]
fn what_is_about_to_end_is_renewed() {
    let folder = made();
    let later = now() + LEAF_VALIDITY - RENEWAL + Duration::days(1);
    let renewed = prepare(folder.path(), &names_of("host"), later).unwrap();
    assert_eq!(renewed.said, "server certificate renewed, client certificate renewed");
    assert_eq!(renewed.expires, later + LEAF_VALIDITY);
    let much_later = now() + CA_VALIDITY - Duration::days(1);
    let renewed = prepare(folder.path(), &names_of("host"), much_later).unwrap();
    assert!(renewed.warnings[0].contains("clients need the new certificates"), "{renewed:?}");
    assert!(renewed.expires > much_later + RENEWAL);
}

#[test]
fn what_is_somebodys_and_wrong_is_refused_and_stays() {
    let (ours, other) = (made(), made());
    let table = [
        ("ca/cert.pem", "not a certificate".to_owned(), "ca/cert.pem is not a certificate"),
        ("ca/key.pem", "not a key".to_owned(), "ca/key.pem is not a private key"),
        ("ca/key.pem", text(&other, "ca/key.pem"), "ca/key.pem is not the key of"),
        ("ca/cert.pem", text(&ours, "server/cert.pem"), "ca/cert.pem is not the certificate of a CA"),
        ("server/cert.pem", "nonsense".to_owned(), "server/cert.pem is not a certificate"),
        (
            "server/cert.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            "server/cert.pem is not a certificate",
        ),
        ("server/key.pem", text(&other, "server/key.pem"), "server/key.pem is not the key of"),
    ];
    for (file, wrong, cause) in table {
        let folder = made();
        if file == "ca/cert.pem" && wrong.contains("BEGIN") {
            fs::write(folder.path().join("ca/cert.pem"), text(&folder, "server/cert.pem")).unwrap();
        } else {
            fs::write(folder.path().join(file), &wrong).unwrap();
        }
        let before = text(&folder, file);
        let failure = again(&folder).unwrap_err();
        assert_eq!(failure.code, 64, "{file}");
        assert!(failure.cause.contains(cause), "{cause}: {}", failure.cause);
        assert_eq!(text(&folder, file), before, "{file}");
    }
}

#[test]
fn a_foreign_server_certificate_is_refused_and_a_foreign_client_replaced() {
    let (folder, other) = (made(), made());
    for file in ["client/cert.pem", "client/key.pem", "client/ca.pem"] {
        fs::write(folder.path().join(file), text(&other, file)).unwrap();
    }
    assert_eq!(again(&folder).unwrap().said, "client certificate of another host replaced");
    for file in ["server/cert.pem", "server/key.pem", "server/ca.pem"] {
        fs::write(folder.path().join(file), text(&other, file)).unwrap();
    }
    let failure = again(&folder).unwrap_err();
    assert!(failure.cause.contains("server/cert.pem was not signed by the CA in"), "{}", failure.cause);
    assert!(failure.help.contains("ca/key.pem"), "{}", failure.help);
    assert_eq!(text(&folder, "server/cert.pem"), text(&other, "server/cert.pem"));
}

#[test]
fn a_server_certificate_without_the_cas_key_is_used_as_it_is() {
    let folder = made();
    fs::remove_file(folder.path().join("ca/key.pem")).unwrap();
    let before = text(&folder, "server/cert.pem");
    // The names would not fit, and nothing is said of that: it is somebody's own certificate.
    let given = prepare(folder.path(), &names_of("other"), now()).unwrap();
    assert!(given.said.contains("used as it is"), "{}", given.said);
    assert_eq!(text(&folder, "server/cert.pem"), before);
    let expired =
        prepare(folder.path(), &names_of("host"), now() + LEAF_VALIDITY + Duration::days(1)).unwrap_err();
    assert!(expired.cause.contains("expired on"), "{}", expired.cause);
    fs::remove_file(folder.path().join("server/key.pem")).unwrap();
    let failure = again(&folder).unwrap_err();
    assert!(failure.cause.contains("ca/key.pem is not, so nothing can be signed"), "{}", failure.cause);
}

/// A CA of somebody's own, valid until `expires`, in `folder`.
fn bring_ca(folder: &TempDir, expires: OffsetDateTime) {
    let key = new_key().unwrap();
    let mut params = CertificateParams::default();
    params.not_after = expires;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Example Corp");
    let cert = params.self_signed(&key).unwrap().pem();
    Pair::empty(&folder.path().join("ca")).write(None, &cert, &key.serialize_pem(), Access::Ours).unwrap();
}

#[test]
fn somebodys_own_ca_signs_and_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    bring_ca(&folder, now() + Duration::days(30));
    let ca = [text(&folder, "ca/cert.pem"), text(&folder, "ca/key.pem")];
    let made = again(&folder).unwrap();
    assert_eq!(made.said, "server certificate made, client certificate made");
    assert!(made.warnings[0].contains("ca/cert.pem ends on"), "{made:?}");
    let later = prepare(folder.path(), &names_of("host"), now() + Duration::days(31)).unwrap_err();
    assert!(later.cause.contains("ca/cert.pem expired on"), "{}", later.cause);
    assert_eq!(ca, [text(&folder, "ca/cert.pem"), text(&folder, "ca/key.pem")]);

    // A copy of it that failed half-way is no reason to replace what it signed.
    fs::write(folder.path().join("ca/cert.pem"), "").unwrap();
    let server = [text(&folder, "server/cert.pem"), text(&folder, "server/key.pem")];
    let failure = again(&folder).unwrap_err();
    assert!(failure.cause.contains("server/cert.pem is there, but not all"), "{}", failure.cause);
    assert_eq!(server, [text(&folder, "server/cert.pem"), text(&folder, "server/key.pem")]);
}

/// Signs a certificate of somebody's own making with the CA in `folder`, into `folder/part`.
fn bring_leaf(folder: &TempDir, part: &str, expires: OffsetDateTime) {
    let ca = text(folder, "ca/cert.pem");
    let ca_key = KeyPair::from_pem(&text(folder, "ca/key.pem")).unwrap();
    let key = new_key().unwrap();
    let mut params = CertificateParams::new(vec!["my.example.com".to_owned()]).unwrap();
    params.not_after = expires;
    let cert = params.signed_by(&key, &Issuer::from_ca_cert_pem(&ca, &ca_key).unwrap()).unwrap().pem();
    let pair = Pair::empty(&folder.path().join(part));
    pair.write(Some(&ca), &cert, &key.serialize_pem(), Access::Ours).unwrap();
}

#[test]
fn somebodys_own_server_certificate_is_kept_whatever_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    bring_ca(&folder, now() + Duration::days(3000));
    bring_leaf(&folder, "server", now() + Duration::days(20));
    let server = [text(&folder, "server/cert.pem"), text(&folder, "server/key.pem")];
    let made = again(&folder).unwrap();
    assert_eq!(made.said, "client certificate made");
    assert!(made.warnings[0].contains("server/cert.pem is kept, though it lacks"), "{made:?}");
    let expired = prepare(folder.path(), &names_of("host"), now() + Duration::days(21)).unwrap_err();
    assert!(expired.cause.contains("server/cert.pem expired on"), "{}", expired.cause);
    assert_eq!(server, [text(&folder, "server/cert.pem"), text(&folder, "server/key.pem")]);
}

#[test]
fn somebodys_own_client_certificate_is_never_replaced() {
    let (folder, other) = (made(), tempfile::tempdir().unwrap());
    bring_ca(&other, now() + Duration::days(3000));
    bring_leaf(&other, "client", now() + Duration::days(100));
    for file in ["client/cert.pem", "client/key.pem", "client/ca.pem"] {
        fs::write(folder.path().join(file), text(&other, file)).unwrap();
    }
    let failure = again(&folder).unwrap_err();
    assert!(failure.cause.contains("client/cert.pem was not signed by the CA in"), "{}", failure.cause);
    assert_eq!(text(&folder, "client/key.pem"), text(&other, "client/key.pem"));
}

#[test]
fn a_key_beside_a_certificate_that_was_never_made_is_kept() {
    let folder = made();
    for file in ["ca/cert.pem", "ca/key.pem"] {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    fs::write(folder.path().join("server/cert.pem"), "").unwrap();
    let key = text(&folder, "server/key.pem");
    let failure = again(&folder).unwrap_err();
    assert!(failure.cause.contains("server is not all there"), "{}", failure.cause);
    assert_eq!(text(&folder, "server/key.pem"), key);
}

#[test]
fn a_certificate_may_share_its_file() {
    let folder = made();
    fs::remove_file(folder.path().join("ca/key.pem")).unwrap();
    let both =
        text(&folder, "server/key.pem") + &text(&folder, "server/cert.pem") + &text(&folder, "ca/cert.pem");
    fs::write(folder.path().join("server/cert.pem"), both).unwrap();
    assert!(again(&folder).unwrap().said.contains("used as it is"));
}

#[test]
fn what_a_clock_that_was_ahead_made_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &names_of("host"), now() + Duration::days(300)).unwrap();
    let made = again(&folder).unwrap();
    assert_eq!(made.said, "server certificate made, client certificate made");
    assert!(made.warnings[0].contains("clients need the new certificates"), "{made:?}");
}

#[test]
fn a_key_that_only_dockerd_can_read_is_left_to_it() {
    let folder = made();
    fs::remove_file(folder.path().join("ca/key.pem")).unwrap();
    let key = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
    fs::write(folder.path().join("server/key.pem"), key).unwrap();
    assert!(again(&folder).unwrap().said.contains("used as it is"));
}

#[test]
fn half_a_set_is_refused_and_stays() {
    for missing in [&["ca/cert.pem"][..], &["ca/cert.pem", "ca/key.pem", "server/key.pem"]] {
        let folder = made();
        for file in missing {
            fs::remove_file(folder.path().join(file)).unwrap();
        }
        let before = text(&folder, "server/cert.pem");
        let failure = again(&folder).unwrap_err();
        assert_eq!(failure.code, 64);
        assert!(failure.cause.contains("not all"), "{}", failure.cause);
        assert_eq!(text(&folder, "server/cert.pem"), before);
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("server")).unwrap();
    fs::write(folder.path().join("server/cert.pem"), "nonsense").unwrap();
    again(&folder).unwrap_err();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn a_folder_that_cannot_be_written_to_is_named() {
    let failure = prepare(Path::new("/proc/nowhere"), &names_of("host"), now()).unwrap_err();
    assert_eq!(failure.code, 69);
    assert!(failure.cause.contains("/proc/nowhere"), "{}", failure.cause);
}

#[test]
fn the_full_name_stands_in_the_table_of_hosts() {
    let hosts =
        "127.0.0.1\tlocalhost\n# 10.0.0.1 ci.old ci\n10.0.0.7 ci.example.com ci # mine\n10.0.0.8 other\n";
    let dns = |name: &str| Name::Dns(name.into());
    assert_eq!(full_names(hosts, "CI"), [dns("ci.example.com"), dns("ci")]);
    assert_eq!(full_names(hosts, "elsewhere"), []);
    assert_eq!(full_names("10.0.0.7", "ci"), []);
}

#[test]
fn an_authority_of_docker_dind_that_has_ended_is_replaced_as_docker_dind_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = now() - Duration::days(900);
    params.not_after = now() - Duration::days(75);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "docker:dind CA");
    let key = new_key().unwrap();
    let ca = folder.path().join("ca");
    fs::create_dir(&ca).unwrap();
    fs::write(ca.join("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(ca.join("key.pem"), key.serialize_pem()).unwrap();
    let made = prepare(folder.path(), &[], now()).unwrap();
    assert!(made.expires > now() && made.warnings.len() == 1, "{made:?}");
}
