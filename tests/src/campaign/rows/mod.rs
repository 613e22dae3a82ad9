//! The row campaign: a database commits rows while it, or its host, is killed or loses its power.
//!
//! A database syncs by itself what it answers, so every row whose commit was answered is due, after a power cut as after a kill.
//! Only the container and the volume may be younger than the host's last sync, so that is waited for once.

mod database;
mod fault;
mod ledger;
mod traffic;

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, ensure};
use serde_json::Value;
use time::OffsetDateTime;

pub use database::Database;

use super::disk::{Disk, Place};
use super::engine::{Engine, Way};
use super::ledger::Kind;
use super::random::Random;
use super::subject::Subject;
use super::tally::{Fate, Tally};
use super::{Progress, Settings};
use fault::{Fault, Storage};
use ledger::Ledger;

/// A kill comes within this many milliseconds of the first answers.
const KILL: u64 = 3000;
/// A power cut comes within this many: longer than ext4 keeps a transaction open.
const CUT: u64 = 6000;
/// A volume lives through this many kills.
const KILLS: usize = 25;
/// A disk lives through this many power cuts.
const CUTS: usize = 5;
/// How many seconds the host has to sync what it has acknowledged.
const SYNC: u64 = 60;

/// What happens to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faults {
    /// Processes are killed: the host, what it runs, or the database.
    Kills,
    /// The disk of the data root loses its power.
    PowerCuts,
}

/// What is run, and what happens to it.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Which database.
    pub database: Database,
    /// What happens to it.
    pub faults: Faults,
    /// Who runs the engine that it is in.
    pub way: Way,
    /// Whether it answers a commit only when it is on the disk, as it does by default. Where it does not, rows must be lost: the
    /// control, without which nobody knows that the campaign would see it.
    pub durable: bool,
}

impl Scenario {
    fn name(self) -> &'static str {
        match (self.database, self.faults) {
            (Database::Postgres, Faults::Kills) => "rows of postgres, kills",
            (Database::Postgres, Faults::PowerCuts) => "rows of postgres, power cuts",
            (Database::Mariadb, Faults::Kills) => "rows of mariadb, kills",
            (Database::Mariadb, Faults::PowerCuts) => "rows of mariadb, power cuts",
        }
    }
}

/// Has a database commit rows, and disturbs that again and again.
///
/// # Errors
/// When the campaign cannot begin.
///
/// # Panics
/// When the database's image is missing.
pub fn run(scenario: Scenario, settings: &Settings, progress: Progress) -> Result<Tally> {
    let place = Place::new()?;
    let mut random = Random::new(settings.seed);
    let subject = Subject::new(scenario.way, settings, place.path(), &mut random)?;
    let tally = Tally::new(scenario.name(), scenario.way, settings.seed);
    let mut campaign = Campaign { scenario, subject, place: &place, random, tally };
    let mut world = None;
    for number in 1..=settings.rounds {
        let (before, notes) = (campaign.tally.total(), campaign.tally.notes.len());
        let what = campaign.round(&mut world).unwrap_or_else(|error| {
            campaign.tally.note(format!("broken off: {error:#}"));
            campaign.tally.broken += 1;
            world = None;
            "broken off".into()
        });
        let total = campaign.tally.total();
        progress(&format!(
            "{} {number} of {} ({}): {what}; {} answered, {} lost, {} damaged",
            scenario.name(),
            settings.rounds,
            scenario.way.name(),
            total.acknowledged - before.acknowledged,
            total.lost - before.lost,
            total.damaged - before.damaged,
        ));
        campaign.tally.notes[notes..].iter().for_each(|note| progress(&format!("  {note}")));
    }
    Ok(campaign.tally)
}

/// An engine with a database, and what that has answered. The engine is dropped before what it lies on.
struct World {
    engine: Engine,
    ledger: Ledger,
    /// Who owned the database's data at first.
    owner: String,
    faults: usize,
    storage: Storage,
}

struct Campaign<'a> {
    scenario: Scenario,
    subject: Subject,
    place: &'a Place,
    random: Random,
    tally: Tally,
}

