//! Campaigns: long runs of faults made at random moments, in which everything that an engine has acknowledged is kept in a ledger
//! and compared, to the last byte, with what is there afterwards.
//!
//! * [`kill`]: processes are killed under the engine. The kernel keeps what they wrote, so nothing may be gone.
//! * [`power`]: the disk loses its power. What a completed sync has covered may not be gone, and nothing that is listed
//!   may be damaged.
//! * [`rows`]: a database commits rows meanwhile. Every row whose commit it has answered must be there, after a kill and after a
//!   power cut.
//! * [`stop`]: containers of every bad habit, and a `docker stop` that must be clean all the same.
//!
//! A seed repeats the choices of a run, though not the timing of its machine. Nothing here panics when the engine
//! misbehaves: that is counted, and the campaign goes on. `docs/campaigns.md` tells more.

mod content;
mod disk;
mod engine;
mod events;
mod judge;
pub mod kill;
mod ledger;
mod packing;
pub mod power;
mod random;
mod registry;
pub mod rows;
pub mod stop;
mod subject;
mod table;
mod tally;
mod victim;
mod work;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use disk::{Disk, Place};
pub use engine::Way;
pub use ledger::Kind;
pub use random::Random;
pub use table::draw;
pub use tally::{Fate, Row, Tally};

use anyhow::{Result, ensure};
use engine::Engine;
use ledger::Shared;
use registry::Registry;
use work::Worker;

/// What decides how long a campaign takes.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How many cuts, kills, or runs through the matrix of stops.
    pub rounds: usize,
    /// What decides everything else.
    pub seed: u64,
    /// How large an image may be, in bytes.
    pub largest: u64,
    /// Whether containerd's image store keeps the images. What is younger than the last sync cannot be checked there, and may be damaged.
    pub in_containerd: bool,
}

/// Told of each round: what happened in it, in one line.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

/// An engine that refuses this often in one round, undisturbed, is no longer one.
const MOST_REFUSED: usize = 3;

/// When the work of a round is disturbed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// In the middle of it, after this long.
    AtWork(Duration),
    /// This long after its last acknowledgement.
    After(Duration),
}

impl Moment {
    fn choose(random: &mut Random, at_work_ms: u64, after_ms: u64) -> Self {
        if random.chance(50) {
            Moment::AtWork(Duration::from_millis(random.between(50, at_work_ms)))
        } else {
            Moment::After(Duration::from_millis(random.between(0, after_ms)))
        }
    }

    fn name(self) -> String {
        match self {
            Moment::AtWork(after) => format!("{:.1} s into the work", after.as_secs_f64()),
            Moment::After(after) => format!("{:.1} s after the last answer", after.as_secs_f64()),
        }
    }
}

/// The engine, and what those who make it work share.
struct Site<'a> {
    engine: &'a Engine,
    ledger: &'a Shared,
    registry: &'a Registry,
    scratch: &'a std::path::Path,
    largest: u64,
}

impl Site<'_> {
    fn worker(&self, random: Random) -> Worker<'_> {
        Worker {
            engine: self.engine,
            ledger: self.ledger.clone(),
            random,
            registry: self.registry,
            scratch: self.scratch,
            largest: self.largest,
        }
    }

    /// Lets workers work, and disturbs them at that moment; what the engine refused before that, when nobody had disturbed it.
    ///
    /// # Errors
    /// When it refuses again and again, or when the fault cannot be made.
    fn disturb(
        &self,
        random: &mut Random,
        moment: Moment,
        fault: impl FnOnce() -> Result<()>,
    ) -> Result<Vec<String>> {
        let disturbed = AtomicBool::new(false);
        let refused = Mutex::new(Vec::new());
        // Without end in the middle of things, a few acknowledgements otherwise. Containers only now and then: when one ends,
        // its overlay is unmounted, and by that the kernel syncs all that was written before.
        let at_work = matches!(moment, Moment::AtWork(_));
        let in_company = at_work && random.chance(40);
        let (first, second) = (random.fork(), random.fork());
        let count = if at_work { usize::MAX } else { usize::try_from(random.between(1, 3))? };
        let work = |random: Random, image: u64| -> Result<()> {
            let mut worker = self.worker(random);
            for _ in 0..count {
                let done =
                    if worker.random.chance(image) { worker.image_work() } else { worker.container_work() };
                if disturbed.load(Ordering::Acquire) {
                    return Ok(());
                }
                if let Err(error) = done {
                    let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
                    refused.push(format!("refused: {error:#}"));
                    ensure!(refused.len() < MOST_REFUSED, "the engine refuses again and again: {error:#}");
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let begin = Instant::now();
            let image = scope.spawn(|| work(first, if at_work { 100 } else { 90 }));
            let container = in_company.then(|| scope.spawn(|| work(second, 20)));
            let handles = || [Some(&image), container.as_ref()].into_iter().flatten();
            match moment {
                Moment::AtWork(after) => {
                    while begin.elapsed() < after && !handles().any(|handle| handle.is_finished()) {
                        thread::sleep(Duration::from_millis(5));
                    }
                }
                Moment::After(after) => {
                    while !image.is_finished() {
                        thread::sleep(Duration::from_millis(5));
                    }
                    thread::sleep(after);
                }
            }
            // A worker that has ended by itself in the middle of its work has failed at it.
            let undisturbed = handles().all(|handle| handle.is_finished() != at_work);
            disturbed.store(true, Ordering::Release);
            let fault = if undisturbed { fault() } else { Ok(()) };
            for handle in [Some(image), container].into_iter().flatten() {
                handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            fault
        })?;
        Ok(refused.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}
