//! Who is tormented: the image of its engines, and what they have from the beginning.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

use super::Settings;
use super::content::{LABEL, Layer, Payload};
use super::engine::{Engine, Way, expect};
use super::ledger::{Kind, Shared, Thing};
use super::packing;
use super::random::Random;
use super::work::BASE;
use crate::image;
use crate::sealed::{Baked, Baking};

/// What has containerd keep the images.
const SNAPSHOTTER: &str = r#"{"features": {"containerd-snapshotter": true}}"#;
/// The name of the image in a store that nothing is built on.
const SEALED: &str = "sealed:1";
/// Who goes on whatever happens to it, of two images: what is loaded, built and committed stands on them, too.
const APPLICATION: &str = "\
services:
  base: {image: 'busybox:base', init: true, network_mode: none, restart: always, command: [sleep, '1000000']}
  sealed: {image: 'sealed:1', init: true, network_mode: none, restart: always, command: [sleep, '1000000']}
";

/// The engines of one campaign.
#[derive(Debug)]
pub(super) struct Subject {
    /// Who runs them.
    pub(super) way: Way,
    store: Option<Store>,
    /// The daemon.json of those that keep their images in containerd.
    config: Option<PathBuf>,
}

/// A sealed appliance.
#[derive(Debug)]
struct Store {
    baked: Baked,
    _baking: Baking,
    payload: Arc<Payload>,
}

impl Subject {
    /// Those of this way; of a sealed appliance with images of up to the largest size, which is baked first.
    ///
    /// # Errors
    /// When there is no room for what is baked, or for a file.
    ///
    /// # Panics
    /// When it cannot be baked.
    pub(super) fn new(way: Way, settings: &Settings, scratch: &Path, random: &mut Random) -> Result<Self> {
        let store = match way {
            Way::Sealed => Some(Store::new(settings.largest, scratch, random)?),
            _ => None,
        };
        let config = settings.in_containerd.then(|| scratch.join("daemon.json"));
        if let Some(file) = &config {
            fs::write(file, SNAPSHOTTER)?;
        }
        Ok(Self { way, store, config })
    }

    /// A container with an engine of theirs, with `data` (a volume or a folder) as its data root and these options of dockerd.
    pub(super) fn engine(&self, data: &str, dockerd: &[String]) -> Result<Engine> {
        let image = self.store.as_ref().map_or(image(), |store| store.baked.tag());
        let mount =
            |file: &PathBuf| ["-v".to_owned(), format!("{}:/etc/docker/daemon.json:ro", file.display())];
        let run: Vec<String> = self.config.iter().flat_map(mount).collect();
        let mut engine = Engine::create(self.way, image, data, dockerd, &run)?;
        engine.in_containerd = self.config.is_some();
        Ok(engine)
    }

    /// Brings the base into an engine, or notes what it came with.
    pub(super) fn prepare(&self, engine: &Engine, ledger: &Shared) -> Result<()> {
        let base = Arc::new(Payload::base());
        let mut came = vec![(Kind::Import, BASE, base)];
        if let Some(store) = &self.store {
            came[0].0 = Kind::Sealed;
            came.push((Kind::Sealed, SEALED, Arc::clone(&store.payload)));
        } else {
            import(engine)?;
        }
        let mut ledger = ledger.lock();
        for (kind, name, payload) in came {
            ledger.payloads.insert(payload.id.clone(), Arc::clone(&payload));
            ledger.acknowledge(kind, name, Thing::Image(payload), &[]);
        }
        Ok(())
    }
}

impl Store {
    fn new(largest: u64, scratch: &Path, random: &mut Random) -> Result<Self> {
        let layers = (0..3).map(|_| Arc::new(Layer::new(random, largest / 4))).collect();
        let payload = Arc::new(Payload::new("sealed".into(), layers));
        let archives = [
            packing::for_load(&Payload::base(), BASE, scratch)?,
            packing::for_load(&payload, SEALED, scratch)?,
        ];
        let archives: Vec<String> =
            archives.iter().map(|it| it.path().to_string_lossy().into_owned()).collect();
        let options: Vec<&str> = archives.iter().flat_map(|it| ["--image-archive", it]).collect();
        let baking = Baking::new();
        baking.write("docker-compose.yml", APPLICATION);
        let baked = baking.bake(&options);
        Ok(Self { baked, _baking: baking, payload })
    }
}

/// Brings the base into an engine that has nothing.
pub(super) fn import(engine: &Engine) -> Result<()> {
    let label = format!("LABEL {LABEL}=base");
    let import = ["docker", "import", "-c", "ENV PATH=/bin", "-c", "CMD [\"sh\"]", "-c", &label, "-", BASE];
    expect(engine.exec(&["-i"], &import).stdin(image::busybox())).map(drop)
}
