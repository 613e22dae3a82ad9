//! Runtime state starts anew with each host. A container keeps `/run` over stop and start, and an orchestrator may have
//! mounted secrets there, or the machine's own `/run`: nothing in it is emptied or removed. A fresh tmpfs lies over each
//! folder that is ours to use, and only what bears our name is ever taken away.

use std::fs;
use std::io;
use std::path::Path;

use dind_contract::paths;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use super::mounts;
use crate::failure::Failure;
use crate::http::connect;
use crate::process;
use crate::services::CONTAINERD_SOCKET;

/// Runtime folders of dockerd, of our containerd, and ours.
const FOLDERS: [&str; 6] = [
    paths::RUNTIME,
    "/run/docker/containerd",
    "/run/docker/libnetwork",
    "/run/docker/netns",
    "/run/docker/runtime-runc",
    "/run/docker/swarm",
];

/// What the tmpfs on them is called in the mount table.
const NAME: &str = "dind";

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
    // Whoever answers is alive, whatever pid namespace it is in.
    for (path, what) in [(paths::DOCKER_SOCKET, "an engine"), (paths::STATUS_SOCKET, "a host")] {
        if matches!(connect(Path::new(path)), Ok(_) | Err(Errno::EAGAIN)) {
            return Err(Failure::unavailable(
                format!("{what} runs here already: it answers on {path}"),
                "stop it first, or give this host a /run of its own",
            ));
        }
    }
    // A pid alone says nothing: another process may have it by now.
    let text = crate::read_if_there(pidfile).ok().flatten();
    let pid = text.and_then(|text| text.trim().parse::<u32>().ok());
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

/// Ends the containers of a host that was killed, which outlive it where it was not PID 1. The data root is ours by now, so
/// they are nobody's. Returns how many processes there were.
pub(super) fn end_orphans() -> usize {
    let orphans = process::orphans(CONTAINERD_SOCKET);
    for pid in &orphans {
        process::send(*pid, Signal::SIGKILL);
    }
    orphans.len()
}

/// Makes the runtime folders empty.
///
/// # Errors
/// One of them cannot be made or mounted on.
pub(super) fn renew() -> Result<(), Failure> {
    // Of a host before this one, where the mounts outlive it.
    for mounted in
        mounts::all().iter().rev().filter(|mounted| mounted.kind == "tmpfs" && mounted.source == NAME)
    {
        mounts::detach_below(&mounted.place);
        let _ = umount2(&mounted.place, MntFlags::MNT_DETACH);
    }
    for folder in FOLDERS.map(Path::new) {
        fs::create_dir_all(folder).map_err(|e| cannot("make", folder, &e))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some(NAME), folder, Some("tmpfs"), flags, Some("mode=755"))
            .map_err(|e| cannot("mount a tmpfs on", folder, &e.into()))?;
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
