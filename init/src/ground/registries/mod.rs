//! Registries: mirrors of Docker Hub, those without TLS, authorities of our own, and proxies on the way.

mod authorities;
mod proxies;

use std::net::IpAddr;

use dind_contract::variables::{DIND_CA_CERTIFICATES, DIND_INSECURE_REGISTRIES, DIND_REGISTRY_MIRRORS};
use serde_json::Value;

use super::decision::Decision;
use crate::failure::Failure;
use crate::settings::{Settings, is_dns_name};

pub(crate) use authorities::Authorities;
pub(super) use proxies::pass_on as pass_on_proxies;

/// What a user said about registries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Registries {
    /// URLs of mirrors of Docker Hub.
    mirrors: Vec<String>,
    /// Registries without TLS, or with any certificate: HOST, HOST:PORT or an address range.
    insecure: Vec<String>,
    /// Where certificates of more authorities are.
    authorities: Option<std::path::PathBuf>,
}

impl Registries {
    /// Everything that names a registry.
    pub(super) fn named(&self) -> impl Iterator<Item = &str> {
        self.mirrors.iter().chain(&self.insecure).map(String::as_str)
    }

    /// Reads the variables about registries.
    ///
    /// # Errors
    /// The first value that is not usable. What it says of a password is not repeated.
    pub(crate) fn parse<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, Failure> {
        let words =
            |name| get(name).unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
        let authorities = match get(DIND_CA_CERTIFICATES) {
            None | Some("") => None,
            Some(path) if path.starts_with('/') => Some(path.into()),
            Some(path) => {
                return Err(Failure::usage(
                    format!("{DIND_CA_CERTIFICATES}={path} is not an absolute path"),
                    "name a PEM file or a folder of them inside the host, and mount it there (-v)",
                ));
            }
        };
        Ok(Self {
            mirrors: words(DIND_REGISTRY_MIRRORS).map(mirror).collect::<Result<_, _>>()?,
            insecure: words(DIND_INSECURE_REGISTRIES).map(insecure).collect::<Result<_, _>>()?,
            authorities,
        })
    }
}

/// A URL as dockerd takes it for a mirror: no user, no query, no fragment.
fn mirror(word: &str) -> Result<String, Failure> {
    let refused = |cause: String| {
        Failure::usage(
            format!("{DIND_REGISTRY_MIRRORS}: {cause}"),
            "write URLs separated by commas, for example https://mirror.example.com,http://10.0.0.7:5000",
        )
    };
    let rest = word.strip_prefix("https://").or_else(|| word.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Err(refused(match word.rsplit_once('@') {
            Some((_, host)) => format!("the entry for {host:?} does not begin with https:// or http://"),
            None => format!("{word:?} does not begin with https:// or http://"),
        }));
    };
    if let Some((_, host)) = rest.rsplit_once('@') {
        return Err(refused(format!(
            "the entry for {host:?} has a user name in it, which dockerd refuses in a mirror"
        )));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if !is_registry(authority) || rest.contains(['?', '#', ' ', '"', '\\']) {
        return Err(refused(format!("{word:?} is not a URL that dockerd takes")));
    }
    Ok(word.to_owned())
}

fn insecure(word: &str) -> Result<String, Failure> {
    let is_range = word.split_once('/').is_some_and(|(address, bits)| {
        let most = match address.parse() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    });
    if is_range || is_registry(word) {
        return Ok(word.to_owned());
    }
    Err(Failure::usage(
        format!("{DIND_INSECURE_REGISTRIES}: {word:?} is not HOST, HOST:PORT or an address range"),
        "separate them with commas and leave http:// out, for example registry.example.com:5000,10.0.0.0/8",
    ))
}

/// HOST or HOST:PORT.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') && !host.is_empty() => (host, Some(port)),
        _ => (text, None),
    };
    let is_address = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.parse::<std::net::Ipv4Addr>().is_ok(),
    };
    let port_is_one = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    port_is_one && (is_address || (is_dns_name(host) && !host.starts_with('*')))
}

