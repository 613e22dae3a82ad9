//! The types of keys, and what the blob of each has in it.

use super::key::{COPY, Refusal, looks_like_type, no_key, refuse};

/// RSA keys of fewer bits are refused; OpenSSH itself refuses those of more.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=16384;
const MAKE: &str = "make a key of another type: ssh-keygen -t ed25519";

/// What the blob of a type has in it, after its name (RFC 4253, RFC 5656, RFC 8709, OpenSSH's PROTOCOL.u2f).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Ed25519 { security_key: bool },
    Ecdsa { curve: &'static str, coordinate: usize, security_key: bool },
    Rsa,
}

impl Shape {
    /// The type of this name.
    pub(super) fn named(name: &str) -> Result<(&'static str, Self), Refusal> {
        let ecdsa = |curve, coordinate, security_key| Self::Ecdsa { curve, coordinate, security_key };
        Ok(match name {
            "ssh-ed25519" => ("ssh-ed25519", Self::Ed25519 { security_key: false }),
            "ecdsa-sha2-nistp256" => ("ecdsa-sha2-nistp256", ecdsa("nistp256", 32, false)),
            "ecdsa-sha2-nistp384" => ("ecdsa-sha2-nistp384", ecdsa("nistp384", 48, false)),
            "ecdsa-sha2-nistp521" => ("ecdsa-sha2-nistp521", ecdsa("nistp521", 66, false)),
            "ssh-rsa" => ("ssh-rsa", Self::Rsa),
            "sk-ssh-ed25519@openssh.com" => {
                ("sk-ssh-ed25519@openssh.com", Self::Ed25519 { security_key: true })
            }
            "sk-ecdsa-sha2-nistp256@openssh.com" => {
                ("sk-ecdsa-sha2-nistp256@openssh.com", ecdsa("nistp256", 32, true))
            }
            "ssh-dss" => return refuse("keys of the type ssh-dss (DSA) are not taken any more", MAKE),
            name if name.contains("-cert-v0") => {
                return refuse(
                    "this is a certificate, and no public key",
                    "give the .pub file of the key itself; for an authority: cert-authority before its key",
                );
            }
            name if looks_like_type(name) => {
                // A type's name is short and has only these; anything else may be a piece of something secret.
                let is_name = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "-@.".contains(it);
                let told = name.len() <= 40 && name.chars().all(is_name);
                let told = if told { format!(" {name}") } else { String::new() };
                return refuse(format!("there is no type of keys{told} that sshd takes"), MAKE);
            }
            _ => return no_key(),
        })
    }

    pub(super) fn check(self, kind: &str, blob: &[u8]) -> Result<(), Refusal> {
        let mut fields = Fields(blob);
        let named = fields.next();
        if named.is_some_and(|named| named != kind.as_bytes()) {
            return refuse(format!("the key says {kind} and is of another type"), COPY);
        }
        let whole = named.is_some() && self.has_fields(&mut fields);
        if whole && fields.0.is_empty() {
            return Ok(());
        }
        if let (Self::Rsa, Some(bits)) = (self, rsa_bits(blob))
            && !RSA_BITS.contains(&bits)
        {
            let (least, most) = RSA_BITS.into_inner();
            return refuse(format!("the RSA key has {bits} bits, and not {least} to {most}"), MAKE);
        }
        refuse(format!("the {kind} key is truncated or damaged"), COPY)
    }

    fn has_fields(self, fields: &mut Fields<'_>) -> bool {
        // A security key names its application last, "ssh:" as a rule.
        let application = |fields: &mut Fields<'_>, security_key: bool| {
            !security_key || fields.next().is_some_and(|application| !application.is_empty())
        };
        match self {
            Self::Ed25519 { security_key } => {
                fields.next().is_some_and(|key| key.len() == 32) && application(fields, security_key)
            }
            Self::Ecdsa { curve, coordinate, security_key } => {
                fields.next() == Some(curve.as_bytes())
                    // Uncompressed, which is what OpenSSH writes and takes.
                    && fields.next().is_some_and(|key| key.len() == 1 + 2 * coordinate && key.first() == Some(&4))
                    && application(fields, security_key)
            }
            Self::Rsa => {
                let exponent = fields.next().and_then(bits);
                let modulus = fields.next().and_then(bits);
                exponent.is_some_and(|bits| bits > 1) && modulus.is_some_and(|bits| RSA_BITS.contains(&bits))
            }
        }
    }
}

/// The modulus's length, if there is one.
fn rsa_bits(blob: &[u8]) -> Option<usize> {
    let mut fields = Fields(blob);
    let _name = fields.next()?;
    let _exponent = fields.next()?;
    fields.next().and_then(bits)
}

/// How many bits a positive mpint has (RFC 4251, section 5).
fn bits(mpint: &[u8]) -> Option<usize> {
    let (first, rest) = mpint.split_first()?;
    match *first {
        0 => {
            let leading = rest.first()?.leading_zeros();
            // A zero that is not needed makes it another number to some, and no key to others.
            (leading == 0).then_some(rest.len() * 8)
        }
        0x80.. => None,
        first => Some(mpint.len() * 8 - usize::try_from(first.leading_zeros()).ok()?),
    }
}

/// Strings, each after its length in four bytes.
struct Fields<'blob>(&'blob [u8]);

impl<'blob> Fields<'blob> {
    fn next(&mut self) -> Option<&'blob [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        self.0 = rest;
        Some(field)
    }
}
