//! Amounts as they are typed.

use std::time::Duration;

/// Bytes: a whole number with `b`, `k`, `m`, `g` or `t` after it, as in `docker run -m 4g`.
///
/// # Errors
/// It is none; the text says what was expected.
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match lower.get(digits.len()..).unwrap_or_default() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("a size is a number with b, k, m, g or t after it, such as 4g".to_owned()),
    };
    let number: i64 =
        digits.parse().map_err(|_| "a size is a whole number with a unit, such as 4g or 512m".to_owned())?;
    match number.checked_mul(1 << shift) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err("a size must be more than nothing and less than 8 million t".to_owned()),
    }
}

/// Processors in units of a billionth: `1.5` is 1500000000.
///
/// # Errors
/// It is no such number.
#[expect(clippy::cast_possible_truncation, reason = "it is bounded")]
pub(crate) fn cpus(text: &str) -> Result<i64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.01..=100_000.0).contains(&number) => Ok((number * 1e9).round() as i64),
        _ => Err("a number of processors is expected, such as 2 or 0.5".to_owned()),
    }
}

/// A time: `90s`, `30m`, `6h`, `2d`; a number alone is seconds.
///
/// # Errors
/// It is none.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("a time is a number with s, m, h or d after it, such as 90s or 6h".to_owned()),
    };
    let number: u64 =
        digits.parse().map_err(|_| "a time is a whole number with a unit, such as 90s or 6h".to_owned())?;
    match number.checked_mul(unit) {
        Some(seconds) if seconds <= 365 * 86_400 => Ok(Duration::from_secs(seconds)),
        _ => Err("a time may be 365d at most".to_owned()),
    }
}

/// `NAME=VALUE`, or `NAME` for the value that it has here.
///
/// # Errors
/// There is no name.
pub(crate) fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err("a variable needs a name: NAME=VALUE".to_owned()),
        None if text.is_empty() => Err("a variable needs a name: NAME=VALUE".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// What was typed of a variable, by name and value; `None` for a name that is not set here, which is then not set there, as in docker.
pub(crate) fn with_value(variable: &str) -> Option<(&str, String)> {
    match variable.split_once('=') {
        Some((name, value)) => Some((name, value.to_owned())),
        None => std::env::var(variable).ok().map(|value| (variable, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!(bytes("4g"), Ok(4 << 30));
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert_eq!(bytes("1024"), Ok(1024));
        for bad in ["", "g", "-1g", "0", "4x", "1.5g", "99999999999t"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(cpus("1.5"), Ok(1_500_000_000));
        for bad in ["", "0", "-1", "NaN", "inf", "two"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(time("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(time("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "s", "1w", "-1s", "1.5h", "366d", "99999999999999999999s"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
