//! Places inside a host.

/// The Docker API's socket; it is always there.
pub const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// Where dockerd keeps images, containers and volumes unless `--data-root` says otherwise.
pub const DATA_ROOT: &str = "/var/lib/docker";
/// dockerd's runtime state.
pub const EXEC_ROOT: &str = "/var/run/docker";
/// dockerd's pid file unless `--pidfile` says otherwise.
pub const PIDFILE: &str = "/var/run/docker.pid";
/// dockerd's configuration file unless `--config-file` says otherwise.
pub const DAEMON_JSON: &str = "/etc/docker/daemon.json";
/// What dockerd reads in its place: that file, and what the host adds to it.
pub const ENGINE_CONFIG: &str = "/run/dind/daemon.json";
/// The authorities that dockerd trusts, where `DIND_CA_CERTIFICATES` adds some.
pub const AUTHORITIES: &str = "/run/dind/ca-certificates.pem";
/// How sshd is configured. A host in whose image it is runs sshd; other files of its kind are in the folder of this name and `.d`.
pub const SSHD_CONFIG: &str = "/etc/dind/sshd_config";
/// A file for each user with the keys that `adduserkey` added.
pub const AUTHORIZED_KEYS: &str = "/etc/ssh/authorized_keys.d";
/// Certificates, in `ca/`, `server/` and `client/`, unless `DOCKER_TLS_CERTDIR` says otherwise.
pub const CERTIFICATES: &str = "/certs";
/// `dind-init`'s own runtime files.
pub const RUNTIME: &str = "/run/dind";
/// The host's log in command mode, when standard output is the command's; `.1` after it has what was before.
pub const LOG: &str = "/run/dind/log";
/// Stream socket of the host's status: a [`crate::Status`] as one line of JSON at once, and another after each change.
pub const STATUS_SOCKET: &str = "/run/dind/status.sock";
/// Datagram socket on which services say that they are ready, as `sd_notify(3)` describes.
pub const NOTIFY_SOCKET: &str = "/run/dind/notify.sock";
/// File in the data root that the running host holds locked; its text is `running` or `clean`.
pub const LOCK_FILE: &str = "dind.lock";
/// File in the data root that says when it was last synced, and what was in it.
pub const SYNC_FILE: &str = "dind.synced";
/// Folder where the engine keeps its data, in which damaged images and what stood on them are set aside.
pub const DAMAGED: &str = "dind-damaged";
