//! A certificate as it was found, read once.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::{KeyPair, PublicKeyData};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Name};

use crate::failure::Failure;
use crate::settings::Name;

/// What a host must know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// The first moment of its validity.
    pub(super) begins: OffsetDateTime,
    /// The last moment of its validity.
    pub(super) expires: OffsetDateTime,
    /// The common name of whoever it is for.
    pub(super) subject: String,
    /// The common name of whoever signed it.
    pub(super) issuer: String,
    /// Whom it is for.
    pub(super) names: BTreeSet<Name>,
    /// Whether it may sign others.
    pub(super) is_ca: bool,
    public_key: Vec<u8>,
    der: Vec<u8>,
}

impl Parsed {
    /// Reads the first certificate in `pem`, which came from `path`.
    ///
    /// # Errors
    /// There is none, or it is broken.
    pub(crate) fn read(pem: &str, path: &str) -> Result<Self, Failure> {
        let broken = |cause: &str| {
            Failure::usage(
                format!("{path} is not a certificate: {cause}"),
                "replace it, or remove it to have a new one made",
            )
        };
        // A file may hold the key, too, and a chain, in any order.
        let mut blocks = Pem::iter_from_buffer(pem.as_bytes()).map_while(Result::ok);
        let Some(pem) = blocks.find(|block| block.label == "CERTIFICATE") else {
            return Err(broken("it has no whole PEM block of one"));
        };
        let certificate = pem.parse_x509().map_err(|_| broken("its PEM block holds something else"))?;
        let date = |time: ASN1Time| {
            OffsetDateTime::from_unix_timestamp(time.timestamp())
                .map_err(|_| broken("its validity is no date"))
        };
        let names = certificate
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|extension| extension.value.general_names.iter().filter_map(name).collect())
            .unwrap_or_default();
        Ok(Self {
            begins: date(certificate.validity().not_before)?,
            expires: date(certificate.validity().not_after)?,
            subject: common_name(certificate.subject()),
            issuer: common_name(certificate.issuer()),
            names,
            is_ca: certificate.is_ca(),
            public_key: certificate.public_key().raw.to_vec(),
            der: pem.contents.clone(),
        })
    }

    /// Whether `authority` issued and signed it.
    pub(super) fn is_signed_by(&self, authority: &Self) -> bool {
        let (Ok((_, ours)), Ok((_, theirs))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&authority.der))
        else {
            return false;
        };
        ours.issuer() == theirs.subject() && ours.verify_signature(Some(theirs.public_key())).is_ok()
    }

    /// Checks that `key` belongs to it. Keys of kinds that only dockerd can read are left to it to check.
    ///
    /// # Errors
    /// The key is broken, or another's.
    pub(super) fn check_key(&self, key: &str, cert_path: &str, key_path: &str) -> Result<(), Failure> {
        let Ok(pair) = KeyPair::from_pem(key) else {
            if key.contains("PRIVATE KEY-----") {
                return Ok(());
            }
            return Err(Failure::usage(
                format!("{key_path} is not a private key"),
                "replace it, or remove it and its certificate to have new ones made",
            ));
        };
        if pair.subject_public_key_info() == self.public_key {
            return Ok(());
        }
        Err(Failure::usage(
            format!("{key_path} is not the key of {cert_path}"),
            "replace one of them, or remove both to have new ones made",
        ))
    }
}

fn common_name(name: &X509Name<'_>) -> String {
    name.iter_common_name().filter_map(|name| name.as_str().ok()).collect()
}

fn name(name: &GeneralName<'_>) -> Option<Name> {
    match name {
        GeneralName::DNSName(name) => Some(Name::Dns(name.to_ascii_lowercase())),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| Name::Ip(IpAddr::from(bytes))),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| Name::Ip(IpAddr::from(bytes))),
            _ => None,
        },
        _ => None,
    }
}
