//! The smallest HTTP/1.1 client that can ask an engine how it is. It never blocks.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect as sys_connect, socket};

/// An answer of the engine has a few kilobytes at most; more than this is not one.
const LONGEST: usize = 64 * 1024;

/// What an engine can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Whether it answers at all.
    Ping,
    /// Whether its containerd answers it, too: it may still have to find it again after a restart.
    SeesContainerd,
}

impl Question {
    const fn path(self) -> &'static str {
        match self {
            Self::Ping => "/_ping",
            Self::SeesContainerd => "/version",
        }
    }
}

/// What the engine is asked to tell of: whatever it then has promised to keep. The filter is
/// `{"type":["image","container","volume"],"event":[…]}`
/// (<https://docs.docker.com/reference/api/engine/>, `GET /events`).
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22image%22%2C%22container%22%2C%22volume%22%5D%2C\
    %22event%22%3A%5B%22pull%22%2C%22load%22%2C%22import%22%2C%22build%22%2C%22tag%22%2C%22commit%22%2C%22create%22%5D%7D";

/// A question under way.
pub(crate) struct Asked {
    question: Question,
    stream: UnixStream,
    answer: Vec<u8>,
}

impl Asked {
    /// Asks the engine behind the unix socket at `path`.
    ///
    /// # Errors
    /// Nobody listens there, or the question cannot be sent.
    pub(crate) fn engine(path: &Path, question: Question) -> io::Result<Self> {
        let mut stream = connect(path)?;
        let request =
            format!("GET {} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n", question.path());
        // A new socket takes so few bytes at once.
        stream.write_all(request.as_bytes())?;
        Ok(Self { question, stream, answer: Vec::new() })
    }

    /// What to poll for `POLLIN`.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Reads what has come: `None` while the answer is not complete, else whether it is a good one.
    pub(crate) fn advance(&mut self) -> Option<bool> {
        let mut piece = [0; 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Some(is_good(self.question, &self.answer, true).unwrap_or(false)),
                Ok(length) => self.answer.extend_from_slice(piece.get(..length).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => return Some(false),
            }
            if let Some(good) = is_good(self.question, &self.answer, false) {
                return Some(good);
            }
        }
    }
}

/// The engine's events, as they come.
pub(crate) struct Watch {
    stream: UnixStream,
    /// What has come of the answer's head; `None` once it is complete.
    head: Option<Vec<u8>>,
}

/// What was heard of the engine's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing new.
    Nothing,
    /// At least one event.
    Something,
    /// There will be no more.
    End,
}

impl Watch {
    /// Asks the engine behind the unix socket at `path` for its events from now on.
    ///
    /// # Errors
    /// Nobody listens there, or the question cannot be sent.
    pub(crate) fn engine(path: &Path) -> io::Result<Self> {
        let mut stream = connect(path)?;
        stream.write_all(format!("GET {EVENTS} HTTP/1.1\r\nHost: docker\r\n\r\n").as_bytes())?;
        Ok(Self::on(stream))
    }

    /// Hears what comes on a stream, which must not block.
    pub(crate) fn on(stream: UnixStream) -> Self {
        Self { stream, head: Some(Vec::new()) }
    }

    /// What to poll for `POLLIN`.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Reads what has come. What an event says does not matter: the engine sends only those that do.
    pub(crate) fn advance(&mut self) -> Heard {
        let mut heard = Heard::Nothing;
        let mut piece = [0; 4096];
        // Bounded, so that an engine that never stops cannot hold the loop.
        for _ in 0..64 {
            match self.stream.read(&mut piece) {
                Ok(0) => return Heard::End,
                Ok(length) => match self.hear(piece.get(..length).unwrap_or_default()) {
                    Heard::Nothing => {}
                    Heard::Something => heard = Heard::Something,
                    Heard::End => return Heard::End,
                },
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Heard::End,
            }
        }
        heard
    }

