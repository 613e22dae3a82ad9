//! Environment variables of a host.

/// An environment variable that a host reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What stands for it when it is not set, as the help text shows it.
    pub default: &'static str,
    /// What it decides, in one line.
    pub meaning: &'static str,
}

/// Options for dockerd.
pub const DOCKER_OPTS: &str = "DOCKER_OPTS";
/// No TCP listener at all.
pub const LOCAL: &str = "LOCAL";
/// The text of a Compose file to run.
pub const COMPOSE_SCRIPT: &str = "COMPOSE_SCRIPT";
/// Mutual TLS, or plain TCP.
pub const DIND_TLS: &str = "DIND_TLS";
/// More names and addresses for the server certificate.
pub const DIND_TLS_SAN: &str = "DIND_TLS_SAN";
/// Seconds between SIGTERM and the SIGKILL from outside.
pub const DIND_STOP_TIMEOUT: &str = "DIND_STOP_TIMEOUT";
/// How long the host may live.
/// How long a host may live.
pub const DIND_TIME_LIMIT: &str = "DIND_TIME_LIMIT";
/// Form of the log.
pub const DIND_LOG: &str = "DIND_LOG";
/// What happens when a service dies.
pub const DIND_ON_FAILURE: &str = "DIND_ON_FAILURE";
/// How images are stored.
pub const DIND_STORAGE: &str = "DIND_STORAGE";
/// Size of the disk that a host makes for images.
pub const DIND_STORAGE_SIZE: &str = "DIND_STORAGE_SIZE";
/// Whether the data root is synced after each acknowledgement.
pub const DIND_SYNC: &str = "DIND_SYNC";
/// The same as `DIND_TLS_SAN`, by the name that `docker:dind` has for it.
pub const DOCKER_TLS_SAN: &str = "DOCKER_TLS_SAN";
/// Folder of the certificates.
pub const DOCKER_TLS_CERTDIR: &str = "DOCKER_TLS_CERTDIR";

/// Limits of open files, `SOFT:HARD`.
pub const DIND_NOFILE: &str = "DIND_NOFILE";
/// Registries that stand in for Docker Hub.
pub const DIND_REGISTRY_MIRRORS: &str = "DIND_REGISTRY_MIRRORS";
/// Registries that are spoken to without TLS, or whatever their certificate.
pub const DIND_INSECURE_REGISTRIES: &str = "DIND_INSECURE_REGISTRIES";
/// Certificates of authorities to trust as well.
pub const DIND_CA_CERTIFICATES: &str = "DIND_CA_CERTIFICATES";
/// The most that the build cache may take.
pub const DIND_BUILD_CACHE: &str = "DIND_BUILD_CACHE";

/// Whether control groups are made writable and nestable.
pub const DIND_CGROUPS: &str = "DIND_CGROUPS";
/// Which kind of iptables dockerd uses.
pub const DIND_FIREWALL: &str = "DIND_FIREWALL";
/// MTU of networks inside.
pub const DIND_MTU: &str = "DIND_MTU";
/// Name servers of nested containers.
pub const DIND_DNS: &str = "DIND_DNS";
/// Where networks inside take their addresses from.
pub const DIND_ADDRESS_POOLS: &str = "DIND_ADDRESS_POOLS";

