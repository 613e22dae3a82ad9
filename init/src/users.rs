//! `adduserkey`: users who may log in over ssh, and their keys. An ordinary program, which needs no host that runs: it changes
//! /etc/passwd by useradd, and a file of keys for each user, as a whole or not at all, one call at a time.
#![allow(clippy::disallowed_methods, reason = "not the PID 1 process: it may sleep")]

mod accounts;
mod file;
mod key;
mod options;
mod shape;

use std::fs::{self, File};
use std::io::{self, Read};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dind_contract::paths;
use nix::fcntl::{Flock, FlockArg};

use crate::ask;
use crate::failure::Failure;
use crate::sshd;
use accounts::Name;
use file::KeyFile;
#[cfg(fuzzing)]
use file::Lines;
use key::Key;

/// What is locked while users and keys are changed: it is there in every image, and nothing takes its place while a host starts.
const LOCKED: &str = "/etc/ssh";
/// The longest to wait for other calls.
const TURN: Duration = Duration::from_secs(60);
/// Time between two tries.
const AGAIN: Duration = Duration::from_millis(20);
/// The most that is read from standard input.
const LONGEST: u64 = 1024 * 1024;

/// What one call is about.
#[derive(Debug, Clone, PartialEq)]
enum Request {
    Add(Name, Keys),
    Remove(Name, Keys),
    List(Option<Name>),
}

/// Where the keys are.
#[derive(Debug, Clone, PartialEq)]
enum Keys {
    Given(String),
    Input,
}

impl Request {
    fn parse(remove: bool, list: bool, words: &[String]) -> Result<Self, Failure> {
        let usage = |cause: &str, help: &str| Err(Failure::usage(cause, help));
        let keys = |word: &String| if word == "-" { Keys::Input } else { Keys::Given(word.clone()) };
        match words {
            [] if list => Ok(Self::List(None)),
            [name] if list => Ok(Self::List(Some(Name::parse(name)?))),
            _ if list => usage("--list takes one user at most", "adduserkey --list USER"),
            [] => usage("the user and the key are missing", "adduserkey USER \"$(cat id_ed25519.pub)\""),
            // A bad name is said also where more is bad.
            [name] => Name::parse(name)
                .and_then(|_| usage("the key is missing", "adduserkey USER \"$(cat id_ed25519.pub)\"")),
            [name, key] if remove => Ok(Self::Remove(Name::parse(name)?, keys(key))),
            [name, key] => Ok(Self::Add(Name::parse(name)?, keys(key))),
            [first, second, ..]
                if [first, second].iter().any(|word| *word == "--remove" || *word == "--list") =>
            {
                usage("--remove and --list go before the user", "adduserkey --remove USER KEY")
            }
            [name, more @ ..] => {
                Name::parse(name)?;
                if more.iter().any(|word| key::is_private(word)) || more.join(" ").contains("PRIVATE KEY") {
                    // Said rather than the missing quotes.
                    Key::parse("PRIVATE KEY")
                        .map_err(|refusal| Failure::usage(refusal.cause, refusal.help))?;
                }
                usage(
                    "the key is in several words",
                    "put it in quotes: adduserkey USER \"$(cat id_ed25519.pub)\"",
                )
            }
        }
    }
}

