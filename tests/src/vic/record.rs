//! What a client has asked, what was refused, and what had no effect.

use std::fmt;

use serde_json::Value;

use super::source::Source;
use crate::http::{RequestHead, parameters};

/// A request, as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// The API version that its path names, if it names one.
    pub version: Option<String>,
    /// The path, without version and query.
    pub path: String,
    /// The parameters of the query, decoded.
    pub query: Vec<(String, String)>,
    /// The body, if it is JSON; null when there is none or another.
    pub body: Value,
}

impl Request {
    pub(crate) fn new(head: &RequestHead, body: &[u8]) -> Self {
        let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
        let (version, path) = versioned(path);
        Self {
            method: head.method.clone(),
            version: version.map(str::to_owned),
            path: path.to_owned(),
            query: parameters(query),
            body: serde_json::from_slice(body).unwrap_or_default(),
        }
    }

    /// A parameter of the query; empty when it is not there.
    pub fn parameter(&self, name: &str) -> &str {
        self.query.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// Takes `/v1.25` off a path, as gorilla's mux does with `/v{version:[0-9.]+}`.
fn versioned(path: &str) -> (Option<&str>, &str) {
    let parts = path.strip_prefix("/v").and_then(|rest| rest.find('/').map(|end| rest.split_at(end)));
    match parts {
        Some((version, rest))
            if !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b == b'.') =>
        {
            (Some(version), rest)
        }
        _ => (None, path),
    }
}

/// A request was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The request.
    pub request: Request,
    /// The status of the answer.
    pub status: u16,
    /// What the answer says.
    pub text: String,
    /// Where VIC refuses it, too.
    pub source: Source,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: refused with {}: {} ({})", self.request, self.status, self.text, self.source)
    }
}

/// Something was sent that VIC takes no notice of: there is no error, and no effect.
#[derive(Debug, Clone, PartialEq)]
pub struct Lacking {
    /// The request.
    pub request: Request,
    /// The name of the field or of the parameter.
    pub what: String,
    /// Its value.
    pub value: Value,
    /// Where it can be seen that VIC does not read it.
    pub source: Source,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} = {} has no effect ({})", self.request, self.what, self.value, self.source)
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) text: String,
    pub(super) source: Source,
}

impl Refused {
    pub(super) fn new(status: u16, text: impl Into<String>, source: Source) -> Self {
        Self { status, text: text.into(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_name_a_version() {
        for (path, expected) in [
            ("/v1.25/containers/json", (Some("1.25"), "/containers/json")),
            ("/containers/json", (None, "/containers/json")),
            ("/volumes/v1", (None, "/volumes/v1")),
            ("/v/x", (None, "/v/x")),
            ("/v1.25", (None, "/v1.25")),
        ] {
            assert_eq!(versioned(path), expected, "{path}");
        }
    }
}
