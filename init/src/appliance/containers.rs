//! The application's containers, and what follows from what they do. Pure: who looks at the engine is [`super::run`].
//!
//! Whether one that has ended comes back is the engine's to say: it calls a container `restarting` from the very moment of its end
//! if its restart policy brings it back, and `exited` if nothing does.

use std::collections::BTreeMap;
use std::time::Duration;

use dind_contract::status::{Application, Container as Shown, ContainerState, Health};

use super::engine::Container;
use crate::supervisor::Moment;

/// How long a container that its restart policy has brought back must run before it counts as up: one that dies at once would come
/// and go for ever.
const SETTLED: Duration = Duration::from_secs(1);
/// How long a container may take to come back that somebody ended by hand: `docker restart` ends it and starts it again.
const BY_HAND: Duration = Duration::from_secs(2);
/// The most containers that a report names: it must fit a datagram.
const MOST: usize = 256;

/// What is known of one container.
#[derive(Debug, Clone)]
struct Known {
    container: Container,
    /// When its restart policy brought it back last.
    back: Option<Moment>,
    /// Whether somebody has sent it a signal since it was started.
    signalled: bool,
    /// When it ended, if that was by hand.
    ended_by_hand: Option<Moment>,
    /// Whether it ended before this start of the application, and was not started again.
    is_past: bool,
}

/// A container that has ended for good.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ending {
    id: String,
    name: String,
    code: u8,
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Containers {
    known: BTreeMap<String, Known>,
    /// Who has ended for good, in that order. Those that were removed since stay in it, until another has their name.
    endings: Vec<Ending>,
    /// Ends that were before this start of the application, by id: when each was.
    past: BTreeMap<String, String>,
}

/// What the application is, all in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Some of it goes on. `ready`: and all of it is as it should be.
    Alive { ready: bool },
    /// All of it has ended for good, this with the first code that is not 0.
    Ended { code: u8, words: String },
}

/// What the log shall say of a change; `trouble`: somebody should look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) words: String,
    pub(super) trouble: bool,
}

impl Containers {
    /// Takes note of what the engine says of a container now.
    pub(super) fn seen(&mut self, now: Moment, container: Container) -> Option<Change> {
        if container.is_one_off {
            return None;
        }
        let before = self.known.get(&container.id).map(|known| known.container.shown.clone());
        let change = change(before.as_ref(), &container.shown);
        let known = self.known.entry(container.id.clone()).or_insert_with(|| Known {
            container: container.clone(),
            back: None,
            signalled: false,
            ended_by_hand: None,
            is_past: false,
        });
        let shown = &container.shown;
        let has_ended = matches!(shown.state, ContainerState::Exited | ContainerState::Dead);
        if shown.state == ContainerState::Running
            && before.as_ref().is_some_and(|before| {
                before.state == ContainerState::Restarting || before.restarts < shown.restarts
            })
        {
            known.back = Some(now);
        }
        if !has_ended {
            known.ended_by_hand = None;
        } else if known.signalled && known.ended_by_hand.is_none() {
            known.ended_by_hand = Some(now);
        }
        let (id, name) = (&container.id, &shown.name);
        known.is_past = has_ended && self.past.get(id) == Some(&container.finished);
        match shown.exit_code.filter(|_| has_ended) {
            Some(_) if known.is_past => {}
            Some(code) if !self.endings.iter().any(|ending| ending.id == *id && ending.code == code) => {
                self.endings.retain(|ending| ending.id != *id);
                self.endings.push(Ending { id: id.clone(), name: name.clone(), code });
            }
            Some(_) => {}
            // It runs again, or another has taken its place.
            None => self.endings.retain(|ending| ending.id != *id && ending.name != *name),
        }
        known.container = container;
        change
    }

    /// It was started.
    pub(super) fn started(&mut self, id: &str) {
        if let Some(known) = self.known.get_mut(id) {
            known.signalled = false;
        }
    }

    /// Somebody has sent it a signal.
    pub(super) fn signalled(&mut self, id: &str) {
        if let Some(known) = self.known.get_mut(id) {
            known.signalled = true;
        }
    }

    /// It was removed.
    pub(super) fn gone(&mut self, id: &str) {
        self.known.remove(id);
    }

    /// Only these are left.
    pub(super) fn keep(&mut self, ids: &[String]) {
        self.known.retain(|id, _| ids.contains(id));
    }

