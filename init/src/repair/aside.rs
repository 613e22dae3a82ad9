//! Where damaged things go: a folder for each repair, with what was said about it. One that was cut off is said again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dind_contract::paths;

use crate::layers;
use crate::sync::write_durably;

/// In the folder of a repair: what it says, written before anything is moved.
const WHAT: &str = "what";
/// The same file, when the repair has come to its end.
const DONE: &str = "done";

/// The folder of one repair.
pub(super) struct Aside<'a> {
    root: &'a Path,
    folder: PathBuf,
    lines: &'a [String],
    begun: bool,
    /// Folders of earlier repairs.
    earlier: Vec<PathBuf>,
}

impl<'a> Aside<'a> {
    /// The next folder below `root`, which is made when it is needed; `lines`: what is said about it.
    pub(super) fn new(root: &'a Path, lines: &'a [String]) -> Self {
        let all = root.join(paths::DAMAGED);
        let numbers = layers::entries(&all).into_iter().filter_map(|name| name.parse::<u64>().ok());
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        let next = numbers.last().map_or(1, |last| last.saturating_add(1));
        let earlier = numbers.iter().map(|number| all.join(number.to_string())).collect();
        Self { root, folder: all.join(next.to_string()), lines, begun: false, earlier }
    }

    /// What repairs that were cut off have not come to say.
    pub(super) fn unfinished(&self) -> Vec<String> {
        let texts = self.earlier.iter().filter_map(|folder| fs::read_to_string(folder.join(WHAT)).ok());
        texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// Makes the folder, with what is said about it.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            fs::create_dir_all(&self.folder)?;
            let text: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
            write_durably(&self.folder.join(WHAT), text.as_bytes())?;
        }
        Ok(())
    }

    /// Moves what lies at `place`, below the root, out of the engine's sight. That it is not there is no error.
    pub(super) fn take(&mut self, place: &Path) -> io::Result<()> {
        let from = self.root.join(place);
        if from.symlink_metadata().is_err() {
            return Ok(());
        }
        self.begin()?;
        let to = self.folder.join(place);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::rename(from, to)
    }

    /// The repair has come to its end. Of earlier ones, those make room that had, too.
    pub(super) fn finish(&self) -> io::Result<()> {
        for folder in &self.earlier {
            if folder.join(WHAT).exists() {
                fs::rename(folder.join(WHAT), folder.join(DONE))?;
            } else if self.begun {
                fs::remove_dir_all(folder)?;
            }
        }
        if self.begun {
            fs::rename(self.folder.join(WHAT), self.folder.join(DONE))?;
        }
        Ok(())
    }
}
