//! The one loop: signals, exits, notifications, answers and timers become Events, and Actions become system calls.
//!
//! It has no policy, and it waits only in `poll`, whose timeout is the supervisor's next deadline. (Starting a process takes
//! until its execve(2), and ending strays a walk through /proc; containerd has the file open whose changes are watched, so that the
//! kernel knows its path. None of them waits for anybody.)

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dind_contract::status::{Application, Certificate, Endpoint, LastStop, Phase, Service as ServiceStatus};
use dind_contract::{Finding, Status, paths};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal as Unix;
use nix::sys::signalfd::SignalFd;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::appliance::{self, Report};
use crate::ask::WARN_DAYS;
use crate::changes::Changes;
use crate::command::{Command, Foreground};
use crate::ground::{DataRoot, Steps};
use crate::http::{Asked, Heard, Question, Watch};
use crate::lines::{Lines, PIECES};
use crate::log::{self, Level, Log};
use crate::notify::{Notifications, Said};
use crate::pipes;
use crate::process;
use crate::reaper::{self, Fate};
use crate::services::{Config, Service};
use crate::settings::{Settings, time_limit};
use crate::status::StatusSocket;
use crate::supervisor::{Action, End, Event, Moment, Outcome, Policy, Signal, Supervisor};
use crate::tls::Certificates;

/// How many of a service's last lines are kept for the case that it fails.
const TAIL: usize = 12;

/// A service's process and what it writes.
struct Running {
    service: Service,
    program: PathBuf,
    pid: Option<i32>,
    output: Option<Lines>,
    tail: VecDeque<String>,
    /// Whether the process has logged an event: one that refuses its options writes plain text.
    spoke: bool,
    /// Whether it has written its [ready words](Service::ready_words).
    ready: bool,
    /// The last line that was no event: what a daemon that gives up says, gives up for.
    said: Option<String>,
    /// Whether it has said what it refuses: plain text that follows is how to use it, by the page.
    refused: bool,
    /// Readers for the pipes that it left when it died, until it is ready again.
    pipes: Vec<File>,
}

/// What was prepared for the loop.
pub(crate) struct Prepared {
    pub(crate) settings: Settings,
    /// Each with the file of its program.
    pub(crate) services: Vec<(Service, PathBuf)>,
    /// The file whose changes tell of new images, too, where there is one.
    pub(crate) image_names: Option<PathBuf>,
    pub(crate) data_root: DataRoot,
    /// Where the engine keeps its data, in the data root or the same.
    pub(crate) engine_root: PathBuf,
    pub(crate) endpoint: Endpoint,
    pub(crate) certificates: Option<Certificates>,
    pub(crate) steps: Steps,
    pub(crate) findings: Vec<Finding>,
    pub(crate) warnings: Vec<String>,
    pub(crate) signals: SignalFd,
    pub(crate) notifications: Notifications,
    pub(crate) status_socket: StatusSocket,
    /// For whose sake the host is there, if for one's.
    pub(crate) command: Option<Command>,
}

/// How the host ended, with the last lines of the service that is to blame.
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) tail: Vec<String>,
    /// Whether the host came so far as to run the command that it is there for.
    pub(crate) reached_command: bool,
}

impl Ended {
    /// Of a host that was never up.
    pub(crate) fn not_up(outcome: Outcome) -> Self {
        Self { outcome, tail: Vec::new(), reached_command: false }
    }
}

/// What a change of is worth telling those who follow the status.
type Summary = (Phase, Vec<ServiceStatus>, Option<OffsetDateTime>, Option<Application>);

/// A sync under way.
struct Syncing {
    pid: i32,
    output: Lines,
    since: OffsetDateTime,
}

