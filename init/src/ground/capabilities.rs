//! Capabilities without which no host can run.

use crate::failure::Failure;

/// What a host needs for itself, with its bit in `/proc/self/status` (capability.h).
const OURS: [(&str, u32); 2] = [("NET_ADMIN", 12), ("SYS_ADMIN", 21)];

/// What Docker gives to every container (moby, `oci/caps/defaults.go`). A container inside gets no capability that its host
/// has not: runc fails for each that asks for more ("unable to apply caps"), so without one of these nothing runs inside but
/// what is `--privileged` or drops it. The host itself needs some of them, too.
const CONTAINERS: [(&str, u32); 14] = [
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("FOWNER", 3),
    ("FSETID", 4),
    ("KILL", 5),
    ("SETGID", 6),
    ("SETUID", 7),
    ("SETPCAP", 8),
    ("NET_BIND_SERVICE", 10),
    ("NET_RAW", 13),
    ("SYS_CHROOT", 18),
    ("MKNOD", 27),
    ("AUDIT_WRITE", 29),
    ("SETFCAP", 31),
];

/// Looks whether this process may do what a host must do.
///
/// # Errors
/// Names the capabilities that are missing.
pub(super) fn check() -> Result<(), Failure> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|e| Failure::unavailable(format!("cannot read /proc/self/status: {e}"), "mount /proc"))?;
    let ours = missing(&status, &OURS);
    let containers = missing(&status, &CONTAINERS);
    if ours.is_empty() && containers.is_empty() {
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
    if !ours.is_empty() {
        return Err(Failure::unavailable(
            format!("this container lacks {}: it may not mount or make networks", ours.join(" and ")),
            "start it with the options that the README lists (--cap-add and --security-opt), or with --privileged",
        ));
    }
    let options: Vec<String> = containers.iter().map(|name| format!("--cap-add {name}")).collect();
    Err(Failure::unavailable(
        format!(
            "this container lacks {}, which Docker gives to every container: none could run inside",
            containers.join(" and ")
        ),
        format!("start it with {}, or without --cap-drop", options.join(" ")),
    ))
}

fn missing(status: &str, needed: &[(&'static str, u32)]) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or_default();
    needed.iter().filter(|(_, bit)| effective & (1 << bit) == 0).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let all = "CapEff:\t000001fffeffffff\n";
        assert_eq!(missing(all, &OURS), [""; 0]);
        assert_eq!(missing(all, &CONTAINERS), [""; 0]);
        // What `docker run` gives without options.
        let default = "Name:\tx\nCapEff:\t00000000a80425fb\n";
        assert_eq!(missing(default, &OURS), ["NET_ADMIN", "SYS_ADMIN"]);
        assert_eq!(missing(default, &CONTAINERS), [""; 0]);
        let fewer = "CapEff:\t00000000a00425fa\n";
        assert_eq!(missing(fewer, &CONTAINERS), ["CHOWN", "MKNOD"]);
        assert_eq!(missing("", &OURS), ["NET_ADMIN", "SYS_ADMIN"]);
    }
}
