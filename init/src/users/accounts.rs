//! Accounts: who may be a user of a host, and what useradd(8), usermod(8) and the files under /etc have to do with it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dind_contract::paths;

use crate::failure::Failure;
use crate::ground::{find_program, run_program};
use crate::settings::DEFAULT_PATH;

/// The group that may use dockerd's socket, and sudo.
const GROUP: &str = "docker";
/// Where users begin (login.defs(5)); what is below is the system's.
const FIRST_USER: u32 = 1000;
/// Nobody, whatever the distribution calls it.
const NOBODY: u32 = 65534;
/// The longest name that useradd(8) takes.
const LONGEST: usize = 32;
/// The longest that useradd may take: it copies a few files.
const PATIENCE: Duration = Duration::from_secs(60);

/// A name that a user may have: `[a-z_][a-z0-9_-]*`, at most 32 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(String);

impl Name {
    /// # Errors
    /// It is none.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let why = match text.chars().next() {
            None => "is empty".to_owned(),
            _ if text.len() > LONGEST => format!("is longer than {LONGEST} characters"),
            Some('-') => "begins with a dash".to_owned(),
            Some(first) if !first.is_ascii_lowercase() && first != '_' => {
                "does not begin with a lower-case letter or an underscore".to_owned()
            }
            _ => {
                let fits = |it: &char| it.is_ascii_lowercase() || it.is_ascii_digit() || "_-".contains(*it);
                match text.chars().find(|it| !fits(it)) {
                    Some(bad) => format!("has {bad:?} in it"),
                    None => return Ok(Self(text.to_owned())),
                }
            }
        };
        // Bounded, and without what would move the cursor of whoever reads it.
        let shown: String = text.chars().take(LONGEST).collect();
        Err(Failure::usage(
            format!("the user name {shown:?} {why}"),
            "choose one of lower-case letters, digits, - and _, such as derek",
        ))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Programs that hold the locks of the files that accounts are in; their names begin so.
const HOLDERS: [&str; 9] =
    ["user", "group", "passwd", "gpasswd", "chage", "chfn", "chsh", "newusers", "chpasswd"];
/// Those files.
const FILES: [&str; 6] = ["passwd", "shadow", "group", "gshadow", "subuid", "subgid"];

/// Removes locks whose holders were killed. useradd takes one for held as long as any process has the number in it, and in a container
/// numbers come back with each start. Only for whoever has the turn: nobody else of ours runs useradd then.
fn clear_stale_locks() {
    for lock in FILES.map(|file| format!("/etc/{file}.lock")) {
        let Ok(Some(text)) = crate::read_if_there(Path::new(&lock)) else { continue };
        let pid: String = text.chars().take_while(char::is_ascii_digit).collect();
        let holder = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let is_held = holder.starts_with("vi") || HOLDERS.iter().any(|it| holder.starts_with(it));
        if pid.is_empty() || !is_held {
            let _ = fs::remove_file(&lock);
        }
    }
}

/// The mark of an account that is being made. One that is found was left by a call that was cut off.
fn mark(name: &Name) -> PathBuf {
    let folder = Path::new(paths::SSHD_CONFIG).parent().unwrap_or(Path::new("/etc"));
    folder.join(format!("making-{name}"))
}

/// Takes away what a call that was cut off has made of an account: it may lack its home, its group or its password field. Nobody has
/// logged in to it, because keys are written last.
///
/// # Errors
/// The mark of it cannot be removed.
pub(super) fn undo_unfinished(name: &Name) -> Result<(), Failure> {
    let mark = mark(name);
    if !mark.exists() {
        return Ok(());
    }
    clear_stale_locks();
    // Of what is not there any more they say so, and the account is made anew in any case.
    for (program, options) in [("userdel", &["-f", "-r"][..]), ("groupdel", &[])] {
        if let Ok(file) = find_program(program, DEFAULT_PATH.as_ref()) {
            let _ = run_program(file, options.iter().copied().chain([name.as_str()]), "", PATIENCE);
        }
    }
    fs::remove_file(&mark).map_err(|e| {
        Failure::unavailable(
            format!("cannot remove {}: {e}", mark.display()),
            "look whether /etc is writable",
        )
    })
}

