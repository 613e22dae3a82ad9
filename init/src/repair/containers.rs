//! The engine's containers as they lie on disk (moby, `container/container.go` and `layer/filestore.go`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::layers;

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) id: String,
    /// Its name; empty, where that is not known any more.
    pub(crate) name: String,
    /// How it is.
    pub(crate) state: State,
    /// The graph driver, and the chain id of the image layer that it stands on.
    pub(crate) stands_on: Option<(String, String)>,
}

/// How a container was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It can be looked after by the engine.
    Usable,
    /// It has no configuration: its creation was not acknowledged, or its removal was under way.
    Half,
    /// Its configuration cannot be understood.
    Broken,
    /// Its removal had begun, and the engine does not end it by itself.
    Dead,
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "State", default)]
    state: Flags,
}

#[derive(Default, Deserialize)]
struct Flags {
    #[serde(rename = "Dead", default)]
    dead: bool,
    #[serde(rename = "RemovalInProgress", default)]
    removal_in_progress: bool,
}

impl Container {
    /// How a user knows it.
    pub(crate) fn title(&self) -> String {
        let short = self.id.get(..12).unwrap_or(&self.id);
        if self.name.is_empty() { short.to_owned() } else { format!("{} ({short})", self.name) }
    }
}

/// All containers that have a folder of their own.
///
/// # Errors
/// A configuration that is there cannot be read: that says nothing about its container.
pub(crate) fn all(engine_root: &Path) -> io::Result<Vec<Container>> {
    let folder = engine_root.join("containers");
    let ids = layers::entries(&folder).into_iter().filter(|id| layers::is_name(id));
    ids.map(|id| {
        let (name, state) = match fs::read(folder.join(&id).join("config.v2.json")) {
            Ok(text) => parse(&text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => (String::new(), State::Half),
            Err(e) => return Err(e),
        };
        let stands_on = layers::drivers().find_map(|driver| {
            let parent = fs::read_to_string(engine_root.join(mount(driver, &id)).join("parent")).ok()?;
            Some((driver.to_owned(), layers::digest(&parent)?))
        });
        Ok(Container { id, name, state, stands_on })
    })
    .collect()
}

/// A container's name and how it was left, from its configuration.
pub(crate) fn parse(config: &[u8]) -> (String, State) {
    match serde_json::from_slice::<Config>(config) {
        Err(_) => (String::new(), State::Broken),
        Ok(config) => {
            let gone = config.state.dead || config.state.removal_in_progress;
            let name = config.name.trim_start_matches('/').to_owned();
            (name, if gone { State::Dead } else { State::Usable })
        }
    }
}

/// Where the engine keeps what it knows of a container's own layer.
fn mount(driver: &str, id: &str) -> PathBuf {
    Path::new("image").join(driver).join("layerdb/mounts").join(id)
}

/// Everything that belongs to a container, below the engine's root.
pub(crate) fn places(engine_root: &Path, id: &str) -> Vec<PathBuf> {
    let mut places = vec![Path::new("containers").join(id)];
    for driver in layers::drivers() {
        let mount = mount(driver, id);
        for name in ["mount-id", "init-id"] {
            let layer = fs::read_to_string(engine_root.join(&mount).join(name)).unwrap_or_default();
            if layers::is_name(layer.trim()) {
                places.extend(layer_places(engine_root, driver, layer.trim()));
            }
        }
        places.push(mount);
    }
    places.retain(|place| engine_root.join(place).symlink_metadata().is_ok());
    places
}

/// Where a graph driver keeps a layer, below the engine's root.
pub(crate) fn layer_places(engine_root: &Path, driver: &str, cache_id: &str) -> Vec<PathBuf> {
    if driver == "vfs" {
        return vec![Path::new("vfs/dir").join(cache_id)];
    }
    let place = Path::new(driver).join(cache_id);
    // The short name under which it is mounted, so that the names of many layers fit into one mount(2).
    let link = fs::read_to_string(engine_root.join(&place).join("link")).unwrap_or_default();
    let mut places = Vec::new();
    if layers::is_name(link.trim()) {
        places.push(Path::new(driver).join("l").join(link.trim()));
    }
    places.push(place);
    places
}
