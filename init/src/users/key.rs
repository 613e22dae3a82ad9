//! Public keys, as a line of authorized_keys has them (sshd(8)): `[OPTIONS] TYPE BASE64 [COMMENT]`. A value of these types is one
//! that sshd takes, and one line. Nothing of a key is ever repeated in an error: it may be a private one.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::shape::Shape;

/// The longest line. An RSA key of 16384 bits has 2,800 characters.
const LONGEST: usize = 8192;

/// A key that may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// As sshd(8) writes them, or empty.
    options: String,
    kind: &'static str,
    /// What the base64 stands for.
    blob: Vec<u8>,
    comment: String,
}

/// Why a line is no usable key, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) cause: String,
    pub(crate) help: String,
}

pub(super) fn refuse<T>(cause: impl Into<String>, help: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { cause: cause.into(), help: help.into() })
}

pub(super) const COPY: &str =
    "copy the whole line of the .pub file, or give it on standard input: adduserkey USER - <id_ed25519.pub";

impl Key {
    /// Reads one line.
    ///
    /// # Errors
    /// It is no public key of a type that is taken, or has options that sshd does not know.
    pub(crate) fn parse(line: &str) -> Result<Self, Refusal> {
        let line = line.trim();
        if is_private(line) {
            return refuse(
                "this is a private key, and must stay where it is",
                "give the public one, in the file of the same name that ends in .pub",
            );
        }
        if line.contains("BEGIN SSH2 PUBLIC KEY") {
            return refuse(
                "the key is in the format of RFC 4716, which sshd does not read",
                "convert it: ssh-keygen -i -f FILE",
            );
        }
        if line.is_empty() {
            return refuse("the key is empty", COPY);
        }
        if line.len() > LONGEST {
            return refuse(format!("the key has {} characters, and no public key has", line.len()), COPY);
        }
        if line.contains(['\n', '\r']) {
            return refuse(
                "the key has more than one line",
                "give several keys on standard input, one a line: adduserkey USER - <FILE",
            );
        }
        if line.contains(|it: char| it.is_control() && it != '\t') {
            return refuse("the key has control characters in it", COPY);
        }
        // A line without options begins with the type.
        let (first, _) = split_word(line);
        let (options, rest) = match Shape::named(first) {
            Err(_) if !looks_like_type(first) => split_options(line)?,
            _ => ("", line),
        };
        let (name, rest) = split_word(rest);
        let (kind, shape) = Shape::named(name)?;
        super::options::check(options)?;
        let (base64, comment) = split_word(rest);
        if base64.is_empty() {
            return refuse(format!("after {kind} the key itself is missing"), COPY);
        }
        let decoded =
            STANDARD.decode(base64).or_else(|_| STANDARD_NO_PAD.decode(base64.trim_end_matches('=')));
        let Ok(blob) = decoded else {
            return refuse(format!("what follows {kind} is not base64, or was cut off"), COPY);
        };
        shape.check(kind, &blob)?;
        Ok(Self { options: options.to_owned(), kind, blob, comment: comment.to_owned() })
    }

    /// Whether it is the same key, with whatever options and comment.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.blob == other.blob
    }

    /// As ssh-keygen(1) prints it.
    pub(crate) fn fingerprint(&self) -> String {
        let hash = ring::digest::digest(&ring::digest::SHA256, &self.blob);
        format!("SHA256:{}", STANDARD_NO_PAD.encode(hash))
    }

    /// Its type, options and comment, in a line.
    pub(crate) fn description(&self) -> String {
        let mut text = format!("{} {}", self.fingerprint(), self.kind);
        for part in [&self.options, &self.comment] {
            if !part.is_empty() {
                text.push(' ');
                text.push_str(part);
            }
        }
        text
    }
}

/// The line for authorized_keys.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.options.is_empty() {
            write!(f, "{} ", self.options)?;
        }
        write!(f, "{} {}", self.kind, STANDARD.encode(&self.blob))?;
        if !self.comment.is_empty() {
            write!(f, " {}", self.comment)?;
        }
        Ok(())
    }
}