impl Keys {
    /// The lines, each with where it is.
    fn lines(self) -> Result<Vec<(String, String)>, Failure> {
        let text = match self {
            Self::Given(line) => return Ok(vec![(String::new(), line)]),
            Self::Input => {
                let mut bytes = Vec::new();
                let read = io::stdin().lock().take(LONGEST + 1).read_to_end(&mut bytes);
                read.map_err(|e| {
                    Failure::usage(
                        format!("cannot read standard input: {e}"),
                        "docker exec needs -i to pass it on",
                    )
                })?;
                if bytes.len() as u64 > LONGEST {
                    return Err(Failure::usage(
                        format!("standard input has more than {LONGEST} characters, and nobody's keys have"),
                        "give public keys, one a line",
                    ));
                }
                String::from_utf8(bytes).map_err(|_| {
                    Failure::usage("what came on standard input is not text", "give public keys, one a line")
                })?
            }
        };
        if key::is_private(&text) {
            // Else each of its lines would be called bad in turn.
            return Ok(vec![(String::new(), "PRIVATE KEY".to_owned())]);
        }
        let lines = text.lines().enumerate().map(|(at, line)| (format!("line {}: ", at + 1), line.trim()));
        let lines: Vec<_> = lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(at, line)| (at, line.to_owned()))
            .collect();
        if lines.is_empty() {
            return Err(Failure::usage(
                "there is no key on standard input",
                "docker exec -i HOST adduserkey USER - <id_ed25519.pub (without -i it is empty)",
            ));
        }
        Ok(lines)
    }

    /// All of them, if each is good.
    fn read(self) -> Result<Vec<Key>, Failure> {
        let refused =
            |at: &str, refusal: key::Refusal| Failure::usage(format!("{at}{}", refusal.cause), refusal.help);
        self.lines()?.iter().map(|(at, line)| Key::parse(line).map_err(|it| refused(at, it))).collect()
    }
}

/// What is to be removed: keys, or fingerprints.
#[derive(Debug, Clone)]
enum Meant {
    Key(Box<Key>),
    Fingerprint(String),
}

impl Meant {
    fn read(keys: Keys) -> Result<Vec<Self>, Failure> {
        let one = |(at, line): (String, String)| match line.trim() {
            print if print.starts_with("SHA256:") && !print.contains(char::is_whitespace) => {
                Ok(Self::Fingerprint(print.to_owned()))
            }
            line => Key::parse(line)
                .map(|key| Self::Key(Box::new(key)))
                .map_err(|refusal| Failure::usage(format!("{at}{}", refusal.cause), refusal.help)),
        };
        keys.lines()?.into_iter().map(one).collect()
    }

    fn is(&self, key: &Key) -> bool {
        match self {
            Self::Key(meant) => meant.is_same(key),
            Self::Fingerprint(print) => *print == key.fingerprint(),
        }
    }
}

/// Does what was asked for.
///
/// # Errors
/// Bad input, and nothing was changed; or the machine refused something.
pub(crate) fn run(remove: bool, list: bool, words: &[String]) -> Result<ExitCode, Failure> {
    let request = Request::parse(remove, list, words)?;
    // Looked at before anything is locked: bad input needs no turn.
    let said = match request {
        Request::Add(name, keys) => {
            let keys = keys.read()?;
            check_host()?;
            let _turn = take_turn()?;
            add(&name, &keys)?
        }
        Request::Remove(name, keys) => {
            let meant = Meant::read(keys)?;
            check_host()?;
            let _turn = take_turn()?;
            take_away(&name, &meant)?
        }
        Request::List(name) => {
            check_host()?;
            print_all(name.as_ref())?
        }
    };
    ask::print(&said);
    Ok(ExitCode::SUCCESS)
}

fn check_host() -> Result<(), Failure> {
    if !sshd::is_wanted() {
        return Err(Failure::unavailable(
            format!("this image has no sshd to log in to: there is no {}", paths::SSHD_CONFIG),
            "start the host from dind-debian-ssh, or from an image made by one of the Dockerfiles in with-ssh/",
        ));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::usage("only root changes users and their keys", "sudo adduserkey USER KEY"));
    }
    Ok(())
}

/// Waits until no other call changes anything.
fn take_turn() -> Result<Flock<File>, Failure> {
    let cannot = |why: String| {
        Failure::unavailable(
            format!("cannot lock {LOCKED}: {why}"),
            "see whether another adduserkey hangs (ps), and end it",
        )
    };
    let deadline = Instant::now() + TURN;
    let mut folder = File::open(LOCKED).map_err(|e| cannot(e.to_string()))?;
    loop {
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(turn) => return Ok(turn),
            Err((back, nix::errno::Errno::EWOULDBLOCK | nix::errno::Errno::EINTR))
                if Instant::now() < deadline =>
            {
                folder = back;
                std::thread::sleep(AGAIN);
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(cannot(format!("another call has had it for {} s", TURN.as_secs())));
            }
            Err((_, e)) => return Err(cannot(e.to_string())),
        }
    }
}