/// An account as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    name: String,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// There is none of this name; `own_group`: but a group.
    Missing {
        own_group: bool,
    },
    /// It can log in with a key; `in_group`: and use docker.
    Ready {
        in_group: bool,
    },
    /// The same, but sshd takes its password field for a lock.
    Locked {
        in_group: bool,
    },
    Root,
}

/// Looks for the account of this name.
///
/// # Errors
/// It is one of the system's, or the files cannot be read.
pub(super) fn find(name: &Name) -> Result<Account, Failure> {
    let read = |path: &str| {
        crate::read_if_there(Path::new(path)).map(Option::unwrap_or_default).map_err(|e| {
            Failure::unavailable(format!("cannot read {path}: {e}"), "look at the image's files in /etc")
        })
    };
    Account::parse(&read("/etc/passwd")?, &read("/etc/group")?, &read("/etc/shadow")?, name.as_str())
}

impl Account {
    /// Reads passwd(5), group(5) and shadow(5).
    pub(super) fn parse(passwd: &str, group: &str, shadow: &str, name: &str) -> Result<Self, Failure> {
        let account = |standing| Ok(Self { name: name.to_owned(), standing });
        let system = |what: &str| {
            Err(Failure::usage(
                format!("{name} is {what} of the system, and nobody's to log in with"),
                "choose another name, such as derek, or root",
            ))
        };
        let number = |line: &[&str]| line.get(2).and_then(|number| number.parse::<u32>().ok());
        let is_ours = |id: u32| id >= FIRST_USER && id != NOBODY;
        let Some(user) = entry(passwd, name) else {
            return match entry(group, name) {
                None => account(Standing::Missing { own_group: false }),
                Some(found) if number(&found).is_some_and(is_ours) => {
                    account(Standing::Missing { own_group: true })
                }
                Some(_) => system("a group"),
            };
        };
        match number(&user) {
            Some(0) => return account(Standing::Root),
            Some(id) if is_ours(id) => {}
            _ => return system("an account"),
        }
        let found = entry(group, GROUP).unwrap_or_default();
        let members = found.get(3).copied().unwrap_or_default();
        let in_group = members.split(',').any(|member| member == name)
            // Its first group, by number.
            || (found.get(2).is_some() && found.get(2) == user.get(3));
        // Without a line in shadow the field in passwd counts.
        let password =
            entry(shadow, name).unwrap_or_else(|| user.clone()).get(1).copied().unwrap_or_default();
        match password {
            "!" | "!!" | "!*" | "*LK*" => account(Standing::Locked { in_group }),
            // Somebody has locked it: there is a password behind the mark.
            locked if locked.starts_with('!') => Err(Failure::usage(
                format!("the account {name} is locked"),
                format!("unlock it first: usermod -U {name}"),
            )),
            _ => account(Standing::Ready { in_group }),
        }
    }

    /// Whether there is none yet.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.standing, Standing::Missing { .. })
    }

    /// Makes the account one that can log in with a key and use docker.
    ///
    /// # Errors
    /// useradd or usermod does not do it.
    pub(super) fn make_ready(&self) -> Result<(), Failure> {
        let call = |program: &str, options: &[&str]| {
            let file = find_program(program, DEFAULT_PATH.as_ref())?;
            clear_stale_locks();
            let words = options.iter().copied().chain([self.name.as_str()]);
            run_program(file, words, "", PATIENCE).map(drop).map_err(|why| {
                Failure::unavailable(
                    format!("the account {} cannot be made or changed: {why}", self.name),
                    "look at /etc (is it writable, and has its disk room?); then call adduserkey again",
                )
            })
        };
        // `*` is no password, and no lock either.
        match self.standing {
            Standing::Missing { own_group } => {
                let group: &[&str] = if own_group { &["-g", &self.name] } else { &[] };
                let mark = mark(&Name(self.name.clone()));
                fs::write(&mark, "").map_err(|e| {
                    Failure::unavailable(format!("cannot write {}: {e}", mark.display()), "look at /etc/dind")
                })?;
                call("useradd", &[&["-m", "-s", "/bin/bash", "-p", "*", "-G", GROUP], group].concat())?;
                // Where it stays, the next call makes the account anew.
                let _ = fs::remove_file(&mark);
                Ok(())
            }
            Standing::Ready { in_group: false } => call("usermod", &["-a", "-G", GROUP]),
            Standing::Locked { in_group: false } => call("usermod", &["-p", "*", "-a", "-G", GROUP]),
            Standing::Locked { in_group: true } => call("usermod", &["-p", "*"]),
            Standing::Ready { in_group: true } | Standing::Root => Ok(()),
        }
    }
}

