//! What each row holds, which of them were answered, and what of that is there later.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::content::{checksum, hexadecimal};
use super::super::random::Random;
use super::super::tally::Fate;
use super::database::Stored;

/// How many connections commit rows at the same time.
pub(super) const WRITERS: u64 = 3;

/// The rows of one database.
#[derive(Debug)]
pub(super) struct Ledger {
    /// What the rows' contents are made of.
    seed: u64,
    /// The next id; those below may have been sent.
    next: AtomicU64,
    /// Those whose answer was read since the last comparison: on this machine, outside of the engine.
    answered: Mutex<BTreeSet<u64>>,
    /// The checksums of those that were seen: they are there for good.
    seen: BTreeMap<u64, String>,
}

/// What is there, next to what was answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// What became of each row that was answered, and whether it was seen before.
    pub(super) fates: Vec<(u64, Fate, bool)>,
    /// Rows that are whole, though their answer did not come through.
    pub(super) unanswered: usize,
    /// Rows that were not answered and are not whole, or that nobody sent.
    pub(super) strange: Vec<u64>,
}

impl Ledger {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, next: AtomicU64::new(1), answered: Mutex::default(), seen: BTreeMap::new() }
    }

    /// A row that was not sent before, which its own commit follows: the database answers an insertion outside of a transaction
    /// when it is committed, and prints the id with that answer.
    pub(super) fn insertion(&self) -> (u64, String) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (writer, content) = (id % WRITERS, self.content(id));
        let sql = format!("INSERT INTO entries VALUES ({id}, {writer}, '{content}') RETURNING id;\n");
        (id, sql)
    }

    /// Notes that the commit of a row was answered.
    pub(super) fn answer(&self, id: u64) {
        self.answered().insert(id);
    }

    /// The rows that were answered since the last comparison.
    pub(super) fn answered(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mostly short; now and then so long that it lies outside of the row.
    fn content(&self, id: u64) -> String {
        let mut random = Random::new(self.seed.wrapping_add(id));
        let length = if random.chance(2) { random.between(4000, 16_000) } else { random.between(8, 200) };
        hexadecimal(&random.bytes(usize::try_from(length).unwrap_or(8)))
    }

    fn checksum(&self, id: u64) -> String {
        checksum(format!("{} {}", id % WRITERS, self.content(id)).as_bytes())
    }

    /// Compares the rows that are stored with those that were answered since the last time, and those that were seen by then.
    pub(super) fn compare(&mut self, stored: &[Stored]) -> Comparison {
        let answered = std::mem::take(&mut *self.answered());
        let sent = 1..self.next.load(Ordering::Relaxed);
        let mut found: HashMap<u64, Vec<&str>> = HashMap::new();
        for (id, checksum) in stored {
            found.entry(*id).or_default().push(checksum);
        }
        let mut comparison = Comparison::default();
        let mut seen = BTreeMap::new();
        let before = std::mem::take(&mut self.seen);
        let new = answered.iter().filter(|id| !before.contains_key(id));
        let new: Vec<_> = new.map(|id| (*id, self.checksum(*id), false)).collect();
        let due = before.into_iter().map(|(id, checksum)| (id, checksum, true));
        for (id, checksum, again) in due.chain(new) {
            let fate = match found.remove(&id).as_deref() {
                None => Fate::Lost,
                Some([one]) if *one == checksum => Fate::Kept,
                Some(_) => Fate::Damaged,
            };
            comparison.fates.push((id, fate, again));
            if fate == Fate::Kept {
                seen.insert(id, checksum);
            }
        }
        for (id, checksums) in found {
            if sent.contains(&id) && checksums == [self.checksum(id)] {
                comparison.unanswered += 1;
                seen.insert(id, checksums[0].to_owned());
            } else {
                comparison.strange.push(id);
            }
        }
        comparison.strange.sort_unstable();
        self.seen = seen;
        comparison
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger of which rows 1 to 6 were sent and these answered, and all six as they have to be stored.
    fn six(answered: &[u64]) -> (Ledger, Vec<Stored>) {
        let ledger = Ledger::new(7);
        let ids: Vec<u64> = (0..6).map(|_| ledger.insertion().0).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
        answered.iter().for_each(|id| ledger.answer(*id));
        let stored = ids.iter().map(|id| (*id, ledger.checksum(*id))).collect();
        (ledger, stored)
    }

    #[test]
    fn a_row_is_the_same_whenever_it_is_made() {
        let (one, other) = (Ledger::new(3), Ledger::new(3));
        for _ in 0..200 {
            assert_eq!(one.insertion(), other.insertion());
        }
        assert_ne!(one.insertion().1, Ledger::new(3).insertion().1);
    }

    #[test]
    fn every_fate_is_found() {
        let (mut ledger, mut stored) = six(&[1, 2, 3, 4]);
        stored.retain(|(id, _)| *id != 2);
        stored[1].1 = "other".into();
        stored.push(stored[2].clone());
        let comparison = ledger.compare(&stored);
        let fates = [(1, Fate::Kept), (2, Fate::Lost), (3, Fate::Damaged), (4, Fate::Damaged)];
        assert_eq!(comparison.fates, fates.map(|(id, fate)| (id, fate, false)));
        assert_eq!((comparison.unanswered, comparison.strange), (2, vec![]));
    }

    #[test]
    fn what_was_seen_once_has_to_stay() {
        let (mut ledger, mut stored) = six(&[1]);
        ledger.compare(&stored);
        assert_eq!(ledger.seen.len(), 6);
        stored.pop();
        let comparison = ledger.compare(&stored);
        let fates: Vec<_> = (1..=5).map(|id| (id, Fate::Kept, true)).chain([(6, Fate::Lost, true)]).collect();
        assert_eq!(comparison, Comparison { fates, ..Comparison::default() });
    }

    #[test]
    fn rows_in_part_and_rows_that_nobody_sent_are_found() {
        let (mut ledger, mut stored) = six(&[1, 2, 3, 4]);
        stored[5].1 = checksum(b"in part");
        stored.push((7, ledger.checksum(7)));
        let comparison = ledger.compare(&stored);
        assert_eq!((comparison.unanswered, comparison.strange), (1, vec![6, 7]));
    }
}
