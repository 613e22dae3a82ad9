//! Starting processes and finding those that are ours. Nothing here waits for one: see [`crate::reaper`].

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, PipeReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{self, SigSet, Signal};
use nix::unistd::{Pid, setsid};

/// The program that this process runs.
pub(crate) const OURSELVES: &str = "/proc/self/exe";
/// The word before what a host wants of other processes of its own program.
pub(crate) const HELPER: &str = "helper";

/// A process that was started, and what it writes.
pub(crate) struct Started {
    pub(crate) pid: i32,
    /// Its standard output and standard error; reading does not block.
    pub(crate) output: PipeReader,
}

/// Starts `program` in a session of its own, so that no signal meant for us reaches it, with this environment alone.
///
/// # Errors
/// What fork(2) or execve(2) said.
pub(crate) fn start(
    program: &OsStr,
    arguments: &[String],
    environment: &BTreeMap<String, OsString>,
) -> io::Result<Started> {
    let (output, writer) = io::pipe()?;
    nix::fcntl::fcntl(&output, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    // We block every signal, and a mask outlives execve(2): no container could be told to stop.
    let unblocked = SigSet::empty();
    // SAFETY: between fork and exec only prctl(2), setsid(2) and sigprocmask(2) are called, which are async-signal-safe
    // and allocate nothing.
    unsafe {
        command.pre_exec(move || {
            // Without us nobody would look after it; if we are PID 1, the kernel sees to that by itself.
            set_pdeathsig(Signal::SIGKILL)?;
            setsid()?;
            unblocked.thread_set_mask()?;
            Ok(())
        });
    }
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok(Started { pid, output })
}

/// Starts this very program again (`dind-init helper ARGUMENTS`), for work that may hang: the loop must not.
///
/// # Errors
/// What fork(2) or execve(2) said.
pub(crate) fn start_ourselves(
    arguments: &[String],
    environment: &BTreeMap<String, OsString>,
) -> io::Result<Started> {
    let arguments: Vec<String> = [HELPER.to_owned()].into_iter().chain(arguments.iter().cloned()).collect();
    start(OsStr::new(OURSELVES), &arguments, environment)
}

/// Sends a signal to one process. That it has ended meanwhile is no error.
pub(crate) fn send(pid: i32, signal: Signal) {
    let _ = signal::kill(Pid::from_raw(pid), signal);
}

/// A process, as `/proc/PID/stat` shows it (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pid: i32,
    parent: i32,
    name: String,
    is_zombie: bool,
}

fn all() -> Vec<Entry> {
    let Ok(folder) = fs::read_dir("/proc") else { return Vec::new() };
    folder
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        // The kernel cuts names at 15 bytes, in the middle of a character if it must.
        .filter_map(|entry| parse(&String::from_utf8_lossy(&fs::read(entry.path().join("stat")).ok()?)))
        .collect()
}

/// The name is in parentheses and may contain any character, parentheses too.
pub(crate) fn parse(stat: &str) -> Option<Entry> {
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let is_zombie = fields.next()? == "Z";
    Some(Entry {
        pid: pid.parse().ok()?,
        parent: fields.next()?.parse().ok()?,
        name: name.to_owned(),
        is_zombie,
    })
}

/// Every living process that descends from us. What `docker exec` brought in descends from whoever ran it, and is left
/// to the kernel, which ends it with us if we are PID 1.
pub(crate) fn descendants() -> Vec<i32> {
    below(&all(), &[ourselves()])
}

/// The processes of our containers: what descends from our shims, but for the runc that cleans up after them. Another
/// engine's shims may be in sight (`--pid=host`), and are not ours.
pub(crate) fn of_containers() -> Vec<i32> {
    let entries = all();
    let ours = below(&entries, &[ourselves()]);
    // A shim leaves its parent at once and becomes our child.
    let is_shim = |entry: &&Entry| entry.parent == ourselves() && entry.name.starts_with("containerd-shim");
    let shims: Vec<i32> = entries.iter().filter(is_shim).map(|entry| entry.pid).collect();
    let is_runc = |pid: &i32| {
        // A container may call itself so, but it has a pid namespace of its own.
        entries.iter().any(|entry| entry.pid == *pid && entry.name == "runc") && shares_namespace(*pid, "pid")
    };
    below(&entries, &shims).into_iter().filter(|pid| ours.contains(pid) && !is_runc(pid)).collect()
}

/// What sshd's processes are called: a connection has one of its own, which has another for what is not trusted. Before
/// OpenSSH 9.8 all are `sshd`, as the listener is.
const SSHD: [&str; 3] = ["sshd", "sshd-session", "sshd-auth"];

/// Connections that a listener of sshd has left behind when it ended: their processes are our children by then.
pub(crate) struct Connections {
    /// The processes of each on which somebody is logged in.
    pub(crate) sessions: Vec<Vec<i32>>,
    /// The processes of all others.
    pub(crate) others: Vec<i32>,
}

/// Finds those connections, while there is no listener.
pub(crate) fn connections() -> Connections {
    let mut entries = all();
    // What a user runs descends from a session, and is none.
    entries.retain(|entry| SSHD.contains(&entry.name.as_str()) && !entry.is_zombie);
    let mut found = Connections { sessions: Vec::new(), others: Vec::new() };
    // A container's own sshd may be our child, too, when its shim has died; it has a pid namespace of its own.
    let is_root = |entry: &&Entry| entry.parent == ourselves() && !is_in_container(entry.pid);
    for root in entries.iter().filter(is_root).map(|entry| entry.pid) {
        let mut family = below(&entries, &[root]);
        family.push(root);
        let title = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if family.iter().any(|pid| is_listener(&title(pid))) {
            // One that a user started. It is a stray, as whatever else is left behind.
            continue;
        }
        if family.iter().any(|pid| is_before_login(&title(pid))) {
            found.others.extend(family);
        } else {
            found.sessions.push(family);
        }
    }
    found
}

