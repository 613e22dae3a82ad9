//! The kill campaign.

use std::time::Duration;

use anyhow::{Context, Result};

use super::disk::Place;
use super::engine::{Engine, Way};
use super::events::Events;
use super::judge::{Due, judge, wait_for_containers};
use super::ledger::Shared;
use super::random::Random;
use super::registry::Registry;
use super::subject::Subject;
use super::tally::Tally;
use super::victim::Victim;
use super::{Moment, Progress, Settings, Site};
use crate::volume::Volume;

/// A kill in the middle of things comes within this many milliseconds.
const AT_WORK: u64 = 2500;
/// Of the kills after an acknowledgement this is the latest, in milliseconds.
const AFTER: u64 = 300;
/// A volume lives through this many kills. Work that was cut off leaves images and containers that nobody asks for, and each is looked
/// at after each kill.
const LIFE: usize = 25;
/// Every so many kills the start after one is compared with a clean one.
const COMPARED: usize = 4;
/// Lines of the host's own that one start writes.
const WORDS: usize = 30;
/// A start of which one wants to know what took so long.
const SLOW: Duration = Duration::from_millis(1500);

/// Kills processes under a host again and again.
///
/// # Errors
/// When the campaign cannot begin.
pub fn run(way: Way, settings: &Settings, progress: Progress) -> Result<Tally> {
    let place = Place::new()?;
    let registry = Registry::start(place.path())?;
    let mut random = Random::new(settings.seed);
    let mut campaign = Campaign {
        subject: Subject::new(way, settings, place.path(), &mut random)?,
        registry,
        place: &place,
        largest: settings.largest,
        random,
        tally: Tally::new("kills", way, settings.seed),
    };
    let mut world = None;
    for number in 1..=settings.rounds {
        let (before, notes) = (campaign.tally.total(), campaign.tally.notes.len());
        let what = match campaign.round(&mut world) {
            Ok(what) => what,
            Err(error) => {
                campaign.tally.note(format!("broken off: {error:#}"));
                campaign.tally.broken += 1;
                world = None;
                // It may be the reason.
                campaign.registry = Registry::start(place.path())?;
                "broken off".into()
            }
        };
        let total = campaign.tally.total();
        progress(&format!(
            "kill {number} of {} ({}): {what}; {} kept, {} lost, {} damaged",
            settings.rounds,
            way.name(),
            total.kept - before.kept,
            total.lost - before.lost,
            total.damaged - before.damaged,
        ));
        campaign.tally.notes[notes..].iter().for_each(|note| progress(&format!("  {note}")));
    }
    Ok(campaign.tally)
}

/// A volume, its host, and what that has acknowledged. The host is dropped before the volume.
struct World {
    engine: Engine,
    ledger: Shared,
    kills: usize,
    volume: Volume,
}

struct Campaign<'a> {
    subject: Subject,
    registry: Registry,
    place: &'a Place,
    largest: u64,
    random: Random,
    tally: Tally,
}

impl Campaign<'_> {
    fn round(&mut self, world: &mut Option<World>) -> Result<String> {
        // Dropped from the last to the first.
        let World { volume, kills, ledger, mut engine } = match world.take() {
            Some(world) if world.kills < LIFE => world,
            // Gone before there is another: one machine has room for one.
            old => {
                drop(old);
                self.begin()?
            }
        };
        let victim = Victim::choose(self.subject.way, &mut self.random);
        let moment = Moment::choose(&mut self.random, AT_WORK, AFTER);
        let events = Events::default();
        let (registry, largest, scratch) = (&self.registry, self.largest, self.place.path());
        let site = Site { engine: &engine, ledger: &ledger, registry, scratch, largest };
        let refused = site.disturb(&mut self.random, moment, || victim.kill(&engine))?;
        self.tally.refused(refused);
        self.tally.happened(victim.name());
        let started = victim.revive(&mut engine, || self.engine(&volume));
        let took = match started {
            Ok(took) => took,
            Err(error) => {
                self.tally.note(format!("the start after {} failed: {error:#}", victim.name()));
                self.tally.failed_starts += 1;
                self.tally.rounds += 1;
                return Ok(format!("{}, {}", victim.name(), moment.name()));
            }
        };
        // Asked for now: what comes next changes it.
        let steps = if took > SLOW { engine.own_words(0) } else { String::new() };
        judge(&engine, &ledger, &events, Due::Everything, &mut self.tally)?;
        if let Err(error) = wait_for_containers(&engine, &ledger) {
            self.tally.note(format!("after {}: {error:#}", victim.name()));
            self.tally.not_back += 1;
        }
        let whole = victim.is_whole_host();
        if whole {
            self.tally.unclean_ms.push(u64::try_from(took.as_millis())?);
        }
        self.tally.rounds += 1;
        // Under another init `docker stop` ends that, and not the host.
        let is_ours = self.subject.way != Way::HostUnderInit;
        if whole && is_ours && self.tally.unclean_ms.len().is_multiple_of(COMPARED) {
            self.compare(&engine)?;
        }
        *world = Some(World { engine, ledger, kills: kills + 1, volume });
        let mut line = format!("{}, {}, back after {} ms", victim.name(), moment.name(), took.as_millis());
        if whole && !steps.is_empty() {
            let words: Vec<&str> = steps.lines().rev().take(WORDS).collect();
            line.push_str("; the last of what the host said:");
            words.into_iter().rev().for_each(|word| line.push_str(&format!("\n  {word}")));
        }
        Ok(line)
    }

    fn begin(&self) -> Result<World> {
        self.registry.clear();
        let volume = Volume::new();
        let engine = self.engine(&volume)?;
        engine.start().context("on an empty volume")?;
        let ledger = Shared::default();
        self.subject.prepare(&engine, &ledger)?;
        Ok(World { engine, ledger, kills: 0, volume })
    }

    /// Stops the host and starts it again: the time of a clean start with the same content.
    fn compare(&mut self, engine: &Engine) -> Result<()> {
        let lines = engine.logs().lines().count();
        let code = engine.stop(10)?;
        if code != 0 {
            let words = engine.own_words(lines);
            self.tally.note(format!("a stop for comparison ended with {code}; the host's log:\n{words}"));
            self.tally.unclean_stops += 1;
        }
        let clean = engine.start().context("after a clean stop")?;
        self.tally.compare_start(clean);
        Ok(())
    }

    fn engine(&self, volume: &Volume) -> Result<Engine> {
        let options = [format!("--insecure-registry {}", self.registry.address())];
        self.subject.engine(volume.name(), &options)
    }
}
