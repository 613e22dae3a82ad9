//! dockerd's options: which of them `dind-init` passes on, which it honours itself, and which it refuses by name.
//!
//! Options come as words (from `DOCKER_OPTS` and the arguments) and as keys of `daemon.json`. What
//! `dind-init` decides is taken out of the words, so that nothing reaches dockerd twice.

use std::path::{Path, PathBuf};

use dind_contract::{API_PORT, PLAIN_PORT, paths};
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Long names of dockerd's options that take no value unless it is given with `=` (`dockerd --help` shows no type
/// for them). Every other option takes the next word.
pub(crate) const SWITCHES: [&str; 20] = [
    "cri-containerd",
    "debug",
    "experimental",
    "help",
    "icc",
    "init",
    "ip-forward",
    "ip-masq",
    "ip6tables",
    "iptables",
    "ipv6",
    "live-restore",
    "no-new-privileges",
    "raw-logs",
    "rootless",
    "selinux-enabled",
    "tls",
    "tlsverify",
    "userland-proxy",
    "validate",
];

/// dockerd's short options and the long names they stand for.
const SHORTHANDS: [(char, &str); 8] = [
    ('D', "debug"),
    ('G', "group"),
    ('H', "host"),
    ('b', "bridge"),
    ('l', "log-level"),
    ('p', "pidfile"),
    ('s', "storage-driver"),
    ('v', "version"),
];

/// Options that a host decides itself, and what to do instead. They are refused in words and in `daemon.json`.
const REFUSED: [(&str, &str); 6] = [
    ("containerd", "leave it out: the host runs a containerd of its own"),
    ("exec-root", "leave it out: the host keeps dockerd's runtime state in /var/run/docker"),
    ("live-restore", "leave it out: containers end with their host, in order"),
    ("tlscacert", "put it in server/ca.pem under DOCKER_TLS_CERTDIR (/certs unless set)"),
    ("tlscert", "put it in server/cert.pem under DOCKER_TLS_CERTDIR (/certs unless set)"),
    ("tlskey", "put it in server/key.pem under DOCKER_TLS_CERTDIR (/certs unless set)"),
];

/// Options that make dockerd print something and end.
const PRINTING: [&str; 3] = ["help", "validate", "version"];

/// Options, and keys of `daemon.json`, that decide on the MTU of networks.
const MTU: [&str; 3] = ["mtu", "default-network-opt", "default-network-opts"];

/// dockerd's options, sorted out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DaemonOptions {
    /// What dockerd gets as it was written.
    pub(crate) passed: Vec<String>,
    /// More listeners, from `-H`.
    pub(crate) hosts: Vec<String>,
    /// Where images, containers and volumes live.
    pub(crate) data_root: PathBuf,
    /// dockerd's pid file.
    pub(crate) pidfile: PathBuf,
    /// Where dockerd's configuration file is, or would be.
    pub(crate) config_file: PathBuf,
    /// What `--tls` or `--tlsverify` asked for.
    pub(crate) tls: Option<bool>,
    /// Whether somebody has thought of the networks' MTU.
    pub(crate) mtu_is_set: bool,
    /// Long name and value of each option in `passed`.
    pub(crate) named: Vec<(String, String)>,
    /// What the configuration file said.
    pub(crate) config: Map<String, Value>,
}

/// One option as it was written: its long name, its value, and its words.
struct Word<'a> {
    name: String,
    value: Option<String>,
    written: &'a [String],
}

impl DaemonOptions {
    /// Sorts out `words`, which came from `source` (as the errors name it).
    ///
    /// # Errors
    /// A word that is no option, an option without its value, and each option that a host decides itself.
    pub(crate) fn parse(words: &[String], source: &str) -> Result<Self, Failure> {
        let mut options = Self {
            passed: Vec::new(),
            hosts: Vec::new(),
            data_root: PathBuf::from(paths::DATA_ROOT),
            pidfile: PathBuf::from(paths::PIDFILE),
            config_file: PathBuf::from(paths::DAEMON_JSON),
            tls: None,
            mtu_is_set: false,
            named: Vec::new(),
            config: Map::new(),
        };
        let mut rest = words;
        while let Some((word, after)) = next_word(rest, source)? {
            options.take(&word, source)?;
            rest = after;
        }
        Ok(options)
    }

