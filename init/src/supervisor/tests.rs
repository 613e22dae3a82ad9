//! The supervisor as a table of events with a made-up clock, and its invariants in made-up worlds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::shutdown::Schedule;

fn rules(name: &'static str, uses: &[usize]) -> Rules {
    let is_engine = name == "dockerd";
    Rules {
        name,
        uses: uses.to_vec(),
        ready_within: Duration::from_secs(300),
        answers_ping: is_engine,
        takes_options: is_engine,
        holds_containers: is_engine,
    }
}

fn engine(on_failure: OnFailure) -> Supervisor {
    let services = vec![rules("containerd", &[]), rules("dockerd", &[0])];
    Supervisor::new(services, on_failure, Duration::from_secs(10))
}

const fn ms(ms: u64) -> Moment {
    Duration::from_millis(ms)
}

/// What is done, without what is said.
fn done(actions: Vec<Action>) -> Vec<Action> {
    actions.into_iter().filter(|action| !matches!(action, Action::Say { .. })).collect()
}

fn terminate(service: usize) -> Action {
    Action::Signal { service, signal: Signal::Terminate }
}

fn exited(service: usize, end: End) -> Event {
    Event::Exited { service, end, spoke: true, last: None }
}

/// A host that is ready at 100 ms.
fn ready(on_failure: OnFailure) -> Supervisor {
    let mut host = engine(on_failure);
    assert_eq!(
        done(host.handle(ms(0), Event::Start)),
        [Action::Spawn { service: 0 }, Action::Spawn { service: 1 }]
    );
    for service in 0..2 {
        host.handle(ms(1), Event::Spawned { service, pid: 10 + i32::try_from(service).unwrap() });
    }
    assert_eq!(host.phase(), Phase::Starting);
    assert!(done(host.handle(ms(50), Event::Notified { service: 0 })).is_empty());
    assert_eq!(
        done(host.handle(ms(90), Event::Notified { service: 1 })),
        [Action::Ping { service: 1, again: false }]
    );
    assert!(done(host.handle(ms(95), Event::Pinged { service: 1, answered: false })).is_empty());
    assert_eq!(host.deadline(), Some(ms(145)));
    assert_eq!(host.phase(), Phase::Starting);
    assert_eq!(
        done(host.handle(ms(100), Event::Pinged { service: 1, answered: true })),
        [Action::Announce { first: true }]
    );
    assert_eq!(host.phase(), Phase::Ready);
    assert_eq!(host.deadline(), None, "an idle host wakes for nothing");
    host
}

#[test]
fn a_clean_stop_goes_from_the_top_to_the_ground() {
    let mut host = ready(OnFailure::Restart);
    assert_eq!(done(host.handle(ms(1000), Event::StopAsked { why: "SIGTERM".into() })), [terminate(1)]);
    assert_eq!(host.phase(), Phase::Stopping);
    assert_eq!(done(host.handle(ms(1020), exited(1, End::Code(0)))), [terminate(0)]);
    let strays = Action::EndStrays { signal: Some(Signal::Terminate) };
    assert_eq!(done(host.handle(ms(1030), exited(0, End::Code(0)))), [strays]);
    assert_eq!(done(host.handle(ms(1030), Event::StraysLeft { count: 0 })), [Action::Flush { clean: true }]);
    assert_eq!(done(host.handle(ms(1040), Event::Flushed { done: true })), [Action::Exit(Outcome::CLEAN)]);
    assert_eq!(host.deadline(), None);
}

#[test]
fn when_time_runs_out_containers_are_killed_and_not_the_daemon() {
    let mut host = ready(OnFailure::Restart);
    host.handle(ms(1000), Event::StopAsked { why: "SIGTERM".into() });
    // Ten seconds, one of them in reserve, four for what follows the containers.
    assert_eq!(host.deadline(), Some(ms(6000)));
    assert_eq!(done(host.handle(ms(6000), Event::Tick)), [Action::EndContainers]);
    assert_eq!(
        done(host.handle(ms(6250), Event::Tick)),
        [Action::EndContainers],
        "one may have been starting"
    );
    assert_eq!(done(host.handle(ms(6300), exited(1, End::Code(0)))), [terminate(0)]);
}

