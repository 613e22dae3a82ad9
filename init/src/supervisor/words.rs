//! The words between the supervisor and the loop: what it is told, and what it wants done.

use std::time::Duration;

use dind_contract::exit;

use crate::failure::Failure;
use crate::log::Level;

/// What the supervisor knows of a service. The position in the list of all is its id, and the order of starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Its name in the log.
    pub(crate) name: &'static str,
    /// Ids of the services that must be started before it and stopped after it.
    pub(crate) uses: Vec<usize>,
    /// The longest it may take until it is ready.
    pub(crate) ready_within: Duration,
    /// Whether the API must answer, too, before it counts as ready.
    pub(crate) answers_ping: bool,
    /// Whether it runs with options from outside, which it may refuse.
    pub(crate) takes_options: bool,
    /// Whether it waits for containers when it is asked to end.
    pub(crate) holds_containers: bool,
    /// Whether sessions that it began go on when it has ended: they may, for their share of a stop's time.
    pub(crate) holds_sessions: bool,
    /// Whether it looks after the application: that ends before anything else in a stop, and decides for itself how long it takes
    /// to be ready.
    pub(crate) runs_application: bool,
    /// Whether the host is ready only when it is. One that is not waited for is started again for ever when it dies; so is one
    /// that is, and not [essential](Self::essential), as soon as it has ever been ready.
    pub(crate) awaited: bool,
    /// Whether the state of the data root depends on how it ends. What is essential is awaited, too.
    pub(crate) essential: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

impl End {
    /// The exit code that a shell would give it.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => exit::killed_by(signal),
        }
    }

    pub(super) fn words(self) -> String {
        match self {
            Self::Code(code) => format!("ended with code {code}"),
            Self::Signal(signal) => format!("was killed by signal {signal}"),
        }
    }
}

/// What happens to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The ground is ready: services may start.
    Start,
    /// A process for the service runs.
    Spawned { service: usize, pid: i32 },
    /// None could be made.
    SpawnFailed { service: usize, why: String },
    /// The service said that it is ready.
    Notified { service: usize },
    /// The service said that it is not ready any more.
    Withdrawn { service: usize },
    /// The application has ended for good: every container of it, and this is what a user shall read and see.
    ApplicationEnded { code: u8, words: String },
    /// The API answered, or did not.
    Pinged { service: usize, answered: bool },
    /// The engine has acknowledged something that must be kept.
    Acknowledged,
    /// Something has changed among the images, which the engine may have told nobody.
    ImagesChanged,
    /// Acknowledgements are not heard any more.
    WatchEnded,
    /// The data root is on disk as it was when the sync began; `trouble`: or it is not.
    Synced { trouble: Option<String> },
    /// The service, which was asked to end, has said that nothing is left for it to do. It may still wait for its clients.
    Finished { service: usize },
    /// The service's process ended. `spoke`: it had logged an event; `last`: its last line that was none.
    Exited { service: usize, end: End, spoke: bool, last: Option<String> },
    /// A signal came; its number is the kernel's.
    Signalled { number: u32 },
    /// Somebody asked for a clean stop; asked again, it hurries.
    StopAsked { why: String },
    /// Somebody asked dockerd to read its configuration again.
    ReloadAsked,
    /// The command could not be run.
    CommandNotRun { failure: Failure },
    /// The command's process ended.
    CommandEnded { end: End },
    /// So many sessions are left of those that the service had begun before its process ended.
    SessionsLeft { service: usize, count: usize },
    /// So many processes of ours are left, besides services.
    StraysLeft { count: usize },
    /// The data root is on disk, or could not be brought there.
    Flushed { done: bool },
    /// Time has passed.
    Tick,
}

/// What the supervisor wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start the service's process and answer with `Spawned` or `SpawnFailed`.
    Spawn { service: usize },
    /// Send its process a signal.
    Signal { service: usize, signal: Signal },
    /// Ask the API whether it answers (`again`: and whether it has found what it uses again) and answer with `Pinged`.
    Ping { service: usize, again: bool },
    /// Listen to what the engine acknowledges: answer with `Acknowledged` or `ImagesChanged` each time, and with `WatchEnded` when it is over.
    Watch,
    /// Bring the data root to the disk while the engine runs, and answer with `Synced`.
    Sync,
    /// Kill the processes of all containers, so that the engine need not wait for them.
    EndContainers,
    /// Signal the sessions that the service has left behind (`None`: only count them) and answer with `SessionsLeft`.
    EndSessions { service: usize, signal: Option<Signal> },
    /// Signal whatever is left of ours (`None`: only count it) and answer with `StraysLeft`.
    EndStrays { signal: Option<Signal> },
    /// Bring the data root to the disk, mark it clean if `clean`, and answer with `Flushed`.
    Flush { clean: bool },
    /// Wait no longer for the flush.
    AbandonFlush,
    /// Run the command in the foreground; answer with `CommandNotRun` if that fails, and with `CommandEnded` when it is over.
    RunCommand,
    /// Pass a signal on to it.
    PassOn { number: u32 },
    /// Ask it to end, or kill it.
    EndCommand { signal: Signal },
    /// Say that the host is ready (`first`: for the first time).
    Announce { first: bool },
    /// Put a line into the log.
    Say { level: Level, message: String },
    /// The host is down: end with this.
    Exit(Outcome),
}

/// Signals that services and strays get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Reload,
    Terminate,
    Kill,
}

/// How a host ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What the command ended with, or why it never ran: then no failure of the host's matters to whoever asked for it.
    pub(crate) code: Option<u8>,
    /// What a user must read, if anything.
    pub(crate) failure: Option<Failure>,
    /// How long the host was allowed to live, where that is why it ended.
    pub(crate) time_over: Option<Duration>,
    /// The service whose last lines belong to it.
    pub(crate) blamed: Option<usize>,
}

impl Outcome {
    pub(crate) const CLEAN: Self = Self { code: None, failure: None, time_over: None, blamed: None };

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code.or(self.failure.as_ref().map(|failure| failure.code)).unwrap_or(exit::CLEAN)
    }
}
