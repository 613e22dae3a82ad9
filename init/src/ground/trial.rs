//! A container on trial: what runc does for every container, done once by direct system calls, in a process that ends with
//! it. What is refused here makes every nested container impossible; a host that came up all the same would be of no use.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{ForkResult, alarm, chdir, fork, pivot_root};
use serde::{Deserialize, Serialize};

use super::decision::Decision;
use crate::ask;
use crate::process;

/// Longer than a trial takes on any machine, in seconds.
const DEADLINE: u32 = 10;

/// Where the trial mounts its root, in a mount namespace of its own. An image may lack any other folder, also `/run`.
const ROOT: &str = "/proc";

/// What a container needs when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Step {
    /// A session keyring of its own.
    Keyring,
    /// Namespaces of its own.
    Namespaces,
    /// Mounts that do not travel, and new ones.
    Mounts,
    /// A fresh `/proc`.
    Proc,
    /// A fresh `/sys`.
    Sys,
    /// Device nodes such as `/dev/null`.
    Devices,
    /// A root of its own.
    Root,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trial {
    /// Each step that was refused, and the kernel's words for it.
    refused: Vec<(Step, String)>,
    /// Whether a device may be opened that Docker does not give to containers.
    every_device: bool,
    /// Whether it came to its end.
    finished: bool,
}

/// Has another process make the trial, since nobody returns from it.
#[expect(
    clippy::disallowed_methods,
    reason = "the probes are an ordinary program, which waits for its children"
)]
pub(super) fn probe() -> Trial {
    let output = Command::new(process::OURSELVES)
        .args([process::HELPER, "trial"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok()).unwrap_or_default()
}

/// Makes the trial and prints what came of it: the work of the process that [`probe`] starts.
pub(crate) fn run() {
    let _ = set_pdeathsig(Signal::SIGKILL);
    alarm::set(DEADLINE);
    let mut trial = Trial::default();
    trial.take(Step::Keyring, join_session_keyring());
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET;
    if trial.take(Step::Namespaces, unshare(namespaces)) {
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            // The first process of the new pid namespace, and the only one in sight of a new /proc.
            Ok(ForkResult::Child) => {
                let _ = set_pdeathsig(Signal::SIGKILL);
                trial.contain();
            }
            Ok(ForkResult::Parent { child }) => {
                // The child answers.
                let _ = nix::sys::wait::waitpid(child, None);
                return;
            }
            Err(e) => {
                trial.take(Step::Namespaces, Err(e));
            }
        }
    }
    trial.finished = true;
    ask::print(&serde_json::to_string(&trial).unwrap_or_default());
}

impl Trial {
    /// Takes note of what a step was answered; whether it was done.
    fn take(&mut self, step: Step, answer: nix::Result<()>) -> bool {
        if let Err(e) = answer {
            self.refused.push((step, e.desc().to_lowercase()));
        }
        answer.is_ok()
    }

    /// Builds the root of a container and moves into it.
    fn contain(&mut self) {
        let none = None::<&str>;
        let root = Path::new(ROOT);
        let private = mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none);
        let mounted = private.and_then(|()| mount(Some("dind"), root, Some("tmpfs"), MsFlags::empty(), none));
        if !self.take(Step::Mounts, mounted) {
            return;
        }
        for (step, kind) in [(Step::Proc, "proc"), (Step::Sys, "sysfs")] {
            let place = root.join(kind);
            // In a new tmpfs nothing is in the way; if something is, the mount says so.
            let _ = fs::create_dir(&place);
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            self.take(step, mount(Some(kind), &place, Some(kind), flags, none));
        }
        // Character device 1:3 is /dev/null. 1:13 is nothing, and nobody allows it by name: to open it is refused by a
        // container's device rules with EPERM, and else by the kernel with ENXIO (devices.txt of the kernel).
        let node = |name: &str, minor| {
            let path = root.join(name);
            mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, minor)).map(|()| path)
        };
        let null = node("null", 3).and_then(|path| open(&path));
        self.take(Step::Devices, null);
        self.every_device = node("nothing", 13).is_ok_and(|path| open(&path) == Err(Errno::ENXIO));
        let moved =
            chdir(root).and_then(|()| pivot_root(".", ".")).and_then(|()| umount2(".", MntFlags::MNT_DETACH));
        self.take(Step::Root, moved);
    }
}

