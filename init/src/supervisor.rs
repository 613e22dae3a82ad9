//! The host's policy, as a function: a state and an event give a new state and actions.
//!
//! There is no clock, no process and no file in here. Time is a [`Moment`] that the caller hands in, and every wait
//! has a deadline, which [`Supervisor::deadline`] tells. The order of a stop is in [`crate::shutdown`].

mod application;
mod foreground;
mod heartbeat;
mod syncs;
mod words;

use std::time::Duration;

use dind_contract::exit;
use dind_contract::status::{Phase, ServiceState};

use crate::failure::Failure;
use crate::log::Level;
use crate::settings::{OnFailure, time_limit};
use crate::shutdown::{SEE_LOG, Stop};
pub(crate) use application::FOR_EVER;
use foreground::Foreground;
use heartbeat::Heartbeat;
use syncs::Syncs;
pub(crate) use words::{Action, End, Event, Outcome, Rules, Signal};

/// Time since `dind-init` started.
pub(crate) type Moment = Duration;

/// A service that dies this often within [`WINDOW`] has failed for good.
const DEATHS: usize = 5;
/// The time in which deaths count together.
const WINDOW: Duration = Duration::from_secs(60);
/// Wait before the first restart; it doubles with each death within [`WINDOW`].
const BACKOFF: Duration = Duration::from_millis(100);
/// The same for the application: registries that cannot be reached may be back in a while.
const APPLICATION_BACKOFF: Duration = Duration::from_secs(1);
/// Time between two questions to an engine that said it was ready and does not answer yet.
const PING_AGAIN: Duration = Duration::from_millis(50);
/// Time between two lines that say what is being waited for.
const NOTICE: Duration = Duration::from_secs(10);

/// A service and where it is in its life.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) rules: Rules,
    pub(crate) life: Life,
    pub(crate) restarts: u32,
    /// Whether it has ever been ready.
    pub(crate) was_ready: bool,
    /// Whether it died in the middle of its work and has not been ready since.
    crashed: bool,
    /// When it died, within [`WINDOW`].
    deaths: Vec<Moment>,
    /// How many times it died since it was last ready, however long ago.
    in_vain: usize,
    /// Whether it still answers, while it is ready.
    heartbeat: Heartbeat,
    /// When it said, in a stop, that nothing is left for it to do.
    pub(crate) finished: Option<Moment>,
}

/// Where a service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Waiting,
    Starting {
        pid: Option<i32>,
        since: Moment,
        notice: Moment,
        ping: Option<Moment>,
        killed: bool,
    },
    Ready {
        pid: i32,
    },
    Backoff {
        until: Moment,
    },
    Stopping {
        pid: Option<i32>,
        killed: bool,
    },
    /// Its process has ended in a stop; sessions that it began may go on, and are looked at again at `look`.
    Lingering {
        look: Moment,
    },
    Stopped,
}

impl Unit {
    /// Its process, while there is one.
    pub(crate) fn pid(&self) -> Option<i32> {
        match self.life {
            Life::Starting { pid, .. } | Life::Stopping { pid, .. } => pid,
            Life::Ready { pid } => Some(pid),
            Life::Waiting | Life::Backoff { .. } | Life::Lingering { .. } | Life::Stopped => None,
        }
    }

    /// What becomes of it in a stop, when it has no process any more.
    pub(crate) fn without_process(&self, now: Moment) -> Life {
        if self.rules.holds_sessions { Life::Lingering { look: now } } else { Life::Stopped }
    }

    /// The word for the status document.
    pub(crate) fn state(&self) -> ServiceState {
        match self.life {
            Life::Waiting => ServiceState::Waiting,
            Life::Starting { .. } => ServiceState::Starting,
            Life::Ready { .. } => ServiceState::Ready,
            Life::Backoff { .. } => ServiceState::Backoff,
            Life::Stopping { .. } | Life::Lingering { .. } => ServiceState::Stopping,
            Life::Stopped => ServiceState::Stopped,
        }
    }
}

