//! Exit codes of a host. A stop that lost nothing is 0; the numbers from 64 on follow `sysexits.h`.

/// Everything was stopped in order and is on disk.
pub const CLEAN: u8 = 0;
/// A bad environment variable, argument, certificate or daemon option (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// The machine lacks something that the host needs (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// A service failed for good, or could not be stopped cleanly (`EX_SOFTWARE`).
pub const FAILED: u8 = 70;
/// `dind-init wait` ran out of time, as timeout(1) says it.
pub const TIMED_OUT: u8 = 124;
/// The host failed before the command could run, as docker(1) says it.
pub const NO_COMMAND: u8 = 125;
/// The command cannot be executed, as a shell says it.
pub const NOT_EXECUTABLE: u8 = 126;
/// There is no such command, as a shell says it.
pub const NOT_FOUND: u8 = 127;

/// What a shell would report for a process that a signal ended: 128 + the signal's number.
///
/// ```
/// assert_eq!(dind_contract::exit::killed_by(9), 137);
/// ```
#[must_use]
pub fn killed_by(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}
