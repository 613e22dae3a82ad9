//! Control groups, made so that nested containers can have theirs.
//!
//! In a container they arrive read-only. On v1 it is enough to make each hierarchy writable. On v2 a group that has
//! processes may not hand controllers to its children (cgroups(7), "no internal processes"), so the root's processes
//! move to a leaf, and then every controller is delegated.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::poll::{PollTimeout, poll};

use super::decision::Decision;
use super::mounts::{self, Mount};
use crate::failure::Failure;
use crate::settings::Settings;
use crate::signals;

const ROOT: &str = "/sys/fs/cgroup";
/// The leaf in which the host's own processes live on v2.
const LEAF: &str = "dind";
/// For how long processes are moved and controllers enabled, again and again: `docker exec` may bring a new process at any
/// moment, which is not ours yet: it may belong to the pid namespace outside, and cannot be moved then, or still have more
/// capabilities than we have, and then cpuset is refused (it asks capabilities(7) as if we changed that one's affinity).
/// Containers that start before it has worked have no limits, and a round may take seconds on a machine under load. (What is
/// off then, runc asks for again with each container.)
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two rounds, in milliseconds.
const PAUSE: u8 = 10;

/// Makes the groups writable and nestable, and says what was done.
///
/// # Errors
/// They cannot be made writable: no container could be started.
pub(super) fn prepare(settings: &Settings) -> Result<Decision, Failure> {
    if settings.keep_cgroups {
        return Ok(look(settings));
    }
    let mut groups: Vec<Mount> = cgroup_mounts();
    if groups.is_empty() {
        // As PID 1 of a machine. With nsdelegate no container can lift its own limits (cgroups(7)).
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("cgroup2"), ROOT, Some("cgroup2"), flags, Some("nsdelegate"))
            .map_err(|e| unavailable(&format!("no control groups are mounted, and {ROOT} cannot be: {e}")))?;
        groups = cgroup_mounts();
    }
    let read_only: Vec<&Mount> =
        groups.iter().filter(|group| group.flags.contains(MsFlags::MS_RDONLY)).collect();
    for group in &read_only {
        mounts::make_writable(group).map_err(|e| {
            unavailable(&format!(
                "the control group {} is read-only and cannot be made writable: {e}",
                group.place.display()
            ))
        })?;
    }
    let is_v2 = groups.iter().any(|group| group.kind == "cgroup2" && group.place == Path::new(ROOT));
    let found = found(&groups);
    let made = match read_only.len() {
        0 => "already writable".to_owned(),
        count => format!("{count} mounts made writable"),
    };
    if !is_v2 {
        return Ok(Decision::good("cgroups", found, format!("v1, {made}")));
    }
    Ok(match delegate(Path::new(ROOT)) {
        Ok(delegated) => Decision::good("cgroups", found, format!("v2, {made}, {delegated}")),
        Err(e) => Decision::good("cgroups", found, format!("v2, {made}, without all controllers"))
            .because(e.to_string())
            .but_better(
                "a machine whose v2 hierarchy has every controller: limits of nested containers may not hold",
            ),
    })
}

/// What is there, and what a host does about it when it starts. Nothing is changed.
pub(super) fn look(settings: &Settings) -> Decision {
    let found = found(&cgroup_mounts());
    if settings.keep_cgroups {
        Decision::good("cgroups", found, "left as they are").because("DIND_CGROUPS is keep")
    } else {
        Decision::good("cgroups", found, "made writable and nestable when a host starts")
    }
}

fn found(groups: &[Mount]) -> String {
    let of = |kind: &str| groups.iter().filter(|group| group.kind == kind).count();
    let read_only = groups.iter().filter(|group| group.flags.contains(MsFlags::MS_RDONLY)).count();
    let version = match (of("cgroup"), of("cgroup2")) {
        (0, 0) => return "none are mounted".to_owned(),
        (0, _) => "v2",
        (_, 0) => "v1",
        _ => "hybrid: v1, and v2 beside it",
    };
    format!("{version}, {} mounts, {read_only} of them read-only", groups.len())
}

fn cgroup_mounts() -> Vec<Mount> {
    mounts::all()
        .into_iter()
        .filter(|mounted| {
            mounted.place.starts_with(ROOT) && ["cgroup", "cgroup2"].contains(&mounted.kind.as_str())
        })
        .collect()
}

fn unavailable(cause: &str) -> Failure {
    Failure::unavailable(cause, "start the host with --cap-add SYS_ADMIN, or --privileged")
}