/// What was decided for the whole host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What happens when a service dies.
    pub(crate) on_failure: OnFailure,
    /// The time between SIGTERM and SIGKILL.
    pub(crate) stop_timeout: Duration,
    /// How long the host may live.
    pub(crate) time_limit: Option<Moment>,
    /// Whether the host before this one left the data root in order.
    pub(crate) left_clean: bool,
    /// Whether the data root is synced after each acknowledgement.
    pub(crate) sync: bool,
    /// Whether a command runs in the foreground once the host is ready, with which it ends.
    pub(crate) command: bool,
}

/// The state of a host.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor {
    pub(crate) units: Vec<Unit>,
    policy: Policy,
    syncs: Syncs,
    started: bool,
    announced: bool,
    was_ready: bool,
    foreground: Foreground,
    stop: Option<Stop>,
}

impl Supervisor {
    /// A host of these services, none of them started.
    pub(crate) fn new(rules: Vec<Rules>, policy: Policy) -> Self {
        let units = rules
            .into_iter()
            .map(|rules| Unit {
                rules,
                life: Life::Waiting,
                restarts: 0,
                was_ready: false,
                crashed: false,
                deaths: Vec::new(),
                in_vain: 0,
                heartbeat: Heartbeat::default(),
                finished: None,
            })
            .collect();
        Self {
            units,
            policy,
            syncs: Syncs::new(policy.sync),
            started: false,
            announced: false,
            was_ready: false,
            foreground: Foreground::new(policy.command),
            stop: None,
        }
    }

    /// Where the host is in its life.
    pub(crate) fn phase(&self) -> Phase {
        if self.stop.is_some() {
            Phase::Stopping
        } else if self.started
            && self
                .units
                .iter()
                .filter(|unit| unit.rules.awaited)
                .all(|unit| matches!(unit.life, Life::Ready { .. }))
        {
            Phase::Ready
        } else if self.was_ready {
            Phase::Degraded
        } else {
            Phase::Starting
        }
    }

    /// Takes note of an event and says what is to be done about it, in order.
    pub(crate) fn handle(&mut self, now: Moment, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.take(now, event, &mut actions);
        self.end_in_time(now, &mut actions);
        match &mut self.stop {
            None => {
                self.advance(now, &mut actions);
                self.syncs.advance(now, &mut actions);
            }
            Some(stop) => stop.advance(now, &mut self.units, &mut actions),
        }
        self.announce(&mut actions);
        actions
    }

