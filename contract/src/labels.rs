//! Labels of images, hosts and volumes. A container has the labels of its image, so a host is found by one list call,
//! whoever started it.

/// On an image: the flavour of its hosts, such as `debian`. What has it is a host's image.
pub const FLAVOUR: &str = "dind.flavour";
/// On an image: the version of the engine in it, such as `26.1.5`.
pub const ENGINE: &str = "dind.engine";
/// On a host that lives for one command: the process that made it, as `BOOT-ID/PID/START`, START being the time of the
/// process's start in ticks since the boot (the 22nd field of proc_pid_stat(5)).
pub const OWNER: &str = "dind.owner";
/// On a host: the volume that was made for it and goes with it.
pub const VOLUME: &str = "dind.volume";
/// On a host: `true` when it was made with --local, so that no API of its is served to others.
pub const LOCAL: &str = "dind.local";
/// On a volume: what it is a copy of. It belongs to one host, and is nobody's when there is no host on it.
pub const COPY_OF: &str = "dind.copy-of";
/// On a sealed appliance's image: the digest of its store's manifest.
pub const STORE: &str = "dind.store";
/// On a sealed appliance's image: its application's images with their digests, a list of [`crate::store::Image`] as JSON.
pub const SEALED: &str = "dind.sealed";
/// All of them: nobody else may give these.
pub const OWN: [&str; 8] = [FLAVOUR, ENGINE, OWNER, VOLUME, LOCAL, COPY_OF, STORE, SEALED];
