//! `dind exec`: a program in a host.

use std::io::IsTerminal;
use std::time::Duration;

use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bollard::query_parameters::ResizeExecOptionsBuilder;
use clap::Args;
use dind_contract::exit;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::commands::logs;
use crate::endpoint::{self, Endpoint, ExecId};
use crate::failure::{Failure, Result};
use crate::hosts::Host;
use crate::options::units;
use crate::{Context, terminal};

/// Run a program in a host, such as `dind exec -it NAME sh`
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Give it this standard input
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Do not wait for it
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub(crate) detach: bool,
    /// Set a variable for it: NAME=VALUE, or NAME for its value here
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = units::variable)]
    pub(crate) env: Vec<String>,
    /// As this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// In this folder
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) workdir: Option<String>,
    /// The host
    pub(crate) name: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// How often a program that has closed its output is asked whether it has ended.
const PAUSE: Duration = Duration::from_millis(50);

/// Does it; the exit code is the program's. It is 0 when the program was left to itself: nobody reads it any more, or its keys were
/// taken away by Ctrl-P Ctrl-Q.
pub(crate) async fn run(context: &Context, exec: Exec) -> Result<u8> {
    if exec.tty && exec.interactive && !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "standard input is not a terminal, so -t has nothing to give",
            "leave out -t",
        ));
    }
    let endpoint = context.connect().await?;
    let host = Host::find(&endpoint, &exec.name).await?;
    host.must_run("nothing can be run in it")?;
    let fail = |error: bollard::errors::Error| {
        Failure::new(
            format!(
                "cannot run {} in the host {}: {}",
                exec.command.join(" "),
                host.name,
                endpoint::cause(&error)
            ),
            "see whether the program is there, and the host runs: dind ls",
        )
        .with_code(exit::NOT_EXECUTABLE)
    };
    let env: Vec<String> = exec
        .env
        .iter()
        .filter_map(|variable| units::with_value(variable))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let config = ExecConfig {
        attach_stdin: Some(exec.interactive),
        attach_stdout: Some(!exec.detach),
        attach_stderr: Some(!exec.detach),
        tty: Some(exec.tty),
        env: (!env.is_empty()).then_some(env),
        cmd: Some(exec.command.clone()),
        user: exec.user.clone(),
        working_dir: exec.workdir.clone(),
        ..Default::default()
    };
    let id = endpoint.docker.create_exec(host.id.as_str(), config).await.map_err(fail)?.id;
    let id: ExecId = endpoint.parse(&id)?;
    let options = StartExecOptions { detach: exec.detach, tty: exec.tty, ..Default::default() };
    let end = match endpoint.docker.start_exec(id.as_str(), Some(options)).await.map_err(fail)? {
        StartExecResults::Detached => return Ok(0),
        StartExecResults::Attached { output, input } => attach(&endpoint, &id, &exec, output, input).await?,
    };
    match end {
        End::Left => Ok(0),
        End::Closed | End::Broken(_) => code(&endpoint, &id, &exec, &host, &end).await,
    }
}

/// Why nothing more is carried.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The program closed its output.
    Closed,
    /// The connection broke, and why.
    Broken(String),
    /// Nobody is there for the program any more, and it may go on.
    Left,
}

