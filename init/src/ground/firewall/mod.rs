//! Which kind of iptables dockerd uses. The kernel has two firewalls, and a program for each: rules of one kind are not seen
//! by the other, and a packet must pass both.

mod probe;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use dind_contract::{paths, variables};
use serde::{Deserialize, Serialize};

use super::decision::Decision;
use crate::failure::Failure;
use crate::options::DaemonOptions;

pub(crate) use probe::probe;

/// The programs of one kind, by the names under which dockerd and users look for them.
const NAMES: [&str; 6] =
    ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];

/// Where links to the chosen kind are, if the image's own lead to the other.
fn folder() -> PathBuf {
    Path::new(paths::RUNTIME).join("firewall")
}

/// A kind of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Rules in nftables.
    Nft,
    /// Rules in the older tables.
    Legacy,
}

impl Kind {
    /// Its name, as in `iptables-NAME`.
    const fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }
}

/// What a user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// What works here.
    Auto,
    /// This kind and no other.
    Only(Kind),
    /// No rules.
    Off,
}

impl Wish {
    /// Reads `DIND_FIREWALL`.
    ///
    /// # Errors
    /// It is none of its words, or contradicts dockerd's options.
    pub(crate) fn parse<'a>(
        get: impl Fn(&str) -> Option<&'a str>,
        daemon: &DaemonOptions,
    ) -> Result<Self, Failure> {
        let name = variables::DIND_FIREWALL;
        let Some(word) = get(name) else { return Ok(Self::Auto) };
        let wish = match word {
            "auto" => Self::Auto,
            "nft" => Self::Only(Kind::Nft),
            "legacy" => Self::Only(Kind::Legacy),
            "off" => Self::Off,
            other => {
                return Err(Failure::usage(
                    format!("{name}={other} is not auto, nft, legacy or off"),
                    format!("set {name} to one of them, or leave it out for auto"),
                ));
            }
        };
        let contradicted = match wish {
            Self::Auto => None,
            Self::Only(_) => Some(false),
            Self::Off => Some(true),
        };
        if contradicted.is_some() && daemon.switch("iptables") == contradicted {
            return Err(Failure::usage(
                format!("{name}={word} contradicts what dockerd's options say about iptables"),
                "leave one of them out",
            ));
        }
        Ok(wish)
    }

    /// Whether the probe is of any use.
    pub(crate) fn needs_probe(self, daemon: &DaemonOptions) -> bool {
        self != Self::Off && daemon.switch("iptables") != Some(false)
    }
}

/// What there is to make rules with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probed {
    /// The kinds whose program is in the image.
    pub(crate) tried: Vec<Tried>,
    /// The kind that `iptables` stands for in the image.
    pub(crate) standard: Option<Kind>,
    /// Why nothing could be tried: there was no network namespace to try it in.
    pub(crate) untried: Option<String>,
    /// Whether the kernel speaks IPv6.
    pub(crate) has_ipv6: bool,
}

/// How one kind did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tried {
    /// Which.
    pub(crate) kind: Kind,
    /// The folder of its programs.
    pub(crate) folder: PathBuf,
    /// What failed of the rules without which no network works.
    pub(crate) basic: Option<String>,
    /// What failed of the same for IPv6.
    pub(crate) ipv6: Option<String>,
    /// What failed of the `raw` table.
    pub(crate) raw: Option<String>,
    /// What failed of the `mangle` table.
    pub(crate) mangle: Option<String>,
    /// How long the trial took, in microseconds: both kinds at the same time, with the same rules.
    pub(crate) us: u64,
    /// How many rules of this kind this network namespace has already.
    pub(crate) rules: usize,
}

impl Tried {
    fn works(&self) -> bool {
        self.basic.is_none()
    }

    fn lacks(&self) -> usize {
        [&self.ipv6, &self.raw, &self.mangle].into_iter().flatten().count()
    }

    /// As `doctor` shows it.
    fn words(&self) -> String {
        let name = self.kind.name();
        let rules = match self.rules {
            0 => String::new(),
            1 => ", 1 rule of its kind here already".to_owned(),
            many => format!(", {many} rules of its kind here already"),
        };
        match &self.basic {
            Some(why) => format!("{name} does not work ({why}){rules}"),
            None => format!("{name} works ({:.1} ms for the trial){rules}", micros(self.us) / 1000.0),
        }
    }
}

fn micros(us: u64) -> f64 {
    u32::try_from(us).unwrap_or(u32::MAX).into()
}

/// Decides on the kind. `path` is where dockerd looks for programs.
pub(super) fn decide(wish: Wish, daemon: &DaemonOptions, probed: Option<&Probed>, path: &OsStr) -> Decision {
    if daemon.switch("iptables") == Some(false) {
        let off = Decision::good("firewall", "not looked at", "none").because("dockerd's options say so");
        return without_ipv6(off, daemon);
    }
    let Some(probed) = probed.filter(|_| wish != Wish::Off) else {
        let off = Decision::good("firewall", "not looked at", "none").because("DIND_FIREWALL is off");
        return without_ipv6(off.with_arguments(["--iptables=false"]), daemon);
    };
    let found = match &probed.untried {
        Some(why) => format!("nothing could be tried: {why}"),
        None if probed.tried.is_empty() => "iptables is not in this image".to_owned(),
        None => probed.tried.iter().map(Tried::words).collect::<Vec<_>>().join("; "),
    };
    match choose(wish, probed) {
        Some((tried, why)) => with_kind(tried, why, found, daemon, probed, path),
        None => match wish {
            Wish::Only(kind) => Decision::good("firewall", found, "no rules can be made")
                .because(format!("DIND_FIREWALL is {}, and that does not work here", kind.name()))
                .missing("leave DIND_FIREWALL out to have what works, or set it to off"),
            _ => {
                let off = Decision::good("firewall", found, "none: dockerd makes no rules")
                    .because(
                        "no kind of iptables works here; containers reach only this host and each other, and a \
                         published port is passed on by docker-proxy, so that every client seems to be the bridge",
                    )
                    .but_better("give the machine's kernel nf_tables, or ip_tables with nat and filter")
                    .with_arguments(["--iptables=false"]);
                without_ipv6(off, daemon)
            }
        },
    }
}

