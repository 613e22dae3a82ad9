//! `dind env`: what a shell must know to use a host.

use clap::Args;

use crate::failure::Result;
use crate::hosts::Host;
use crate::shell::Shell;
use crate::{Context, output, reach};

/// Print the lines with which a shell's docker uses a host
#[derive(Debug, Args)]
pub(crate) struct Env {
    /// The host
    #[arg(required_unless_present = "unset")]
    pub(crate) name: Option<String>,
    /// In the words of this shell [default: that of SHELL]
    #[arg(long, value_enum)]
    pub(crate) shell: Option<Shell>,
    /// Print the lines that undo it
    #[arg(short, long, conflicts_with = "name")]
    pub(crate) unset: bool,
}

/// Does it.
pub(crate) async fn run(context: &Context, env: Env) -> Result<()> {
    let shell = env.shell.unwrap_or_else(Shell::of_the_user);
    let Some(name) = env.name else {
        let names = ["DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"];
        return output::print(&names.map(|name| shell.line(name, None)).concat());
    };
    let endpoint = context.connect().await?;
    let host = Host::find(&endpoint, &name).await?;
    let status = reach::status(&endpoint, &host).await?;
    let reach = reach::find(&endpoint, &host, &status).await?;
    let mut text: String =
        reach.variables().iter().map(|(name, value)| shell.line(name, value.as_deref())).collect();
    let again =
        env.shell.map_or("", |shell| if shell == Shell::Fish { " --shell fish" } else { " --shell sh" });
    text.push_str(&match shell {
        Shell::Sh => format!(
            "# to use it: eval \"$(dind env{again} {name})\"; to leave it: eval \"$(dind env --unset)\"\n"
        ),
        Shell::Fish => {
            format!("# to use it: dind env{again} {name} | source; to leave it: dind env --unset | source\n")
        }
    });
    output::print(&text)
}
