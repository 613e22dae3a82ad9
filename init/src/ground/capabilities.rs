//! Capabilities without which no host can run.

use crate::failure::Failure;

/// What a host needs for itself, with its bit in `/proc/self/status` (capability.h).
///
/// SYS_PTRACE is for `/proc/PID/ns`: a process of another user, or one that is not dumpable, shows its namespaces only to who may
/// trace it (ptrace(2), "Ptrace access mode checking"). runc opens them for `docker exec`, health checks and joined namespaces.
const OURS: [(&str, u32); 3] = [("NET_ADMIN", 12), ("SYS_ADMIN", 21), ("SYS_PTRACE", 19)];

/// What a host cannot do without one of [`OURS`].
fn loss(capability: &str) -> &'static str {
    match capability {
        "NET_ADMIN" => "make networks",
        "SYS_ADMIN" => "mount",
        _ => "bring docker exec and health checks into containers of other users than root",
    }
}

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
pub(crate) fn check() -> Result<(), Failure> {
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
            format!(
                "this container lacks {}: it may not {}",
                ours.join(" and "),
                ours.iter().map(|name| loss(name)).collect::<Vec<_>>().join(" or ")
            ),
            format!(
                "start it with {}, and the other options that the README lists, or with --privileged",
                ours.iter().map(|name| format!("--cap-add {name}")).collect::<Vec<_>>().join(" ")
            ),
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

/// The first capability that this container was given for a host, whether its process has it or, as another user than root, has not:
/// the bounding set tells. SYS_PTRACE alone tells nothing: containers are given it for debuggers, too.
pub(crate) fn given() -> Option<&'static str> {
    first_given(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

fn first_given(status: &str) -> Option<&'static str> {
    let bounding = set(status, "CapBnd:");
    let given = |(name, bit): &&(&str, u32)| *name != "SYS_PTRACE" && bounding & (1 << bit) != 0;
    OURS.iter().find(given).map(|(name, _)| *name)
}

fn missing(status: &str, needed: &[(&'static str, u32)]) -> Vec<&'static str> {
    let effective = set(status, "CapEff:");
    needed.iter().filter(|(_, bit)| effective & (1 << bit) == 0).map(|(name, _)| *name).collect()
}

fn set(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or_default()
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
        assert_eq!(missing(default, &OURS), ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]);
        assert_eq!(missing(default, &CONTAINERS), [""; 0]);
        let fewer = "CapEff:\t00000000a00425fa\n";
        assert_eq!(missing(fewer, &CONTAINERS), ["CHOWN", "MKNOD"]);
        assert_eq!(missing("", &OURS), ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]);
    }

    #[test]
    fn what_was_given_for_a_host_is_known_whoever_runs_in_it() {
        for (bounding, given) in [
            // Without options; with the documented ones; with one of them, or what a debugger has; with none at all.
            ("00000000a80425fb", None),
            ("00000000a82c35fb", Some("NET_ADMIN")),
            ("00000000a82425fb", Some("SYS_ADMIN")),
            ("00000000a80c25fb", None),
            ("0000000000000000", None),
        ] {
            // As another user than root.
            let status = format!("CapEff:\t0000000000000000\nCapBnd:\t{bounding}\n");
            assert_eq!(first_given(&status), given, "{bounding}");
        }
    }
}
