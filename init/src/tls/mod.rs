//! Certificates for mutual TLS: made when there are none, kept over restarts, renewed in time, and never half there.
//!
//! The folder has `ca/`, `server/` and `client/`, each with `cert.pem` and `key.pem`, the latter two with the CA's
//! certificate as `ca.pem`, as `docker:dind` lays it out. Keys are ECDSA P-256 (SP 800-186). A certificate is written
//! after its key and removed before its key changes, so a run that is killed leaves one out and never a false pair.

mod files;
mod parsed;

use std::path::Path;

use dind_contract::CLIENT_GROUP;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::failure::Failure;
use crate::settings::Name;
use files::{Access, Pair};
pub(crate) use parsed::Parsed;

/// Validity of a new CA. Clients must be given the certificates anew when it ends.
const CA_VALIDITY: Duration = Duration::days(3650);
/// Validity of a new server or client certificate: the longest that TLS clients of all makers accept.
const LEAF_VALIDITY: Duration = Duration::days(825);
/// A certificate with less left than this is renewed at the next start.
const RENEWAL: Duration = Duration::days(60);
/// The name of a CA that we make.
const OUR_CA: &str = "dind CA";
/// By these names we know a CA that we may replace; the last is that of `docker:dind`, which would replace it, too.
const OUR_CAS: [&str; 2] = [OUR_CA, "docker:dind CA"];
/// By these names we know certificates that we made, and may replace; the last are those of `docker:dind`, whose volumes
/// people bring along.
const OUR_LEAVES: [&str; 4] = ["dind server", "dind client", "docker:dind server", "docker:dind client"];
/// Clocks of clients may be behind ours.
const CLOCK_SKEW: Duration = Duration::days(1);

/// The certificates of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificates {
    /// When the first of them ends.
    pub(crate) expires: OffsetDateTime,
    /// What was done, for the log.
    pub(crate) said: String,
    /// What deserves attention.
    pub(crate) warnings: Vec<String>,
}

/// A CA that can sign.
struct Authority {
    cert: String,
    parsed: Parsed,
    key: KeyPair,
}

/// Brings the certificates under `folder` into order for a server that is reached by `names`.
///
/// # Errors
/// A certificate or key that is somebody's and broken, expired, or does not fit the others; a folder that cannot be
/// written to when it must be.
pub(crate) fn prepare(folder: &Path, names: &[Name], now: OffsetDateTime) -> Result<Certificates, Failure> {
    files::remove_unfinished(folder);
    let ca = Pair::read(&folder.join("ca"))?;
    let server = Pair::read(&folder.join("server"))?;
    let mut done = Vec::new();
    let mut warnings = Vec::new();
    let authority = match (&ca.cert, &ca.key) {
        (Some(cert), Some(key)) => {
            let authority = Authority::load(cert, key, &ca)?;
            let parsed = &authority.parsed;
            let is_current = parsed.begins <= now && parsed.expires - RENEWAL > now;
            if is_current {
                authority
            } else if OUR_CAS.contains(&parsed.subject.as_str()) {
                warnings.push(
                    "the CA was about to end, or began in the future, so there is a new one: \
                     clients need the new certificates"
                        .to_owned(),
                );
                new_authority(folder, now)?
            } else if parsed.expires > now {
                warnings.push(format!("{} ends on {}: replace it", ca.cert_path(), parsed.expires.date()));
                authority
            } else {
                return Err(expired(&ca, parsed));
            }
        }
        (cert, None) if server.is_whole() && server.ca.is_some() => {
            return given(cert.is_some(), &server, now);
        }
        (Some(_), None) => {
            return Err(Failure::usage(
                format!(
                    "{} is there, but {} is not, so nothing can be signed",
                    ca.cert_path(),
                    ca.key_path()
                ),
                "add the key, or bring a whole server/ folder to be used as it is, or remove all to have new ones made",
            ));
        }
        (None, None) if server.is_any() && !ca.is_half => {
            return Err(Failure::usage(
                format!("{} is not all there, and its CA is not there to make it anew", server.folder()),
                "bring ca.pem, cert.pem and key.pem in it, or remove what is in it to have all made",
            ));
        }
        // Of ours, only a half-written one is replaced; and no run of ours leaves a server's certificate without its CA.
        (None, _)
            if server.cert.is_some()
                && !(ca.is_half && is_ours(&server, &[OUR_CA], |parsed| &parsed.issuer)) =>
        {
            return Err(Failure::usage(
                format!("{} is there, but not all that belongs to it", server.cert_path()),
                "bring ca.pem and key.pem beside it, or its CA with its key in ca/, or remove it to have new ones made",
            ));
        }
        (None, _) => {
            done.push("CA made");
            new_authority(folder, now)?
        }
    };
    let server = Pair::read(&folder.join("server"))?;
    let mut expires = authority.parsed.expires;
    match keep(&server, &authority, names, now, &mut warnings)? {
        Some(kept) => expires = expires.min(kept),
        None => {
            done.push(if server.cert.is_some() {
                "server certificate renewed"
            } else {
                "server certificate made"
            });
            expires = expires.min(issue(&server, &authority, Some(names), now)?);
        }
    }
    let client = Pair::read(&folder.join("client"))?;
    match keep(&client, &authority, &[], now, &mut warnings) {
        Ok(Some(kept)) => expires = expires.min(kept),
        result => {
            // The folder may be a volume that outlived the host whose CA signed it: that is made anew, and said.
            let is_stale =
                result.is_err() && is_ours(&client, OUR_LEAVES.as_slice(), |parsed| &parsed.subject);
            if !is_stale {
                result?;
            }
            done.push(match &client.cert {
                None => "client certificate made",
                Some(_) if is_stale => "client certificate of another host replaced",
                Some(_) => "client certificate renewed",
            });
            expires = expires.min(issue(&client, &authority, None, now)?);
        }
    }
    let said = if done.is_empty() { "kept".to_owned() } else { done.join(", ") };
    Ok(Certificates { expires, said, warnings })
}

