//! What a campaign counts, and what of it must be zero.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::engine::Way;
use super::ledger::Kind;

/// What became of something that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// There, and whole.
    Kept,
    /// Gone, and no sync had covered it yet: allowed.
    Younger,
    /// Gone, though a sync that began after its acknowledgement had ended, or though only a process was killed.
    Lost,
    /// Listed, but not what it was.
    Damaged,
}

/// Counts of what was acknowledged in one way.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Row {
    /// How many were acknowledged.
    pub acknowledged: usize,
    /// How many of them the engine had to keep: those that a sync covered, or all after a kill.
    pub due: usize,
    /// See [`Fate`].
    pub kept: usize,
    /// See [`Fate`].
    pub younger: usize,
    /// See [`Fate`].
    pub lost: usize,
    /// See [`Fate`].
    pub damaged: usize,
}

/// Everything that one campaign has counted.
#[derive(Debug, Clone, Serialize)]
pub struct Tally {
    /// `kill`, `power` or `stop`.
    pub campaign: &'static str,
    /// Who ran the engine.
    pub way: Way,
    /// What repeats it.
    pub seed: u64,
    /// Rounds that came to their end.
    pub rounds: usize,
    /// Rounds that did not, for a reason that is not the engine's.
    pub broken: usize,
    /// What the engine refused though nobody had disturbed it: told, and no failure of what is tested here.
    pub refused: usize,
    /// How often what happened: victims of kills, moments of cuts.
    pub happened: BTreeMap<String, usize>,
    /// What became of what was acknowledged.
    pub rows: BTreeMap<Kind, Row>,
    /// What earlier rounds had kept and was compared again; what is not kept of that counts above.
    pub seen_again: usize,
    /// Images that were looked at, to the last byte.
    pub verified_images: usize,
    /// Those of them that were listed and damaged, acknowledged or not.
    pub damaged_images: usize,
    /// Times at which an image was run and said something else than it did when it was run again: the engine's doing, or the
    /// machine's, and not the disk's.
    pub unsteady_runs: usize,
    /// Images that were gone or damaged and were loaded again.
    pub loaded_again: usize,
    /// Those that the engine said it had loaded, and that were damaged again.
    pub damaged_again: usize,
    /// Containers in the state `dead`.
    pub dead: usize,
    /// Times at which a container with a restart policy did not come back.
    pub not_back: usize,
    /// Starts that failed.
    pub failed_starts: usize,
    /// Stops that were not clean.
    pub unclean_stops: usize,
    /// File systems in which e2fsck found something after the journal was replayed.
    pub fsck: usize,
    /// Rows of a database that were there, and whole, though their answer did not come through: no failure.
    pub unanswered: usize,
    /// What else was not as it should be, and how often.
    pub wrong: BTreeMap<&'static str, usize>,
    /// Milliseconds from the engine's answer to the database's, after a cut or a kill.
    pub ready_ms: Vec<u64>,
    /// Milliseconds until the engine answered, after a clean stop.
    pub clean_ms: Vec<u64>,
    /// Milliseconds until the engine answered, after a cut or a kill.
    pub unclean_ms: Vec<u64>,
    /// Start after a kill divided by start after a clean stop, with the same content, pair by pair.
    pub ratios: Vec<f64>,
    /// What went wrong, in words.
    pub notes: Vec<String>,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new(campaign: &'static str, way: Way, seed: u64) -> Self {
        Self {
            campaign,
            way,
            seed,
            rounds: 0,
            broken: 0,
            refused: 0,
            happened: BTreeMap::new(),
            rows: BTreeMap::new(),
            seen_again: 0,
            verified_images: 0,
            damaged_images: 0,
            unsteady_runs: 0,
            loaded_again: 0,
            damaged_again: 0,
            dead: 0,
            not_back: 0,
            failed_starts: 0,
            unclean_stops: 0,
            fsck: 0,
            unanswered: 0,
            wrong: BTreeMap::new(),
            ready_ms: Vec::new(),
            clean_ms: Vec::new(),
            unclean_ms: Vec::new(),
            ratios: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Counts what became of one thing; `again`: earlier rounds have counted it.
    pub fn count(&mut self, kind: Kind, fate: Fate, is_due: bool, again: bool) {
        if again {
            self.seen_again += 1;
            if fate == Fate::Kept {
                return;
            }
        }
        let row = self.rows.entry(kind).or_default();
        row.acknowledged += 1;
        row.due += usize::from(is_due);
        match fate {
            Fate::Kept => row.kept += 1,
            Fate::Younger => row.younger += 1,
            Fate::Lost => row.lost += 1,
            Fate::Damaged => row.damaged += 1,
        }
    }

    /// Counts one more of what happened.
    pub fn happened(&mut self, what: impl Into<String>) {
        *self.happened.entry(what.into()).or_default() += 1;
    }

    /// Notes what went wrong, with the round in which it did.
    pub fn note(&mut self, what: impl Into<String>) {
        self.notes.push(format!("round {}: {}", self.rounds + self.broken + 1, what.into()));
    }

    /// Counts and notes something else that is not as it should be.
    pub fn wrong(&mut self, what: &'static str, note: &str) {
        *self.wrong.entry(what).or_default() += 1;
        self.note(format!("{what}: {note}"));
    }

    /// Notes what the engine refused, undisturbed.
    pub fn refused(&mut self, what: Vec<String>) {
        self.refused += what.len();
        what.into_iter().for_each(|what| self.note(what));
    }

    /// Notes how long a clean start took, next to the last one that was not.
    pub fn compare_start(&mut self, clean: Duration) {
        let clean = u64::try_from(clean.as_millis()).unwrap_or(u64::MAX).max(1);
        self.clean_ms.push(clean);
        if let Some(unclean) = self.unclean_ms.last() {
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
            self.ratios.push(*unclean as f64 / clean as f64);
        }
    }

    /// All kinds together.
    pub fn total(&self) -> Row {
        self.rows.values().fold(Row::default(), |sum, row| Row {
            acknowledged: sum.acknowledged + row.acknowledged,
            due: sum.due + row.due,
            kept: sum.kept + row.kept,
            younger: sum.younger + row.younger,
            lost: sum.lost + row.lost,
            damaged: sum.damaged + row.damaged,
        })
    }

    /// What must be zero, and is not.
    pub fn failures(&self) -> Vec<String> {
        let rows = self.rows.get(&Kind::DatabaseRow).copied().unwrap_or_default();
        let zeros = [
            (self.total().lost - rows.lost, "gone though a sync had covered it"),
            (rows.lost, "rows gone though their commit was answered"),
            (rows.damaged, "rows damaged though their commit was answered"),
            (self.damaged_images, "images listed and damaged"),
            (self.damaged_again, "images damaged again when they were loaded again"),
            (self.dead, "containers dead"),
            (self.not_back, "times a container that restarts always did not"),
            (self.failed_starts, "starts failed"),
            (self.unclean_stops, "stops not clean"),
            (self.fsck, "file systems not clean"),
            (self.broken, "rounds broken off"),
        ];
        let zeros = zeros.into_iter().chain(self.wrong.iter().map(|(what, count)| (*count, *what)));
        zeros.filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }
}

/// The median of some samples; zero when there are none.
pub(super) fn median<T: Copy + Default + PartialOrd>(samples: &[T]) -> T {
    let mut sorted = samples.to_vec();
    sorted.sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
