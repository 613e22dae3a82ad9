//! What containers write, read from the engine's logs of it and passed on line by line, each with the container's name.
//!
//! The engine keeps the lines, each with its time: a reader that falls behind slows down nobody, and one that was cut off goes on
//! behind the last line that it had. So whoever reads the host's log slowly loses nothing of the application's.

use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::sync::Arc;

use time::{Date, Month, PrimitiveDateTime, Time};

use super::engine::{Answer, Container, Engine};
use super::journal::Journal;
use crate::log::Level;

/// The longest line that is passed on whole, in bytes: what follows is cut off by the host's log anyway.
const LONGEST: usize = 32 * 1024;
/// The longest message of the engine's, in bytes: it cuts lines at 16 KiB itself.
const FRAME: usize = 1024 * 1024;

/// Passes a line on to the host: its level, who wrote it, and what. The host reads it with [`parse`].
pub(super) fn pass_on(level: Level, name: &str, text: &str) -> io::Result<()> {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = text.get(..end).unwrap_or_default();
    let line = format!("{}\t{name}\t{text}\n", level.word());
    // All at once, so that lines of several threads do not mix; the lock is held for as long as the host takes.
    io::stdout().lock().write_all(line.as_bytes())
}

/// A line that was passed on: its level, who wrote it, and what.
pub(crate) fn parse(line: &str) -> Option<(Level, &str, &str)> {
    let (level, rest) = line.split_once('\t')?;
    let (name, text) = rest.split_once('\t')?;
    let levels = [Level::Debug, Level::Info, Level::Warn, Level::Error];
    Some((levels.into_iter().find(|it| it.word() == level)?, name, text))
}

/// Passes on what a container writes, until it ends or the engine hangs up.
///
/// # Errors
/// The engine does not tell.
pub(super) fn follow(socket: &Path, container: &Container, journal: &Arc<Journal>) -> io::Result<()> {
    let mut position = Position::from(journal.position(&container.id));
    let since = position.start.as_deref().and_then(unix).unwrap_or_default();
    let mut answer = Engine(socket).logs(&container.id, &since)?;
    let name = &container.shown.name;
    let mut partial = Vec::new();
    while let Some(message) = next(&mut answer, container.has_terminal)? {
        let Some((moment, text)) = split(&message) else { continue };
        if !position.is_news(moment) {
            continue;
        }
        let is_whole = text.ends_with(b"\n");
        if partial.len() < LONGEST {
            partial.extend_from_slice(text);
        }
        if is_whole {
            say(name, &partial)?;
            partial.clear();
            journal.note(&container.id, position.passed(moment));
        }
    }
    if !partial.is_empty() {
        // Its last line has no end.
        say(name, &partial)?;
        if let Some(last) = &position.last {
            journal.note(&container.id, last);
        }
    }
    Ok(())
}

/// Up to where a log was read: before this reader, and by it. The engine stamps standard output and standard error each by itself, so a
/// line may be older than the one before it, and is no less news.
struct Position {
    start: Option<String>,
    last: Option<String>,
}

impl From<Option<String>> for Position {
    fn from(start: Option<String>) -> Self {
        Self { last: start.clone(), start }
    }
}

impl Position {
    /// Whether a line of this moment was not passed on by whoever read before.
    fn is_news(&self, moment: &str) -> bool {
        self.start.as_deref().is_none_or(|start| moment > start)
    }

    /// A line of this moment was passed on. Returns where whoever comes next shall begin.
    fn passed<'a>(&'a mut self, moment: &'a str) -> &'a str {
        if self.last.as_deref().is_none_or(|last| last < moment) {
            self.last = Some(moment.to_owned());
        }
        self.last.as_deref().unwrap_or(moment)
    }
}

fn say(name: &str, line: &[u8]) -> io::Result<()> {
    let text = String::from_utf8_lossy(line);
    // A bare carriage return is a line drawn over: what it shows at the end counts.
    let text = text.trim_end_matches(['\n', '\r']);
    pass_on(Level::Info, name, text.rsplit('\r').next().unwrap_or(text))
}