/// Whether what `of` takes from the pair's certificate is one of `names`.
fn is_ours(pair: &Pair, names: &[&str], of: impl Fn(&Parsed) -> &String) -> bool {
    let parsed = pair.cert.as_ref().map(|cert| Parsed::read(cert, &pair.cert_path()));
    matches!(parsed, Some(Ok(parsed)) if names.contains(&of(&parsed).as_str()))
}

/// Certificates that somebody brought, without the means to sign others: they are used as they are.
fn given(with_ca: bool, server: &Pair, now: OffsetDateTime) -> Result<Certificates, Failure> {
    let (cert, key) = (server.cert.as_deref().unwrap_or_default(), server.key.as_deref().unwrap_or_default());
    let parsed = Parsed::read(cert, &server.cert_path())?;
    parsed.check_key(key, &server.cert_path(), &server.key_path())?;
    Parsed::read(server.ca.as_deref().unwrap_or_default(), &server.ca_path())?;
    if parsed.expires <= now {
        return Err(expired(server, &parsed));
    }
    let source = if with_ca { "given without the CA's key" } else { "given without a CA" };
    Ok(Certificates {
        expires: parsed.expires,
        said: format!("server certificate {source}, used as it is"),
        warnings: Vec::new(),
    })
}

fn expired(pair: &Pair, parsed: &Parsed) -> Failure {
    Failure::usage(
        format!("{} expired on {}", pair.cert_path(), parsed.expires.date()),
        "replace it and its key, or remove all certificates to have new ones made",
    )
}

/// When the pair ends, if it can stay: whole, of this CA, for all of `names`, and not about to end. One that is not of our
/// making stays for as long as it is valid, with a warning where it falls short.
///
/// # Errors
/// It is whole and somebody else's, or broken.
fn keep(
    pair: &Pair,
    authority: &Authority,
    names: &[Name],
    now: OffsetDateTime,
    warnings: &mut Vec<String>,
) -> Result<Option<OffsetDateTime>, Failure> {
    let Some(cert) = &pair.cert else { return Ok(None) };
    let parsed = Parsed::read(cert, &pair.cert_path())?;
    if !parsed.is_signed_by(&authority.parsed) {
        return Err(Failure::usage(
            format!("{} was not signed by the CA in {}", pair.cert_path(), pair.beside("ca/cert.pem")),
            format!(
                "remove it to have a new one made, or remove {} to use it as it is",
                pair.beside("ca/key.pem")
            ),
        ));
    }
    let Some(key) = &pair.key else { return Ok(None) };
    parsed.check_key(key, &pair.cert_path(), &pair.key_path())?;
    if !OUR_LEAVES.contains(&parsed.subject.as_str()) {
        if parsed.expires <= now {
            return Err(expired(pair, &parsed));
        }
        let missing = names.iter().filter(|name| !parsed.names.contains(name)).count();
        if missing > 0 {
            warnings
                .push(format!("{} is kept, though it lacks {missing} of the host's names", pair.cert_path()));
        }
        return Ok(Some(parsed.expires));
    }
    let covers = names.iter().all(|name| parsed.names.contains(name));
    // A clock that was ahead when it was made leaves one that no client takes yet.
    let is_current = parsed.begins <= now && parsed.expires - RENEWAL > now;
    let has_ca = pair.ca.as_deref() == Some(authority.cert.as_str());
    Ok((covers && is_current && has_ca).then_some(parsed.expires))
}

