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
/// What makes an image an appliance's: a host in whose image this file is runs a Compose application.
pub const APPLIANCE: &str = "/etc/dind/appliance";
/// Folder in which a Compose application may lie, with its Compose file or what that refers to; else it lies in `/`.
pub const APPLICATION_FOLDER: &str = "/compose";
/// Where the text of `COMPOSE_SCRIPT` lies while the host runs.
pub const COMPOSE_SCRIPT_FILE: &str = "/run/dind/compose.yml";
/// The Compose application as Compose has understood it.
pub const APPLICATION: &str = "/run/dind/application.json";
/// How far the application has come, for the case that whoever looks after it must be started again.
pub const APPLICATION_STATE: &str = "/run/dind/application";
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
/// File in the data root that the running host holds locked; its text is `running` or `clean`, or `copying` while it becomes a copy.
pub const LOCK_FILE: &str = "dind.lock";
/// File in the data root that says when it was last synced, and what was in it.
pub const SYNC_FILE: &str = "dind.synced";
/// File in the data root that says from what the application's own images were built.
pub const BUILT_FILE: &str = "dind.built";
/// File in the data root that says which layers in it are links into a store, and into which.
pub const STORE_FILE: &str = "dind.store";
/// Folder below which the layers of the store are mounted, each by the digits of its DiffID.
pub const STORE_MOUNTS: &str = "/run/dind/store";
/// Folder where the engine keeps its data, in which damaged images and what stood on them are set aside.
pub const DAMAGED: &str = "dind-damaged";
