//! What ends a host before its time: the object and cause, the next step, and the exit code.

use std::fmt;

use dind_contract::exit;

/// An error that a user must read. It prints as two lines: what and why, then the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// One of [`dind_contract::exit`].
    pub(crate) code: u8,
    /// The object and the cause, in one line.
    pub(crate) cause: String,
    /// What to do about it.
    pub(crate) help: String,
}

impl Failure {
    /// A variable, argument, certificate or option is not usable.
    pub(crate) fn usage(cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code: exit::USAGE, cause: cause.into(), help: help.into() }
    }

    /// The machine lacks something.
    pub(crate) fn unavailable(cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code: exit::UNAVAILABLE, cause: cause.into(), help: help.into() }
    }

    /// A service failed for good.
    pub(crate) fn failed(cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code: exit::FAILED, cause: cause.into(), help: help.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dind-init: {}\n  help: {}\n", self.cause, self.help)
    }
}
