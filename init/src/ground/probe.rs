//! Probes that need other programs or may hang. They are made by a child (`dind-init probe`), which is an ordinary program:
//! it may block and wait for its own children. PID 1 waits for its answer with a deadline, and decides.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::storage;

/// What the probes found. Nothing is decided yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probed {
    /// Where images can live.
    pub(crate) storage: storage::Probe,
}

/// Makes every probe, and leaves nothing behind.
pub(crate) fn run(data_root: &Path, storage: &str) -> Probed {
    Probed { storage: storage::run(data_root, storage) }
}
