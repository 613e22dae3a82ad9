//! Waiting for a host: what it says of itself until it is ready, and what to say when it does not get there.

use std::time::Duration;

use bollard::query_parameters::LogsOptionsBuilder;
use dind_contract::status::ServiceState;
use dind_contract::{Status, exit};
use futures_util::StreamExt;

use crate::endpoint::{ContainerId, Endpoint, cause};
use crate::failure::{Failure, Result};
use crate::inside::{self, RunError};
use crate::launch::Made;
use crate::progress::{Progress, seconds};
use crate::watch::Watch;

/// How much of a log is shown when something went wrong.
const LAST_LINES: &str = "20";
/// Exit code of what SIGKILL has ended.
const KILLED: u8 = 137;
/// How much longer than the host's own patience it is waited for.
const GRACE: Duration = Duration::from_secs(3);
/// How long each look at a host that is late may take.
const LOOK: Duration = Duration::from_secs(10);
/// How long a host that is ending may take until its exit code is asked for.
const END: Duration = Duration::from_secs(20);

/// Waits until the host is ready, and shows what it is doing.
///
/// # Errors
/// It ended, or is not ready in time: with the last lines of its log, and what `doctor` has found.
pub(crate) async fn wait(
    endpoint: &Endpoint,
    made: &Made,
    watch: &mut Watch,
    timeout: Duration,
    progress: &Progress,
) -> Result<Status> {
    let (id, name) = (&made.id, made.name.as_str());
    let mut last: Option<Status> = None;
    let seconds = timeout.as_secs().to_string();
    let heard = |line: &str| {
        if let Ok(status) = serde_json::from_str::<Status>(line) {
            progress.detail(&describe(&status));
            last = Some(status);
        }
    };
    let command = ["dind-init", "wait", "--json", "--timeout", &seconds];
    let asked = inside::run(endpoint, id, &command, heard);
    // The host keeps the time itself; one that stands still, or an endpoint that does, says nothing at all.
    let Ok(answer) = tokio::time::timeout(timeout + GRACE, asked).await else {
        return Err(late(endpoint, id, name, timeout, last.as_ref()).await);
    };
    match answer {
        Ok(answer) if answer.code == Some(0) => last.ok_or_else(|| {
            Failure::new(
                format!("the host {name} is ready, and says so in words that this dind does not know"),
                "its image is of another version: build it again with `dind build`",
            )
        }),
        Ok(answer) if answer.code == Some(exit::TIMED_OUT.into()) => {
            Err(late(endpoint, id, name, timeout, last.as_ref()).await)
        }
        Ok(answer) if answer.code == Some(exit::USAGE.into()) => Err(Failure::new(
            format!(
                "the host {name} is of an image that this dind does not fit: {}",
                answer.stderr.lines().next().unwrap_or_default()
            ),
            "build the image again with this dind: dind build",
        )),
        Ok(answer) => Err(died(endpoint, made, watch, answer.stderr.trim()).await),
        Err(RunError::Refused(error)) => Err(died(endpoint, made, watch, &cause(&error)).await),
        Err(RunError::Distrusted(failure)) => Err(failure),
    }
}

/// The steps of a start as the host tells them, for who looks on.
pub(crate) fn tell(status: &Status, progress: &Progress) {
    for step in status.steps.iter().filter(|step| step.ms > 0) {
        progress.took(&format!("host: {}", step.name), Duration::from_millis(step.ms));
    }
    for warning in &status.warnings {
        progress.note(&format!("warning: {warning}"));
    }
}

fn describe(status: &Status) -> String {
    let waits: Vec<&str> = status
        .services
        .iter()
        .filter(|service| service.state != ServiceState::Ready)
        .map(|service| service.name.as_str())
        .collect();
    if waits.is_empty() {
        status.phase.word().to_owned()
    } else {
        format!("waiting for {}", waits.join(", "))
    }
}

