//! The only caller of waitpid(2): whoever else waited would steal exit statuses, or have them stolen.

use crate::supervisor::End;

/// What has become of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is no more.
    Ended(End),
    /// A signal has stopped it; it may go on.
    Stopped,
}

/// Collects every child that has ended, and takes note of those that were stopped: one SIGCHLD may stand for many. Orphans are
/// among them.
///
/// The system call is made without nix, whose `waitpid` reaps a child that a real-time signal killed and then returns an
/// error without its pid, because its `Signal` does not know those numbers.
pub(crate) fn reap() -> Vec<(i32, Fate)> {
    let mut fates = Vec::new();
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for an int for the whole call, and nothing else is touched.
        // __WALL: children that were cloned without a signal count, too.
        let pid =
            unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED | libc::__WALL) };
        if pid <= 0 {
            // 0: none has ended. -1: there are no children (nothing else can go wrong).
            return fates;
        }
        fates.push((pid, fate(status)));
    }
}

/// What a wait status says (wait(2)).
fn fate(status: i32) -> Fate {
    if libc::WIFSTOPPED(status) {
        Fate::Stopped
    } else if libc::WIFSIGNALED(status) {
        Fate::Ended(End::Signal(libc::WTERMSIG(status)))
    } else {
        Fate::Ended(End::Code(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_an_end() {
        for code in 0..=255 {
            assert_eq!(fate(i32::from(code) << 8), Fate::Ended(End::Code(code)));
        }
        // The real-time signals are among them, and a core dump (0x80) changes nothing.
        for signal in 1..=64 {
            assert_eq!(fate(signal), Fate::Ended(End::Signal(signal)));
            assert_eq!(fate(signal | 0x80), Fate::Ended(End::Signal(signal)));
            assert_eq!(fate(signal << 8 | 0x7f), Fate::Stopped);
        }
    }
}