/// All of them, in the order in which the help text shows them.
pub const ALL: [Variable; 24] = [
    Variable {
        name: DOCKER_OPTS,
        default: "",
        meaning: "options for dockerd, split into words as a POSIX shell does",
    },
    Variable { name: LOCAL, default: "false", meaning: "true: no TCP listener, only the unix socket" },
    Variable {
        name: COMPOSE_SCRIPT,
        default: "",
        meaning: "the text of a Compose file to run (dind-compose-dynamic)",
    },
    Variable {
        name: DIND_TLS,
        default: "on",
        meaning: "on: mutual TLS on port 2376; off: plain TCP on ports 2375 and 2376",
    },
    Variable {
        name: DIND_TLS_SAN,
        default: "",
        meaning: "more names and addresses for the server certificate, comma-separated",
    },
    Variable {
        name: DIND_STOP_TIMEOUT,
        default: "10",
        meaning: "seconds between SIGTERM and the SIGKILL that follows it (docker stop -t)",
    },
    Variable {
        name: DIND_TIME_LIMIT,
        default: "",
        meaning: "how long the host may live, such as 90s, 30m, 6h or 2d: then it stops as SIGTERM stops it",
    },
    Variable { name: DIND_LOG, default: "text", meaning: "text or json, one line an event" },
    Variable {
        name: DIND_ON_FAILURE,
        default: "restart",
        meaning: "restart a service that dies, or exit with its code",
    },
    Variable {
        name: DIND_STORAGE,
        default: "auto",
        meaning: "how images are stored: auto, overlay2, loop (overlay2 on an ext4 image), fuse-overlayfs or vfs",
    },
    Variable {
        name: DIND_STORAGE_SIZE,
        default: "",
        meaning: "size of that ext4 image, such as 20G; three quarters of the free space unless set",
    },
    Variable {
        name: DIND_SYNC,
        default: "on",
        meaning: "on: what the API has acknowledged is brought to the disk at once; off: only at the stop",
    },
    Variable {
        name: DOCKER_TLS_CERTDIR,
        default: "/certs",
        meaning: "folder of the certificates; set but empty means DIND_TLS=off",
    },
    Variable {
        name: DOCKER_TLS_SAN,
        default: "",
        meaning: "as in docker:dind: DNS:NAME and IP:ADDRESS entries, beside those of DIND_TLS_SAN",
    },
    Variable {
        name: DIND_NOFILE,
        default: "1024:524288",
        meaning: "soft and hard limit of open files for containers and builds; never above the host's own",
    },
    Variable {
        name: DIND_REGISTRY_MIRRORS,
        default: "",
        meaning: "mirrors of Docker Hub, comma-separated URLs",
    },
    Variable {
        name: DIND_INSECURE_REGISTRIES,
        default: "",
        meaning: "registries without TLS or with any certificate, comma-separated HOST[:PORT] or address ranges",
    },
    Variable {
        name: DIND_CA_CERTIFICATES,
        default: "",
        meaning: "a PEM file, or a folder of them, with authorities that registries are trusted by as well",
    },
    Variable {
        name: DIND_BUILD_CACHE,
        default: "10%",
        meaning: "the most that the build cache may take: 20GB, 10% of the disk, or off for no limit",
    },
    Variable {
        name: DIND_CGROUPS,
        default: "auto",
        meaning: "auto: control groups are made writable and nestable; keep: they are left as they are",
    },
    Variable {
        name: DIND_FIREWALL,
        default: "auto",
        meaning: "nft or legacy: the kind of iptables that dockerd uses; off: none; auto: what works here",
    },
    Variable {
        name: DIND_MTU,
        default: "",
        meaning: "MTU of networks inside; without it, that of the way out where it is below 1500",
    },
    Variable {
        name: DIND_DNS,
        default: "",
        meaning: "addresses of name servers for nested containers, comma-separated",
    },
    Variable {
        name: DIND_ADDRESS_POOLS,
        default: "",
        meaning: "where networks inside take their addresses from, as base=10.200.0.0/16,size=24, with spaces between pools",
    },
];

/// Whether Kubernetes injects `name` into pods for a Service whose name begins with "dind": `{SVC}_SERVICE_HOST`,
/// `{SVC}_SERVICE_PORT[_NAME]`, `{SVC}_PORT` and `{SVC}_PORT_{number}_{protocol}[_PROTO|_PORT|_ADDR]`
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
///
/// ```
/// use dind_contract::variables::is_injected_by_kubernetes;
/// assert!(is_injected_by_kubernetes("DIND_PORT_2376_TCP_ADDR"));
/// assert!(!is_injected_by_kubernetes("DIND_TLS"));
/// ```
#[must_use]
pub fn is_injected_by_kubernetes(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.rfind("_PORT_").is_some_and(|at| {
            let mut parts = name[at + "_PORT_".len()..].split('_');
            let number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
            let protocol = parts.next().is_some_and(|part| ["TCP", "UDP", "SCTP"].contains(&part));
            let field = parts.next().is_none_or(|part| ["PROTO", "PORT", "ADDR"].contains(&part));
            number && protocol && field && parts.next().is_none()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_names_are_known_and_ours_are_not_among_them() {
        let injected = [
            "DIND_SERVICE_HOST",
            "DIND_SERVICE_PORT",
            "DIND_SERVICE_PORT_DOCKER_TLS",
            "DIND_PORT",
            "DIND_PORT_2376_TCP",
            "DIND_PORT_2376_TCP_PROTO",
            "DIND_PORT_2376_TCP_PORT",
            "DIND_PORT_2376_TCP_ADDR",
            "DIND_RUNNER_PORT_53_UDP_ADDR",
        ];
        for name in injected {
            assert!(is_injected_by_kubernetes(name), "{name}");
        }
        for name in
            ALL.map(|variable| variable.name).into_iter().chain(["DIND_PORT_X_TCP", "DIND_PORT_1_TCP_X"])
        {
            assert!(!is_injected_by_kubernetes(name), "{name}");
        }
    }
}
