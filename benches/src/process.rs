//! What /proc tells of a process in a container, seen from the machine.

use std::path::PathBuf;
use std::{fs, io};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::results::Footprint;

/// A process, by the pid that the machine knows it by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) i32);

impl Process {
    /// A file of this process, below /proc/PID.
    pub(crate) fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    fn read(self, name: &str) -> Result<String> {
        let file = self.file(name);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// The name that the kernel gave it at its last exec; empty when it is gone.
    pub(crate) fn name(self) -> String {
        fs::read_to_string(self.file("comm")).map(|name| name.trim_end().to_owned()).unwrap_or_default()
    }

    /// Whether it is PID 1 of its innermost pid namespace.
    pub(crate) fn is_first(self) -> bool {
        fs::read_to_string(self.file("status")).is_ok_and(|status| last_word(&status, "NSpid:") == Some("1"))
    }

    /// Whether it has ended. PID 1 of a pid namespace is a zombie only once everything in the namespace has ended,
    /// see pid_namespaces(7).
    pub(crate) fn has_ended(self) -> bool {
        match fs::read_to_string(self.file("stat")) {
            Ok(stat) => matches!(state(&stat), None | Some('Z' | 'X')),
            // ESRCH: it went while it was read.
            Err(error) => {
                error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
            }
        }
    }

    /// Asks it to stop.
    pub(crate) fn terminate(self) -> Result<()> {
        kill(Pid::from_raw(self.0), Signal::SIGTERM)
            .with_context(|| format!("cannot signal process {}", self.0))
    }

    /// What it needs now, with the context switches since it began.
    pub(crate) fn footprint(self) -> Result<Footprint> {
        let rollup = self.read("smaps_rollup")?;
        let kib = |key: &str| {
            number(&rollup, key).with_context(|| format!("/proc/{}/smaps_rollup says no {key}", self.0))
        };
        let dirty = kib("Private_Dirty:")?;
        Ok(Footprint {
            private_dirty_kib: dirty,
            private_kib: dirty + kib("Private_Clean:")?,
            wakes: self.switches()?,
        })
    }

    /// The context switches, voluntary or not, of all its threads since they began.
    pub(crate) fn switches(self) -> Result<u64> {
        let tasks = self.file("task");
        let mut sum = 0;
        for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {}", tasks.display()))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            for key in ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"] {
                sum += number(&status, key).with_context(|| format!("{} says no {key}", tasks.display()))?;
            }
        }
        Ok(sum)
    }
}

/// The first word after `key` at the start of a line, as a number.
fn number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

fn last_word<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next_back()
}

/// The state in /proc/PID/stat: it follows the name, which may have spaces and brackets in it.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\tsh\nNSpid:\t4711\t1\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";

    #[test]
    fn numbers_are_found_by_the_start_of_their_line() {
        assert_eq!(number(STATUS, "voluntary_ctxt_switches:"), Some(12));
        assert_eq!(number(STATUS, "nonvoluntary_ctxt_switches:"), Some(3));
        assert_eq!(number("Private_Dirty:       296 kB\n", "Private_Dirty:"), Some(296));
        assert_eq!(number(STATUS, "Rss:"), None);
        assert_eq!(number(STATUS, "Name:"), None);
    }

    #[test]
    fn the_innermost_pid_is_the_last() {
        assert_eq!(last_word(STATUS, "NSpid:"), Some("1"));
        assert_eq!(last_word(STATUS, "Tgid:"), None);
    }

    #[test]
    fn the_state_follows_the_name() {
        assert_eq!(state("12 (sh) S 1 12"), Some('S'));
        assert_eq!(state("12 (a) Z (b) R 1 12"), Some('R'));
        assert_eq!(state("12 (sh"), None);
    }

    #[test]
    fn this_process_runs_and_is_measured() {
        let me = Process(std::process::id().try_into().unwrap());
        assert!(!me.has_ended());
        assert!(me.footprint().unwrap().private_kib > 0);
        assert!(Process(i32::MAX).has_ended());
    }
}
