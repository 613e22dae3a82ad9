//! Both kinds of iptables, tried with the rules that dockerd makes, in network namespaces of their own.
#![allow(clippy::disallowed_methods, reason = "a child of PID 1: it may have threads")]

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use super::super::program;
use super::{Kind, Probed, Tried, named};

/// The longest that one call may take. (The `-w` of the calls, as dockerd has it, waits for a lock.)
const PATIENCE: Duration = Duration::from_secs(5);
/// Where programs are looked for, as dockerd will.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Rules as dockerd makes them, by table, for both versions of IP.
const BASIC: [(&str, &str); 2] = [
    ("nat", "-A POSTROUTING -m addrtype --dst-type LOCAL ! -o dind0 -j MASQUERADE"),
    ("filter", "-A FORWARD -o dind0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
];
/// More, for version 4.
const REDIRECT: (&str, &str) =
    ("nat", "-A PREROUTING -p tcp --dport 80 ! -i dind0 -j DNAT --to-destination 192.0.2.1:80");
const RAW: (&str, &str) = ("raw", "-A PREROUTING -d 192.0.2.1 ! -i dind0 -j DROP");
const MANGLE: (&str, &str) = ("mangle", "-A OUTPUT -p udp --dport 4789 -j MARK --set-mark 1");

/// Tries what is in the image.
pub(crate) fn probe() -> Probed {
    let standard = find("iptables").and_then(|program| kind_of(&program));
    let kinds: Vec<(Kind, Programs)> = [Kind::Nft, Kind::Legacy]
        .into_iter()
        .filter_map(|kind| Some((kind, Programs::find(kind, standard)?)))
        .collect();
    // The namespace is the thread's, and that of the threads that it starts; this thread stays in the host's own.
    let (tried, untried) = thread::scope(|scope| {
        let trial = scope.spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
            // At the same time, so that both are as fast as the machine's other work lets them be.
            Ok(()) => (each(&kinds, try_kind), None),
            Err(e) => (each(&kinds, untried), Some(format!("no network namespace can be made: {e}"))),
        });
        let rules = each(&kinds, |kind, programs| rules_here(kind, &programs.save));
        let (mut tried, untried) = trial.join().unwrap_or_default();
        tried.iter_mut().zip(rules).for_each(|(tried, rules)| tried.rules = rules);
        (tried, untried)
    });
    Probed { tried, standard, untried, has_ipv6: Path::new("/proc/net/if_inet6").exists() }
}

/// What `work` finds about each kind, in a thread for each.
fn each<T: Send>(kinds: &[(Kind, Programs)], work: impl Fn(Kind, &Programs) -> T + Copy + Send) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> =
            kinds.iter().map(|(kind, programs)| scope.spawn(move || work(*kind, programs))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

/// What dockerd would call.
struct Programs {
    v4: PathBuf,
    v6: Option<PathBuf>,
    save: PathBuf,
}

impl Programs {
    /// Those of `kind`: of the standard kind under their own names, because those are what dockerd calls then.
    fn find(kind: Kind, standard: Option<Kind>) -> Option<Self> {
        let is_standard = standard == Some(kind);
        let place = |program: &str| match is_standard {
            true => find(program),
            false => find(&named(program, kind)),
        };
        let v4 = place("iptables")?;
        let save = place("iptables-save").unwrap_or_else(|| v4.with_file_name("iptables-save"));
        Some(Self { v6: place("ip6tables"), save, v4 })
    }
}

fn find(program: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(program)).find(|file| file.exists())
}

/// Which kind a program is: by what it is a link to, else by what it says.
fn kind_of(program: &Path) -> Option<Kind> {
    let real = program.canonicalize().ok()?;
    let same = |kind| {
        find(&named("iptables", kind)).and_then(|other| other.canonicalize().ok()) == Some(real.clone())
    };
    if let Some(kind) = [Kind::Nft, Kind::Legacy].into_iter().find(|kind| same(*kind)) {
        return Some(kind);
    }
    // "iptables v1.8.11 (nf_tables)"; versions before 1.8 name no kind and have only the one.
    let version = program::run(program, ["--version"], "", PATIENCE).ok()?;
    Some(if version.contains("nf_tables") { Kind::Nft } else { Kind::Legacy })
}

fn untried(kind: Kind, programs: &Programs) -> Tried {
    Tried {
        kind,
        folder: programs.v4.parent().unwrap_or(Path::new("/usr/sbin")).to_owned(),
        basic: None,
        ipv6: None,
        raw: None,
        mangle: None,
        us: 0,
        rules: 0,
    }
}

/// Tries one kind. Whatever it makes goes with this thread's network namespace.
fn try_kind(kind: Kind, programs: &Programs) -> Tried {
    let mut tried = untried(kind, programs);
    let [first, second] = BASIC;
    // All in one call: it is the same program by another name, and each call costs a few milliseconds at every start.
    let began = Instant::now();
    let all = restore(&programs.v4, &[first, second, REDIRECT, RAW, MANGLE]);
    tried.us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    if all.is_err() {
        // Now by the very calls that dockerd makes, to know what it is.
        let call = |rule: (&str, &str)| add(&programs.v4, rule).err();
        tried.basic = [first, second, REDIRECT].into_iter().find_map(call);
        tried.raw = call(RAW);
        tried.mangle = call(MANGLE);
    }
    if tried.basic.is_none() {
        tried.ipv6 = match &programs.v6 {
            Some(program) => restore(program, &BASIC)
                .err()
                .and_then(|_| BASIC.into_iter().find_map(|rule| add(program, rule).err())),
            None => Some("ip6tables is not in this image".to_owned()),
        };
    }
    tried
}

/// Adds one rule, with the call that dockerd makes.
fn add(program: &Path, (table, rule): (&str, &str)) -> Result<String, String> {
    program::run(program, ["-w", "-t", table].into_iter().chain(rule.split(' ')), "", PATIENCE)
}

/// Adds rules with one call of the program's `-restore`.
fn restore(program: &Path, rules: &[(&str, &str)]) -> Result<String, String> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let text: String = rules.iter().map(|(table, rule)| format!("*{table}\n{rule}\nCOMMIT\n")).collect();
    program::run(program.with_file_name(format!("{name}-restore")), ["-w", "--noflush"], &text, PATIENCE)
}

/// How many rules of this kind the host's own namespace has.
fn rules_here(kind: Kind, save: &Path) -> usize {
    if kind == Kind::Legacy {
        // To look at a table of this kind is to make it; only tables that are there can have rules.
        let tables = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
        if tables.trim().is_empty() {
            return 0;
        }
    }
    count(&program::run(save, [""; 0], "", PATIENCE).unwrap_or_default())
}

/// Rules, and policies that let nothing pass, in what iptables-save(8) prints. The rules by which an outer engine brings
/// its name server to 127.0.0.11 are of the kind that engine uses, and say nothing about this host: they redirect packets
/// to that one address and drop none, and the kernel lets both kinds redirect (since Linux 4.18), so that they work beside
/// rules of either. Two of those are in chains of their own, the others lead there.
pub(super) fn count(saved: &str) -> usize {
    saved
        .lines()
        .filter(|line| match line.strip_prefix("-A ") {
            Some(rule) => !rule.contains("DOCKER_OUTPUT") && !rule.contains("DOCKER_POSTROUTING"),
            None => line.starts_with(':') && line.contains(" DROP "),
        })
        .count()
}