/// What dockerd is told about mirrors and insecure registries; nothing where nobody said anything.
pub(super) fn decide(settings: &Settings) -> Vec<Decision> {
    let registries = &settings.registries;
    [
        ("mirrors", DIND_REGISTRY_MIRRORS, &registries.mirrors, "registry-mirror", "registry-mirrors"),
        (
            "insecure registries",
            DIND_INSECURE_REGISTRIES,
            &registries.insecure,
            "insecure-registry",
            "insecure-registries",
        ),
    ]
    .into_iter()
    .filter(|(_, _, entries, _, _)| !entries.is_empty())
    .map(|(subject, variable, entries, option, key)| {
        let decision = Decision::good(subject, format!("{variable} is set"), entries.join(", "));
        if settings.daemon.values(option).next().is_some() {
            // Options add up, and so do entries of the file; but dockerd refuses to have both.
            decision.with_arguments(entries.iter().map(|entry| format!("--{option}={entry}")))
        } else {
            decision.with_config(key, entries.iter().map(|entry| Value::from(entry.as_str())).collect())
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(name: &'static str, value: &'static str) -> Result<Registries, Failure> {
        Registries::parse(|asked| (asked == name).then_some(value))
    }

    #[test]
    fn registries_are_urls_hosts_and_ranges() {
        let mirrors =
            parse(DIND_REGISTRY_MIRRORS, "https://m.example.com, http://10.0.0.7:5000/sub/,").unwrap();
        assert_eq!(mirrors.mirrors, ["https://m.example.com", "http://10.0.0.7:5000/sub/"]);
        let insecure =
            parse(DIND_INSECURE_REGISTRIES, "a.example:5000,10.0.0.0/8,[::1]:5000,fd00::/8,my_host").unwrap();
        assert_eq!(insecure.insecure.len(), 5);
        for bad in [
            "m.example",
            "ftp://x",
            "https://",
            "http://a b",
            "https://x?y",
            "https://x:0",
            "https://x:70000",
            "https://-x",
        ] {
            let failure = parse(DIND_REGISTRY_MIRRORS, bad).unwrap_err();
            assert_eq!(failure.code, 64, "{bad}");
            assert!(failure.cause.starts_with("DIND_REGISTRY_MIRRORS: "), "{}", failure.cause);
        }
        for bad in ["http://x:5000", "x:y", "10.0.0.0/33", "x/8", "*.example", "a b"] {
            let failure = parse(DIND_INSECURE_REGISTRIES, bad).unwrap_err();
            assert!(failure.cause.contains(bad), "{}", failure.cause);
        }
        assert_eq!(parse(DIND_CA_CERTIFICATES, "ca.pem").unwrap_err().code, 64);
    }

    #[test]
    fn passwords_are_not_repeated() {
        for bad in ["https://me:secret@m.example", "me:secret@m.example"] {
            let failure = parse(DIND_REGISTRY_MIRRORS, bad).unwrap_err();
            assert!(
                failure.cause.contains("m.example") && !failure.cause.contains("secret"),
                "{}",
                failure.cause
            );
        }
    }

    #[test]
    fn dockerd_is_told_in_one_place() {
        let decided = |options: &str| {
            let environment = [
                ("DOCKER_OPTS".into(), options.into()),
                (DIND_REGISTRY_MIRRORS.into(), "http://m".into()),
                (DIND_INSECURE_REGISTRIES.into(), "r:5000".into()),
            ];
            decide(&Settings::load(environment, &[], |_| Ok(None)).unwrap())
        };
        let [mirrors, insecure] = decided("").try_into().unwrap();
        assert_eq!(mirrors.config["registry-mirrors"], json!(["http://m"]));
        assert_eq!(insecure.config["insecure-registries"], json!(["r:5000"]));
        let [mirrors, insecure] = decided("--registry-mirror=http://n").try_into().unwrap();
        assert_eq!(mirrors.arguments, ["--registry-mirror=http://m"]);
        assert!(mirrors.config.is_empty() && insecure.arguments.is_empty());
    }
}
