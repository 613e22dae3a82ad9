//! What a service writes, line by line, without ever waiting for it.

use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};

use crate::log::LONGEST;

/// The most that is read at once, so that a chatty service cannot hold the loop.
pub(crate) const PIECES: usize = 16;

/// The reading end of a service's output.
pub(crate) struct Lines {
    pipe: Option<PipeReader>,
    partial: Vec<u8>,
}

impl Lines {
    /// Lines from `pipe`, which must not block.
    pub(crate) fn new(pipe: PipeReader) -> Self {
        Self { pipe: Some(pipe), partial: Vec::new() }
    }

    /// What to poll for `POLLIN`, while somebody may still write.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// The lines that are complete by now, without their ends; of so many pieces, of 8 KiB each.
    pub(crate) fn read(&mut self, pieces: usize) -> Vec<String> {
        for _ in 0..pieces {
            let Some(pipe) = &mut self.pipe else { break };
            let mut piece = [0; 8192];
            match pipe.read(&mut piece) {
                Ok(0) => self.pipe = None,
                Ok(length) => self.partial.extend_from_slice(piece.get(..length).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.pipe = None,
            }
        }
        self.split(self.pipe.is_none())
    }

    /// What is there when the service has ended: the last line may lack its end.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        let mut lines = self.read(PIECES);
        lines.extend(self.split(true));
        lines
    }

    /// Takes the complete lines out of what was read; with `all`, or when it is too long, the incomplete one, too.
    fn split(&mut self, all: bool) -> Vec<String> {
        let whole = match self.partial.iter().rposition(|byte| *byte == b'\n') {
            _ if all || self.partial.len() > 4 * LONGEST => self.partial.len(),
            Some(end) => end + 1,
            None => 0,
        };
        let rest = self.partial.split_off(whole);
        let text = std::mem::replace(&mut self.partial, rest);
        String::from_utf8_lossy(&text).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_whole_and_the_last_one_at_the_end() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
        nix::fcntl::fcntl(&reader, flags).unwrap();
        let mut lines = Lines::new(reader);
        assert_eq!(lines.read(PIECES), [""; 0]);
        writer.write_all(b"one\ntwo\r\n\nthr").unwrap();
        assert_eq!(lines.read(PIECES), ["one", "two"]);
        writer.write_all(b"ee\n\xff").unwrap();
        assert_eq!(lines.read(PIECES), ["three"]);
        assert_eq!(lines.rest(), ["\u{fffd}"]);
        // A line without an end does not grow for ever.
        let mut longest = 0;
        for _ in 0..8 {
            writer.write_all(&vec![b'x'; LONGEST]).unwrap();
            longest = longest.max(lines.read(PIECES).first().map_or(0, String::len));
        }
        assert!(longest > 4 * LONGEST && longest < 8 * LONGEST, "{longest}");
        drop(writer);
        lines.rest();
        assert!(lines.fd().is_none());
    }
}