#[test]
fn a_second_signal_hurries_and_skips_nothing() {
    let mut host = ready(OnFailure::Restart);
    host.handle(ms(1000), Event::StopAsked { why: "SIGTERM".into() });
    assert_eq!(
        done(host.handle(ms(1500), Event::StopAsked { why: "SIGINT".into() })),
        [Action::EndContainers]
    );
    assert!(done(host.handle(ms(1501), Event::StopAsked { why: "SIGINT".into() })).is_empty());
    assert_eq!(done(host.handle(ms(1600), exited(1, End::Code(0)))), [terminate(0)]);
}

#[test]
fn a_daemon_that_does_not_answer_is_killed_at_last_and_the_stop_is_not_clean() {
    let mut host = ready(OnFailure::Restart);
    host.handle(ms(0), Event::StopAsked { why: "SIGTERM".into() });
    let mut killed = None;
    let mut now = ms(0);
    while killed.is_none() {
        now = host.deadline().unwrap();
        let actions = host.handle(now, Event::Tick);
        killed = actions.contains(&Action::Signal { service: 1, signal: Signal::Kill }).then_some(now);
    }
    assert_eq!(killed, Some(ms(8400)));
    assert_eq!(done(host.handle(now, exited(1, End::Signal(9)))), [terminate(0)]);
    host.handle(now, exited(0, End::Code(0)));
    assert_eq!(done(host.handle(now, Event::StraysLeft { count: 0 })), [Action::Flush { clean: false }]);
    let actions = host.handle(now, Event::Flushed { done: true });
    assert!(matches!(&actions[..], [Action::Exit(outcome)] if outcome.code() == 70), "{actions:?}");
}

#[test]
fn a_disk_that_hangs_is_given_up() {
    let mut host = ready(OnFailure::Restart);
    host.handle(ms(0), Event::StopAsked { why: "SIGTERM".into() });
    host.handle(ms(10), exited(1, End::Code(0)));
    host.handle(ms(20), exited(0, End::Code(0)));
    host.handle(ms(20), Event::StraysLeft { count: 0 });
    assert_eq!(host.deadline(), Some(ms(9000)));
    let actions = done(host.handle(ms(9000), Event::Tick));
    assert!(
        matches!(&actions[..], [Action::AbandonFlush, Action::Exit(end)] if end.code() == 70),
        "{actions:?}"
    );
}

#[test]
fn strays_are_asked_then_killed_then_left_behind() {
    let mut host = ready(OnFailure::Restart);
    host.handle(ms(0), Event::StopAsked { why: "SIGTERM".into() });
    host.handle(ms(10), exited(1, End::Code(0)));
    host.handle(ms(20), exited(0, End::Code(0)));
    let mut signals = Vec::new();
    for _ in 0..1000 {
        host.handle(host.deadline().unwrap(), Event::StraysLeft { count: 1 });
        let now = host.deadline().unwrap();
        for action in host.handle(now, Event::Tick) {
            match action {
                Action::EndStrays { signal: Some(signal) } => signals.push((now, signal)),
                Action::Flush { .. } => return assert_eq!(signals, [(ms(520), Signal::Kill)]),
                _ => {}
            }
        }
    }
    panic!("strays hold the host up for ever");
}

#[test]
fn a_service_that_dies_is_started_again_with_backoff_and_fails_for_good_at_the_fifth() {
    let mut host = ready(OnFailure::Restart);
    let mut now = ms(1000);
    for wait in [100, 200, 400, 800] {
        assert!(done(host.handle(now, exited(1, End::Signal(9)))).is_empty());
        assert_eq!(host.phase(), Phase::Degraded);
        assert_eq!(host.deadline(), Some(now + ms(wait)));
        assert!(done(host.handle(now + ms(wait - 1), Event::Tick)).is_empty());
        now += ms(wait);
        assert_eq!(done(host.handle(now, Event::Tick)), [Action::Spawn { service: 1 }]);
        host.handle(now, Event::Spawned { service: 1, pid: 99 });
    }
    assert_eq!(host.units[1].restarts, 4);
    assert_eq!(done(host.handle(now, exited(1, End::Code(1)))), [terminate(0)]);
    host.handle(now, exited(0, End::Code(0)));
    host.handle(now, Event::StraysLeft { count: 0 });
    let actions = done(host.handle(now, Event::Flushed { done: true }));
    let [Action::Exit(Outcome { failure: Some(failure), blamed: Some(1) })] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(failure.code, 70);
    assert!(failure.cause.starts_with("dockerd failed for good"), "{}", failure.cause);
}

