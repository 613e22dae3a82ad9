//! Waiting for a condition.

use std::fmt::Debug;
use std::thread::sleep;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(100);

/// Asks `condition` until it answers with a value, for at most `seconds`.
///
/// # Panics
/// When the time is up, naming `what` was waited for.
#[track_caller]
pub fn until<T>(what: &str, seconds: u64, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {seconds} s in vain for: {what}");
        sleep(PAUSE);
    }
}

/// Asks for the `actual` value until it is the `wanted` one, for at most `seconds`.
///
/// # Panics
/// When the time is up, with the value that was found last.
#[track_caller]
pub fn until_equal<T: PartialEq<U> + Debug, U: Debug>(
    what: &str,
    seconds: u64,
    wanted: U,
    mut actual: impl FnMut() -> T,
) {
    let mut last = None;
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline {
        let now = actual();
        if now == wanted {
            return;
        }
        last = Some(now);
        sleep(PAUSE);
    }
    panic!("waited {seconds} s in vain for: {what}\n  wanted {wanted:?}\n  found  {last:?}");
}