    /// When the supervisor must hear of the time again, if nothing else happens.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        if let Some(stop) = &self.stop {
            return stop.deadline(&self.units);
        }
        self.units
            .iter()
            .filter_map(|unit| match unit.life {
                Life::Starting { killed: true, notice, .. } => Some(notice),
                Life::Starting { since, notice, ping, .. } => {
                    let first = notice.min(since + unit.rules.ready_within);
                    Some(ping.map_or(first, |ping| ping.min(first)))
                }
                Life::Backoff { until } => Some(until),
                Life::Ready { .. } => unit.heartbeat.deadline(),
                _ => None,
            })
            .chain(self.syncs.deadline())
            .chain(self.policy.time_limit)
            .min()
    }

    fn take(&mut self, now: Moment, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Start => self.started = true,
            Event::Spawned { service, pid } => {
                if let Some(unit) = self.units.get_mut(service)
                    && let Life::Starting { pid: none, .. } | Life::Stopping { pid: none, .. } =
                        &mut unit.life
                {
                    *none = Some(pid);
                }
            }
            Event::SpawnFailed { service, why } => {
                self.ended(
                    now,
                    service,
                    End::Code(126),
                    &format!("could not be started: {why}"),
                    None,
                    actions,
                );
            }
            Event::Notified { service } => {
                if let Some(unit) = self.units.get_mut(service)
                    && let Life::Starting { pid: Some(_), ping, .. } = &mut unit.life
                {
                    if unit.rules.answers_ping {
                        *ping = Some(now);
                    } else {
                        self.ready(now, service);
                    }
                }
            }
            Event::Withdrawn { service } => self.withdrawn(now, service),
            Event::ApplicationEnded { code, words } => self.application_ended(now, code, &words, actions),
            Event::Pinged { service, answered } => {
                if let Some(unit) = self.units.get_mut(service)
                    && let Life::Starting { pid: Some(_), ping, .. } = &mut unit.life
                {
                    if answered {
                        self.ready(now, service);
                    } else {
                        *ping = Some(now + PING_AGAIN);
                    }
                } else if let Some(unit) = self.units.get_mut(service) {
                    unit.heartbeat.pinged(now, answered);
                }
            }
            Event::Finished { service } => {
                if let Some(unit) = self.units.get_mut(service)
                    && matches!(unit.life, Life::Stopping { .. })
                {
                    unit.finished.get_or_insert(now);
                }
            }
            Event::Acknowledged => self.syncs.acknowledged(now),
            Event::ImagesChanged => self.syncs.changed(now),
            Event::WatchEnded => self.syncs.deaf(now, actions),
            Event::Synced { trouble } => self.syncs.synced(now, trouble, actions),
            Event::Exited { service, end, spoke, last } => {
                let how =
                    last.as_ref().map_or_else(|| end.words(), |last| format!("{}: {last}", end.words()));
                let refusal = last.filter(|_| !spoke);
                self.ended(now, service, end, &how, refusal, actions);
            }
            Event::Signalled { number } => self.signalled(now, number, actions),
            Event::CommandNotRun { failure } => {
                self.foreground = Foreground::Ended;
                let outcome = Outcome { failure: Some(failure), ..Outcome::CLEAN };
                self.begin_stop(now, outcome, actions);
            }
            Event::CommandEnded { end } => self.command_ended(now, end, actions),
            Event::StopAsked { why } => match &mut self.stop {
                Some(stop) => stop.asked_again(now, &why, actions),
                None => {
                    say(actions, Level::Info, format!("stopping, because of {why}"));
                    self.begin_stop(now, Outcome::CLEAN, actions);
                }
            },
            Event::ReloadAsked => {
                for (service, unit) in
                    self.units.iter().enumerate().filter(|(_, unit)| unit.rules.takes_options)
                {
                    let name = unit.rules.name;
                    // One that is still starting may not know the signal yet, and would die of it.
                    if unit.was_ready && !unit.crashed && self.stop.is_none() {
                        say(actions, Level::Info, format!("{name} reads its configuration again"));
                        actions.push(Action::Signal { service, signal: Signal::Reload });
                    } else {
                        say(
                            actions,
                            Level::Warn,
                            format!("{name} is not ready, so it does not read its configuration again"),
                        );
                    }
                }
            }
            Event::SessionsLeft { service, count } => {
                if let Some(stop) = &mut self.stop
                    && let Some(unit) = self.units.get_mut(service)
                {
                    stop.sessions_left(now, unit, count, actions);
                }
            }
            Event::StraysLeft { count } => {
                if let Some(stop) = &mut self.stop {
                    stop.strays_left(now, count, actions);
                }
            }
            Event::Flushed { done } => {
                if let Some(stop) = &mut self.stop {
                    stop.flushed(done, actions);
                }
            }
            Event::Tick => {}
        }
    }

    /// A service works. If it had died, those that use it must find it again before they count as ready.
    fn ready(&mut self, now: Moment, service: usize) {
        let Some(unit) = self.units.get_mut(service) else { return };
        let Some(pid) = unit.pid() else { return };
        unit.life = Life::Ready { pid };
        unit.heartbeat = Heartbeat::default();
        if unit.rules.answers_ping {
            unit.heartbeat = Heartbeat::from(now);
            self.syncs.engine_ready(now);
        }
        let again = std::mem::replace(&mut unit.was_ready, true);
        unit.crashed = false;
        unit.in_vain = 0;
        let must_be_found = again && unit.rules.essential;
        for user in self.units.iter_mut().filter(|user| must_be_found && user.rules.uses.contains(&service)) {
            if let Life::Ready { pid } = user.life
                && user.rules.answers_ping
            {
                user.life = Life::Starting {
                    pid: Some(pid),
                    since: now,
                    notice: now + NOTICE,
                    ping: Some(now),
                    killed: false,
                };
            }
        }
    }

    /// A service's process is no more. `refusal`: it logged nothing but this.
    fn ended(
        &mut self,
        now: Moment,
        service: usize,
        end: End,
        how: &str,
        refusal: Option<String>,
        actions: &mut Vec<Action>,
    ) {
        let Some(unit) = self.units.get_mut(service) else { return };
        let name = unit.rules.name;
        if let Some(stop) = &mut self.stop {
            stop.ended(now, unit, end, how, actions);
            return;
        }
        if unit.rules.answers_ping {
            self.syncs.engine_gone();
        }
        unit.deaths.push(now);
        unit.deaths.retain(|death| now.saturating_sub(*death) < WINDOW);
        unit.in_vain += 1;
        // One that only refused its options has touched nothing.
        unit.crashed |= refusal.is_none() && unit.rules.essential;
        if let Some(failure) = verdict(unit, self.policy.on_failure, end, how, refusal) {
            unit.life = unit.without_process(now);
            say(actions, Level::Error, format!("stopping, because {}", failure.cause));
            let outcome = Outcome { failure: Some(failure), blamed: Some(service), ..Outcome::CLEAN };
            self.begin_stop(now, outcome, actions);
            return;
        }
        let doublings = unit.deaths.len().saturating_sub(1).min(DEATHS);
        let first = if unit.rules.runs_application { APPLICATION_BACKOFF } else { BACKOFF };
        let wait = first * (1 << doublings);
        unit.restarts += 1;
        unit.life = Life::Backoff { until: now + wait };
        say(actions, Level::Error, format!("{name} {how}; it is started again in {} ms", wait.as_millis()));
    }

    /// Begins the stop. What shall end with `outcome`, if it does not get worse.
    fn begin_stop(&mut self, now: Moment, outcome: Outcome, actions: &mut Vec<Action>) {
        let asked = outcome.failure.is_none();
        let runs = self.foreground == Foreground::Running;
        let mut stop = Stop::new(now, self.policy.stop_timeout, outcome, self.is_clean());
        if let Some(unit) = self.units.iter().find(|unit| asked && unit.crashed) {
            let cause = format!("{} had died and was not back when the stop was asked for", unit.rules.name);
            stop.spoil(cause, SEE_LOG, actions);
        }
        if runs {
            stop.end_command_first(actions);
        }
        self.stop = Some(stop);
    }

    /// When the host's time is over it stops as if it had got SIGTERM, but that nobody has asked for it yet: who does then need
    /// not be in a hurry.
    fn end_in_time(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let is_over = |limit: &Moment| self.stop.is_none() && now >= *limit;
        let Some(limit) = self.policy.time_limit.filter(is_over) else { return };
        say(actions, Level::Warn, format!("stopping, because {}", time_limit::over(limit)));
        let code = self.foreground.code_of_a_stop(libc::SIGTERM);
        self.begin_stop(now, Outcome { code, time_over: Some(limit), ..Outcome::CLEAN }, actions);
    }

    /// Whether a stop from here leaves the data root in order: nothing has crashed, and what the host before this one left
    /// unclean was seen to by an engine that came up.
    fn is_clean(&self) -> bool {
        let recovered = self.policy.left_clean || self.essential().all(|unit| unit.was_ready);
        recovered && !self.units.iter().any(|unit| unit.crashed)
    }

    fn essential(&self) -> impl Iterator<Item = &Unit> {
        self.units.iter().filter(|unit| unit.rules.essential)
    }

    /// Starts what can start, and does what is due, while the host is not stopping.
    fn advance(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if !self.started {
            return;
        }
        for service in 0..self.units.len() {
            // All are started at once, in order: a service waits for what it uses by itself, and faster than we could.
            let Some(unit) = self.units.get_mut(service) else { continue };
            let name = unit.rules.name;
            match &mut unit.life {
                Life::Waiting => {}
                Life::Backoff { until } if *until <= now => {}
                Life::Starting { since, notice, ping, killed, .. } => {
                    let waited = now.saturating_sub(*since).as_secs();
                    if !*killed && now >= *since + unit.rules.ready_within {
                        *killed = true;
                        say(
                            actions,
                            Level::Error,
                            format!("{name} was not ready after {waited} s, so it is killed"),
                        );
                        actions.push(Action::Signal { service, signal: Signal::Kill });
                    } else if now >= *notice {
                        let what = if *killed { "end, for it was killed" } else { "be ready" };
                        say(
                            actions,
                            Level::Info,
                            format!("still waiting for {name} to {what}, {waited} s so far"),
                        );
                    }
                    if now >= *notice {
                        // An application may take hours, and its own lines say what it is at.
                        let again =
                            if unit.rules.runs_application { now.saturating_sub(*since) } else { NOTICE };
                        *notice = now + again.max(NOTICE);
                    }
                    if !*killed && ping.is_some_and(|ping| now >= ping) {
                        *ping = None;
                        actions.push(Action::Ping { service, again: unit.was_ready });
                    }
                    continue;
                }
                Life::Ready { .. } => {
                    match unit.heartbeat.advance(now) {
                        heartbeat::Due::Nothing => {}
                        heartbeat::Due::Ask => actions.push(Action::Ping { service, again: false }),
                        heartbeat::Due::Kill(silent) => {
                            let silent = silent.as_secs();
                            let message = format!(
                                "{name} has not answered for {silent} s, so it is killed and started again"
                            );
                            say(actions, Level::Error, message);
                            actions.push(Action::Signal { service, signal: Signal::Kill });
                        }
                    }
                    continue;
                }
                _ => continue,
            }
            unit.life =
                Life::Starting { pid: None, since: now, notice: now + NOTICE, ping: None, killed: false };
            actions.push(Action::Spawn { service });
        }
    }

    /// Says once that the host is ready, each time it becomes so.
    fn announce(&mut self, actions: &mut Vec<Action>) {
        let ready = self.phase() == Phase::Ready;
        if ready && !self.announced {
            actions.push(Action::Announce { first: !self.was_ready });
            self.was_ready = true;
            self.foreground.run(actions);
        }
        self.announced = ready;
    }
}