    fn take(&mut self, word: &Word<'_>, source: &str) -> Result<(), Failure> {
        let name = word.name.as_str();
        if let Some((_, instead)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return Err(Failure::usage(
                format!("{source}: --{name} is decided by the host"),
                (*instead).to_owned(),
            ));
        }
        if PRINTING.contains(&name) {
            return Err(Failure::usage(
                format!("{source}: --{name} makes dockerd print something and end, so no host would run"),
                format!("run it without a host: docker run --rm --entrypoint dockerd IMAGE --{name}"),
            ));
        }
        let ours = ["host", "data-root", "pidfile", "config-file"];
        if ours.contains(&name) && word.value.as_deref().unwrap_or_default().is_empty() {
            return Err(Failure::usage(
                format!("{source}: --{name} lacks its value"),
                "write the value after it",
            ));
        }
        let value = word.value.clone().unwrap_or_default();
        match name {
            "host" => self.hosts.push(listener(&value, source)?),
            "data-root" => self.data_root = absolute(&value, "--data-root", source)?,
            "pidfile" => self.pidfile = absolute(&value, "--pidfile", source)?,
            "config-file" => self.config_file = absolute(&value, "--config-file", source)?,
            "tls" => self.tls = Some(switch(word, source)?),
            "tlsverify" if switch(word, source)? => self.tls = Some(true),
            "tlsverify" => {
                return Err(Failure::usage(
                    format!("{source}: --tlsverify=false would let any client in"),
                    "leave it out, or set DIND_TLS=off to have no TLS at all",
                ));
            }
            _ => {
                self.mtu_is_set |= MTU.contains(&name);
                self.passed.extend_from_slice(word.written);
                self.named.push((name.to_owned(), value));
            }
        }
        Ok(())
    }

    /// The values that this option was given.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.named.iter().filter(move |(named, _)| named == name).map(|(_, value)| value.as_str())
    }

    /// Takes note of what the configuration file (`text`) decides.
    ///
    /// # Errors
    /// Text that is not a JSON object, and each key that a host decides itself.
    pub(crate) fn read_config(&mut self, text: &str) -> Result<(), Failure> {
        let file = self.config_file.display().to_string();
        let config = check_config(text, &file)?;
        self.mtu_is_set |= MTU.iter().any(|key| config.contains_key(*key));
        for (key, default, place) in [
            ("data-root", paths::DATA_ROOT, &mut self.data_root),
            ("pidfile", paths::PIDFILE, &mut self.pidfile),
        ] {
            let Some(value) = config.get(key) else { continue };
            if *place != Path::new(default) {
                return Err(Failure::usage(
                    format!("{file}: \"{key}\" is also given as --{key}"),
                    "leave one of them out",
                ));
            }
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            *place = absolute(&text, &format!("\"{key}\""), &file)?;
        }
        self.config = config;
        Ok(())
    }

    /// Whether the user has said one of these: names of options, or keys of the configuration file.
    pub(crate) fn says(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.values(name).next().is_some() || self.config.contains_key(*name))
    }

    /// The texts that the user gave to these options or keys.
    pub(crate) fn texts<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let configured = |name| match self.config.get(name) {
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            Some(Value::Object(object)) => object.values().filter_map(Value::as_str).collect(),
            value => Vec::from_iter(value.and_then(Value::as_str)),
        };
        names.iter().flat_map(move |name| self.values(name).chain(configured(*name)))
    }

    /// What the user made of a switch of dockerd, if anything.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        // dockerd refuses what is neither.
        let is_on = |text: &str| !["false", "0", "f", "F", "FALSE", "False"].contains(&text);
        let configured = || self.config.get(name).map(|value| value.as_bool() != Some(false));
        self.values(name).last().map(is_on).or_else(configured)
    }

    /// Every address on which dockerd shall listen: the socket, the ports that `tls` stands for (`None`: no TCP), and
    /// what `-H` added. A `-H` for one of our ports takes the place of ours.
    pub(crate) fn listeners(&self, tls: Option<bool>) -> Vec<String> {
        let ports: &[u16] = match tls {
            None => &[],
            Some(true) => &[API_PORT],
            Some(false) => &[API_PORT, PLAIN_PORT],
        };
        let mut all = vec![format!("unix://{}", paths::DOCKER_SOCKET)];
        all.extend(
            ports
                .iter()
                .filter(|port| !self.hosts.iter().any(|host| tcp_port(host) == Some(**port)))
                .map(|port| format!("tcp://0.0.0.0:{port}")),
        );
        for host in &self.hosts {
            if !all.contains(host) {
                all.push(host.clone());
            }
        }
        all
    }
}

