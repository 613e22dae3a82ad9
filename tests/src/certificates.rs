//! Certificates that the tests make, to stand for those of someone else.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

const YEAR: i64 = 365;

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// Makes an authority of this name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = key();
        let certificate = params.self_signed(&key).expect("an authority can sign itself").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The authority's private key, as PEM.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for a client.
    pub fn client(&self) -> Identity {
        self.sign("made by a test", ExtendedKeyUsagePurpose::ClientAuth, Vec::new(), YEAR)
    }

    /// A certificate for a server at `localhost` and 127.0.0.1.
    pub fn server(&self) -> Identity {
        self.server_for(YEAR)
    }

    /// The same, valid from a year ago and for this many days from now; a negative number is in the past.
    pub fn server_for(&self, days: i64) -> Identity {
        let localhost = "localhost".try_into().expect("localhost is a DNS name");
        let names = vec![SanType::DnsName(localhost), SanType::IpAddress(IpAddr::from([127, 0, 0, 1]))];
        self.sign("made by a test", ExtendedKeyUsagePurpose::ServerAuth, names, days)
    }

    /// A certificate for a server of this name.
    pub fn server_named(&self, name: &str) -> Identity {
        let name = SanType::DnsName(name.try_into().expect("it is a DNS name"));
        self.sign("made by a test", ExtendedKeyUsagePurpose::ServerAuth, vec![name], YEAR)
    }

    /// One that bears the name of those that hosts make, valid like [`Self::server_for`].
    pub fn server_as_of_a_host_for(&self, days: i64) -> Identity {
        self.sign("dind server", ExtendedKeyUsagePurpose::ServerAuth, Vec::new(), days)
    }

    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose, names: Vec<SanType>, days: i64) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = names;
        params.not_before = OffsetDateTime::now_utc() - Duration::days(YEAR);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(days);
        let key = key();
        let cert = params.signed_by(&key, &self.issuer).expect("an authority can sign").pem();
        Identity { cert, key: key.serialize_pem() }
    }
}

impl Identity {
    /// A folder as the docker command wants it: this identity, and the certificate of the authority to trust.
    pub fn folder(&self, authority: &str) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder for certificates can be made");
        for (name, text) in [("ca.pem", authority), ("cert.pem", &self.cert), ("key.pem", &self.key)] {
            std::fs::write(folder.path().join(name), text).expect("a certificate can be written");
        }
        folder
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}
