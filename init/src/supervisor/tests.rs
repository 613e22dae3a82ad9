//! The supervisor as a table of events with a made-up clock.

use super::*;

fn rules(name: &'static str, uses: &[usize]) -> Rules {
    let is_engine = name == "dockerd";
    Rules {
        name,
        uses: uses.to_vec(),
        ready_within: Duration::from_secs(300),
        answers_ping: is_engine,
        takes_options: is_engine,
        holds_containers: is_engine,
        holds_sessions: name == "sshd",
        runs_application: name == "compose",
        awaited: name != "resolver",
        essential: !["resolver", "sshd", "compose"].contains(&name),
    }
}

fn policy(on_failure: OnFailure, left_clean: bool) -> Policy {
    let stop_timeout = Duration::from_secs(10);
    Policy { on_failure, stop_timeout, time_limit: None, left_clean, sync: false, command: false }
}

fn engine(on_failure: OnFailure) -> Supervisor {
    let services = vec![rules("containerd", &[]), rules("dockerd", &[0])];
    Supervisor::new(services, policy(on_failure, true))
}

pub(super) const fn ms(ms: u64) -> Moment {
    Duration::from_millis(ms)
}

/// What is done, without what is said.
fn done(actions: Vec<Action>) -> Vec<Action> {
    actions.into_iter().filter(|action| !matches!(action, Action::Say { .. })).collect()
}

fn terminate(service: usize) -> Action {
    Action::Signal { service, signal: Signal::Terminate }
}

pub(super) fn exited(service: usize, end: End) -> Event {
    Event::Exited { service, end, spoke: true, last: None }
}

/// A host that is ready at 100 ms.
fn ready(on_failure: OnFailure) -> Supervisor {
    let (host, actions) = become_ready(engine(on_failure));
    assert_eq!(actions, [Action::Announce { first: true }]);
    host
}

/// What a host does when it becomes ready, at 100 ms.
fn become_ready(mut host: Supervisor) -> (Supervisor, Vec<Action>) {
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
    let actions = done(host.handle(ms(100), Event::Pinged { service: 1, answered: true }));
    assert_eq!(host.phase(), Phase::Ready);
    assert_eq!(host.deadline(), Some(ms(10_100)), "an idle host wakes only to ask whether dockerd answers");
    (host, actions)
}

/// An appliance at 200 ms: its engine is ready, its application not yet.
fn appliance(command: bool) -> Supervisor {
    let services = vec![rules("containerd", &[]), rules("dockerd", &[0]), rules("compose", &[0, 1])];
    let mut host = Supervisor::new(services, Policy { command, ..policy(OnFailure::Restart, true) });
    assert_eq!(done(host.handle(ms(0), Event::Start)).len(), 3);
    for service in 0..3 {
        host.handle(ms(1), Event::Spawned { service, pid: 10 + i32::try_from(service).unwrap() });
    }
    host.handle(ms(50), Event::Notified { service: 0 });
    host.handle(ms(90), Event::Notified { service: 1 });
    assert!(done(host.handle(ms(200), Event::Pinged { service: 1, answered: true })).is_empty());
    host
}

#[test]
fn a_host_is_ready_while_its_application_is() {
    let mut host = appliance(false);
    assert_eq!(host.phase(), Phase::Starting);
    assert!(done(host.handle(ms(250), Event::Withdrawn { service: 2 })).is_empty());
    // However long it takes, it is not killed for it, and less and less is said of it.
    for (at, lines) in [(10_000, 1), (15_000, 0), (20_100, 1), (30_000, 0), (40_300, 1), (500_000, 1)] {
        let mut said = host.handle(ms(at), Event::Pinged { service: 1, answered: true });
        said.extend(host.handle(ms(at), Event::Tick));
        let said = said.iter().filter(|action| matches!(action, Action::Say { .. })).count();
        assert_eq!(said, lines, "at {at} ms");
    }
    let ready = done(host.handle(ms(500_001), Event::Notified { service: 2 }));
    assert_eq!(ready, [Action::Announce { first: true }]);
    assert!(done(host.handle(ms(500_002), Event::Withdrawn { service: 2 })).is_empty());
    assert_eq!(host.phase(), Phase::Degraded);
    let ready = done(host.handle(ms(500_003), Event::Notified { service: 2 }));
    assert_eq!(ready, [Action::Announce { first: false }]);
}