/// The object in a configuration file, whose name is `file`.
///
/// # Errors
/// Text that is not a JSON object, and each key that a host decides itself.
pub(crate) fn check_config(text: &str, file: &str) -> Result<Map<String, Value>, Failure> {
    // dockerd takes these for an empty object, too.
    let text = text.trim_start_matches('\u{feff}').trim();
    let config: Value = serde_json::from_str(if text.is_empty() { "{}" } else { text })
        .map_err(|e| Failure::usage(format!("{file} is not JSON: {e}"), "correct it, or leave it out"))?;
    let Value::Object(config) = config else {
        return Err(Failure::usage(format!("{file} is not a JSON object"), "correct it, or leave it out"));
    };
    for (key, instead) in REFUSED.into_iter().chain([
        ("hosts", "name listeners with -H in DOCKER_OPTS, or set LOCAL=true to have none"),
        ("tls", "set DIND_TLS to on or off"),
        ("tlsverify", "set DIND_TLS to on or off"),
    ]) {
        // `"live-restore": false` is what a host does anyway.
        if config.get(key).is_some_and(|value| key != "live-restore" || *value != Value::Bool(false)) {
            return Err(Failure::usage(format!("{file}: \"{key}\" is decided by the host"), instead));
        }
    }
    Ok(config)
}

/// The next option of `rest` and what follows it.
fn next_word<'a>(rest: &'a [String], source: &str) -> Result<Option<(Word<'a>, &'a [String])>, Failure> {
    let Some((first, after)) = rest.split_first() else { return Ok(None) };
    let bad = |cause: String| {
        Failure::usage(
            format!("{source}: {cause}"),
            "`docker run --rm --entrypoint dockerd IMAGE --help` lists dockerd's options",
        )
    };
    let (name, mut value) = if let Some(long) = first.strip_prefix("--") {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        if name.is_empty() {
            return Err(bad(format!("{first:?} is not an option")));
        }
        (name.to_owned(), value)
    } else {
        let mut letters = first.strip_prefix('-').unwrap_or_default().chars();
        let Some(letter) = letters.next() else { return Err(bad(format!("{first:?} is not an option"))) };
        let Some((_, name)) = SHORTHANDS.iter().find(|(short, _)| *short == letter) else {
            return Err(bad(format!("dockerd has no option -{letter} (in {first:?})")));
        };
        let value = letters.as_str();
        if SWITCHES.contains(name) && !value.is_empty() && !value.starts_with('=') {
            return Err(bad(format!("{first:?} joins several options: write them one by one")));
        }
        let value = (!value.is_empty()).then(|| value.strip_prefix('=').unwrap_or(value).to_owned());
        ((*name).to_owned(), value)
    };
    let mut used = 1;
    if value.is_none() && !SWITCHES.contains(&name.as_str()) && !PRINTING.contains(&name.as_str()) {
        // A switch that this list does not know must not hide the option after it.
        value = after.first().filter(|next| !next.starts_with("--")).cloned();
        // The last word may be an option that dockerd does not have: it says so itself, and so it does of a missing value.
        used = if value.is_some() { 2 } else { 1 };
    }
    let (written, after) = rest.split_at(used);
    Ok(Some((Word { name, value, written }, after)))
}

fn switch(word: &Word<'_>, source: &str) -> Result<bool, Failure> {
    match word.value.as_deref() {
        None | Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
        Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(Failure::usage(
            format!("{source}: --{}={other} is not true or false", word.name),
            format!("write --{0}=true or --{0}=false", word.name),
        )),
    }
}

fn absolute(value: &str, name: &str, source: &str) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(value);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Failure::usage(
        format!("{source}: {name} {value:?} is not an absolute path"),
        "begin the path with a slash",
    ))
}

fn listener(value: &str, source: &str) -> Result<String, Failure> {
    match value.split_once("://") {
        Some(("tcp", address)) if !address.is_empty() => Ok(value.to_owned()),
        Some(("unix", path)) if path.starts_with('/') => Ok(value.to_owned()),
        _ => Err(Failure::usage(
            format!("{source}: -H {value:?} is not a listener that a host can have"),
            "write -H tcp://ADDRESS:PORT or -H unix:///PATH",
        )),
    }
}

