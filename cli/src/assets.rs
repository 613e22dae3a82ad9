//! What an image is built from, inside this binary.

use std::collections::HashMap;

/// The PID 1 of every host; empty in a `dind` that was built without one.
pub(crate) const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dind-init"));
/// Version of both.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that both were built from.
pub(crate) const REVISION: &str = env!("DIND_REVISION");

/// A system that hosts can be made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flavour {
    /// What users call it.
    pub(crate) name: &'static str,
    /// Its Dockerfile.
    pub(crate) dockerfile: &'static str,
    /// The Dockerfile that adds sshd.
    pub(crate) ssh: &'static str,
    /// The image that its Dockerfile begins with, for a release of it.
    pub(crate) base: fn(&str) -> String,
    /// The release that is taken where none is named.
    pub(crate) release: &'static str,
}

/// All of them.
pub(crate) const FLAVOURS: &[Flavour] = &[
    Flavour {
        name: DEBIAN,
        dockerfile: include_str!("../../images/debian/Dockerfile"),
        ssh: include_str!("../../with-ssh/debian/Dockerfile"),
        base: |release| format!("debian:{release}-slim"),
        release: "trixie",
    },
    Flavour {
        name: "photon",
        dockerfile: include_str!("../../images/photon/Dockerfile"),
        ssh: include_str!("../../with-ssh/photon/Dockerfile"),
        base: |release| format!("photon:{release}"),
        release: "5.0",
    },
    Flavour {
        name: "centos",
        dockerfile: include_str!("../../images/centos/Dockerfile"),
        ssh: include_str!("../../with-ssh/centos/Dockerfile"),
        base: |release| format!("quay.io/centos/centos:stream{release}"),
        release: "10",
    },
];

/// The one that needs no registry: its base can be made from its packages.
pub(crate) const DEBIAN: &str = "debian";

/// The kinds of Compose appliances, and their Dockerfiles, which serve every flavour.
pub(crate) const APPLIANCES: [(&str, &str); 2] = [
    ("dynamic", include_str!("../../compose/dynamic/Dockerfile")),
    ("static", include_str!("../../compose/static/Dockerfile")),
];

/// The label in which an image says what it is, of the OCI's image specification.
pub(crate) const TITLE: &str = "org.opencontainers.image.title";

/// Whether an image with these labels is one of them, or built on one: by the title that their Dockerfiles give.
pub(crate) fn is_appliance(labels: &HashMap<String, String>) -> bool {
    labels.get(TITLE).is_some_and(|title| title.starts_with("dind-compose-"))
}

/// sshd's configuration, which every flavour's ssh image has.
pub(crate) const SSHD_CONFIG: &str = include_str!("../../with-ssh/sshd_config");

/// The name of a flavour, if there is one of it.
///
/// # Errors
/// There is none; the text says which there are.
pub(crate) fn known(name: &str) -> Result<String, String> {
    flavour(name).map(|flavour| flavour.name.to_owned())
}

/// A flavour by its name.
///
/// # Errors
/// There is none; the text says which there are.
pub(crate) fn flavour(name: &str) -> Result<Flavour, String> {
    let known = || FLAVOURS.iter().map(|flavour| flavour.name).collect::<Vec<_>>().join(", ");
    let found = FLAVOURS.iter().find(|flavour| flavour.name == name).copied();
    found.ok_or_else(|| format!("there is no flavour {name}; there is: {}", known()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows `begin` in a Dockerfile, with the flavour's name taken out.
    fn end_of(text: &str, begin: &str, name: &str) -> Vec<String> {
        let at = text.find(begin).unwrap_or_else(|| panic!("{name}: there is no {begin:?}"));
        text[at..].lines().map(|line| line.replace(name, "FLAVOUR")).collect()
    }

    /// Only what a system is and how its packages are called differs: a change to one of them is a change to all.
    #[test]
    fn all_flavours_have_one_shape() {
        let debian = flavour(DEBIAN).unwrap();
        for other in FLAVOURS {
            let shape = |begin| end_of(other.dockerfile, begin, other.name);
            assert_eq!(
                shape("ARG VERSION="),
                end_of(debian.dockerfile, "ARG VERSION=", DEBIAN),
                "{}",
                other.name
            );
            for needed in [
                &format!("ARG SUITE={}\n", other.release),
                &format!("ARG BASE={}\n", (other.base)("${SUITE}")),
                "FROM ${BASE}\nARG SUITE\n",
                "exit 1; \\\n    fi\n",
            ] {
                assert!(other.dockerfile.contains(needed), "{}: {needed}", other.name);
            }
            for begin in ["groupadd --force", "LABEL org."] {
                let shape = end_of(other.ssh, begin, other.name);
                assert_eq!(shape, end_of(debian.ssh, begin, DEBIAN), "{}", other.name);
            }
            assert!(other.ssh.contains(&format!("ARG BASE=dind-{}\n", other.name)), "{}", other.name);
        }
    }

    #[test]
    fn a_flavour_is_found_by_its_name() {
        assert_eq!(known("photon"), Ok("photon".to_owned()));
        assert_eq!((flavour("centos").unwrap().base)("9"), "quay.io/centos/centos:stream9");
        assert_eq!(
            known("nonesuch"),
            Err("there is no flavour nonesuch; there is: debian, photon, centos".to_owned())
        );
    }
}
