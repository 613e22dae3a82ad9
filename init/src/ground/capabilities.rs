//! Capabilities without which no host can run.

use crate::failure::Failure;

/// What is needed from the first moment, with its bit in `/proc/self/status` (capability.h).
const NEEDED: [(&str, u32); 2] = [("NET_ADMIN", 12), ("SYS_ADMIN", 21)];

/// Looks whether this process may do what a host must do.
///
/// # Errors
/// Names the capabilities that are missing.
pub(super) fn check() -> Result<(), Failure> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|e| Failure::unavailable(format!("cannot read /proc/self/status: {e}"), "mount /proc"))?;
    let missing = missing(&status);
    if missing.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::unavailable(
            format!(
                "this process runs as user {} and may not mount or make networks",
                nix::unistd::geteuid()
            ),
            "run it as root: leave --user out",
        ));
    }
    Err(Failure::unavailable(
        format!("this container lacks {}: it may not mount or make networks", missing.join(" and ")),
        "start it with the options that the README lists (--cap-add and --security-opt), or with --privileged",
    ))
}

fn missing(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or_default();
    NEEDED.iter().filter(|(_, bit)| effective & (1 << bit) == 0).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing("CapEff:\t000001fffeffffff\n"), [""; 0]);
        // What `docker run` gives without options.
        assert_eq!(missing("Name:\tx\nCapEff:\t00000000a80425fb\n"), ["NET_ADMIN", "SYS_ADMIN"]);
        assert_eq!(missing(""), ["NET_ADMIN", "SYS_ADMIN"]);
    }
}
