//! Names of images as the engine keeps them (the distribution project's reference package).

use crate::failure::{Failure, Result};
use crate::hash;

/// How an image is named in a Compose file, and how an appliance calls it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    /// What to ask an engine or a registry for: with its digest, where one was given.
    pub(crate) wanted: String,
    /// With a tag, as the engine keeps it: `nginx:1.27` for `docker.io/library/nginx:1.27`.
    pub(crate) sealed: String,
    /// `sha256:…`, where one was given.
    pub(crate) digest: Option<String>,
}

impl Name {
    /// Reads a name.
    pub(crate) fn parse(text: &str) -> Self {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.to_owned())),
            None => (text, None),
        };
        let familiar = ["docker.io/library/", "docker.io/", "index.docker.io/library/", "index.docker.io/"];
        let short = familiar.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
        let tagged = short.rsplit('/').next().unwrap_or(short).contains(':');
        let sealed = match (&digest, tagged) {
            (_, true) => short.to_owned(),
            (None, false) => format!("{short}:latest"),
            // It needs some tag to be called by, and this is none that anybody else gives.
            (Some(digest), false) => {
                format!("{short}:sealed-{}", hash::sha256(digest.as_bytes()).get(..12).unwrap_or_default())
            }
        };
        let wanted = match &digest {
            Some(digest) => format!("{}@{digest}", untagged(short)),
            None => sealed.clone(),
        };
        Self { wanted, sealed, digest }
    }
}

/// A name without its tag.
pub(crate) fn untagged(name: &str) -> &str {
    // A colon before the last slash belongs to a port.
    match name.rfind(':').filter(|colon| *colon > name.rfind('/').unwrap_or_default()) {
        Some(colon) => name.get(..colon).unwrap_or(name),
        None => name,
    }
}

/// Checks a name for an image that is to be made.
///
/// # Errors
/// No image can be called so.
pub(crate) fn check_tag(tag: &str) -> Result<()> {
    let name = Name::parse(tag);
    let (repository, version) = name.sealed.split_at(untagged(&name.sealed).len());
    if name.digest.is_none() && repository.split('/').all(is_part) && is_version(version) {
        return Ok(());
    }
    Err(Failure::usage(
        format!("{tag:?} cannot be the name of an image"),
        "give a name in lower case, with a tag: -t shop:1.4",
    ))
}

/// Whether a repository's path may have this between two slashes; a port may follow a registry's name.
fn is_part(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(plain)
        && part.ends_with(plain)
        && part.chars().all(|c| plain(c) || "._-:".contains(c))
        && !part.contains("..")
}

/// Whether this, with its colon, may follow a repository's name.
fn is_version(version: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let version = version.strip_prefix(':').unwrap_or_default();
    version.len() <= 128
        && version.starts_with(plain)
        && version.chars().all(|c| plain(c) || ".-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_an_image_can_have() {
        for good in ["shop", "shop:1.4", "h:5000/a/shop:V1", "a.b/c_d"] {
            assert!(check_tag(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "Shop",
            "shop:a b",
            "shop@sha256:0",
            "sh op",
            "shop:",
            "shop/",
            "a//b",
            "shop-",
            "a..b",
            "shop:.x",
        ] {
            assert!(check_tag(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_those_of_the_engine() {
        for (text, wanted, sealed) in [
            ("nginx", "nginx:latest", "nginx:latest"),
            ("docker.io/library/nginx:1", "nginx:1", "nginx:1"),
            ("docker.io/a/b", "a/b:latest", "a/b:latest"),
            ("h:5000/a", "h:5000/a:latest", "h:5000/a:latest"),
            ("h:5000/a:1@sha256:0", "h:5000/a@sha256:0", "h:5000/a:1"),
            ("library/x", "library/x:latest", "library/x:latest"),
        ] {
            let name = Name::parse(text);
            assert_eq!((name.wanted.as_str(), name.sealed.as_str()), (wanted, sealed), "{text}");
        }
        let pinned = Name::parse("a@sha256:0");
        assert_eq!((pinned.wanted.as_str(), pinned.digest.as_deref()), ("a@sha256:0", Some("sha256:0")));
        assert!(pinned.sealed.starts_with("a:sealed-"), "{}", pinned.sealed);
    }
}
