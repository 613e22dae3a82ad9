//! What the tests expect of an image: its `image.yaml`, which says what the documentation of the official image says.

use serde::Deserialize;

use super::archive::{FACTS, folder, names};

/// What is in an `image.yaml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Options of `docker run`.
    #[serde(default)]
    pub run: Vec<String>,
    /// What follows the image in `docker run`.
    #[serde(default)]
    pub command: Vec<String>,
    /// A text that its log has when it is up.
    pub ready: String,
    /// The user that it changes to, for `docker exec -u`.
    pub user: String,
    /// The uid of its process 1.
    pub uid: u32,
    /// Rows of `docker top -eo pid,uid,comm`, each without its pid.
    pub top: Vec<String>,
    /// The command of its health check, where the image has none of its own.
    pub health: Option<String>,
    /// Where it keeps what it keeps; with it go the next ones.
    volume: Option<String>,
    owner: Option<String>,
    #[serde(default)]
    chowns: bool,
    write: Option<String>,
    read: Option<String>,
    answer: Option<String>,
    /// How `docker stop` ends it.
    pub stop: Stop,
    /// The port that it listens on.
    pub port: u16,
    /// What is sent to the port.
    #[serde(default)]
    pub asks: String,
    /// A text in what then comes back.
    pub answers: String,
}

/// What an image keeps in a volume.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// Where the volume is mounted.
    pub volume: &'a str,
    /// `UID:GID` of everything in it.
    pub owner: &'a str,
    /// Whether its entrypoint takes the volume back when it belongs to somebody else.
    pub chowns: bool,
    /// A line of shell that writes something.
    pub write: &'a str,
    /// One that reads it.
    pub read: &'a str,
    /// What the latter then prints.
    pub answer: &'a str,
}

/// How `docker stop` ends it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// The image's stop signal.
    pub signal: String,
    /// The exit code.
    pub exit_code: i32,
    /// A text that its log then has.
    pub says: String,
}

impl Facts {
    /// Those of an image of `tests/images`.
    ///
    /// # Panics
    /// When there is no such image, or when its `image.yaml` is not one.
    #[track_caller]
    pub fn of(name: &str) -> Self {
        let path = folder(name).join(FACTS);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
            let names = names().join(" ");
            panic!("cannot read {}: {error}\n  help: the images are {names}", path.display())
        });
        let facts: Self =
            serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(
            facts.volume.is_some(),
            facts.kept().is_some(),
            "{}: volume, owner, write, read and answer go together",
            path.display()
        );
        facts
    }

    /// What it keeps in a volume, if anything.
    pub fn kept(&self) -> Option<Kept<'_>> {
        Some(Kept {
            volume: self.volume.as_deref()?,
            owner: self.owner.as_deref()?,
            chowns: self.chowns,
            write: self.write.as_deref()?,
            read: self.read.as_deref()?,
            answer: self.answer.as_deref()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_says_what_is_expected_of_it() {
        for name in names() {
            let facts = Facts::of(&name);
            assert!(!facts.top.is_empty() && !facts.ready.is_empty() && !facts.answers.is_empty(), "{name}");
            // A user of the image's, or the whole test is one of root.
            assert_ne!(facts.user, "root", "{name}");
        }
    }
}
