//! The power-cut campaign.

use std::path::Path;

use anyhow::{Context, Result};
use time::OffsetDateTime;

use super::disk::{Disk, Place};
use super::engine::{Engine, Way};
use super::events::Events;
use super::judge::{Due, differences, judge};
use super::ledger::{Kind, Shared};
use super::random::Random;
use super::registry::Registry;
use super::subject::Subject;
use super::tally::Tally;
use super::{Moment, Progress, Settings, Site};

/// A disk lives through this many cuts, if nothing goes wrong with it.
const CUTS: usize = 5;
/// A disk with more in it is given up: reading all of it takes its time.
const FULL: u64 = 2 << 30;
/// A cut in the middle of things comes within this many milliseconds.
const AT_WORK: u64 = 7000;
/// Of the cuts after an acknowledgement this is the latest, in milliseconds: longer than ext4 keeps a transaction open.
const AFTER: u64 = 6000;

/// A disk, its engine, and what that has acknowledged. The engine is dropped before the disk.
struct Machine {
    engine: Engine,
    events: Events,
    ledger: Shared,
    cuts: usize,
    disk: Disk,
}

/// Cuts the power of a disk again and again, under a host or under bare dockerd.
///
/// # Errors
/// When the campaign cannot begin: no registry, no disk.
pub fn run(way: Way, settings: &Settings, progress: Progress) -> Result<Tally> {
    let place = Place::new()?;
    let registry = Registry::start(place.path())?;
    let mut random = Random::new(settings.seed);
    let subject = Subject::new(way, settings, place.path(), &mut random)?;
    let mut setting = Setting { subject, place: &place, registry, largest: settings.largest };
    let mut tally = Tally::new("power cuts", way, settings.seed);
    let mut machine = None;
    for number in 1..=settings.rounds {
        let before = (tally.total(), tally.failures(), tally.notes.len());
        let what = match setting.round(&mut machine, &mut random, &mut tally) {
            Ok(what) => what,
            Err(error) => {
                tally.note(format!("broken off: {error:#}"));
                tally.broken += 1;
                machine = None;
                // It may be the reason.
                setting.registry = Registry::start(place.path())?;
                "broken off".into()
            }
        };
        let total = tally.total();
        let gone_wrong = before.1 != tally.failures() || before.0.damaged != total.damaged;
        if machine.as_ref().is_some_and(|machine| machine.is_done(gone_wrong)) {
            setting.retire(machine.take(), &mut tally);
        }
        let kept = total.kept - before.0.kept;
        let (younger, lost) = (total.younger - before.0.younger, total.lost - before.0.lost);
        let damaged = total.damaged - before.0.damaged;
        progress(&format!(
            "power cut {number} of {} ({}): {what}; {kept} kept, {younger} gone and younger, {lost} lost, {damaged} damaged",
            settings.rounds,
            way.name()
        ));
        tally.notes[before.2..].iter().for_each(|note| progress(&format!("  {note}")));
    }
    Ok(tally)
}

impl Machine {
    fn is_done(&self, gone_wrong: bool) -> bool {
        gone_wrong || self.cuts >= CUTS || self.ledger.lock().bytes() > FULL
    }
}

/// What stays the same from round to round.
struct Setting<'a> {
    subject: Subject,
    place: &'a Place,
    registry: Registry,
    largest: u64,
}

impl Setting<'_> {
    fn round(&self, machine: &mut Option<Machine>, random: &mut Random, tally: &mut Tally) -> Result<String> {
        // In the order in which they must not be dropped: that is done from the last to the first.
        let Machine { disk, cuts, ledger, events, engine } = match machine.take() {
            Some(machine) => machine,
            None => self.boot()?,
        };
        let moment = Moment::choose(random, AT_WORK, AFTER);
        let site = self.site(&engine, &ledger);
        let mut due = Due::Everything;
        let refused = site.disturb(random, moment, || {
            // Asked a moment too early rather than too late: what a sync covers after this is not counted as due.
            let sync = engine.last_sync();
            disk.cut()?;
            due = Due::Before { sync, cut: OffsetDateTime::now_utc() };
            engine.kill()
        })?;
        tally.refused(refused);
        drop(engine);
        if let Some(said) = disk.power_on()? {
            tally.note(format!("e2fsck says {said}"));
            tally.fsck += 1;
        }
        tally.happened(if matches!(moment, Moment::After(_)) { "after an answer" } else { "at work" });
        let engine = self.engine(disk.path())?;
        match engine.start() {
            Ok(took) => tally.unclean_ms.push(u64::try_from(took.as_millis())?),
            Err(error) => {
                tally.note(format!("the start failed: {error:#}"));
                tally.failed_starts += 1;
                tally.rounds += 1;
                return Ok(moment.name());
            }
        }
        let images = ledger.lock().images();
        judge(&engine, &ledger, &events, due, tally)?;
        let left = ledger.lock().images();
        let gone = images.into_iter().find(|(name, _)| !left.iter().any(|(left, _)| left == name));
        if let Some((_, payload)) = gone {
            // What is gone or damaged must be whole when it comes again: no remains may be taken for it.
            let name = self.site(&engine, &ledger).worker(random.fork()).load_again(&payload, Kind::Load)?;
            tally.loaded_again += 1;
            let wrong = differences(&engine, &name, &payload)?;
            if let Some(first) = wrong.first() {
                tally.note(format!("loaded again and damaged, {} files: {first}", wrong.len()));
                tally.damaged_again += 1;
            }
        }
        tally.rounds += 1;
        let events = Events::follow(&engine)?;
        *machine = Some(Machine { engine, events, ledger, cuts: cuts + 1, disk });
        Ok(moment.name())
    }

    /// A new disk with the base on it, safe and sound.
    fn boot(&self) -> Result<Machine> {
        self.registry.clear();
        let disk = Disk::new(self.place)?;
        let engine = self.engine(disk.path())?;
        engine.start().context("on an empty disk")?;
        let ledger = Shared::default();
        self.subject.prepare(&engine, &ledger)?;
        disk.sync()?;
        let events = Events::follow(&engine)?;
        Ok(Machine { engine, events, ledger, cuts: 0, disk })
    }

    /// Stops the engine and starts it again, for the time of a clean start with the same content.
    fn retire(&self, machine: Option<Machine>, tally: &mut Tally) {
        let Some(machine) = machine else { return };
        let stopped = machine.engine.stop(10);
        let started = stopped.and_then(|_| machine.engine.start());
        match started {
            Ok(took) => tally.compare_start(took),
            Err(error) => tally.note(format!("no clean start to compare with: {error:#}")),
        }
    }

    fn engine(&self, data: &Path) -> Result<Engine> {
        let options = [format!("--insecure-registry {}", self.registry.address())];
        self.subject.engine(&data.to_string_lossy(), &options)
    }

    fn site<'b>(&'b self, engine: &'b Engine, ledger: &'b Shared) -> Site<'b> {
        let scratch = self.place.path();
        Site { engine, ledger, registry: &self.registry, scratch, largest: self.largest }
    }
}
