//! `dind run`: a host for as long as one command runs, which finds it in its environment.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;
use dind_contract::{exit, labels, variables};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::endpoint::{Endpoint, Kind, VolumeName};
use crate::failure::{Failure, Result};
use crate::hosts::Host;
use crate::launch::{self, Made};
use crate::options::{HostOptions, Request, units};
use crate::progress::Progress;
use crate::reach::{self, Reach};
use crate::signals::{Interrupt, interrupted};
use crate::{Context, failure, owner, terminal, warm};

/// How long a host lives of which nobody has said how long.
const TIME_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// How long a command that was asked to end may take.
const GRACE: Duration = Duration::from_secs(10);

/// Run a command with a host of its own: DOCKER_HOST and the like are set for it, the host is removed afterwards
///
/// The command runs here, in this folder; what it starts with docker, compose or a client library runs on the new host. The exit
/// code is the command's; 125 means that there was no host for it, 126 and 127 that it could not be started.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) host: HostOptions,
    /// Start on a copy of the data in this volume: what the command does to it is thrown away
    #[arg(long, value_name = "VOLUME", help_heading = "The host")]
    pub(crate) from: Option<String>,
    /// The host ends by itself after this time, also when nobody is left to remove it; 0 for never [default: 6h]
    #[arg(long, value_name = "TIME", value_parser = units::time, help_heading = "The host")]
    pub(crate) time_limit: Option<Duration>,
    /// Say nothing but what the command says
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Does it; the exit code is the command's.
pub(crate) async fn run(context: &Context, run: Run) -> Result<u8> {
    if run.host.local {
        return Err(no_command(Failure::usage(
            "--local leaves no way for the command to reach the host",
            "leave it out",
        )));
    }
    let program = found(&run.command)?;
    if let Some(volume) = &run.from {
        if volume.is_empty() || volume.contains('/') {
            return Err(no_command(Failure::usage(
                format!("--from {volume:?} is not the name of a volume"),
                "give the name of one that a host has used: dind run --volume NAME -- CMD",
            )));
        }
        if run.host.keeps_data() {
            return Err(no_command(Failure::usage(
                "--from and --volume both say where the host's data is",
                "leave one of them out: --volume keeps what the command does, --from throws it away",
            )));
        }
    }
    let progress = context.progress(run.quiet);
    let mut interrupt = Interrupt::listen()?;
    let endpoint = tokio::select! {
        endpoint = context.connect() => endpoint.map_err(no_command)?,
        number = interrupt.caught() => return Err(interrupted(number, "nothing was made")),
    };
    let prepared = prepare(&endpoint, &run, &progress);
    let request = tokio::select! {
        request = prepared => request.map_err(no_command)?,
        number = interrupt.caught() => return Err(interrupted(number, "nothing was made")),
    };
    let copy = match &run.from {
        Some(volume) => Some(warm::volume(&endpoint, volume).await.map_err(no_command)?),
        None => None,
    };
    let volumes = launch::new_volumes(&endpoint, &request).await;
    let request = warm::onto(request, copy.as_ref());
    let made = launch::create(&endpoint, None, request, &progress, &mut interrupt).await;
    let made = match made {
        Ok(made) => made,
        Err(failure) => {
            for volume in copy.iter().chain(&volumes) {
                let _ = launch::remove_volume(&endpoint, volume).await;
            }
            let is_ours = matches!(failure.code, failure::GENERAL | exit::UNAVAILABLE);
            return Err(if is_ours { no_command(failure) } else { failure });
        }
    };
    let ended = with_host(&endpoint, &run, &program, &made, copy.as_ref(), &progress, &mut interrupt).await;
    progress.clear();
    // A data root that somebody keeps is left in order; any other is nobody's any more.
    if run.host.keeps_data() {
        progress.begin(&format!("stopping {}, to keep its data in order", made.name), "");
        let _ = endpoint.docker.stop_container(made.id.as_str(), None).await;
        progress.clear();
    }
    if let Some(volume) = &copy {
        warm::abandon(&endpoint, volume).await;
    }
    let removed = launch::discard(&endpoint, &made, &mut interrupt).await;
    // One that has removed itself could not say which volume was its own.
    let copied = match &copy {
        Some(volume) => launch::remove_volume(&endpoint, volume).await,
        None => Ok(()),
    };
    if ended.is_err() {
        // No command has run: what was made for it is nobody's.
        for volume in &volumes {
            let _ = launch::remove_volume(&endpoint, volume).await;
        }
    }
    let code = ended?;
    removed.and(copied)?;
    Ok(code)
}