/// Makes and writes a key and certificate, for a server if it has `names`, else for a client.
fn issue(
    pair: &Pair,
    authority: &Authority,
    names: Option<&[Name]>,
    now: OffsetDateTime,
) -> Result<OffsetDateTime, Failure> {
    let key = new_key()?;
    let expires = (now + LEAF_VALIDITY).min(authority.parsed.expires);
    let mut params = CertificateParams::default();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = expires;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, if names.is_some() { "dind server" } else { "dind client" });
    params.extended_key_usages = vec![match names {
        Some(_) => ExtendedKeyUsagePurpose::ServerAuth,
        None => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    for name in names.unwrap_or_default() {
        params.subject_alt_names.push(match name {
            Name::Ip(address) => SanType::IpAddress(*address),
            Name::Dns(name) => SanType::DnsName(name.as_str().try_into().map_err(|e| cannot_make(&e))?),
        });
    }
    let issuer = Issuer::from_ca_cert_pem(&authority.cert, &authority.key).map_err(|e| cannot_make(&e))?;
    let cert = params.signed_by(&key, &issuer).map_err(|e| cannot_make(&e))?;
    let access = if names.is_some() { Access::Ours } else { Access::Group(CLIENT_GROUP) };
    pair.write(Some(&authority.cert), &cert.pem(), &key.serialize_pem(), access)?;
    Ok(expires)
}

fn new_authority(folder: &Path, now: OffsetDateTime) -> Result<Authority, Failure> {
    // What the CA before this one signed must not outlive it.
    for leaf in ["server", "client"] {
        files::remove(&folder.join(leaf).join("cert.pem"))?;
    }
    let key = new_key()?;
    let mut params = CertificateParams::default();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + CA_VALIDITY;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, OUR_CA);
    let cert = params.self_signed(&key).map_err(|e| cannot_make(&e))?.pem();
    let pair = Pair::empty(&folder.join("ca"));
    pair.write(None, &cert, &key.serialize_pem(), Access::Ours)?;
    let parsed = Parsed::read(&cert, &pair.cert_path())?;
    Ok(Authority { cert, parsed, key })
}

impl Authority {
    fn load(cert: &str, key: &str, pair: &Pair) -> Result<Self, Failure> {
        let parsed = Parsed::read(cert, &pair.cert_path())?;
        if !parsed.is_ca {
            return Err(Failure::usage(
                format!("{} is not the certificate of a CA", pair.cert_path()),
                "replace it by the CA's, or remove all certificates to have new ones made",
            ));
        }
        parsed.check_key(key, &pair.cert_path(), &pair.key_path())?;
        let key = KeyPair::from_pem(key).map_err(|e| {
            Failure::usage(
                format!("{} cannot be used to sign: {e}", pair.key_path()),
                "write it as PKCS #8: openssl pkcs8 -topk8 -nocrypt -in KEY -out key.pem",
            )
        })?;
        Ok(Self { cert: cert.to_owned(), parsed, key })
    }
}

fn new_key() -> Result<KeyPair, Failure> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| cannot_make(&e))
}

fn cannot_make(e: &rcgen::Error) -> Failure {
    Failure::failed(
        format!("cannot make a certificate: {e}"),
        "this is a defect of dind-init; DIND_TLS=off or LOCAL=true does without",
    )
}

/// The names by which clients reach a server: what it is told, what it is called, and where it is.
pub(crate) fn names(told: &[Name], hostname: &str, addresses: &[std::net::IpAddr]) -> Vec<Name> {
    let mut names: Vec<Name> = told.to_vec();
    // The last two are what people call the service in Compose files and CI jobs.
    for name in [hostname, "localhost", "docker", "dind"] {
        if crate::settings::is_dns_name(name) {
            names.push(Name::Dns(name.to_ascii_lowercase()));
        }
    }
    names.extend(addresses.iter().map(|address| Name::Ip(*address)));
    names.extend([Name::Ip([127, 0, 0, 1].into()), Name::Ip(std::net::Ipv6Addr::LOCALHOST.into())]);
    names.sort();
    names.dedup();
    names
}

/// What else the host is called in the text of `/etc/hosts`: its full name, where it has a domain (hostname(1), `-f`).
pub(crate) fn full_names(hosts: &str, hostname: &str) -> Vec<Name> {
    let lines =
        hosts.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace().skip(1));
    lines
        .filter(|names| names.clone().any(|name| name.eq_ignore_ascii_case(hostname)))
        .flatten()
        .filter(|name| crate::settings::is_dns_name(name))
        .map(|name| Name::Dns(name.to_ascii_lowercase()))
        .collect()
}

#[cfg(test)]
mod tests;
