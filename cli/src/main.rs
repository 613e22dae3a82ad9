//! `dind`: makes Docker hosts that are as ephemeral as containers, and drives them.

mod args;
mod assets;
mod bake;
mod build;
mod commands;
mod endpoint;
mod failure;
mod hash;
mod hosts;
mod image;
mod inside;
mod launch;
mod manual;
mod options;
mod output;
mod owner;
mod progress;
mod reach;
mod ready;
mod shell;
mod signals;
mod state;
mod table;
mod terminal;
mod warm;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use args::{Command, Line};
use endpoint::{Endpoint, Wish};
use failure::{Failure, Result};
use progress::{Progress, Show};

/// What holds for every command.
#[derive(Debug)]
struct Context {
    endpoint: Wish,
    show: Show,
}

impl Context {
    /// The endpoint that is meant, reached.
    async fn connect(&self) -> Result<Endpoint> {
        Endpoint::connect(&self.endpoint).await
    }

    /// How this command's progress is shown.
    fn progress(&self, quiet: bool) -> Progress {
        Progress::new(self.show, quiet)
    }

    /// Whether lines are printed, not drawn.
    fn plain(&self) -> bool {
        self.show == Show::Plain || (self.show == Show::Auto && !output::draws())
    }
}

fn main() -> ExitCode {
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { dind_contract::exit::USAGE } else { 0 });
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            output::say(
                &Failure::new(format!("cannot start: {e}"), "look at the limits of this shell: ulimit -a")
                    .to_string(),
            );
            return ExitCode::from(failure::GENERAL);
        }
    };
    let ended = runtime.block_on(run(line));
    // Whoever still reads standard input in the background must not be waited for.
    runtime.shutdown_background();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::say(&failure.to_string());
            ExitCode::from(failure.code)
        }
    }
}

async fn run(line: Line) -> Result<u8> {
    let context = Context { endpoint: line.endpoint, show: line.progress };
    match line.command {
        Command::Build(build) => commands::build::run(&context, build).await?,
        Command::Up(up) => commands::up::run(&context, *up).await?,
        Command::Run(run) => return commands::run::run(&context, *run).await,
        Command::Bake(bake) => commands::bake::run(&context, *bake).await?,
        Command::Inspect(inspect) => commands::inspect::run(&context, inspect).await?,
        Command::Env(env) => commands::env::run(&context, env).await?,
        Command::Context(written) => commands::context::run(&context, written).await?,
        Command::Ls(ls) => commands::ls::run(&context, ls).await?,
        Command::Logs(logs) => commands::logs::run(&context, logs).await?,
        Command::Exec(exec) => return commands::exec::run(&context, exec).await,
        Command::Ssh(ssh) => return commands::ssh::run(&context, ssh).await,
        Command::Stop(stop) => commands::stop::stop(&context, stop).await?,
        Command::Start(start) => commands::stop::start(&context, start).await?,
        Command::Rm(rm) => commands::stop::rm(&context, rm).await?,
        Command::Prune(prune) => commands::prune::run(&context, prune).await?,
        Command::Doctor(doctor) => return commands::doctor::run(&context, *doctor).await,
        Command::Completions { shell } => manual::completions(shell)?,
        Command::Man { folder } => manual::pages(&folder)?,
    }
    Ok(0)
}
