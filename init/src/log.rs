//! The host's log: one line an event, on standard output, never in the way.
//!
//! A line goes into a bounded ring and from there to standard output when that can take it. Who reads too slowly loses
//! the oldest lines, and is told how many. Nothing here blocks, panics or fails.

mod output;

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use output::Kept;
pub(crate) use output::Output;

/// The most that waits for a slow reader, in bytes.
const RING: usize = 256 * 1024;
/// The longest line, in bytes of its message; the rest is cut off, visibly.
pub(crate) const LONGEST: usize = 16 * 1024;

/// Form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `TIME LEVEL SERVICE: MESSAGE`
    Text,
    /// An object with `time`, `level`, `service` and `message`.
    Json,
}

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// The word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Whose events the lines of `dind-init` itself are.
const OURSELVES: &str = "dind-init";

/// The host's log.
pub(crate) struct Log {
    format: Format,
    out: Output,
    ring: Ring,
}

impl Log {
    pub(crate) fn new(format: Format, out: Output) -> Self {
        Self { format, out, ring: Ring::default() }
    }

    /// From here on, what was held back goes into a file. Where none can be made, the last lines go on being held.
    pub(crate) fn keep(&mut self, path: &Path) {
        if matches!(self.out, Output::Held)
            && let Ok(kept) = Kept::open(path)
        {
            self.out = Output::Kept(kept);
            self.flush();
        }
    }

    /// What was kept or held of it.
    pub(crate) fn kept(&self) -> Vec<u8> {
        let mut all = match &self.out {
            Output::Kept(kept) => kept.read(),
            _ => Vec::new(),
        };
        all.extend(self.ring.lines.iter().flatten());
        all
    }

    pub(crate) fn info(&mut self, message: &str) {
        self.line(Level::Info, OURSELVES, message);
    }

    pub(crate) fn warn(&mut self, message: &str) {
        self.line(Level::Warn, OURSELVES, message);
    }

    pub(crate) fn error(&mut self, message: &str) {
        self.line(Level::Error, OURSELVES, message);
    }

    /// Puts one event into the log.
    pub(crate) fn line(&mut self, level: Level, service: &str, message: &str) {
        if matches!(self.out, Output::Gone) {
            return;
        }
        self.ring.push(render(self.format, SystemTime::now(), level, service, message));
        self.flush();
    }

    /// Writes what standard output can take now.
    pub(crate) fn flush(&mut self) {
        while !self.ring.lines.is_empty() {
            self.ring.say_what_was_lost(self.format);
            let Some(bytes) = self.ring.front() else { return };
            match self.out.write(bytes) {
                Ok(written) => self.ring.advance(written),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    return;
                }
                // The reader is gone for good (EPIPE), or the disk is full: a host does not end for that.
                Err(_) => {
                    self.out = Output::Gone;
                    self.ring = Ring::default();
                }
            }
        }
    }

    /// Whether more may wait for the reader without anything being lost soon.
    pub(crate) fn has_room(&self) -> bool {
        self.ring.bytes < RING / 4
    }

    /// What to poll for `POLLOUT`, while something waits.
    pub(crate) fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        self.ring.front()?;
        self.out.fd()
    }

    /// Gives the reader a last chance to take what waits, until `deadline`.
    pub(crate) fn drain(&mut self, deadline: Instant) {
        self.flush();
        while has_room(self.waits_for(), deadline) {
            self.flush();
        }
    }
}

/// Lines that wait for the reader, bounded in bytes.
#[derive(Default)]
struct Ring {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Bytes of the first line that are already written; such a line is never dropped.
    written: usize,
    /// Lines that were dropped since the reader was last told.
    dropped: u64,
    /// The line that tells it, while that is not written yet. It goes before the first line.
    notice: Option<Vec<u8>>,
}

impl Ring {
    fn push(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > RING {
            let oldest = usize::from(self.written > 0 && self.notice.is_none());
            match self.lines.remove(oldest) {
                Some(line) => {
                    self.bytes -= line.len();
                    self.dropped += 1;
                }
                None => return,
            }
        }
    }

    /// Renews the notice, unless a part of it or of a line is already written.
    fn say_what_was_lost(&mut self, format: Format) {
        if self.dropped > 0 && self.written == 0 {
            let message = format!("{} lines were lost: whoever reads this log is too slow", self.dropped);
            self.notice = Some(render(format, SystemTime::now(), Level::Warn, OURSELVES, &message));
        }
    }