async fn prepare(endpoint: &Endpoint, run: &Run, progress: &Progress) -> Result<Request> {
    let labels = HashMap::from([(labels::OWNER.to_owned(), owner::this_process())]);
    let mut request = launch::prepare(endpoint, &run.host, labels, progress).await?;
    let env = request.body.env.get_or_insert_default();
    let given = env.iter().any(|variable| variable.starts_with(&format!("{}=", variables::DIND_TIME_LIMIT)));
    match run.time_limit {
        Some(_) if given => {
            return Err(Failure::usage(
                format!("--time-limit and -e {} say the same thing twice", variables::DIND_TIME_LIMIT),
                "leave one of them out",
            ));
        }
        None if given => {}
        limit => {
            let limit = limit.unwrap_or(TIME_LIMIT);
            if !limit.is_zero() {
                env.push(format!("{}={}", variables::DIND_TIME_LIMIT, limit.as_secs()));
            }
        }
    }
    if let Some(host) =
        request.body.host_config.as_mut().filter(|_| endpoint.speaks(1, 25) && endpoint.kind == Kind::Engine)
    {
        // When it ends by itself, nobody may be left to remove it.
        host.auto_remove = Some(true);
    }
    Ok(request)
}

/// From a container that is made to the end of the command.
async fn with_host(
    endpoint: &Endpoint,
    run: &Run,
    program: &Path,
    made: &Made,
    copy: Option<&VolumeName>,
    progress: &Progress,
    interrupt: &mut Interrupt,
) -> Result<u8> {
    let bring_up = async {
        if let (Some(source), Some(target)) = (&run.from, copy) {
            warm::copy(endpoint, &run.host.image(), source, target, progress).await?;
        }
        launch::announce(made, progress);
        let mut watch = launch::start(endpoint, made).await?;
        let status = launch::wait(endpoint, made, &mut watch, &run.host, progress).await?;
        let host = Host::find(endpoint, made.id.as_str()).await?;
        Ok((reach::find(endpoint, &host, &status).await?, watch))
    };
    let (reach, mut watch) = tokio::select! {
        brought = bring_up => brought.map_err(no_command)?,
        number = interrupt.caught() => return Err(interrupted(number, &format!("the host {} is removed", made.name))),
    };
    let mut child = spawn(program, &run.command, &reach)?;
    let mut watching = true;
    let mut asked = 0;
    loop {
        tokio::select! {
            ended = child.wait() => return ended.map(code).map_err(|e| Failure::new(format!("cannot wait for the command: {e}"), "report this as a defect")),
            number = interrupt.caught() => {
                asked += 1;
                if let Some(ended) = pass_on(&mut child, number, asked).await {
                    return Ok(code(ended));
                }
            }
            () = watch.ended(), if watching => {
                watching = false;
                let (lines, _) = watch.end().await;
                progress.note(&format!("the host {} has ended while the command runs", made.name));
                lines.iter().for_each(|line| crate::output::say(&format!("  | {line}")));
            }
        }
    }
}

/// Where the command's program is; looked up before a host is made for it.
fn found(words: &[OsString]) -> Result<PathBuf> {
    let program = words.first().cloned().unwrap_or_default();
    which::which(&program).map_err(|_| {
        let there = program.to_string_lossy().contains('/') && Path::new(&program).exists();
        let (cause, code) = if there {
            ("it is not executable", exit::NOT_EXECUTABLE)
        } else {
            ("there is no such program", exit::NOT_FOUND)
        };
        Failure::new(format!("cannot run {}: {cause}", program.display()), "look at its name, and at PATH")
            .with_code(code)
    })
}

/// Starts the command, with this terminal and in this folder.
fn spawn(program: &Path, words: &[OsString], reach: &Reach) -> Result<Child> {
    let mut command = Command::new(program);
    // Programs that have many names look at the one they were called by.
    command
        .arg0(words.first().map_or_else(|| program.as_os_str(), OsString::as_os_str))
        .args(words.iter().skip(1));
    for (name, value) in reach.variables() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.spawn().map_err(|e| {
        let code =
            if e.kind() == std::io::ErrorKind::NotFound { exit::NOT_FOUND } else { exit::NOT_EXECUTABLE };
        Failure::new(
            format!("cannot run {}: {e}", program.display()),
            "look whether it is in PATH, and executable",
        )
        .with_code(code)
    })
}

/// Tells the command of a signal that we got. It has got the terminal's own already; a second one is meant.
async fn pass_on(child: &mut Child, number: i32, asked: u32) -> Option<ExitStatus> {
    let from_the_terminal =
        matches!(Signal::try_from(number), Ok(Signal::SIGINT | Signal::SIGQUIT)) && terminal::is_ours();
    if from_the_terminal && asked == 1 {
        return None;
    }
    let signal = match Signal::try_from(number) {
        Ok(_) if from_the_terminal => Signal::SIGTERM,
        Ok(signal) => signal,
        Err(_) => Signal::SIGTERM,
    };
    send(child, signal);
    if signal == Signal::SIGINT && asked == 1 {
        return None;
    }
    match tokio::time::timeout(GRACE, child.wait()).await {
        Ok(ended) => ended.ok(),
        Err(_) => {
            send(child, Signal::SIGKILL);
            child.wait().await.ok()
        }
    }
}

fn send(child: &Child, signal: Signal) {
    // Not waited for yet, so its pid is still its own.
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// What a shell would make of it.
fn code(status: ExitStatus) -> u8 {
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .or(status.signal().map(exit::killed_by))
        .unwrap_or(exit::NO_COMMAND)
}

/// There is no host for the command, as docker says it. Signals keep their own code.
fn no_command(failure: Failure) -> Failure {
    failure.with_code(exit::NO_COMMAND)
}
