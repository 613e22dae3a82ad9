//! Waiting for a condition.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(100);

/// How many times longer than on an ordinary machine everything may take here: `DIND_TEST_PATIENCE`, which is 1 unless the
/// machine is an emulated one.
pub fn patience() -> u32 {
    static PATIENCE: OnceLock<u32> = OnceLock::new();
    *PATIENCE.get_or_init(|| match std::env::var("DIND_TEST_PATIENCE") {
        Ok(times) => times.parse().expect("DIND_TEST_PATIENCE is a whole number"),
        Err(_) => 1,
    })
}

/// Asks `condition` until it answers with a value, for at most `seconds` times [`patience`].
///
/// # Panics
/// When the time is up, naming `what` was waited for.
#[track_caller]
pub fn until<T>(what: &str, seconds: u64, mut condition: impl FnMut() -> Option<T>) -> T {
    let seconds = seconds * u64::from(patience());
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {seconds} s in vain for: {what}");
        sleep(PAUSE);
    }
}

/// Asks for the `actual` value until it is the `wanted` one, for at most `seconds` times [`patience`].
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
    let seconds = seconds * u64::from(patience());
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
