//! Runtime state starts anew with each host. A container keeps `/run` over stop and start, and an orchestrator may have
//! mounted secrets there: only what is known to be ours goes.

use std::fs;
use std::io;
use std::path::Path;

use dind_contract::paths;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use super::mounts;
use crate::failure::Failure;

/// Runtime folders of dockerd, containerd, its shims, and ours.
const FOLDERS: [&str; 7] = [
    "/run/containerd",
    "/run/docker/containerd",
    "/run/docker/libnetwork",
    "/run/docker/netns",
    "/run/docker/runtime-runc",
    "/run/docker/swarm",
    paths::RUNTIME,
];

/// Runtime files of dockerd beside them.
const FILES: [&str; 2] = ["/run/docker.pid", "/run/docker/metrics.sock"];

/// Looks whether an engine runs here already, or its socket is somebody else's.
///
/// # Errors
/// Either is so.
pub(super) fn check(pidfile: &Path) -> Result<(), Failure> {
    let socket = Path::new(paths::DOCKER_SOCKET);
    let real =
        socket.parent().and_then(|folder| folder.canonicalize().ok()).unwrap_or_default().join("docker.sock");
    if mounts::all().iter().any(|mounted| mounted.place == real || mounted.place == socket) {
        return Err(Failure::usage(
            format!(
                "{} is mounted from outside, so this host cannot have a socket of its own",
                socket.display()
            ),
            "leave `-v /var/run/docker.sock:/var/run/docker.sock` out; to reach the engine outside no host is needed",
        ));
    }
    // A pid alone says nothing: another process may have it by now.
    let pid = fs::read_to_string(pidfile).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let running = pid.filter(|pid| {
        fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|exe| exe.file_name().is_some_and(|name| name == "dockerd"))
    });
    match running {
        Some(pid) => Err(Failure::unavailable(
            format!("an engine runs here already (dockerd, pid {pid})"),
            "stop it first: dind-init starts a dockerd of its own",
        )),
        None => Ok(()),
    }
}

/// Makes the runtime folders empty, and removes the files.
///
/// # Errors
/// One of them cannot be made, emptied or removed.
pub(super) fn renew() -> Result<(), Failure> {
    for folder in FOLDERS.map(Path::new) {
        fs::create_dir_all(folder).map_err(|e| cannot("make", folder, &e))?;
        mounts::detach_below(folder);
        if statfs(folder).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC) {
            empty(folder).map_err(|e| cannot("empty", folder, &e))?;
        } else {
            // In a container's own layer sockets are slow, and fuse-overlayfs has been seen to lose a folder that was
            // removed and made again.
            mount(
                Some("tmpfs"),
                folder,
                Some("tmpfs"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
                Some("mode=755"),
            )
            .map_err(|e| cannot("mount a tmpfs on", folder, &e.into()))?;
        }
    }
    for file in FILES.map(Path::new) {
        match fs::remove_file(file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(cannot("remove", file, &e)),
            _ => {}
        }
    }
    Ok(())
}

fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn cannot(verb: &str, path: &Path, e: &io::Error) -> Failure {
    let path = path.display();
    Failure::unavailable(
        format!("cannot {verb} {path}: {e}"),
        "give the host a writable /run (with --read-only: --tmpfs /run)",
    )
}
