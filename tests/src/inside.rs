//! What runs and what listens inside a host, read from its /proc.

use std::collections::BTreeMap;

use crate::host::Host;

/// A process inside a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its pid inside the host.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Its state: `Z` is a zombie.
    pub state: char,
    /// Its parent; 0 is outside the host.
    pub parent: u32,
}

impl Process {
    /// Reads a line of /proc/PID/stat: see proc_pid_stat(5). The name may have spaces and parentheses in it.
    fn parse(line: &str) -> Option<Self> {
        let (pid, rest) = line.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut words = rest.split(' ');
        let state = words.next()?.chars().next()?;
        let parent = words.next()?.parse().ok()?;
        Some(Self { pid: pid.parse().ok()?, name: name.into(), state, parent })
    }
}

impl Host {
    /// Every process inside the host, but for those that this `docker exec` itself brought.
    #[track_caller]
    pub fn processes(&self) -> Vec<Process> {
        let stat = self.shell("cat /proc/[0-9]*/stat 2>/dev/null; true").ok();
        let all: BTreeMap<u32, Process> =
            stat.lines().filter_map(Process::parse).map(|process| (process.pid, process)).collect();
        let belongs = |process: &&Process| {
            let mut at = *process;
            while let Some(parent) = all.get(&at.parent) {
                at = parent;
            }
            at.pid == 1
        };
        all.values().filter(belongs).cloned().collect()
    }

    /// The names of the processes inside the host, sorted, those of zombies with a `(Z)`.
    #[track_caller]
    pub fn process_names(&self) -> Vec<String> {
        let name = |process: Process| match process.state {
            'Z' => format!("{} (Z)", process.name),
            _ => process.name,
        };
        let mut names: Vec<String> = self.processes().into_iter().map(name).collect();
        names.sort();
        names
    }

    /// The ports on which something in the host's network namespace listens, over IPv4 or IPv6, sorted.
    #[track_caller]
    pub fn listening_ports(&self) -> Vec<u16> {
        const LISTEN: &str = "0A";
        let table = self.shell("cat /proc/net/tcp /proc/net/tcp6").ok();
        let mut ports: Vec<u16> = Vec::new();
        for line in table.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [_, local, _, LISTEN, ..] = words.as_slice()
                && let Some((_, port)) = local.rsplit_once(':')
            {
                ports.push(u16::from_str_radix(port, 16).expect("/proc/net/tcp gives ports in hexadecimal"));
            }
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}