    fn front(&self) -> Option<&[u8]> {
        self.notice.as_ref().or_else(|| self.lines.front())?.get(self.written..)
    }

    fn advance(&mut self, bytes: usize) {
        if self.notice.is_some() && self.written == 0 {
            // The number is on its way; what is dropped from here on is another notice's.
            self.dropped = 0;
        }
        self.written += bytes;
        let first = self.notice.as_ref().or_else(|| self.lines.front());
        if first.is_some_and(|first| self.written >= first.len()) {
            self.written = 0;
            if self.notice.take().is_none() {
                self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
            }
        }
    }
}

/// Writes `text` to standard error, waiting until `deadline` for a reader that does not read.
pub(crate) fn last_words(text: &[u8], deadline: Instant) {
    let mut out = Output::standard(2);
    let mut rest = text;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && has_room(out.fd(), deadline) => {}
            Err(_) => return,
        }
    }
}

/// Waits until something can be written here, or until `deadline`: then it cannot.
fn has_room(fd: Option<BorrowedFd<'_>>, deadline: Instant) -> bool {
    let Some(fd) = fd else { return false };
    let left = deadline.saturating_duration_since(Instant::now());
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    !left.is_zero() && matches!(poll(&mut fds, timeout), Ok(1..))
}

fn render(format: Format, at: SystemTime, level: Level, service: &str, message: &str) -> Vec<u8> {
    let time = timestamp(at);
    let level = level.word();
    let message = cut(message);
    let mut line = match format {
        Format::Text => format!("{time} {level:<5} {service}: {}", one_line(&message)),
        Format::Json => {
            serde_json::json!({"time": time, "level": level, "service": service, "message": message})
                .to_string()
        }
    };
    line.push('\n');
    line.into_bytes()
}

/// UTC with milliseconds, `2026-11-21T21:50:00.123Z`.
fn timestamp(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let ms = at.millisecond();
    at.replace_nanosecond(0)
        .ok()
        .and_then(|whole| whole.format(&Rfc3339).ok())
        .map_or_else(String::new, |text| format!("{}.{ms:03}Z", text.trim_end_matches('Z')))
}

fn cut(message: &str) -> String {
    if message.len() <= LONGEST {
        return message.to_owned();
    }
    let end = (0..=LONGEST).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
    format!("{} […{} bytes cut]", message.get(..end).unwrap_or_default(), message.len() - end)
}

