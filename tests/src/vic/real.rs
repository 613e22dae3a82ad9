//! The real engine behind the stand-in.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::Value;

use super::answers::VERSION;
use crate::http::{self, Headers, RequestHead, ResponseHead, invalid};

const SOCKET: &str = "/var/run/docker.sock";

/// The engine that the tests run on.
#[derive(Debug)]
pub(super) struct Real {
    socket: PathBuf,
    /// The version in which it is asked: the stand-in's own, unless the engine is too new to know that.
    version: String,
    /// The newest that it speaks: containers are made with options that 2017 had not heard of.
    newest: String,
    pub(super) cpus: i64,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Real {
    /// Finds the engine and asks what it speaks.
    pub(super) fn find() -> io::Result<Self> {
        let named = std::env::var("DOCKER_HOST").ok();
        let socket = named.as_deref().and_then(|host| host.strip_prefix("unix://")).unwrap_or(SOCKET);
        let mut real = Self { socket: socket.into(), version: String::new(), newest: String::new(), cpus: 1 };
        let version = real.ask("GET", "/version", None)?.json();
        let newest = version["ApiVersion"].as_str().ok_or_else(|| invalid("an engine without a version"))?;
        let oldest = version["MinAPIVersion"].as_str().unwrap_or(VERSION);
        real.version = if is_newer(oldest, VERSION) { oldest } else { VERSION }.into();
        real.newest = newest.into();
        real.cpus = real.ask("GET", "/info", None)?.json()["NCPU"].as_i64().unwrap_or(1);
        Ok(real)
    }

    /// The target that a request has there.
    pub(super) fn target(&self, path: &str, query: &str, newest: bool) -> String {
        let version = if newest { &self.newest } else { &self.version };
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        format!("/v{version}{path}{query}")
    }

    /// Sends a head; the connection is then the request's own.
    pub(super) fn send(&self, head: &RequestHead, body: &[u8]) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(&head.bytes())?;
        stream.write_all(body)?;
        Ok(stream)
    }

    /// Asks and waits for the whole answer.
    pub(super) fn exchange(&self, head: &RequestHead, body: &[u8]) -> io::Result<Answer> {
        let mut reader = BufReader::new(self.send(head, body)?);
        let head = ResponseHead::read(&mut reader)?;
        let has_none = matches!(head.status, 204 | 304);
        let body = if has_none { Vec::new() } else { http::body(&mut reader, head.headers.framing()?)? };
        Ok(Answer { status: head.status, body })
    }

    /// Asks something of the stand-in's own.
    pub(super) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        let target = if self.version.is_empty() { path.into() } else { self.target(path, "", false) };
        let mut headers = Headers::default();
        headers.set("Host", "docker");
        headers.set("Connection", "close");
        let body = body.map(Value::to_string).unwrap_or_default();
        headers.set("Content-Length", &body.len().to_string());
        headers.set("Content-Type", "application/json");
        self.exchange(&RequestHead { method: method.into(), target, headers }, body.as_bytes())
    }
}

/// Whether one API version is newer than another: as Docker's `versions.GreaterThan`, number by number.
pub(super) fn is_newer(one: &str, other: &str) -> bool {
    let numbers = |version: &str| version.split('.').map(|n| n.parse().unwrap_or(0)).collect::<Vec<u32>>();
    numbers(one) > numbers(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        for (one, other, newer) in [
            ("1.41", "1.25", true),
            ("1.25", "1.25", false),
            ("1.9", "1.25", false),
            ("1.25.1", "1.25", true),
            ("2.0", "1.99", true),
        ] {
            assert_eq!(is_newer(one, other), newer, "{one} {other}");
        }
    }
}
