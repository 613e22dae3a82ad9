//! Where text goes. Nobody reading it any more must not end a command that has something to clean up, so nothing here panics.

use std::io::{self, IsTerminal, Write};

/// Writes to standard output. That nobody reads it is no error; that it cannot be stored is.
///
/// # Errors
/// The disk behind standard output is full, or the like.
pub(crate) fn print(text: &str) -> crate::failure::Result<()> {
    bytes(&mut io::stdout().lock(), text.as_bytes()).map_err(|e| {
        crate::failure::Failure::new(
            format!("cannot write to standard output: {e}"),
            "look at where it goes: its disk may be full",
        )
    })
}

/// Writes a line to standard error, as well as it can be.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes bytes as they are and flushes them.
///
/// # Errors
/// They cannot be stored. That nobody reads them is none.
pub(crate) fn bytes(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
        _ => Ok(()),
    }
}

/// Whether standard error is a terminal on which lines can be drawn again.
pub(crate) fn draws() -> bool {
    io::stderr().is_terminal() && std::env::var("TERM").is_ok_and(|term| term != "dumb")
}

/// Whether standard error may have colours: it is a terminal, and NO_COLOR (no-color.org) is not set.
pub(crate) fn colours() -> bool {
    draws() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