/// The fields of the line that begins with this name.
fn entry<'text>(table: &'text str, name: &str) -> Option<Vec<&'text str>> {
    table.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.first() == Some(&name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        for name in ["derek", "_x", "a", "d-e_r3k", "root", &"a".repeat(32)] {
            assert_eq!(Name::parse(name).unwrap().to_string(), name);
        }
        for (name, named) in [
            ("", "empty"),
            (&*"a".repeat(33), "longer"),
            ("-rf", "dash"),
            ("3d", "begin"),
            ("Derek", "begin"),
            ("dErek", "'E'"),
            ("../x", "begin"),
            ("a/b", "'/'"),
            ("a\nb", r"'\n'"),
            ("a b", "' '"),
            ("a:b", "':'"),
            ("a.b", "'.'"),
            ("dérek", "'é'"),
            ("a$", "'$'"),
            ("a\u{1b}[2J", "'\\u{1b}'"),
        ] {
            let failure = Name::parse(name).unwrap_err();
            assert_eq!(failure.code, 64);
            assert!(failure.cause.contains(named), "{}", failure.cause);
            assert!(!failure.cause.contains(|it: char| it.is_control()), "{:?}", failure.cause);
        }
    }

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nsshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n\
                          nobody:x:65534:65534::/:/x\nderek:x:1000:1000::/home/derek:/bin/bash\n\
                          anna:x:1001:101::/home/anna:/bin/bash\nlocked:x:1002:1002::/:/bin/sh\nshut:x:1003:1003::/:/bin/sh\n\
                          odd:x:many:1::/:/bin/sh\n";
    const GROUPS: &str = "root:x:0:\ndocker:x:101:other,derek\nstaff:x:50:\nfriends:x:1500:\n";
    const SHADOW: &str =
        "root:*:1::::::\nderek:*:1::::::\nanna:$y$x:1::::::\nlocked:!:1::::::\nshut:!$y$x:1::::::\n";

    #[test]
    fn accounts() {
        let standing = |name: &str| Account::parse(PASSWD, GROUPS, SHADOW, name).map(|it| it.standing);
        assert_eq!(standing("root"), Ok(Standing::Root));
        assert_eq!(standing("derek"), Ok(Standing::Ready { in_group: true }));
        assert_eq!(standing("anna"), Ok(Standing::Ready { in_group: true }), "her first group");
        assert_eq!(standing("locked"), Ok(Standing::Locked { in_group: false }));
        assert_eq!(standing("new"), Ok(Standing::Missing { own_group: false }));
        assert_eq!(standing("friends"), Ok(Standing::Missing { own_group: true }));
        for (name, named) in [
            ("sshd", "an account of the system"),
            ("nobody", "an account of the system"),
            ("odd", "an account of the system"),
            ("docker", "a group of the system"),
            ("staff", "a group of the system"),
            ("shut", "locked"),
        ] {
            let failure = standing(name).unwrap_err();
            assert_eq!(failure.code, 64);
            assert!(failure.cause.contains(named), "{}", failure.cause);
        }
    }

    proptest! {
        /// What is taken can be a name of a file and an argument, and nothing else.
        #[test]
        fn a_name_is_what_it_is_said_to_be(text in "\\PC{0,40}|[a-z0-9_-]{0,40}") {
            let mut fits = text.len() <= 32 && text.starts_with(|it: char| it.is_ascii_lowercase() || it == '_');
            fits &= text.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_' || it == b'-');
            prop_assert_eq!(Name::parse(&text).is_ok(), fits);
        }

        #[test]
        fn any_tables_can_be_read(passwd in "([a-z:!*0-9]{0,20}\n){0,5}", group in "([a-z:0-9,]{0,20}\n){0,5}") {
            let _ = Account::parse(&passwd, &group, &passwd, "a");
        }
    }
}
