//! How fast a host starts and stops, and how little its PID 1 needs, next to what people run today.
//!
//! One run measures everything, in rounds that take turns, on the same image: what disturbs one disturbs all, and only
//! ratios of medians are claimed. The samples go to a JSON file; the table and the plot are drawn from that file alone.
//! No figure makes a run fail: the exit code is 1 only when something could not be measured.

mod container;
mod driving;
mod engine;
mod kept;
mod measure;
mod plot;
mod process;
mod results;
mod sealed;
mod statistics;
mod table;
mod ways;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::results::Results;

/// Where the committed figures are.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results/start.json");
/// The same of sealed appliances.
const SEALED_RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results/sealed.json");

/// Measure how fast a host starts and stops, next to bare dockerd and to the plain-TCP script on the same image.
///
/// Needs root, a Docker engine on this machine and the image dind-debian (./quickstart --build). Takes about 10 minutes.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds of this host and of bare dockerd; the plain script, which sleeps 16 s, takes part in the first 3
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where to write the samples; the plot goes next to it, as .svg [default: benches/results/start.json]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure sealed appliances instead, next to `docker load` and `docker pull`: needs dind-compose-static, docker-registry, 20 GB of
    /// room and half an hour [default file: benches/results/sealed.json]
    #[arg(long)]
    sealed: bool,
    /// Measure nothing: print the table and draw the plot of the samples in FILE
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rounds", "json"])]
    plot: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let into = |default: &'static str| arguments.json.as_deref().unwrap_or(Path::new(default));
    let done = match &arguments.plot {
        Some(file) if arguments.sealed => show_sealed(file),
        Some(file) => show(file),
        None if arguments.sealed => measure_sealed(arguments.rounds, into(SEALED_RESULTS)),
        None => measure(arguments.rounds, into(RESULTS)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            engine::yield_to_interruption();
            eprintln!("dind-benches: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says now, not after minutes, that the file cannot be written.
fn check_folder(file: &Path) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "cannot write {}: there is no folder {}", file.display(), folder.display());
    Ok(())
}

fn measure_sealed(rounds: u32, file: &Path) -> Result<()> {
    check_folder(file)?;
    kept::check()?;
    driving::check()?;
    engine::prepare()?;
    let results = sealed::everything(rounds);
    let swept = engine::sweep();
    let results = results?;
    swept?;
    let json = serde_json::to_string_pretty(&results)?;
    fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    show_sealed(file)
}

fn show_sealed(file: &Path) -> Result<()> {
    let json = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let results: sealed::Sealed = serde_json::from_str(&json)
        .with_context(|| format!("{} does not hold the samples of such a run", file.display()))?;
    print(&format!("{}\nsamples: {}", sealed::draw(&results), file.display()))
}

fn measure(rounds: u32, file: &Path) -> Result<()> {
    check_folder(file)?;
    kept::check()?;
    driving::check()?;
    engine::prepare()?;
    let results = measure::everything(rounds);
    let swept = engine::sweep();
    let results = results?;
    swept?;
    let json = serde_json::to_string_pretty(&results)?;
    fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    show(file)
}

fn show(file: &Path) -> Result<()> {
    let json = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let results: Results = serde_json::from_str(&json)
        .with_context(|| format!("{} does not hold the samples of a run", file.display()))?;
    let picture = file.with_extension("svg");
    fs::write(&picture, plot::draw(&results))
        .with_context(|| format!("cannot write {}", picture.display()))?;
    let table = table::draw(&results);
    print(&format!("{table}\nsamples: {}\nplot:    {}", file.display(), picture.display()))
}

fn print(text: &str) -> Result<()> {
    let shown = writeln!(io::stdout(), "{text}");
    // Whoever reads only the first lines has what they wanted.
    shown.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error.into()) })
}
