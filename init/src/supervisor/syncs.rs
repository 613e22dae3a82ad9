//! When the data root is synced: at once after every answer that promises something, one sync at a time. Pure.

use std::time::Duration;

use super::{Action, Moment, say};
use crate::log::Level;

/// From an acknowledgement to its sync. The engine tells of some things a moment before it has written all of them, and
/// one build acknowledges several things within a few milliseconds.
const SETTLE: Duration = Duration::from_millis(20);
/// The same from a change among the images, of which one pull or build makes dozens.
const CHANGES_SETTLE: Duration = Duration::from_millis(100);
/// Time between two tries to hear of acknowledgements, and to sync when that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// So often in a row in vain means that the engine does not tell; an authorization plugin may forbid it.
const IN_VAIN: u32 = 3;
/// Time between two syncs where it does not.
const UNTOLD: Duration = Duration::from_secs(10);
/// Time between two lines that say that a sync is still under way.
const NOTICE: Duration = Duration::from_secs(30);

/// Syncs of a host that runs.
#[derive(Debug, Clone)]
pub(crate) struct Syncs {
    /// Whether there are any (`DIND_SYNC`).
    enabled: bool,
    watch: Watch,
    /// When the next one is due.
    due: Option<Moment>,
    /// The one under way: when it began, and when to say next that it still is.
    running: Option<(Moment, Moment)>,
    /// Whether the last one failed, which is said once.
    failed: bool,
    /// How many times acknowledgements could not be heard since one was.
    in_vain: u32,
}

/// Whether the engine's acknowledgements are heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// No engine is ready.
    Off,
    /// From this moment on it shall be.
    At(Moment),
    On,
}