/// The exit code of a program whose output has ended.
async fn code(endpoint: &Endpoint, id: &ExecId, exec: &Exec, host: &Host, end: &End) -> Result<u8> {
    let command = exec.command.join(" ");
    loop {
        let program = endpoint.docker.inspect_exec(id.as_str()).await.ok();
        if let Some(code) = program.as_ref().and_then(|program| u8::try_from(program.exit_code?).ok()) {
            return Ok(code);
        }
        let goes_on = program.and_then(|program| program.running) == Some(true);
        // An endpoint that does not answer, or that no longer knows the host, says nothing of the host's end but this.
        let runs = Host::find(endpoint, host.id.as_str()).await?.runs();
        match end {
            _ if !runs => {
                return Err(Failure::new(
                    format!("the host {} ended while {command} ran in it", host.name),
                    format!("look at its log: dind logs {}", host.name),
                ));
            }
            End::Broken(cause) => {
                return Err(Failure::new(
                    format!("the connection to {command} in the host {} broke: {cause}", host.name),
                    format!("it may still run; see: dind exec {} ps -ef", host.name),
                ));
            }
            _ if !goes_on => {
                return Err(Failure::new(
                    format!("the endpoint does not say how {command} ended in the host {}", host.name),
                    format!("look at its log: dind logs {}", host.name),
                ));
            }
            // It has closed its output, and goes on without.
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

type Output = std::pin::Pin<
    Box<
        dyn futures_util::Stream<Item = Result<bollard::container::LogOutput, bollard::errors::Error>> + Send,
    >,
>;
type Input = std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>;

/// Carries input and output until the program closes its output, or is left.
async fn attach(
    endpoint: &Endpoint,
    id: &ExecId,
    exec: &Exec,
    mut output: Output,
    input: Input,
) -> Result<End> {
    let _raw = if exec.tty && exec.interactive { terminal::Raw::begin() } else { None };
    let mut resized = signal(SignalKind::window_change())
        .map_err(|e| Failure::new(format!("cannot listen to signals: {e}"), "report this as a defect"))?;
    if exec.tty {
        resize(endpoint, id).await;
    }
    let mut fed = None;
    if exec.interactive {
        fed = Some(tokio::spawn(feed(input, exec.tty)));
    }
    loop {
        tokio::select! {
            piece = output.next() => match piece {
                Some(Ok(piece)) => if !logs::show(piece)? { return Ok(End::Left); },
                Some(Err(error)) => return Ok(End::Broken(endpoint::cause(&error))),
                None => return Ok(End::Closed),
            },
            Some(left) = async { fed.as_mut()?.await.ok() }, if fed.is_some() => {
                if left {
                    return Ok(End::Left);
                }
                fed = None;
            },
            _ = resized.recv(), if exec.tty => resize(endpoint, id).await,
        }
    }
}

/// Carries standard input to the program, and its end; with a terminal, until the keys with which one leaves. Whether they came.
async fn feed(mut input: Input, tty: bool) -> bool {
    let mut stdin = tokio::io::stdin();
    let mut bytes = vec![0; 16 * 1024];
    let mut keys = Keys::default();
    while let Ok(length @ 1..) = stdin.read(&mut bytes).await {
        let Some(piece) = bytes.get(..length) else { break };
        let (piece, left) = if tty { keys.pass(piece) } else { (piece.to_vec(), false) };
        if input.write_all(&piece).await.is_err() || input.flush().await.is_err() {
            return false;
        }
        if left {
            return true;
        }
    }
    let _ = input.shutdown().await;
    false
}

/// The keys with which one leaves a program, as the docker command has them. The engine knows them, too, and calls them an error.
#[derive(Debug, Default)]
struct Keys {
    /// Whether the last key was the first of the two, which is held back until the next one.
    begun: bool,
}

impl Keys {
    /// What of these keys is the program's, and whether one leaves it.
    fn pass(&mut self, keys: &[u8]) -> (Vec<u8>, bool) {
        const FIRST: u8 = 0x10;
        const SECOND: u8 = 0x11;
        let mut passed = Vec::with_capacity(keys.len() + 1);
        for &key in keys {
            if self.begun && key == SECOND {
                return (passed, true);
            }
            if std::mem::replace(&mut self.begun, key == FIRST) {
                passed.push(FIRST);
            }
            if key != FIRST {
                passed.push(key);
            }
        }
        (passed, false)
    }
}

async fn resize(endpoint: &Endpoint, id: &ExecId) {
    if let Some((rows, columns)) = terminal::size() {
        let options = ResizeExecOptionsBuilder::new().h(rows.into()).w(columns.into()).build();
        // The program may have ended by now.
        let _ = endpoint.docker.resize_exec(id.as_str(), options).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_to_leave_are_ctrl_p_and_ctrl_q() {
        for (pieces, passed, left) in [
            (&["ab\x10\x11c"][..], "ab", true),
            (&["a\x10", "\x11"][..], "a", true),
            (&["\x10\x10\x11"][..], "\x10", true),
            (&["\x11\x10", "b"][..], "\x11\x10b", false),
            (&["plain"][..], "plain", false),
        ] {
            let mut keys = Keys::default();
            let mut all = Vec::new();
            let mut last = false;
            for piece in pieces {
                let (passed, left) = keys.pass(piece.as_bytes());
                all.extend(passed);
                last = left;
            }
            assert_eq!((all.as_slice(), last), (passed.as_bytes(), left), "{pieces:?}");
        }
    }
}