#[test]
fn deaths_far_apart_do_not_add_up() {
    let mut host = ready(OnFailure::Restart);
    for round in 1..20 {
        let now = Duration::from_secs(20 * round);
        assert!(done(host.handle(now, exited(0, End::Code(1)))).is_empty());
        host.handle(now + ms(800), Event::Tick);
        host.handle(now + ms(801), Event::Spawned { service: 0, pid: 5 });
        // dockerd must find it again first.
        assert_eq!(
            done(host.handle(now + ms(900), Event::Notified { service: 0 })),
            [Action::Ping { service: 1, again: true }]
        );
        assert_eq!(host.phase(), Phase::Degraded);
        let refused = Event::Pinged { service: 1, answered: false };
        assert!(done(host.handle(now + ms(901), refused)).is_empty());
        let again = [Action::Ping { service: 1, again: true }];
        assert_eq!(done(host.handle(now + ms(951), Event::Tick)), again);
        assert_eq!(
            done(host.handle(now + ms(952), Event::Pinged { service: 1, answered: true })),
            [Action::Announce { first: false }]
        );
    }
}

#[test]
fn on_failure_exit_ends_the_host_with_the_services_code() {
    for (end, code) in [(End::Code(3), 3), (End::Signal(9), 137), (End::Code(0), 70)] {
        let mut host = ready(OnFailure::Exit);
        assert_eq!(done(host.handle(ms(1000), exited(1, end))), [terminate(0)]);
        host.handle(ms(1001), exited(0, End::Code(0)));
        host.handle(ms(1001), Event::StraysLeft { count: 0 });
        let actions = done(host.handle(ms(1002), Event::Flushed { done: true }));
        assert!(matches!(&actions[..], [Action::Exit(outcome)] if outcome.code() == code), "{actions:?}");
    }
}

#[test]
fn an_option_that_dockerd_refuses_is_a_usage_error_at_once() {
    let mut host = engine(OnFailure::Restart);
    host.handle(ms(0), Event::Start);
    host.handle(ms(1), Event::Spawned { service: 0, pid: 1 });
    host.handle(ms(1), Event::Spawned { service: 1, pid: 2 });
    let last = Some("unknown flag: --foo".to_owned());
    let refused = Event::Exited { service: 1, end: End::Code(1), spoke: false, last };
    assert_eq!(done(host.handle(ms(40), refused)), [terminate(0)]);
    // It was not up yet, so it may not know SIGTERM.
    host.handle(ms(50), exited(0, End::Signal(15)));
    host.handle(ms(50), Event::StraysLeft { count: 0 });
    let actions = done(host.handle(ms(60), Event::Flushed { done: true }));
    let [Action::Exit(Outcome { failure: Some(failure), .. })] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(failure.code, 64);
    assert!(failure.cause.contains("unknown flag: --foo"), "{}", failure.cause);
}

#[test]
fn a_service_that_cannot_be_started_fails_for_good_too() {
    let mut host = engine(OnFailure::Restart);
    let mut now = ms(0);
    host.handle(now, Event::Start);
    for _ in 0..4 {
        host.handle(now, Event::SpawnFailed { service: 0, why: "no memory".into() });
        now = host.deadline().unwrap();
        assert_eq!(done(host.handle(now, Event::Tick)), [Action::Spawn { service: 0 }]);
    }
    host.handle(now, Event::SpawnFailed { service: 0, why: "no memory".into() });
    assert_eq!(host.phase(), Phase::Stopping);
}

#[test]
fn what_is_waited_for_is_said_and_given_up_in_the_end() {
    let mut host = engine(OnFailure::Restart);
    host.handle(ms(0), Event::Start);
    host.handle(ms(1), Event::Spawned { service: 1, pid: 2 });
    let mut said = 0;
    loop {
        let now = host.deadline().unwrap();
        let actions = host.handle(now, Event::Tick);
        let kill = Action::Signal { service: 1, signal: Signal::Kill };
        said += actions.iter().filter(|action| matches!(action, Action::Say { .. })).count();
        if actions.contains(&kill) {
            assert_eq!(now, Duration::from_secs(300));
            break;
        }
    }
    assert!(said >= 29, "{said}");
}

