//! What `dind-init` was called for.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use dind_contract::{paths, variables};

use crate::appliance::{Duty, Project};
use crate::client;
use crate::failure::Failure;
use crate::ground::Wanted;
use crate::process;

/// What `docker:dind` calls its PID 1. CI systems are told to run it by this name; the image has it as a link to ours.
pub(crate) const ENTRYPOINT: &str = "dockerd-entrypoint.sh";

/// The job of one call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Job {
    /// Run a host; the rest are options for dockerd.
    Host(Vec<String>),
    /// Run a host for as long as a command runs in the foreground.
    Command(Vec<OsString>),
    /// Run a command as a client of an engine elsewhere.
    Client(Vec<OsString>),
    /// Run a command, without a host.
    Exec(Vec<OsString>),
    /// Print how the host is.
    Status { json: bool },
    /// Wait until it is ready.
    Wait { timeout: Duration, json: bool },
    /// Say whether it is healthy.
    Health,
    /// Say what is under it, what was chosen, and why.
    Doctor { json: bool },
    /// Look at the data root, for the host that asks.
    Look { data_root: PathBuf },
    /// Probe the ground, for the host that asks.
    Probe { data_root: PathBuf, wanted: Wanted },
    /// Mount the data root's disk.
    Disk { data_root: PathBuf, bytes: u64 },
    /// Put a container on trial, for the probe that asks.
    Trial,
    /// Relay name queries to these servers.
    Resolver { servers: Vec<IpAddr> },
    /// Check every layer and image.
    Verify { data_root: PathBuf, json: bool },
    /// Set aside what an unclean stop has damaged.
    Repair { data_root: PathBuf, engine_root: PathBuf },
    /// Bring the data to the disk while the engine runs.
    Sync { data_root: PathBuf, engine_root: PathBuf },
    /// Bring the data to the disk at the end, and perhaps mark it clean.
    Flush { data_root: PathBuf, engine_root: PathBuf, clean: bool },
    /// Add, remove or list keys of users.
    Adduserkey { remove: bool, list: bool, words: Vec<String> },
    /// Make sshd's host keys.
    HostKeys,
    /// Have Compose read the application's file.
    CheckApplication(Project),
    /// Look after the application.
    Application(Duty),
    /// Mount the appliance's store, and give the engine its images.
    Store { data_root: PathBuf, engine_root: PathBuf, linked: bool },
    /// Have the engine load what it lacks of the store.
    LoadStore { data_root: PathBuf },
    /// Make a store of images.
    MakeStore { request: PathBuf, target: PathBuf },
    /// Copy a data root that no host uses into an empty folder.
    CopyDataRoot { source: PathBuf, target: PathBuf },
    /// Print help or the version.
    Print(String),
}

