//! The clean-stop campaign.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::engine::{Engine, Way, expect};
use super::random::Random;
use super::subject::import;
use super::tally::Tally;
use super::work::BASE;
use super::{Progress, Settings};
use crate::nested::{POLITE, STUBBORN};
use crate::options::image;
use crate::volume::Volume;

/// What dockerd says when it has shut down by itself.
const LAST_WORDS: &str = "Daemon shutdown complete";
/// How many seconds containers have to be up, or to come back.
const UP: u64 = 60;

/// What a container does that makes a stop hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Polite,
    Stubborn,
    /// Forks, and its children ignore SIGTERM, too.
    Forks,
    /// Writes to a volume until its last moment.
    Writes,
    /// Ends at once, and is always started again.
    Restarts,
    /// Is stubborn, and asks for more time than the host has.
    LongTimeout,
}

impl Habit {
    const ALL: [Self; 6] =
        [Self::Polite, Self::Stubborn, Self::Forks, Self::Writes, Self::Restarts, Self::LongTimeout];

    fn name(self) -> &'static str {
        match self {
            Habit::Polite => "polite",
            Habit::Stubborn => "ignores SIGTERM",
            Habit::Forks => "forks",
            Habit::Writes => "writes",
            Habit::Restarts => "restarts always",
            Habit::LongTimeout => "long stop timeout",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Habit::Restarts => &["--restart", "always"],
            Habit::LongTimeout => &["--restart", "unless-stopped", "--stop-timeout", "300"],
            _ => &["--restart", "unless-stopped"],
        }
    }

    fn script(self) -> &'static str {
        match self {
            Habit::Polite => POLITE,
            Habit::Stubborn | Habit::LongTimeout => STUBBORN,
            Habit::Forks => "trap '' TERM INT HUP; while :; do (sleep 60) & sleep 0.5; done",
            // The lines count themselves: a torn or lost one is seen.
            Habit::Writes => {
                "touch /v/log; i=$(busybox wc -l < /v/log); while :; do i=$((i + 1)); echo $i >> /v/log; done"
            }
            Habit::Restarts => "exit 1",
        }
    }
}

/// One stop: how many containers of which habits, and the budget.
struct Cell {
    budget: u32,
    habits: Vec<Habit>,
    /// Whether a client has a connection open that never ends: dockerd waits 5 s for such, after all else.
    listener: bool,
    name: String,
}

impl Cell {
    fn of(budget: u32, habits: &[Habit], count: usize, name: &str) -> Self {
        let habits = habits.iter().copied().cycle().take(count).collect();
        Self { budget, habits, listener: false, name: format!("{count} × {name} in {budget} s") }
    }

    /// All habits by themselves and together, in this budget.
    fn all(budget: u32) -> Vec<Self> {
        let alone = Habit::ALL.iter().map(|habit| Self::of(budget, &[*habit], 5, habit.name()));
        alone
            .chain([Self::of(budget, &Habit::ALL, 20, "of every habit"), Self::listened_to(budget, 5)])
            .collect()
    }

    /// One stop that has all of it.
    fn mixed(budget: u32) -> Vec<Self> {
        vec![Self::listened_to(budget, if budget > 10 { 6 } else { 20 })]
    }

    fn listened_to(budget: u32, count: usize) -> Self {
        let cell = Self::of(budget, &Habit::ALL, count, "of every habit and a client that listens");
        Self { listener: true, ..cell }
    }
}

/// Stops hosts full of containers with bad habits.
///
/// With `whole`, every habit by itself, too, in every budget; else all habits at once, in the budgets given.
///
/// # Errors
/// When the campaign cannot begin.
pub fn run(way: Way, settings: &Settings, whole: bool, budgets: &[u32], progress: Progress) -> Result<Tally> {
    let mut tally = Tally::new("clean stops", way, settings.seed);
    let mut random = Random::new(settings.seed);
    for _ in 0..settings.rounds {
        for budget in budgets {
            let mut cells = if whole { Cell::all(*budget) } else { Cell::mixed(*budget) };
            // Where one breaks off, the rest gets a new host.
            while !cells.is_empty() {
                let notes = tally.notes.len();
                if let Err(error) = stops(way, *budget, &mut cells, &mut random, &mut tally, progress) {
                    tally.note(format!("broken off: {error:#}"));
                    tally.broken += 1;
                    tally.notes[notes..].iter().for_each(|note| progress(&format!("  {note}")));
                }
            }
        }
    }
    Ok(tally)
}

