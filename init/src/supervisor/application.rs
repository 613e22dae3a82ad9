//! The application, for whose sake an appliance is there: the host is ready only while it is, and ends when it has ended.

use std::time::Duration;

use super::foreground::Foreground;
use super::{Action, Level, Life, Moment, NOTICE, Outcome, Supervisor, say};
use crate::failure::Failure;

impl Supervisor {
    /// A service that was ready is so no more, though its process goes on.
    pub(super) fn withdrawn(&mut self, now: Moment, service: usize) {
        if let Some(unit) = self.units.get_mut(service)
            && let Life::Ready { pid } = unit.life
        {
            unit.life = Life::Starting {
                pid: Some(pid),
                since: now,
                notice: now + NOTICE,
                ping: None,
                killed: false,
            };
        }
    }

    /// Every container of the application has ended for good, or it cannot come up. With a command in the foreground the host is
    /// there for that.
    pub(super) fn application_ended(
        &mut self,
        now: Moment,
        code: u8,
        words: &str,
        actions: &mut Vec<Action>,
    ) {
        if self.stop.is_some() {
            return;
        }
        let outcome = match self.foreground {
            Foreground::None => Outcome { code: (code != 0).then_some(code), ..Outcome::CLEAN },
            Foreground::Waiting => {
                let failure = Failure::failed(
                    format!("the application has ended before the command could run: {words}"),
                    "the lines above have the cause",
                );
                Outcome { failure: Some(failure), ..Outcome::CLEAN }
            }
            Foreground::Running | Foreground::Ended => return,
        };
        say(actions, Level::Info, format!("stopping, because the application has ended: {words}"));
        self.begin_stop(now, outcome, actions);
        if let Some(stop) = &mut self.stop {
            stop.not_asked();
        }
    }
}

/// As long as nobody will ever wait: what looks after the application decides itself when that is ready.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