#[test]
fn reload_reaches_a_daemon_that_is_ready() {
    let mut host = ready(OnFailure::Restart);
    let reload = Action::Signal { service: 1, signal: Signal::Reload };
    assert_eq!(done(host.handle(ms(500), Event::ReloadAsked)), [reload]);
    assert!(done(engine(OnFailure::Restart).handle(ms(0), Event::ReloadAsked)).is_empty());
}

/// How a made-up service behaves. Times are milliseconds; `None` means never.
#[derive(Debug, Clone)]
struct Habits {
    uses: Vec<usize>,
    holds_containers: bool,
    spawns: bool,
    ready_after: Option<u64>,
    dies_after: Option<u64>,
    ends_after_term: Option<u64>,
    ends_after_kill: Option<u64>,
}

fn habits() -> impl Strategy<Value = Habits> {
    let time = |most: u64| proptest::option::weighted(0.8, 0..most);
    (
        proptest::collection::vec(0usize..4, 0..3),
        any::<bool>(),
        proptest::bool::weighted(0.95),
        time(5_000),
        proptest::option::weighted(0.3, 0u64..90_000),
        time(20_000),
        proptest::option::weighted(0.95, 0u64..100),
    )
        .prop_map(
            |(uses, holds_containers, spawns, ready_after, dies_after, ends_after_term, ends_after_kill)| {
                Habits {
                    uses,
                    holds_containers,
                    spawns,
                    ready_after,
                    dies_after,
                    ends_after_term,
                    ends_after_kill,
                }
            },
        )
}

/// A world in which the supervisor runs: it answers actions as the loop would, by its habits.
struct World {
    habits: Vec<Habits>,
    strays: u64,
    flush_after: Option<u64>,
    /// What will happen, by time; the number keeps the order of what happens at once.
    future: BTreeMap<(Moment, usize), (Option<usize>, Event)>,
    next: usize,
    /// The run of each service's process that an event belongs to: a dead process sends nothing.
    runs: Vec<usize>,
    alive: Vec<bool>,
    spawned: Vec<bool>,
    terminated: Vec<bool>,
    stop_asked: Option<Moment>,
    flushes: Vec<bool>,
    kills: usize,
    outcome: Option<(Moment, Outcome)>,
}

impl World {
    fn later(&mut self, now: Moment, after: Option<u64>, run_of: Option<usize>, event: Event) {
        let Some(after) = after else { return };
        let run = run_of.map(|service| self.runs[service]);
        self.future.insert((now + ms(after), self.next), (run, event));
        self.next += 1;
    }