/// A host that runs.
struct Host<'log> {
    prepared: Prepared,
    running: Vec<Running>,
    supervisor: Supervisor,
    log: &'log mut Log,
    /// The application, as who looks after it has reported last.
    application: Option<Application>,
    /// What those who follow the status know.
    told: Summary,
    /// The service that is being asked whether it answers.
    asked: Option<(usize, Asked)>,
    /// What the engine acknowledges.
    watch: Option<Watch>,
    /// What changes among its images.
    changes: Option<Changes>,
    /// The process that syncs the data root while the engine runs.
    sync: Option<Syncing>,
    /// When the last sync that came to its end had begun.
    last_sync: Option<OffsetDateTime>,
    /// The command, while it runs.
    foreground: Option<Foreground>,
    /// Whether it was to run by now.
    reached_command: bool,
    /// The process that syncs the data root at the end, and what it writes.
    flush: Option<(i32, Lines)>,
    began: Instant,
    ready_ms: Option<u64>,
}

/// Runs the host until it is down. `began`: when `dind-init` started.
pub(crate) fn run(mut prepared: Prepared, log: &mut Log, began: Instant) -> Ended {
    let rules = prepared.services.iter().map(|(service, _)| service.rules.clone()).collect();
    let policy = Policy {
        on_failure: prepared.settings.on_failure,
        stop_timeout: prepared.settings.stop_timeout,
        time_limit: prepared.settings.time_limit,
        left_clean: prepared.data_root.last_stop != LastStop::Unclean,
        sync: prepared.settings.sync,
        command: prepared.command.is_some(),
    };
    let supervisor = Supervisor::new(rules, policy);
    let running = std::mem::take(&mut prepared.services)
        .into_iter()
        .map(|(service, program)| Running {
            service,
            program,
            pid: None,
            output: None,
            tail: VecDeque::new(),
            refused: false,
            spoke: false,
            ready: false,
            said: None,
            pipes: Vec::new(),
        })
        .collect();
    let mut host = Host {
        prepared,
        running,
        supervisor,
        log,
        application: None,
        told: (Phase::Starting, Vec::new(), None, None),
        asked: None,
        watch: None,
        changes: None,
        sync: None,
        last_sync: None,
        foreground: None,
        reached_command: false,
        flush: None,
        began,
        ready_ms: None,
    };
    let mut ended = host.feed(Event::Start);
    while ended.is_none() {
        host.wait();
        ended = host.turn();
    }
    let outcome = ended.unwrap_or(Outcome::CLEAN);
    let blamed = outcome.blamed.and_then(|service| host.running.get(service));
    let tail = blamed.map(|running| running.tail.iter().cloned().collect()).unwrap_or_default();
    Ended { tail, outcome, reached_command: host.reached_command }
}