fn open(path: &Path) -> nix::Result<()> {
    nix::fcntl::open(path, nix::fcntl::OFlag::O_RDONLY, Mode::empty()).map(drop)
}

/// keyctl(2). A kernel without keyrings is no obstacle, as in runc.
fn join_session_keyring() -> nix::Result<()> {
    // SAFETY: with a null pointer the keyring is anonymous; nothing is read or written.
    let answer = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    match Errno::result(answer) {
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Whether containers can run here, and what they cannot do.
pub(super) fn decide(trial: &Trial) -> Vec<Decision> {
    vec![containers(trial), devices(trial)]
}

fn containers(trial: &Trial) -> Decision {
    const SUBJECT: &str = "containers";
    if !trial.finished {
        return Decision::good(SUBJECT, "a container on trial did not come to its end", "none can run")
            .missing("look at the machine: it may be out of memory or processes");
    }
    let Some((step, e)) = trial.refused.first() else {
        return Decision::good(SUBJECT, "a container on trial could be started", "they run");
    };
    let (what, option) = match step {
        Step::Keyring => ("join a session keyring", "--security-opt seccomp=unconfined"),
        Step::Root => ("change its root (pivot_root)", "--security-opt seccomp=unconfined"),
        Step::Namespaces => (
            "make namespaces",
            "--cap-add SYS_ADMIN --security-opt seccomp=unconfined, and room in /proc/sys/user/max_*_namespaces",
        ),
        Step::Mounts => {
            ("mount", "--security-opt apparmor=unconfined (or an SELinux policy that allows mount)")
        }
        Step::Proc => ("mount its /proc", "--security-opt systempaths=unconfined"),
        Step::Sys => ("mount its /sys", "--security-opt systempaths=unconfined"),
        Step::Devices => ("have its /dev/null", "--cap-add MKNOD and --device-cgroup-rule 'a *:* rwm'"),
    };
    Decision::good(SUBJECT, format!("a container on trial may not {what}: {e}"), "none can run")
        .because("every container inside would fail in the same way")
        .missing(format!("start the host with {option}, or with --privileged"))
}

fn devices(trial: &Trial) -> Decision {
    let decision = |found| {
        Decision::good("devices", found, if trial.every_device { "all" } else { "Docker's usual ones" })
    };
    if trial.every_device {
        return decision("this container may use every device");
    }
    decision("this container may use some devices only")
        .because("device rules only shrink on the way down: --privileged inside fails, and so does --device for others")
        .but_better("--device-cgroup-rule 'a *:* rwm'")
}

#[cfg(test)]
mod tests {
    use dind_contract::Verdict;

    use super::*;

    fn trial(refused: &[Step]) -> Trial {
        Trial {
            refused: refused.iter().map(|step| (*step, "operation not permitted".to_owned())).collect(),
            every_device: true,
            finished: true,
        }
    }

    #[test]
    fn what_makes_containers_impossible_is_missing_and_named() {
        let table = [
            (trial(&[Step::Keyring, Step::Root]), "keyring", "seccomp=unconfined"),
            (trial(&[Step::Root]), "pivot_root", "seccomp=unconfined"),
            (trial(&[Step::Mounts]), "may not mount:", "apparmor=unconfined"),
            (trial(&[Step::Proc]), "its /proc", "systempaths=unconfined"),
            (trial(&[Step::Namespaces]), "namespaces", "SYS_ADMIN"),
            (trial(&[Step::Devices]), "/dev/null", "MKNOD"),
            (Trial::default(), "did not come to its end", "out of memory"),
        ];
        for (trial, found, better) in table {
            let finding = containers(&trial).finding;
            assert_eq!(finding.verdict, Verdict::Missing, "{found}");
            assert!(finding.found.contains(found), "{}", finding.found);
            assert!(finding.better.as_ref().unwrap().contains(better), "{finding:?}");
        }
        assert_eq!(containers(&trial(&[])).finding.verdict, Verdict::Good);
    }

    #[test]
    fn fewer_devices_are_a_fallback() {
        assert_eq!(devices(&trial(&[])).finding.verdict, Verdict::Good);
        let some = Trial { every_device: false, ..trial(&[]) };
        assert_eq!(devices(&some).finding.verdict, Verdict::Fallback);
    }
}
