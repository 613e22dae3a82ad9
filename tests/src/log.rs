//! The host's log, a line at a time.

/// One line of a host's text log: `TIME LEVEL SERVICE: MESSAGE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// `dind-init`, `dockerd` or `containerd`.
    pub service: String,
    /// The rest.
    pub message: String,
}

impl Line {
    /// Reads a line; `None` when it is not one of the host's.
    pub fn parse(line: &str) -> Option<Self> {
        let (_time, rest) = line.split_once(' ')?;
        let (level, rest) = rest.split_once(' ')?;
        let (service, message) = rest.trim_start().split_once(": ")?;
        Some(Self { level: level.into(), service: service.into(), message: message.into() })
    }

    /// Whether this is a warning or an error of the host's own.
    pub fn is_alarm(&self) -> bool {
        self.service == "dind-init" && !matches!(self.level.as_str(), "info" | "debug")
    }
}
