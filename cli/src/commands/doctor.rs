//! `dind doctor`: what an endpoint, or a host, lacks.

use std::collections::HashMap;

use bollard::models::ContainerCreateBody;
use clap::Args;
use dind_contract::{exit, labels};

use crate::endpoint::{Endpoint, Kind};
use crate::failure::{Failure, Result};
use crate::hosts::Host;
use crate::options::{HostOptions, Pull};
use crate::signals::{Interrupt, interrupted};
use crate::{Context, image, inside, launch, output, owner, ready};

/// Say what this endpoint, or a host, lacks, and what that costs
///
/// Without a name a container of the host's image looks at what a host would find here, and is removed. Exit code 69: no host
/// could run.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The host
    pub(crate) name: Option<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) host: HostOptions,
}

/// Does it; the exit code is the doctor's inside.
pub(crate) async fn run(context: &Context, doctor: Doctor) -> Result<u8> {
    let endpoint = context.connect().await?;
    let command: &[&str] =
        if doctor.json { &["dind-init", "doctor", "--json"] } else { &["dind-init", "doctor"] };
    if let Some(name) = &doctor.name {
        let host = Host::find(&endpoint, name).await?;
        host.must_run("it cannot be asked")?;
        let answer = inside::ask(&endpoint, &host.id, &host.name, command).await?;
        answer.stderr.lines().for_each(output::say);
        output::print(&answer.stdout)?;
        return Ok(answer.code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::FAILED));
    }
    if !doctor.json {
        output::print(&describe(&endpoint))?;
    }
    look(context, &endpoint, &doctor, command).await
}

/// What the endpoint says of itself.
fn describe(endpoint: &Endpoint) -> String {
    let kind = match endpoint.kind {
        Kind::Engine => "Docker engine",
        Kind::Vic => "vSphere Integrated Containers",
    };
    format!(
        "endpoint: {} ({}): {kind} {}, API {}\n",
        endpoint.address, endpoint.source, endpoint.version, endpoint.agreed
    )
}

/// Runs the doctor in a container of its own.
async fn look(context: &Context, endpoint: &Endpoint, doctor: &Doctor, command: &[&str]) -> Result<u8> {
    let progress = context.progress(doctor.json);
    let image = doctor.host.image();
    if doctor.host.pull == Pull::Never && !image::has(endpoint, &image).await? {
        return Err(Failure::unavailable(format!("there is no image {image}"), doctor.host.build_line()));
    }
    let mut interrupt = Interrupt::listen()?;
    // Marked like a host of `dind run`, so that prune finds one that nobody has removed.
    let labels = HashMap::from([(labels::OWNER.to_owned(), owner::this_process())]);
    let mut request = launch::prepare(endpoint, &doctor.host, labels, &progress).await?;
    let body = std::mem::take(&mut request.body);
    request.body = ContainerCreateBody {
        cmd: Some(command.iter().skip(1).map(|&word| word.to_owned()).collect()),
        ..body
    };
    let made = launch::create(endpoint, None, request, &progress, &mut interrupt).await?;
    let looked = async {
        launch::start(endpoint, &made).await?;
        let code = endpoint.end_of(&made.id).await.unwrap_or(-1);
        Ok((code, ready::last_lines(endpoint, &made.id, "all").await))
    };
    let looked = tokio::select! {
        looked = looked => looked,
        number = interrupt.caught() => Err(interrupted(number, "the container that looked is removed")),
    };
    launch::discard(endpoint, &made, &mut interrupt).await?;
    let (code, lines) = looked?;
    output::print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    Ok(u8::try_from(code).unwrap_or(exit::FAILED))
}
