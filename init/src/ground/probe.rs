//! Probes that need other programs or may hang. They are made by a child (`dind-init probe`), which is an ordinary program:
//! it may block and wait for its own children. PID 1 waits for its answer with a deadline, and decides.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::build_cache::{self, Disk};
use super::limits::{self, Limits};
use super::trial::{self, Trial};

/// What the probes found. Nothing is decided yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probed {
    /// A container on trial.
    pub(super) trial: Trial,
    /// Open files and processes.
    pub(super) limits: Limits,
    /// The disk of the data root.
    pub(super) disk: Disk,
}

/// Makes every probe, and leaves nothing behind.
pub(crate) fn run(data_root: &Path) -> Probed {
    Probed { trial: trial::probe(), limits: limits::probe(), disk: build_cache::probe(data_root) }
}
