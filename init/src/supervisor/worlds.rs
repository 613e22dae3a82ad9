//! The supervisor's invariants, in thousands of made-up worlds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{exited, ms};
use super::*;
use crate::shutdown::Schedule;

/// How a made-up service behaves. Times are milliseconds; `None` means never.
#[derive(Debug, Clone)]
struct Habits {
    uses: Vec<usize>,
    holds_containers: bool,
    application: bool,
    awaited: bool,
    essential: bool,
    spawns: bool,
    ready_after: Option<u64>,
    dies_after: Option<u64>,
    ends_after_term: Option<u64>,
    ends_after_kill: Option<u64>,
    end_code: u8,
    unanswered_pings: usize,
    /// From then on it answers no more.
    hangs_at: Option<u64>,
    /// Whether it holds sessions, and how long after its end each of those that are left then ends by itself.
    sessions: Option<Vec<Option<u64>>>,
    /// Whether they end when they are asked to, and when they are killed.
    sessions_end: (bool, bool),
}

fn habits() -> impl Strategy<Value = Habits> {
    let time = |most: u64| proptest::option::weighted(0.8, 0..most);
    (
        proptest::collection::vec(0usize..4, 0..3),
        any::<bool>(),
        (proptest::bool::weighted(0.8), proptest::bool::weighted(0.95), any::<bool>()),
        time(5_000),
        proptest::option::weighted(0.3, 0u64..90_000),
        time(20_000),
        proptest::option::weighted(0.95, 0u64..100),
        prop_oneof![9 => Just(0u8), 1 => Just(3u8)],
        0usize..3,
        proptest::option::weighted(0.1, 0u64..90_000),
        (
            proptest::option::weighted(0.3, proptest::collection::vec(time(20_000), 0..3)),
            (proptest::bool::weighted(0.7), proptest::bool::weighted(0.9)),
            proptest::bool::weighted(0.2),
        ),
    )
        .prop_map(|it| Habits {
            uses: it.0,
            holds_containers: it.1 && it.10.0.is_none(),
            application: it.10.2 && it.10.0.is_none() && !it.1,
            awaited: it.2.0 || it.2.2,
            essential: it.2.0 && !(it.10.2 && it.10.0.is_none() && !it.1),
            spawns: it.2.1,
            ready_after: it.3,
            dies_after: it.4,
            ends_after_term: it.5,
            ends_after_kill: it.6,
            end_code: it.7,
            unanswered_pings: it.8,
            hangs_at: it.9,
            sessions: it.10.0,
            sessions_end: it.10.1,
        })
}

/// How a made-up command behaves.
#[derive(Debug, Clone)]
struct Errand {
    runs: bool,
    ends_after: Option<u64>,
    ends_after_term: Option<u64>,
    ends_after_kill: Option<u64>,
    code: u8,
}

fn errand() -> impl Strategy<Value = Errand> {
    let time = |most: u64| proptest::option::weighted(0.8, 0..most);
    (proptest::bool::weighted(0.9), time(90_000), time(20_000), time(100), 0u8..3).prop_map(|it| Errand {
        runs: it.0,
        ends_after: it.1,
        ends_after_term: it.2,
        ends_after_kill: it.3,
        code: it.4,
    })
}

/// What happened to a made-up command.
#[derive(Debug, Clone, Copy, Default)]
struct Errands {
    alive: bool,
    was_run: bool,
    asked: bool,
    killed: Option<Moment>,
    /// It ended by itself, before anybody asked it to.
    done: bool,
}

/// What happened to a made-up service.
#[derive(Debug, Clone, Default)]
struct Fate {
    /// The run of its process, which an event belongs to: a dead process sends nothing.
    run: usize,
    alive: bool,
    ended: Option<Moment>,
    pings: usize,
    terminated: Option<Moment>,
    killed: bool,
    /// When each session that it left ends, as far as that is known; `None`: its process has not ended in a stop.
    sessions: Option<Vec<Option<Moment>>>,
    /// It died unasked, or ended otherwise than asked, and has not been ready since.
    crashed: bool,
}

