//! What a host says and how it ends, caught from before its start on: one that removes itself when it ends takes its log with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::query_parameters::{AttachContainerOptionsBuilder, WaitContainerOptionsBuilder};
use futures_util::StreamExt;
use tokio::task::JoinHandle;

use crate::endpoint::{self, ContainerId, Endpoint, Kind};
use crate::failure::{Failure, Result};

/// How many of the last lines are kept.
const LINES: usize = 20;
/// How long the last words of a host may take after its end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The watch over one host.
#[derive(Debug)]
pub(crate) struct Watch {
    lines: Arc<Mutex<VecDeque<String>>>,
    code: Arc<Mutex<Option<i64>>>,
    reading: JoinHandle<()>,
    ending: JoinHandle<()>,
}

impl Watch {
    /// Begins it, before the host is started.
    ///
    /// # Errors
    /// The endpoint refuses.
    pub(crate) async fn begin(endpoint: &Endpoint, id: &ContainerId, name: &str) -> Result<Self> {
        let options = AttachContainerOptionsBuilder::new().stream(true).stdout(true).stderr(true).build();
        let attached =
            endpoint.docker.attach_container(id.as_str(), Some(options)).await.map_err(|error| {
                Failure::new(
                    format!("the host {name} cannot be attached to: {}", endpoint::cause(&error)),
                    "try again, or look at the engine's log",
                )
            })?;
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let reading = tokio::spawn(read(attached.output, Arc::clone(&lines)));
        // An engine of before 1.30, and VIC, would take one that has not started for one that has ended.
        let asks = endpoint.kind == Kind::Engine && endpoint.speaks(1, 30);
        let (docker, id) = (endpoint.docker.clone(), id.clone());
        let code = Arc::new(Mutex::new(None));
        let caught = Arc::clone(&code);
        let ending = tokio::spawn(async move {
            if asks {
                let options = WaitContainerOptionsBuilder::new().condition("next-exit").build();
                let mut wait = std::pin::pin!(docker.wait_container(id.as_str(), Some(options)));
                let code = wait.next().await.and_then(endpoint::ended);
                *caught.lock().unwrap_or_else(PoisonError::into_inner) = code;
            }
        });
        Ok(Self { lines, code, reading, ending })
    }

    /// Waits for the host's end: it has nothing more to say.
    pub(crate) async fn ended(&mut self) {
        // A task that is known to have ended must not be asked again.
        if !self.reading.is_finished() {
            let _ = (&mut self.reading).await;
        }
    }

    /// The last lines of a host that has ended, and its exit code, if they were caught.
    pub(crate) async fn end(&mut self) -> (Vec<String>, Option<i64>) {
        let _ = tokio::time::timeout(LAST_WORDS, self.ended()).await;
        if !self.ending.is_finished() {
            let _ = tokio::time::timeout(LAST_WORDS, &mut self.ending).await;
        }
        let code = *self.code.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        (lines.iter().cloned().collect(), code)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.reading.abort();
        self.ending.abort();
    }
}

async fn read(
    mut output: impl futures_util::Stream<Item = Result<bollard::container::LogOutput, bollard::errors::Error>>
    + Unpin,
    lines: Arc<Mutex<VecDeque<String>>>,
) {
    let mut partial = String::new();
    while let Some(Ok(piece)) = output.next().await {
        partial.push_str(&String::from_utf8_lossy(&piece.into_bytes()));
        while let Some(end) = partial.find('\n') {
            let line: String = partial.drain(..=end).collect();
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push_back(line.trim_end().to_owned());
            if lines.len() > LINES {
                lines.pop_front();
            }
        }
    }
}