/// The end of a stop of an appliance in which everything ends as it is asked to.
fn end_of_appliance(host: &mut Supervisor, now: Moment) -> Outcome {
    assert_eq!(done(host.handle(now, exited(2, End::Code(0)))), [terminate(1)], "dockerd ends after it");
    end(host, now)
}

#[test]
fn a_host_ends_with_its_application() {
    for code in [0, 3] {
        let mut host = appliance(false);
        host.handle(ms(300), Event::Notified { service: 2 });
        let ended = Event::ApplicationEnded { code, words: "web-1 ended".into() };
        assert_eq!(done(host.handle(ms(400), ended)), [terminate(2)]);
        // Nobody had asked for this stop, so whoever asks now does not hurry it.
        assert!(done(host.handle(ms(410), TERM)).is_empty());
        let outcome = end_of_appliance(&mut host, ms(500));
        assert_eq!((outcome.code(), outcome.failure), (code, None));
    }
}

#[test]
fn an_application_that_is_stopped_has_not_ended() {
    let mut host = appliance(false);
    assert_eq!(done(host.handle(ms(400), TERM)), [terminate(2)]);
    assert!(
        done(host.handle(ms(410), Event::ApplicationEnded { code: 143, words: String::new() })).is_empty()
    );
    assert_eq!(end_of_appliance(&mut host, ms(500)), Outcome::CLEAN);
}

#[test]
fn an_application_that_does_not_stop_in_its_time_is_left_to_dockerd() {
    let mut host = appliance(false);
    host.handle(ms(0), TERM);
    // Of the five seconds of containers.
    let latest = Duration::from_micros(4_375_000);
    assert_eq!(host.deadline(), Some(latest));
    let kill = Action::Signal { service: 2, signal: Signal::Kill };
    assert_eq!(done(host.handle(latest, Event::Tick)), std::slice::from_ref(&kill));
    assert_eq!(done(host.handle(latest, exited(2, End::Signal(9)))), [terminate(1)]);
    assert_eq!(end(&mut host, latest).code(), 0);
    // In a hurry it has no time.
    let mut host = appliance(false);
    host.handle(ms(0), TERM);
    assert_eq!(done(host.handle(ms(1), TERM)), [kill]);
}

#[test]
fn an_application_that_cannot_come_up_is_tried_again_and_then_given_up() {
    let mut host = appliance(false);
    let mut now = ms(1000);
    for wait in [1000, 2000, 4000, 8000] {
        host.handle(now, exited(2, End::Code(1)));
        host.handle(now, Event::Pinged { service: 1, answered: true });
        assert!(
            done(host.handle(now + ms(wait - 1), Event::Tick))
                .iter()
                .all(|it| !matches!(it, Action::Spawn { .. }))
        );
        now += ms(wait);
        assert!(
            done(host.handle(now, Event::Tick)).contains(&Action::Spawn { service: 2 }),
            "after {wait} ms"
        );
        host.handle(now, Event::Spawned { service: 2, pid: 20 });
    }
    assert_eq!(done(host.handle(now, exited(2, End::Code(1)))), [terminate(1)]);
    assert_eq!(end(&mut host, now).code(), exit::FAILED);
}