    /// One of them.
    pub(super) fn get(&self, id: &str) -> Option<&Container> {
        self.known.get(id).map(|known| &known.container)
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Container> {
        self.known.values().map(|known| &known.container)
    }

    /// Those that run, or that their restart policy brings back.
    pub(super) fn alive(&self) -> Vec<String> {
        self.all().filter(|container| is_alive(container.shown.state)).map(|it| it.id.clone()).collect()
    }

    /// What follows, once everything was started. `None`: it must be looked at again at [`deadline`](Self::deadline).
    pub(super) fn verdict(&self, now: Moment) -> Option<Verdict> {
        // One that was never started waits for somebody who has made it; it is not what the application lives by.
        let alive = |known: &Known| {
            is_alive(known.container.shown.state) || known.container.shown.state == ContainerState::Created
        };
        if self.known.values().any(alive) {
            let ready = self.known.values().all(|known| known.is_up(now));
            return Some(Verdict::Alive { ready });
        }
        if self.known.values().any(|known| known.ended_by_hand.is_some_and(|since| now < since + BY_HAND)) {
            return None;
        }
        let first = self.first_failure();
        let words = first.map_or_else(
            || match self.endings.as_slice() {
                [] => "it has no containers".to_owned(),
                [one] => format!("{} ended with code 0", one.name),
                all => format!("all {} containers ended with code 0", all.len()),
            },
            |ending| format!("{} ended with code {}", ending.name, ending.code),
        );
        Some(Verdict::Ended { code: first.map_or(0, |ending| ending.code), words })
    }

    fn first_failure(&self) -> Option<&Ending> {
        self.endings.iter().find(|ending| ending.code != 0)
    }

    /// Why the application cannot come up, if one that must end well has failed for good since its start began.
    pub(super) fn failed(&self) -> Option<(u8, String)> {
        self.first_failure()
            .map(|ending| (ending.code, format!("{} ended with code {}", ending.name, ending.code)))
    }

    /// What has ended so far is not of the start that begins now. The same for [`remember`](Self::remember).
    pub(super) fn begin(&mut self) -> BTreeMap<String, String> {
        let has_ended = |it: &&Container| it.shown.exit_code.is_some();
        let past = self.all().filter(has_ended).map(|it| (it.id.clone(), it.finished.clone())).collect();
        self.remember(past);
        self.past.clone()
    }

    /// What had ended before the start that goes on.
    pub(super) fn remember(&mut self, past: BTreeMap<String, String>) {
        self.endings.clear();
        for known in self.known.values_mut() {
            known.is_past = past.get(&known.container.id) == Some(&known.container.finished);
        }
        self.past = past;
    }

    /// When the verdict may be another though nothing happens.
    pub(super) fn deadline(&self, now: Moment) -> Option<Moment> {
        self.known
            .values()
            .flat_map(|known| {
                [known.back.map(|back| back + SETTLED), known.ended_by_hand.map(|since| since + BY_HAND)]
            })
            .flatten()
            .filter(|moment| *moment > now)
            .min()
    }

    /// Whether one waits for its restart policy: what comes of that is not always an event.
    pub(super) fn any_restarting(&self) -> bool {
        self.all().any(|container| container.shown.state == ContainerState::Restarting)
    }

    /// For the status.
    pub(super) fn report(&self, project: &str) -> Application {
        let mut containers: Vec<Shown> = self.all().map(|container| container.shown.clone()).collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        containers.truncate(MOST);
        Application { project: project.to_owned(), containers }
    }

    /// How many services stop one after the other: the longest chain of those that need each other.
    pub(super) fn depth(&self) -> u32 {
        let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for container in self.all().filter(|container| is_alive(container.shown.state)) {
            needs.entry(&container.service).or_default().extend(container.needs.iter().map(String::as_str));
        }
        // Each round goes one step down every chain; in circles there would be as many as services, and not more.
        let mut depth = 1;
        let mut level: Vec<&str> = needs.keys().copied().collect();
        for _ in 1..needs.len() {
            level = level
                .iter()
                .flat_map(|service| needs.get(service).cloned().unwrap_or_default())
                .filter(|need| needs.contains_key(need))
                .collect();
            level.sort_unstable();
            level.dedup();
            if level.is_empty() {
                break;
            }
            depth += 1;
        }
        depth
    }
}

impl Known {
    /// Whether it is as it should be.
    fn is_up(&self, now: Moment) -> bool {
        let shown = &self.container.shown;
        match shown.state {
            _ if self.is_past => true,
            ContainerState::Running => match shown.health {
                Some(health) => health == Health::Healthy,
                None => self.back.is_none_or(|back| now >= back + SETTLED),
            },
            // It has done what it was there for.
            ContainerState::Exited => shown.exit_code == Some(0),
            _ => false,
        }
    }
}

fn is_alive(state: ContainerState) -> bool {
    matches!(state, ContainerState::Running | ContainerState::Restarting | ContainerState::Paused)
}

/// What is worth a line. That one was made or started is not: Compose says it, or nobody asked.
fn change(before: Option<&Shown>, now: &Shown) -> Option<Change> {
    let before = before?;
    let (words, trouble) = match (before.state, now.state) {
        (was, ContainerState::Restarting) if was != ContainerState::Restarting => {
            ("ended, and its restart policy brings it back".to_owned(), true)
        }
        (was, ContainerState::Exited | ContainerState::Dead) if is_alive(was) => {
            let code = now.exit_code.unwrap_or_default();
            (format!("ended with code {code}"), code != 0)
        }
        (ContainerState::Restarting, ContainerState::Running) => ("runs again".to_owned(), false),
        _ if before.health != now.health && now.health == Some(Health::Unhealthy) => {
            ("is unhealthy".to_owned(), true)
        }
        _ if before.health == Some(Health::Unhealthy) && now.health == Some(Health::Healthy) => {
            ("is healthy again".to_owned(), false)
        }
        _ => return None,
    };
    Some(Change { words: format!("{} {words}", now.name), trouble })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(service: &str, state: ContainerState, exit_code: Option<u8>) -> Container {
        Container {
            id: format!("id of {service}"),
            shown: Shown { name: format!("{service}-1"), state, health: None, exit_code, restarts: 0 },
            service: service.to_owned(),
            is_one_off: false,
            needs: Vec::new(),
            finished: String::new(),
            has_terminal: false,
        }
    }

    fn running(service: &str) -> Container {
        container(service, ContainerState::Running, None)
    }

    fn exited(service: &str, code: u8) -> Container {
        container(service, ContainerState::Exited, Some(code))
    }

    const fn ms(ms: u64) -> Moment {
        Duration::from_millis(ms)
    }

    fn seen(all: &[Container]) -> Containers {
        let mut containers = Containers::default();
        for container in all {
            containers.seen(ms(0), container.clone());
        }
        containers
    }

    #[test]
    fn the_application_has_ended_when_all_of_it_has() {
        let ended = |code, words: &str| Some(Verdict::Ended { code, words: words.to_owned() });
        let alive = |ready| Some(Verdict::Alive { ready });
        let restarting = container("web", ContainerState::Restarting, None);
        let table = [
            (vec![running("web"), running("db")], alive(true)),
            (vec![running("web"), exited("task", 0)], alive(true)),
            (vec![running("web"), exited("task", 1)], alive(false)),
            (vec![restarting], alive(false)),
            (vec![container("web", ContainerState::Created, None)], alive(false)),
            (vec![container("web", ContainerState::Paused, None)], alive(false)),
            (vec![exited("task", 0)], ended(0, "task-1 ended with code 0")),
            (vec![exited("a", 0), exited("b", 0)], ended(0, "all 2 containers ended with code 0")),
            // In the order of ending, not of names.
            (vec![exited("z", 3), exited("a", 4), exited("b", 0)], ended(3, "z-1 ended with code 3")),
            (vec![exited("a", 0), exited("z", 7)], ended(7, "z-1 ended with code 7")),
            (vec![], ended(0, "it has no containers")),
        ];
        for (all, verdict) in table {
            assert_eq!(seen(&all).verdict(ms(0)), verdict, "{all:?}");
        }
    }

    #[test]
    fn one_that_comes_back_has_not_ended() {
        let mut containers = seen(&[exited("web", 3)]);
        containers.seen(ms(1), running("web"));
        containers.seen(ms(2), exited("task", 5));
        containers.seen(ms(3), exited("web", 3));
        let ended = Some(Verdict::Ended { code: 5, words: "task-1 ended with code 5".into() });
        assert_eq!(containers.verdict(ms(3)), ended, "its first end does not count");
        // Another of its name, in its place.
        let other = Container { id: "other".into(), ..running("task") };
        containers.gone("id of task");
        containers.seen(ms(4), other);
        containers.seen(ms(5), Container { id: "other".into(), ..exited("task", 0) });
        let ended = Some(Verdict::Ended { code: 3, words: "web-1 ended with code 3".into() });
        assert_eq!(containers.verdict(ms(5)), ended);
    }

    #[test]
    fn one_that_was_removed_has_ended_with_its_code() {
        let mut containers = seen(&[running("web"), exited("task", 9)]);
        containers.gone("id of task");
        assert_eq!(containers.verdict(ms(0)), Some(Verdict::Alive { ready: true }));
        containers.seen(ms(1), exited("web", 0));
        assert!(matches!(containers.verdict(ms(1)), Some(Verdict::Ended { code: 9, .. })));
    }

    #[test]
    fn whoever_ends_one_by_hand_may_start_it_again() {
        let mut containers = seen(&[running("web")]);
        containers.signalled("id of web");
        containers.seen(ms(10), exited("web", 143));
        assert_eq!(containers.verdict(ms(10)), None);
        assert_eq!(containers.deadline(ms(10)), Some(ms(2010)));
        containers.started("id of web");
        containers.seen(ms(20), running("web"));
        assert_eq!(containers.verdict(ms(20)), Some(Verdict::Alive { ready: true }));
        containers.signalled("id of web");
        containers.seen(ms(30), exited("web", 143));
        assert!(matches!(containers.verdict(ms(2030)), Some(Verdict::Ended { code: 143, .. })));
    }

    #[test]
    fn one_that_its_policy_brought_back_must_stay_for_a_while() {
        let mut containers = seen(&[running("web")]);
        let change = containers.seen(ms(5), container("web", ContainerState::Restarting, None)).unwrap();
        assert!(change.trouble && change.words.contains("web-1"), "{change:?}");
        containers.seen(ms(10), running("web"));
        assert_eq!(containers.verdict(ms(10)), Some(Verdict::Alive { ready: false }));
        assert_eq!(containers.deadline(ms(10)), Some(ms(1010)));
        assert_eq!(containers.verdict(ms(1010)), Some(Verdict::Alive { ready: true }));
    }

    #[test]
    fn health_checks_decide() {
        let with = |health| {
            let mut web = running("web");
            web.shown.health = Some(health);
            web
        };
        let mut containers = seen(&[with(Health::Starting)]);
        assert_eq!(containers.verdict(ms(0)), Some(Verdict::Alive { ready: false }));
        assert_eq!(containers.seen(ms(1), with(Health::Healthy)), None);
        assert_eq!(containers.verdict(ms(1)), Some(Verdict::Alive { ready: true }));
        assert!(containers.seen(ms(2), with(Health::Unhealthy)).unwrap().trouble);
        assert_eq!(containers.verdict(ms(2)), Some(Verdict::Alive { ready: false }));
    }

    #[test]
    fn what_somebody_runs_beside_it_is_not_the_application() {
        let mut containers = seen(&[exited("web", 0)]);
        containers.seen(ms(0), Container { id: "x".into(), is_one_off: true, ..running("web") });
        assert!(matches!(containers.verdict(ms(0)), Some(Verdict::Ended { code: 0, .. })));
    }

    #[test]
    fn what_ended_before_this_start_is_past() {
        let mut containers = seen(&[exited("web", 143), exited("task", 1)]);
        let past = containers.begin();
        assert_eq!(past.len(), 2);
        assert_eq!(containers.failed(), None);
        containers.seen(ms(1), running("web"));
        assert_eq!(containers.verdict(ms(1)), Some(Verdict::Alive { ready: true }));
        let again = Container { finished: "later".into(), ..exited("task", 1) };
        containers.seen(ms(2), again);
        assert_eq!(containers.failed(), Some((1, "task-1 ended with code 1".into())));
    }

    #[test]
    fn chains_are_as_long_as_their_longest() {
        let needing = |service: &str, needs: &[&str]| Container {
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
            ..running(service)
        };
        for (all, depth) in [
            (vec![running("a"), running("b")], 1),
            (vec![needing("web", &["db", "cache"]), running("db"), running("cache")], 2),
            (vec![needing("a", &["b"]), needing("b", &["c"]), needing("c", &["gone"])], 3),
            (vec![needing("a", &["b"]), needing("b", &["a"])], 2),
            (vec![], 1),
        ] {
            assert_eq!(seen(&all).depth(), depth, "{all:?}");
        }
    }
}
