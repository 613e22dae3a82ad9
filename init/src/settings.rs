//! Environment and arguments → [`Settings`], once. Nothing else reads the environment.

mod asked;
pub(crate) mod time_limit;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dind_contract::{PLAIN_PORT, paths, variables};

use crate::appliance::Appliance;
use crate::arguments::ENTRYPOINT;
use crate::failure::Failure;
use crate::ground::{self, BuildCache, Nofile, Registries, firewall, network, storage};
use crate::log::Format;
use crate::options::{DaemonOptions, tcp_port};

pub(crate) use asked::asks_for_host;

/// Everything that a user decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// How the API listens on TCP.
    pub(crate) listen: Listen,
    /// More names and addresses for the server certificate.
    pub(crate) names: Vec<Name>,
    /// Time between SIGTERM and the SIGKILL from outside.
    pub(crate) stop_timeout: Duration,
    /// How long the host may live.
    pub(crate) time_limit: Option<Duration>,
    /// Form of the log.
    pub(crate) log: Format,
    /// What happens when a service dies.
    pub(crate) on_failure: OnFailure,
    /// Where images shall live.
    pub(crate) storage: storage::Wish,
    /// Limits of open files, where somebody set them.
    pub(crate) nofile: Option<Nofile>,
    /// The most that the build cache may take, where somebody set it.
    pub(crate) build_cache: Option<BuildCache>,
    /// Mirrors, insecure registries and authorities.
    pub(crate) registries: Registries,
    /// Whether the data root is synced after each acknowledgement.
    pub(crate) sync: bool,
    /// Whether control groups are left as they are.
    pub(crate) keep_cgroups: bool,
    /// dockerd's options.
    pub(crate) daemon: DaemonOptions,
    /// Which kind of iptables dockerd uses.
    pub(crate) firewall: firewall::Wish,
    /// What networks inside are like.
    pub(crate) network: network::Wishes,
    /// The environment that services get.
    pub(crate) environment: BTreeMap<String, OsString>,
    /// The application that the host is there for, in an appliance's image.
    pub(crate) appliance: Option<Appliance>,
    /// What deserves a word, though it ends nothing.
    pub(crate) warnings: Vec<String>,
}

/// How the API listens on TCP. It listens on its unix socket in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Not at all.
    Local,
    /// Without TLS, on both ports.
    Plain,
    /// Without TLS, where `-H` says and nowhere else: dockerd was called by its name, as `docker:dind` lets one do.
    Told,
    /// With mutual TLS; the certificates are in this folder.
    Tls(PathBuf),
}

impl Listen {
    /// Whether the TCP listeners that are ours have TLS; `None` where there are none.
    pub(crate) fn tls(&self) -> Option<bool> {
        match self {
            Self::Local | Self::Told => None,
            Self::Plain => Some(false),
            Self::Tls(_) => Some(true),
        }
    }
}

/// A subject of the server certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// A DNS name, perhaps with `*` as its first label.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

/// What happens when a service dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// It is started again, with backoff.
    Restart,
    /// The host ends with its code.
    Exit,
}

/// What services may see of the environment: where programs, proxies and certificates are. The rest stays out, because
/// dockerd obeys variables that CI systems set for clients (`DOCKER_TLS_VERIFY`, `DOCKER_DRIVER` …).
const PASSED_ON: [&str; 15] = [
    "PATH",
    "HOME",
    "TZ",
    "TMPDIR",
    "DOCKER_TMPDIR",
    "DOCKER_MIN_API_VERSION",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GODEBUG",
];

/// Where programs are when `PATH` does not say.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The longest stop that can be asked for: a day.
const LONGEST_STOP: u64 = 24 * 60 * 60;

