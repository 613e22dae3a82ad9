//! The smallest HTTP/1.1 client that can ask an engine whether it answers. It never blocks.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::os::fd::AsRawFd;

const REQUEST: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n";
/// The engine's answer has about 300 bytes; more than this is not one.
const LONGEST: usize = 8 * 1024;

/// A question under way: `GET /_ping`.
pub(crate) struct Ping {
    stream: UnixStream,
    answer: Vec<u8>,
}

impl Ping {
    /// Asks the engine behind the unix `socket`.
    ///
    /// # Errors
    /// Nobody listens there, or the question cannot be sent.
    pub(crate) fn ask(path: &Path) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        let mut stream = UnixStream::from(fd);
        // A new socket takes so few bytes at once.
        stream.write_all(REQUEST)?;
        Ok(Self { stream, answer: Vec::new() })
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
                Ok(0) => return Some(false),
                Ok(length) => self.answer.extend_from_slice(piece.get(..length).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => return Some(false),
            }
            if let Some(answer) = is_good(&self.answer) {
                return Some(answer);
            }
        }
    }
}

/// Whether these bytes begin an answer with status 200; `None` while that cannot be told.
fn is_good(answer: &[u8]) -> Option<bool> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer) {
        Ok(httparse::Status::Complete(_)) => Some(response.code == Some(200)),
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
        assert_eq!(is_good(b"HTTP/1.1 200 OK\r\nServer: Docker\r\n\r\nOK"), Some(true));
        assert_eq!(is_good(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), Some(false));
        assert_eq!(is_good(b"HTTP/1.1 200 OK\r\nServer:"), None);
        assert_eq!(is_good(b"\x15\x03\x01\x00\x02"), Some(false));
        assert_eq!(is_good(&[b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; LONGEST]].concat()), Some(false));
    }

    #[test]
    fn nobody_there_is_an_error() {
        assert!(Ping::ask(Path::new("/nowhere/docker.sock")).is_err());
    }

    proptest! {
        #[test]
        fn any_answer_is_judged(answer in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = is_good(&answer);
        }
    }
}
