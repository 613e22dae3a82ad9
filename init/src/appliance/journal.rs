//! How far the application has come, written down under /run for the case that whoever looks after it dies and is started again:
//! it goes on where the other was, and starts nothing a second time. It ends with the host.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// What is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Whether Compose has started everything.
    pub(super) is_up: bool,
    /// Containers that had ended before: see [`Containers::begin`](super::containers::Containers::begin).
    pub(super) past: BTreeMap<String, String>,
    /// When the first that looked after the application began: what containers that are older wrote before is no news.
    since: String,
}

/// The journal.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    state: Mutex<State>,
    /// The last line that was passed on of each container: when it was written.
    positions: Mutex<BTreeMap<String, String>>,
    /// How many lines were passed on.
    passed: AtomicU64,
}

impl Journal {
    /// Opens the journal in `folder`, or begins one.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let written = fs::read(folder.join(STATE)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let is_new = written.is_none();
        let since = || moment(OffsetDateTime::now_utc());
        let state = written.unwrap_or_else(|| State { since: since(), ..State::default() });
        let journal = Self {
            folder: folder.to_owned(),
            state: Mutex::new(state),
            positions: Mutex::default(),
            passed: AtomicU64::new(0),
        };
        if is_new {
            journal.change(|_| ())?;
        }
        Ok(journal)
    }

    pub(super) fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is written down.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let new = self.folder.join(".new");
        fs::write(&new, serde_json::to_vec(&*state).map_err(io::Error::other)?)?;
        fs::rename(new, self.folder.join(STATE))
    }

    /// These were there before this host: what they wrote then has been read.
    pub(super) fn were_there(&self, ids: &[String]) {
        let since = self.state().since;
        for id in ids.iter().filter(|id| self.position(id).is_none()) {
            self.note(id, &since);
        }
    }

    /// Up to where a container was read; `None`: from its beginning.
    pub(super) fn position(&self, id: &str) -> Option<String> {
        let positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = positions.get(id).cloned().or_else(|| fs::read_to_string(self.folder.join(id)).ok());
        noted.filter(|noted| !noted.is_empty())
    }

    /// How many lines were passed on so far.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// A container was read up to here. Of one length each, so that the file is never half of another.
    pub(super) fn note(&self, id: &str, moment: &str) {
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        positions.insert(id.to_owned(), moment.to_owned());
        self.passed.fetch_add(1, Ordering::Relaxed);
        // That it cannot be written costs lines only if we die, too.
        let _ = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(self.folder.join(id))
            .and_then(|file| std::os::unix::fs::FileExt::write_all_at(&file, moment.as_bytes(), 0));
    }
}

const STATE: &str = "state.json";

/// A moment as the engine writes it before lines: of one length, so that it can be compared as text.
fn moment(at: OffsetDateTime) -> String {
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.nanosecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_next_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("journal");
        let first = Journal::open(&folder).unwrap();
        let since = first.state().since;
        first.were_there(&["old".to_owned()]);
        assert_eq!(first.position("old"), Some(since.clone()));
        assert_eq!(first.position("new"), None);
        first.note("new", "2026-01-02T03:04:05.000000006Z");
        first.note("new", "2026-01-02T03:04:06.000000006Z");
        first.change(|state| state.is_up = true).unwrap();
        let next = Journal::open(&folder).unwrap();
        assert_eq!(next.state(), State { is_up: true, past: BTreeMap::new(), since });
        assert_eq!(next.position("new").as_deref(), Some("2026-01-02T03:04:06.000000006Z"));
    }

    #[test]
    fn moments_are_of_one_length() {
        let at = OffsetDateTime::from_unix_timestamp(1_767_323_045).unwrap();
        assert_eq!(moment(at), "2026-01-02T03:04:05.000000000Z");
    }
}
