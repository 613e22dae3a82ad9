//! What ends a host that is not up yet: a signal, or the end of its time. Once it is, the loop hears of the one, and the
//! supervisor knows of the other.

use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;

use crate::helper::NotUp;
use crate::settings::time_limit;
use crate::signals::{self, Meaning};

/// Signals, and the host's time.
pub(crate) struct Interrupts {
    pub(crate) signals: SignalFd,
    /// When `dind-init` started.
    pub(crate) began: Instant,
    /// How long it may live.
    pub(crate) time_limit: Option<Duration>,
}

impl Interrupts {
    /// Why the host shall stop, if it shall.
    pub(crate) fn stop(&self) -> Option<NotUp> {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if let Some(Meaning::Stop(why)) = signals::meaning(signal.ssi_signo) {
                return Some(NotUp::Stopped { why, number: signal.ssi_signo });
            }
        }
        self.time_limit.filter(|limit| self.began.elapsed() >= *limit).map(NotUp::TimeOver)
    }

    /// When the host's time is over.
    pub(crate) fn ends(&self) -> Option<Instant> {
        self.began.checked_add(self.time_limit?)
    }

    /// For the status document.
    pub(crate) fn seconds_left(&self) -> Option<u64> {
        self.time_limit.map(|limit| time_limit::seconds_left(limit, self.began.elapsed()))
    }
}
