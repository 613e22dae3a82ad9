//! The order of a stop and how its time is spent. Pure, as the supervisor is.
//!
//! The application of an appliance comes first. Services end in the reverse order of their use, then what else is ours, then the data root goes to the disk. A service
//! that holds sessions has ended when they have, or when their share of the time is over: half of what containers have. The
//! whole ends one second before the SIGKILL from outside, unless dockerd needs that second. dockerd gets one SIGTERM and
//! ends by its own hand: when the time for containers is over, *they* are killed. A daemon is, only when all time is over.

use std::time::Duration;

use crate::failure::Failure;
use crate::log::Level;
use crate::supervisor::{Action, End, Life, Moment, Outcome, Signal, Unit, say};

/// What is kept back from the time between SIGTERM and SIGKILL.
const MARGIN: Duration = Duration::from_secs(1);
/// Time between two rounds of killing what holds dockerd up: a container may have been starting.
const AGAIN: Duration = Duration::from_millis(250);
/// How long strays may take to end by themselves.
const STRAYS_GRACE: Duration = Duration::from_millis(500);
/// How long sessions may take to end when they were asked to.
const SESSIONS_GRACE: Duration = Duration::from_secs(1);
/// How long a service may take to end when nothing is left for it to do. dockerd waits five seconds for clients that keep a
/// connection, `docker events` for example; all that it had to write has been written by then.
const FINISHED_GRACE: Duration = Duration::from_millis(250);
/// Time between two looks at whether strays have ended.
const LOOK: Duration = Duration::from_millis(50);

/// What to do about a stop that ran out of time.
const MORE_TIME: &str = "the data root is marked as not cleanly stopped; give more time with DIND_STOP_TIMEOUT and \
                         `docker stop -t`";
/// What to do about a stop in which something else went wrong.
pub(crate) const SEE_LOG: &str =
    "the data root is marked as not cleanly stopped; the log says what came before (docker logs HOST)";

/// The moments of a stop, each the latest for what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Whoever works on the host, a command and sessions, may go on until here: half of the time that containers have.
    pub(crate) work: Moment,
    /// Sessions that were asked to end may take until here.
    pub(crate) work_killed: Moment,
    /// The application may take until here to stop in the order of its services: most of the time that containers have. The rest
    /// is for containers that are not its own.
    pub(crate) application: Moment,
    /// Containers may take until here to end by their own means.
    pub(crate) containers: Moment,
    /// The service that holds containers may take until here.
    pub(crate) holder: Moment,
    /// Other services may take until here.
    pub(crate) services: Moment,
    /// Strays may take until here.
    pub(crate) strays: Moment,
    /// All must be over.
    pub(crate) end: Moment,
}

