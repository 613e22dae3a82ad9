//! Logging in to a host: the real ssh, scp and ssh-keygen of this machine, with a key and a configuration of the test's own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::command::Call;
use crate::host::Host;
use crate::wait::until;

/// Somebody outside who has a key.
#[derive(Debug)]
pub struct SshClient(TempDir);

impl SshClient {
    /// Makes a key, and a configuration in which nothing of whoever runs the tests plays a part.
    ///
    /// # Panics
    /// There is no ssh.
    #[track_caller]
    #[allow(clippy::new_without_default, reason = "a default value that makes files would surprise")]
    pub fn new() -> Self {
        let client = Self(tempfile::tempdir().expect("a folder for a client's files can be made"));
        client.make_key("key", &["-t", "ed25519"]);
        let path = |name: &str| client.path(name).display().to_string();
        let config = format!(
            "Host *\nIdentityFile {}\nIdentitiesOnly yes\nIdentityAgent none\nBatchMode yes\nConnectTimeout 20\n\
             StrictHostKeyChecking accept-new\nUserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\nLogLevel ERROR\n",
            path("key"),
            path("known_hosts")
        );
        fs::write(client.path("config"), config).expect("a client's folder can be written to");
        client
    }

    /// A file of the client's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes another key, and returns its public half.
    #[track_caller]
    pub fn make_key(&self, name: &str, options: &[&str]) -> String {
        let file = self.path(name).display().to_string();
        let call = Call::new("ssh-keygen").args(["-q", "-N", "", "-C", "derek at work", "-f", &file]);
        call.args(options).run().ok();
        self.public(name)
    }

    /// The public half of a key.
    ///
    /// # Panics
    /// There is none of this name.
    #[track_caller]
    pub fn public(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path(&format!("{name}.pub"))).expect("ssh-keygen has made it");
        text.trim_end().to_owned()
    }

    /// The line with which the key may log in.
    #[track_caller]
    pub fn key(&self) -> String {
        self.public("key")
    }

    /// `ssh`, scp or the like, with the client's key.
    pub fn call(&self, program: &str) -> Call {
        Call::new(program).args(["-F", &self.path("config").display().to_string()])
    }

    /// `ssh USER@HOST LINE`.
    #[track_caller]
    pub fn ssh(&self, user: &str, host: &Host, line: &str) -> Call {
        self.call("ssh").arg(format!("{user}@{}", host.ip())).arg(line)
    }

    /// A folder whose `ssh` is the real one with the client's key: for programs that call it by name.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn folder_with_ssh(&self) -> PathBuf {
        let folder = self.path("bin");
        fs::create_dir_all(&folder).expect("a client's folder can be written to");
        let ssh = folder.join("ssh");
        let script = format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", self.path("config").display());
        fs::write(&ssh, script).expect("a client's folder can be written to");
        fs::set_permissions(&ssh, Permissions::from_mode(0o755)).expect("its files are ours");
        folder
    }

    /// Logs in in the background, with these options and perhaps a command; it stays until it ends or is [left](Session::leave).
    #[track_caller]
    pub fn session(&self, user: &str, host: &Host, options: &[&str], command: &str) -> Session {
        let control = self.path(&format!("control-{user}"));
        let output = self.path(&format!("output-{user}"));
        // In the background as soon as it is logged in; its output is a file's, so that nobody waits for its end.
        let socket = control.display().to_string();
        let words = [&["-f", "-M", "-S", &socket], options].concat();
        let line = shell_line(&self.path("config"), &words, &format!("{user}@{}", host.ip()), command);
        Call::new("sh").args(["-c", &format!("{line} >{} 2>&1", output.display())]).run().ok();
        let session = Session { config: self.path("config"), control, output };
        assert!(session.is_open(), "no session: {}", session.output());
        // The client is in a moment before sshd is done with letting it in.
        until("the login to be over", 20, || {
            (host.shell("pgrep -x sshd-auth").code == Some(1)).then_some(())
        });
        session
    }
}

fn shell_line(config: &Path, options: &[&str], target: &str, command: &str) -> String {
    let mut line = format!("exec ssh -F {}", config.display());
    for word in options.iter().chain([&target]) {
        line.push_str(&format!(" '{word}'"));
    }
    if !command.is_empty() {
        line.push_str(&format!(" '{command}'"));
    }
    line
}

/// A session in the background.
#[derive(Debug)]
pub struct Session {
    config: PathBuf,
    control: PathBuf,
    output: PathBuf,
}

impl Session {
    /// Whether its client runs.
    #[track_caller]
    pub fn is_open(&self) -> bool {
        self.control("check").code == Some(0)
    }

    /// What it has written.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Ends it from outside.
    #[track_caller]
    pub fn leave(&self) {
        self.control("exit").ok();
        until("the session to be left", 20, || (!self.is_open()).then_some(()));
    }

    fn control(&self, what: &str) -> crate::command::Ended {
        let control = self.control.display().to_string();
        Call::new("ssh")
            .args(["-F", &self.config.display().to_string(), "-S", &control, "-O", what, "any"])
            .run()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.control("exit");
    }
}
