//! The mount table, and mounts that a host changes.

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)), as far as a host needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(super) place: PathBuf,
    pub(super) kind: String,
    /// What is mounted there: a device, or a word.
    pub(super) source: String,
    pub(super) flags: MsFlags,
}

/// Everything that is mounted here, in order of mounting.
pub(super) fn all() -> Vec<Mount> {
    parse(&String::from_utf8_lossy(&std::fs::read("/proc/self/mountinfo").unwrap_or_default()))
}

pub(crate) fn parse(table: &str) -> Vec<Mount> {
    table
        .lines()
        .filter_map(|line| {
            let (mount, superblock) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(4);
            let mut superblock = superblock.split(' ');
            Some(Mount {
                place: PathBuf::from(unescape(fields.next()?)),
                flags: flags(fields.next()?),
                kind: superblock.next()?.to_owned(),
                source: unescape(superblock.next()?),
            })
        })
        .collect()
}

/// The flags of a mount, which a remount must repeat: the kernel drops those that are left out.
fn flags(options: &str) -> MsFlags {
    let table = [
        ("ro", MsFlags::MS_RDONLY),
        ("nosuid", MsFlags::MS_NOSUID),
        ("nodev", MsFlags::MS_NODEV),
        ("noexec", MsFlags::MS_NOEXEC),
        ("noatime", MsFlags::MS_NOATIME),
        ("nodiratime", MsFlags::MS_NODIRATIME),
        ("relatime", MsFlags::MS_RELATIME),
    ];
    let named = options.split(',').filter_map(|option| table.iter().find(|(name, _)| *name == option));
    named.fold(MsFlags::empty(), |flags, (_, flag)| flags | *flag)
}

/// mountinfo writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = text.to_owned();
    for (escaped, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(escaped, character);
    }
    plain
}

/// Makes a read-only mount writable. The flag is the mount's and not the superblock's, hence `MS_BIND`.
pub(super) fn make_writable(mounted: &Mount) -> nix::Result<()> {
    let flags = (mounted.flags - MsFlags::MS_RDONLY) | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    mount(None::<&str>, &mounted.place, None::<&str>, flags, None::<&str>)
}

/// Where the kernel's settings are.
const PROC_SYS: &str = "/proc/sys";

/// Makes the kernel's settings writable: dockerd turns forwarding on, and IPv6 off for each container that has none. Docker
/// makes them read-only, and with SYS_ADMIN that is not for long.
///
/// # Errors
/// They are read-only and stay so.
pub(super) fn open_proc_sys() -> Result<Option<String>, Failure> {
    let mounted = all().into_iter().rfind(|mounted| mounted.place == Path::new(PROC_SYS));
    let Some(read_only) = mounted.filter(|mounted| mounted.flags.contains(MsFlags::MS_RDONLY)) else {
        return Ok(None);
    };
    make_writable(&read_only).map_err(|e| {
        Failure::unavailable(
            format!("{PROC_SYS} is read-only and cannot be made writable: {}", e.desc().to_lowercase()),
            "start the host with --security-opt systempaths=unconfined, or with --privileged",
        )
    })?;
    Ok(Some(format!("{PROC_SYS} made writable")))
}

/// Lets mounts travel between this host and its containers where those ask for it (`bind-propagation=rshared`), as on a
/// machine; Docker makes the mounts of a container private. Only for PID 1: other mounts are not ours to change.
pub(super) fn share_root() -> Option<String> {
    if std::process::id() != 1 {
        return None;
    }
    match mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>) {
        Ok(()) => None,
        Err(e) => {
            Some(format!("/ stays private ({e}), so shared bind mounts of nested containers will not work"))
        }
    }
}

/// Detaches whatever is mounted below `folder`, the last first. What was mounted by others stays out of it: the folder
/// itself and its siblings.
pub(crate) fn detach_below(folder: &Path) {
    let Ok(folder) = folder.canonicalize() else { return };
    for mounted in
        all().iter().rev().filter(|mounted| mounted.place.starts_with(&folder) && mounted.place != folder)
    {
        // Whoever still uses it keeps it; a failure shows when the folder is used next.
        let _ = umount2(&mounted.place, MntFlags::MNT_DETACH);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        let table = "74 73 0:45 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755\n\
                     75 74 0:29 /docker/x /sys/fs/cgroup/cpu ro,nosuid,relatime master:7 shared:3 - cgroup cgroup rw,cpu\n\
                     9 1 8:1 / /a\\040b\\134c rw - ext4 /dev/sda1 rw\n\
                     not a line\n";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[1].place, Path::new("/sys/fs/cgroup/cpu"));
        assert_eq!(mounts[1].kind, "cgroup");
        assert_eq!(mounts[2].source, "/dev/sda1");
        assert_eq!(mounts[1].flags, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_RELATIME);
        assert_eq!(mounts[2].place, Path::new("/a b\\c"));
    }

    proptest! {
        #[test]
        fn any_table_is_read(table in "[ -~\n]{0,200}") {
            let _ = parse(&table);
        }
    }
}
