//! Looks after the application, from its start to its stop: an ordinary program, started by the host as a service is. It lets Compose
//! start and stop everything, follows what the containers write, and reports to the host how they are.
//!
//! Compose's own process is not waited for longer than a start takes: how the application is, the engine's events say.
#![allow(
    clippy::disallowed_methods,
    reason = "a child of PID 1 looks after its own children, in threads of its own"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::BufRead;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use dind_contract::{paths, store};
use nix::sys::signal::{SigSet, Signal};

use super::containers::{Containers, Verdict};
use super::contexts::Contexts;
use super::engine::{Engine, Event};
use super::journal::Journal;
use super::output;
use super::programs::{self, Running};
use super::{Project, Report};
use crate::failure::Failure;
use crate::log::{Level, parse_event};
use crate::supervisor::Moment;
use crate::{notify, process};

/// Time between two tries to reach the engine.
const AGAIN: Duration = Duration::from_millis(20);
/// Time between two looks at containers that wait for their restart policy.
const LOOK: Duration = Duration::from_secs(1);
/// How long whoever reads the host's log may take for a line when all containers have ended: they have written more, perhaps, and
/// it is read as fast as the log is.
const LAST_LINES: Duration = Duration::from_secs(5);
/// The same in a stop, which has a time of its own.
const LAST_LINES_OF_STOP: Duration = Duration::from_millis(500);
/// What Compose itself needs of the time for a stop: it starts, and asks the engine what there is.
const OVERHEAD: Duration = Duration::from_millis(300);
/// How often it is tried to bring back what an engine has lost that died.
const TRIES: u32 = 5;

/// What the host wants done.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct Duty {
    #[command(flatten)]
    pub(crate) project: Project,
    /// How long a stop may take, in milliseconds
    #[arg(long)]
    pub(crate) stop_within: u64,
    /// Where the data of the host is
    #[arg(long)]
    pub(crate) data_root: PathBuf,
}

impl Duty {
    /// The arguments for the helper that does it.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut words = self.project.of_helper();
        words.extend(["--stop-within".to_owned(), self.stop_within.to_string()]);
        words.extend(["--data-root".to_owned(), self.data_root.display().to_string()]);
        words
    }
}

/// What threads tell.
enum Fact {
    /// The host is to stop.
    Ending,
    /// The engine tells its events from now on.
    Watching,
    /// An event.
    Happened(Event),
    /// It tells none any more.
    Deaf,
    /// The log of this container has come to its end, or cannot be had.
    Followed { id: String, trouble: Option<String> },
    /// Compose has said something.
    Said(String),
    /// A run of Compose has ended.
    Done { run: usize, code: i32 },
}

/// What Compose is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has begun: the engine does not answer yet.
    Before,
    /// The engine is given what it lacks of the images that were sealed in.
    Loading,
    /// It starts everything.
    Starting,
    /// It has nothing to do.
    Up,
    /// It brings back what was lost; so often it was tried.
    Restoring { tries: u32 },
    /// The application has ended, or cannot come up, and the host knows.
    Over,
    /// It stops everything.
    Stopping,
    /// It has done that, and the last lines are awaited.
    Stopped { until: Moment },
}

struct Application<'a> {
    duty: &'a Duty,
    name: String,
    engine: Engine<'a>,
    /// Odd while the engine tells its events, and another number each time that it begins or ends to.
    epoch: Arc<AtomicU64>,
    facts: Sender<Fact>,
    journal: Arc<Journal>,
    contexts: Contexts,
    containers: Containers,
    /// Containers whose output is followed.
    followed: BTreeSet<String>,
    /// Containers whose output cannot be had.
    silent: BTreeSet<String>,
    phase: Phase,
    compose: Option<(usize, Running)>,
    runs: usize,
    /// The containers that were alive when the engine was last heard.
    lost: Vec<String>,
    /// In a stop: how long each container may take, and when each that was asked to end is ended (`None`: that was done).
    share: Duration,
    ends: BTreeMap<String, Option<Moment>>,
    /// When everything had ended, or the last line after that was passed on.
    over_since: Option<Moment>,
    /// How many lines were passed on when that was looked at last.
    passed: u64,
    told: Option<Report>,
    began: Instant,
}

