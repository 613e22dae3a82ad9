//! Which process made a host, in words by which any later process of this machine knows whether it still lives.

use std::fs;

/// The words for this process: `BOOT-ID/PID/START`.
pub(crate) fn this_process() -> String {
    let pid = std::process::id();
    format!("{}/{pid}/{}", boot(), start_of(pid).unwrap_or_default())
}

/// What is known of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It runs.
    Lives,
    /// It has ended, and can remove nothing any more.
    Ended,
    /// It is, or was, on another machine, or before this boot in a place that we cannot see into.
    Elsewhere,
}

/// Whether the process with these words still lives.
pub(crate) fn of(words: &str) -> Owner {
    let mut parts = words.split('/');
    let (Some(boot_id), Some(pid), Some(start)) = (parts.next(), parts.next(), parts.next()) else {
        return Owner::Elsewhere;
    };
    if boot_id != boot() {
        return Owner::Elsewhere;
    }
    let lives = pid.parse().ok().and_then(start_of).is_some_and(|started| started.to_string() == start);
    if lives { Owner::Lives } else { Owner::Ended }
}

/// The boot and the pid namespace: a pid means nothing without them.
fn boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace =
        fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default();
    let number: String = namespace.chars().filter(char::is_ascii_digit).collect();
    format!("{}-{number}", boot.trim())
}

/// When a process started, in ticks since the boot: the 22nd field of `/proc/PID/stat` (proc_pid_stat(5)), counted behind the name,
/// which may have spaces and parentheses in it.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_living_from_the_dead() {
        let ours = this_process();
        assert_eq!(of(&ours), Owner::Lives);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let words = format!("{}/{}/{}", boot(), child.id(), start_of(child.id()).unwrap_or_default());
        child.wait().unwrap();
        assert_eq!(of(&words), Owner::Ended);
        // The pid is taken again, by another process.
        let (front, _) = ours.rsplit_once('/').unwrap();
        assert_eq!(of(&format!("{front}/1")), Owner::Ended);
        assert_eq!(of("other-boot/1/1"), Owner::Elsewhere);
        assert_eq!(of(""), Owner::Elsewhere);
    }
}