impl Syncs {
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled, watch: Watch::Off, due: None, running: None, failed: false, in_vain: 0 }
    }

    /// The engine is ready, for the first time or again.
    pub(super) fn engine_ready(&mut self, now: Moment) {
        if self.enabled && self.watch == Watch::Off {
            self.watch = Watch::At(now);
            self.in_vain = 0;
        }
    }

    /// The engine is no more.
    pub(super) fn engine_gone(&mut self) {
        self.watch = Watch::Off;
    }

    /// Acknowledgements are not heard any more, or could not be heard.
    pub(super) fn deaf(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.watch != Watch::On {
            return;
        }
        self.in_vain += 1;
        self.watch = Watch::At(now + if self.in_vain < IN_VAIN { AGAIN } else { UNTOLD });
        if self.in_vain == IN_VAIN {
            let message = format!(
                "dockerd does not tell what it acknowledges, so the data root is synced every {} s instead",
                UNTOLD.as_secs()
            );
            say(actions, Level::Warn, message);
        }
    }

    /// The engine has acknowledged something.
    pub(super) fn acknowledged(&mut self, now: Moment) {
        self.in_vain = 0;
        self.want(now + SETTLE);
    }

    /// Something has changed among the images.
    pub(super) fn changed(&mut self, now: Moment) {
        self.want(now + CHANGES_SETTLE);
    }

    fn want(&mut self, at: Moment) {
        if self.enabled {
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        }
    }

    /// The sync under way has come to its end.
    pub(super) fn synced(&mut self, now: Moment, trouble: Option<String>, actions: &mut Vec<Action>) {
        self.running = None;
        match trouble {
            None if self.failed => {
                self.failed = false;
                say(actions, Level::Info, "the data root is synced again");
            }
            None => {}
            Some(trouble) => {
                self.due.get_or_insert(now + AGAIN);
                if !std::mem::replace(&mut self.failed, true) {
                    let message = format!(
                        "the data root is not synced: {trouble}; what is acknowledged now may not survive a power cut"
                    );
                    say(actions, Level::Error, message);
                }
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let watch = match self.watch {
            Watch::At(at) => Some(at),
            Watch::Off | Watch::On => None,
        };
        let sync = self.running.map(|(_, notice)| notice).or(self.due);
        watch.into_iter().chain(sync).min()
    }

    pub(super) fn advance(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if let Watch::At(at) = self.watch
            && now >= at
        {
            self.watch = Watch::On;
            actions.push(Action::Watch);
            // What was acknowledged while nobody listened.
            self.want(now + SETTLE);
        }
        match &mut self.running {
            None if self.due.is_some_and(|due| now >= due) => {
                self.due = None;
                self.running = Some((now, now + NOTICE));
                actions.push(Action::Sync);
            }
            Some((began, notice)) if now >= *notice => {
                *notice = now + NOTICE;
                let waited = now.saturating_sub(*began).as_secs();
                let message = format!("the disk has been taking the data root for {waited} s so far");
                say(actions, Level::Warn, message);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    /// What is done at this time.
    fn at(syncs: &mut Syncs, now: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        syncs.advance(ms(now), &mut actions);
        actions
    }

    #[test]
    fn a_burst_of_acknowledgements_is_one_sync_and_later_ones_are_another() {
        let mut syncs = Syncs::new(true);
        syncs.engine_ready(ms(0));
        assert_eq!(at(&mut syncs, 0), [Action::Watch]);
        assert_eq!(at(&mut syncs, 20), [Action::Sync]);
        for now in [30, 31, 500] {
            syncs.acknowledged(ms(now));
            assert_eq!(at(&mut syncs, now), [], "one is under way");
        }
        syncs.synced(ms(600), None, &mut Vec::new());
        assert_eq!(at(&mut syncs, 600), [Action::Sync]);
        syncs.synced(ms(700), None, &mut Vec::new());
        assert_eq!(at(&mut syncs, 10_000), []);
        assert_eq!(syncs.deadline(), None, "an idle host sleeps");
    }

    #[test]
    fn a_change_waits_for_others_and_an_acknowledgement_does_not_wait_for_it() {
        let mut syncs = Syncs::new(true);
        syncs.changed(ms(0));
        syncs.changed(ms(50));
        assert_eq!(at(&mut syncs, 99), []);
        assert_eq!(at(&mut syncs, 100), [Action::Sync]);
        syncs.synced(ms(110), None, &mut Vec::new());
        syncs.changed(ms(200));
        syncs.acknowledged(ms(210));
        assert_eq!(syncs.deadline(), Some(ms(230)));
        assert_eq!(at(&mut syncs, 230), [Action::Sync]);
        syncs.synced(ms(240), None, &mut Vec::new());
        assert_eq!(syncs.deadline(), None);
    }

    #[test]
    fn a_sync_that_failed_is_tried_again_and_said_once() {
        let mut syncs = Syncs::new(true);
        syncs.acknowledged(ms(0));
        assert_eq!(at(&mut syncs, 20), [Action::Sync]);
        let mut said = Vec::new();
        syncs.synced(ms(30), Some("no space".into()), &mut said);
        assert_eq!(said.len(), 1);
        assert_eq!(syncs.deadline(), Some(ms(1030)));
        assert_eq!(at(&mut syncs, 1030), [Action::Sync]);
        syncs.synced(ms(1040), Some("no space".into()), &mut said);
        assert_eq!(said.len(), 1);
        assert_eq!(at(&mut syncs, 2040), [Action::Sync]);
        syncs.synced(ms(2050), None, &mut said);
        assert_eq!(said.len(), 2);
    }

    #[test]
    fn who_hangs_up_is_called_again_after_a_second() {
        let mut syncs = Syncs::new(true);
        syncs.engine_ready(ms(0));
        at(&mut syncs, 0);
        syncs.deaf(ms(5), &mut Vec::new());
        assert_eq!(at(&mut syncs, 1004), [Action::Sync]);
        assert_eq!(at(&mut syncs, 1005), [Action::Watch]);
        syncs.engine_gone();
        syncs.deaf(ms(1010), &mut Vec::new());
        syncs.synced(ms(1010), None, &mut Vec::new());
        assert_eq!(at(&mut syncs, 1025), [Action::Sync]);
        syncs.synced(ms(1100), None, &mut Vec::new());
        assert_eq!(at(&mut syncs, 60_000), [], "the engine is gone");
    }

    #[test]
    fn an_engine_that_does_not_tell_is_synced_every_ten_seconds_and_that_is_said_once() {
        let mut syncs = Syncs::new(true);
        syncs.engine_ready(ms(0));
        let mut said = Vec::new();
        for now in [0, 1_000, 2_000, 12_000, 22_000] {
            assert!(at(&mut syncs, now).contains(&Action::Watch), "{now}");
            syncs.deaf(ms(now), &mut said);
            assert_eq!(at(&mut syncs, now + 20), [Action::Sync]);
            syncs.synced(ms(now + 30), None, &mut said);
        }
        assert_eq!(said.len(), 1);
        // It tells again, and hangs up once.
        at(&mut syncs, 32_000);
        syncs.acknowledged(ms(32_000));
        syncs.deaf(ms(32_000), &mut said);
        assert_eq!((syncs.deadline(), said.len()), (Some(ms(32_020)), 1));
        at(&mut syncs, 32_020);
        syncs.synced(ms(32_030), None, &mut said);
        assert!(at(&mut syncs, 33_000).contains(&Action::Watch));
    }

    #[test]
    fn there_are_none_when_they_are_off() {
        let mut syncs = Syncs::new(false);
        syncs.engine_ready(ms(0));
        syncs.acknowledged(ms(0));
        assert_eq!(at(&mut syncs, 1000), []);
        assert_eq!(syncs.deadline(), None);
    }
}
