//! The command `dind`, as a user has it: one file, called from a folder that has nothing to do with this one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::command::{Call, Ended};
use crate::engine;
use crate::host::Host;
use crate::options::image;

/// What a developer's own shell may have set.
const FOREIGN: [&str; 5] =
    ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "SHELL"];

/// The command, with a home of its own.
#[derive(Debug)]
pub struct Dind {
    home: TempDir,
}

impl Dind {
    /// Finds what `quickstart` has built.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    #[allow(clippy::new_without_default, reason = "it needs what was built before")]
    pub fn new() -> Self {
        engine::prepare();
        assert!(
            Self::program().exists(),
            "there is no {}\n  help: ./quickstart --build",
            Self::program().display()
        );
        Self { home: tempfile::tempdir().expect("a folder can be made") }
    }

    /// Where the program is.
    pub fn program() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dind")
    }

    /// Its home, which is also the folder that it is called from.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The variables of a user who has this home.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let home = self.home().display();
        vec![
            ("HOME", home.to_string()),
            ("XDG_STATE_HOME", format!("{home}/state")),
            ("DOCKER_CONFIG", format!("{home}/docker")),
            ("DIND", Self::program().display().to_string()),
        ]
    }

    /// A call with these arguments.
    pub fn call<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Call {
        self.dress(Call::new(&Self::program().to_string_lossy()).args(args))
    }

    /// Runs it.
    #[track_caller]
    #[must_use = "say whether it should have succeeded: .ok() or .fails()"]
    pub fn run<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Ended {
        self.call(args).run()
    }

    /// Runs a script of the shell, in which `dind` is the command.
    #[track_caller]
    #[must_use = "say whether it should have succeeded: .ok() or .fails()"]
    pub fn shell(&self, script: &str) -> Ended {
        self.dress(Call::new("bash").args(["-euc", &self.script(script)])).run()
    }

    /// The script, in which `dind` is the command.
    pub fn script(&self, script: &str) -> String {
        format!("dind() {{ {:?} \"$@\"; }}\n{script}", Self::program())
    }

    /// `dind up`, with these options beside the image under test and the labels of a test.
    #[track_caller]
    pub fn up(&self, options: &[&str]) -> Host {
        let options = options.iter().copied().map(str::to_owned);
        self.bring_up(Self::options().into_iter().chain(options).collect()).0
    }

    /// `dind up` of this image, and what it said.
    #[track_caller]
    pub fn up_of(&self, image: &str) -> (Host, String) {
        self.bring_up([vec!["--image".to_owned(), image.to_owned()], engine::labels()].concat())
    }

    #[track_caller]
    fn bring_up(&self, options: Vec<String>) -> (Host, String) {
        let name = engine::unique_name();
        let words = [vec!["up".to_owned(), name.clone()], options].concat();
        let ended = self.run(words);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        ended.ok();
        (Host::new(name), said)
    }

    /// The options that every host of a test gets.
    pub fn options() -> Vec<String> {
        let mut options = vec!["--image".to_owned(), image().to_owned()];
        options.extend(engine::labels());
        options
    }

    /// A name that no other test uses.
    pub fn name() -> String {
        engine::unique_name()
    }

    /// The same, for who starts it and goes on.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(Self::program());
        command.args(args).current_dir(self.home());
        FOREIGN.iter().fold(&mut command, |command, name| command.env_remove(name)).envs(self.environment());
        command
    }

    /// Another program's call, with this home and in it.
    pub fn dress(&self, call: Call) -> Call {
        let call = FOREIGN.into_iter().fold(call, Call::env_remove);
        self.environment()
            .into_iter()
            .fold(call, |call, (name, value)| call.env(name, value))
            .folder(self.home())
    }
}
