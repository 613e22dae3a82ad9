//! What can be typed.

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::{
    bake, build, context, doctor, env, exec, inspect, logs, ls, prune, run, ssh, stop, up,
};
use crate::endpoint::Wish;
use crate::progress::Show;

/// Docker hosts that are as ephemeral as containers
///
/// A host is a container with a complete Docker engine in it. dind makes hosts on any Docker endpoint, waits until they are ready,
/// says how to use them, and takes them away.
#[derive(Debug, Parser)]
#[command(name = "dind", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(
    after_help = "Try:\n  dind build                        build the image of a host\n  dind run -- docker info           a command with a host of its own\n  dind up one                       a host that stays\n  dind bake compose.yaml -t shop:1  an application and its images in one image\n  eval \"$(dind env one)\"            use it from this shell\n  dind COMMAND --help               all about a command"
)]
pub(crate) struct Line {
    #[command(flatten)]
    pub(crate) endpoint: Wish,
    /// How progress is shown
    #[arg(
        long,
        global = true,
        value_name = "HOW",
        value_enum,
        default_value = "auto",
        hide_possible_values = true,
        help_heading = "Everywhere",
        help = "How progress is shown: auto, plain, tty or quiet"
    )]
    pub(crate) progress: Show,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands, in the order in which a newcomer meets them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Build(build::Build),
    Up(Box<up::Up>),
    Run(Box<run::Run>),
    Bake(Box<bake::Bake>),
    Inspect(inspect::Inspect),
    Env(env::Env),
    Context(context::Context),
    Ls(ls::Ls),
    Logs(logs::Logs),
    Exec(exec::Exec),
    Ssh(ssh::Ssh),
    Stop(stop::Stop),
    Start(stop::Start),
    Rm(stop::Rm),
    Prune(prune::Prune),
    Doctor(Box<doctor::Doctor>),
    /// Print what a shell needs to complete dind's words
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man pages, a file for each command
    Man {
        /// Folder to write them to, such as /usr/local/share/man/man1
        folder: std::path::PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds() {
        Line::command().debug_assert();
    }

    /// What a user reads, in files beside this one: a change of it is seen in a diff. `INSTA_UPDATE=always` writes them anew.
    #[test]
    fn the_help_texts_are_as_they_were_read_last() {
        let mut command = Line::command().term_width(100);
        command.build();
        insta::assert_snapshot!("help", command.render_help());
        for subcommand in command.get_subcommands() {
            let name = subcommand.get_name().to_owned();
            let help = subcommand.clone().term_width(100).render_long_help();
            insta::assert_snapshot!(format!("help-{name}"), help);
        }
    }
}