#[test]
fn with_a_command_the_application_is_not_what_the_host_is_there_for() {
    let ended = || Event::ApplicationEnded { code: 3, words: "web-1 ended".into() };
    let mut host = appliance(true);
    let actions = done(host.handle(ms(300), Event::Notified { service: 2 }));
    assert_eq!(actions, [Action::Announce { first: true }, Action::RunCommand]);
    assert!(done(host.handle(ms(400), ended())).is_empty());
    // Before it could run, it never will.
    let mut host = appliance(true);
    assert_eq!(done(host.handle(ms(300), ended())), [terminate(2)]);
    let outcome = end_of_appliance(&mut host, ms(400));
    assert_eq!(outcome.code, None);
    assert!(outcome.failure.unwrap().cause.contains("web-1 ended"));
}

/// A host for a command, before it is ready.
fn for_command() -> Supervisor {
    let services = vec![rules("containerd", &[]), rules("dockerd", &[0])];
    Supervisor::new(services, Policy { command: true, ..policy(OnFailure::Restart, true) })
}

/// The same at 100 ms: the command runs.
fn with_command() -> Supervisor {
    let (host, actions) = become_ready(for_command());
    assert_eq!(actions, [Action::Announce { first: true }, Action::RunCommand]);
    host
}

/// Goes through the rest of a stop in which everything ends as it is asked to; what the host ends with.
fn end(host: &mut Supervisor, now: Moment) -> Outcome {
    host.handle(now, exited(1, End::Code(0)));
    host.handle(now, exited(0, End::Code(0)));
    host.handle(now, Event::StraysLeft { count: 0 });
    let actions = done(host.handle(now, Event::Flushed { done: true }));
    let [Action::Exit(outcome)] = &actions[..] else { panic!("it has not ended: {actions:?}") };
    outcome.clone()
}

const TERM: Event = Event::Signalled { number: 15 };
const INT: Event = Event::Signalled { number: 2 };

#[test]
fn a_host_ends_with_its_command_and_as_that_did() {
    for (ended, code) in [(End::Code(0), 0), (End::Code(7), 7), (End::Signal(9), 137)] {
        let mut host = with_command();
        assert_eq!(done(host.handle(ms(1000), Event::CommandEnded { end: ended })), [terminate(1)]);
        assert_eq!(end(&mut host, ms(1100)), Outcome { code: Some(code), ..Outcome::CLEAN });
    }
    // What goes wrong afterwards is in the log, and not the command's fault.
    let mut host = with_command();
    host.handle(ms(1000), Event::CommandEnded { end: End::Code(3) });
    host.handle(ms(1010), exited(1, End::Code(1)));
    host.handle(ms(1010), exited(0, End::Code(0)));
    assert_eq!(done(host.handle(ms(1010), Event::StraysLeft { count: 0 })), [Action::Flush { clean: false }]);
    let actions = done(host.handle(ms(1010), Event::Flushed { done: true }));
    assert!(matches!(&actions[..], [Action::Exit(outcome)] if outcome.code() == 3), "{actions:?}");
}

#[test]
fn a_command_runs_once_and_never_when_the_host_is_stopping() {
    let mut host = with_command();
    host.handle(ms(1000), exited(1, End::Code(1)));
    host.handle(ms(1100), Event::Tick);
    host.handle(ms(1101), Event::Spawned { service: 1, pid: 20 });
    host.handle(ms(1102), Event::Notified { service: 1 });
    let again = done(host.handle(ms(1103), Event::Pinged { service: 1, answered: true }));
    assert_eq!(again, [Action::Announce { first: false }]);

    let mut host = for_command();
    host.handle(ms(0), Event::Start);
    for service in 0..2 {
        host.handle(ms(1), Event::Spawned { service, pid: 10 });
    }
    // As if the signal had ended the command.
    host.handle(ms(50), INT);
    host.handle(ms(60), Event::Notified { service: 1 });
    assert!(done(host.handle(ms(61), Event::Pinged { service: 1, answered: true })).is_empty());
    assert_eq!(end(&mut host, ms(100)).code(), 130);
}

