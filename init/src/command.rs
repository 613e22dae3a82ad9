//! A command that runs in the foreground: found, started on the terminal in a process group of its own, and signalled.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use dind_contract::{exit, paths};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{geteuid, getpid, tcsetpgrp};

use crate::client;
use crate::failure::Failure;
use crate::settings::DEFAULT_PATH;
use crate::terminal::{Terminal, has_job_control};

/// Variables that lead a client elsewhere than to `DOCKER_HOST`, or make it speak TLS on a socket that has none.
const OF_CLIENTS: [&str; 4] = ["DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"];

/// What runs a program that has no `#!` in its first line, as execvp(3) and shells have it.
const SHELL: &str = "/bin/sh";

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    /// Its words as they were typed; never empty.
    words: Vec<OsString>,
    /// Where the program is.
    program: PathBuf,
    environment: BTreeMap<OsString, OsString>,
    /// Whether it shall not outlive us.
    ends_with_us: bool,
}

impl Command {
    /// The command of these words, with this environment.
    ///
    /// # Errors
    /// There is no such program (127), or it cannot be executed (126).
    pub(crate) fn find(
        words: &[OsString],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Failure> {
        let environment: BTreeMap<OsString, OsString> = environment.into_iter().collect();
        let name = words.first().cloned().unwrap_or_default();
        let path = environment.get(OsStr::new("PATH")).map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
        let program = look_up(&name, path).map_err(|e| not_run(&name, &e))?;
        Ok(Self { words: words.to_vec(), program, environment, ends_with_us: false })
    }

    /// Its first word.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        self.words.first().map_or(Cow::Borrowed(""), |word| word.to_string_lossy())
    }

    /// The same command as a client of the engine in this host.
    pub(crate) fn on_host(mut self) -> Self {
        self.environment.retain(|name, _| !OF_CLIENTS.iter().any(|of_clients| name == of_clients));
        self.environment.insert("DOCKER_HOST".into(), format!("unix://{}", paths::DOCKER_SOCKET).into());
        self.ends_with_us = true;
        self
    }

    /// The same command as a client of an engine elsewhere.
    pub(crate) fn elsewhere(mut self) -> Self {
        self.environment = client::environment(self.environment, geteuid().as_raw());
        self
    }

    /// Starts it, on the terminal if there is one.
    ///
    /// # Errors
    /// It cannot be executed (126, 127), or no process can be made (125).
    pub(crate) fn start(&self) -> Result<Foreground, Failure> {
        // What is in the background stays there.
        let terminal = Terminal::ours();
        let given = terminal.as_ref().filter(|terminal| terminal.is_with_us());
        let name = self.words.first().cloned().unwrap_or_default();
        let spawn = |program: &OsStr, arg0: &OsStr, arguments: &[OsString]| {
            let terminal = given.map(Terminal::try_clone).transpose()?;
            let ends_with_us = self.ends_with_us;
            let unblocked = SigSet::empty();
            let mut command = std::process::Command::new(program);
            command.arg0(arg0).args(arguments).env_clear().envs(&self.environment).process_group(0);
            // SAFETY: between fork and exec only prctl(2), getpid(2), ioctl(2) and sigprocmask(2) are called, which are
            // async-signal-safe and allocate nothing.
            unsafe {
                command.pre_exec(move || {
                    if ends_with_us {
                        set_pdeathsig(Signal::SIGKILL)?;
                    }
                    // Before it can read from the terminal; we do the same, so that neither need wait for the other.
                    if let Some(terminal) = &terminal {
                        let _ = tcsetpgrp(terminal, getpid());
                    }
                    unblocked.thread_set_mask()?;
                    Ok(())
                });
            }
            command.spawn()
        };
        let arguments = self.words.get(1..).unwrap_or_default();
        let child = spawn(self.program.as_os_str(), &name, arguments).or_else(|e| {
            if Errno::from_raw(e.raw_os_error().unwrap_or_default()) != Errno::ENOEXEC {
                return Err(e);
            }
            let script: Vec<OsString> = [self.program.clone().into_os_string()]
                .into_iter()
                .chain(arguments.iter().cloned())
                .collect();
            spawn(OsStr::new(SHELL), OsStr::new(SHELL), &script)
        });
        let taken_back = |e| {
            // The child may have had it for a moment.
            if let Some(terminal) = given {
                terminal.take_back();
            }
            not_run(&name, &e)
        };
        let pid = child
            .and_then(|child| i32::try_from(child.id()).map_err(io::Error::other))
            .map_err(taken_back)?;
        let is_given = given.is_some();
        Ok(Foreground { pid, may_pause: !self.ends_with_us, terminal, is_given })
    }
}

/// A command that was started.
#[derive(Debug)]
pub(crate) struct Foreground {
    /// Its process, which leads a process group of this number.
    pub(crate) pid: i32,
    /// Whether we may be stopped with it: a host may not.
    may_pause: bool,
    terminal: Option<Terminal>,
    is_given: bool,
}

impl Foreground {
    /// Passes a signal on, by the kernel's number: it may be a real-time one.
    pub(crate) fn signal(&mut self, number: u32) {
        if number == libc::SIGCONT.unsigned_abs() {
            self.go_on();
        } else {
            kill(self.pid, number);
        }
    }

    /// Asks it to end, or kills it. A shell on a terminal ends when that hangs up, and not when it is asked to; and who was stopped
    /// hears nothing until it goes on.
    pub(crate) fn end(&mut self, kill_it: bool) {
        if kill_it {
            kill(self.pid, libc::SIGKILL.unsigned_abs());
            return;
        }
        kill(self.pid, libc::SIGTERM.unsigned_abs());
        if self.terminal.is_some() {
            kill(self.pid, libc::SIGHUP.unsigned_abs());
        }
        self.go_on();
    }