/// Whether a line belongs to a private key: the first of one, or what OpenSSH's own format begins with in base64.
pub(crate) fn is_private(text: &str) -> bool {
    text.contains("PRIVATE KEY")
        || text.contains("PuTTY-User-Key-File")
        || text.contains("b3BlbnNzaC1rZXktdjE")
}

/// Whether a word can only be meant as the type of a key.
pub(super) fn looks_like_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-", "rsa-sha2-", "webauthn-"].iter().any(|start| word.starts_with(start))
}

fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once([' ', '\t']).map_or((text, ""), |(word, rest)| (word, rest.trim()))
}

/// Splits the options off: they end at the first blank that is not in quotes.
fn split_options(line: &str) -> Result<(&str, &str), Refusal> {
    let mut quoted = false;
    let mut chars = line.char_indices();
    while let Some((at, it)) = chars.next() {
        match it {
            // The one escape that sshd knows.
            '\\' if line.get(at + 1..).is_some_and(|rest| rest.starts_with('"')) => drop(chars.next()),
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => {
                let (options, rest) = line.split_at(at);
                return Ok((options, rest.trim_start()));
            }
            _ => {}
        }
    }
    if quoted { refuse("the key's options have a quote that does not end", COPY) } else { no_key() }
}

pub(super) fn no_key<T>() -> Result<T, Refusal> {
    refuse("this is no public key: it is not TYPE BASE64 [COMMENT]", COPY)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap();
        [&length.to_be_bytes()[..], bytes].concat()
    }

    fn line(kind: &str, fields: &[Vec<u8>]) -> String {
        format!("{kind} {}", STANDARD.encode([field(kind.as_bytes()), fields.concat()].concat()))
    }

    /// A key of each type, made up.
    pub(in super::super) fn all() -> Vec<String> {
        let point = |coordinate: usize| field(&[&[4][..], &vec![7; 2 * coordinate]].concat());
        let ssh = || field(b"ssh:");
        let modulus = |bits: usize| field(&[&[0][..], &vec![0xff; bits / 8]].concat());
        let rsa = |bits| line("ssh-rsa", &[field(&[1, 0, 1]), modulus(bits)]);
        vec![
            line("ssh-ed25519", &[field(&[9; 32])]),
            line("ecdsa-sha2-nistp256", &[field(b"nistp256"), point(32)]),
            line("ecdsa-sha2-nistp384", &[field(b"nistp384"), point(48)]),
            line("ecdsa-sha2-nistp521", &[field(b"nistp521"), point(66)]),
            rsa(2048),
            rsa(16384),
            line("sk-ssh-ed25519@openssh.com", &[field(&[9; 32]), ssh()]),
            line("sk-ecdsa-sha2-nistp256@openssh.com", &[field(b"nistp256"), point(32), ssh()]),
        ]
    }

    #[test]
    fn a_key_of_each_type_is_taken_and_written_as_it_was() {
        for key in all() {
            for (typed, written) in [
                (key.clone(), key.clone()),
                (format!("  {key} derek@work  bench \r\n"), format!("{key} derek@work  bench")),
                (
                    format!(r#"from="10.0.0.*,!10.0.0.7",restrict,Command="echo \"a b\"" {key}"#),
                    format!(r#"from="10.0.0.*,!10.0.0.7",restrict,Command="echo \"a b\"" {key}"#),
                ),
                (key.replace(' ', "\t"), key.clone()),
                (key.trim_end_matches('=').to_owned(), key.clone()),
            ] {
                let parsed = Key::parse(&typed).unwrap_or_else(|refusal| panic!("{typed}: {refusal:?}"));
                assert_eq!(parsed.to_string(), written);
            }
        }
    }

    /// As ssh-keygen made it, and as `ssh-keygen -l` calls it.
    #[test]
    fn fingerprints_are_those_of_ssh_keygen() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl github";
        let fingerprint = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";
        assert_eq!(Key::parse(key).unwrap().fingerprint(), fingerprint);
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let good = all().remove(0);
        let (_, base64) = good.split_once(' ').unwrap();
        let secret = "SECRETSECRETSECRET";
        let short_rsa = line("ssh-rsa", &[field(&[1, 0, 1]), field(&[&[0][..], &[0xff; 128]].concat())]);
        for (typed, named) in [
            (String::new(), "empty"),
            ("ssh-ed25519".to_owned(), "missing"),
            (format!("ssh-ed25519 {}", &base64[..30]), "truncated"),
            (format!("ssh-ed25519 {}", &base64[..29]), "cut off"),
            (format!("ssh-ed25519 {secret}!"), "base64"),
            (format!("ecdsa-sha2-nistp256 {base64}"), "another type"),
            (line("ssh-ed25519", &[field(&[9; 31])]), "truncated or damaged"),
            (line("ssh-ed25519", &[field(&[9; 32]), field(b"more")]), "damaged"),
            (line("ssh-dss", &[field(&[1]), field(&[1])]), "ssh-dss"),
            (line("ssh-ed448", &[field(&[1; 57])]), "no type of keys ssh-ed448"),
            (line("ssh-ed25519-cert-v01@openssh.com", &[]), "certificate"),
            (short_rsa, "1024 bits"),
            (format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{secret}"), "private key"),
            (format!("-----BEGIN RSA PRIVATE KEY----- {secret}"), "private key"),
            (format!("PuTTY-User-Key-File-3: ssh-ed25519 {secret}"), "private key"),
            (format!("b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAA {secret}"), "private key"),
            (format!("---- BEGIN SSH2 PUBLIC KEY ---- {secret}"), "RFC 4716"),
            (secret.repeat(1000), "characters"),
            (format!("{secret} {secret}"), "no public key"),
            (format!("{good}\n{good}"), "more than one line"),
            (format!("{good} \u{1b}[2J"), "control characters"),
            (format!("no-such-option {good}"), "no-such-option"),
            (format!("restricted {good}"), "restricted"),
            (format!("restrict, {good}"), "comma"),
            (format!("command {good}"), "command needs a value"),
            (format!("command=ls {good}"), "command needs a value"),
            (format!("pty=\"yes\" {good}"), "pty has no value"),
            (format!("command=\"a\",command=\"b\" {good}"), "twice"),
            (format!("command=\"{secret} {good}"), "quote"),
            (format!("expiry-time=\"tomorrow\" {good}"), "expiry-time"),
            // What sshd would refuse when somebody logs in with it.
            (format!("permitopen=\"localhost\" {good}"), "permitopen"),
            (format!("permitlisten=\"x:y\" {good}"), "permitlisten"),
            (format!("from=\"!10.0.0.1\" {good}"), "from"),
            (format!("tunnel=\"4294967295\" {good}"), "tunnel"),
            (format!("command=\"echo \\\\\" {good}"), "quote"),
            (format!("environment=\"A-B=c\" {good}"), "environment"),
            (format!("pty\"x\" {good}"), "no public key"),
        ] {
            let refusal = Key::parse(&typed).unwrap_err();
            assert!(refusal.cause.contains(named), "{typed}: {}", refusal.cause);
            assert!(!refusal.cause.contains(secret) && !refusal.help.is_empty(), "{refusal:?}");
            assert!(refusal.cause.len() < 120, "{}", refusal.cause);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_key_or_a_refusal(text in "\\PC{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for line in [text.clone(), String::from_utf8_lossy(&bytes).into_owned()] {
                if let Ok(key) = Key::parse(&line) {
                    prop_assert_eq!(Key::parse(&key.to_string()), Ok(key));
                }
            }
        }

        /// What is taken is written as one line, and read as the same key again; a piece of a key is no key.
        #[test]
        fn damage_is_seen(which in 0usize..8, cut in 1usize..60, options in "(restrict,|pty,|from=\"[a-z* ]{1,9}\",){0,3}", comment in "[ -~]{0,40}") {
            let line = all().remove(which);
            let options = options.trim_end_matches(',');
            if options.matches("from").count() < 2 && !options.contains("\" ") {
                let typed = format!("{options} {line} {comment}");
                if let Ok(key) = Key::parse(&typed) {
                    let written = key.to_string();
                    prop_assert!(!written.contains('\n'));
                    prop_assert_eq!(Key::parse(&written), Ok(key));
                }
            }
            let shorter = &line[..line.len() - cut];
            let same = Key::parse(shorter).is_ok_and(|key| key.to_string() != line);
            prop_assert!(!same, "{shorter}");
        }
    }
}