/// A message on one line: what would break it, or drive a terminal, is escaped.
fn one_line(message: &str) -> String {
    if message.chars().all(|c| !c.is_control() || c == '\t') {
        return message.to_owned();
    }
    message
        .chars()
        .map(|c| if c.is_control() && c != '\t' { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// An event of dockerd or containerd: its level and text, without the time that we give it anyway.
///
/// Both write logfmt, `time="…" level=info msg="…" key=value …`. Any other line is an event as it stands.
pub(crate) fn parse_event(line: &str) -> (Option<Level>, String) {
    let Some(rest) = line.strip_prefix("time=") else { return (None, line.to_owned()) };
    let Some((_, rest)) = logfmt_value(rest) else { return (None, line.to_owned()) };
    let Some((level, rest)) = rest.strip_prefix(" level=").and_then(logfmt_value) else {
        return (None, line.to_owned());
    };
    let Some((message, fields)) = rest.strip_prefix(" msg=").and_then(logfmt_value) else {
        return (None, line.to_owned());
    };
    let level = match level.as_str() {
        "debug" | "trace" => Level::Debug,
        "warning" | "warn" => Level::Warn,
        "error" | "fatal" | "panic" => Level::Error,
        _ => Level::Info,
    };
    (Some(level), message + fields)
}

/// A bare or quoted value at the start of `text`, and what follows it. Quoted values are Go's `%q`.
fn logfmt_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        return text.split_at_checked(end).map(|(value, rest)| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                escaped @ ('"' | '\\') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            plain => value.push(plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn at() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_700_000_000_007)
    }

    #[test]
    fn a_line_is_one_line_in_both_forms() {
        let text = render(Format::Text, at(), Level::Info, "dockerd", "a\nb\x1b[31m\tc");
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "2023-11-14T22:13:20.007Z info  dockerd: a\\nb\\u{1b}[31m\tc\n"
        );
        let json = render(Format::Json, at(), Level::Error, "containerd", "a\n\"b\"");
        assert_eq!(
            String::from_utf8(json).unwrap(),
            "{\"level\":\"error\",\"message\":\"a\\n\\\"b\\\"\",\"service\":\"containerd\",\
             \"time\":\"2023-11-14T22:13:20.007Z\"}\n"
        );
    }

    #[test]
    fn a_long_line_is_cut_visibly() {
        let line = render(Format::Text, at(), Level::Info, "dockerd", &"ä".repeat(LONGEST));
        let line = String::from_utf8(line).unwrap();
        assert!(line.ends_with("[…16384 bytes cut]\n"), "{}", line.len());
    }

    #[test]
    fn events_lose_their_time_and_keep_the_rest() {
        let table = [
            (
                r#"time="2026-01-01T00:00:00Z" level=info msg="API listen" addr=x"#,
                Some(Level::Info),
                "API listen addr=x",
            ),
            (r#"time="t" level=warning msg=plain"#, Some(Level::Warn), "plain"),
            (r#"time="t" level=fatal msg="a \"b\"\nc\\d""#, Some(Level::Error), "a \"b\"\nc\\d"),
            (r#"time="t" level=info msg="never closed"#, None, r#"time="t" level=info msg="never closed"#),
            ("failed to start daemon: no", None, "failed to start daemon: no"),
            ("", None, ""),
        ];
        for (line, level, message) in table {
            assert_eq!(parse_event(line), (level, message.to_owned()), "{line}");
        }
    }

    #[test]
    fn a_reader_that_stops_costs_lines_and_is_told_how_many() {
        let (mut reader, writer) = io::pipe().unwrap();
        let writer = Output::standard_of(writer);
        let mut log = Log::new(Format::Text, writer);
        let lines = 4 * RING / 100;
        for n in 0..lines {
            log.info(&format!("{n:>80}"));
        }
        assert!(log.ring.bytes <= RING, "{}", log.ring.bytes);
        let lost = log.ring.dropped;
        assert!(lost > 0 && log.waits_for().is_some());

        let mut text = vec![0; 16 * RING];
        let mut length = 0;
        while log.waits_for().is_some() {
            length += reader.read(&mut text[length..]).unwrap();
            log.flush();
        }
        drop(log);
        length += reader.read(&mut text[length..]).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        assert!(text.contains(&format!("{lost} lines were lost")), "{lost}");
        assert!(text.ends_with(&format!("{:>80}\n", lines - 1)));
        assert!(text.lines().all(|line| line.starts_with("20") && line.contains(" dind-init: ")));
    }

    #[test]
    fn a_reader_that_is_gone_ends_the_log_and_nothing_else() {
        let (reader, writer) = io::pipe().unwrap();
        let mut log = Log::new(Format::Text, Output::standard_of(writer));
        drop(reader);
        log.info("into the void");
        log.info("again");
        assert!(log.waits_for().is_none());
    }

    #[test]
    fn a_socket_does_not_block_either() {
        let (_reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut log = Log::new(Format::Text, Output::standard_of(writer));
        assert!(matches!(log.out, Output::Socket(_)));
        for _ in 0..2 * RING / 100 {
            log.info(&"x".repeat(100));
        }
        assert!(log.waits_for().is_some());
    }

    #[test]
    fn without_proc_a_pipe_is_written_to_as_far_as_it_goes() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut log = Log::new(Format::Text, Output::Socket(writer.into()));
        for n in 0..2 * RING / 100 {
            log.info(&format!("{n:>80}"));
        }
        assert!(matches!(log.out, Output::Shared(_)) && log.waits_for().is_some());
        let mut text = [0; 30];
        reader.read_exact(&mut text).unwrap();
        assert!(text.starts_with(b"20"));
        // And a reader who does not read costs no more than the time that is given.
        log.drain(Instant::now() + Duration::from_millis(20));
        assert!(log.waits_for().is_some());
    }

    impl Output {
        /// What [`Output::standard`] does with a stream, for one that is not 1 or 2.
        fn standard_of(stream: impl Into<OwnedFd>) -> Self {
            let stream = stream.into();
            match Self::standard(stream.as_raw_fd()) {
                Self::File(file) => Self::File(file),
                _ => Self::Socket(stream),
            }
        }
    }

    proptest! {
        #[test]
        fn any_line_is_an_event(line in "\\PC{0,200}") {
            let _ = parse_event(&line);
        }

        #[test]
        fn what_go_quotes_is_what_we_read(message in "[ -~\n\t]{0,60}") {
            let quoted = message.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
            let line = format!("time=\"t\" level=info msg=\"{quoted}\"");
            prop_assert_eq!(parse_event(&line), (Some(Level::Info), message));
        }
    }
}