/// Looks after an application until it is told to stop.
///
/// # Errors
/// It cannot begin.
pub(crate) fn run(duty: &Duty) -> Result<ExitCode, Failure> {
    let cannot = |what: &str, e: std::io::Error| {
        Failure::unavailable(
            format!("cannot {what}: {e}"),
            "give the host a writable /run, and more processes",
        )
    };
    // Before there are threads, which inherit it.
    let ending = SigSet::from(Signal::SIGTERM);
    ending.thread_block().map_err(|e| cannot("wait for signals", e.into()))?;
    let journal =
        Journal::open(Path::new(paths::APPLICATION_STATE)).map_err(|e| cannot("keep a journal", e))?;
    let (facts, heard) = channel();
    let told = facts.clone();
    thread::spawn(move || {
        let _ = ending.wait();
        let _ = told.send(Fact::Ending);
    });
    let (told, name) = (facts.clone(), duty.project.name.clone().unwrap_or_default());
    let watched = name.clone();
    let epoch = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&epoch);
    thread::spawn(move || watch(&watched, &told, &counted));
    let config = fs::read(paths::APPLICATION).unwrap_or_default();
    let config = serde_json::from_slice(&config).unwrap_or_default();
    let mut application = Application {
        duty,
        name,
        engine: Engine(Path::new(paths::DOCKER_SOCKET)),
        epoch,
        facts,
        journal: Arc::new(journal),
        contexts: Contexts::read(&config, &duty.data_root.join(paths::BUILT_FILE)),
        containers: Containers::default(),
        followed: BTreeSet::new(),
        silent: BTreeSet::new(),
        phase: Phase::Before,
        compose: None,
        runs: 0,
        lost: Vec::new(),
        share: Duration::ZERO,
        ends: BTreeMap::new(),
        over_since: None,
        passed: 0,
        told: None,
        began: Instant::now(),
    };
    Ok(application.live(&heard))
}

/// Tells the events of a project's containers, as long as anybody wants to know.
fn watch(name: &str, facts: &Sender<Fact>, epoch: &AtomicU64) {
    let engine = Engine(Path::new(paths::DOCKER_SOCKET));
    loop {
        if engine.answers()
            && let Ok(answer) = engine.events(name)
        {
            epoch.fetch_add(1, Ordering::SeqCst);
            if facts.send(Fact::Watching).is_err() {
                return;
            }
            for line in answer.body.lines().map_while(Result::ok) {
                if let Some(event) = Event::parse(&line)
                    && facts.send(Fact::Happened(event)).is_err()
                {
                    return;
                }
            }
            epoch.fetch_add(1, Ordering::SeqCst);
            let _ = facts.send(Fact::Deaf);
        }
        thread::sleep(AGAIN);
    }
}

