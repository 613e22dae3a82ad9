//! Whether a service that is ready still answers. One that hangs (a deadlock, a SIGSTOP) does not end by itself. Pure.

use std::time::Duration;

use super::Moment;

/// Time between two questions to a service that answers.
const EVERY: Duration = Duration::from_secs(10);
/// Time between two questions to one that has not answered.
const AGAIN: Duration = Duration::from_secs(1);
/// A service that has not answered for so long hangs. A machine that is short of memory or disk can be as slow as this, and
/// killing a service there would make it worse.
const PATIENCE: Duration = Duration::from_secs(30);

/// When a service was asked, and since when it has been silent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heartbeat {
    /// When to ask next; `None`: it is not asked, or has not answered yet.
    next: Option<Moment>,
    /// The first question since its last answer.
    asked: Option<Moment>,
    killed: bool,
}

/// What to do about a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Ask it.
    Ask,
    /// It has been silent for so long: kill it.
    Kill(Duration),
}

impl Heartbeat {
    /// Of a service that has just answered.
    pub(super) fn from(now: Moment) -> Self {
        Self { next: Some(now + EVERY), asked: None, killed: false }
    }

    /// It answered, or could not be asked.
    pub(super) fn pinged(&mut self, now: Moment, answered: bool) {
        if self.killed || self.asked.is_none() {
            return;
        }
        if answered {
            *self = Self::from(now);
        } else {
            self.next = Some(now + AGAIN);
        }
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let patience = self.asked.filter(|_| !self.killed).map(|asked| asked + PATIENCE);
        self.next.into_iter().chain(patience).min()
    }

    pub(super) fn advance(&mut self, now: Moment) -> Due {
        if let Some(asked) = self.asked
            && !self.killed
            && now >= asked + PATIENCE
        {
            self.next = None;
            self.killed = true;
            return Due::Kill(now.saturating_sub(asked));
        }
        if self.next.is_some_and(|next| now >= next) {
            self.next = None;
            self.asked.get_or_insert(now);
            return Due::Ask;
        }
        Due::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Moment {
        Moment::from_secs(seconds)
    }

    #[test]
    fn who_answers_is_asked_every_ten_seconds() {
        let mut heartbeat = Heartbeat::from(s(0));
        for now in [10, 20, 30, 40] {
            assert_eq!(heartbeat.deadline(), Some(s(now)));
            assert_eq!(heartbeat.advance(s(now)), Due::Ask);
            assert_eq!(heartbeat.advance(s(now)), Due::Nothing);
            heartbeat.pinged(s(now), true);
        }
    }

    #[test]
    fn who_is_silent_for_half_a_minute_is_killed_once() {
        let mut heartbeat = Heartbeat::from(s(0));
        assert_eq!(heartbeat.advance(s(10)), Due::Ask);
        // Too busy to let anyone in.
        heartbeat.pinged(s(10), false);
        assert_eq!(heartbeat.advance(s(11)), Due::Ask);
        assert_eq!(heartbeat.deadline(), Some(s(40)), "the second question is not answered at all");
        assert_eq!(heartbeat.advance(s(40)), Due::Kill(s(30)));
        assert_eq!(heartbeat.deadline(), None);
        heartbeat.pinged(s(41), true);
        assert_eq!(heartbeat.advance(s(100)), Due::Nothing);
    }

    #[test]
    fn a_late_answer_is_an_answer() {
        let mut heartbeat = Heartbeat::from(s(0));
        heartbeat.advance(s(10));
        heartbeat.pinged(s(39), true);
        assert_eq!(heartbeat.advance(s(45)), Due::Nothing);
        assert_eq!(heartbeat.deadline(), Some(s(49)));
    }

    #[test]
    fn a_service_that_speaks_no_http_is_not_asked() {
        let mut heartbeat = Heartbeat::default();
        heartbeat.pinged(s(1), false);
        assert_eq!((heartbeat.deadline(), heartbeat.advance(s(100))), (None, Due::Nothing));
    }
}
