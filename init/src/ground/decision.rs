//! What came of one probe: the finding for whoever asks, and what the engine is told.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use dind_contract::{Finding, Verdict};
use serde_json::{Map, Value};

use crate::log::Log;

/// A decision about one part of the ground. It changes nothing by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// What is there, what was chosen, and why.
    pub(crate) finding: Finding,
    /// More arguments for dockerd.
    pub(crate) arguments: Vec<String>,
    /// More environment for dockerd; it wins over what the user's environment says.
    pub(crate) environment: BTreeMap<String, OsString>,
    /// More keys for dockerd's configuration file, where an option would clash with what the user's file says.
    pub(crate) config: Map<String, Value>,
    /// Symbolic links to make below `/run/dind` before services start, each with what it leads to.
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
    /// Name servers on loopback, which a relay makes usable inside.
    pub(crate) relayed: Vec<IpAddr>,
}

impl Decision {
    /// That all is as it should be.
    pub(crate) fn good(subject: &str, found: impl Into<String>, chosen: impl Into<String>) -> Self {
        Self {
            finding: Finding {
                subject: subject.to_owned(),
                verdict: Verdict::Good,
                found: found.into(),
                chosen: chosen.into(),
                why: String::new(),
                better: None,
            },
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            config: Map::new(),
            links: Vec::new(),
            relayed: Vec::new(),
        }
    }

    /// Why.
    pub(crate) fn because(mut self, why: impl Into<String>) -> Self {
        self.finding.why = why.into();
        self
    }

    /// That it works at a cost, and what would be better.
    pub(crate) fn but_better(mut self, better: impl Into<String>) -> Self {
        self.finding.verdict = Verdict::Fallback;
        self.finding.better = Some(better.into());
        self
    }

    /// That it does not work, and what is needed.
    pub(crate) fn missing(mut self, needed: impl Into<String>) -> Self {
        self.finding.verdict = Verdict::Missing;
        self.finding.better = Some(needed.into());
        self
    }

    /// What dockerd is told.
    pub(crate) fn with_arguments<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// What dockerd's configuration file says as well.
    pub(crate) fn with_config(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }
}

/// Puts a finding into the log, in one line: loud where it costs something.
pub(crate) fn say(log: &mut Log, finding: &Finding) {
    let line = one_line(finding);
    match finding.verdict {
        Verdict::Good => log.info(&line),
        Verdict::Fallback | Verdict::Missing => log.warn(&line),
    }
}

/// A finding as one line.
pub(crate) fn one_line(finding: &Finding) -> String {
    let mut line = format!("{}: {}", finding.subject, finding.chosen);
    if !finding.why.is_empty() {
        line.push_str(&format!(", because {}", finding.why));
    }
    if let Some(better) = &finding.better {
        line.push_str(&format!("; better: {better}"));
    }
    line
}
