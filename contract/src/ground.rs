//! What a host found under it, what it chose, and why: what `dind-init doctor` prints and the status document carries.

use serde::{Deserialize, Serialize};

/// How good a part of the ground is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, at a cost that [`Finding::better`] avoids.
    Fallback,
    /// It does not work; [`Finding::better`] says what is needed.
    Missing,
}

impl Verdict {
    /// The word for it in the document.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Fallback => "fallback",
            Self::Missing => "missing",
        }
    }
}

/// One part of the ground.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which part: `cgroups`, `firewall`, `storage` …
    pub subject: String,
    /// How good it is.
    pub verdict: Verdict,
    /// What is there.
    pub found: String,
    /// What the host does with it.
    pub chosen: String,
    /// Why.
    pub why: String,
    /// What would be better, where it is not good.
    pub better: Option<String>,
}

/// What `dind-init doctor --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Version of `dind-init`.
    pub version: String,
    /// Whether a host answers here, whose own findings these are; else they were probed just now.
    pub host: bool,
    /// Every part of the ground.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Whether a host can run here.
    #[must_use]
    pub fn can_run(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict != Verdict::Missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_text_are_the_words_of_the_document() {
        for verdict in [Verdict::Good, Verdict::Fallback, Verdict::Missing] {
            assert_eq!(serde_json::to_string(&verdict).unwrap(), format!("\"{}\"", verdict.word()));
        }
    }
}