/// PID 1 of a Docker host
///
/// Without arguments it runs a host: containerd and dockerd, until it is told to stop. Arguments that begin with a dash, or that
/// follow the word `dockerd`, are more options for dockerd. Any other word that is none of the commands below is a command to run
/// on the host, docker's commands with or without the word `docker`: once the Docker API answers it runs in the foreground, on
/// the terminal if there is one, and when it has ended the host ends, with its exit code. Until then the host's log is in
/// /run/dind/log. In a container that was given nothing of what a host needs, the command runs alone, and standard error says so.
#[derive(Debug, Parser)]
#[command(name = "dind-init", version, disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    ask: Ask,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// Print how the host is
    Status {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Wait until the Docker API answers; ends with 124 when that takes too long
    Wait {
        /// The longest to wait, in seconds
        #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
        timeout: Duration,
        /// Print the status after each change, a line of JSON each, until it is ready
        #[arg(long)]
        json: bool,
    },
    /// Say whether the host is ready and its engine answers; ends with 70 when not
    Health,
    /// Say what this machine offers a host, what the host chooses, and why; ends with 69 when no host can run here
    Doctor {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a user log in over ssh with a key
    ///
    /// The user is made if need be, may run docker and sudo without a password, and is root on the host by that. Only hosts with
    /// sshd have such users: dind-debian-ssh. It can be called as `adduserkey`, too, at any time, also while the host starts.
    ///
    /// KEY is a public key as ssh-keygen writes it: [OPTIONS] TYPE BASE64 [COMMENT], in quotes. `-` reads keys from standard input,
    /// one a line, without comments and blank lines. Types are ssh-ed25519, ecdsa-sha2-nistp256, -384 and -521, ssh-rsa of 2048 bits
    /// and more, and those of security keys (sk-ssh-ed25519@openssh.com, sk-ecdsa-sha2-nistp256@openssh.com). Options are those of
    /// sshd(8). A key that is there already is not added twice: its options and comment become the new ones. To remove a key its
    /// SHA256 fingerprint will do; sessions that it began go on.
    ///
    /// Bad names and keys end it with 64, and then nothing is changed, whichever of several keys was bad.
    #[command(override_usage = "dind-init adduserkey USER KEY\n       dind-init adduserkey USER -\n       \
                                dind-init adduserkey --remove USER KEY\n       dind-init adduserkey --list [USER]")]
    Adduserkey {
        /// Take the key away again
        #[arg(long, conflicts_with = "list")]
        remove: bool,
        /// Print the keys of USER, or of all users, each with its fingerprint
        #[arg(long)]
        list: bool,
        /// A name such as derek, and a public key
        #[arg(value_name = "USER KEY", allow_hyphen_values = true, trailing_var_arg = true, num_args = 0..)]
        words: Vec<String>,
    },
    /// Check that every image is whole: each layer against the list of its files; ends with 70 when one is damaged
    Verify {
        /// The data root; it may be one that no host uses
        #[arg(default_value = paths::DATA_ROOT, value_name = "PATH")]
        data_root: PathBuf,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a command as a plain init does: reap orphans, forward signals, hand over the terminal, end as it ends
    #[command(override_usage = "dind-init exec [--] COMMAND [ARGUMENT]…")]
    Exec,
    /// What a host has other processes of this program do: no command of a user has to fear for its name
    #[command(hide = true)]
    Helper {
        #[command(subcommand)]
        job: Helper,
    },
}

#[derive(Debug, Subcommand)]
enum Helper {
    /// Look whether the data root answers
    Look { data_root: PathBuf },
    /// Probe the ground
    Probe {
        data_root: PathBuf,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Mount the data root's disk
    Disk { data_root: PathBuf, bytes: u64 },
    /// Make sshd's host keys
    HostKeys,
    /// Have Compose read the application's file
    CheckApplication(Project),
    /// Look after the application
    Application(Duty),
    /// Put a container on trial
    Trial,
    /// Relay name queries of nested containers
    Resolver {
        #[arg(required = true)]
        servers: Vec<IpAddr>,
    },
    /// Set aside what an unclean stop has damaged
    Repair { data_root: PathBuf, engine_root: PathBuf },
    /// Sync the data root while the engine runs
    Sync { data_root: PathBuf, engine_root: PathBuf },
    /// Sync the data root at the end
    Flush {
        data_root: PathBuf,
        engine_root: PathBuf,
        #[arg(long)]
        clean: bool,
    },
    /// Mount the appliance's store, and give the engine its images
    Store {
        data_root: PathBuf,
        engine_root: PathBuf,
        #[arg(long)]
        linked: bool,
    },
    /// Have the engine load what it lacks of the appliance's store
    LoadStore { data_root: PathBuf },
    /// Make a store of images that the engine has: the work of `dind bake`
    MakeStore { request: PathBuf, target: PathBuf },
    /// Copy a data root that no host uses into an empty folder: the whole work of a container, before a host starts on the copy
    CopyDataRoot { source: PathBuf, target: PathBuf },
}

/// The words of a command line, whose first is the name that the program was called by. Called by one of its links it does what that
/// says, as if it was the first argument.
pub(crate) fn words(mut line: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let name = line.next().map(PathBuf::from).unwrap_or_default();
    let links = ["adduserkey", ENTRYPOINT, client::ENTRYPOINT];
    let link = links.into_iter().find(|link| name.file_name().is_some_and(|name| name == *link));
    link.map(OsString::from).into_iter().chain(line)
}

/// Reads the arguments (without the program's name).
///
/// # Errors
/// They are misspelt, or not UTF-8 where they are for us.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Job, Failure> {
    let words: Vec<OsString> = arguments.collect();
    let first = words.first().map(|word| word.to_string_lossy().into_owned());
    match first.as_deref() {
        Some("exec") => exec(words.get(1..).unwrap_or_default()),
        Some("--help" | "-h" | "help") => Ok(Job::Print(help())),
        Some("--version" | "-v" | "-V") => {
            // `./check` makes images for its tests that nobody should measure.
            let how = if cfg!(debug_assertions) { " (not optimized)" } else { "" };
            Ok(Job::Print(format!("dind-init {}{how}\n", env!("CARGO_PKG_VERSION"))))
        }
        Some(client::ENTRYPOINT) => as_client(words.get(1..).unwrap_or_default()),
        // `--` says that a command follows, whatever it is called.
        Some("--") if is_command(words.get(1)) => {
            Ok(Job::Command(words.get(1..).unwrap_or_default().to_vec()))
        }
        // As in `docker:dind`, whose entry point runs any other word as a command.
        Some(ENTRYPOINT) if is_command(words.get(1)) => {
            Ok(Job::Command(client::complete(words.get(1..).unwrap_or_default())))
        }
        None | Some("dockerd" | ENTRYPOINT) => Ok(Job::Host(texts(words)?)),
        Some(option) if option.starts_with('-') => Ok(Job::Host(texts(words)?)),
        Some("status" | "wait" | "health" | "doctor" | "verify" | "adduserkey" | process::HELPER) => {
            subcommand(&texts(words)?)
        }
        Some(_) => Ok(Job::Command(client::complete(&words))),
    }
}

/// A client's command; `dockerd` is none, here as in `docker:dind`.
fn as_client(words: &[OsString]) -> Result<Job, Failure> {
    match words.first() {
        None => Err(Failure::usage(
            "docker-entrypoint.sh lacks the command to run",
            "give it one: docker-entrypoint.sh docker info, or docker-entrypoint.sh sh",
        )),
        Some(first) if first == "dockerd" => Ok(Job::Host(texts(words.to_vec())?)),
        Some(_) => Ok(Job::Client(client::complete(words))),
    }
}

/// Whether this begins a command: it is there, no option, and not the engine itself.
fn is_command(word: Option<&OsString>) -> bool {
    word.is_some_and(|word| word != "dockerd" && !word.as_encoded_bytes().starts_with(b"-"))
}

/// The options of a call by the name of `docker:dind`'s entry point.
pub(crate) fn as_entrypoint(options: &[String]) -> Option<&[String]> {
    options.split_first().filter(|(first, _)| *first == ENTRYPOINT).map(|(_, rest)| rest)
}

fn texts(words: Vec<OsString>) -> Result<Vec<String>, Failure> {
    words
        .into_iter()
        .map(|word| {
            word.into_string().map_err(|raw| {
                Failure::usage(format!("the argument {raw:?} is not UTF-8 text"), "write it in plain text")
            })
        })
        .collect()
}

/// `exec`'s own arguments end where the command begins.
fn exec(words: &[OsString]) -> Result<Job, Failure> {
    let usage = "dind-init exec [--] COMMAND [ARGUMENT]… runs a command; dind-init exec --help says how";
    match words.first().map(|word| word.to_string_lossy().into_owned()).as_deref() {
        Some("--help" | "-h") => subcommand(&["exec".to_owned(), "--help".to_owned()]),
        Some("--") if words.len() > 1 => Ok(Job::Exec(words.get(1..).unwrap_or_default().to_vec())),
        None | Some("--") => Err(Failure::usage("exec lacks the command to run", usage)),
        Some(option) if option.starts_with('-') => {
            Err(Failure::usage(format!("exec has no option {option}"), usage))
        }
        Some(_) => Ok(Job::Exec(words.to_vec())),
    }
}

fn subcommand(words: &[String]) -> Result<Job, Failure> {
    let line = std::iter::once("dind-init").chain(words.iter().map(String::as_str));
    match Line::try_parse_from(line) {
        Ok(Line { ask }) => match ask {
            Ask::Status { json } => Ok(Job::Status { json }),
            Ask::Wait { timeout, json } => Ok(Job::Wait { timeout, json }),
            Ask::Health => Ok(Job::Health),
            Ask::Doctor { json } => Ok(Job::Doctor { json }),
            Ask::Verify { data_root, json } => Ok(Job::Verify { data_root, json }),
            Ask::Adduserkey { remove, list, words } => Ok(Job::Adduserkey { remove, list, words }),
            Ask::Exec => exec(&[]),
            Ask::Helper { job } => Ok(match job {
                Helper::Disk { data_root, bytes } => Job::Disk { data_root, bytes },
                Helper::Look { data_root } => Job::Look { data_root },
                Helper::HostKeys => Job::HostKeys,
                Helper::CheckApplication(project) => Job::CheckApplication(project),
                Helper::Application(duty) => Job::Application(duty),
                Helper::CopyDataRoot { source, target } => Job::CopyDataRoot { source, target },
                Helper::Store { data_root, engine_root, linked } => {
                    Job::Store { data_root, engine_root, linked }
                }
                Helper::LoadStore { data_root } => Job::LoadStore { data_root },
                Helper::MakeStore { request, target } => Job::MakeStore { request, target },
                Helper::Trial => Job::Trial,
                Helper::Probe { data_root, wanted } => Job::Probe { data_root, wanted },
                Helper::Resolver { servers } => Job::Resolver { servers },
                Helper::Repair { data_root, engine_root } => Job::Repair { data_root, engine_root },
                Helper::Sync { data_root, engine_root } => Job::Sync { data_root, engine_root },
                Helper::Flush { data_root, engine_root, clean } => {
                    Job::Flush { data_root, engine_root, clean }
                }
            }),
        },
        Err(e) if !e.use_stderr() => Ok(Job::Print(e.to_string())),
        Err(e) => {
            let text = e.to_string();
            let cause = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let command = words.first().map(String::as_str).unwrap_or_default();
            Err(Failure::usage(cause, format!("dind-init {command} --help shows how it is called")))
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "write a number of seconds, such as 60 or 0.5".to_owned())
}

fn help() -> String {
    let mut text = Line::command().render_long_help().to_string();
    text.push_str("\nEnvironment of a host:\n");
    for variable in variables::ALL {
        text.push_str(&format!(
            "  {:<19} {} [default: {}]\n",
            variable.name,
            variable.meaning,
            match variable.default {
                "" => "none",
                default => default,
            }
        ));
    }
    text.push_str("\ndockerd's own options: docker run --rm --entrypoint dockerd IMAGE --help\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(line: &str) -> Result<Job, Failure> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn jobs() {
        let host = |words: &[&str]| Job::Host(words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(job(""), Ok(host(&[])));
        assert_eq!(job("--debug --mtu 1400"), Ok(host(&["--debug", "--mtu", "1400"])));
        assert_eq!(job("dockerd --debug"), Ok(host(&["dockerd", "--debug"])));
        assert_eq!(job("dockerd-entrypoint.sh"), Ok(host(&["dockerd-entrypoint.sh"])));
        assert_eq!(job("status"), Ok(Job::Status { json: false }));
        assert_eq!(job("status --json"), Ok(Job::Status { json: true }));
        assert_eq!(job("wait"), Ok(Job::Wait { timeout: Duration::from_secs(60), json: false }));
        assert_eq!(
            job("wait --json --timeout 0.5"),
            Ok(Job::Wait { timeout: Duration::from_millis(500), json: true })
        );
        assert_eq!(job("health"), Ok(Job::Health));
        let copy = Job::CopyDataRoot { source: "/a".into(), target: "/b".into() };
        assert_eq!(job("helper copy-data-root /a /b"), Ok(copy));
        assert!(matches!(job("--help"), Ok(Job::Print(text)) if text.contains("DIND_STOP_TIMEOUT")));
        assert!(matches!(job("wait --help"), Ok(Job::Print(text)) if text.contains("--timeout")));
    }

    #[test]
    fn what_is_ours_ends_where_a_command_begins() {
        let words = |line: &str| line.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        for (line, command) in
            [("bash -l", "bash -l"), ("sync", "sync"), ("./dockerd --help", "./dockerd --help")]
        {
            assert_eq!(job(line), Ok(Job::Command(words(command))), "{line}");
        }
        for (line, command) in [
            ("exec true", "true"),
            ("exec -- true --help", "true --help"),
            ("exec -- -x", "-x"),
            ("exec a -- b", "a -- b"),
        ] {
            assert_eq!(job(line), Ok(Job::Exec(words(command))), "{line}");
        }
        assert!(matches!(job("exec --help"), Ok(Job::Print(text)) if text.contains("exec [--] COMMAND")));
        for (line, command) in [
            ("version", "docker version"),
            ("dockerd-entrypoint.sh wait a", "docker wait a"),
            ("-- ps -e", "ps -e"),
        ] {
            assert_eq!(job(line), Ok(Job::Command(words(command))), "{line}");
        }
        let raw: OsString = std::os::unix::ffi::OsStringExt::from_vec(vec![0xff]);
        assert_eq!(parse([raw.clone()].into_iter()), Ok(Job::Command(vec![raw.clone()])));
        assert_eq!(parse(["--label".into(), raw].into_iter()).unwrap_err().code, 64);
    }

    #[test]
    fn by_a_name_of_docker_dinds_all_words_are_its() {
        let called = |line: &str| parse(words(line.split_whitespace().map(OsString::from)));
        let list = |line: &str| line.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        for (line, command) in [
            ("/usr/local/bin/docker-entrypoint.sh info", "docker info"),
            ("docker-entrypoint.sh --version", "docker --version"),
            ("docker-entrypoint.sh exec a sh", "docker exec a sh"),
            ("docker-entrypoint.sh sh -c exit", "sh -c exit"),
            ("dind-init docker-entrypoint.sh status", "status"),
        ] {
            assert_eq!(called(line), Ok(Job::Client(list(command))), "{line}");
        }
        assert_eq!(called("dockerd-entrypoint.sh status"), Ok(Job::Command(list("status"))));
        for (line, host) in [
            ("dockerd-entrypoint.sh", "dockerd-entrypoint.sh"),
            ("/a/dockerd-entrypoint.sh dockerd -D", "dockerd-entrypoint.sh dockerd -D"),
            ("docker-entrypoint.sh dockerd -D", "dockerd -D"),
        ] {
            let options = host.split_whitespace().map(str::to_owned).collect();
            assert_eq!(called(line), Ok(Job::Host(options)), "{line}");
        }
        assert_eq!(called("docker-entrypoint.sh").unwrap_err().code, 64);
    }

    #[test]
    fn bad_calls_say_what_is_bad() {
        for (line, named) in [
            ("status --jsn", "--jsn"),
            ("wait --timeout never", "never"),
            ("wait --timeout -1", "-1"),
            ("wait --timeout inf", "inf"),
            ("health now", "now"),
            ("exec", "lacks the command"),
            ("exec --", "lacks the command"),
            ("exec --loud true", "--loud"),
            ("helper nothing", "nothing"),
            ("helper copy-data-root /a", "required arguments were not provided"),
        ] {
            let failure = job(line).unwrap_err();
            assert_eq!(failure.code, 64, "{line}");
            assert!(failure.cause.contains(named), "{line}: {}", failure.cause);
        }
    }
}
