//! `dind stop`, `start` and `rm`: the rest of a host's life.

use std::time::Duration;

use bollard::query_parameters::StopContainerOptionsBuilder;
use clap::Args;
use dind_contract::{exit, variables};
use futures_util::future::join_all;

use crate::commands::context;
use crate::endpoint::{self, ContainerId, Endpoint, Kind};
use crate::failure::{Failure, Result};
use crate::hosts::Host;
use crate::options::units;
use crate::progress::Progress;
use crate::{Context, launch, output, ready};

/// Stop hosts cleanly, all at the same time
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// The hosts
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// Seconds until one is killed [default: what it was started with, or 10]
    #[arg(short, long, value_name = "SECONDS", value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) time: Option<i32>,
}

/// Start hosts that were stopped, and wait until they are ready
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The hosts
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// How long each may take to be ready
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = units::time)]
    pub(crate) timeout: Duration,
}

/// Remove hosts, with their data unless it is in a volume that you named
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The hosts
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// Also those that run: they are killed
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Stops.
pub(crate) async fn stop(context: &Context, stop: Stop) -> Result<()> {
    let endpoint = context.connect().await?;
    let hosts = all(&endpoint, &stop.names).await?;
    let progress = context.progress(false);
    for host in &hosts {
        if let (Some(given), true) = (stop.time, host.runs()) {
            let told =
                host.variable(variables::DIND_STOP_TIMEOUT).and_then(|told| told.parse().ok()).unwrap_or(10);
            if given < told {
                progress.note(&format!("the host {} thinks that it has {told} s, and may be killed before it has saved everything", host.name));
            }
        }
    }
    progress.begin(&format!("stopping {}", names(&hosts)), "");
    let results = join_all(hosts.iter().map(|host| stop_one(&endpoint, host, stop.time))).await;
    progress.clear();
    each(results, &hosts)
}

async fn stop_one(endpoint: &Endpoint, host: &Host, time: Option<i32>) -> Result<()> {
    // VIC does not remember what the host was made with.
    let told = || host.variable(variables::DIND_STOP_TIMEOUT).and_then(|told| told.parse().ok());
    let time = time.or_else(|| if endpoint.kind == Kind::Vic { told() } else { None });
    let options = time.map(|time| StopContainerOptionsBuilder::new().t(time).build());
    endpoint.docker.stop_container(host.id.as_str(), options).await.map_err(|error| {
        Failure::new(
            format!("the host {} cannot be stopped: {}", host.name, endpoint::cause(&error)),
            "try again, or look at the engine's log",
        )
    })?;
    if !host.runs() {
        return Ok(());
    }
    let Ok(after) = Host::find(endpoint, host.id.as_str()).await else { return Ok(()) };
    match after.ended() {
        Some(0) | None => Ok(()),
        Some(code) => Err(Failure::new(
            format!("the host {} did not stop cleanly: exit code {code}", host.name),
            if code == 137 { "it was killed: give it more time with --stop-timeout when it is made; the next start checks its data" } else { "its last lines are above; the next start checks its data" },
        )
        .with_details(ready::last_lines(endpoint, &host.id, "5").await)),
    }
}

/// Starts.
pub(crate) async fn start(context: &Context, start: Start) -> Result<()> {
    let endpoint = context.connect().await?;
    let hosts = all(&endpoint, &start.names).await?;
    let progress = context.progress(false);
    progress.begin(&format!("starting {}", names(&hosts)), "");
    let results =
        join_all(hosts.iter().map(|host| start_one(&endpoint, host, start.timeout, &progress))).await;
    progress.clear();
    each(results, &hosts)
}

async fn start_one(endpoint: &Endpoint, host: &Host, timeout: Duration, progress: &Progress) -> Result<()> {
    let made = launch::Made { id: host.id.clone(), name: host.name.clone() };
    let mut watch = launch::start(endpoint, &made).await?;
    ready::wait(endpoint, &made, &mut watch, timeout, progress).await.map(drop)
}

/// Removes.
pub(crate) async fn rm(context: &Context, rm: Rm) -> Result<()> {
    let endpoint = context.connect().await?;
    let hosts = all(&endpoint, &rm.names).await?;
    let progress = context.progress(false);
    progress.begin(&format!("removing {}", names(&hosts)), "");
    let results = join_all(hosts.iter().map(|host| remove(&endpoint, &host.id, &host.name, rm.force))).await;
    progress.clear();
    each(results, &hosts)
}

/// Removes a host, and all that is kept of it here.
///
/// # Errors
/// The engine refuses.
pub(crate) async fn remove(endpoint: &Endpoint, id: &ContainerId, name: &str, force: bool) -> Result<()> {
    launch::remove(endpoint, id, name, force).await?;
    context::forget(&endpoint.address, id);
    Ok(())
}

/// All of them, before anything is done to one.
async fn all(endpoint: &Endpoint, names: &[String]) -> Result<Vec<Host>> {
    let mut hosts: Vec<Host> = Vec::new();
    for host in join_all(names.iter().map(|name| Host::find(endpoint, name))).await {
        let host = host?;
        if hosts.iter().all(|other| other.id != host.id) {
            hosts.push(host);
        }
    }
    Ok(hosts)
}

fn names(hosts: &[Host]) -> String {
    hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Prints those for which it worked, as the docker command does, and fails if it did not for one.
fn each(results: Vec<Result<()>>, hosts: &[Host]) -> Result<()> {
    let mut failures = Vec::new();
    let mut done = String::new();
    for (result, host) in results.into_iter().zip(hosts) {
        match result {
            Ok(()) => done.push_str(&format!("{}\n", host.name)),
            Err(failure) => failures.push(failure),
        }
    }
    output::print(&done)?;
    let Some(last) = failures.pop() else { return Ok(()) };
    failures.iter().for_each(|failure| output::say(&failure.to_string()));
    let is_told = matches!(last.code, exit::TIMED_OUT | exit::UNAVAILABLE);
    let code = if is_told { last.code } else { crate::failure::GENERAL };
    Err(last.with_code(code))
}
