//! Runs one campaign and prints what it counted: see `docs/campaigns.md`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use dind_tests::campaign::{Random, Settings, Tally, Way, draw, kill, power, stop};

/// Torment an engine, and count what it keeps.
///
/// Needs root and a Docker engine on this machine, the image dind-debian (./quickstart --build) or the one that
/// `DIND_TEST_IMAGE` names, and Debian's packages busybox-static, docker-registry and e2fsprogs.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which campaign
    campaign: Campaign,
    /// How many kills or power cuts, or how often every stop [default: 500, 200, 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Repeats the choices of the run that printed this number
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Images are at most this large, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=4096))]
    largest: u64,
    /// Whose power is cut, or who is killed; can be given more than once, and is printed side by side
    /// [default: host]
    #[arg(long, value_name = "WAY")]
    way: Vec<Whose>,
    /// Have containerd's image store keep the images, for kills and power cuts
    #[arg(long)]
    containerd: bool,
    /// Stops within this many seconds; can be given more than once [default: 3, 10 and 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(2..=600))]
    budget: Vec<u32>,
    /// Write everything that was counted to FILE
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Campaign {
    /// Kill hosts and what runs in them
    Kill,
    /// Cut the power of the data root's disk
    Power,
    /// Stop hosts full of stubborn containers
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Whose {
    /// A host's
    Host,
    /// A host's that does not sync after acknowledgements: only its repair is left
    Unsynced,
    /// That of a host of a sealed appliance
    Sealed,
    /// Bare dockerd's
    Bare,
}

impl From<Whose> for Way {
    fn from(whose: Whose) -> Self {
        match whose {
            Whose::Host => Self::Host,
            Whose::Unsynced => Self::HostUnsynced,
            Whose::Sealed => Self::Sealed,
            Whose::Bare => Self::Bare,
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(failures) => {
            eprintln!("campaign: not as it should be: {}", failures.join(", "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("campaign: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for; what should be zero and is not.
fn run(arguments: &Arguments) -> Result<Vec<String>> {
    let rounds = arguments.rounds.unwrap_or(match arguments.campaign {
        Campaign::Kill => 500,
        Campaign::Power => 200,
        Campaign::Stop => 1,
    });
    let seed = arguments.seed.unwrap_or_else(Random::seed);
    let settings =
        Settings { rounds, seed, largest: arguments.largest << 20, in_containerd: arguments.containerd };
    say(&format!("seed {seed}"))?;
    let mut progress = |line: &str| {
        // Whoever no longer listens gets the result all the same.
        let _ = say(line);
    };
    let mut tallies = Vec::new();
    match arguments.campaign {
        Campaign::Kill => {
            for whose in &arguments.way {
                tallies.push(kill::run((*whose).into(), &settings, &mut progress)?);
            }
            if arguments.way.is_empty() {
                // One in five under another init, where the machine is not taken down with it.
                let few = Settings { rounds: rounds / 5, ..settings };
                let most = Settings { rounds: rounds - few.rounds, ..settings };
                tallies.push(kill::run(Way::Host, &most, &mut progress)?);
                tallies.push(kill::run(Way::HostUnderInit, &few, &mut progress)?);
            }
        }
        Campaign::Power => {
            let ways = if arguments.way.is_empty() { &[Whose::Host] } else { arguments.way.as_slice() };
            for whose in ways {
                tallies.push(power::run((*whose).into(), &settings, &mut progress)?);
            }
        }
        Campaign::Stop => {
            let all = [3, 10, 60];
            let budgets = if arguments.budget.is_empty() { &all } else { arguments.budget.as_slice() };
            tallies.push(stop::run(Way::Host, &settings, true, budgets, &mut progress)?);
        }
    }
    if let Some(file) = &arguments.json {
        let json = serde_json::to_string_pretty(&tallies)?;
        std::fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    say(&format!("\n{}", draw(&tallies)))?;
    // What bare dockerd loses is its own affair.
    Ok(tallies.iter().filter(|tally| tally.way != Way::Bare).flat_map(Tally::failures).collect())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