impl Settings {
    /// Reads `environment` and the host's `arguments` (dockerd's options, perhaps after the word `dockerd`); `read`
    /// returns a file's text, or `None` where there is no such file.
    ///
    /// # Errors
    /// The first variable, argument or configuration key that is not usable.
    pub(crate) fn load(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        arguments: &[String],
        read: impl Fn(&Path) -> io::Result<Option<String>>,
    ) -> Result<Self, Failure> {
        let all: Vec<(OsString, OsString)> = environment.into_iter().collect();
        let (ours, services) = sort_environment(all.iter().cloned())?;
        let warnings = check_names(&ours)?;
        let get = |name: &str| ours.get(name).map(String::as_str);

        let appliance = {
            // What services get, and whatever else was given: Compose interpolates with it.
            let named = all.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
            let all = services.clone().into_iter().chain(named).collect();
            Appliance::find(all, get(variables::COMPOSE_SCRIPT), &read)?
        };

        let (by_name, arguments) = called_by_name(arguments);
        let mut daemon = daemon_options(get(variables::DOCKER_OPTS).unwrap_or_default(), arguments)?;
        let config_file = daemon.config_file.clone();
        let text = read(&config_file).map_err(|e| {
            Failure::usage(
                format!("cannot read {}: {e}", config_file.display()),
                "mount a readable file there, or leave it out",
            )
        })?;
        match text {
            Some(text) => daemon.read_config(&text)?,
            None if config_file != Path::new(paths::DAEMON_JSON) => {
                return Err(Failure::usage(
                    format!("--config-file {}: there is no such file", config_file.display()),
                    "mount it there, or leave the option out",
                ));
            }
            None => {}
        }

        let settings = Self {
            nofile: get(variables::DIND_NOFILE).map(Nofile::parse).transpose()?,
            build_cache: get(variables::DIND_BUILD_CACHE).map(BuildCache::parse).transpose()?,
            registries: Registries::parse(get)?,
            listen: listen(get, &daemon, by_name, appliance.is_some())?,
            names: [variables::DIND_TLS_SAN, variables::DOCKER_TLS_SAN]
                .into_iter()
                .map(|variable| names(variable, get(variable).unwrap_or_default()))
                .collect::<Result<Vec<_>, _>>()?
                .concat(),
            stop_timeout: stop_timeout(get(variables::DIND_STOP_TIMEOUT))?,
            time_limit: time_limit::parse(get(variables::DIND_TIME_LIMIT).unwrap_or_default())?,
            log: one_of(get, variables::DIND_LOG, &[("text", Format::Text), ("json", Format::Json)])?,
            on_failure: one_of(
                get,
                variables::DIND_ON_FAILURE,
                &[("restart", OnFailure::Restart), ("exit", OnFailure::Exit)],
            )?,
            storage: storage::Wish::parse(get, &daemon)?,
            keep_cgroups: one_of(get, variables::DIND_CGROUPS, &[("auto", false), ("keep", true)])?,
            sync: one_of(get, variables::DIND_SYNC, &[("on", true), ("off", false)])?,
            firewall: firewall::Wish::parse(get, &daemon)?,
            network: network::Wishes::parse(get, &daemon)?,
            daemon,
            appliance,
            environment: services,
            warnings,
        };
        ground::check_settings(&settings)?;
        Ok(settings)
    }

    /// What somebody must hear of TLS: that there is none, or that it is where nobody expects it.
    pub(crate) fn about_tls(&self) -> Option<String> {
        let open: Vec<&str> =
            self.daemon.hosts.iter().filter(|host| tcp_port(host).is_some()).map(String::as_str).collect();
        match self.listen {
            Listen::Plain => {
                Some("TLS is off: whoever reaches port 2375 or 2376 of this host is root on it".to_owned())
            }
            Listen::Told => Some(format!(
                "TLS is off, as `dockerd -H {}` asks for: whoever reaches {} is root on it (DIND_TLS=on has TLS)",
                open.join(" -H "),
                open.join(" or ")
            )),
            Listen::Tls(_) if open.iter().any(|host| tcp_port(host) == Some(PLAIN_PORT)) => Some(format!(
                "port {PLAIN_PORT} speaks TLS, too: a plain client gets in with DIND_TLS=off only, or an empty DOCKER_TLS_CERTDIR"
            )),
            Listen::Local | Listen::Tls(_) => None,
        }
    }
}

type Sorted = (BTreeMap<String, String>, BTreeMap<String, OsString>);