impl Application<'_> {
    fn now(&self) -> Moment {
        self.began.elapsed()
    }

    fn live(&mut self, heard: &Receiver<Fact>) -> ExitCode {
        loop {
            let wait = self.deadline().map(|deadline| deadline.saturating_sub(self.now()));
            // It is never cut off: this has a sender itself.
            let first = match wait {
                Some(wait) => heard.recv_timeout(wait),
                None => heard.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            for fact in first.into_iter().chain(heard.try_iter()) {
                if let Some(code) = self.take(fact) {
                    return code;
                }
            }
            if let Some(code) = self.advance() {
                return code;
            }
        }
    }

    fn deadline(&self) -> Option<Moment> {
        let now = self.now();
        let over = self.over_since.filter(|_| self.phase == Phase::Up).map(|since| since + LAST_LINES);
        let stopped = match self.phase {
            Phase::Stopped { until } => Some(until),
            _ => None,
        };
        let look = self.containers.any_restarting().then_some(now + LOOK);
        self.containers
            .deadline(now)
            .into_iter()
            .chain(over)
            .chain(stopped)
            .chain(look)
            .chain(self.ends.values().flatten().min().copied())
            .min()
    }

    fn take(&mut self, fact: Fact) -> Option<ExitCode> {
        match fact {
            Fact::Ending => return self.stop(),
            Fact::Watching => self.engine_answers(),
            Fact::Deaf => {
                if self.phase == Phase::Up {
                    self.lost = self.containers.alive();
                }
            }
            Fact::Happened(event) => self.happened(&event),
            Fact::Followed { id, trouble } => self.followed_to_the_end(&id, trouble),
            Fact::Said(line) => {
                let (level, text) = parse_event(&line);
                self.say(level.unwrap_or(Level::Info), &text);
            }
            Fact::Done { run, code } if self.compose.as_ref().is_some_and(|(it, _)| *it == run) => {
                self.compose = None;
                return self.compose_ended(code);
            }
            Fact::Done { .. } => {}
        }
        None
    }

    /// The engine answers, for the first time or again.
    fn engine_answers(&mut self) {
        self.look_at_all();
        match self.phase {
            Phase::Before => {
                let state = self.journal.state();
                if state.is_up {
                    self.containers.remember(state.past);
                    self.phase = Phase::Up;
                    self.look_at_all();
                } else {
                    let past = self.containers.begin();
                    let _ = self.journal.change(|state| state.past = past);
                    if Path::new(store::FOLDER).exists() {
                        self.phase = Phase::Loading;
                        let root = self.duty.data_root.display().to_string();
                        let words = [process::HELPER, "load-store", &root];
                        self.run(process::OURSELVES, words.map(str::to_owned).to_vec());
                    } else {
                        self.bring_up();
                    }
                }
            }
            Phase::Up => self.restore(1),
            _ => {}
        }
        let all: Vec<String> = self.containers.all().map(|container| container.id.clone()).collect();
        if !self.journal.state().is_up {
            self.journal.were_there(&all);
        }
        all.iter().for_each(|id| self.follow(id));
    }

    fn bring_up(&mut self) {
        self.phase = Phase::Starting;
        let mut words = vec!["up", "--detach", "--remove-orphans"];
        if self.contexts.have_changed() {
            words.push("--build");
        }
        self.run_compose(&words);
    }

    /// Brings back what ran when the engine was last heard, and does not run now.
    fn restore(&mut self, tries: u32) {
        let alive = self.containers.alive();
        let gone = self.lost.iter().filter(|id| !alive.contains(id));
        let services: BTreeSet<String> = gone
            .filter_map(|id| self.containers.get(id))
            .map(|container| container.service.clone())
            .collect();
        if services.is_empty() {
            self.lost.clear();
            return;
        }
        let names: Vec<&str> = services.iter().map(String::as_str).collect();
        self.say(Level::Info, &format!("the engine is back: {} started again", are(&names)));
        self.phase = Phase::Restoring { tries };
        let words = ["up", "--detach", "--no-recreate", "--no-deps"];
        self.run_compose(&words.into_iter().chain(names).collect::<Vec<_>>());
    }

    fn happened(&mut self, event: &Event) {
        let id = event.id();
        match event.action.as_str() {
            "destroy" => return self.containers.gone(id),
            "kill" => {
                self.containers.signalled(id);
                if self.phase == Phase::Stopping {
                    let end = self.now() + self.share;
                    self.ends.entry(id.to_owned()).or_insert(Some(end));
                }
                return;
            }
            "start" => self.containers.started(id),
            // Health checks are run by the engine the way `docker exec` is.
            other if other.starts_with("exec_") || other == "attach" || other == "top" => return,
            _ => {}
        }
        self.look(id);
        self.follow(id);
    }

    /// Looks at one container.
    fn look(&mut self, id: &str) {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let seen = self.engine.inspect(id);
        // What an engine says that has come in the place of another is not what became of the container by itself: what ran is
        // remembered first, and brought back.
        if epoch.is_multiple_of(2) || self.epoch.load(Ordering::SeqCst) != epoch {
            return;
        }
        match seen {
            Ok(Some(container)) => {
                let change = self.containers.seen(self.now(), container);
                if let Some(change) = change {
                    let level = if change.trouble { Level::Warn } else { Level::Info };
                    if !matches!(self.phase, Phase::Stopping | Phase::Stopped { .. }) {
                        self.say(level, &change.words);
                    }
                }
            }
            Ok(None) => self.containers.gone(id),
            // It will be looked at again when the engine answers again.
            Err(_) => {}
        }
    }

    fn look_at_all(&mut self) {
        let Ok(ids) = self.engine.list(&self.name) else { return };
        let mut all: Vec<_> = ids.iter().filter_map(|id| self.engine.inspect(id).ok().flatten()).collect();
        // Those that have ended, in the order in which they did.
        all.sort_by(|a, b| a.finished.cmp(&b.finished));
        let now = self.now();
        for container in all {
            self.containers.seen(now, container);
        }
        self.containers.keep(&ids);
    }

    /// Follows what a container writes, unless that is done already.
    fn follow(&mut self, id: &str) {
        use dind_contract::status::ContainerState::Created;
        let Some(container) = self.containers.get(id).filter(|it| it.shown.state != Created).cloned() else {
            return;
        };
        if self.silent.contains(id) || !self.followed.insert(id.to_owned()) {
            return;
        }
        let (facts, journal) = (self.facts.clone(), Arc::clone(&self.journal));
        thread::spawn(move || {
            let since = Instant::now();
            let followed = output::follow(Path::new(paths::DOCKER_SOCKET), &container, &journal);
            // An engine that hangs up at once shall not be asked without end.
            thread::sleep(AGAIN.saturating_sub(since.elapsed()));
            let trouble = followed.err().map(|e| e.to_string());
            let _ = facts.send(Fact::Followed { id: container.id, trouble });
        });
    }

    fn followed_to_the_end(&mut self, id: &str, trouble: Option<String>) {
        use dind_contract::status::ContainerState::Running;
        self.followed.remove(id);
        self.look(id);
        let Some(container) = self.containers.get(id) else { return };
        let (name, runs) = (container.shown.name.clone(), container.shown.state == Running);
        match trouble {
            Some(why) if why.contains("does not support reading") => {
                self.silent.insert(id.to_owned());
                self.say(Level::Warn, &format!("what {name} writes is not shown: {why}"));
            }
            // It was started again meanwhile.
            _ if runs => self.follow(id),
            _ => {}
        }
    }

    /// A run of Compose has ended.
    fn compose_ended(&mut self, code: i32) -> Option<ExitCode> {
        match self.phase {
            Phase::Loading if code == 0 => self.bring_up(),
            // The host starts us again, later and later.
            Phase::Loading => return Some(ExitCode::FAILURE),
            Phase::Starting => {
                self.look_at_all();
                if code == 0 {
                    let _ = self.journal.change(|state| state.is_up = true);
                    if let Err(e) = self.contexts.built() {
                        self.say(Level::Warn, &format!("images will be built again at the next start: {e}"));
                    }
                    self.phase = Phase::Up;
                } else if let Some((code, words)) = self.containers.failed() {
                    // One that others wait for has failed for good: trying again would run it again.
                    self.end(code, format!("it cannot come up, for {words}"));
                } else {
                    // The host starts us again, later and later.
                    return Some(ExitCode::FAILURE);
                }
                let all: Vec<String> = self.containers.all().map(|container| container.id.clone()).collect();
                all.iter().for_each(|id| self.follow(id));
            }
            Phase::Restoring { tries } => {
                self.look_at_all();
                self.phase = Phase::Up;
                if code == 0 || tries >= TRIES {
                    self.lost.clear();
                } else {
                    thread::sleep(LOOK);
                    self.restore(tries + 1);
                }
            }
            Phase::Stopping => {
                if code != 0 {
                    self.say(Level::Warn, &format!("stop ended with code {code}"));
                }
                self.ends.clear();
                self.phase = Phase::Stopped { until: self.now() + LAST_LINES_OF_STOP };
            }
            _ => {}
        }
        None
    }

    /// The host is to stop.
    fn stop(&mut self) -> Option<ExitCode> {
        if matches!(self.phase, Phase::Stopping | Phase::Stopped { .. }) {
            return None;
        }
        let begun = self.phase != Phase::Before;
        if let Some((_, running)) = self.compose.take() {
            running.kill();
        }
        self.look_at_all();
        if !begun && self.containers.alive().is_empty() {
            return Some(ExitCode::SUCCESS);
        }
        if self.containers.alive().is_empty() {
            self.phase = Phase::Stopped { until: self.now() + LAST_LINES_OF_STOP };
            return None;
        }
        self.phase = Phase::Stopping;
        self.share = self.share();
        self.run_compose(&["stop"]);
        None
    }

    /// How long a container may take to end in a stop. Compose stops one service after the other where they need each other, and
    /// each shall have its turn: a database behind a program that does not listen, too.
    fn share(&self) -> Duration {
        let all = Duration::from_millis(self.duty.stop_within);
        all.saturating_sub(OVERHEAD).max(all / 2) / self.containers.depth().max(1)
    }

    /// Does what is due.
    fn advance(&mut self) -> Option<ExitCode> {
        let now = self.now();
        if self.containers.any_restarting() {
            let waiting: Vec<String> = self.containers.alive();
            waiting.iter().for_each(|id| self.look(id));
        }
        let is_due = |end: &Option<Moment>| end.is_some_and(|end| end <= now);
        let due: Vec<String> =
            self.ends.iter().filter(|(_, end)| is_due(end)).map(|(id, _)| id.clone()).collect();
        for id in due {
            self.look(&id);
            if self.containers.alive().contains(&id) {
                let name = self.containers.get(&id).map(|it| it.shown.name.clone()).unwrap_or_default();
                self.say(
                    Level::Info,
                    &format!("{name} has not ended in its share of the time and is killed"),
                );
                let _ = self.engine.kill(&id);
            }
            // Not again: the engine does it or does not.
            self.ends.insert(id, None);
        }
        let passed = self.journal.passed();
        let is_moving = std::mem::replace(&mut self.passed, passed) != passed;
        if let Phase::Stopped { until } = &mut self.phase
            && is_moving
        {
            *until = now + LAST_LINES_OF_STOP;
        }
        match self.phase {
            Phase::Up => match self.containers.verdict(now) {
                Some(Verdict::Alive { ready }) => {
                    self.over_since = None;
                    self.report(ready, None);
                }
                Some(Verdict::Ended { code, words }) => {
                    let since = *self.over_since.get_or_insert(now);
                    let since = if is_moving { *self.over_since.insert(now) } else { since };
                    if self.followed.is_empty() || now >= since + LAST_LINES {
                        self.end(code, words);
                    }
                }
                None => {}
            },
            Phase::Stopped { until } if self.followed.is_empty() || now >= until => {
                return Some(ExitCode::SUCCESS);
            }
            Phase::Before | Phase::Loading | Phase::Starting | Phase::Restoring { .. } => {
                self.report(false, None);
            }
            _ => {}
        }
        None
    }

    /// The application is over.
    fn end(&mut self, code: u8, words: String) {
        self.phase = Phase::Over;
        self.report(false, Some((code, words)));
    }

    /// Tells the host how the application is, if that has changed.
    fn report(&mut self, ready: bool, ended: Option<(u8, String)>) {
        let report = Report { ready, ended, application: self.containers.report(&self.name) };
        if self.told.as_ref() == Some(&report) {
            return;
        }
        let Ok(text) = serde_json::to_string(&report) else { return };
        let message = format!("{}{text}", notify::APPLICATION);
        let sent = UnixDatagram::unbound()
            .and_then(|socket| socket.send_to(message.as_bytes(), paths::NOTIFY_SOCKET));
        if sent.is_ok() {
            self.told = Some(report);
        }
    }

    fn run_compose(&mut self, words: &[&str]) {
        let mut arguments = self.duty.project.arguments();
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        self.run("docker-compose", arguments);
    }

    fn run(&mut self, program: &'static str, arguments: Vec<String>) {
        self.runs += 1;
        let run = self.runs;
        let (said, done) = (self.facts.clone(), self.facts.clone());
        let running = programs::run(
            program,
            arguments,
            move |line| drop(said.send(Fact::Said(line))),
            move |code| drop(done.send(Fact::Done { run, code })),
        );
        self.compose = Some((run, running));
    }

    fn say(&self, level: Level, text: &str) {
        let _ = output::pass_on(level, "compose", text);
    }
}

fn are(names: &[&str]) -> String {
    match names {
        [one] => format!("{one} is"),
        _ => format!("{} are", names.join(", ")),
    }
}
