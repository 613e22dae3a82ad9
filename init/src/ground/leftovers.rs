//! What an earlier run left under `/run`. A container keeps that folder over stop and start, and an orchestrator may have
//! mounted secrets there: only what is known to be ours goes.

use std::fs;
use std::io;
use std::path::Path;

use dind_contract::paths;

use super::mounts;
use crate::failure::Failure;

/// Runtime folders and files of dockerd, containerd, its shims, and ours.
const OURS: [&str; 9] = [
    "/run/docker/containerd",
    "/run/docker/libnetwork",
    "/run/docker/metrics.sock",
    "/run/docker/netns",
    "/run/docker/runtime-runc",
    "/run/docker/swarm",
    "/run/docker.pid",
    "/run/containerd/s",
    paths::RUNTIME,
];

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

/// Removes what an earlier run left, and makes our own folder anew. Returns how many files and folders there were.
///
/// # Errors
/// One of them cannot be removed or made.
pub(super) fn remove() -> Result<usize, Failure> {
    let mut removed = 0;
    for path in OURS {
        mounts::detach_below(Path::new(path));
        let result = match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(_) => continue,
        };
        result.map_err(|e| cannot("remove", path, &e))?;
        removed += 1;
    }
    fs::create_dir_all(paths::RUNTIME).map_err(|e| cannot("make", paths::RUNTIME, &e))?;
    Ok(removed)
}

fn cannot(verb: &str, path: &str, e: &io::Error) -> Failure {
    Failure::unavailable(
        format!("cannot {verb} {path}: {e}"),
        "give the host a writable /run (with --read-only: --tmpfs /run)",
    )
}
