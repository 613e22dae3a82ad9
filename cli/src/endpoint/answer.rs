//! The border to an endpoint: what it answers is parsed here, once, into types that cannot hold a bad value. Ids become names of folders
//! and parts of paths, addresses become operands of ssh, and whoever answers may be hostile. Nothing behind this border takes an id or an
//! address as text.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;

/// How many digits an id has: as many as the docker command shows, to as many as an engine gives.
const DIGITS: std::ops::RangeInclusive<usize> = 12..=64;
/// What every id is made of, in messages.
const HEX: &str = "12 to 64 hexadecimal digits in lower case";
/// The longest name of a volume: it is the name of a folder on the endpoint's machine.
const LONGEST_NAME: usize = 255;
/// How many characters of a bad answer an error shows.
const SHOWN: usize = 40;

/// An answer that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadAnswer {
    /// What it was taken for.
    what: &'static str,
    text: String,
    /// What was expected.
    expected: &'static str,
}

impl fmt::Display for BadAnswer {
    /// `the container id "../..", which is not …`: in ASCII, and no longer than a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.text.chars().take(SHOWN).collect();
        write!(f, "the {} \"{}\"", self.what, shown.escape_default())?;
        let length = self.text.chars().count();
        if length > SHOWN {
            write!(f, "… ({length} characters)")?;
        }
        write!(f, ", which is not {}", self.expected)
    }
}

/// The id of a container. It is a good name of a folder, never a path and never an option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ContainerId(String);

impl ContainerId {
    /// As much of it as the docker command shows.
    pub(crate) fn short(&self) -> &str {
        // Digits are one byte each, and there are at least so many.
        self.0.get(..*DIGITS.start()).unwrap_or(&self.0)
    }

    /// All of it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = BadAnswer;