    fn act(&mut self, now: Moment, action: Action, services: &[Rules], schedule: Option<Schedule>) {
        match action {
            Action::Spawn { service } => {
                assert!(self.stop_asked.is_none(), "nothing starts in a stop");
                assert!(!self.alive[service], "one process a service");
                assert!(
                    services[service].uses.iter().all(|used| self.spawned[*used]),
                    "what it uses was started first"
                );
                self.spawned[service] = true;
                self.runs[service] += 1;
                self.terminated[service] = false;
                let habits = self.habits[service].clone();
                if !habits.spawns {
                    let why = "made up".to_owned();
                    return self.later(now, Some(0), Some(service), Event::SpawnFailed { service, why });
                }
                self.alive[service] = true;
                let pid = i32::try_from(self.runs[service]).unwrap();
                self.later(now, Some(0), Some(service), Event::Spawned { service, pid });
                self.later(now, habits.ready_after, Some(service), Event::Notified { service });
                self.later(now, habits.dies_after, Some(service), exited(service, End::Code(1)));
            }
            Action::Signal { service, signal: Signal::Terminate } => {
                assert!(
                    !self.terminated[service],
                    "one SIGTERM a process: a third would end dockerd at once"
                );
                self.terminated[service] = true;
                let users = (0..services.len()).filter(|user| services[*user].uses.contains(&service));
                let end = schedule.map(|schedule| schedule.end);
                for user in users {
                    assert!(!self.alive[user] || Some(now) >= end, "{service} ends before its user {user}");
                }
                let habits = self.habits[service].clone();
                self.later(now, habits.ends_after_term, Some(service), exited(service, End::Code(0)));
            }
            Action::Signal { service, signal: Signal::Kill } => {
                self.kills += 1;
                if let Some(schedule) = schedule {
                    let holder = services[service].holds_containers;
                    assert!(
                        now >= if holder { schedule.holder } else { schedule.services },
                        "killed too early"
                    );
                }
                let after = self.habits[service].ends_after_kill;
                self.later(now, after, Some(service), exited(service, End::Signal(9)));
            }
            Action::Ping { service, .. } => {
                self.later(now, Some(1), Some(service), Event::Pinged { service, answered: true });
            }
            Action::EndStrays { signal } => {
                self.strays = if signal.is_some() { self.strays.saturating_sub(1) } else { self.strays };
                let count = usize::try_from(self.strays).unwrap();
                self.later(now, Some(0), None, Event::StraysLeft { count });
            }
            Action::Flush { clean } => {
                self.flushes.push(clean);
                self.later(now, self.flush_after, None, Event::Flushed { done: true });
            }
            Action::Exit(outcome) => {
                assert!(self.outcome.is_none(), "a host ends once");
                self.outcome = Some((now, outcome));
            }
            Action::Signal { signal: Signal::Reload, .. }
            | Action::EndContainers
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
        timeout in 2u64..70,
        stop_at in 0u64..120_000,
        hurry_after in proptest::option::of(0u64..5_000),
        strays in 0u64..4,
        flush_after in proptest::option::weighted(0.9, 0u64..3_000),
    ) {
        let count = habits.len();
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
            })
            .collect();
        let policy = if exit_on_failure { OnFailure::Exit } else { OnFailure::Restart };
        let timeout = Duration::from_secs(timeout);
        let mut host = Supervisor::new(services.clone(), policy, timeout);
        let mut world = World {
            habits,
            strays,
            flush_after,
            future: BTreeMap::new(),
            next: 0,
            runs: vec![0; count],
            alive: vec![false; count],
            spawned: vec![false; count],
            terminated: vec![false; count],
            stop_asked: None,
            flushes: Vec::new(),
            kills: 0,
            outcome: None,
        };
        world.later(ms(0), Some(0), None, Event::Start);
        world.later(ms(0), Some(stop_at), None, Event::StopAsked { why: "SIGTERM".into() });
        world.later(ms(stop_at), hurry_after, None, Event::StopAsked { why: "SIGINT".into() });

        let mut schedule = None;
        let mut steps = 0;
        let mut clock = ms(0);
        while world.outcome.is_none() {
            steps += 1;
            prop_assert!(steps < 20_000, "it goes on for ever");
            let due = world.future.keys().next().copied();
            let deadline = host.deadline();
            let (at, event) = match (due, deadline) {
                (Some(key), deadline) if deadline.is_none_or(|deadline| key.0 <= deadline) => {
                    let (run, event) = world.future.remove(&key).unwrap();
                    if let Event::Exited { service, .. } | Event::Notified { service } | Event::Pinged { service, .. } = &event
                        && (run != Some(world.runs[*service]) || !world.alive[*service])
                    {
                        continue;
                    }
                    if let Event::Exited { service, .. } = &event {
                        world.alive[*service] = false;
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
            let actions = host.handle(now, event);
            if host.phase() == Phase::Stopping && world.stop_asked.is_none() {
                // Whatever is spawned in the very step in which the stop begins would be wrong, too.
                world.stop_asked = Some(now);
                schedule = Some(Schedule::new(now, timeout));
            }
            for action in actions {
                world.act(now, action, &services, schedule);
            }
        }
        let (ended, outcome) = world.outcome.clone().unwrap();
        let asked = world.stop_asked.unwrap();
        prop_assert!(ended <= asked + timeout - Duration::from_millis(900), "{:?} after {asked:?}", ended);
        prop_assert_eq!(world.flushes.len(), 1, "synced once, however it ended");
        if outcome == Outcome::CLEAN {
            prop_assert_eq!(&world.flushes, &[true]);
            prop_assert!(world.alive.iter().all(|alive| !alive), "a clean stop leaves nothing behind");
        }
        if world.flushes == [true] {
            prop_assert!(world.alive.iter().all(|alive| !alive));
        }
    }
}
