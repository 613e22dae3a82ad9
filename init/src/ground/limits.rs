//! Limits of open files and of processes.
//!
//! Some programs close, or reserve memory for, every descriptor that they might have, so that a high soft limit makes them
//! crawl (moby#38814, moby#45060). The field has settled on what systemd gives to services: soft 1024, because select(2) knows
//! no more, and hard 524288, for whoever asks. containerd and dockerd are Go programs: they raise their own soft limit to the
//! hard one, and give what they start the soft limit that they were started with.

use std::fs;

use dind_contract::variables::DIND_NOFILE;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::decision::Decision;
use crate::failure::Failure;
use crate::settings::Settings;

/// Limits of open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nofile {
    soft: u64,
    hard: u64,
}

/// What systemd gives to services since version 240.
const DEFAULT: Nofile = Nofile { soft: 1024, hard: 524_288 };

/// dockerd's option, and the key of its configuration file.
const OPTION: &str = "default-ulimit";
const KEY: &str = "default-ulimits";

/// With less, a host has room for a few dozen containers: each has a shim of about a dozen threads beside its own.
const FEW_PIDS: u64 = 1024;

impl Nofile {
    /// Reads `SOFT:HARD`, or one number for both.
    ///
    /// # Errors
    /// It is neither.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let (soft, hard) = text.split_once(':').unwrap_or((text, text));
        match (soft.trim().parse(), hard.trim().parse()) {
            (Ok(soft), Ok(hard)) if soft > 0 && soft <= hard => Ok(Self { soft, hard }),
            _ => Err(Failure::usage(
                format!(
                    "{DIND_NOFILE}={text} is not SOFT:HARD, two numbers of which the first is not the greater"
                ),
                format!("write for example {DIND_NOFILE}={}:{}", DEFAULT.soft, DEFAULT.hard),
            )),
        }
    }
}

/// What this process may have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Open files, soft.
    soft: u64,
    /// Open files, hard.
    hard: u64,
    /// Processes and threads of the whole container; `None`: as many as the machine has.
    pids: Option<u64>,
}

/// Looks at the limits.
pub(super) fn probe() -> Limits {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    // The container's own group is mounted there: v2, then v1.
    let read = |path: &str| fs::read_to_string(path).ok();
    let text = read("/sys/fs/cgroup/pids.max").or_else(|| read("/sys/fs/cgroup/pids/pids.max"));
    Limits { soft, hard, pids: text.and_then(|text| text.trim().parse().ok()) }
}

/// Whether somebody has thought of it already, and where. It may contradict `DIND_NOFILE`.
///
/// # Errors
/// Both are set.
pub(crate) fn check(settings: &Settings) -> Result<(), Failure> {
    match (settings.nofile, told(settings)) {
        (Some(_), Some(place)) => Err(Failure::usage(
            format!("{DIND_NOFILE} and {place} both limit open files"),
            "leave one of them out",
        )),
        _ => Ok(()),
    }
}

fn told(settings: &Settings) -> Option<String> {
    let by_option = settings.daemon.values(OPTION).any(|value| value.starts_with("nofile="));
    let in_file = settings.daemon.config.get(KEY).is_some_and(|limits| limits.get("nofile").is_some());
    if by_option {
        Some(format!("--{OPTION} nofile"))
    } else {
        in_file.then(|| format!("\"{KEY}\" in {}", settings.daemon.config_file.display()))
    }
}

/// The limits of containers, builds and services.
pub(super) fn decide(settings: &Settings, limits: &Limits) -> Vec<Decision> {
    let mut all = vec![nofile(settings, limits)];
    all.extend(limits.pids.map(pids));
    all
}

fn nofile(settings: &Settings, limits: &Limits) -> Decision {
    let found = format!("{} open files at first, {} for who asks", limits.soft, limits.hard);
    if let Some(place) = told(settings) {
        return Decision::good("nofile", found, format!("what {place} says"));
    }
    let wanted = settings.nofile.unwrap_or(DEFAULT);
    let hard = wanted.hard.min(limits.hard);
    let soft = wanted.soft.min(hard);
    let chosen = format!("{soft} at first and {hard} for who asks, in each container and build step");
    let decision = match settings.nofile {
        Some(_) => Decision::good("nofile", found, chosen).because(format!("{DIND_NOFILE} says so")),
        None => Decision::good("nofile", found, chosen).because(
            "some programs crawl when they may have very many, and others need more than a thousand",
        ),
    };
    let decision = if settings.nofile.is_some() && wanted.hard > limits.hard {
        decision.but_better(format!("give the host as many: --ulimit nofile={0}:{0}", wanted.hard))
    } else {
        decision
    };
    if settings.daemon.values(OPTION).next().is_some() {
        // Options add up, but dockerd refuses an option and the key for it at once.
        decision.with_arguments([format!("--{OPTION}=nofile={soft}:{hard}")])
    } else {
        decision.with_config(KEY, json!({ "nofile": { "Name": "nofile", "Soft": soft, "Hard": hard } }))
    }
}