/// Moves the processes of `root` into a leaf and hands every controller to its children.
fn delegate(root: &Path) -> io::Result<String> {
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
    let wanted: Vec<&str> = controllers.split_whitespace().collect();
    // The machine's own root group has no type, and may keep its processes.
    let evacuate = root.join("cgroup.type").exists();
    let leaf = root.join(LEAF);
    if evacuate {
        fs::create_dir_all(&leaf)?;
    }
    let deadline = Instant::now() + PATIENCE;
    let mut moved = 0;
    loop {
        let mut unmoved = None;
        if evacuate {
            for process in processes(&fs::read_to_string(root.join("cgroup.procs"))?) {
                match fs::write(leaf.join("cgroup.procs"), process) {
                    Ok(()) => moved += 1,
                    Err(e) => unmoved = Some(e),
                }
            }
        }
        let enabled = enable(&root.join("cgroup.subtree_control"), &wanted)?;
        if enabled.may_pass() && Instant::now() < deadline && !signals::stop_is_pending() {
            let _ = poll(&mut [], PollTimeout::from(PAUSE));
            continue;
        }
        return match enabled {
            Enabled::All if evacuate => {
                Ok(format!("{moved} processes moved to /{LEAF}, {} controllers delegated", wanted.len()))
            }
            Enabled::All => Ok(format!("{} controllers delegated", wanted.len())),
            Enabled::Without { off, .. } => Err(io::Error::other(format!("the kernel did not take {off}"))),
            Enabled::Busy => {
                let staying = lingering(&fs::read_to_string(root.join("cgroup.procs"))?, name);
                let why = unmoved.map_or_else(String::new, |e| format!(" ({e})"));
                Err(io::Error::other(format!("after {PATIENCE:?}, processes that stay: {staying}{why}")))
            }
        };
    }
}

/// What has come of enabling controllers.
#[derive(Debug, PartialEq, Eq)]
enum Enabled {
    All,
    /// All but those that are off, with what the kernel said; `passing` if that may be because of a process on its way.
    Without {
        off: String,
        passing: bool,
    },
    /// There are processes in the group.
    Busy,
}

impl Enabled {
    fn may_pass(&self) -> bool {
        matches!(self, Self::Busy | Self::Without { passing: true, .. })
    }
}

/// Enables the controllers one by one, since one that is refused takes all of its order with it, and reads back what has
/// come of it.
fn enable(control: &Path, wanted: &[&str]) -> io::Result<Enabled> {
    let mut refused = Vec::new();
    for name in wanted {
        match fs::write(control, format!("+{name}")) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => return Ok(Enabled::Busy),
            Err(e) => refused.push((*name, e)),
        }
    }
    Ok(without(&fs::read_to_string(control)?, wanted, &refused))
}

fn without(enabled: &str, wanted: &[&str], refused: &[(&str, io::Error)]) -> Enabled {
    let off: Vec<String> = wanted
        .iter()
        .filter(|name| !enabled.split_whitespace().any(|on| on == **name))
        .map(|name| match refused.iter().find(|(other, _)| other == name) {
            Some((_, e)) => format!("{name} ({e})"),
            None => (*name).to_owned(),
        })
        .collect();
    let passing = refused.iter().any(|(_, e)| e.kind() == io::ErrorKind::PermissionDenied);
    if off.is_empty() { Enabled::All } else { Enabled::Without { off: off.join(", "), passing } }
}

/// The processes in a group that can be moved. One of another pid namespace is shown as 0, by which the kernel would
/// understand the process that writes it.
fn processes(group: &str) -> impl Iterator<Item = &str> {
    group.split_whitespace().filter(|process| *process != "0")
}

/// What to call the processes in a group.
fn lingering(group: &str, name: impl Fn(&str) -> Option<String>) -> String {
    let known = processes(group).map(|process| match name(process) {
        Some(name) => format!("{process} ({name})"),
        None => process.to_owned(),
    });
    let strangers = group.split_whitespace().filter(|process| *process == "0").count();
    known
        .chain((strangers > 0).then(|| format!("{strangers} of another pid namespace")))
        .collect::<Vec<_>>()
        .join(", ")
}

fn name(process: &str) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_named() {
        let name = |process: &str| (process == "17").then(|| "sleep".to_owned());
        for (group, said) in [
            ("", ""),
            ("17\n", "17 (sleep)"),
            ("0\n17\n0\n18\n", "17 (sleep), 18, 2 of another pid namespace"),
            ("0\n", "1 of another pid namespace"),
        ] {
            assert_eq!(lingering(group, name), said, "{group:?}");
        }
        assert!(super::name(&std::process::id().to_string()).is_some());
    }

    #[test]
    fn the_writer_is_not_taken_for_a_stranger() {
        assert_eq!(processes("0\n1\n10\n0\n").collect::<Vec<_>>(), ["1", "10"]);
    }

    #[test]
    fn controllers_are_read_back() {
        let wanted = ["cpu", "io", "memory"];
        assert_eq!(without("cpu io memory\n", &wanted, &[]), Enabled::All);
        assert_eq!(without("\n", &[], &[]), Enabled::All);
        let refusals = [
            (libc::EINVAL, "io (Invalid argument (os error 22)), memory", false),
            (libc::EPERM, "io (Operation not permitted (os error 1)), memory", true),
        ];
        for (code, said, passing) in refusals {
            let enabled = without("cpu\n", &wanted, &[("io", io::Error::from_raw_os_error(code))]);
            assert_eq!(enabled.may_pass(), passing);
            assert_eq!(enabled, Enabled::Without { off: said.to_owned(), passing });
        }
        assert!(Enabled::Busy.may_pass() && !Enabled::All.may_pass());
    }
}
