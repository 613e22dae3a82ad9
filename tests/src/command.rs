//! One command with a deadline, and how it ended.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::wait::patience;

/// How long a command may take when the test does not say otherwise.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a command reads.
#[derive(Debug, Clone)]
enum Stdin {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// A command to run.
#[derive(Debug, Clone)]
pub struct Call {
    program: String,
    args: Vec<String>,
    env: Vec<(String, Option<OsString>)>,
    only_env: bool,
    stdin: Stdin,
    folder: Option<PathBuf>,
    deadline: Duration,
}

impl Call {
    /// A call of `program`, found in PATH, with nothing on its standard input.
    pub fn new(program: &str) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            only_env: false,
            stdin: Stdin::Bytes(Vec::new()),
            folder: None,
            deadline: DEADLINE,
        }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), Some(value.into())));
        self
    }

    /// Sets the whole environment: nothing of this process's own is left in it.
    pub fn only_env(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.only_env = true;
        self.env = variables.into_iter().map(|(name, value)| (name, Some(value.into()))).collect();
        self
    }

    /// Takes an environment variable away.
    pub fn env_remove(mut self, name: &str) -> Self {
        self.env.push((name.into(), None));
        self
    }

    /// Gives the command these bytes on its standard input.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Stdin::Bytes(bytes.into());
        self
    }

    /// Gives the command this file on its standard input.
    pub fn stdin_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.stdin = Stdin::File(path.into());
        self
    }

    /// Runs the command in this folder.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Allows the command this many seconds instead of a minute, times [`patience`].
    pub fn within(mut self, seconds: u64) -> Self {
        self.deadline = Duration::from_secs(seconds);
        self
    }

    /// Runs the command to its end.
    ///
    /// # Panics
    /// When the program cannot be started, or when its deadline passes: then it has been killed.
    #[track_caller]
    #[must_use = "say whether it should have succeeded: .ok() or .fails()"]
    pub fn run(self) -> Ended {
        self.attempt().unwrap_or_else(|trouble| panic!("{trouble}"))
    }

    /// The same, where the test goes on when it does not work.
    ///
    /// # Errors
    /// When the program cannot be started, or when its deadline passes: then it has been killed.
    pub fn attempt(self) -> Result<Ended, String> {
        let line = self.line();
        let expression = duct::cmd(&self.program, &self.args);
        let expression = match self.stdin {
            Stdin::Bytes(bytes) => expression.stdin_bytes(bytes),
            Stdin::File(path) => expression.stdin_path(path),
        };
        let mut expression = expression.stdout_capture().stderr_capture().unchecked();
        if let Some(folder) = self.folder {
            expression = expression.dir(folder);
        }
        // duct lets the first that is said of a variable win; here it is the last, as everywhere.
        for (name, value) in self.env.into_iter().rev() {
            expression = match value {
                Some(value) => expression.env(name, value),
                None => expression.env_remove(name),
            };
        }
        if self.only_env {
            expression = expression.full_env([("", ""); 0]);
        }
        let started = expression.start();
        let handle = started
            .map_err(|error| format!("cannot run `{line}`: {error}\n  help: {}", install(&self.program)))?;
        let deadline = self.deadline * patience();
        match handle.wait_timeout(deadline) {
            Ok(Some(output)) => Ok(Ended {
                line,
                code: output.status.code(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
            Ok(None) => {
                let _ = handle.kill();
                Err(format!("`{line}` was not done after {deadline:?}"))
            }
            Err(error) => Err(format!("cannot wait for `{line}`: {error}")),
        }
    }

    fn line(&self) -> String {
        let mut line = self.program.clone();
        for arg in &self.args {
            line.push(' ');
            line.push_str(arg);
        }
        line
    }
}

/// How to get a program that is not there.
fn install(program: &str) -> String {
    format!("./check installs what the tests need; is `{program}` in PATH?")
}

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The command, as typed.
    pub line: String,
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ended {
    /// Asserts that the command succeeded; its standard output without the last newline.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self}");
        self.stdout.trim_end().to_owned()
    }

    /// Asserts that the command failed.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert_ne!(self.code, Some(0), "should have failed: {self}");
        self
    }

    /// Asserts how the command exited.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Asserts that each of these texts stands somewhere in the command's standard error.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "does not say {text:?}: {self}");
        }
        self
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code.map_or_else(|| "by a signal".into(), |code| format!("with {code}"));
        write!(f, "`{}` ended {code}\n--- stdout\n{}\n--- stderr\n{}", self.line, self.stdout, self.stderr)
    }
}