impl Campaign<'_> {
    fn round(&mut self, world: &mut Option<World>) -> Result<String> {
        let life = if self.scenario.faults == Faults::Kills { KILLS } else { CUTS };
        if world.as_ref().is_none_or(|world| world.faults >= life) {
            // Gone before there is another: one machine has room for one.
            *world = None;
            *world = Some(self.begin()?);
        }
        let Some(current) = world else { unreachable!("there is a world now") };
        let fault = Fault::choose(self.scenario, &mut self.random);
        let most = if matches!(fault, Fault::Cut) { CUT } else { KILL };
        let after = Duration::from_millis(self.random.between(50, most));
        let started = self.scenario.database.started(&current.engine)?;
        let World { engine, ledger, storage, .. } = &*current;
        let strike = || fault.strike(self.scenario.database, engine, storage);
        traffic::disturb(engine, self.scenario.database, ledger, after, strike)?;
        let what = format!("{}, {:.1} s into the commits", fault.name(), after.as_secs_f64());
        self.tally.happened(fault.name());
        let whole = match self.revive(fault, current) {
            Ok(took) => {
                if fault.ends_the_host() {
                    self.tally.unclean_ms.push(u64::try_from(took.as_millis())?);
                }
                self.judge(fault, current, &started)?
            }
            Err(error) => {
                self.tally.note(format!("the start after {what} failed: {error:#}"));
                self.tally.failed_starts += 1;
                false
            }
        };
        current.faults += 1;
        self.tally.rounds += 1;
        if !whole {
            *world = None;
        }
        Ok(what)
    }

    /// A new engine with an empty table in it, which is on the disk.
    fn begin(&mut self) -> Result<World> {
        let Scenario { database, durable, .. } = self.scenario;
        let storage = Storage::new(self.scenario.faults, self.place)?;
        let engine = self.engine(&storage)?;
        engine.start().context("on an empty data root")?;
        database.begin(&engine, durable)?;
        if let Storage::Disk(disk) = &storage {
            self.settle(&engine, disk)?;
        }
        let owner = database.owner(&engine)?;
        Ok(World { engine, ledger: Ledger::new(self.random.number()), owner, faults: 0, storage })
    }

    /// Waits until what was made for the database is on the disk, by the host's own sync where there is one.
    fn settle(&self, engine: &Engine, disk: &Disk) -> Result<()> {
        if matches!(self.scenario.way, Way::Bare | Way::HostUnsynced) {
            return disk.sync();
        }
        let done = OffsetDateTime::now_utc();
        // The answer to this is followed by a sync that begins after all that was done before.
        engine.ask(&["volume", "create", "settled"])?;
        let deadline = Instant::now() + Duration::from_secs(SYNC);
        while engine.last_sync().is_none_or(|sync| sync < done) {
            ensure!(Instant::now() < deadline, "the host has not synced within {SYNC} s");
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Brings the engine back; how long that took.
    fn revive(&mut self, fault: Fault, world: &mut World) -> Result<Duration> {
        match fault {
            Fault::Kill(victim) => {
                let World { engine, storage, .. } = world;
                victim.revive(engine, || self.engine(storage))
            }
            Fault::Database | Fault::Child => Ok(Duration::ZERO),
            Fault::Cut => {
                if let Storage::Disk(disk) = &world.storage
                    && let Some(words) = disk.power_on()?
                {
                    self.tally.note(format!("e2fsck says {words}"));
                    self.tally.fsck += 1;
                }
                world.engine = self.engine(&world.storage)?;
                world.engine.start()
            }
        }
    }

    /// Waits until the database, which was `started` before the fault, is back, and compares what is there with what was answered;
    /// whether all is as it should be.
    fn judge(&mut self, fault: Fault, world: &mut World, started: &str) -> Result<bool> {
        let database = self.scenario.database;
        let failures = self.tally.failures();
        match database.wait(&world.engine, fault.restarts_the_container().then_some(started)) {
            Ok(took) => self.tally.ready_ms.push(u64::try_from(took.as_millis())?),
            Err(error) => {
                self.tally.note(format!("after {}: {error:#}", fault.name()));
                self.tally.not_back += 1;
                return Ok(false);
            }
        }
        let content = database.read(&world.engine)?;
        let comparison = world.ledger.compare(&content.rows);
        let mut wrong: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (id, fate, again) in comparison.fates {
            self.tally.count(Kind::DatabaseRow, fate, true, again);
            if fate != Fate::Kept {
                let age = if again { "seen before" } else { "answered" };
                wrong.entry(format!("{fate:?}, though {age}")).or_default().push(id);
            }
        }
        for (what, ids) in wrong {
            let count = ids.len();
            self.tally.note(format!(
                "after {}: {count} rows {what}: {:?}",
                fault.name(),
                &ids[..count.min(10)]
            ));
        }
        self.tally.unanswered += comparison.unanswered;
        if !comparison.strange.is_empty() {
            let what = format!("{:?} after {}", comparison.strange, fault.name());
            self.tally.wrong("rows in part, or that nobody sent", &what);
        }
        if let Some(what) = content.disagreement() {
            self.tally.wrong("tables and indexes that disagree", &what);
        }
        self.check(fault, world)?;
        Ok(failures == self.tally.failures())
    }

    /// What else has to be so: the database's own check, its owner, new commits, and what the host says of its last stop.
    fn check(&mut self, fault: Fault, world: &World) -> Result<()> {
        let (database, engine) = (self.scenario.database, &world.engine);
        if let Some(what) = database.check(engine)? {
            self.tally.wrong("tables that their database's own check finds damaged", &what);
        }
        let owner = database.owner(engine)?;
        if owner != world.owner {
            self.tally.wrong("volumes with another owner", &format!("{owner}, before {}", world.owner));
        }
        let (id, insertion) = world.ledger.insertion();
        match database.query(engine, &insertion) {
            Ok(answer) if answer == id.to_string() => world.ledger.answer(id),
            other => self.tally.wrong("databases that commit nothing new", &format!("{other:?}")),
        }
        if fault.ends_the_host() && self.scenario.way != Way::Bare {
            let status =
                engine.exec(&[], &["dind-init", "status", "--json"]).attempt().map_err(Error::msg)?;
            let status: Value = serde_json::from_str(&status.stdout).context("status --json")?;
            if status["last_stop"] != "unclean" {
                let what = format!("{} after {}", status["last_stop"], fault.name());
                self.tally.wrong("unclean stops that the host does not call so", &what);
            }
        }
        Ok(())
    }

    fn engine(&self, storage: &Storage) -> Result<Engine> {
        self.subject.engine(&storage.source(), &[])
    }
}