fn stops(
    way: Way,
    budget: u32,
    cells: &mut Vec<Cell>,
    random: &mut Random,
    tally: &mut Tally,
    progress: Progress,
) -> Result<()> {
    let volume = Volume::new();
    let environment = ["-e".into(), format!("DIND_STOP_TIMEOUT={budget}")];
    let engine = Engine::create(way, image(), volume.name(), &[], &environment)?;
    engine.start()?;
    import(&engine)?;
    while !cells.is_empty() {
        let cell = cells.swap_remove(usize::try_from(random.between(0, cells.len() as u64 - 1))?);
        let notes = tally.notes.len();
        let took = stop(&engine, &cell, tally)?;
        tally.happened(&cell.name);
        tally.rounds += 1;
        progress(&format!("stop of {} ({}): took {:.1} s", cell.name, way.name(), took.as_secs_f64()));
        tally.notes[notes..].iter().for_each(|note| progress(&format!("  {note}")));
    }
    Ok(())
}

/// One stop, and the start after it; how long the stop took.
fn stop(engine: &Engine, cell: &Cell, tally: &mut Tally) -> Result<Duration> {
    let mut names = Vec::new();
    for (number, habit) in cell.habits.iter().enumerate() {
        let (name, mount) = (format!("c{number}"), format!("v{number}:/v"));
        let run =
            ["run", "-d", "--name", &name, "-v", &mount].into_iter().chain(habit.options().iter().copied());
        let run: Vec<&str> = run.chain([BASE, "sh", "-c", habit.script()]).collect();
        engine.ask(&run)?;
        names.push(name);
    }
    up(engine, &names)?;
    if cell.listener {
        expect(engine.exec(&["-d"], &["docker", "events"]))?;
    }
    let lines = engine.logs().lines().count();
    let begin = Instant::now();
    let code = engine.stop(cell.budget)?;
    let took = begin.elapsed();
    let mut wrong = Vec::new();
    if code != 0 {
        wrong.push(format!("exit code {code}"));
    }
    if !engine.logs().lines().skip(lines).any(|line| line.contains(LAST_WORDS)) {
        wrong.push("dockerd did not end by its own hand".into());
    }
    let words = engine.own_words(lines);
    match engine.start() {
        Ok(start) => tally.clean_ms.push(u64::try_from(start.as_millis())?),
        Err(error) => {
            tally.failed_starts += 1;
            return Err(error);
        }
    }
    let status =
        engine.exec(&[], &["dind-init", "status", "--json"]).attempt().map_err(anyhow::Error::msg)?;
    let status: serde_json::Value = serde_json::from_str(&status.stdout).context("status --json")?;
    if status["last_stop"] != "clean" {
        wrong.push(format!("the next start says that the last stop was {}", status["last_stop"]));
    }
    if let Err(error) = up(engine, &names) {
        tally.not_back += 1;
        tally.note(format!("{}: {error:#}", cell.name));
    }
    for (name, _) in names.iter().zip(&cell.habits).filter(|(_, habit)| **habit == Habit::Writes) {
        let count = ["exec", name, "busybox", "awk", "$0 != NR { exit 1 }", "/v/log"];
        if engine.docker(&count)?.code != Some(0) {
            wrong.push(format!("{name} lost lines that it had written"));
        }
    }
    if !wrong.is_empty() {
        tally.unclean_stops += 1;
        tally.note(format!("{}: {}; the host's log:\n{}", cell.name, wrong.join(", "), words));
    }
    let remove = ["rm", "-f", "-v"].into_iter().chain(names.iter().map(String::as_str));
    engine.ask(&remove.collect::<Vec<_>>())?;
    let volumes: Vec<String> = (0..names.len()).map(|number| format!("v{number}")).collect();
    engine
        .ask(&["volume", "rm"].into_iter().chain(volumes.iter().map(String::as_str)).collect::<Vec<_>>())?;
    Ok(took)
}

/// Waits until these containers run, or are between two runs.
fn up(engine: &Engine, names: &[String]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(UP);
    loop {
        let format = ["ps", "-a", "--format", "{{.Names}} {{.State}}"];
        let list = engine.ask(&format)?;
        let up = |name: &&String| {
            let states = ["running", "restarting"].map(|state| format!("{name} {state}"));
            !list.lines().any(|line| states.iter().any(|state| state == line))
        };
        let down: Vec<&String> = names.iter().filter(up).collect();
        if down.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "containers are not up after {UP} s: {down:?}");
        sleep(Duration::from_millis(250));
    }
}