fn pids(max: u64) -> Decision {
    let decision = Decision::good(
        "pids",
        format!("at most {max} processes and threads"),
        "shared by all that runs inside",
    );
    if max >= FEW_PIDS {
        return decision;
    }
    decision
        .because("this container has a limit: when it is reached, nothing inside can start a process")
        .but_better(format!(
            "--pids-limit {FEW_PIDS} or more, or none: each container inside needs a dozen for itself"
        ))
}

/// Gives this process, and so every service and build step, the soft limit of containers. Services have the room that they
/// need: the hard limit is never less than the field's.
pub(crate) fn apply(settings: &Settings) {
    let wanted = settings.nofile.unwrap_or(DEFAULT);
    let Ok((_, found)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let hard = wanted.hard.max(DEFAULT.hard).min(found);
    // Lowering is always allowed; a host whose limits stay as they are works, too.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted.soft.min(hard), hard);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(environment: &[(&str, &str)], file: &'static str) -> Result<Settings, Failure> {
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Settings::load(environment, &[], |path| {
            Ok((path == std::path::Path::new(dind_contract::paths::DAEMON_JSON)).then(|| file.to_owned()))
        })
    }

    fn limits(hard: u64) -> Limits {
        Limits { soft: hard, hard, pids: None }
    }

    #[test]
    fn what_is_no_pair_of_limits_is_refused() {
        for text in ["", "x", "5:4", "0", "-1:5", "1:2:3", "1024:infinity", "1024:"] {
            let failure = Nofile::parse(text).unwrap_err();
            assert_eq!(failure.code, 64, "{text}");
            assert!(failure.cause.contains(&format!("DIND_NOFILE={text} is not")), "{}", failure.cause);
        }
        assert_eq!(Nofile::parse("5").unwrap(), Nofile { soft: 5, hard: 5 });
        assert_eq!(Nofile::parse("5:6").unwrap(), Nofile { soft: 5, hard: 6 });
    }

    #[test]
    fn containers_get_the_fields_limits_within_the_hosts() {
        let nofile = |environment: &[(&str, &str)], file, hard| {
            nofile(&settings(environment, file).unwrap(), &limits(hard))
        };
        let config = |decision: &Decision| decision.config.get(KEY).map(|value| value["nofile"].clone());
        let expected = |soft: u64, hard: u64| Some(json!({"Name": "nofile", "Soft": soft, "Hard": hard}));
        for (hard, expected) in [
            (1_000_000_000, expected(1024, 524_288)),
            (20_000, expected(1024, 20_000)),
            (512, expected(512, 512)),
        ] {
            let decision = nofile(&[], "", hard);
            assert_eq!(config(&decision), expected, "{hard}");
            assert!(decision.finding.better.is_none(), "{hard}");
        }
        let more = nofile(&[("DIND_NOFILE", "2048:50000")], "", 20_000);
        assert_eq!(config(&more), expected(2048, 20_000));
        assert!(more.finding.better.is_some());
        // What somebody said themselves stands, in either place.
        let by_option = nofile(&[("DOCKER_OPTS", "--default-ulimit nofile=5:6")], "", 20_000);
        let in_file = nofile(&[], r#"{"default-ulimits": {"nofile": {"Soft": 5, "Hard": 6}}}"#, 20_000);
        for decision in [by_option, in_file] {
            assert!(decision.config.is_empty() && decision.arguments.is_empty());
        }
        let another = nofile(&[("DOCKER_OPTS", "--default-ulimit memlock=-1")], "", 20_000);
        assert_eq!(another.arguments, ["--default-ulimit=nofile=1024:20000"]);
        assert!(another.config.is_empty());
    }

    #[test]
    fn limits_in_two_places_are_refused() {
        for (options, file) in [
            ("--default-ulimit=nofile=5:6", ""),
            ("", r#"{"default-ulimits": {"nofile": {"Soft": 5, "Hard": 6}}}"#),
        ] {
            let failure = settings(&[("DIND_NOFILE", "5:6"), ("DOCKER_OPTS", options)], file).unwrap_err();
            assert!(failure.cause.contains("both limit open files"), "{}", failure.cause);
        }
    }

    #[test]
    fn few_processes_are_worth_a_word() {
        assert!(pids(100).finding.better.is_some());
        assert!(pids(4096).finding.better.is_none());
    }
}
