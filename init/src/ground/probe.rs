//! Probes that need other programs or may hang. They are made by a child (`dind-init helper probe`), which is an ordinary program:
//! it may block and wait for its own children. PID 1 waits for its answer with a deadline, and decides.
#![allow(clippy::disallowed_methods, reason = "a child of PID 1: it may have threads")]

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::thread;

use serde::{Deserialize, Serialize};

use super::build_cache::{self, Disk};
use super::limits::{self, Limits};
use super::trial::{self, Trial};
use super::{firewall, pools, storage};

/// Which probes to make.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub(crate) struct Wanted {
    /// Nobody asks about the firewall
    #[arg(long)]
    pub(crate) no_firewall: bool,
    /// A way to store images that is tried in any case
    #[arg(long, default_value = "auto")]
    pub(crate) storage: String,
    /// A name whose addresses no network inside may have
    #[arg(long, value_name = "NAME")]
    pub(crate) needed: Vec<String>,
}

impl Wanted {
    /// As arguments of `dind-init helper probe`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = self.needed.iter().map(|name| format!("--needed={name}")).collect();
        arguments.push(format!("--storage={}", self.storage));
        arguments.extend(self.no_firewall.then(|| "--no-firewall".to_owned()));
        arguments
    }
}

/// What the probes found. Nothing is decided yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probed {
    /// Where images can live.
    pub(super) storage: storage::Probe,
    /// A container on trial.
    pub(super) trial: Trial,
    /// Open files and processes.
    pub(super) limits: Limits,
    /// The disk of the data root.
    pub(super) disk: Disk,
    /// What there is to make firewall rules with, where that was asked for.
    pub(crate) firewall: Option<firewall::Probed>,
    /// The addresses of proxies and mirrors that were given by name or by address.
    pub(crate) needed: BTreeMap<String, Vec<IpAddr>>,
}

/// Where iptables-legacy has its lock.
const LOCKS: &str = "/run";

/// Makes every probe, those that take longest at the same time, and leaves nothing behind.
pub(crate) fn run(data_root: &Path, wanted: &Wanted) -> Probed {
    // An image may have none, and the host makes it while we probe. If it cannot be made, the probe says what is missing.
    let _ = fs::create_dir_all(LOCKS);
    let needed = pools::look_up(&wanted.needed);
    thread::scope(|scope| {
        let firewall = (!wanted.no_firewall).then(|| scope.spawn(firewall::probe));
        let storage = scope.spawn(|| storage::probe(data_root, &wanted.storage));
        Probed {
            trial: trial::probe(),
            limits: limits::probe(),
            disk: build_cache::probe(data_root),
            firewall: firewall.map(|thread| thread.join().unwrap_or_default()),
            storage: storage.join().unwrap_or_default(),
            needed: needed.finish(),
        }
    })
}