#[test]
fn signals_are_the_commands_but_for_those_that_end_the_host() {
    let mut host = with_command();
    for number in (1..=64).filter(|number| ![15, 17, 30, 37].contains(number)) {
        let actions = done(host.handle(ms(500), Event::Signalled { number }));
        assert_eq!(actions, [Action::PassOn { number }]);
    }
    // SIGCHLD is about our children.
    assert!(done(host.handle(ms(500), Event::Signalled { number: 17 })).is_empty());
    for number in [15, 30, 37] {
        let mut host = with_command();
        let actions = done(host.handle(ms(500), Event::Signalled { number }));
        assert_eq!(actions, [Action::EndCommand { signal: Signal::Terminate }]);
        // It may go on until half of the containers' time is over, and nothing it works with ends before it.
        assert_eq!(host.deadline(), Some(ms(3_000)));
        assert_eq!(done(host.handle(ms(600), INT)), [Action::PassOn { number: 2 }]);
        assert_eq!(done(host.handle(ms(700), Event::CommandEnded { end: End::Signal(15) })), [terminate(1)]);
        assert_eq!(end(&mut host, ms(800)).code(), 143);
    }
}

#[test]
fn a_command_that_does_not_end_is_killed_in_time() {
    let mut host = with_command();
    host.handle(ms(1000), TERM);
    let kill = Action::EndCommand { signal: Signal::Kill };
    assert_eq!(done(host.handle(ms(3_500), Event::Tick)), std::slice::from_ref(&kill));
    assert_eq!(done(host.handle(ms(3_510), Event::CommandEnded { end: End::Signal(9) })), [terminate(1)]);
    // Containers have the other half.
    assert_eq!(host.deadline(), Some(ms(6_000)));
    assert_eq!(end(&mut host, ms(4_000)).code(), 137);

    // One in the kernel's hands does not keep the rest from a clean end; and who asks again need not wait for it.
    let mut host = with_command();
    host.handle(ms(1000), TERM);
    assert_eq!(done(host.handle(ms(1_500), TERM)), [kill]);
    assert_eq!(done(host.handle(ms(1_750), Event::Tick)), [terminate(1), Action::EndContainers]);
}

#[test]
fn a_command_that_cannot_run_ends_the_host_with_its_reason() {
    let mut host = with_command();
    let failure = Failure { code: 126, cause: "cannot run x".into(), help: String::new() };
    assert_eq!(done(host.handle(ms(110), Event::CommandNotRun { failure: failure.clone() })), [terminate(1)]);
    assert_eq!(end(&mut host, ms(200)), Outcome { failure: Some(failure), ..Outcome::CLEAN });
}

#[test]
fn where_the_host_fails_under_a_command_that_is_what_it_ends_with() {
    let mut host = with_command();
    for death in 0..5 {
        host.handle(ms(1000 + death), exited(0, End::Code(1)));
        host.handle(ms(1000 + death), Event::Tick);
        host.units[0].life =
            Life::Starting { pid: Some(9), since: ms(1000), notice: ms(90_000), ping: None, killed: false };
    }
    assert_eq!(host.phase(), Phase::Stopping);
    assert_eq!(done(host.handle(ms(1100), Event::CommandEnded { end: End::Signal(15) })), [terminate(1)]);
    assert_eq!(end(&mut host, ms(1200)).code(), 70);
}

/// A host that may live for half a minute, and perhaps its command, ready at 100 ms.
fn with_limit(command: bool) -> Supervisor {
    let services = vec![rules("containerd", &[]), rules("dockerd", &[0])];
    let policy = policy(OnFailure::Restart, true);
    Supervisor::new(services, Policy { time_limit: Some(LIMIT), command, ..policy })
}

const LIMIT: Moment = Duration::from_secs(30);

