//! An error that a user must read: the object and the cause, what was seen of it, and the next step.

use std::fmt;

/// Anything that went wrong for good (`dind ls` and the like), as docker says it.
pub(crate) const GENERAL: u8 = 1;

/// What a command answers: its value, or what the user must read.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command could not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Exit code of the process.
    pub(crate) code: u8,
    /// The object and the cause.
    message: String,
    /// What was seen of it, such as the last lines of a log.
    details: Vec<String>,
    /// The next step.
    help: String,
}

impl Failure {
    /// With exit code 1.
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code: GENERAL, message: message.into(), details: Vec::new(), help: help.into() }
    }

    /// What was typed is not understood.
    pub(crate) fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(message, help).with_code(dind_contract::exit::USAGE)
    }

    /// Something that is needed is not there.
    pub(crate) fn unavailable(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(message, help).with_code(dind_contract::exit::UNAVAILABLE)
    }

    /// The same with another exit code.
    pub(crate) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// The same with lines that were seen.
    pub(crate) fn with_details(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(lines);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "dind: {}", self.message)?;
        for line in &self.details {
            writeln!(f, "  | {line}")?;
        }
        write!(f, "  help: {}", self.help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_the_object_what_was_seen_and_the_next_step() {
        let failure =
            Failure::new("the host one ended", "look").with_details(["a".to_owned(), "b".to_owned()]);
        assert_eq!(failure.to_string(), "dind: the host one ended\n  | a\n  | b\n  help: look");
    }
}