impl Host<'_> {
    fn now(&self) -> Moment {
        self.began.elapsed()
    }

    /// Waits until something happens or is due.
    fn wait(&self) {
        let timeout = match self.supervisor.deadline() {
            None => PollTimeout::NONE,
            // Rounded up: waking a moment early would only mean to wait again.
            Some(deadline) => {
                PollTimeout::try_from(deadline.saturating_sub(self.now()) + Duration::from_millis(1))
                    .unwrap_or(PollTimeout::MAX)
            }
        };
        let input = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![
            input(std::os::fd::AsFd::as_fd(&self.prepared.signals)),
            input(self.prepared.notifications.fd()),
            input(self.prepared.status_socket.fd()),
        ];
        fds.extend(self.prepared.status_socket.listeners().map(input));
        let heard = self.running.iter().filter(|running| self.has_room_for(running));
        fds.extend(heard.filter_map(|running| running.output.as_ref()?.fd()).map(input));
        fds.extend(self.asked.as_ref().map(|(_, asked)| input(asked.fd())));
        fds.extend(self.watch.as_ref().map(|watch| input(watch.fd())));
        fds.extend(self.changes.as_ref().map(|changes| input(changes.fd())));
        fds.extend(self.log.waits_for().map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
        // Whatever it says (EINTR, or ENOMEM on a machine in need), looking at everything is right.
        let _ = poll(&mut fds, timeout);
    }

    /// Looks at everything that may have happened. None of these calls blocks, so it need not be known which did.
    fn turn(&mut self) -> Option<Outcome> {
        self.log.flush();
        let mut events = Vec::new();
        for service in 0..self.running.len() {
            events.extend(self.read_output(service, false));
        }
        for (pid, said) in self.prepared.notifications.heard() {
            let sender = self.running.iter().position(|running| running.pid == Some(pid));
            let Some(service) = sender else { continue };
            match said {
                Said::Ready => {
                    if let Some(running) = self.running.get_mut(service) {
                        running.pipes.clear();
                    }
                    events.push(Event::Notified { service });
                }
                Said::Application(report) => events.extend(self.reported(service, &report)),
            }
        }
        if let Some((service, asked)) = &mut self.asked
            && let Some(answered) = asked.advance()
        {
            events.push(Event::Pinged { service: *service, answered });
            self.asked = None;
        }
        match self.watch.as_mut().map_or(Heard::Nothing, Watch::advance) {
            Heard::Nothing => {}
            Heard::Something => events.push(Event::Acknowledged),
            Heard::End => {
                self.watch = None;
                events.push(Event::WatchEnded);
            }
        }
        if self.changes.as_ref().is_some_and(Changes::heard) {
            events.push(Event::ImagesChanged);
        }
        while let Ok(Some(signal)) = self.prepared.signals.read_signal() {
            events.push(Event::Signalled { number: signal.ssi_signo });
        }
        for (pid, fate) in reaper::reap() {
            match (fate, &mut self.foreground) {
                (Fate::Ended(end), _) => events.extend(self.ended(pid, end)),
                (Fate::Stopped, Some(foreground)) if foreground.pid == pid => {
                    foreground.stopped();
                }
                (Fate::Stopped, _) => {}
            }
        }
        events.push(Event::Tick);
        for event in events {
            if let Some(outcome) = self.feed(event) {
                return Some(outcome);
            }
        }
        self.prepared.status_socket.forget_gone();
        let newcomers = self.prepared.status_socket.accept();
        let summary = self.summary();
        if newcomers || summary != self.told {
            self.told = summary;
            let status = self.status();
            self.prepared.status_socket.tell(&status);
        }
        None
    }

    /// A child ended: one of ours, or an orphan that needed nothing but to be reaped.
    fn ended(&mut self, pid: i32, end: End) -> Option<Event> {
        if self.flush.as_ref().is_some_and(|(flush, _)| *flush == pid) {
            let lines = self.flush.take().map(|(_, mut output)| output.rest()).unwrap_or_default();
            for line in lines {
                self.log.error(&line);
            }
            return Some(Event::Flushed { done: end == End::Code(0) });
        }
        if self.sync.as_ref().is_some_and(|sync| sync.pid == pid) {
            let mut sync = self.sync.take()?;
            if end == End::Code(0) {
                self.last_sync = Some(sync.since);
                return Some(Event::Synced { trouble: None });
            }
            let said = sync.output.rest().into_iter().next().unwrap_or_else(|| "it was killed".to_owned());
            return Some(Event::Synced { trouble: Some(said) });
        }
        if let Some(foreground) = self.foreground.take_if(|foreground| foreground.pid == pid) {
            foreground.ended();
            return Some(Event::CommandEnded { end });
        }
        let service = self.running.iter().position(|running| running.pid == Some(pid))?;
        self.read_output(service, true);
        if self.asked.as_ref().is_some_and(|(asked, _)| *asked == service) {
            self.asked = None;
        }
        let running = self.running.get_mut(service)?;
        running.pid = None;
        // At once: whoever tries a socket that refuses waits longer before the next try than for one that is not there.
        running.service.remove_leftovers();
        running.pipes.extend(running.service.pipes.as_deref().map(pipes::readers).unwrap_or_default());
        Some(Event::Exited { service, end, spoke: running.spoke, last: running.said.take() })
    }

    /// Gives an event to the supervisor and does what it wants done, until the host ends or nothing is left to do.
    fn feed(&mut self, event: Event) -> Option<Outcome> {
        let mut events = VecDeque::from([event]);
        let mut actions = VecDeque::new();
        let mut outcome = None;
        while outcome.is_none() {
            // Actions first: an answer must not overtake what was asked before it.
            if let Some(action) = actions.pop_front() {
                match action {
                    Action::Exit(end) => outcome = Some(end),
                    action => events.extend(self.act(action)),
                }
            } else if let Some(event) = events.pop_front() {
                actions.extend(self.supervisor.handle(self.now(), event));
            } else {
                break;
            }
        }
        outcome
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Spawn { service } => return Some(self.spawn(service)),
            Action::Signal { service, signal: Signal::Reload } => self.reload(service),
            Action::Signal { service, signal } => {
                if signal == Signal::Terminate {
                    // dockerd ends only when nobody is connected any more, or after five seconds.
                    self.watch = None;
                }
                if let Some(pid) = self.running.get(service).and_then(|running| running.pid) {
                    process::send(pid, unix(signal));
                }
                if signal == Signal::Terminate {
                    // One that was stopped (SIGSTOP) hears nothing until it goes on, and neither does whoever waits for it.
                    for pid in self.running.iter().filter_map(|running| running.pid) {
                        process::send(pid, Unix::SIGCONT);
                    }
                }
            }
            Action::Ping { service, again } => {
                let question = if again { Question::SeesContainerd } else { Question::Ping };
                match Asked::engine(Path::new(paths::DOCKER_SOCKET), question) {
                    Ok(asked) => self.asked = Some((service, asked)),
                    Err(_) => return Some(Event::Pinged { service, answered: false }),
                }
            }
            Action::EndContainers => {
                for pid in process::of_containers() {
                    process::send(pid, Unix::SIGKILL);
                }
            }
            Action::EndSessions { service, signal } => {
                let connections = process::connections();
                // Who has not logged in yet does not any more.
                connections.others.iter().for_each(|pid| process::send(*pid, Unix::SIGTERM));
                if let Some(signal) = signal {
                    connections.sessions.iter().flatten().for_each(|pid| process::send(*pid, unix(signal)));
                }
                return Some(Event::SessionsLeft { service, count: connections.sessions.len() });
            }
            Action::EndStrays { signal } => {
                let mut strays = process::descendants();
                // It ends by itself as soon as the disk has taken everything, which the flush waits for, too.
                strays.retain(|pid| self.sync.as_ref().is_none_or(|sync| sync.pid != *pid));
                if let Some(signal) = signal {
                    strays.iter().for_each(|pid| process::send(*pid, unix(signal)));
                }
                return Some(Event::StraysLeft { count: strays.len() });
            }
            Action::Watch => {
                self.watch_images();
                match Watch::engine(Path::new(paths::DOCKER_SOCKET)) {
                    Ok(watch) => self.watch = Some(watch),
                    Err(_) => return Some(Event::WatchEnded),
                }
            }
            Action::Sync => return self.sync(),
            Action::Flush { clean } => return self.flush(clean),
            Action::AbandonFlush => {
                if let Some((pid, _)) = self.flush.take() {
                    process::send(pid, Unix::SIGKILL);
                }
            }
            Action::RunCommand => return self.run_command(),
            Action::PassOn { number } => {
                if let Some(foreground) = &mut self.foreground {
                    foreground.signal(number);
                }
            }
            Action::EndCommand { signal } => {
                if let Some(foreground) = &mut self.foreground {
                    foreground.end(signal == Signal::Kill);
                }
            }
            Action::Announce { first } => self.announce(first),
            Action::Say { level, message } => self.log.line(level, "dind-init", &message),
            Action::Exit(_) => {}
        }
        None
    }

    /// Listens to what changes among the images, where the engine does not tell of all of it.
    fn watch_images(&mut self) {
        let Some(file) = &self.prepared.image_names else { return };
        self.changes = match Changes::of(file) {
            Ok(changes) => Some(changes),
            Err(e) => {
                let file = file.display();
                self.log.warn(&format!(
                    "changes of {file} cannot be seen ({}): images of BuildKit are brought to the disk with the next sync only; raise fs.inotify.max_user_instances, if that is the reason", e.desc()
                ));
                None
            }
        };
    }

    fn spawn(&mut self, service: usize) -> Event {
        let Some(running) = self.running.get_mut(service) else { return Event::Tick };
        match running.service.start(&running.program) {
            Ok(started) => {
                running.pid = Some(started.pid);
                running.output = Some(Lines::new(started.output));
                running.spoke = false;
                running.ready = false;
                running.said = None;
                running.tail.clear();
                running.refused = false;
                Event::Spawned { service, pid: started.pid }
            }
            Err(e) => Event::SpawnFailed { service, why: e.to_string() },
        }
    }

    fn run_command(&mut self) -> Option<Event> {
        self.reached_command = true;
        match self.prepared.command.as_ref()?.start() {
            Ok(foreground) => {
                self.foreground = Some(foreground);
                None
            }
            Err(failure) => Some(Event::CommandNotRun { failure }),
        }
    }

    /// Has a service read its configuration again, with what its user has changed there.
    fn reload(&mut self, service: usize) {
        let Some(running) = self.running.get_mut(service) else { return };
        if let Some(Config::Engine(config)) = &mut running.service.config
            && let Err(why) = config.read_again(crate::read_if_there)
        {
            self.log.error(&format!("{why}; dockerd keeps the configuration that it has"));
            return;
        }
        if let Some(pid) = running.pid {
            process::send(pid, unix(Signal::Reload));
        }
    }

    fn sync(&mut self) -> Option<Event> {
        let since = OffsetDateTime::now_utc();
        match process::start_ourselves(&self.on_data("sync"), &BTreeMap::new()) {
            Ok(started) => {
                self.sync = Some(Syncing { pid: started.pid, output: Lines::new(started.output), since });
                None
            }
            Err(e) => {
                let trouble = format!("cannot start the process that does it: {e}");
                Some(Event::Synced { trouble: Some(trouble) })
            }
        }
    }

    /// The arguments of a subcommand of ours that works on the data.
    fn on_data(&self, subcommand: &str) -> Vec<String> {
        let folders = [&self.prepared.data_root.path, &self.prepared.engine_root];
        let folders = folders.map(|folder| folder.display().to_string());
        std::iter::once(subcommand.to_owned()).chain(folders).collect()
    }

    fn flush(&mut self, clean: bool) -> Option<Event> {
        let mut arguments = self.on_data("flush");
        if clean {
            arguments.push("--clean".to_owned());
        }
        match process::start_ourselves(&arguments, &BTreeMap::new()) {
            Ok(started) => {
                self.flush = Some((started.pid, Lines::new(started.output)));
                None
            }
            Err(e) => {
                self.log.error(&format!("cannot start the process that syncs the data root: {e}"));
                Some(Event::Flushed { done: false })
            }
        }
    }

    fn announce(&mut self, first: bool) {
        let environment = self.prepared.endpoint.environment();
        if first {
            let ms = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
            self.ready_ms = Some(ms);
            self.log.info(&format!("ready in {ms} ms: {environment}"));
        } else {
            self.log.info(&format!("ready again: {environment}"));
        }
    }

    /// Who looks after the application has said how that is.
    fn reported(&mut self, service: usize, report: &str) -> Vec<Event> {
        let is_meant = self.running.get(service).is_some_and(|it| it.service.rules.runs_application);
        let Ok(report) = serde_json::from_str::<Report>(report) else { return Vec::new() };
        if !is_meant {
            return Vec::new();
        }
        self.application = Some(report.application);
        let ended = report.ended.map(|(code, words)| Event::ApplicationEnded { code, words });
        let ready = if report.ready { Event::Notified { service } } else { Event::Withdrawn { service } };
        [ready].into_iter().chain(ended).collect()
    }

    /// Whether what it writes is read now. In a stop it is: whoever does not read the log shall not keep the application from
    /// stopping.
    fn has_room_for(&self, running: &Running) -> bool {
        let waits = running.service.rules.runs_application && self.supervisor.phase() != Phase::Stopping;
        !waits || self.log.has_room()
    }

    /// Passes on what a service has written; with `all`, what it wrote last, too. What it said to us by it is an event.
    fn read_output(&mut self, service: usize, all: bool) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(running) = self.running.get_mut(service) else { return events };
        let Some(output) = &mut running.output else { return events };
        let is_application = running.service.rules.runs_application;
        // Whoever reads our log slowly slows this down, and loses nothing: the engine keeps what containers write.
        if is_application && !all && !self.log.has_room() && self.supervisor.phase() != Phase::Stopping {
            return events;
        }
        let lines = match all {
            true => output.rest(),
            false => output.read(if is_application { 1 } else { PIECES }),
        };
        for line in lines {
            if is_application && let Some((level, name, text)) = appliance::parse_line(&line) {
                if name == running.service.rules.name {
                    running.spoke = true;
                    running.said = Some(text.to_owned());
                }
                self.log.line(level, name, text);
                continue;
            }
            let (level, message) = log::parse_event(&line);
            match level {
                Some(_) => running.spoke = true,
                // With its log turned down or into JSON, too, a daemon that failed has not refused its options.
                None if line.starts_with('{') || line.starts_with("failed to start") => {
                    running.spoke = true;
                    running.said = Some(line.clone());
                }
                // Some daemons wrap what they refuse: "Status: …", "See 'dockerd --help'.", how to use it, and ", Code: 125".
                None if line.starts_with("Status: ") => {
                    running.said = line.strip_prefix("Status: ").map(str::to_owned);
                    running.refused = true;
                }
                None if running.refused => {}
                None => running.said = Some(line.clone()),
            }
            if level.is_some() && running.service.last_words == Some(message.as_str()) {
                events.push(Event::Finished { service });
            }
            if running.service.ready_words.is_some_and(|words| line.starts_with(words)) {
                events.push(Event::Notified { service });
                running.ready = true;
            }
            if running.ready {
                // It writes plain text for ever, and none of it is why it ends.
                running.said = None;
            }
            self.log.line(level.unwrap_or(Level::Info), running.service.rules.name, &message);
            if running.refused && level.is_none() && !message.starts_with("Status: ") {
                continue;
            }
            if running.tail.len() >= TAIL {
                running.tail.pop_front();
            }
            running.tail.push_back(message);
        }
        if all || output.fd().is_none() {
            running.output = None;
        }
        events
    }

    fn summary(&self) -> Summary {
        let services = self.supervisor.units.iter().map(|unit| ServiceStatus {
            name: unit.rules.name.to_owned(),
            state: unit.state(),
            pid: unit.pid(),
            restarts: unit.restarts,
        });
        (self.supervisor.phase(), services.collect(), self.last_sync, self.application.clone())
    }

    fn status(&self) -> Status {
        let (phase, services, _, application) = self.summary();
        let certificate = self.prepared.certificates.as_ref().map(|certificates| Certificate {
            expires: certificates.expires.format(&Rfc3339).unwrap_or_default(),
            days_left: (certificates.expires - OffsetDateTime::now_utc()).whole_days(),
        });
        let mut warnings = self.prepared.warnings.clone();
        warnings.extend(certificate.as_ref().filter(|it| it.days_left <= WARN_DAYS).map(|it| {
            format!(
                "a certificate ends in {} days: a restart of the host renews those that it made, replace those that you brought",
                it.days_left
            )
        }));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase,
            services,
            application,
            endpoint: self.prepared.endpoint.clone(),
            certificate,
            last_stop: self.prepared.data_root.last_stop,
            ready_ms: self.ready_ms,
            seconds_left: self
                .prepared
                .settings
                .time_limit
                .map(|limit| time_limit::seconds_left(limit, self.now())),
            last_sync: self.last_sync.and_then(|moment| moment.format(&Rfc3339).ok()),
            steps: self.prepared.steps.0.clone(),
            ground: self.prepared.findings.clone(),
            warnings,
        }
    }
}

fn unix(signal: Signal) -> Unix {
    match signal {
        Signal::Reload => Unix::SIGHUP,
        Signal::Terminate => Unix::SIGTERM,
        Signal::Kill => Unix::SIGKILL,
    }
}
