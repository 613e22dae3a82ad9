//! A container on trial: what runc does for every container, done once by direct system calls, in a process that ends with
//! it. What is refused here makes every nested container impossible; a host that came up all the same would be of no use.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, alarm, chdir, fork, pivot_root, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use super::decision::Decision;
use crate::ask;
use crate::process;

/// Longer than a trial takes on any machine, in seconds.
const DEADLINE: u32 = 10;

/// Where the trial mounts its root, in a mount namespace of its own. An image may lack any other folder, also `/run`.
const ROOT: &str = "/proc";

/// What a container has of its own, beside its pid namespace.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWNET);

/// What `docker exec` joins, in the order of runc: the mounts last, because /proc goes with them.
const JOINED: [&str; 5] = ["ipc", "uts", "net", "pid", "mnt"];

/// The user and group of the container on trial: `nobody` on every system.
const NOBODY: u32 = 65534;

/// More than a report has, in bytes.
const LONGEST_REPORT: u64 = 64 << 10;

/// What a container needs, from its start on.
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
    /// A user that is not root.
    User,
    /// That the engine may look into the namespaces of a process of another user.
    Open,
    /// That processes from outside join those namespaces: `docker exec`, `--network container:`, `--pid container:`.
    Join,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trial {
    /// Each step that was refused, and the kernel's error for it.
    refused: Vec<(Step, i32)>,
    /// Whether a device may be opened that Docker does not give to containers, if it came so far.
    every_device: Option<bool>,
    /// Whether it came to its end.
    finished: bool,
    /// The signal that ended it before.
    killed: Option<i32>,
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
    let Ok(output) = output else { return Trial::default() };
    let told = serde_json::from_slice(&output.stdout).ok();
    told.unwrap_or_else(|| Trial { killed: output.status.signal(), ..Trial::default() })
}

/// Makes the trial and prints what came of it: the work of the process that [`probe`] starts.
///
/// That process stays where runc does its work, outside. A child of it is the container, which tells what it was refused and
/// then lets itself be joined.
pub(crate) fn run() {
    let _ = set_pdeathsig(Signal::SIGKILL);
    alarm::set(DEADLINE);
    ask::print(&serde_json::to_string(&attempt()).unwrap_or_default());
}

fn attempt() -> Trial {
    let mut trial = Trial::default();
    trial.take(Step::Keyring, join_session_keyring());
    let Ok((outside, inside)) = UnixStream::pair() else { return trial };
    if !trial.take(Step::Namespaces, unshare(CloneFlags::CLONE_NEWPID)) {
        trial.finished = true;
        return trial;
    }
    // SAFETY: this process has one thread.
    match unsafe { fork() } {
        // The first process of the new pid namespace, and the only one in sight of a new /proc.
        Ok(ForkResult::Child) => {
            drop(outside);
            trial.be_container(inside);
            std::process::exit(0)
        }
        Ok(ForkResult::Parent { child }) => {
            drop(inside);
            let mut trial = trial.report_of(&outside).join(child);
            // With it the container ends.
            drop(outside);
            if let Ok(WaitStatus::Signaled(_, signal, _)) = waitpid(child, None)
                && !trial.finished
            {
                trial.killed = Some(signal as i32);
            }
            trial
        }
        Err(e) => {
            trial.take(Step::Namespaces, Err(e));
            trial.finished = true;
            trial
        }
    }
}

impl Trial {
    /// Takes note of what a step was answered; whether it was done.
    fn take(&mut self, step: Step, answer: nix::Result<()>) -> bool {
        if let Err(e) = answer {
            self.refused.push((step, e as i32));
        }
        answer.is_ok()
    }

    /// Does what a container does, tells what it was refused, and stays, as a process of another user, until the connection ends.
    fn be_container(mut self, mut connection: UnixStream) {
        let _ = set_pdeathsig(Signal::SIGKILL);
        if self.take(Step::Namespaces, unshare(NAMESPACES)) {
            self.contain();
            self.take(Step::User, become_another_user());
        }
        self.finished = true;
        let told = serde_json::to_vec(&self).ok().and_then(|report| connection.write_all(&report).ok());
        if told.is_some() && connection.shutdown(Shutdown::Write).is_ok() {
            let _ = connection.read(&mut [0]);
        }
    }

    /// What the container tells; nothing, if it ended before.
    fn report_of(self, connection: &UnixStream) -> Self {
        let mut report = Vec::new();
        let read = { connection }.take(LONGEST_REPORT).read_to_end(&mut report);
        read.ok().and_then(|_| serde_json::from_slice(&report).ok()).unwrap_or(self)
    }

    /// Joins the container, as `docker exec --user`, `--network container:` and `--pid container:` do.
    fn join(mut self, container: Pid) -> Self {
        if !self.finished || !self.refused.is_empty() {
            return self;
        }
        match JOINED.map(|name| File::open(format!("/proc/{container}/ns/{name}"))) {
            [Ok(ipc), Ok(uts), Ok(net), Ok(pid), Ok(mnt)] => {
                let joined =
                    [ipc, uts, net, pid, mnt].iter().try_for_each(|file| setns(file, CloneFlags::empty()));
                if self.take(Step::Join, joined) {
                    self.take(Step::Join, run_inside());
                }
            }
            opened => {
                let error = opened.into_iter().find_map(Result::err).and_then(|e| e.raw_os_error());
                self.take(Step::Open, Err(Errno::from_raw(error.unwrap_or_default())));
            }
        }
        self
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
        self.every_device = Some(node("nothing", 13).is_ok_and(|path| open(&path) == Err(Errno::ENXIO)));
        let moved =
            chdir(root).and_then(|()| pivot_root(".", ".")).and_then(|()| umount2(".", MntFlags::MNT_DETACH));
        self.take(Step::Root, moved);
    }
}

