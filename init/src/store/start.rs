//! What a start does about a store: checks it, mounts its layers, and gives the engine their records. By a child, before the engine runs.

use std::path::Path;
use std::time::Duration;

use dind_contract::{exit, paths, store as format};
use serde::{Deserialize, Serialize};

use super::seed::{Links, seed, take_note};
use super::{check, mount};
use crate::failure::Failure;
use crate::ground;
use crate::helper::Helper;
use crate::settings::Settings;

/// How long it may take: everything is small, but a disk may be slow.
const PATIENCE: Duration = Duration::from_secs(120);
/// The word in `/etc/dind/appliance` of an image whose application needs a store.
const SEALED: &str = "sealed";

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// There is nothing to do, or all of it is done.
    Done {
        /// What was done, if anything.
        said: Option<String>,
        /// Lines that a user should read.
        warnings: Vec<String>,
    },
    /// No host can run with it.
    Refused {
        /// The object and the cause.
        cause: String,
        /// What to do about it.
        help: String,
    },
}

impl Answer {
    /// What to log.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) fn judge(self) -> Result<(Option<String>, Vec<String>), Failure> {
        match self {
            Self::Done { said, warnings } => Ok((said, warnings)),
            Self::Refused { cause, help } => Err(Failure { code: exit::UNAVAILABLE, cause, help }),
        }
    }
}

/// Whether there is anything to do: the image has a store, or should have one, or the data root has links into one.
pub(crate) fn is_wanted(data_root: &Path) -> bool {
    Path::new(format::FOLDER).exists() || is_sealed() || data_root.join(paths::STORE_FILE).exists()
}

fn is_sealed() -> bool {
    crate::read_if_there(Path::new(paths::APPLIANCE)).ok().flatten().is_some_and(|word| word.trim() == SEALED)
}

/// Starts the process that does it. `linked`: the engine will read what is written for it.
///
/// # Errors
/// No process can be made.
pub(crate) fn start(settings: &Settings, engine_root: &Path, linked: bool) -> Result<Helper, Failure> {
    let folders = [&settings.daemon.data_root, engine_root].map(|folder| folder.display().to_string());
    let arguments: Vec<String> = std::iter::once("store".to_owned())
        .chain(folders)
        .chain(linked.then(|| "--linked".to_owned()))
        .collect();
    Helper::start("the store", &arguments, &settings.environment, PATIENCE)
}

/// Does it: the work of the process that [`start`] starts.
pub(crate) fn prepare(data_root: &Path, engine_root: &Path, linked: bool) -> Answer {
    let damaged = |cause: String| Answer::Refused {
        cause: format!("the store of this appliance cannot be used: {cause}"),
        help: "pull the appliance's image again, or bake it again".to_owned(),
    };
    let store = match check::read(Path::new(format::FOLDER)) {
        Ok(None) if is_sealed() => return damaged(format!("there is no {}", format::FOLDER)),
        Ok(None) => return without(data_root, engine_root),
        Ok(Some(store)) => store,
        Err(why) => return damaged(why),
    };
    let (images, layers) = (store.manifest.images.len(), store.manifest.layers.len());
    if !linked {
        // Mounted all the same: what the engine is given to load is read from there.
        let how =
            mount::all(&store).err().map_or(String::new(), |why| format!(", from extracted files ({why})"));
        let warning = format!(
            "the engine cannot use the store as it is: it loads {images} images from it{how}, which takes longer"
        );
        return Answer::Done { said: None, warnings: vec![warning] };
    }
    // What waits for the disk, and what waits for the kernel.
    let (noted, mounted) = std::thread::scope(|scope| {
        let noted = scope.spawn(|| take_note(&store, data_root));
        let mounted = mount::all(&store);
        (
            noted.join().unwrap_or_else(|_| Err("the thread that takes note of it has ended".to_owned())),
            mounted,
        )
    });
    if let Err(why) = mounted {
        let links = Links::load(data_root);
        if !links.left(engine_root).is_empty() {
            return Answer::Refused {
                cause: format!(
                    "the store cannot be mounted ({why}), and images in {} ({}) are links into it",
                    data_root.display(),
                    links.names()
                ),
                help: "give the host loop devices (--device-cgroup-rule 'a *:* rwm') on a kernel with erofs, or another volume".to_owned(),
            };
        }
        // What the engine loads is the user's from then on: no later version replaces it.
        let _ = std::fs::remove_file(data_root.join(paths::STORE_FILE));
        let warning = format!(
            "the store cannot be mounted ({why}): its {images} images are extracted and loaded, which takes longer; \
             --device-cgroup-rule 'a *:* rwm' and a kernel with erofs and loop devices avoid that"
        );
        return Answer::Done { said: None, warnings: vec![warning] };
    }
    match noted.and_then(|()| seed(&store, data_root, engine_root)) {
        Ok(warnings) => Answer::Done {
            said: Some(format!("{images} images in {layers} layers are there ({})", store.names())),
            warnings,
        },
        Err(why) => Answer::Refused {
            cause: format!("the images of the store cannot be given to the engine: {why}"),
            help: "look at the data root's disk: it must have room, and be writable".to_owned(),
        },
    }
}

/// A host that has no store, on a data root that may need one.
fn without(data_root: &Path, engine_root: &Path) -> Answer {
    let links = Links::load(data_root);
    if links.left(engine_root).is_empty() {
        let _ = std::fs::remove_file(data_root.join(paths::STORE_FILE));
        return Answer::Done { said: None, warnings: Vec::new() };
    }
    Answer::Refused {
        cause: format!(
            "{} belongs to a sealed appliance: images in it ({}) are links into its store {}, which this image does not have",
            data_root.display(),
            links.names(),
            links.store
        ),
        help: "start the appliance on it, or give this host another volume".to_owned(),
    }
}

/// Takes the layers' mounts away.
pub(crate) fn unmount() {
    ground::detach_below(Path::new(paths::STORE_MOUNTS));
}