    fn hear(&mut self, bytes: &[u8]) -> Heard {
        let Some(head) = &mut self.head else { return Heard::Something };
        head.extend_from_slice(bytes);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(head) {
            Ok(httparse::Status::Complete(_)) if response.code == Some(200) => {
                self.head = None;
                // From now on it tells; what it acknowledged between our question and this is not known.
                Heard::Something
            }
            Ok(httparse::Status::Partial) if head.len() < LONGEST => Heard::Nothing,
            _ => Heard::End,
        }
    }
}

/// Connects to the unix socket at `path` without waiting for whoever listens there.
///
/// # Errors
/// `EAGAIN`: somebody listens, and is too busy to let anyone in; else what connect(2) said.
pub(crate) fn connect(path: &Path) -> nix::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    sys_connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

/// Whether these bytes are a good answer; `None` while that cannot be told. `all`: there will be no more.
pub(crate) fn is_good(question: Question, answer: &[u8], all: bool) -> Option<bool> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer) {
        Ok(httparse::Status::Complete(head)) => match (response.code, question) {
            // An authorization plugin may forbid the question: that is an answer, too.
            (Some(400..500), _) | (Some(200), Question::Ping) => Some(true),
            // It is named among the components of the version when it has told its own.
            (Some(200), Question::SeesContainerd) if all => {
                let body = String::from_utf8_lossy(answer.get(head..).unwrap_or_default());
                Some(body.contains("\"Name\":\"containerd\""))
            }
            (Some(200), Question::SeesContainerd) if answer.len() < LONGEST => None,
            _ => Some(false),
        },
        Ok(httparse::Status::Partial) if answer.len() < LONGEST => None,
        _ => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_complete_200_is_good() {
        let is_good = |answer: &[u8]| is_good(Question::Ping, answer, false);
        assert_eq!(is_good(b"HTTP/1.1 200 OK\r\nServer: Docker\r\n\r\nOK"), Some(true));
        assert_eq!(is_good(b"HTTP/1.1 403 Forbidden\r\n\r\n"), Some(true));
        assert_eq!(is_good(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), Some(false));
        assert_eq!(is_good(b"HTTP/1.1 200 OK\r\nServer:"), None);
        assert_eq!(is_good(b"\x15\x03\x01\x00\x02"), Some(false));
        assert_eq!(is_good(&[b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; LONGEST]].concat()), Some(false));
    }

    #[test]
    fn an_engine_sees_its_containerd_when_it_names_it() {
        let seen = br#"HTTP/1.1 200 OK

{"Components":[{"Name":"Engine"},{"Name":"containerd","Version":"1.7"}]}"#;
        assert_eq!(is_good(Question::SeesContainerd, seen, false), None, "there may be more");
        assert_eq!(is_good(Question::SeesContainerd, seen, true), Some(true));
        let alone = b"HTTP/1.1 200 OK\r\n\r\n{\"Components\":[{\"Name\":\"Engine\"}]}";
        assert_eq!(is_good(Question::SeesContainerd, alone, true), Some(false));
    }

    #[test]
    fn every_byte_after_the_head_is_an_event() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut watch = Watch::on(ours);
        for (said, heard) in [
            ("HTTP/1.1 200 OK\r\nTransfer-Enc", Heard::Nothing),
            ("oding: chunked\r\n\r\n", Heard::Something),
            ("7\r\n{\"a\":1}\r\n", Heard::Something),
            ("", Heard::Nothing),
        ] {
            theirs.write_all(said.as_bytes()).unwrap();
            assert_eq!(watch.advance(), heard, "{said}");
        }
        drop(theirs);
        assert_eq!(watch.advance(), Heard::End);
    }

    #[test]
    fn an_engine_that_refuses_to_tell_is_not_listened_to() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").unwrap();
        assert_eq!(Watch::on(ours).advance(), Heard::End);
    }

    #[test]
    fn nobody_there_is_an_error() {
        assert!(Asked::engine(Path::new("/nowhere/docker.sock"), Question::Ping).is_err());
    }

    proptest! {
        #[test]
        fn any_answer_is_judged(answer in proptest::collection::vec(any::<u8>(), 0..300)) {
            for question in [Question::Ping, Question::SeesContainerd] {
                prop_assert!(is_good(question, &answer, true).is_some() || answer.len() < LONGEST);
            }
        }
    }
}