/// The next message of a log: a line, or a part of one that is longer than the engine takes at once.
fn next(answer: &mut Answer, has_terminal: bool) -> io::Result<Option<Vec<u8>>> {
    let mut message = Vec::new();
    if has_terminal {
        let limit = u64::try_from(FRAME).unwrap_or(u64::MAX);
        answer.body.by_ref().take(limit).read_until(b'\n', &mut message)?;
        return Ok((!message.is_empty()).then_some(message));
    }
    // Which stream, three zeros, and the length (the engine's API, "Attach to a container", stream format).
    let mut head = [0; 8];
    match answer.body.read_exact(&mut head) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let [_, _, _, _, length @ ..] = head;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > FRAME {
        return Err(io::Error::other("the engine sends no log"));
    }
    message.resize(length, 0);
    answer.body.read_exact(&mut message)?;
    Ok(Some(message))
}

/// The time before a message, and the message.
fn split(message: &[u8]) -> Option<(&str, &[u8])> {
    let end = message.iter().position(|byte| *byte == b' ')?;
    let moment = std::str::from_utf8(message.get(..end)?).ok()?;
    Some((moment, message.get(end + 1..)?))
}

/// A moment in the engine's words (`2026-01-02T03:04:05.000000006Z`, of one length) as seconds and nanoseconds of the Unix clock.
pub(super) fn unix(moment: &str) -> Option<String> {
    let number = |range: std::ops::Range<usize>| moment.get(range)?.parse::<u16>().ok();
    let byte = |number: Option<u16>| u8::try_from(number?).ok();
    let month = Month::try_from(byte(number(5..7))?).ok()?;
    let date = Date::from_calendar_date(i32::from(number(0..4)?), month, byte(number(8..10))?).ok()?;
    let time = Time::from_hms(byte(number(11..13))?, byte(number(14..16))?, byte(number(17..19))?).ok()?;
    let seconds = PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp();
    let fraction: String =
        moment.get(20..).unwrap_or_default().chars().take_while(char::is_ascii_digit).take(9).collect();
    Some(format!("{seconds}.{fraction:0<9}"))
}

/// Messages of a log.
#[cfg(fuzzing)]
pub(super) fn fuzz(bytes: &[u8]) {
    if let Some((moment, _)) = split(bytes) {
        let _ = unix(moment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_who_wrote_them() {
        assert_eq!(parse("info\tweb-1\ta\tb"), Some((Level::Info, "web-1", "a\tb")));
        assert_eq!(parse("error\tcompose\t"), Some((Level::Error, "compose", "")));
        assert_eq!(parse("loud\tweb-1\tx"), None);
        assert_eq!(parse("panicked"), None);
    }

    #[test]
    fn a_line_that_is_older_than_the_one_before_it_is_news() {
        let mut position = Position::from(None);
        for moment in ["2026-01-02T03:04:05.000000006Z", "2026-01-02T03:04:05.000000005Z"] {
            assert!(position.is_news(moment));
            assert_eq!(position.passed(moment), "2026-01-02T03:04:05.000000006Z");
        }
        // Whoever goes on after it begins behind both.
        let next = Position::from(position.last);
        assert!(
            !next.is_news("2026-01-02T03:04:05.000000006Z") && next.is_news("2026-01-02T03:04:05.000000007Z")
        );
    }

    #[test]
    fn moments_are_those_of_the_unix_clock() {
        for (moment, seconds) in [
            ("1970-01-01T00:00:00.000000000Z", "0.000000000"),
            ("2026-01-02T03:04:05.000000006Z", "1767323045.000000006"),
            ("2026-01-02T03:04:05.5Z", "1767323045.500000000"),
            ("2026-01-02T03:04:05Z", "1767323045.000000000"),
        ] {
            assert_eq!(unix(moment).as_deref(), Some(seconds), "{moment}");
        }
        assert_eq!(unix("yesterday"), None);
        assert_eq!(unix("2026-13-02T03:04:05Z"), None);
    }

    #[test]
    fn a_message_has_a_time_and_a_text() {
        assert_eq!(split(b"2026 a b\n"), Some(("2026", b"a b\n".as_slice())));
        assert_eq!(split(b"2026 "), Some(("2026", b"".as_slice())));
        assert_eq!(split(b"2026"), None);
    }
}
