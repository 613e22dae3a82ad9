//! The image `busybox` that runs inside hosts.

use std::sync::OnceLock;

use crate::archive::Archive;

/// Debian's static busybox, and the programs that tests call by name in nested containers.
const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 14] =
    ["awk", "cat", "date", "dd", "echo", "false", "id", "ls", "nc", "ps", "sh", "sleep", "touch", "true"];

/// A tar of the image's root file system, to be imported into a host.
///
/// # Panics
/// When this machine has no busybox.
#[track_caller]
pub fn busybox() -> Vec<u8> {
    static TAR: OnceLock<Vec<u8>> = OnceLock::new();
    let tar = TAR.get_or_init(|| {
        let archive = Archive::new().file(BUSYBOX, 0o755, &busybox_program());
        APPLETS
            .iter()
            .fold(archive, |archive, applet| archive.link(&format!("bin/{applet}"), "busybox"))
            .bytes()
    });
    tar.clone()
}

/// The program itself.
#[track_caller]
pub(crate) fn busybox_program() -> Vec<u8> {
    std::fs::read(BUSYBOX).unwrap_or_else(|error| {
        panic!("cannot read {BUSYBOX}: {error}\n  help: apt-get install busybox-static, or run ./check");
    })
}
