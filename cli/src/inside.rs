//! Programs inside a host, run by the engine's exec and read to their end.

use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use futures_util::StreamExt;

use crate::endpoint::{self, ContainerId, Endpoint, ExecId};
use crate::failure::{Failure, Result};

/// How a program inside a host ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its exit code; `None` when the container ended with it.
    pub(crate) code: Option<i64>,
    /// What it wrote to standard output.
    pub(crate) stdout: String,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
}

impl Answer {
    /// What it wrote to standard output, if it succeeded.
    ///
    /// # Errors
    /// It failed; `what` is what was wanted of it.
    pub(crate) fn ok(self, what: &str, host: &str) -> Result<String> {
        if self.code == Some(0) {
            return Ok(self.stdout);
        }
        let said = self.stderr.trim().lines().map(str::to_owned).collect::<Vec<_>>();
        let code =
            self.code.map_or_else(|| "it ended with the host".to_owned(), |code| format!("exit code {code}"));
        Err(Failure::new(format!("{what}: {code}"), format!("the host's log may say more: dind logs {host}"))
            .with_details(said))
    }
}

/// Why a program inside a host has not run.
#[derive(Debug)]
pub(crate) enum RunError {
    /// The engine refuses, with its status: the container does not run, or there is no such program.
    Refused(bollard::errors::Error),
    /// The endpoint's answer is not what it should be.
    Distrusted(Failure),
}

impl RunError {
    /// As a failure: `refused` makes what the engine refuses into one, from its cause.
    pub(crate) fn told(self, refused: impl FnOnce(&str) -> Failure) -> Failure {
        match self {
            Self::Refused(error) => refused(&endpoint::cause(&error)),
            Self::Distrusted(failure) => failure,
        }
    }
}

impl From<bollard::errors::Error> for RunError {
    fn from(error: bollard::errors::Error) -> Self {
        Self::Refused(error)
    }
}

/// Runs a program inside a host; `heard` gets each line of its standard output as it comes.
///
/// # Errors
/// The engine refuses to run it, or gives it an id that is none.
pub(crate) async fn run(
    endpoint: &Endpoint,
    id: &ContainerId,
    command: &[&str],
    heard: impl FnMut(&str),
) -> Result<Answer, RunError> {
    run_with(endpoint, id, command, None, Vec::new(), heard).await
}

/// The same in a folder, and with variables: `NAME=VALUE`.
///
/// # Errors
/// As [`run`].
pub(crate) async fn run_with(
    endpoint: &Endpoint,
    id: &ContainerId,
    command: &[&str],
    folder: Option<&str>,
    environment: Vec<String>,
    mut heard: impl FnMut(&str),
) -> Result<Answer, RunError> {
    let config = ExecConfig {
        working_dir: folder.map(str::to_owned),
        env: (!environment.is_empty()).then_some(environment),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command.iter().map(|&word| word.to_owned()).collect()),
        ..Default::default()
    };
    let exec = endpoint.docker.create_exec(id.as_str(), config).await?.id;
    let exec: ExecId = endpoint.parse(&exec).map_err(RunError::Distrusted)?;
    let exec = exec.as_str();
    let mut answer = Answer::default();
    let mut partial = String::new();
    if let StartExecResults::Attached { mut output, .. } = endpoint.docker.start_exec(exec, None).await? {
        while let Some(piece) = output.next().await {
            match piece {
                Ok(LogOutput::StdErr { message }) => {
                    answer.stderr.push_str(&String::from_utf8_lossy(&message));
                }
                Ok(piece) => {
                    let text = String::from_utf8_lossy(&piece.into_bytes()).into_owned();
                    partial.push_str(&text);
                    while let Some(end) = partial.find('\n') {
                        let line: String = partial.drain(..=end).collect();
                        heard(line.trim_end());
                    }
                    answer.stdout.push_str(&text);
                }
                // The container has ended, and the connection with it.
                Err(_) => break,
            }
        }
    }
    answer.code = endpoint.docker.inspect_exec(exec).await.ok().and_then(|exec| exec.exit_code);
    Ok(answer)
}

/// Runs a program in a host that should be running.
///
/// # Errors
/// The engine cannot run it.
pub(crate) async fn ask(
    endpoint: &Endpoint,
    id: &ContainerId,
    name: &str,
    command: &[&str],
) -> Result<Answer> {
    run(endpoint, id, command, |_| ()).await.map_err(|error| {
        error.told(|cause| {
            Failure::new(
                format!("cannot run {} in the host {name}: {cause}", command.first().unwrap_or(&"")),
                format!("see whether it runs: dind ls -a; its log: dind logs {name}"),
            )
        })
    })
}