async fn late(
    endpoint: &Endpoint,
    id: &ContainerId,
    name: &str,
    timeout: Duration,
    last: Option<&Status>,
) -> Failure {
    let seen = last.map_or_else(|| "it has not said anything yet".to_owned(), describe);
    let lines = tokio::time::timeout(LOOK, last_lines(endpoint, id, LAST_LINES)).await;
    let mut details = lines.unwrap_or_default();
    if is_paused(endpoint, id).await {
        return paused(endpoint, name).with_details(details);
    }
    let doctor = inside::run(endpoint, id, &["dind-init", "doctor"], |_| ());
    if let Ok(Ok(answer)) = tokio::time::timeout(LOOK, doctor).await {
        let doctor = answer.stdout + &answer.stderr;
        details.extend(doctor.lines().map(|line| format!("doctor: {line}")));
    }
    Failure::new(
        format!("the host {name} is not ready after {}: {seen}", seconds(timeout)),
        format!(
            "it goes on: {dind} logs -f {name}; give it more time with --timeout; remove it: {dind} rm -f {name}",
            dind = endpoint.command()
        ),
    )
    .with_code(exit::TIMED_OUT)
    .with_details(details)
}

async fn is_paused(endpoint: &Endpoint, id: &ContainerId) -> bool {
    // An engine that is stuck in pausing it does not say even this.
    let looked = tokio::time::timeout(LOOK, endpoint.docker.inspect_container(id.as_str(), None)).await;
    let container = looked.ok().and_then(Result::ok);
    container.and_then(|container| container.state?.paused).unwrap_or(false)
}

fn paused(endpoint: &Endpoint, name: &str) -> Failure {
    Failure::new(
        format!("the host {name} is not ready: it is paused"),
        format!("let it go on: docker unpause {name}; or remove it: {} rm -f {name}", endpoint.command()),
    )
    .with_code(exit::TIMED_OUT)
}

/// Why a host is not there any more, or cannot be asked.
async fn died(endpoint: &Endpoint, made: &Made, watch: &mut Watch, seen: &str) -> Failure {
    let name = &made.name;
    if is_paused(endpoint, &made.id).await {
        return paused(endpoint, name);
    }
    let _ = tokio::time::timeout(END, watch.ended()).await;
    let container = endpoint.docker.inspect_container(made.id.as_str(), None).await.ok();
    let state = container.and_then(|container| container.state).unwrap_or_default();
    if state.running == Some(true) {
        return Failure::new(
            format!("the host {name} cannot be asked whether it is ready: {seen}"),
            format!("look at its log: dind logs {name}"),
        )
        .with_details(last_lines(endpoint, &made.id, LAST_LINES).await);
    }
    let (lines, caught) = watch.end().await;
    let code = caught.or(state.exit_code);
    let why = if state.oom_killed == Some(true) {
        ": it ran out of the memory that it was given".to_owned()
    } else {
        state.error.filter(|error| !error.is_empty()).map_or_else(String::new, |error| format!(": {error}"))
    };
    let help = match code.and_then(|code| u8::try_from(code).ok()) {
        Some(exit::USAGE) => "mend the option or variable that the last line names",
        Some(exit::UNAVAILABLE) => {
            "its last lines say what it lacks, or who else has its data; what the endpoint offers: dind doctor"
        }
        Some(KILLED) => "it was killed from outside, or for lack of memory: give it more with -m",
        _ => "its last lines are above",
    };
    let code = code.map_or_else(String::new, |code| format!(", with exit code {code}"));
    Failure::new(format!("the host {name} ended while it was starting{code}{why}"), help).with_details(lines)
}

/// The last lines of a host's log.
pub(crate) async fn last_lines(endpoint: &Endpoint, id: &ContainerId, number: &str) -> Vec<String> {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(number).build();
    let pieces: Vec<_> = endpoint.docker.logs(id.as_str(), Some(options)).collect().await;
    let bytes: Vec<u8> =
        pieces.into_iter().filter_map(Result::ok).flat_map(|piece| piece.into_bytes().to_vec()).collect();
    String::from_utf8_lossy(&bytes).lines().map(|line| line.trim_end().to_owned()).collect()
}