fn add(name: &Name, keys: &[Key]) -> Result<String, Failure> {
    accounts::undo_unfinished(name)?;
    // Everything that can be refused comes first.
    let account = accounts::find(name)?;
    let file = KeyFile::of(name);
    // Keys of a user who was deleted let nobody in again.
    let mut lines = if account.is_missing() { file::Lines::default() } else { file.read()? };
    let mut said = String::new();
    for key in keys {
        said.push_str(&format!("{} for {name}: {}\n", lines.put(key), key.fingerprint()));
    }
    account.make_ready()?;
    file.write(&lines)?;
    Ok(said)
}

fn take_away(name: &Name, meant: &[Meant]) -> Result<String, Failure> {
    let file = KeyFile::of(name);
    let mut lines = file.read()?;
    let mut said = String::new();
    for meant in meant {
        let Some(key) = lines.take(meant) else {
            return Err(Failure::usage(
                format!("{name} has no such key"),
                format!("adduserkey --list {name} prints those that there are"),
            ));
        };
        said.push_str(&format!("key removed for {name}: {}\n", key.fingerprint()));
    }
    file.write(&lines)?;
    Ok(said)
}

fn print_all(name: Option<&Name>) -> Result<String, Failure> {
    let names = match name {
        Some(name) => vec![name.clone()],
        None => {
            let folder = fs::read_dir(paths::AUTHORIZED_KEYS).into_iter().flatten().flatten();
            let mut names: Vec<Name> =
                folder.filter_map(|entry| Name::parse(entry.file_name().to_str()?).ok()).collect();
            names.sort();
            names
        }
    };
    let mut text = String::new();
    for name in names {
        for key in KeyFile::of(&name).read()?.keys() {
            text.push_str(&format!("{name} {}\n", key.description()));
        }
    }
    Ok(text)
}

/// What the fuzz targets call: any text as a name, and as a line of keys.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    let _ = (Name::parse(text), Key::parse(text), accounts::Account::parse(text, text, text, "derek"));
    let mut lines = Lines(text.lines().map(str::to_owned).collect());
    let keys: Vec<Key> = lines.keys().collect();
    for key in &keys {
        lines.put(key);
        assert_eq!(Key::parse(&key.to_string()).as_ref(), Ok(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Result<Request, Failure> {
        let words: Vec<String> = shell_words::split(line).unwrap();
        let remove = words.first().is_some_and(|word| word == "--remove");
        let list = words.first().is_some_and(|word| word == "--list");
        Request::parse(remove, list, &words[usize::from(remove || list)..])
    }

    #[test]
    fn calls() {
        let derek = || Name::parse("derek").unwrap();
        assert_eq!(request("derek -"), Ok(Request::Add(derek(), Keys::Input)));
        assert_eq!(request("derek 'a b'"), Ok(Request::Add(derek(), Keys::Given("a b".into()))));
        assert_eq!(request("--remove derek a"), Ok(Request::Remove(derek(), Keys::Given("a".into()))));
        assert_eq!(request("--list"), Ok(Request::List(None)));
        assert_eq!(request("--list derek"), Ok(Request::List(Some(derek()))));
        for (line, named) in [
            ("", "missing"),
            ("derek", "key is missing"),
            ("''", "empty"),
            ("derek ssh-ed25519 AAAA me", "several words"),
            ("derek -----BEGIN OPENSSH PRIVATE KEY----- x", "private key"),
            ("derek --remove key", "before the user"),
            ("--list derek more", "--list"),
            ("-x key", "dash"),
        ] {
            let failure = request(line).unwrap_err();
            assert_eq!(failure.code, 64);
            assert!(failure.cause.contains(named) && !failure.help.is_empty(), "{line}: {failure}");
        }
    }
}
