//! The command in the foreground, for whose sake the host is there: it starts when the host is ready, hears the signals that are not
//! meant for the host, and the host ends with it.

use super::{Action, End, Level, Moment, Outcome, Supervisor, say};
use crate::signals::{self, Meaning};
use dind_contract::exit;

/// Where the command is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreground {
    /// There is none.
    None,
    /// The host is not ready yet.
    Waiting,
    Running,
    Ended,
}

impl Foreground {
    pub(super) fn new(is_there: bool) -> Self {
        if is_there { Self::Waiting } else { Self::None }
    }

    /// The host is ready.
    pub(super) fn run(&mut self, actions: &mut Vec<Action>) {
        if *self == Self::Waiting {
            *self = Self::Running;
            actions.push(Action::RunCommand);
        }
    }

    /// What a host ends with that `signal` stops before its command has run: as if it had ended that. Whoever waits for its code
    /// must not take it for done.
    pub(super) fn code_of_a_stop(self, signal: i32) -> Option<u8> {
        (self == Self::Waiting).then(|| exit::killed_by(signal))
    }
}

impl Supervisor {
    /// A signal came.
    pub(super) fn signalled(&mut self, now: Moment, number: u32, actions: &mut Vec<Action>) {
        if self.foreground == Foreground::Running && !signals::is_for_the_host(number) {
            actions.push(Action::PassOn { number });
            return;
        }
        match signals::meaning(number) {
            Some(Meaning::Stop(why)) => {
                let first = self.stop.is_none();
                self.take(now, super::Event::StopAsked { why }, actions);
                let code = self.foreground.code_of_a_stop(i32::try_from(number).unwrap_or_default());
                if let (Some(stop), Some(code), true) = (&mut self.stop, code, first) {
                    stop.ends_with(code);
                }
            }
            Some(Meaning::Reload) => self.take(now, super::Event::ReloadAsked, actions),
            None => {}
        }
    }

    /// The command's process is no more.
    pub(super) fn command_ended(&mut self, now: Moment, end: End, actions: &mut Vec<Action>) {
        self.foreground = Foreground::Ended;
        match &mut self.stop {
            Some(stop) => stop.command_ended(end.code()),
            None => {
                say(actions, Level::Info, format!("stopping, because the command {}", end.words()));
                self.begin_stop(now, Outcome { code: Some(end.code()), ..Outcome::CLEAN }, actions);
            }
        }
    }
}
