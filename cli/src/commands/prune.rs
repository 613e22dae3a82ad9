//! `dind prune`: what nobody needs any more.

use std::collections::HashMap;

use bollard::models::ContainerSummary;
use bollard::query_parameters::{ListContainersOptionsBuilder, ListVolumesOptionsBuilder};
use clap::Args;
use dind_contract::labels;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::commands::{context, stop};
use crate::endpoint::{ContainerId, Endpoint, VolumeName};
use crate::failure::Result;
use crate::owner::{self, Owner};
use crate::{Context, hosts, launch, output, state};

/// How old a copy must be until one of another machine is taken for left behind: longer than any copy takes.
const LONG_AGO: Duration = Duration::days(1);

/// Remove hosts of `dind run` whose command is gone, and what was made for them
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Also every host that has ended, with its data unless that is in a volume that you named
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only hosts with this label: NAME or NAME=VALUE
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) label: Option<String>,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Does it.
pub(crate) async fn run(context: &Context, prune: Prune) -> Result<()> {
    let endpoint = context.connect().await?;
    let mut text = String::new();
    let mut failures = Vec::new();
    // Copies stand on the volumes that go with hosts, so copiers go first.
    let copiers = if prune.label.is_none() { copiers(&endpoint).await? } else { Vec::new() };
    // Asked for before anything is removed: an endpoint that cannot be trusted is asked for nothing more.
    let hosts = hosts::list(&endpoint, true, prune.label.as_deref()).await?;
    for copier in copiers {
        if !prune.dry_run
            && let Err(failure) = launch::remove(&endpoint, &copier, copier.short(), true).await
        {
            failures.push(failure);
            continue;
        }
        text.push_str(&format!("container {}: the copy that it made is nobody's\n", copier.short()));
    }
    for host in &hosts {
        let Some(why) = why(&host.container, prune.all) else { continue };
        let name = &host.name;
        if !prune.dry_run
            && let Err(failure) = stop::remove(&endpoint, &host.id, name, true).await
        {
            failures.push(failure);
            continue;
        }
        text.push_str(&format!("host {name}: {why}\n"));
    }
    if prune.label.is_none() {
        for volume in copies(&endpoint).await? {
            if !prune.dry_run && launch::remove_volume(&endpoint, &volume).await.is_err() {
                // A host has been made on it meanwhile.
                continue;
            }
            text.push_str(&format!("volume {volume}: the host that it was copied for is gone\n"));
        }
        if !prune.dry_run {
            forget(&endpoint).await?;
        }
    }
    output::print(&text)?;
    if text.is_empty() && failures.is_empty() {
        output::say("dind: there is nothing to remove");
    }
    failures.pop().map_or(Ok(()), Err)
}

/// Why a host is not needed any more; `None`: it may be.
fn why(host: &ContainerSummary, all: bool) -> Option<&'static str> {
    let state = host.state.map(|state| state.to_string()).unwrap_or_default();
    // One that is made and not started may wait for its copy, on a machine that we cannot look into.
    let ended = matches!(state.as_str(), "exited" | "dead");
    let owner =
        host.labels.as_ref().and_then(|labels| labels.get(labels::OWNER)).map(|words| owner::of(words));
    match owner {
        Some(Owner::Ended) => Some("its `dind run` is gone"),
        Some(Owner::Lives) => None,
        Some(Owner::Elsewhere) if ended => Some("it has ended, and its `dind run` did not remove it"),
        None if all && (ended || state == "created") => Some("it has ended"),
        _ => None,
    }
}