/// The port of a `tcp://` listener; dockerd's own default where none is written.
pub(crate) fn tcp_port(host: &str) -> Option<u16> {
    let address = host.strip_prefix("tcp://")?.trim_end_matches('/');
    match address.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port.parse().ok(),
        _ => Some(API_PORT),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> Result<DaemonOptions, Failure> {
        DaemonOptions::parse(&shell_words::split(line).unwrap(), "DOCKER_OPTS")
    }

    #[test]
    fn what_a_host_does_not_decide_is_passed_as_written() {
        let line =
            "--insecure-registry 10.0.0.1 --label 'a=b c' -D --mtu=1400 -l debug -ldebug --iptables=false";
        assert_eq!(parse(line).unwrap().passed, shell_words::split(line).unwrap());
    }

    #[test]
    fn a_value_that_looks_like_an_option_is_a_value() {
        let options = parse("--label -H --log-level --debug").unwrap();
        assert_eq!(options.passed, ["--label", "-H", "--log-level", "--debug"]);
        assert!(options.hosts.is_empty());
    }

    #[test]
    fn what_dockerd_does_not_know_is_left_to_dockerd_to_refuse() {
        assert_eq!(parse("--debug --foo").unwrap().passed, ["--debug", "--foo"]);
        assert_eq!(parse("--label").unwrap().passed, ["--label"]);
    }

    #[test]
    fn what_a_host_decides_is_honoured() {
        let line =
            "-H tcp://0.0.0.0:4000 -Hunix:///a.sock --host=tcp://[::1]:5 --data-root /d -p /p --tls=false";
        let options = parse(line).unwrap();
        assert_eq!(options.hosts, ["tcp://0.0.0.0:4000", "unix:///a.sock", "tcp://[::1]:5"]);
        assert_eq!(options.data_root, PathBuf::from("/d"));
        assert_eq!(options.pidfile, PathBuf::from("/p"));
        assert_eq!(options.tls, Some(false));
        assert!(options.passed.is_empty());
        assert_eq!(parse("--config-file /c.json").unwrap().config_file, PathBuf::from("/c.json"));
        assert_eq!(parse("--tlsverify").unwrap().tls, Some(true));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let table = [
            ("--exec-root /x", "--exec-root"),
            ("--containerd=/x", "--containerd"),
            ("--live-restore", "--live-restore"),
            ("--tlscacert x", "--tlscacert"),
            ("--tlscert x", "--tlscert"),
            ("--tlskey x", "--tlskey"),
            ("--tlsverify=false", "--tlsverify=false"),
            ("--tls=perhaps", "--tls=perhaps"),
            ("-H fd://", "fd://"),
            ("-H tcp://", "tcp://"),
            ("--a-switch-of-tomorrow --containerd /x", "--containerd"),
            ("-H 0.0.0.0:2375", "0.0.0.0:2375"),
            ("--data-root relative", "relative"),
            ("--version", "--version"),
            ("-v", "--version"),
            ("--help", "--help"),
            ("-H", "--host lacks its value"),
            ("--pidfile=", "--pidfile lacks its value"),
            ("word", "\"word\""),
            ("--", "\"--\""),
            ("-", "\"-\""),
            ("-x", "-x"),
            ("-DH tcp://x", "one by one"),
        ];
        for (line, named) in table {
            let failure = parse(line).unwrap_err();
            assert_eq!(failure.code, 64, "{line}");
            assert!(failure.cause.starts_with("DOCKER_OPTS: "), "{line}: {}", failure.cause);
            assert!(failure.cause.contains(named), "{line}: {}", failure.cause);
            assert!(!failure.help.is_empty(), "{line}");
        }
    }

    #[test]
    fn a_configuration_file_is_honoured_or_refused_by_name() {
        let mut options = parse("").unwrap();
        options
            .read_config(r#"{"data-root": "/d", "pidfile": "/p", "mtu": 1400, "live-restore": false}"#)
            .unwrap();
        assert_eq!(options.data_root, PathBuf::from("/d"));
        for empty in ["", "\n", "\u{feff}{}"] {
            parse("").unwrap().read_config(empty).unwrap();
        }
        assert_eq!(options.pidfile, PathBuf::from("/p"));
        for (text, named) in [
            (r#"{"hosts": []}"#, "\"hosts\""),
            (r#"{"tls": true}"#, "\"tls\""),
            (r#"{"tlsverify": true}"#, "\"tlsverify\""),
            (r#"{"tlscert": "/x"}"#, "\"tlscert\""),
            (r#"{"exec-root": "/x"}"#, "\"exec-root\""),
            (r#"{"containerd": "/x"}"#, "\"containerd\""),
            (r#"{"live-restore": true}"#, "\"live-restore\""),
            (r#"{"data-root": 5}"#, "\"data-root\""),
            (r#"{"mtu": 5"#, "is not JSON"),
            ("[]", "is not a JSON object"),
        ] {
            let failure = parse("").unwrap().read_config(text).unwrap_err();
            assert_eq!(failure.code, 64, "{text}");
            assert!(failure.cause.contains(named), "{text}: {}", failure.cause);
            assert!(failure.cause.contains("/etc/docker/daemon.json"), "{text}: {}", failure.cause);
        }
        let twice = parse("--data-root /x").unwrap().read_config(r#"{"data-root": "/d"}"#).unwrap_err();
        assert!(twice.cause.contains("also given"), "{}", twice.cause);
    }

    #[test]
    fn who_has_thought_of_the_mtu_is_left_alone() {
        assert!(!parse("--debug").unwrap().mtu_is_set);
        for line in
            ["--mtu 1400", "--mtu=1400", "--default-network-opt bridge=com.docker.network.driver.mtu=1"]
        {
            assert!(parse(line).unwrap().mtu_is_set, "{line}");
        }
        let mut options = parse("").unwrap();
        options.read_config(r#"{"mtu": 1400}"#).unwrap();
        assert!(options.mtu_is_set);
    }

    #[test]
    fn what_was_said_is_known_by_name() {
        let mut options = parse("--iptables=false --ip6tables --dns 10.0.0.1 --ip-forward=true").unwrap();
        let config = r#"{"default-address-pools": [], "userland-proxy": false,
            "proxies": {"http-proxy": "a"}, "registry-mirrors": ["b", "c"]}"#;
        options.read_config(config).unwrap();
        assert!(options.says(&["dns"]) && options.says(&["x", "default-address-pools"]));
        assert!(!options.says(&["dns-search"]));
        let texts: Vec<_> = options.texts(&["proxies", "registry-mirrors", "dns", "icc"]).collect();
        assert_eq!(texts, ["a", "b", "c", "10.0.0.1"]);
        for (name, value) in [
            ("iptables", Some(false)),
            ("ip6tables", Some(true)),
            ("ip-forward", Some(true)),
            ("userland-proxy", Some(false)),
            ("icc", None),
        ] {
            assert_eq!(options.switch(name), value, "{name}");
        }
    }

    #[test]
    fn listeners_are_ours_and_the_users_each_once() {
        let socket = "unix:///var/run/docker.sock";
        let plain = parse("").unwrap();
        assert_eq!(plain.listeners(None), [socket]);
        assert_eq!(plain.listeners(Some(true)), [socket, "tcp://0.0.0.0:2376"]);
        assert_eq!(plain.listeners(Some(false)), [socket, "tcp://0.0.0.0:2376", "tcp://0.0.0.0:2375"]);
        let more = parse("-H unix:///var/run/docker.sock -H tcp://10.0.0.1 -H tcp://0.0.0.0:4000").unwrap();
        assert_eq!(more.listeners(Some(true)), [socket, "tcp://10.0.0.1", "tcp://0.0.0.0:4000"]);
    }

    proptest! {
        #[test]
        fn any_words_are_sorted_out_or_refused(words in proptest::collection::vec("[-=a-zH:/ ]{0,12}", 0..8)) {
            match DaemonOptions::parse(&words, "DOCKER_OPTS") {
                Ok(options) => {
                    // Nothing is invented and nothing is reordered.
                    let mut rest = words.iter();
                    prop_assert!(options.passed.iter().all(|passed| rest.any(|word| word == passed)));
                    for (refused, _) in REFUSED {
                        let written = format!("--{refused}=");
                        prop_assert!(!options.passed.first().is_some_and(|word| word.starts_with(&written)));
                    }
                }
                Err(failure) => prop_assert!(!failure.cause.is_empty() && !failure.help.is_empty()),
            }
        }

        #[test]
        fn any_configuration_text_is_read_or_refused(text in "[ -~\n]{0,40}") {
            let _ = parse("").unwrap().read_config(&text);
        }
    }
}
