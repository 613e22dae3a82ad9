//! A user's file of keys: changed as a whole, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use dind_contract::paths;

use super::Meant;
use super::accounts::Name;
use super::key::Key;
use crate::failure::Failure;

/// The lines of a file of keys. What is no key to us (a comment, an option of tomorrow) stays as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Lines(pub(super) Vec<String>);

impl Lines {
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.0.iter().filter_map(|line| Key::parse(line).ok())
    }

    /// Makes a key one line of the file, and says what that was.
    pub(super) fn put(&mut self, key: &Key) -> &'static str {
        let new = key.to_string();
        let same = |line: &String| Key::parse(line).is_ok_and(|it| it.is_same(key));
        let mut old: Vec<usize> = Vec::new();
        old.extend(self.0.iter().enumerate().filter(|(_, line)| same(line)).map(|(at, _)| at));
        match self.0.iter_mut().find(|line| same(line)) {
            Some(first) => {
                let said = if *first == new {
                    "key was there already"
                } else {
                    "options and comment of the key replaced"
                };
                *first = new;
                for at in old.into_iter().skip(1).rev() {
                    self.0.remove(at);
                }
                said
            }
            None => {
                self.0.push(new);
                "key added"
            }
        }
    }

    pub(super) fn take(&mut self, meant: &Meant) -> Option<Key> {
        let is_meant = |line: &String| Key::parse(line).ok().filter(|key| meant.is(key));
        let found = self.0.iter().find_map(is_meant)?;
        self.0.retain(|line| is_meant(line).is_none());
        Some(found)
    }
}

/// A user's file of keys.
pub(super) struct KeyFile {
    folder: PathBuf,
    path: PathBuf,
}

impl KeyFile {
    pub(super) fn of(name: &Name) -> Self {
        Self::in_folder(Path::new(paths::AUTHORIZED_KEYS), name)
    }

    fn in_folder(folder: &Path, name: &Name) -> Self {
        Self { folder: folder.to_owned(), path: folder.join(name.as_str()) }
    }

    fn cannot(&self, verb: &str, e: &io::Error) -> Failure {
        Failure::unavailable(
            format!("cannot {verb} {}: {e}", self.path.display()),
            format!("look at the permissions and the room of {}", self.folder.display()),
        )
    }

    pub(super) fn read(&self) -> Result<Lines, Failure> {
        let text = crate::read_if_there(&self.path).map_err(|e| self.cannot("read", &e))?;
        Ok(Lines(text.unwrap_or_default().lines().map(str::to_owned).collect()))
    }

    /// Whole or not at all, and on the disk. No file is left for no keys.
    pub(super) fn write(&self, lines: &Lines) -> Result<(), Failure> {
        let write = || {
            if !self.folder.exists() {
                fs::create_dir_all(&self.folder)?;
                // Whatever the umask: sshd reads it as the user.
                fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o755))?;
            }
            // No name of a user has a dot in it.
            let unfinished = self.folder.join(".unfinished");
            if lines.0.is_empty() {
                match fs::remove_file(&self.path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            } else {
                match fs::remove_file(&unfinished) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
                let mut file =
                    OpenOptions::new().write(true).create_new(true).mode(0o644).open(&unfinished)?;
                for line in &lines.0 {
                    file.write_all(line.as_bytes())?;
                    file.write_all(b"\n")?;
                }
                // Whatever the umask: sshd reads it as the user.
                file.set_permissions(fs::Permissions::from_mode(0o644))?;
                file.sync_all()?;
                fs::rename(&unfinished, &self.path)?;
            }
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|e| self.cannot("write", &e))
    }
}

#[cfg(test)]
mod tests {
    use super::super::key;
    use super::*;

    #[test]
    fn a_key_is_one_line_however_often_it_comes() {
        let all = key::tests::all();
        let (one, other) = (&all[0], &all[1]);
        let keys = |lines: &[&str]| Lines(lines.iter().map(|line| (*line).to_owned()).collect());
        let put = |lines: &mut Lines, line: &str| lines.put(&Key::parse(line).unwrap());
        let mut lines = keys(&["# by hand", "option-of-tomorrow ssh-new AAAA"]);
        assert_eq!(put(&mut lines, one), "key added");
        assert_eq!(put(&mut lines, other), "key added");
        assert_eq!(put(&mut lines, one), "key was there already");
        let restricted = format!("restrict {one} comment");
        assert_eq!(put(&mut lines, &restricted), "options and comment of the key replaced");
        assert_eq!(lines, keys(&["# by hand", "option-of-tomorrow ssh-new AAAA", &restricted, other]));
        // Twice by hand: once afterwards.
        let mut lines = keys(&[one, other, &restricted]);
        put(&mut lines, one);
        assert_eq!(lines, keys(&[one, other]));
        let print = Key::parse(one).unwrap().fingerprint();
        assert!(lines.take(&Meant::Fingerprint(print.clone())).is_some());
        assert!(lines.take(&Meant::Fingerprint(print)).is_none());
        assert!(lines.take(&Meant::Key(Box::new(Key::parse(other).unwrap()))).is_some());
        assert_eq!(lines, Lines::default());
    }

    #[test]
    fn a_file_of_keys_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("keys.d");
        let file = KeyFile::in_folder(&folder, &Name::parse("derek").unwrap());
        assert_eq!(file.read().unwrap(), Lines::default());
        let lines = Lines(vec!["one".into(), "two".into()]);
        // What a call that was killed left behind is in nobody's way.
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(".unfinished"), "x").unwrap();
        file.write(&lines).unwrap();
        assert_eq!(fs::read_to_string(&file.path).unwrap(), "one\ntwo\n");
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(file.read().unwrap(), lines);
        file.write(&Lines::default()).unwrap();
        file.write(&Lines::default()).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::create_dir(&file.path).unwrap();
        assert_eq!(file.write(&lines).unwrap_err().code, 69);
    }
}