#[test]
fn a_host_stops_when_its_time_is_over_as_if_it_was_asked_to() {
    let (mut host, _) = become_ready(with_limit(false));
    assert!(done(host.handle(LIMIT - ms(1), Event::Tick)).iter().all(|it| matches!(it, Action::Ping { .. })));
    assert_eq!(host.deadline(), Some(LIMIT));
    let actions = host.handle(LIMIT, Event::Tick);
    let said = "stopping, because DIND_TIME_LIMIT is over: 30 s".to_owned();
    assert_eq!(actions, [Action::Say { level: Level::Warn, message: said }, terminate(1)]);
    assert_eq!(host.phase(), Phase::Stopping);
    // Whoever asks for a stop now has not waited yet; who asks again has.
    let asked = || Event::StopAsked { why: "SIGTERM".into() };
    assert!(done(host.handle(LIMIT + ms(1), asked())).is_empty());
    let mut hurried = host.clone();
    assert_eq!(done(hurried.handle(LIMIT + ms(2), asked())), [Action::EndContainers]);
    let outcome = end(&mut host, LIMIT + ms(10));
    assert_eq!((outcome.code(), outcome.failure, outcome.time_over), (0, None, Some(LIMIT)));
}

#[test]
fn a_limit_ends_a_host_in_any_phase() {
    // Before anything runs: nothing is started.
    let mut host = with_limit(false);
    let actions = done(host.handle(LIMIT + ms(5), Event::Start));
    assert_eq!(actions, [Action::EndStrays { signal: Some(Signal::Terminate) }]);
    // While it starts.
    let mut host = with_limit(false);
    host.handle(ms(0), Event::Start);
    for service in 0..2 {
        host.handle(ms(1), Event::Spawned { service, pid: 10 });
    }
    assert_eq!(done(host.handle(LIMIT, Event::Tick)), [terminate(1)]);
    assert_eq!(end(&mut host, LIMIT).code(), 0);
    // While it is asked to end already: that goes on as it is.
    let (mut host, _) = become_ready(with_limit(false));
    host.handle(LIMIT - ms(10), Event::StopAsked { why: "SIGTERM".into() });
    assert!(done(host.handle(LIMIT, Event::Tick)).is_empty());
    assert_eq!(end(&mut host, LIMIT), Outcome::CLEAN);
}

