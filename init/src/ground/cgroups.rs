//! Control groups, made so that nested containers can have theirs.
//!
//! In a container they arrive read-only. On v1 it is enough to make each hierarchy writable. On v2 a group that has
//! processes may not hand controllers to its children (cgroups(7), "no internal processes"), so the root's processes
//! move to a leaf, and then every controller is delegated.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::decision::Decision;
use super::mounts::{self, Mount};
use crate::failure::Failure;

const ROOT: &str = "/sys/fs/cgroup";
/// The leaf in which the host's own processes live on v2.
const LEAF: &str = "dind";
/// Rounds of moving processes and enabling controllers: `docker exec` may bring a new process at any moment.
const ROUNDS: usize = 20;

/// Makes the groups writable and nestable, and says what was done.
///
/// # Errors
/// They cannot be made writable: no container could be started.
pub(super) fn prepare() -> Result<Decision, Failure> {
    let mut groups: Vec<Mount> = cgroup_mounts();
    if groups.is_empty() {
        mount(Some("cgroup2"), ROOT, Some("cgroup2"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, None::<&str>)
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

/// What is there, for who asks before a host runs. Nothing is changed.
pub(super) fn look() -> Decision {
    let groups = cgroup_mounts();
    Decision::good("cgroups", found(&groups), "made writable and nestable when a host starts")
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
    let mut moved = 0;
    let mut trouble = io::Error::from(io::ErrorKind::ResourceBusy);
    for _ in 0..ROUNDS {
        if evacuate {
            moved += evacuate_into(root, &leaf)?;
        }
        match enable(&root.join("cgroup.subtree_control"), &wanted) {
            Ok(off) if off.is_empty() => {
                let count = wanted.len();
                return Ok(format!("{moved} processes moved to /{LEAF}, {count} controllers delegated"));
            }
            Ok(off) => return Err(io::Error::other(format!("the kernel did not take {}", off.join(" ")))),
            Err(e) => trouble = e,
        }
    }
    let lingering =
        fs::read_to_string(root.join("cgroup.procs"))?.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(io::Error::other(format!("{trouble}; processes that stay: {lingering}")))
}

/// Enables the controllers one by one, since one that is refused takes all of its order with it, and reads back what has
/// come of it: the names of those that are off.
///
/// # Errors
/// `EBUSY`: there are processes in the group.
fn enable<'a>(control: &Path, wanted: &[&'a str]) -> io::Result<Vec<&'a str>> {
    for name in wanted {
        match fs::write(control, format!("+{name}")) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => return Err(e),
            _ => {}
        }
    }
    let enabled = fs::read_to_string(control).unwrap_or_default();
    Ok(wanted.iter().filter(|name| !enabled.split_whitespace().any(|on| on == **name)).copied().collect())
}

fn evacuate_into(root: &Path, leaf: &Path) -> io::Result<usize> {
    let mut moved = 0;
    for process in fs::read_to_string(root.join("cgroup.procs"))?.split_whitespace() {
        match fs::write(leaf.join("cgroup.procs"), process) {
            Ok(()) => moved += 1,
            // It ended meanwhile, or belongs to another pid namespace and is shown as 0.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(moved)
}