/// A world in which the supervisor runs: it answers actions as the loop would, by its habits.
struct World {
    habits: Vec<Habits>,
    services: Vec<Rules>,
    fates: Vec<Fate>,
    errand: Option<Errand>,
    command: Errands,
    strays: u64,
    strays_killed: bool,
    flush_after: Option<u64>,
    flush_done: bool,
    sync: bool,
    sync_after: u64,
    syncing: bool,
    acknowledged: Option<Moment>,
    idle_since: Moment,
    /// What will happen, by time; the number keeps the order of what happens at once.
    future: BTreeMap<(Moment, usize), (Option<usize>, Event)>,
    next: usize,
    schedule: Option<Schedule>,
    hurried: bool,
    flushes: Vec<bool>,
    outcome: Option<(Moment, Outcome)>,
}

impl World {
    fn later(&mut self, now: Moment, after: Option<u64>, run_of: Option<usize>, event: Event) {
        let Some(after) = after else { return };
        let run = run_of.map(|service| self.fates[service].run);
        self.future.insert((now + ms(after), self.next), (run, event));
        self.next += 1;
    }

    /// Takes note of an event before the supervisor hears of it; false: it belongs to a process that is no more.
    fn happens(&mut self, now: Moment, run: Option<usize>, event: &Event) -> bool {
        match event {
            Event::Exited { service, .. } | Event::Notified { service } | Event::Pinged { service, .. } => {
                let fate = &mut self.fates[*service];
                if run != Some(fate.run) || !fate.alive {
                    return false;
                }
                if let Event::Exited { end, .. } = event {
                    fate.alive = false;
                    fate.ended = Some(now);
                    fate.crashed |= self.services[*service].essential
                        && (fate.terminated.is_none() || *end != End::Code(0));
                }
            }
            Event::SpawnFailed { service, .. } => {
                self.fates[*service].crashed = self.services[*service].essential;
            }
            Event::CommandEnded { .. } | Event::CommandNotRun { .. } => {
                if !self.command.alive {
                    return false;
                }
                self.command.alive = false;
                self.command.done = self.schedule.is_none() && matches!(event, Event::CommandEnded { .. });
            }
            Event::StopAsked { .. } => self.hurried = self.schedule.is_some(),
            Event::Synced { .. } => {
                self.syncing = false;
                self.idle_since = now;
            }
            Event::Acknowledged if self.sync && self.schedule.is_none() => {
                self.acknowledged.get_or_insert(now);
            }
            _ => {}
        }
        true
    }

