//! Whether packets pass from one network of this host to another: without that, containers reach nothing outside.

use std::fs;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::decision::Decision;
use crate::settings::Settings;

/// Of this network namespace, like all of `/proc/sys/net`.
const FILE: &str = "/proc/sys/net/ipv4/ip_forward";

/// What is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    is_on: bool,
    /// Whether it can be turned on.
    is_writable: bool,
}

/// Looks.
pub(super) fn look() -> Found {
    Found {
        is_on: fs::read_to_string(FILE).is_ok_and(|text| text.trim() == "1"),
        is_writable: access(Path::new(FILE), AccessFlags::W_OK).is_ok(),
    }
}

/// Decides. dockerd turns it on by itself where it is off, and does not start where it cannot.
pub(super) fn decide(settings: &Settings, found: Found) -> Decision {
    let subject = "forwarding";
    let said = if found.is_on { "net.ipv4.ip_forward is on" } else { "net.ipv4.ip_forward is off" };
    if settings.daemon.switch("ip-forward") == Some(false) {
        return Decision::good(subject, said, "left as it is").because("dockerd's options say so");
    }
    match found {
        Found { is_on: true, .. } => Decision::good(subject, said, "left as it is"),
        Found { is_writable: true, .. } => Decision::good(subject, said, "dockerd turns it on"),
        _ => Decision::good(subject, format!("{said}, and cannot be written"), "left off")
            .because("containers reach only this host and each other")
            .but_better("start the host with --sysctl net.ipv4.ip_forward=1")
            .with_arguments(["--ip-forward=false"]),
    }
}

#[cfg(test)]
mod tests {
    use dind_contract::Verdict;

    use super::*;

    fn decided(options: &str, is_on: bool, is_writable: bool) -> (Verdict, String) {
        let environment = [("DOCKER_OPTS".into(), options.into())];
        let settings = Settings::load(environment, &[], |_| Ok(None)).unwrap();
        let decision = decide(&settings, Found { is_on, is_writable });
        (decision.finding.verdict, decision.arguments.join(" "))
    }

    #[test]
    fn dockerd_is_told_only_of_what_would_stop_it() {
        let nothing = (Verdict::Good, String::new());
        assert_eq!(decided("", true, false), nothing);
        assert_eq!(decided("", false, true), nothing);
        assert_eq!(decided("--ip-forward=false", false, false), nothing);
        assert_eq!(decided("", false, false), (Verdict::Fallback, "--ip-forward=false".to_owned()));
    }
}