/// Ours, as text, and what services may see.
fn sort_environment(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Sorted, Failure> {
    let (mut ours, mut services) = (BTreeMap::new(), BTreeMap::new());
    services.insert("PATH".to_owned(), DEFAULT_PATH.into());
    services.insert("HOME".to_owned(), "/root".into());
    for (name, value) in environment {
        let Ok(name) = name.into_string() else { continue };
        if name.to_ascii_uppercase().starts_with("DIND_")
            || variables::ALL.iter().any(|variable| variable.name == name)
        {
            let text = value.into_string().map_err(|raw| {
                Failure::usage(
                    format!("{name}={raw:?} is not UTF-8 text"),
                    format!("set {name} to plain text"),
                )
            })?;
            ours.insert(name, text);
        } else if PASSED_ON.contains(&name.as_str()) && !value.is_empty() {
            services.insert(name, value);
        }
    }
    Ok((ours, services))
}

/// Warnings for `DIND_` names that mean nothing.
///
/// # Errors
/// A name that is nearly one of ours: it was meant, and would silently do nothing.
fn check_names(ours: &BTreeMap<String, String>) -> Result<Vec<String>, Failure> {
    let known = variables::ALL.map(|variable| variable.name);
    let mut warnings = Vec::new();
    for name in ours.keys().filter(|name| !known.contains(&name.as_str())) {
        if variables::is_injected_by_kubernetes(name) {
            continue;
        }
        if let Some(meant) = nearly(name) {
            return Err(Failure::usage(
                format!("{name} is not a setting of a host"),
                format!("did you mean {meant}?"),
            ));
        }
        warnings.push(format!("{name} is not a setting of a host, so it does nothing"));
    }
    Ok(warnings)
}

/// The setting of ours that was meant by a name that is none.
fn nearly(name: &str) -> Option<&'static str> {
    variables::ALL.map(|variable| variable.name).into_iter().find(|known| is_near_miss(name, known))
}

/// Whether `name` is `known` with a slip of the finger or two; short names are all near to each other, so they may
/// have only one. Separators and case do not count.
fn is_near_miss(name: &str, known: &str) -> bool {
    let name = name.to_ascii_uppercase();
    if name.strip_prefix("DIND_") == Some(known) {
        return true;
    }
    let slips = if known.len() > "DIND_LOG".len() { 2 } else { 1 };
    known.starts_with("DIND_")
        && strsim::osa_distance(&name.replace('_', ""), &known.replace('_', "")) <= slips
}

/// Whether dockerd was called by its name, and its options. The name of `docker:dind`'s entrypoint may stand before it.
fn called_by_name(arguments: &[String]) -> (bool, &[String]) {
    let after = |name: &str, words| <[String]>::split_first(words).filter(|(first, _)| *first == name);
    let arguments = after(ENTRYPOINT, arguments).map_or(arguments, |(_, rest)| rest);
    after("dockerd", arguments).map_or((false, arguments), |(_, rest)| (true, rest))
}

fn daemon_options(text: &str, arguments: &[String]) -> Result<DaemonOptions, Failure> {
    let mut words = shell_words::split(text).map_err(|_| {
        Failure::usage(
            // Not the text itself: it may hold a secret.
            "DOCKER_OPTS has an unbalanced quote",
            "close each quote; it is split into words as a POSIX shell does, for example --label \"a=b c\"",
        )
    })?;
    // Checked apart, so that each error names where the option came from.
    DaemonOptions::parse(&words, variables::DOCKER_OPTS)?;
    DaemonOptions::parse(arguments, "arguments")?;
    words.extend_from_slice(arguments);
    DaemonOptions::parse(&words, "DOCKER_OPTS and arguments")
}

