//! This terminal, while a program far away has it.

use nix::sys::termios::{self, SetArg, Termios};

/// Raw mode of standard input: every key goes to the program. Ends with the value.
#[derive(Debug)]
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Begins; `None` when standard input is no terminal.
    pub(crate) fn begin() -> Option<Self> {
        let before = termios::tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// Rows and columns of the terminal.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = window()?;
    (size.0 > 0 && size.1 > 0).then_some(size)
}

fn window() -> Option<(u16, u16)> {
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes one winsize (ioctl_tty(2)), which lives until after it.
    let asked = unsafe { nix::libc::ioctl(0, nix::libc::TIOCGWINSZ, &raw mut size) };
    (asked == 0).then_some((size.ws_row, size.ws_col))
}

/// Whether this process is in the foreground of its terminal: then what is typed there as a signal reaches its children, too.
pub(crate) fn is_ours() -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return false };
    nix::unistd::tcgetpgrp(&terminal).is_ok_and(|foreground| foreground == nix::unistd::getpgrp())
}