/// Containers that copied a data root for somebody who is gone.
async fn copiers(endpoint: &Endpoint) -> Result<Vec<ContainerId>> {
    let filters = HashMap::from([("label", vec![labels::COPY_OF])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let containers = endpoint
        .docker
        .list_containers(Some(options))
        .await
        .map_err(|error| hosts::asking(endpoint, &error))?;
    let gone = containers.into_iter().filter(|container| {
        let made = container.created.and_then(|created| OffsetDateTime::from_unix_timestamp(created).ok());
        is_nobodys(container.labels.as_ref().and_then(|labels| labels.get(labels::OWNER)), made)
    });
    gone.map(|container| endpoint.container_id(container.id.as_ref())).collect()
}

/// Volumes that were copied for a host, and are on none.
async fn copies(endpoint: &Endpoint) -> Result<Vec<VolumeName>> {
    let filters = HashMap::from([("label", vec![labels::COPY_OF]), ("dangling", vec!["true"])]);
    let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let volumes =
        endpoint.docker.list_volumes(Some(options)).await.map_err(|error| hosts::asking(endpoint, &error))?;
    let gone = volumes.volumes.unwrap_or_default().into_iter().filter(|volume| {
        let made = volume.created_at.as_deref().and_then(|made| OffsetDateTime::parse(made, &Rfc3339).ok());
        is_nobodys(volume.labels.get(labels::OWNER), made)
    });
    gone.map(|volume| endpoint.parse(&volume.name)).collect()
}

/// Whether what this process made is nobody's: it has ended, or it was elsewhere and long ago.
fn is_nobodys(owner: Option<&String>, made: Option<OffsetDateTime>) -> bool {
    match owner.map(|words| owner::of(words)) {
        Some(Owner::Ended) => true,
        Some(Owner::Lives) => false,
        Some(Owner::Elsewhere) | None => made.is_some_and(|made| OffsetDateTime::now_utc() - made > LONG_AGO),
    }
}

/// Forgets what is kept here of hosts of this endpoint that are no more.
async fn forget(endpoint: &Endpoint) -> Result<()> {
    let hosts = hosts::list(endpoint, true, None).await?;
    for kept in state::hosts_of(&endpoint.address) {
        if !hosts.iter().any(|host| host.id == kept) {
            context::forget(&endpoint.address, &kept);
            state::forget(&endpoint.address, &kept);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerSummaryStateEnum as State;

    use super::*;

    /// Words of a process of this machine that has ended: nothing starts at the first tick but the kernel.
    fn ended() -> String {
        owner::this_process().rsplit_once('/').map(|(front, _)| format!("{front}/1")).unwrap()
    }

    #[test]
    fn what_somebody_may_still_need_stays() {
        let (ours, gone) = (owner::this_process(), ended());
        for (owner, state, all, goes) in [
            (Some(ours.as_str()), State::EXITED, true, false),
            (Some(gone.as_str()), State::RUNNING, false, true),
            (Some(gone.as_str()), State::CREATED, false, true),
            // Made on another machine, or in another namespace of pids, it may wait for its copy.
            (Some("elsewhere/1/1"), State::CREATED, true, false),
            (Some("elsewhere/1/1"), State::RUNNING, true, false),
            (Some("elsewhere/1/1"), State::EXITED, false, true),
            (None, State::EXITED, false, false),
            (None, State::EXITED, true, true),
            (None, State::RUNNING, true, false),
        ] {
            let labels = owner.map(|words| HashMap::from([(labels::OWNER.to_owned(), words.to_owned())]));
            let host = ContainerSummary { state: Some(state), labels, ..Default::default() };
            assert_eq!(why(&host, all).is_some(), goes, "{owner:?} {state:?} {all}");
        }
    }

    #[test]
    fn a_copy_is_nobodys_when_its_maker_is_gone() {
        let (now, old) =
            (Some(OffsetDateTime::now_utc()), Some(OffsetDateTime::now_utc() - Duration::days(2)));
        for (owner, made, is) in [
            (Some(owner::this_process()), old, false),
            (Some(ended()), now, true),
            (Some("elsewhere/1/1".to_owned()), now, false),
            (Some("elsewhere/1/1".to_owned()), old, true),
            (None, None, false),
        ] {
            assert_eq!(is_nobodys(owner.as_ref(), made), is, "{owner:?} {made:?}");
        }
    }
}
