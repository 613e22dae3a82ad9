//! Signals: all of them are blocked and read from one descriptor, so that none interrupts anything.

use std::io;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

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
    Ok(SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
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