/// The user and group `nobody`. A process that changes its user also stops being dumpable, as one of a database does.
fn become_another_user() -> nix::Result<()> {
    setgroups(&[])?;
    setresgid(NOBODY.into(), NOBODY.into(), NOBODY.into())?;
    setresuid(NOBODY.into(), NOBODY.into(), NOBODY.into())?;
    // The change took it away.
    set_pdeathsig(Signal::SIGKILL)
}

/// A process of another user in the namespaces that were joined, as one that `docker exec` brings.
fn run_inside() -> nix::Result<()> {
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => std::process::exit(become_another_user().map_or_else(|e| e as i32, |()| 0)),
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, error) => Err(Errno::from_raw(error)),
            _ => Err(Errno::ECHILD),
        },
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

/// The subject of what is decided about containers, and what is chosen where none can run.
const SUBJECT: &str = "containers";
const NONE: &str = "none can run";

/// Whether containers can run here, and what they cannot do.
pub(super) fn decide(trial: &Trial) -> Vec<Decision> {
    [containers(trial)].into_iter().chain(trial.every_device.map(devices)).collect()
}

fn containers(trial: &Trial) -> Decision {
    if !trial.finished {
        return unfinished(trial.killed);
    }
    let Some(&(step, error)) = trial.refused.first() else {
        return Decision::good(SUBJECT, "a container on trial could be started", "they run");
    };
    let error = Errno::from_raw(error);
    let decision = |what: &str, chosen: &'static str| {
        let error = error.desc().to_lowercase();
        Decision::good(SUBJECT, format!("a container on trial may not {what}: {error}"), chosen)
    };
    if matches!(error, Errno::EAGAIN | Errno::ENOMEM | Errno::ENOSPC) {
        return decision("have what every container has", NONE)
            .because("a limit is reached")
            .missing("raise it: --pids-limit, --memory, or /proc/sys/user/max_*_namespaces of the machine");
    }
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
        Step::User => ("run as another user than root", "--cap-add SETGID --cap-add SETUID"),
        Step::Open => (
            "be joined by docker exec and health checks while it runs as another user than root",
            "--cap-add SYS_PTRACE",
        ),
        Step::Join => {
            ("be joined (setns) by docker exec and health checks", "--security-opt seccomp=unconfined")
        }
    };
    let (chosen, why) = match step {
        Step::Open => (
            "no host can be of use",
            "containers that change their user would run and never be healthy: those of most databases",
        ),
        _ => (NONE, "every container inside would fail in the same way"),
    };
    decision(what, chosen).because(why).missing(format!("start the host with {option}, or with --privileged"))
}

/// A trial that was ended by a signal, or of which nothing is known.
fn unfinished(killed: Option<i32>) -> Decision {
    let found = "a container on trial did not come to its end";
    match killed {
        // What a seccomp profile kills for (SCMP_ACT_KILL_PROCESS).
        Some(libc::SIGSYS) => Decision::good(SUBJECT, format!("{found}: a seccomp profile killed it"), NONE)
            .missing("start the host with --security-opt seccomp=unconfined, or with --privileged"),
        Some(signal) => Decision::good(SUBJECT, format!("{found}: signal {signal} killed it"), NONE)
            .missing("look at the machine: it may be out of memory, or too slow"),
        None => Decision::good(SUBJECT, found, NONE)
            .missing("look at the machine: it may be out of memory or processes"),
    }
}

fn devices(every: bool) -> Decision {
    let decision =
        |found| Decision::good("devices", found, if every { "all" } else { "Docker's usual ones" });
    if every {
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
            refused: refused.iter().map(|step| (*step, libc::EPERM)).collect(),
            every_device: Some(true),
            finished: true,
            killed: None,
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
            (trial(&[Step::User]), "another user", "SETUID"),
            (trial(&[Step::Open]), "docker exec", "SYS_PTRACE"),
            (trial(&[Step::Join]), "setns", "seccomp=unconfined"),
            (Trial::default(), "did not come to its end", "out of memory"),
            (Trial { killed: Some(libc::SIGSYS), ..Trial::default() }, "seccomp", "seccomp=unconfined"),
            (Trial { killed: Some(libc::SIGALRM), ..Trial::default() }, "signal 14", "too slow"),
            (Trial { refused: vec![(Step::Join, libc::EAGAIN)], ..trial(&[]) }, "try again", "--pids-limit"),
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
        assert_eq!(devices(true).finding.verdict, Verdict::Good);
        assert_eq!(devices(false).finding.verdict, Verdict::Fallback);
        // One that ended before says nothing about devices.
        assert_eq!(decide(&Trial::default()).len(), 1);
        assert_eq!(decide(&trial(&[])).len(), 2);
    }
}
