//! `dind up`: a host, ready.

use std::collections::HashMap;
use std::time::Instant;

use clap::Args;
use dind_contract::{Status, labels};

use crate::endpoint::{Endpoint, VolumeName};
use crate::failure::Result;
use crate::hosts::Host;
use crate::launch::{self, Made};
use crate::options::HostOptions;
use crate::progress::{Progress, seconds};
use crate::signals::{Interrupt, interrupted};
use crate::{Context, output, reach};

/// Start a host, wait until it is ready, and say how to use it
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Its name; without one the endpoint makes one up
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) host: HostOptions,
    /// Wait until the host is ready; with =false, return when it has started
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) detach_ready: bool,
    /// Print nothing but its id
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Does it.
pub(crate) async fn run(context: &Context, up: Up) -> Result<()> {
    if let Some(name) = &up.name {
        launch::check_name(name)?;
    }
    let began = Instant::now();
    let progress = context.progress(up.quiet);
    let mut interrupt = Interrupt::listen()?;
    let endpoint = tokio::select! {
        endpoint = context.connect() => endpoint?,
        number = interrupt.caught() => return Err(interrupted(number, "nothing was made")),
    };
    let prepared = launch::prepare(&endpoint, &up.host, HashMap::new(), &progress);
    let request = tokio::select! {
        request = prepared => request?,
        number = interrupt.caught() => return Err(interrupted(number, "nothing was made")),
    };
    let volumes = launch::new_volumes(&endpoint, &request).await;
    // From here on there is something to remove.
    let made = launch::create(&endpoint, up.name.as_deref(), request, &progress, &mut interrupt).await;
    let made = match made {
        Ok(made) => made,
        Err(failure) => {
            forget(&endpoint, &volumes).await;
            return Err(failure);
        }
    };
    let brought = tokio::select! {
        brought = bring_up(&endpoint, &made, &up, &progress) => brought,
        number = interrupt.caught() => Err(interrupted(number, &format!("the host {} is removed", made.name))),
    };
    let usage = match brought {
        Ok(usage) => usage,
        // One that is only late may still become ready.
        Err(failure) if failure.code == dind_contract::exit::TIMED_OUT => return Err(failure),
        Err(failure) => {
            progress.clear();
            launch::discard(&endpoint, &made, &mut interrupt).await?;
            forget(&endpoint, &volumes).await;
            return Err(failure);
        }
    };
    if up.quiet {
        return output::print(&format!("{}\n", made.id));
    }
    let Some(usage) = usage else {
        return output::print(&format!(
            "{name} has been started\n\n  {dind} logs -f {name}   watch it\n  {dind} rm -f {name}     remove it, with its data\n",
            name = made.name,
            dind = endpoint.command()
        ));
    };
    output::print(&format!("{} is ready after {}\n\n{usage}", made.name, seconds(began.elapsed())))
}

/// Removes volumes that were not there before.
async fn forget(endpoint: &Endpoint, volumes: &[VolumeName]) {
    for volume in volumes {
        // One that could not be made is not there.
        let _ = launch::remove_volume(endpoint, volume).await;
    }
}

/// Starts it and waits until it is ready; the lines with which to go on, if it was waited for and they are wanted.
async fn bring_up(endpoint: &Endpoint, made: &Made, up: &Up, progress: &Progress) -> Result<Option<String>> {
    launch::announce(made, progress);
    let mut watch = launch::start(endpoint, made).await?;
    if !up.detach_ready {
        return Ok(None);
    }
    let status = launch::wait(endpoint, made, &mut watch, &up.host, progress).await?;
    if up.quiet {
        return Ok(None);
    }
    let host = Host::find(endpoint, made.id.as_str()).await?;
    usage(endpoint, &host, &status, &up.host).map(Some)
}

/// The lines with which to go on.
fn usage(endpoint: &Endpoint, host: &Host, status: &Status, options: &HostOptions) -> Result<String> {
    let (dind, name) = (endpoint.command(), &host.name);
    let mut lines: Vec<(String, String)> = Vec::new();
    // Nor does an appliance serve its API to others, or a host that a variable made local.
    let is_local = options.local || status.endpoint.docker_host.starts_with("unix:");
    if !is_local {
        match reach::seen_place(endpoint, host, &[dind_contract::API_PORT])? {
            Some(place) => {
                lines.push((
                    format!("eval \"$({dind} env {name})\""),
                    format!("docker in this shell is that host: tcp://{place}"),
                ));
                lines.push((format!("{dind} context {name}"), "a context for the docker command".to_owned()));
            }
            None => lines.push((
                format!("{dind} up -p {}", dind_contract::API_PORT),
                "its API has no port that can be reached from here".to_owned(),
            )),
        }
    }
    lines.push((format!("{dind} exec -it {name} sh"), "a shell in it".to_owned()));
    if options.ssh {
        lines.push((format!("{dind} ssh {name}"), "log in".to_owned()));
    }
    lines.push((format!("{dind} rm -f {name}"), "remove it, with its data".to_owned()));
    let width = lines.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    let mut text: String =
        lines.iter().map(|(command, what)| format!("  {command:width$}   {what}\n")).collect();
    if !status.endpoint.tls_verify && !is_local {
        text.push_str("\nwarning: it speaks no TLS: whoever reaches its port is root on it\n");
    }
    if let Some(engine) = host.label(labels::ENGINE) {
        text = format!("  engine {engine}, {} host\n\n{text}", host.label(labels::FLAVOUR).unwrap_or("?"));
    }
    Ok(text)
}