    fn from_str(text: &str) -> Result<Self, BadAnswer> {
        hex(text, "container id").map(Self)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a program that runs in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExecId(String);

impl ExecId {
    /// All of it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExecId {
    type Err = BadAnswer;

    fn from_str(text: &str) -> Result<Self, BadAnswer> {
        hex(text, "exec id").map(Self)
    }
}

/// The id of an image, with its `sha256:` where the endpoint gives one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageId(String);

impl ImageId {
    /// All of it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageId {
    type Err = BadAnswer;

    fn from_str(text: &str) -> Result<Self, BadAnswer> {
        if is_hex(text.strip_prefix("sha256:").unwrap_or(text)) {
            return Ok(Self(text.to_owned()));
        }
        Err(BadAnswer { what: "image id", text: text.to_owned(), expected: HEX })
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a volume, by the engine's own rule: never a path on the endpoint's machine, nor one in its API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeName(String);

impl VolumeName {
    /// All of it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = BadAnswer;

    fn from_str(text: &str) -> Result<Self, BadAnswer> {
        let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let rest = text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        if first && rest && text.len() <= LONGEST_NAME {
            return Ok(Self(text.to_owned()));
        }
        Err(BadAnswer {
            what: "volume name",
            text: text.to_owned(),
            expected: "letters, digits and _ . - after the first",
        })
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An IP address, or none where the answer is empty.
///
/// # Errors
/// It is anything else: a name, an address with a zone or a port, an option.
pub(crate) fn address(text: &str) -> Result<Option<IpAddr>, BadAnswer> {
    optional(text, "address", "an IP address")
}

/// A port, or none where the answer is empty.
///
/// # Errors
/// It is anything else.
pub(crate) fn port(text: &str) -> Result<Option<u16>, BadAnswer> {
    optional(text, "port", "a number up to 65535")
}

fn optional<T: FromStr>(
    text: &str,
    what: &'static str,
    expected: &'static str,
) -> Result<Option<T>, BadAnswer> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| BadAnswer { what, text: text.to_owned(), expected })
}

fn hex(text: &str, what: &'static str) -> Result<String, BadAnswer> {
    if is_hex(text) {
        return Ok(text.to_owned());
    }
    Err(BadAnswer { what, text: text.to_owned(), expected: HEX })
}

fn is_hex(text: &str) -> bool {
    DIGITS.contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    /// What hostile endpoints answer in place of an id.
    fn hostile() -> Vec<String> {
        let mut all: Vec<String> = [
            "",
            "a",
            "../../../../",
            "aaaaaaaaaaaa/../../x",
            "aaaaaaaaaaaé/../../../../../.ssh",
            "aaaaaaaaaaaé",
            "éééééé",
            "AAAAAAAAAAAA",
            "0123456789aB",
            "0123456789ag",
            "0123456789ab\0",
            "\x000123456789ab",
            " 0123456789ab",
            "0123456789ab\n",
            "-123456789ab",
            "/123456789ab",
            "sha256:0123456789ab",
            "٠١٢٣٤٥٦٧٨٩٠١",
            "\u{1b}]0;title\u{7}",
            "%2e%2e%2f%2e%2e%2f",
        ]
        .map(str::to_owned)
        .into();
        all.extend([11, 65, 10_000].map(|length| "a".repeat(length)));
        all
    }

    #[test]
    fn ids_are_what_engines_give() {
        for good in ["0123456789ab".to_owned(), "0123456789abcdef".repeat(4), "f".repeat(40)] {
            let id: ContainerId = good.parse().unwrap();
            assert_eq!((id.to_string().as_str(), id.as_str()), (good.as_str(), good.as_str()));
            assert_eq!(id.short(), &good[..12]);
            assert_eq!(serde_json::to_string(&id).unwrap(), format!("{good:?}"));
            assert_eq!(good.parse::<ExecId>().unwrap().as_str(), good);
            assert_eq!(good.parse::<ImageId>().unwrap().as_str(), good);
            assert!(format!("sha256:{good}").parse::<ImageId>().is_ok());
        }
        for bad in hostile() {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad:?}");
            assert!(bad.parse::<ExecId>().is_err(), "{bad:?}");
            assert!(format!("sha256:{bad}").parse::<ImageId>().is_err(), "{bad:?}");
        }
        for bad in ["sha512:0123456789ab", "sha256:sha256:0123456789ab", "debian", "SHA256:0123456789ab"] {
            assert!(bad.parse::<ImageId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_volumes_are_no_paths() {
        for good in ["a", "dind-bake", "A.b_c-d", &"f".repeat(64)] {
            assert_eq!(good.parse::<VolumeName>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "_a",
            "a/b",
            "../containers/x",
            "/etc",
            "a:b",
            "a b",
            "é",
            "a\0",
            "a\n",
            "a?x",
        ] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad:?}");
        }
        assert!("f".repeat(256).parse::<VolumeName>().is_err());
    }

    #[test]
    fn addresses_and_ports_are_numbers() {
        for good in ["127.0.0.1", "::", "fd00::1", "::ffff:10.0.0.1"] {
            assert_eq!(address(good).unwrap().map(|it| it.to_string()).as_deref(), Some(good));
        }
        assert_eq!((address(""), port("")), (Ok(None), Ok(None)));
        for bad in [
            "-oProxyCommand=id",
            "1.2.3.4 -oProxyCommand=id",
            " 1.2.3.4",
            "1.2.3.4\n",
            "1.2.3.4\0",
            "1.2.3",
            "01.2.3.4",
            "1.2.3.4:22",
            "1.2.3.4/16",
            "0x7f000001",
            "2130706433",
            "localhost",
            "vic.example.com",
            "fe80::1%eth0",
            "fe80::1%-oProxyCommand=id",
            "[::1]",
            "::1:22:-oX",
            "é",
        ] {
            assert!(address(bad).is_err(), "{bad:?}");
        }
        assert_eq!(port("65535"), Ok(Some(65535)));
        for bad in ["65536", "-1", "22 -oX", "0x16", "-oX"] {
            assert!(port(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_shows_a_bad_answer_in_a_line_of_ascii() {
        let shown = |text: &str| text.parse::<ContainerId>().unwrap_err().to_string();
        assert_eq!(
            shown("../../../../"),
            "the container id \"../../../../\", which is not 12 to 64 hexadecimal digits in lower case"
        );
        assert!(shown("a\0é\u{1b}[31m\n\"").contains(r#""a\u{0}\u{e9}\u{1b}[31m\n\"""#));
        let long = shown(&"x".repeat(10_000));
        assert!(long.contains("x\"… (10000 characters), which") && long.len() < 200, "{long}");
    }

    proptest! {
        #[test]
        fn whatever_parses_is_one_part_of_a_path_and_no_option(text in "[-./0-9a-fA-Fé\\x00 ]{0,70}") {
            for it in [text.parse::<ContainerId>().map(|it| it.to_string()), text.parse::<VolumeName>().map(|it| it.to_string())]
                .into_iter()
                .flatten()
            {
                prop_assert_eq!(&it, &text);
                prop_assert!(!it.starts_with('-'));
                let parts: Vec<Component<'_>> = Path::new(&it).components().collect();
                prop_assert_eq!(parts, vec![Component::Normal(it.as_ref())]);
            }
        }

        #[test]
        fn one_other_character_makes_a_bad_id(text in "[0-9a-f]{12,64}", at in any::<prop::sample::Index>(), other in any::<char>()) {
            let at = at.index(text.len());
            let other = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            let digits = other.chars().all(|c| "0123456789abcdef".contains(c));
            prop_assert_eq!(other.parse::<ContainerId>().is_ok(), digits);
        }

        #[test]
        fn every_string_of_digits_of_the_right_length_is_an_id(text in "[0-9a-f]{12,64}") {
            let id: ContainerId = text.parse().unwrap();
            prop_assert_eq!(id.short(), &text[..12]);
        }

        #[test]
        fn nothing_else_is(text in any::<String>()) {
            let digits = text.chars().all(|c| "0123456789abcdef".contains(c));
            prop_assert_eq!(text.parse::<ContainerId>().is_ok(), digits && (12..=64).contains(&text.len()));
        }
    }
}