    fn act(&mut self, now: Moment, action: Action) {
        match action {
            Action::Spawn { service } => {
                assert!(self.schedule.is_none(), "nothing starts in a stop");
                assert!(!self.fates[service].alive, "one process a service");
                let uses = &self.services[service].uses;
                assert!(uses.iter().all(|used| self.fates[*used].run > 0), "what it uses was started first");
                let fate = &mut self.fates[service];
                *fate = Fate { run: fate.run + 1, crashed: fate.crashed, ..Fate::default() };
                let habits = self.habits[service].clone();
                if !habits.spawns {
                    let why = "made up".to_owned();
                    return self.later(now, Some(0), None, Event::SpawnFailed { service, why });
                }
                self.fates[service].alive = true;
                let pid = i32::try_from(self.fates[service].run).unwrap();
                self.later(now, Some(0), None, Event::Spawned { service, pid });
                self.later(now, habits.ready_after, Some(service), Event::Notified { service });
                self.later(now, habits.dies_after, Some(service), exited(service, End::Code(1)));
            }
            Action::Signal { service, signal: Signal::Terminate } => {
                let given_up = self.command.killed.is_some_and(|killed| now >= killed + ms(250));
                assert!(!self.command.alive || given_up, "the command has what it works with to its end");
                assert_eq!(self.fates[service].terminated, None, "a third SIGTERM would end dockerd at once");
                self.fates[service].terminated = Some(now);
                let end = self.schedule.map(|schedule| schedule.end);
                let containers = self.schedule.map(|schedule| schedule.containers);
                for (user, rules) in
                    self.services.iter().enumerate().filter(|(_, it)| it.uses.contains(&service))
                {
                    let fate = &self.fates[user];
                    let early = rules.holds_sessions || rules.runs_application;
                    let given_up = Some(now) >= end || early && Some(now) >= containers;
                    let sessions = fate.sessions.iter().flatten().any(|end| end.is_none_or(|end| end > now));
                    let ended = !fate.alive && !sessions || given_up;
                    assert!(ended, "{service} ends before {} which uses it", rules.name);
                }
                let habits = self.habits[service].clone();
                let ended = exited(service, End::Code(habits.end_code));
                self.later(now, habits.ends_after_term, Some(service), ended);
            }
            Action::Signal { service, signal: Signal::Kill } => {
                if let Some(schedule) = self.schedule {
                    let holds = self.services[service].holds_containers;
                    let mut latest = if holds { schedule.holder } else { schedule.services };
                    if self.services[service].holds_sessions {
                        latest = schedule.work;
                    }
                    // What it uses has died under it, by now or only then.
                    let essential = |used: &&usize| self.services[**used].essential;
                    let uses =
                        self.services[service].uses.iter().filter(essential).map(|used| &self.fates[*used]);
                    let bereft =
                        uses.filter(|used| !used.alive).map(|used| used.ended.unwrap_or_default()).min();
                    if self.services[service].runs_application {
                        latest = schedule.application;
                    } else if !self.services[service].holds_sessions {
                        latest = bereft.map_or(latest, |since| latest.min(schedule.containers.max(since)));
                    }
                    let early =
                        self.services[service].holds_sessions || self.services[service].runs_application;
                    let hurried = self.hurried && early;
                    assert!(now >= latest || hurried, "killed too early");
                    let asked = self.fates[service].terminated.expect("asked before it is killed");
                    assert!(now <= latest.max(asked) + ms(1), "killed too late: {now:?} and not {latest:?}");
                }
                self.fates[service].killed = self.schedule.is_some();
                let after = self.habits[service].ends_after_kill;
                self.later(now, after, Some(service), exited(service, End::Signal(9)));
            }
            Action::Ping { service, .. } => {
                let fate = &mut self.fates[service];
                fate.pings += 1;
                let habits = &self.habits[service];
                let hangs = habits.hangs_at.is_some_and(|at| now >= ms(at));
                let answered = fate.pings > habits.unanswered_pings && !hangs;
                self.later(now, Some(1), Some(service), Event::Pinged { service, answered });
            }
            Action::EndContainers => {
                let schedule = self.schedule.expect("containers end only in a stop");
                assert!(now >= schedule.containers || self.hurried, "containers had time left");
                let waiting = |(id, it): (usize, &Fate)| {
                    self.services[id].holds_containers && it.alive && it.terminated.is_some() && !it.killed
                };
                assert!(self.fates.iter().enumerate().any(waiting), "nobody waits for containers");
            }
            Action::EndSessions { service, signal } => {
                let schedule = self.schedule.expect("sessions end only in a stop");
                assert!(!self.fates[service].alive, "its own process ends first");
                assert!(signal.is_none() || now >= schedule.work || self.hurried, "sessions had time left");
                assert!(
                    signal != Some(Signal::Kill) || now >= schedule.work_killed || self.hurried,
                    "not asked long enough"
                );
                let habits = &self.habits[service];
                let left = habits.sessions.as_ref().expect("it holds none");
                let begin = || left.iter().map(|after| after.map(|after| now + ms(after))).collect();
                let sessions = self.fates[service].sessions.get_or_insert_with(begin);
                let ends = match signal {
                    None => false,
                    Some(Signal::Kill) => habits.sessions_end.1,
                    Some(_) => habits.sessions_end.0,
                };
                sessions.retain(|end| !ends && end.is_none_or(|end| end > now));
                let count = sessions.len();
                self.later(now, Some(0), None, Event::SessionsLeft { service, count });
            }
            Action::EndStrays { signal } => {
                self.strays_killed |= signal == Some(Signal::Kill);
                self.strays = if signal.is_some() { self.strays.saturating_sub(1) } else { self.strays };
                let count = usize::try_from(self.strays).unwrap();
                self.later(now, Some(0), None, Event::StraysLeft { count });
            }
            Action::RunCommand => {
                assert!(self.schedule.is_none(), "nothing starts in a stop");
                assert!(!self.command.was_run, "a command runs once");
                let errand = self.errand.clone().expect("there is one");
                self.command = Errands { alive: true, was_run: true, ..Errands::default() };
                if errand.runs {
                    let end = End::Code(errand.code);
                    self.later(now, errand.ends_after, None, Event::CommandEnded { end });
                } else {
                    let failure = Failure::failed("made up", "nothing");
                    self.later(now, Some(0), None, Event::CommandNotRun { failure });
                }
            }
            Action::EndCommand { signal } => {
                let schedule = self.schedule.expect("asked only in a stop");
                let errand = self.errand.clone().expect("there is one");
                assert!(self.command.alive, "nobody is there to end");
                let after = if signal == Signal::Kill {
                    assert!(self.command.asked, "asked before it is killed");
                    assert!(now >= schedule.work || self.hurried, "it had time left");
                    assert!(now <= schedule.work + ms(1), "killed too late");
                    self.command.killed = Some(now);
                    errand.ends_after_kill
                } else {
                    self.command.asked = true;
                    errand.ends_after_term
                };
                self.later(now, after, None, Event::CommandEnded { end: End::Code(errand.code) });
            }
            Action::PassOn { .. } => panic!("no signal came"),
            Action::Watch => {
                assert!(self.sync && self.schedule.is_none(), "nobody wants to know");
                for after in [1, 3, 700, 701] {
                    self.later(now, Some(after), None, Event::Acknowledged);
                }
                self.later(now, Some(5_000), None, Event::WatchEnded);
            }
            Action::Sync => {
                assert!(
                    self.sync && !self.syncing && self.schedule.is_none(),
                    "one sync at a time, and none in a stop"
                );
                self.syncing = true;
                self.acknowledged = None;
                let trouble = self.sync_after.is_multiple_of(7).then(|| "made up".to_owned());
                self.later(now, Some(self.sync_after), None, Event::Synced { trouble });
            }
            Action::Flush { clean } => {
                assert!(self.strays == 0 || self.strays_killed, "left behind without a SIGKILL");
                self.flushes.push(clean);
                self.later(now, self.flush_after, None, Event::Flushed { done: self.flush_done });
            }
            Action::Exit(outcome) => {
                assert!(self.outcome.is_none(), "a host ends once");
                self.outcome = Some((now, outcome));
            }
            Action::Signal { signal: Signal::Reload, .. }
            | Action::AbandonFlush
            | Action::Announce { .. }
            | Action::Say { .. } => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_path_ends_in_order_and_in_time(
        habits in proptest::collection::vec(habits(), 1..5),
        exit_on_failure in any::<bool>(),
        left_clean in any::<bool>(),
        timeout in 2u64..70,
        stop_at in 0u64..120_000,
        hurry_after in proptest::option::of(0u64..5_000),
        strays in 0u64..4,
        flush_after in proptest::option::weighted(0.9, 0u64..3_000),
        flush_done in proptest::bool::weighted(0.9),
        sync in any::<bool>(),
        sync_after in 0u64..2_000,
        errand in proptest::option::of(errand()),
        time_limit in proptest::option::of(1u64..120_000),
        asked in proptest::bool::weighted(0.8),
    ) {
        let services: Vec<Rules> = habits
            .iter()
            .enumerate()
            .map(|(id, habits)| Rules {
                name: "made up",
                uses: habits.uses.iter().copied().filter(|used| *used < id).collect(),
                ready_within: Duration::from_secs(30),
                answers_ping: id % 2 == 1,
                takes_options: false,
                holds_containers: habits.holds_containers,
                holds_sessions: habits.sessions.is_some(),
                runs_application: habits.application,
                awaited: habits.awaited,
                essential: habits.essential,
            })
            .collect();
        let on_failure = if exit_on_failure { OnFailure::Exit } else { OnFailure::Restart };
        let timeout = Duration::from_secs(timeout);
        let time_limit = time_limit.map(ms);
        let command = errand.is_some();
        let policy = Policy { on_failure, stop_timeout: timeout, time_limit, left_clean, sync, command };
        let mut host = Supervisor::new(services.clone(), policy);
        let mut world = World {
            fates: vec![Fate::default(); habits.len()],
            habits,
            services,
            errand,
            command: Errands::default(),
            strays,
            strays_killed: false,
            flush_after,
            flush_done,
            sync,
            sync_after,
            syncing: false,
            acknowledged: None,
            idle_since: ms(0),
            future: BTreeMap::new(),
            next: 0,
            schedule: None,
            hurried: false,
            flushes: Vec::new(),
            outcome: None,
        };
        world.later(ms(0), Some(0), None, Event::Start);
        // Without anybody to ask for it, too, where there is a limit.
        if asked || time_limit.is_none() {
            world.later(ms(0), Some(stop_at), None, Event::StopAsked { why: "SIGTERM".into() });
            world.later(ms(stop_at), hurry_after, None, Event::StopAsked { why: "SIGINT".into() });
        }

        let mut stopping_since = None;
        let mut said_over = 0;
        let mut steps = 0;
        let mut clock = ms(0);
        while world.outcome.is_none() {
            steps += 1;
            prop_assert!(steps < 20_000, "it goes on for ever");
            let due = world.future.keys().next().copied();
            let (at, event) = match (due, host.deadline()) {
                (Some(key), deadline) if deadline.is_none_or(|deadline| key.0 <= deadline) => {
                    let (run, event) = world.future.remove(&key).unwrap();
                    if !world.happens(clock.max(key.0), run, &event) {
                        continue;
                    }
                    (key.0, event)
                }
                (_, Some(deadline)) => (deadline, Event::Tick),
                (_, None) => {
                    return Err(TestCaseError::fail(format!("it waits for nothing: {host:?}")));
                }
            };
            // A deadline may have passed already; time never goes back.
            clock = clock.max(at);
            let now = clock;
            if world.schedule.is_none() && !world.syncing {
                let waits = world.acknowledged.map_or(ms(0), |since| now.saturating_sub(since.max(world.idle_since)));
                prop_assert!(waits <= ms(1_100), "acknowledged {waits:?} ago, and nobody syncs");
            }
            let actions = host.handle(now, event);
            if host.phase() == Phase::Stopping && stopping_since.is_none() {
                // Whatever is spawned in the very step in which the stop begins would be wrong, too.
                stopping_since = Some(now);
                world.schedule = Some(Schedule::new(now, timeout));
            }
            for (fate, unit) in world.fates.iter_mut().zip(&host.units) {
                fate.crashed &= !matches!(unit.life, Life::Ready { .. });
            }
            for action in actions {
                let over = |message: &String| message.contains("DIND_TIME_LIMIT");
                said_over += usize::from(matches!(&action, Action::Say { message, .. } if over(message)));
                world.act(now, action);
            }
        }
        let (ended, outcome) = world.outcome.clone().unwrap();
        let since = stopping_since.unwrap();
        prop_assert!(ended <= since + timeout - ms(200), "{ended:?} after {since:?}");

        prop_assert!(time_limit.is_none_or(|limit| since <= limit), "it outlives its limit until {since:?}");
        prop_assert_eq!(said_over, usize::from(outcome.time_over.is_some()), "why it ends is said once");
        if outcome.time_over.is_some() {
            prop_assert_eq!((Some(since), outcome.time_over), (time_limit, time_limit), "not before its time");
            let waited = command && !world.command.was_run;
            prop_assert!(!waited || outcome.code == Some(143), "taken for done: {outcome:?}");
        }
        if world.command.done {
            prop_assert_eq!(outcome.code, world.errand.as_ref().map(|errand| errand.code));
        }
        prop_assert_eq!(world.flushes.len(), 1, "synced once, however it ended");

        let was_ready = |id: usize| host.units[id].was_ready;
        let all_ready = (0..host.units.len()).all(|id| was_ready(id) || !host.units[id].rules.essential);
        let in_order = |(id, fate): (usize, &Fate)| {
            !host.units[id].rules.essential || !(fate.alive || fate.crashed && was_ready(id))
        };
        let all_in_order = world.fates.iter().enumerate().all(in_order) && world.strays == 0;
        if world.flushes == [true] {
            prop_assert!(all_in_order, "called clean, and was not: {:?}", world.fates);
            prop_assert!(left_clean || all_ready, "what was left unclean was not seen to");
        }
        if (Outcome { time_over: None, ..outcome }) == Outcome::CLEAN {
            prop_assert!(all_in_order && flush_done, "{:?}", world.fates);
            prop_assert!(world.flushes == [true] || !left_clean);
        }
    }
}