impl Schedule {
    /// How the time from `asked` is spent. What follows the containers gets two thirds of it and at most four seconds:
    /// dockerd needs a second to unmount and write down ten containers on a busy machine. If it needs more, it gets most of
    /// what is kept back, too: a daemon that is killed costs more than a late end.
    pub(crate) fn new(asked: Moment, stop_timeout: Duration) -> Self {
        let planned = asked + stop_timeout.saturating_sub(MARGIN);
        let after = ((planned - asked) * 2 / 3).min(Duration::from_secs(4));
        let late = |hundredths: u32| planned + MARGIN * hundredths / 100;
        let containers = planned - after;
        Self {
            work: asked + (containers - asked) / 2,
            work_killed: asked + (containers - asked) / 2 + ((containers - asked) / 4).min(SESSIONS_GRACE),
            application: asked + (containers - asked) * 7 / 8,
            containers,
            holder: late(45),
            services: late(55),
            strays: late(60),
            end: late(75),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The command in the foreground comes first: it works with the engine.
    Command {
        until: Moment,
        killed: bool,
    },
    Services {
        end_containers: Moment,
    },
    Strays {
        since: Moment,
        look: Moment,
        killed: bool,
    },
    Flush,
    Done,
}

/// A stop under way.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    schedule: Schedule,
    step: Step,
    outcome: Outcome,
    /// Whether the data root is left as a clean stop leaves it.
    clean: bool,
    /// Whether somebody asked for this stop; else a failure is its reason, or the command's end.
    asked: bool,
    /// Whether a failure is its reason.
    failed: bool,
    hurried: bool,
    containers_killed: bool,
    /// When sessions are asked to end, and when they are killed: as scheduled, or sooner in a hurry.
    end_sessions: Moment,
    kill_sessions: Moment,
    /// When the application has no more time, likewise.
    end_application: Moment,
    /// What the log has been told about sessions.
    sessions_said: SessionsSaid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SessionsSaid {
    Nothing,
    Awaited,
    Ended,
}

impl Stop {
    /// A stop that begins at `now`. `outcome`: what it shall end with, if it does not get worse; `clean`: whether the data
    /// root is in order so far.
    pub(crate) fn new(now: Moment, stop_timeout: Duration, outcome: Outcome, clean: bool) -> Self {
        let schedule = Schedule::new(now, stop_timeout);
        let step = Step::Services { end_containers: schedule.containers };
        let asked = outcome == Outcome::CLEAN;
        let failed = outcome.failure.is_some();
        Self {
            schedule,
            step,
            outcome,
            clean,
            asked,
            failed,
            hurried: false,
            containers_killed: false,
            end_sessions: schedule.work,
            kill_sessions: schedule.work_killed,
            end_application: schedule.application,
            sessions_said: SessionsSaid::Nothing,
        }
    }

    /// A command runs in the foreground: nothing else is asked to end before it has ended.
    pub(crate) fn end_command_first(&mut self, actions: &mut Vec<Action>) {
        self.step = Step::Command { until: self.schedule.work, killed: false };
        actions.push(Action::EndCommand { signal: Signal::Terminate });
    }

    /// It has ended with this code.
    pub(crate) fn command_ended(&mut self, code: u8) {
        // Where the host has failed under it, that is what there is to say. What goes wrong in a stop is not.
        if !self.failed {
            self.outcome.code.get_or_insert(code);
        }
        if matches!(self.step, Step::Command { .. }) {
            self.step = Step::Services { end_containers: self.end_containers() };
        }
    }

    /// The host ends with this code, whatever else happens.
    pub(crate) fn ends_with(&mut self, code: u8) {
        self.outcome.code = Some(code);
    }

    /// Nobody asked for this stop, though nothing has failed.
    pub(crate) fn not_asked(&mut self) {
        self.asked = false;
    }

    /// Until when containers may end by their own means.
    fn end_containers(&self) -> Moment {
        if self.hurried { Moment::ZERO } else { self.schedule.containers }
    }

    /// Somebody asks for a stop that is under way. Who asked before cannot wait: the command, sessions and
    /// containers get no more time. Nothing that protects data is skipped.
    pub(crate) fn asked_again(&mut self, now: Moment, why: &str, actions: &mut Vec<Action>) {
        let first = !std::mem::replace(&mut self.asked, true);
        let goes_on = matches!(self.step, Step::Command { .. } | Step::Services { .. });
        if first || self.hurried || !goes_on {
            return;
        }
        say(actions, Level::Info, format!("hurrying, because of another {why}"));
        self.hurried = true;
        self.end_sessions = now.min(self.end_sessions);
        self.kill_sessions = (now + SESSIONS_GRACE).min(self.kill_sessions);
        self.end_application = now.min(self.end_application);
        match &mut self.step {
            Step::Command { until: latest, killed: false } | Step::Services { end_containers: latest } => {
                *latest = now.min(*latest);
            }
            _ => {}
        }
    }

    /// A service's process ended.
    pub(crate) fn ended(
        &mut self,
        now: Moment,
        unit: &mut Unit,
        end: End,
        how: &str,
        actions: &mut Vec<Action>,
    ) {
        let asked = matches!(unit.life, Life::Stopping { .. });
        unit.life = unit.without_process(now);
        // A service that had not come up yet has nothing to lose, and may not know SIGTERM yet.
        let in_order = asked && (end == End::Code(0) || unit.finished.is_some());
        if unit.rules.essential && unit.was_ready && !in_order {
            let name = unit.rules.name;
            self.spoil(format!("{name} {how} while the host was stopping"), SEE_LOG, actions);
        }
    }

    /// So many sessions of a service go on though its process has ended.
    pub(crate) fn sessions_left(
        &mut self,
        now: Moment,
        unit: &mut Unit,
        count: usize,
        actions: &mut Vec<Action>,
    ) {
        let Life::Lingering { look } = &mut unit.life else { return };
        *look = now + LOOK;
        // They may be left behind: how they end has no bearing on the data root, and nothing else shall wait for them.
        if count == 0 || now >= self.schedule.containers {
            unit.life = Life::Stopped;
            return;
        }
        let (said, line) = if now < self.end_sessions {
            let time = (self.end_sessions - now).as_secs_f64();
            (SessionsSaid::Awaited, format!("sessions: {count}; they have {time:.1} s to end by themselves"))
        } else {
            (SessionsSaid::Ended, format!("sessions: {count}; they are ended, for their time is over"))
        };
        if said > self.sessions_said {
            self.sessions_said = said;
            say(actions, Level::Info, format!("{} has {line}", unit.rules.name));
        }
    }

    pub(crate) fn strays_left(&mut self, now: Moment, count: usize, actions: &mut Vec<Action>) {
        let Step::Strays { look, killed, .. } = &mut self.step else { return };
        *look = now + LOOK;
        let given_up = *killed && now >= self.schedule.strays + LOOK;
        if count > 0 && given_up {
            self.spoil("processes that cannot be killed are left behind".to_owned(), SEE_LOG, actions);
        }
        if count == 0 || given_up {
            self.flush(actions);
        }
    }

    pub(crate) fn flushed(&mut self, done: bool, actions: &mut Vec<Action>) {
        if self.step == Step::Flush {
            if !done {
                self.spoil("the data root could not be brought to the disk".to_owned(), SEE_LOG, actions);
            }
            self.exit(actions);
        }
    }

    /// When the stop must hear of the time again.
    pub(crate) fn deadline(&self, units: &[Unit]) -> Option<Moment> {
        match self.step {
            Step::Command { until, .. } => Some(until),
            Step::Services { end_containers } => (0..units.len())
                .filter_map(|service| {
                    let unit = units.get(service)?;
                    match unit.life {
                        Life::Stopping { killed: true, .. } => Some(self.left_behind(unit)),
                        Life::Lingering { look } => Some(look),
                        Life::Stopping { .. } if unit.rules.holds_containers => {
                            Some(self.latest(service, units).min(end_containers))
                        }
                        Life::Stopping { .. } => Some(self.latest(service, units)),
                        _ => None,
                    }
                })
                .min(),
            Step::Strays { look, .. } => Some(look),
            Step::Flush => Some(self.schedule.end),
            Step::Done => None,
        }
    }

    /// Does what is due, and takes the next step when one is over.
    pub(crate) fn advance(&mut self, now: Moment, units: &mut [Unit], actions: &mut Vec<Action>) {
        if let Step::Command { until, killed } = self.step
            && now >= until
        {
            if killed {
                say(actions, Level::Error, "the command cannot be killed and is left behind");
                self.step = Step::Services { end_containers: self.end_containers() };
            } else {
                say(actions, Level::Info, "the command has not ended in time and is killed");
                actions.push(Action::EndCommand { signal: Signal::Kill });
                self.step = Step::Command { until: now + AGAIN, killed: true };
            }
        }
        if let Step::Services { end_containers } = self.step {
            self.end_services(now, units, actions);
            if units.iter().all(|unit| unit.life == Life::Stopped) {
                self.step = Step::Strays { since: now, look: now + LOOK, killed: false };
                actions.push(Action::EndStrays { signal: Some(Signal::Terminate) });
            } else if now >= end_containers
                && units.iter().any(|unit| {
                    unit.rules.holds_containers && matches!(unit.life, Life::Stopping { killed: false, .. })
                })
            {
                if !self.containers_killed {
                    say(
                        actions,
                        Level::Info,
                        "containers that still run are killed, so that dockerd can end cleanly",
                    );
                    self.containers_killed = true;
                }
                actions.push(Action::EndContainers);
                self.step = Step::Services { end_containers: now + AGAIN };
            }
        }
        if let Step::Strays { since, look, killed } = self.step
            && now >= look
        {
            // Where dockerd had died, its containers are among them, and have the time that it would have given them.
            let grace = if self.clean { since + STRAYS_GRACE } else { self.schedule.containers };
            let killed = killed || now >= grace.max(since + STRAYS_GRACE).min(self.schedule.strays);
            self.step = Step::Strays { since, look: now + LOOK, killed };
            // Again each time: one may have been forking.
            actions.push(Action::EndStrays { signal: killed.then_some(Signal::Kill) });
        }
        if self.step == Step::Flush && now >= self.schedule.end {
            self.spoil(
                "the disk did not take the data root's last writes in time".to_owned(),
                MORE_TIME,
                actions,
            );
            actions.push(Action::AbandonFlush);
            self.exit(actions);
        }
    }

    /// How long a service may take to end.
    fn latest(&self, service: usize, units: &[Unit]) -> Moment {
        let Some(unit) = units.get(service) else { return self.schedule.end };
        let has_ended = |used: &usize| {
            units.get(*used).is_some_and(|used| {
                used.rules.essential && matches!(used.life, Life::Stopped | Life::Lingering { .. })
            })
        };
        if unit.rules.holds_sessions {
            self.schedule.work.min(self.kill_sessions)
        } else if unit.rules.runs_application {
            self.end_application
        } else if let Some(finished) = unit.finished {
            (finished + FINISHED_GRACE).min(self.schedule.holder)
        } else if unit.rules.uses.iter().any(has_ended) {
            // What it uses has died under it: it waits in vain.
            self.schedule.containers
        } else if unit.rules.holds_containers {
            self.schedule.holder
        } else {
            self.schedule.services
        }
    }

    /// When a service that does not even end when it is killed is waited for no longer.
    fn left_behind(&self, unit: &Unit) -> Moment {
        let early = unit.rules.holds_sessions || unit.rules.runs_application;
        if early { self.schedule.containers } else { self.schedule.end }
    }

    /// What sessions get at `now`: time, or a signal.
    fn sessions_signal(&self, now: Moment) -> Option<Signal> {
        if now < self.end_sessions {
            None
        } else if now < self.kill_sessions {
            Some(Signal::Terminate)
        } else {
            Some(Signal::Kill)
        }
    }

    /// Asks each service to end as soon as nothing uses it any more, and kills it when its time is over.
    fn end_services(&mut self, now: Moment, units: &mut [Unit], actions: &mut Vec<Action>) {
        for service in (0..units.len()).rev() {
            let used =
                units.iter().any(|user| user.rules.uses.contains(&service) && user.life != Life::Stopped);
            let latest = self.latest(service, units);
            let Some(unit) = units.get_mut(service) else { continue };
            let name = unit.rules.name;
            if matches!(unit.life, Life::Waiting | Life::Backoff { .. }) {
                // A listener that died may have left sessions, too.
                unit.life = unit.without_process(now);
            }
            match unit.life {
                Life::Lingering { look } if now >= look => {
                    unit.life = Life::Lingering { look: now + LOOK };
                    actions.push(Action::EndSessions { service, signal: self.sessions_signal(now) });
                }
                Life::Starting { pid, .. } if !used => {
                    unit.life = Life::Stopping { pid, killed: false };
                    actions.push(Action::Signal { service, signal: Signal::Terminate });
                }
                Life::Ready { pid } if !used => {
                    unit.life = Life::Stopping { pid: Some(pid), killed: false };
                    actions.push(Action::Signal { service, signal: Signal::Terminate });
                }
                Life::Stopping { pid, killed: false } if now >= latest => {
                    unit.life = Life::Stopping { pid, killed: true };
                    actions.push(Action::Signal { service, signal: Signal::Kill });
                    if unit.rules.essential && unit.finished.is_none() {
                        self.spoil(format!("{name} did not end in time and is killed"), MORE_TIME, actions);
                    }
                }
                Life::Stopping { killed: true, .. } if now >= self.left_behind(unit) => {
                    say(actions, Level::Error, format!("{name} cannot be killed and is left behind"));
                    unit.life = Life::Stopped;
                }
                _ => {}
            }
        }
    }

    fn flush(&mut self, actions: &mut Vec<Action>) {
        self.step = Step::Flush;
        actions.push(Action::Flush { clean: self.clean });
    }

    /// Something went wrong: the stop goes on, and the host will not say that it was clean.
    pub(crate) fn spoil(&mut self, cause: String, help: &str, actions: &mut Vec<Action>) {
        say(actions, Level::Error, cause.clone());
        self.clean = false;
        if self.outcome.failure.is_none() {
            self.outcome.failure = Some(Failure::failed(cause, help));
        }
    }

    fn exit(&mut self, actions: &mut Vec<Action>) {
        self.step = Step::Done;
        actions.push(Action::Exit(self.outcome.clone()));
    }
}
