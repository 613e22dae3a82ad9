//! How long a host may live: `DIND_TIME_LIMIT`. It is counted from the start of `dind-init` by a clock that nobody can set
//! (`CLOCK_MONOTONIC`, clock_gettime(2)), which stands still while the machine sleeps.

use std::time::Duration;

use dind_contract::variables::DIND_TIME_LIMIT;

use crate::failure::Failure;

const DAY: u64 = 24 * 60 * 60;
/// The longest that can be asked for: longer ones are slips of the finger.
const LONGEST: u64 = 365 * DAY;

/// Reads a number of seconds, or of what the letter after it says. Nothing and `0` are no limit.
///
/// # Errors
/// It is none, or too long.
pub(super) fn parse(text: &str) -> Result<Option<Duration>, Failure> {
    let refused = || {
        Failure::usage(
            format!("{DIND_TIME_LIMIT}={text} is not a time from 1s to 365d"),
            "write a whole number of seconds, or one with s, m, h or d after it, for example 90s, 30m, 6h or 2d; \
             0 is no limit",
        )
    };
    let word = text.trim();
    if word.is_empty() {
        return Ok(None);
    }
    let (digits, unit) =
        word.split_at(word.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(word.len()));
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => DAY,
        _ => return Err(refused()),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match seconds {
        Some(0) => Ok(None),
        Some(seconds @ 1..=LONGEST) => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(refused()),
    }
}

/// Whole seconds that are left of `limit` to a host that has `lived` so long, rounded up: none are left only when it is over.
pub(crate) fn seconds_left(limit: Duration, lived: Duration) -> u64 {
    let left = limit.saturating_sub(lived);
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

/// Why a host ends when its time is over.
pub(crate) fn over(limit: Duration) -> String {
    format!("{DIND_TIME_LIMIT} is over: {} s", limit.as_secs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_and_bounds() {
        for (text, seconds) in [
            ("1", 1),
            ("90", 90),
            ("90s", 90),
            (" 30m ", 1800),
            ("6h", 21_600),
            ("2d", 172_800),
            ("007", 7),
            ("365d", 31_536_000),
            ("8760h", 31_536_000),
        ] {
            assert_eq!(parse(text), Ok(Some(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["", " ", "0", "0s", "000", "0d"] {
            assert_eq!(parse(text), Ok(None), "{text:?}");
        }
        for text in [
            "s",
            "-1",
            "+1",
            "1.5h",
            "1 h",
            "1H",
            "1h30m",
            "1w",
            "366d",
            "31536001",
            "never",
            "0x10",
            "٣",
            "99999999999999999999",
            "18446744073709551615d",
        ] {
            let failure = parse(text).unwrap_err();
            assert_eq!(failure.code, 64, "{text}");
            assert!(failure.cause.contains(&format!("DIND_TIME_LIMIT={text} is not a time")), "{failure}");
            assert!(failure.help.contains("6h"), "{failure}");
        }
    }

    #[test]
    fn nothing_is_left_only_when_it_is_over() {
        let left = |lived| seconds_left(Duration::from_secs(3), Duration::from_millis(lived));
        assert_eq!([0, 1, 1000, 2001, 2999, 3000, 9000].map(left), [3, 3, 2, 1, 1, 0, 0]);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,24}") {
            if let Ok(Some(limit)) = parse(&text) {
                prop_assert!((1..=LONGEST).contains(&limit.as_secs()));
            }
        }
    }
}
