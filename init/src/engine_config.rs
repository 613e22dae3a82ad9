//! dockerd's configuration file: the user's, and what the host decides beside it. dockerd refuses what it finds both among
//! its options and in its file, and reads one file only: so the host writes one that has it all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dind_contract::paths;
use serde_json::{Map, Value};

use crate::options::check_config;

/// Keys that the host takes from the file and gives to dockerd as options.
const TAKEN: [&str; 2] = ["data-root", "pidfile"];

/// The configuration of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EngineConfig {
    /// The user's file.
    source: PathBuf,
    /// What it says.
    theirs: Map<String, Value>,
    /// What was decided.
    ours: Map<String, Value>,
}

impl EngineConfig {
    /// What `source` says (`theirs`) with what was decided (`ours`).
    pub(crate) fn new(source: &Path, theirs: &Map<String, Value>, ours: Map<String, Value>) -> Self {
        Self { source: source.to_owned(), theirs: theirs.clone(), ours }
    }

    /// Writes it to where dockerd reads it.
    ///
    /// # Errors
    /// What the file system said.
    pub(crate) fn write(&self) -> io::Result<()> {
        self.write_to(Path::new(paths::ENGINE_CONFIG))
    }

    /// Reads the user's file again, and writes what has become of it. If it cannot be used, nothing is changed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read_again(
        &mut self,
        read: impl Fn(&Path) -> io::Result<Option<String>>,
    ) -> Result<(), String> {
        let name = self.source.display().to_string();
        let text = read(&self.source).map_err(|e| format!("cannot read {name}: {e}"))?.unwrap_or_default();
        self.theirs = check_config(&text, &name).map_err(|failure| failure.cause)?;
        self.write().map_err(|e| format!("cannot write {}: {e}", paths::ENGINE_CONFIG))
    }

    fn write_to(&self, path: &Path) -> io::Result<()> {
        let mut all = merged(&self.theirs, &self.ours);
        all.retain(|key, _| !TAKEN.contains(&key.as_str()));
        // dockerd must never read half of it.
        let new = path.with_extension("new");
        fs::write(&new, Value::Object(all).to_string())?;
        fs::rename(new, path)
    }
}

/// Both, and `theirs` where they differ. Lists are joined, and objects one level deep: what a user says of a part of the
/// engine stands alone. Case does not count in keys, as dockerd has it.
fn merged(theirs: &Map<String, Value>, ours: &Map<String, Value>) -> Map<String, Value> {
    let mut all = theirs.clone();
    for (key, value) in ours {
        match (get(&mut all, key), value) {
            (None, value) => {
                all.insert(key.clone(), value.clone());
            }
            (Some(Value::Array(there)), Value::Array(more)) => {
                let new: Vec<Value> = more.iter().filter(|value| !there.contains(value)).cloned().collect();
                there.extend(new);
            }
            (Some(Value::Object(there)), Value::Object(more)) => {
                for (key, value) in more {
                    if get(there, key).is_none() {
                        there.insert(key.clone(), value.clone());
                    }
                }
            }
            _ => {}
        }
    }
    all
}

fn get<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Value> {
    map.iter_mut().find(|(there, _)| there.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { panic!("{value}") };
        map
    }

    fn ours() -> Map<String, Value> {
        object(json!({
            "registry-mirrors": ["http://ours"],
            "builder": {"gc": {"enabled": true}},
            "default-ulimits": {"nofile": {"Soft": 1}},
        }))
    }

    #[test]
    fn what_the_user_says_stands() {
        let table = [
            (json!({}), Value::Object(ours())),
            (
                json!({"registry-mirrors": ["http://theirs", "http://ours"], "debug": true}),
                json!({
                    "registry-mirrors": ["http://theirs", "http://ours"],
                    "debug": true,
                    "builder": {"gc": {"enabled": true}},
                    "default-ulimits": {"nofile": {"Soft": 1}},
                }),
            ),
            (
                json!({
                    "Builder": {"GC": {"enabled": false}, "Entitlements": {}},
                    "default-ulimits": {"memlock": {"Hard": 2}},
                    "registry-mirrors": "not a list",
                }),
                json!({
                    "Builder": {"GC": {"enabled": false}, "Entitlements": {}},
                    "default-ulimits": {"memlock": {"Hard": 2}, "nofile": {"Soft": 1}},
                    "registry-mirrors": "not a list",
                }),
            ),
        ];
        for (theirs, expected) in table {
            assert_eq!(Value::Object(merged(&object(theirs.clone()), &ours())), expected, "{theirs}");
        }
    }

    #[test]
    fn what_the_host_passes_as_options_is_not_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.json");
        let theirs = object(json!({"data-root": "/d", "pidfile": "/p", "debug": true}));
        EngineConfig::new(Path::new("/x"), &theirs, Map::new()).write_to(&path).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), r#"{"debug":true}"#);
    }

    #[test]
    fn a_file_that_cannot_be_used_changes_nothing() {
        let theirs = object(json!({"debug": true}));
        let mut config = EngineConfig::new(Path::new("/x.json"), &theirs, Map::new());
        for (text, cause) in [("{", "/x.json is not JSON"), (r#"{"hosts": []}"#, "\"hosts\" is decided")] {
            let why = config.read_again(|_| Ok(Some(text.to_owned()))).unwrap_err();
            assert!(why.contains(cause), "{why}");
            assert_eq!(config.theirs, theirs);
        }
        let why = config.read_again(|_| Err(io::Error::other("broken"))).unwrap_err();
        assert_eq!(why, "cannot read /x.json: broken");
    }
}