/// Whether a process of sshd says of itself that it listens.
fn is_listener(title: &[u8]) -> bool {
    String::from_utf8_lossy(title).contains("[listener]")
}

/// Whether a process of sshd says of itself that nobody has logged in on its connection yet: `sshd-session: [accepted]`, and
/// beside it `sshd-auth: derek [net]`. Later they are `sshd-session: derek [priv]`, and `sshd-session: derek@pts/0`, or without a
/// terminal's name where only ports are forwarded.
fn is_before_login(title: &[u8]) -> bool {
    let title = String::from_utf8_lossy(title);
    title.starts_with("sshd-auth") || title.contains("[accepted]") || title.contains("[net]")
}

/// What a host that was killed left running, where that did not end with it: shims (whose command line names `socket`, the
/// address of their containerd), and what descends from them. Every engine has its containerd at that address, so only a
/// shim that sees the same files is meant.
pub(crate) fn orphans(socket: &str) -> Vec<i32> {
    let entries = all();
    let is_orphan = |entry: &&Entry| {
        // Asked last: reading this waits for the process if that changes its memory.
        let words = || fs::read(format!("/proc/{}/cmdline", entry.pid)).unwrap_or_default();
        entry.name.starts_with("containerd-shim")
            && words().split(|byte| *byte == 0).any(|word| word == socket.as_bytes())
            && shares_namespace(entry.pid, "mnt")
    };
    let shims: Vec<i32> = entries.iter().filter(is_orphan).map(|entry| entry.pid).collect();
    let mut orphans = below(&entries, &shims);
    orphans.extend(shims);
    orphans
}

/// Whether our parent runs this very program.
pub(crate) fn is_child_of_ourselves() -> bool {
    let program = |process: &str| fs::read_link(format!("/proc/{process}/exe")).ok();
    let ours = program("self");
    ours.is_some() && program(&nix::unistd::getppid().to_string()) == ours
}

fn ourselves() -> i32 {
    i32::try_from(std::process::id()).unwrap_or_default()
}

/// Whether a process is in our namespace of this kind (namespaces(7)).
fn shares_namespace(pid: i32, kind: &str) -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).ok();
    namespace(&pid.to_string()).is_some_and(|theirs| Some(theirs) == namespace("self"))
}

/// Whether a process is in a pid namespace below ours. Unlike the link to its namespace this can be read of a process that keeps
/// others from tracing it, as sshd's do.
fn is_in_container(pid: i32) -> bool {
    let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    depth(&String::from_utf8_lossy(&status)) > 1
}

/// In how many pid namespaces, from ours down, a process has a number (proc_pid_status(5)).
fn depth(status: &str) -> usize {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.map_or(1, |numbers| numbers.split_whitespace().count())
}

/// The living among `entries` that descend from one of `roots`.
fn below(entries: &[Entry], roots: &[i32]) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        children.entry(entry.parent).or_default().push(entry);
    }
    let mut found = Vec::new();
    let mut parents = roots.to_vec();
    // Each list of children is taken once, so that a table that was read while it changed cannot lead in circles.
    while let Some(parent) = parents.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            parents.push(child.pid);
            if !child.is_zombie && !roots.contains(&child.pid) {
                found.push(child.pid);
            }
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_contain_anything() {
        let entry = parse("7 (a) Z b)) S 3 7 7 0 -1 4194304").unwrap();
        assert_eq!(entry, Entry { pid: 7, parent: 3, name: "a) Z b)".into(), is_zombie: false });
        assert_eq!(parse("7 (x"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn descendants_are_found_over_generations() {
        let entry = |pid, parent, is_zombie| Entry { pid, parent, name: String::new(), is_zombie };
        let entries = [
            entry(1, 0, false),
            entry(5, 1, false),
            entry(6, 5, true),
            entry(7, 6, false),
            entry(9, 0, false),
        ];
        assert_eq!(below(&entries, &[1]), [5, 7]);
        assert_eq!(below(&entries, &[9]), [0; 0]);
    }

    #[test]
    fn a_container_has_numbers_of_its_own() {
        assert_eq!(depth("Name:\tsshd\nNSpid:\t41\nNSpgid:\t41\t7\n"), 1);
        assert_eq!(depth("Name:\tsshd\nNSpid:\t41\t7\n"), 2);
        assert_eq!(depth(""), 1);
        assert!(!is_in_container(ourselves()));
    }

    #[test]
    fn who_is_logged_in_is_told_by_the_title() {
        for (title, expected) in [
            ("sshd-session: derek@pts/0\0\0", false),
            ("sshd-session: derek", false),
            ("sshd-session: derek [priv]", false),
            ("sshd-session: [accepted]", true),
            ("sshd-auth: derek [net]", true),
            ("sshd: unknown [net]", true),
        ] {
            assert_eq!(is_before_login(title.as_bytes()), expected, "{title}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        assert!(start(OsStr::new("/nowhere/x"), &[], &BTreeMap::new()).is_err());
    }
}