#[test]
fn a_limit_ends_the_command_first_as_sigterm_does() {
    let (mut host, _) = become_ready(with_limit(true));
    assert_eq!(done(host.handle(LIMIT, Event::Tick)), [Action::EndCommand { signal: Signal::Terminate }]);
    assert_eq!(done(host.handle(LIMIT + ms(5), Event::CommandEnded { end: End::Code(3) })), [terminate(1)]);
    let outcome = end(&mut host, LIMIT + ms(9));
    assert_eq!((outcome.code(), outcome.time_over), (3, Some(LIMIT)));
    // One that was never run is not done.
    let mut host = with_limit(true);
    host.handle(LIMIT, Event::Start);
    host.handle(LIMIT, Event::StraysLeft { count: 0 });
    let actions = done(host.handle(LIMIT, Event::Flushed { done: true }));
    assert!(matches!(&actions[..], [Action::Exit(outcome)] if outcome.code() == 143), "{actions:?}");
    // One that has ended by itself is.
    let (mut host, _) = become_ready(with_limit(true));
    host.handle(LIMIT, Event::CommandEnded { end: End::Code(0) });
    assert_eq!(end(&mut host, LIMIT), Outcome { code: Some(0), ..Outcome::CLEAN });
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
    let [Action::Exit(Outcome { failure: Some(failure), blamed: Some(1), .. })] = &actions[..] else {
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
        host.handle(now - ms(1), Event::Tick);
        host.handle(now - ms(1), Event::Pinged { service: 1, answered: true });
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

/// It waits for a client that keeps its connection: that takes no container's time, and is no unclean end.
#[test]
fn a_dockerd_that_has_finished_is_not_waited_for() {
    let mut host = ready(OnFailure::Restart);
    host.handle(ms(500), Event::Finished { service: 1 });
    assert_eq!(done(host.handle(ms(1000), Event::StopAsked { why: "SIGTERM".into() })), [terminate(1)]);
    assert!(done(host.handle(ms(1010), Event::Finished { service: 1 })).is_empty());
    assert_eq!(host.deadline(), Some(ms(1260)));
    let kill = Action::Signal { service: 1, signal: Signal::Kill };
    assert_eq!(done(host.handle(ms(1260), Event::Tick)), [kill]);
    assert_eq!(done(host.handle(ms(1261), exited(1, End::Signal(9)))), [terminate(0)]);
    host.handle(ms(1262), exited(0, End::Code(0)));
    let flush = done(host.handle(ms(1262), Event::StraysLeft { count: 0 }));
    assert_eq!(flush, [Action::Flush { clean: true }]);
    assert_eq!(done(host.handle(ms(1263), Event::Flushed { done: true })), [Action::Exit(Outcome::CLEAN)]);
}

#[test]
fn a_dockerd_that_hangs_is_killed_and_started_again() {
    let mut host = ready(OnFailure::Restart);
    let ask = [Action::Ping { service: 1, again: false }];
    assert_eq!(done(host.handle(ms(10_100), Event::Tick)), ask);
    host.handle(ms(10_101), Event::Pinged { service: 1, answered: true });
    assert_eq!(done(host.handle(ms(20_101), Event::Tick)), ask);
    assert_eq!(host.deadline(), Some(ms(50_101)));
    let kill = Action::Signal { service: 1, signal: Signal::Kill };
    assert_eq!(done(host.handle(ms(50_101), Event::Tick)), [kill]);
    assert!(done(host.handle(ms(50_102), exited(1, End::Signal(9)))).is_empty());
    assert_eq!(done(host.handle(ms(50_202), Event::Tick)), [Action::Spawn { service: 1 }]);
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
    let mut host = Supervisor::new(services, policy(OnFailure::Restart, false));
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

#[test]
fn what_is_not_essential_holds_nothing_up_and_is_started_again_for_ever() {
    let services = vec![rules("containerd", &[]), rules("resolver", &[]), rules("dockerd", &[0, 1])];
    let mut host = Supervisor::new(services, policy(OnFailure::Exit, true));
    host.handle(ms(0), Event::Start);
    for service in [0, 1, 2] {
        host.handle(ms(1), Event::Spawned { service, pid: 10 + i32::try_from(service).unwrap() });
    }
    host.handle(ms(50), Event::Notified { service: 0 });
    host.handle(ms(90), Event::Notified { service: 2 });
    host.handle(ms(100), Event::Pinged { service: 2, answered: true });
    assert_eq!(host.phase(), Phase::Ready);
    let mut now = ms(1000);
    for death in 0..20 {
        host.handle(now, exited(1, End::Code(69)));
        assert_eq!(host.phase(), Phase::Ready, "{death}");
        // Longer than any backoff; dockerd may be asked meanwhile whether it lives.
        now += ms(4_000);
        let actions = done(host.handle(now, Event::Tick));
        assert!(actions.contains(&Action::Spawn { service: 1 }), "{death}: {actions:?}");
        host.handle(now, Event::Pinged { service: 2, answered: true });
        host.handle(now, Event::Spawned { service: 1, pid: 20 });
        // dockerd need not find it again.
        assert!(done(host.handle(now, Event::Notified { service: 1 })).is_empty());
    }
    // It ends after the containers that it serves, and how it ends does not matter.
    let stop = host.handle(now, Event::StopAsked { why: "SIGTERM".into() });
    assert_eq!(done(stop), [terminate(2)]);
    assert_eq!(done(host.handle(now, exited(2, End::Code(0)))), [terminate(1), terminate(0)]);
    host.handle(now, exited(1, End::Signal(9)));
    host.handle(now, exited(0, End::Code(0)));
    host.handle(now + ms(50), Event::Tick);
    let flush = host.handle(now + ms(50), Event::StraysLeft { count: 0 });
    assert_eq!(done(flush), [Action::Flush { clean: true }]);
}

/// A host with sshd that is ready at 100 ms.
fn ready_with_ssh(on_failure: OnFailure) -> Supervisor {
    let services = vec![rules("containerd", &[]), rules("dockerd", &[0]), rules("sshd", &[0, 1])];
    let mut host = Supervisor::new(services, policy(on_failure, true));
    host.handle(ms(0), Event::Start);
    for service in 0..3 {
        host.handle(ms(1), Event::Spawned { service, pid: 10 + i32::try_from(service).unwrap() });
    }
    host.handle(ms(50), Event::Notified { service: 0 });
    host.handle(ms(90), Event::Notified { service: 1 });
    assert!(done(host.handle(ms(95), Event::Pinged { service: 1, answered: true })).is_empty());
    assert_eq!(host.phase(), Phase::Starting, "not without sshd");
    let announced = [Action::Announce { first: true }];
    assert_eq!(done(host.handle(ms(100), Event::Notified { service: 2 })), announced);
    host
}

fn end_sessions(signal: Option<Signal>) -> Action {
    Action::EndSessions { service: 2, signal }
}

fn sessions(count: usize) -> Event {
    Event::SessionsLeft { service: 2, count }
}

#[test]
fn without_sessions_a_stop_waits_for_nothing() {
    let mut host = ready_with_ssh(OnFailure::Restart);
    assert_eq!(done(host.handle(ms(1000), Event::StopAsked { why: "SIGTERM".into() })), [terminate(2)]);
    assert_eq!(done(host.handle(ms(1001), exited(2, End::Code(0)))), [end_sessions(None)]);
    assert_eq!(done(host.handle(ms(1001), sessions(0))), [terminate(1)]);
    let (clean, outcome) = after(host, ms(1010), [Some(End::Code(0)), Some(End::Code(0))]);
    assert_eq!((clean, outcome), (true, Outcome::CLEAN));
}

#[test]
fn sessions_have_half_of_the_containers_time() {
    let mut host = ready_with_ssh(OnFailure::Restart);
    host.handle(ms(1000), Event::StopAsked { why: "SIGTERM".into() });
    host.handle(ms(1001), exited(2, End::Code(0)));
    assert!(done(host.handle(ms(1001), sessions(2))).is_empty());
    assert_eq!(host.units[2].state(), ServiceState::Stopping);
    let mut signals = Vec::new();
    let asked = loop {
        let now = host.deadline().unwrap();
        let actions = done(host.handle(now, Event::Tick));
        if actions.contains(&terminate(1)) {
            break now;
        }
        let [Action::EndSessions { service: 2, signal }] = actions[..] else { panic!("{actions:?}") };
        if signals.last().is_none_or(|(_, last)| *last != signal) {
            signals.push((now, signal));
        }
        if done(host.handle(now, sessions(2))).contains(&terminate(1)) {
            break now;
        }
    };
    let [(_, None), (term, Some(Signal::Terminate)), (kill, Some(Signal::Kill))] = signals[..] else {
        panic!("{signals:?}");
    };
    // Containers have until 6000; a look is taken every 50 ms.
    assert!(term >= ms(3500) && term <= ms(3550), "{term:?}");
    assert!(kill >= ms(4500) && kill <= ms(4550), "{kill:?}");
    assert!(asked >= ms(6000) && asked <= ms(6050), "{asked:?}");
    // They may stay: the data root is in order all the same.
    let (clean, outcome) = after(host, ms(6100), [Some(End::Code(0)), Some(End::Code(0))]);
    assert_eq!((clean, outcome), (true, Outcome::CLEAN));
}

#[test]
fn a_second_signal_ends_sessions_at_once() {
    let mut host = ready_with_ssh(OnFailure::Restart);
    host.handle(ms(1000), Event::StopAsked { why: "SIGTERM".into() });
    host.handle(ms(1001), exited(2, End::Code(0)));
    host.handle(ms(1001), sessions(1));
    host.handle(ms(1010), Event::StopAsked { why: "SIGINT".into() });
    let now = host.deadline().unwrap();
    assert_eq!(done(host.handle(now, Event::Tick)), [end_sessions(Some(Signal::Terminate))]);
    assert_eq!(done(host.handle(now, sessions(0))), [terminate(1), Action::EndContainers]);
}

#[test]
fn an_sshd_that_hangs_is_killed_when_its_time_is_over_and_spoils_nothing() {
    let mut host = ready_with_ssh(OnFailure::Restart);
    host.handle(ms(1000), Event::StopAsked { why: "SIGTERM".into() });
    assert_eq!(host.deadline(), Some(ms(3500)));
    let kill = Action::Signal { service: 2, signal: Signal::Kill };
    assert_eq!(done(host.handle(ms(3500), Event::Tick)), [kill]);
    let mut stubborn = host.clone();
    assert_eq!(
        done(host.handle(ms(3501), exited(2, End::Signal(9)))),
        [end_sessions(Some(Signal::Terminate))]
    );
    assert_eq!(done(host.handle(ms(3501), sessions(0))), [terminate(1)]);
    // Not even that ends it: nothing waits for it when containers need their time.
    assert_eq!(stubborn.deadline(), Some(ms(6000)));
    assert!(done(stubborn.handle(ms(6000), Event::Tick)).contains(&terminate(1)));
    for host in [host, stubborn] {
        let (clean, outcome) = after(host, ms(6100), [Some(End::Code(0)), Some(End::Code(0))]);
        assert_eq!((clean, outcome), (true, Outcome::CLEAN));
    }
}

#[test]
fn a_dead_sshd_makes_the_host_degraded_and_no_data_unclean() {
    let mut host = ready_with_ssh(OnFailure::Restart);
    let mut now = ms(1000);
    for death in 0..20 {
        host.handle(now, exited(2, End::Signal(9)));
        assert_eq!(host.phase(), Phase::Degraded, "{death}");
        now += ms(4_000);
        let actions = done(host.handle(now, Event::Tick));
        assert!(actions.contains(&Action::Spawn { service: 2 }), "{death}: {actions:?}");
        host.handle(now, Event::Pinged { service: 1, answered: true });
        host.handle(now, Event::Spawned { service: 2, pid: 20 });
    }
    assert_eq!(done(host.handle(now, Event::Notified { service: 2 })), [Action::Announce { first: false }]);
    // It is down when the stop comes: its sessions have their time.
    host.handle(now, exited(2, End::Signal(9)));
    let stop = host.handle(now, Event::StopAsked { why: "SIGTERM".into() });
    assert_eq!(done(stop), [end_sessions(None)]);
    assert_eq!(done(host.handle(now, sessions(0))), [terminate(1)]);
    let (clean, outcome) = after(host, now, [Some(End::Code(0)), Some(End::Code(0))]);
    assert_eq!((clean, outcome), (true, Outcome::CLEAN));
}

#[test]
fn an_sshd_that_was_never_ready_or_must_not_die_ends_the_host_with_its_data_in_order() {
    let mut host = ready_with_ssh(OnFailure::Exit);
    assert_eq!(done(host.handle(ms(1000), exited(2, End::Code(3)))), [end_sessions(None)]);
    assert_eq!(done(host.handle(ms(1000), sessions(0))), [terminate(1)]);
    let (clean, outcome) = after(host, ms(1100), [Some(End::Code(0)), Some(End::Code(0))]);
    assert_eq!((clean, outcome.code(), outcome.blamed), (true, 3, Some(2)));

    let services = vec![rules("containerd", &[]), rules("dockerd", &[0]), rules("sshd", &[0, 1])];
    let mut host = Supervisor::new(services, policy(OnFailure::Restart, true));
    host.handle(ms(0), Event::Start);
    let mut now = ms(1);
    for _ in 0..5 {
        host.handle(now, Event::Spawned { service: 2, pid: 12 });
        host.handle(now, exited(2, End::Code(255)));
        now += ms(4_000);
        host.handle(now, Event::Tick);
    }
    assert_eq!(host.phase(), Phase::Stopping);
}
