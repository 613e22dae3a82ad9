//! Runs one campaign and prints what it counted: see `docs/campaigns.md`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use dind_tests::campaign::rows::{self, Database, Faults, Scenario};
use dind_tests::campaign::{Progress, Random, Settings, Tally, Way, draw, kill, power, stop};

/// Torment an engine, and count what it keeps.
///
/// Needs root and a Docker engine on this machine, the image dind-debian (./quickstart --build) or the one that
/// `DIND_TEST_IMAGE` names, and Debian's packages busybox-static, docker-registry and e2fsprogs; for rows also the database's
/// image (tests/images/build postgres mariadb).
#[derive(Debug, Parser)]
struct Arguments {
    /// Which campaign
    campaign: Campaign,
    /// How many kills or power cuts, or how often every stop; of rows half are kills, half power cuts
    /// [default: 500, 200, 1, 50]
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
    /// Which database commits rows; can be given more than once [default: postgres]
    #[arg(long, value_name = "DATABASE")]
    database: Vec<Which>,
    /// Have the database answer commits before they are on the disk: the control, which must lose rows
    #[arg(long)]
    asynchronous: bool,
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
    /// Kill hosts in which a database commits rows, and cut their power
    Rows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// PostgreSQL
    Postgres,
    /// MariaDB
    Mariadb,
}

impl From<Which> for Database {
    fn from(which: Which) -> Self {
        match which {
            Which::Postgres => Self::Postgres,
            Which::Mariadb => Self::Mariadb,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Whose {
    /// A host's
    Host,
    /// A host's that is not PID 1: another init lives on when it is killed
    UnderInit,
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
            Whose::UnderInit => Self::HostUnderInit,
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
        Campaign::Rows => 50,
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
        Campaign::Rows => {
            let databases =
                if arguments.database.is_empty() { &[Which::Postgres] } else { &*arguments.database };
            for database in databases {
                tallies.extend(run_rows(arguments, (*database).into(), &settings, &mut progress)?);
            }
        }
    }
    if let Some(file) = &arguments.json {
        let json = serde_json::to_string_pretty(&tallies)?;
        std::fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    for tallies in tallies.chunk_by(|one, other| one.campaign == other.campaign) {
        say(&format!("\n{}", draw(tallies)))?;
    }
    if arguments.asynchronous {
        let lost = tallies.iter().any(|tally| tally.total().lost > 0);
        return Ok(if lost { vec![] } else { vec!["no row lost, which the control has to".into()] });
    }
    // What bare dockerd loses is its own affair.
    Ok(tallies.iter().filter(|tally| tally.way != Way::Bare).flat_map(Tally::failures).collect())
}

/// Half of the rounds are kills, half power cuts.
fn run_rows(
    arguments: &Arguments,
    database: Database,
    settings: &Settings,
    progress: Progress,
) -> Result<Vec<Tally>> {
    let kills = settings.rounds / 2;
    let cuts = settings.rounds - kills;
    let mut runs: Vec<(Faults, Way, usize)> = Vec::new();
    if arguments.way.is_empty() {
        // One kill in five under another init, where the machine is not taken down with it.
        let few = kills / 5;
        runs.push((Faults::Kills, Way::Host, kills - few));
        runs.push((Faults::Kills, Way::HostUnderInit, few));
        runs.push((Faults::PowerCuts, Way::Host, cuts));
    } else {
        for (faults, rounds) in [(Faults::Kills, kills), (Faults::PowerCuts, cuts)] {
            runs.extend(arguments.way.iter().map(|whose| (faults, (*whose).into(), rounds)));
        }
    }
    let mut tallies = Vec::new();
    for (faults, way, rounds) in runs.into_iter().filter(|(.., rounds)| *rounds > 0) {
        let scenario = Scenario { database, faults, way, durable: !arguments.asynchronous };
        tallies.push(rows::run(scenario, &Settings { rounds, ..*settings }, &mut *progress)?);
    }
    Ok(tallies)
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