    /// It was stopped. Under a shell with job control we do as it did, so that the shell sees its job stop. Without one nobody
    /// could bring it back from a Ctrl-Z or from a shell's `suspend`: on the terminal it goes on.
    pub(crate) fn stopped(&mut self) {
        let Some(terminal) = &self.terminal else { return };
        if self.may_pause && has_job_control() {
            if std::mem::take(&mut self.is_given) {
                terminal.take_back();
            }
            // All of our group, as Ctrl-Z does. We go on from here when somebody sends SIGCONT, which we then pass on.
            kill(0, libc::SIGSTOP.unsigned_abs());
        } else if self.is_given {
            terminal.give_to(self.pid);
            kill(-self.pid, libc::SIGCONT.unsigned_abs());
        }
    }

    /// Lets all of its group go on, in the foreground if that is where we are.
    fn go_on(&mut self) {
        if let Some(terminal) = self.terminal.as_ref().filter(|terminal| terminal.is_with_us()) {
            terminal.give_to(self.pid);
            self.is_given = true;
        }
        kill(-self.pid, libc::SIGCONT.unsigned_abs());
    }

    /// It has ended: the terminal is for whoever comes after us.
    pub(crate) fn ended(&self) {
        if let Some(terminal) = self.terminal.as_ref().filter(|_| self.is_given) {
            terminal.take_back();
        }
    }
}

/// kill(2), with a number that nix has no name for if need be. That there is nobody any more is no error.
fn kill(pid: i32, number: u32) {
    let number = i32::try_from(number).unwrap_or_default();
    // SAFETY: kill(2) touches no memory.
    let _ = unsafe { libc::kill(pid, number) };
}

/// Where a program is: as execvp(3) looks for it.
fn look_up(name: &OsStr, path: &OsStr) -> io::Result<PathBuf> {
    if name.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    if name.as_bytes().contains(&b'/') {
        return executable(Path::new(name)).map(|()| PathBuf::from(name));
    }
    let mut worst = Errno::ENOENT.into();
    for folder in std::env::split_paths(path) {
        // An empty part of PATH is the current folder.
        let file = if folder.as_os_str().is_empty() { Path::new(".").join(name) } else { folder.join(name) };
        match executable(&file) {
            Ok(()) => return Ok(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => worst = e,
        }
    }
    Err(worst)
}

fn executable(file: &Path) -> io::Result<()> {
    if std::fs::metadata(file)?.is_dir() {
        return Err(Errno::EISDIR.into());
    }
    Ok(nix::unistd::access(file, nix::unistd::AccessFlags::X_OK)?)
}

/// What a command that does not run ends with, as env(1) and shells have it.
fn not_run(name: &OsStr, e: &io::Error) -> Failure {
    let name = name.to_string_lossy();
    let (code, help) = match Errno::from_raw(e.raw_os_error().unwrap_or_default()) {
        Errno::ENOENT => {
            (exit::NOT_FOUND, "look at its spelling, at PATH, and at the first line if it is a script")
        }
        Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE => {
            (exit::NO_COMMAND, "give the host more processes (--pids-limit) or memory (-m)")
        }
        _ => {
            (exit::NOT_EXECUTABLE, "make it a file that may be executed: chmod +x, and made for this machine")
        }
    };
    Failure { code, cause: format!("cannot run {name:?}: {}", words(e)), help: help.to_owned() }
}

/// The system's words for an error, without its number.
fn words(e: &io::Error) -> String {
    match e.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => "there is no such program".to_owned(),
        Some(errno) => errno.desc().to_lowercase(),
        None => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        for (place, mode) in [(&first, 0o644), (&second, 0o755)] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("tool"), "").unwrap();
            fs::set_permissions(place.join("tool"), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(second.join("folder")).unwrap();
        let path = std::env::join_paths([&first, &second]).unwrap();
        let code =
            |name: &str| look_up(OsStr::new(name), &path).map_err(|e| not_run(OsStr::new(name), &e).code);
        assert_eq!(code("tool"), Ok(second.join("tool")), "one that may not be executed hides none that may");
        assert_eq!(code("folder"), Err(126));
        assert_eq!(code("nothing"), Err(127));
        assert_eq!(code(""), Err(127));
        assert_eq!(code("/"), Err(126));
        let plain = first.join("tool");
        assert_eq!(code(plain.to_str().unwrap()), Err(126));
        assert_eq!(code("/nowhere/tool"), Err(127));
        assert_eq!(code("/dev/null/tool"), Err(126));
    }

    #[test]
    fn a_command_on_a_host_is_its_client() {
        let environment = [
            ("PATH", "/bin"),
            ("DOCKER_HOST", "tcp://docker:2376"),
            ("DOCKER_TLS_VERIFY", "1"),
            ("DOCKER_CERT_PATH", "/certs/client"),
            ("CI", "true"),
        ];
        let environment = environment.map(|(name, value)| (name.into(), value.into()));
        let command = Command::find(&["sh".into()], environment).unwrap().on_host();
        let names: Vec<_> =
            command.environment.iter().map(|(name, value)| (name.to_str(), value.to_str())).collect();
        assert_eq!(
            names,
            [
                (Some("CI"), Some("true")),
                (Some("DOCKER_HOST"), Some("unix:///var/run/docker.sock")),
                (Some("PATH"), Some("/bin"))
            ]
        );
    }
}
