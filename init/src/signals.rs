//! Signals: all of them are blocked and read from one descriptor, so that none interrupts anything.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::signalfd::SignalFd;

/// Docker sends `STOPSIGNAL SIGRTMIN+3` as 37. The number is the kernel's: a C library may keep the first ones for itself,
/// so its SIGRTMIN is 34 or 35.
const SIGRTMIN_3: u32 = 34 + 3;

/// What a signal means to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Stop cleanly; the signal's name.
    Stop(String),
    /// dockerd shall read its configuration again.
    Reload,
}

/// Blocks every signal and opens the descriptor that tells of them. Must come before anything is spawned.
///
/// # Errors
/// What sigprocmask(2) or signalfd(2) said.
pub(crate) fn take_over() -> io::Result<SignalFd> {
    // SAFETY: SIG_DFL is no function of ours, so nothing runs in a signal's context.
    // If it was inherited as ignored, the kernel would reap our children itself and lose their statuses.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    block_all()?;
    open()
}

/// Opens a descriptor that tells of all 64 signals: see [`block_all`] for why the C library is not asked.
fn open() -> io::Result<SignalFd> {
    let all = u64::MAX;
    let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
    // SAFETY: the kernel reads the eight bytes of `all`, the size of its signal set, and writes nothing.
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const all, size_of::<u64>(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, for us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: it is a signalfd.
    Ok(unsafe { SignalFd::from_owned_fd(fd) })
}

/// Blocks all 64 signals. The C library would leave out those it keeps for threads (32 to 34), of which there are none.
fn block_all() -> io::Result<()> {
    let all = u64::MAX;
    // SAFETY: the kernel reads the eight bytes of `all`, the size of its signal set, and writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            &raw const all,
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether somebody has asked for a stop that has not been read yet: for work that has a deadline, and would rather not take it.
pub(crate) fn stop_is_pending() -> bool {
    let mut pending = 0_u64;
    // SAFETY: the kernel writes the eight bytes of its signal set to `pending`, and nothing else.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut pending, size_of::<u64>()) };
    let is_pending = |number: &u32| pending & (1 << (number - 1)) != 0;
    result == 0 && (1..=64).filter(is_pending).any(|number| matches!(meaning(number), Some(Meaning::Stop(_))))
}

/// What the signal with this number means; `None`: nothing, or that children have ended, which is looked at anyway.
pub(crate) fn meaning(number: u32) -> Option<Meaning> {
    let stop = |name: &str| Some(Meaning::Stop(name.to_owned()));
    if number == SIGRTMIN_3 {
        return stop("SIGRTMIN+3");
    }
    match Signal::try_from(i32::try_from(number).ok()?).ok()? {
        named @ (Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGPWR) => stop(named.as_str()),
        Signal::SIGHUP => Some(Meaning::Reload),
        _ => None,
    }
}

/// Whether this signal is for the host, and not for a command that runs in the foreground: those by which an engine or an init below
/// ends a host mean the host, and SIGCHLD is about our own children. An interrupt is the command's own affair, as it is on a
/// terminal.
pub(crate) fn is_for_the_host(number: u32) -> bool {
    number == SIGRTMIN_3
        || [libc::SIGTERM, libc::SIGPWR, libc::SIGCHLD].iter().any(|signal| number == signal.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_that_waits_is_seen() {
        take_over().unwrap();
        nix::sys::signal::raise(Signal::SIGHUP).unwrap();
        assert!(!stop_is_pending());
        nix::sys::signal::raise(Signal::SIGTERM).unwrap();
        assert!(stop_is_pending());
    }

    #[test]
    fn five_signals_stop_one_reloads_and_the_rest_mean_nothing() {
        let stops: Vec<u32> = (1..=64).filter(|n| matches!(meaning(*n), Some(Meaning::Stop(_)))).collect();
        assert_eq!(stops, [2, 3, 15, 30, 37]);
        let reloads: Vec<u32> = (1..=64).filter(|n| meaning(*n) == Some(Meaning::Reload)).collect();
        assert_eq!(reloads, [1]);
    }
}
