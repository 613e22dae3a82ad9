//! Runs images of `tests/images` on the engine of the machine and in hosts, and prints what was found as a table.

use std::process::ExitCode;

use clap::Parser;
use dind_tests::shelf;

/// Run images as users do, on this machine's engine and in hosts, and compare.
///
/// Needs a Docker engine on this machine, the image dind-debian (./quickstart --build) or the one that `DIND_TEST_IMAGE`
/// names, and the images themselves (tests/images/build --all).
#[derive(Debug, Parser)]
struct Arguments {
    /// Which images [default: those that ./check runs]
    #[arg(value_name = "NAME", conflicts_with = "all")]
    names: Vec<String>,
    /// All images of tests/images
    #[arg(long)]
    all: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let names = match arguments {
        Arguments { all: true, .. } => shelf::names(),
        Arguments { names, .. } if names.is_empty() => shelf::CHECKED.map(str::to_owned).into(),
        Arguments { names, .. } => names,
    };
    // What is missing is said before minutes are spent on the rest.
    for name in &names {
        shelf::require(name);
    }
    let mut rows = Vec::new();
    for name in &names {
        eprintln!("shelf: {name}");
        rows.push(shelf::examine(name));
    }
    println!("{}", shelf::draw(&rows));
    let problems: Vec<String> = rows.iter().flat_map(shelf::Row::problems).collect();
    for problem in &problems {
        eprintln!("{problem}\n");
    }
    eprintln!("shelf: {} images were run, {} cells are not as they should be", rows.len(), problems.len());
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
