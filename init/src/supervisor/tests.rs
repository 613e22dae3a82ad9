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
    Supervisor::new(services, on_failure, Duration::from_secs(10), true)
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
    assert_eq!(killed, Some(ms(9450)));
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
    assert_eq!(host.deadline(), Some(ms(9750)));
    let actions = done(host.handle(ms(9750), Event::Tick));
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
        let now = host.deadline().unwrap();
        let mut actions = host.handle(now, Event::Tick);
        actions.extend(host.handle(now, Event::StraysLeft { count: 1 }));
        for action in actions {
            match action {
                Action::EndStrays { signal: Some(signal) } => signals.push((now, signal)),
                Action::Flush { clean } => {
                    assert!(!clean, "something is left behind");
                    assert_eq!(signals.first(), Some(&(ms(520), Signal::Kill)));
                    return assert!(signals.len() > 1, "one may have been forking: {signals:?}");
                }
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

/// A host that has been stopped at `now`: what comes after its services have ended with these ends.
fn after(mut host: Supervisor, now: Moment, ends: [Option<End>; 2]) -> (bool, Outcome) {
    for service in [1, 0] {
        if let Some(end) = ends[service] {
            host.handle(now, exited(service, end));
        }
    }
    let actions = done(host.handle(now, Event::StraysLeft { count: 0 }));
    let [Action::Flush { clean }] = actions[..] else { panic!("{actions:?}") };
    let actions = done(host.handle(now, Event::Flushed { done: true }));
    let [Action::Exit(outcome)] = &actions[..] else { panic!("{actions:?}") };
    (clean, outcome.clone())
}

fn stop(host: &mut Supervisor, now: Moment) {
    host.handle(now, Event::StopAsked { why: "SIGTERM".into() });
}

#[test]
fn only_an_engine_that_ended_as_it_was_asked_to_is_a_clean_stop() {
    let orderly = Some(End::Code(0));
    for (ends, expected) in [
        ([orderly, orderly], (true, 0)),
        ([orderly, Some(End::Signal(9))], (false, 70)),
        ([orderly, Some(End::Code(1))], (false, 70)),
        ([Some(End::Code(2)), orderly], (false, 70)),
    ] {
        let mut host = ready(OnFailure::Restart);
        stop(&mut host, ms(1000));
        let (clean, outcome) = after(host, ms(1100), ends);
        assert_eq!((clean, outcome.code()), expected, "{ends:?}");
    }
    // It died by itself, before it was its turn.
    let mut host = ready(OnFailure::Restart);
    stop(&mut host, ms(1000));
    host.handle(ms(1010), exited(0, End::Code(0)));
    let (clean, outcome) = after(host, ms(1100), [None, orderly]);
    assert_eq!((clean, outcome.code()), (false, 70));
}

#[test]
fn a_stop_while_dockerd_is_down_or_not_back_is_not_clean() {
    let mut host = ready(OnFailure::Restart);
    host.handle(ms(1000), exited(1, End::Signal(9)));
    let mut backoff = host.clone();
    stop(&mut backoff, ms(1050));
    let (clean, outcome) = after(backoff, ms(1060), [Some(End::Code(0)), None]);
    assert_eq!((clean, outcome.code()), (false, 70));
    host.handle(ms(1100), Event::Tick);
    host.handle(ms(1100), Event::Spawned { service: 1, pid: 20 });
    stop(&mut host, ms(1150));
    let (clean, outcome) = after(host, ms(1160), [Some(End::Code(0)), Some(End::Code(0))]);
    assert_eq!((clean, outcome.code()), (false, 70));
}

#[test]
fn the_first_failure_is_the_one_that_counts() {
    let mut host = ready(OnFailure::Exit);
    host.handle(ms(1000), exited(1, End::Code(3)));
    let (clean, outcome) = after(host, ms(1100), [Some(End::Signal(9)), None]);
    assert_eq!((clean, outcome.code(), outcome.blamed), (false, 3, Some(1)));
}

#[test]
fn the_first_wish_to_stop_does_not_hurry_a_stop_that_nobody_asked_for() {
    let mut host = ready(OnFailure::Exit);
    host.handle(ms(1000), exited(0, End::Code(3)));
    assert!(done(host.handle(ms(1010), Event::StopAsked { why: "SIGTERM".into() })).is_empty());
    let again = host.handle(ms(1020), Event::StopAsked { why: "SIGTERM".into() });
    assert_eq!(done(again), [Action::EndContainers]);
}

#[test]
fn what_was_left_unclean_is_called_clean_only_after_an_engine_has_seen_to_it() {
    let services = vec![rules("containerd", &[]), rules("dockerd", &[0])];
    let mut host = Supervisor::new(services, OnFailure::Restart, Duration::from_secs(10), false);
    host.handle(ms(0), Event::Start);
    host.handle(ms(0), Event::Spawned { service: 0, pid: 1 });
    host.handle(ms(0), Event::Spawned { service: 1, pid: 2 });
    stop(&mut host, ms(10));
    let (clean, outcome) = after(host, ms(20), [Some(End::Signal(15)), Some(End::Signal(15))]);
    assert_eq!((clean, outcome.code()), (false, 0));
}

#[test]
fn the_nearest_of_two_deadlines_counts() {
    let mut host = ready(OnFailure::Restart);
    host.handle(ms(1000), exited(1, End::Signal(9)));
    host.handle(ms(1010), exited(0, End::Signal(9)));
    assert_eq!(host.deadline(), Some(ms(1100)));
    assert_eq!(done(host.handle(ms(1100), Event::Tick)), [Action::Spawn { service: 1 }]);
    assert_eq!(host.deadline(), Some(ms(1110)));
}

#[test]
fn failures_that_are_far_apart_add_up_when_it_never_works_in_between() {
    let mut host = engine(OnFailure::Restart);
    host.handle(ms(0), Event::Start);
    host.handle(ms(0), Event::Spawned { service: 0, pid: 8 });
    host.handle(ms(0), Event::Notified { service: 0 });
    for round in 1..=4 {
        let now = Duration::from_secs(100 * round);
        assert!(done(host.handle(now, exited(1, End::Code(1)))).is_empty());
        host.handle(now + ms(100), Event::Tick);
        host.handle(now + ms(100), Event::Spawned { service: 1, pid: 9 });
    }
    host.handle(Duration::from_secs(500), exited(1, End::Code(1)));
    assert_eq!(host.phase(), Phase::Stopping);
}

#[test]
fn only_a_start_of_dockerd_is_a_refusal() {
    let refuses = |end| Event::Exited { service: 1, end, spoke: false, last: Some("no".to_owned()) };
    let starting = || {
        let mut host = engine(OnFailure::Restart);
        host.handle(ms(0), Event::Start);
        host
    };
    let mut host = starting();
    host.handle(ms(1), refuses(End::Signal(9)));
    assert_eq!(host.phase(), Phase::Starting, "it was killed");
    let mut host = ready(OnFailure::Restart);
    host.handle(ms(1000), refuses(End::Code(1)));
    assert_eq!(host.phase(), Phase::Degraded, "it took them before");
    let mut host = starting();
    let last = Some("no".to_owned());
    host.handle(ms(1), Event::Exited { service: 0, end: End::Code(1), spoke: false, last });
    assert_eq!(host.phase(), Phase::Starting, "containerd has none");
    let mut host = starting();
    host.handle(ms(1), refuses(End::Code(1)));
    assert_eq!(host.phase(), Phase::Stopping);
}

#[test]
fn a_program_that_cannot_be_started_is_126() {
    let mut host = engine(OnFailure::Exit);
    host.handle(ms(0), Event::Start);
    host.handle(ms(0), Event::SpawnFailed { service: 0, why: "no memory".into() });
    let (_, outcome) = after(host, ms(10), [None, Some(End::Code(0))]);
    assert_eq!(outcome.code(), 126);
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
    end_code: u8,
    unanswered_pings: usize,
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
        prop_oneof![9 => Just(0u8), 1 => Just(3u8)],
        0usize..3,
    )
        .prop_map(|it| Habits {
            uses: it.0,
            holds_containers: it.1,
            spawns: it.2,
            ready_after: it.3,
            dies_after: it.4,
            ends_after_term: it.5,
            ends_after_kill: it.6,
            end_code: it.7,
            unanswered_pings: it.8,
        })
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
    /// It died unasked, or ended otherwise than asked, and has not been ready since.
    crashed: bool,
}

/// A world in which the supervisor runs: it answers actions as the loop would, by its habits.
struct World {
    habits: Vec<Habits>,
    services: Vec<Rules>,
    fates: Vec<Fate>,
    strays: u64,
    strays_killed: bool,
    flush_after: Option<u64>,
    flush_done: bool,
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
                    fate.crashed |= fate.terminated.is_none() || *end != End::Code(0);
                }
            }
            Event::SpawnFailed { service, .. } => self.fates[*service].crashed = true,
            Event::StopAsked { .. } => self.hurried = self.schedule.is_some(),
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
                assert_eq!(self.fates[service].terminated, None, "a third SIGTERM would end dockerd at once");
                self.fates[service].terminated = Some(now);
                let end = self.schedule.map(|schedule| schedule.end);
                for (user, rules) in
                    self.services.iter().enumerate().filter(|(_, it)| it.uses.contains(&service))
                {
                    let ended = !self.fates[user].alive || Some(now) >= end;
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
                    // What it uses has died under it, by now or only then.
                    let uses = self.services[service].uses.iter().map(|used| &self.fates[*used]);
                    let bereft =
                        uses.filter(|used| !used.alive).map(|used| used.ended.unwrap_or_default()).min();
                    latest = bereft.map_or(latest, |since| latest.min(schedule.containers.max(since)));
                    assert!(now >= latest, "killed too early");
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
                let answered = fate.pings > self.habits[service].unanswered_pings;
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
            Action::EndStrays { signal } => {
                self.strays_killed |= signal == Some(Signal::Kill);
                self.strays = if signal.is_some() { self.strays.saturating_sub(1) } else { self.strays };
                let count = usize::try_from(self.strays).unwrap();
                self.later(now, Some(0), None, Event::StraysLeft { count });
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
            })
            .collect();
        let policy = if exit_on_failure { OnFailure::Exit } else { OnFailure::Restart };
        let timeout = Duration::from_secs(timeout);
        let mut host = Supervisor::new(services.clone(), policy, timeout, left_clean);
        let mut world = World {
            fates: vec![Fate::default(); habits.len()],
            habits,
            services,
            strays,
            strays_killed: false,
            flush_after,
            flush_done,
            future: BTreeMap::new(),
            next: 0,
            schedule: None,
            hurried: false,
            flushes: Vec::new(),
            outcome: None,
        };
        world.later(ms(0), Some(0), None, Event::Start);
        world.later(ms(0), Some(stop_at), None, Event::StopAsked { why: "SIGTERM".into() });
        world.later(ms(stop_at), hurry_after, None, Event::StopAsked { why: "SIGINT".into() });

        let mut stopping_since = None;
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
                world.act(now, action);
            }
        }
        let (ended, outcome) = world.outcome.clone().unwrap();
        let since = stopping_since.unwrap();
        prop_assert!(ended <= since + timeout - ms(200), "{ended:?} after {since:?}");

        prop_assert_eq!(world.flushes.len(), 1, "synced once, however it ended");

        let was_ready = |id: usize| host.units[id].was_ready;
        let all_ready = (0..host.units.len()).all(was_ready);
        let in_order = |(id, fate): (usize, &Fate)| !(fate.alive || fate.crashed && was_ready(id));
        let all_in_order = world.fates.iter().enumerate().all(in_order) && world.strays == 0;
        if world.flushes == [true] {
            prop_assert!(all_in_order, "called clean, and was not: {:?}", world.fates);
            prop_assert!(left_clean || all_ready, "what was left unclean was not seen to");
        }
        if outcome == Outcome::CLEAN {
            prop_assert!(all_in_order && flush_done, "{:?}", world.fates);
            prop_assert!(world.flushes == [true] || !left_clean);
        }
    }
}