/// The kind to use, and why; none if none of those wanted works.
fn choose(wish: Wish, probed: &Probed) -> Option<(&Tried, String)> {
    let tried = &probed.tried;
    let standard = tried.iter().find(|tried| Some(tried.kind) == probed.standard);
    if let Wish::Only(kind) = wish {
        let wanted = tried.iter().find(|tried| tried.kind == kind);
        let wanted = wanted.filter(|tried| tried.works() || probed.untried.is_some())?;
        return Some((wanted, format!("DIND_FIREWALL is {}", kind.name())));
    }
    if probed.untried.is_some() {
        return Some((standard.or(tried.first())?, "it is the image's own, untried".to_owned()));
    }
    let mut working = tried.iter().filter(|tried| tried.works());
    let (first, second) = (working.next()?, working.next());
    let Some(second) = second else { return Some((first, "only this kind works here".to_owned())) };
    // A packet must pass both firewalls, so what others drop in one cannot be let through in the other; and whoever looks
    // at the rules looks where there are some.
    if first.rules != second.rules {
        let more = if first.rules > second.rules { first } else { second };
        return Some((more, "there are rules of this kind here already".to_owned()));
    }
    if first.lacks() != second.lacks() {
        let less = if first.lacks() < second.lacks() { first } else { second };
        return Some((less, "the other kind can do less here".to_owned()));
    }
    let (own, other) = match standard {
        Some(own) if own.kind == second.kind => (second, first),
        _ => (first, second),
    };
    // One trial is noisy, on ground without rules both are as fast (2.3 and 2.5 ms a call were measured), and a kind that
    // changed from start to start would surprise.
    if other.us < own.us / 2 {
        return Some((other, format!("it is faster here than {}", own.kind.name())));
    }
    Some((own, format!("both kinds work, and {} is not much faster", other.kind.name())))
}

fn with_kind(
    tried: &Tried,
    why: String,
    found: String,
    daemon: &DaemonOptions,
    probed: &Probed,
    path: &OsStr,
) -> Decision {
    let name = tried.kind.name();
    let is_standard = probed.standard == Some(tried.kind);
    let mut chosen = format!("iptables-{name}");
    if !is_standard {
        chosen.push_str(&format!(" for dockerd; see its rules with `iptables-{name} -S`, not `iptables -S`"));
    }
    let mut decision = Decision::good("firewall", found, chosen).because(why);
    if !is_standard {
        decision.links = NAMES
            .iter()
            .map(|program| (folder().join(program), tried.folder.join(named(program, tried.kind))))
            .collect();
        let mut folders = OsString::from(folder());
        folders.push(":");
        folders.push(path);
        decision.environment.insert("PATH".to_owned(), folders);
    }
    let mut costs = Vec::new();
    if let Some(why) = &tried.ipv6 {
        // An engine that uses ip6tables unless told otherwise (27 and newer) would not start.
        decision = without_ipv6(decision, daemon);
        if probed.has_ipv6 {
            costs.push(format!(
                "no rules for IPv6 ({why}): its addresses inside are neither hidden nor guarded"
            ));
        }
    }
    if let Some(why) = &tried.raw {
        // Engines from 28 on would not publish a port otherwise (moby#49557); older ones do not know the variable.
        decision.environment.insert("DOCKER_INSECURE_NO_IPTABLES_RAW".to_owned(), "1".into());
        costs.push(format!(
            "no table raw ({why}): neighbours that route to a container's address reach its published ports, too"
        ));
    }
    if let Some(why) = &tried.mangle {
        costs.push(format!(
            "no table mangle ({why}): Swarm's routing mesh and encrypted networks do not work"
        ));
    }
    if probed.untried.is_some() {
        return decision
            .but_better("allow the host one more network namespace (sysctl user.max_net_namespaces)");
    }
    if costs.is_empty() {
        return decision;
    }
    decision.finding.chosen.push_str(&format!("; {}", costs.join("; ")));
    decision.but_better("give the machine's kernel, and the image, what is named here")
}

/// What a program of this kind is called: `iptables-save` is `iptables-nft-save`.
fn named(program: &str, kind: Kind) -> String {
    match program.split_once('-') {
        Some((bare, rest)) => format!("{bare}-{}-{rest}", kind.name()),
        None => format!("{program}-{}", kind.name()),
    }
}

/// Tells dockerd to make no rules for IPv6, unless the user has decided on that.
fn without_ipv6(decision: Decision, daemon: &DaemonOptions) -> Decision {
    let decided = daemon.says(&["ip6tables"]);
    decision.with_arguments((!decided).then_some("--ip6tables=false"))
}