/// Why a host ends because one of its services did; `None` when that is started again.
fn verdict(
    unit: &Unit,
    on_failure: OnFailure,
    end: End,
    how: &str,
    refusal: Option<String>,
) -> Option<Failure> {
    let (name, deaths) = (unit.rules.name, unit.deaths.len());
    let within = if deaths >= DEATHS { " within a minute" } else { " without ever being ready" };
    match refusal {
        _ if !unit.rules.awaited => None,
        Some(line) if unit.rules.takes_options && !unit.was_ready && matches!(end, End::Code(_)) => {
            if line.contains("tls:") || line.contains("x509") || line.contains("X509") {
                return Some(Failure::usage(
                    format!("{name} refuses the server's certificate or key: {line}"),
                    "replace cert.pem and key.pem in server/ under DOCKER_TLS_CERTDIR (/certs unless set)",
                ));
            }
            Some(Failure::usage(
                format!("{name} refuses its options: {line}"),
                format!(
                    "correct DOCKER_OPTS, the arguments or daemon.json; \
                     `docker run --rm --entrypoint {name} IMAGE --help` lists the options"
                ),
            ))
        }
        _ if on_failure == OnFailure::Exit => Some(Failure {
            code: if end == End::Code(0) { exit::FAILED } else { end.code() },
            cause: format!("{name} {how}, and DIND_ON_FAILURE is exit"),
            help: "look at its last lines, or leave DIND_ON_FAILURE out to have it restarted".to_owned(),
        }),
        // A host that works but for a way in keeps its containers.
        _ if !unit.rules.essential && unit.was_ready => None,
        _ if deaths.max(unit.in_vain) >= DEATHS => Some(Failure::failed(
            format!(
                "{name} failed for good: it died {} times{within}, and the last time it {how}",
                deaths.max(unit.in_vain)
            ),
            if unit.rules.runs_application {
                "the lines above have the cause, which may be in the Compose file, or a registry that cannot be reached"
            } else if unit.rules.essential {
                "its last lines have the cause, which may be an option in DOCKER_OPTS, the arguments or daemon.json; \
                 `-e DOCKER_OPTS=--debug` makes dockerd say more"
            } else {
                "its last lines have the cause, which may be in its configuration"
            },
        )),
        _ => None,
    }
}

pub(crate) fn say(actions: &mut Vec<Action>, level: Level, message: impl Into<String>) {
    actions.push(Action::Say { level, message: message.into() });
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod worlds;