fn listen<'a>(
    get: impl Fn(&str) -> Option<&'a str>,
    daemon: &DaemonOptions,
    by_name: bool,
    is_appliance: bool,
) -> Result<Listen, Failure> {
    let local = match get(variables::LOCAL) {
        // An appliance is there for its application, unless somebody asks for a listener.
        None => is_appliance && daemon.hosts.iter().all(|host| tcp_port(host).is_none()),
        Some("false" | "0" | "no") => false,
        Some("" | "true" | "1" | "yes") => true,
        Some(other) => {
            return Err(Failure::usage(
                format!("LOCAL={other} is not a yes or a no"),
                "set LOCAL=true, or leave it out to listen on port 2376",
            ));
        }
    };
    let folder = get(variables::DOCKER_TLS_CERTDIR);
    let tls = match get(variables::DIND_TLS) {
        None => None,
        Some("on") => Some(true),
        Some("off") => Some(false),
        Some(other) => {
            return Err(Failure::usage(
                format!("DIND_TLS={other} is not on or off"),
                "set DIND_TLS=on for mutual TLS on port 2376, or DIND_TLS=off for plain TCP",
            ));
        }
    };
    if let (Some(variable), Some(option)) = (tls, daemon.tls)
        && variable != option
    {
        return Err(Failure::usage(
            format!(
                "DIND_TLS={} and --tls={option} contradict each other",
                if variable { "on" } else { "off" }
            ),
            "leave one of them out",
        ));
    }
    if local {
        if let Some(host) = daemon.hosts.iter().find(|host| tcp_port(host).is_some()) {
            return Err(Failure::usage(
                format!("LOCAL is set, but -H {host} asks for a TCP listener"),
                "leave one of them out",
            ));
        }
        return Ok(Listen::Local);
    }
    // docker:dind has TLS unless dockerd is called by its name: then its options are all there is, and whatever
    // DOCKER_TLS_CERTDIR says, the port that is known for plain TCP is plain.
    let plain_port = || daemon.hosts.iter().any(|host| tcp_port(host) == Some(PLAIN_PORT));
    // A variable of ours wins over one that we share with other images.
    match tls.or(daemon.tls).unwrap_or_else(|| folder != Some("") && !(by_name && plain_port())) {
        // What was meant for 127.0.0.1 must not open to all: without TLS whoever gets in is root.
        false if by_name && tls.is_none() && daemon.hosts.iter().any(|host| tcp_port(host).is_some()) => {
            Ok(Listen::Told)
        }
        false => Ok(Listen::Plain),
        true => {
            let folder = folder.filter(|folder| !folder.is_empty()).unwrap_or(paths::CERTIFICATES);
            if !folder.starts_with('/') {
                return Err(Failure::usage(
                    format!("DOCKER_TLS_CERTDIR={folder} is not an absolute path"),
                    "begin it with a slash, or leave it out to use /certs",
                ));
            }
            Ok(Listen::Tls(PathBuf::from(folder)))
        }
    }
}

fn names(variable: &str, text: &str) -> Result<Vec<Name>, Failure> {
    let mut names = Vec::new();
    // docker:dind takes white space between them, too.
    let is_between = |c: char| c == ',' || (variable == variables::DOCKER_TLS_SAN && c.is_whitespace());
    for word in text.split(is_between).map(str::trim).filter(|word| !word.is_empty()) {
        let bare = word.strip_prefix("DNS:").or_else(|| word.strip_prefix("IP:")).unwrap_or(word);
        names.push(match bare.parse() {
            Ok(address) => Name::Ip(address),
            Err(_) if is_dns_name(bare) => Name::Dns(bare.to_ascii_lowercase()),
            Err(_) => {
                return Err(Failure::usage(
                    format!("{variable}: {word:?} is not a host name or an IP address"),
                    format!("separate names and addresses with commas, for example {variable}=ci.example.com,10.0.0.7"),
                ));
            }
        });
    }
    Ok(names)
}

/// A name as RFC 1123 has it, perhaps with `*` as its first label; `_` is allowed because Compose uses it.
pub(crate) fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let rest = name.strip_prefix("*.").unwrap_or(name);
    name.len() <= 253
        && rest.split('.').all(label)
        && !rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn stop_timeout(text: Option<&str>) -> Result<Duration, Failure> {
    let Some(text) = text else { return Ok(Duration::from_secs(10)) };
    match text.trim().parse::<u64>() {
        Ok(seconds @ 2..=LONGEST_STOP) => Ok(Duration::from_secs(seconds)),
        _ => Err(Failure::usage(
            format!("DIND_STOP_TIMEOUT={text} is not a number of seconds from 2 to {LONGEST_STOP}"),
            "set it to what `docker stop -t` or your orchestrator gives the host; the last second is kept in reserve",
        )),
    }
}

/// The meaning of a variable that has a word for each of its values; the first stands for "not set".
fn one_of<'a, T: Copy>(
    get: impl Fn(&str) -> Option<&'a str>,
    name: &str,
    words: &[(&str, T); 2],
) -> Result<T, Failure> {
    let [(first, default), (second, other)] = words;
    match get(name) {
        None => Ok(*default),
        Some(text) if text == *first => Ok(*default),
        Some(text) if text == *second => Ok(*other),
        Some(text) => Err(Failure::usage(
            format!("{name}={text} is not {first} or {second}"),
            format!("set {name} to {first} or {second}, or leave it out for {first}"),
        )),
    }
}

#[cfg(test)]
mod tests;
