//! The work that an engine is disturbed at: whatever users make engines acknowledge.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::content::{LABEL, Layer, Payload, checksum};
use super::engine::{Engine, expect};
use super::ledger::{Kind, Shared, Thing};
use super::packing;
use super::random::Random;
use super::registry::Registry;

/// The name of the image that everything is built on.
pub(super) const BASE: &str = "busybox:base";
/// More than this of images, containers and volumes makes room before it makes more.
const MOST: usize = 4;

/// Who makes an engine do things. What it does is decided by its random numbers.
#[derive(Debug)]
pub(super) struct Worker<'a> {
    /// Who does it.
    pub(super) engine: &'a Engine,
    /// Where its answers are noted.
    pub(super) ledger: Shared,
    /// What decides.
    pub(super) random: Random,
    /// Where to pull from.
    pub(super) registry: &'a Registry,
    /// A folder for archives.
    pub(super) scratch: &'a Path,
    /// How large an image may be, in bytes.
    pub(super) largest: u64,
}

impl Worker<'_> {
    /// Does one thing with an image, or makes room for more.
    pub(super) fn image_work(&mut self) -> Result<()> {
        let images = self.ledger.lock().images();
        let removable: Vec<_> = images.iter().filter(|(name, _)| name != BASE).collect();
        if removable.len() >= MOST
            && let Some((name, _)) = self.random.pick(&removable)
        {
            self.ledger.lock().let_go(|claim| claim.name == *name);
            // An image that a container stands on stays, and may.
            self.engine.docker(&["rmi", "-f", name])?;
            return Ok(());
        }
        // Twice what writes layers without mounting them: nothing else saves these by chance.
        let kinds = [
            Kind::Load,
            Kind::Load,
            Kind::Pull,
            Kind::Pull,
            Kind::Import,
            Kind::BuildKit,
            Kind::BuildKit,
            Kind::Classic,
            Kind::Commit,
            Kind::Tag,
        ];
        match self.random.pick(&kinds) {
            Some(Kind::Load) => self.load(),
            Some(Kind::Pull) => self.pull(),
            Some(Kind::Import) => self.import(),
            Some(Kind::Commit) => self.commit(),
            Some(Kind::Classic) => self.build(Kind::Classic),
            Some(Kind::BuildKit) => self.build(Kind::BuildKit),
            _ => self.tag(),
        }
    }

    /// Does one thing with a volume or a container, or makes room for more.
    pub(super) fn container_work(&mut self) -> Result<()> {
        let (volumes, containers) = {
            let ledger = self.ledger.lock();
            (ledger.names(Kind::Volume), ledger.names(Kind::Container))
        };
        if containers.len() >= MOST
            && let Some(name) = self.random.pick(&containers)
        {
            self.ledger.lock().let_go(|claim| claim.kind == Kind::Container && claim.name == *name);
            self.engine.docker(&["rm", "-f", name])?;
            return Ok(());
        }
        match self.random.between(0, 3) {
            0 => self.container(),
            1 if volumes.len() < MOST => self.volume().map(drop),
            _ => self.content(&volumes),
        }
    }

    /// An image by `docker load`.
    pub(super) fn load(&mut self) -> Result<()> {
        let payload = self.payload();
        self.load_again(&payload, Kind::Load).map(drop)
    }

    /// Loads a payload, which may have been in the engine before; the name that it was given.
    pub(super) fn load_again(&mut self, payload: &Arc<Payload>, kind: Kind) -> Result<String> {
        let name = self.name("loaded");
        let archive = packing::for_load(payload, &name, self.scratch)?;
        expect(self.engine.exec(&["-i"], &["docker", "load", "-q"]).stdin_file(archive.path()))?;
        self.acknowledged(kind, &name, payload);
        Ok(name)
    }

    /// An image by `docker pull`.
    pub(super) fn pull(&mut self) -> Result<()> {
        let payload = self.payload();
        let name = self.registry.publish(&payload, &payload.id)?;
        self.engine.ask(&["pull", "-q", &name])?;
        self.acknowledged(Kind::Pull, &name, &payload);
        Ok(())
    }

    /// An image by `docker import`.
    pub(super) fn import(&mut self) -> Result<()> {
        let (payload, name) = (self.payload(), self.name("imported"));
        let archive = packing::for_import(&payload, self.scratch)?;
        let label = format!("LABEL {LABEL}={}", payload.id);
        let import = ["docker", "import", "-c", "ENV PATH=/bin", "-c", &label, "-", &name];
        expect(self.engine.exec(&["-i"], &import).stdin_file(archive.path()))?;
        self.acknowledged(Kind::Import, &name, &payload);
        Ok(())
    }

    /// An image by `docker commit`, and the container that it is made of.
    pub(super) fn commit(&mut self) -> Result<()> {
        let (payload, name) = (self.payload(), self.name("committed"));
        let container = self.ledger.lock().name("written");
        let archive = packing::files(&payload.layers, self.scratch)?;
        let run = ["docker", "run", "-i", "--name", &container, BASE, "busybox", "tar", "-x", "-C", "/"];
        expect(self.engine.exec(&["-i"], &run).stdin_file(archive.path()))?;
        let gone = Thing::Container { runs: false };
        self.ledger.lock().acknowledge(Kind::Container, &container, gone, &[]);
        let label = format!("LABEL {LABEL}={}", payload.id);
        self.engine.ask(&["commit", "-c", &label, &container, &name])?;
        self.acknowledged(Kind::Commit, &name, &payload);
        Ok(())
    }

    /// An image by one of the builders, of one of the kinds that differ on the disk.
    pub(super) fn build(&mut self, kind: Kind) -> Result<()> {
        let (mut payload, name) = (self.payload(), self.name("built"));
        let in_context = payload.layers.clone();
        let label = format!("LABEL {LABEL}={}", payload.id);
        let copies = |layers: &[Arc<Layer>]| -> String {
            layers.iter().map(|layer| format!("COPY {0} /{0}\n", layer.folder())).collect()
        };
        let dockerfile = match self.random.between(0, 2) {
            // One layer on nothing: no overlay is mounted for it, so nothing syncs it by chance.
            0 => format!("FROM scratch\n{label}\nENV PATH=/bin\nCOPY . /\n"),
            // BuildKit brings the base itself, with layers that it has not made.
            1 => {
                let base = self.payload();
                let name = self.registry.publish(&base, &base.id)?;
                payload = self.known(base.layers.iter().chain(&in_context).cloned().collect());
                format!("FROM {name}\nLABEL {LABEL}={}\n{}", payload.id, copies(&in_context))
            }
            _ => format!("FROM {BASE}\n{label}\n{}RUN busybox true\n", copies(&in_context)),
        };
        let context = packing::for_build(&in_context, &dockerfile, self.scratch)?;
        let builder = if kind == Kind::Classic { "DOCKER_BUILDKIT=0" } else { "DOCKER_BUILDKIT=1" };
        let build = ["docker", "build", "-q", "-t", &name, "-"];
        expect(self.engine.exec(&["-i", "-e", builder], &build).stdin_file(context.path()))?;
        self.acknowledged(kind, &name, &payload);
        Ok(())
    }

    /// A second name for an image.
    pub(super) fn tag(&mut self) -> Result<()> {
        let images = self.ledger.lock().images();
        let name = self.name("tagged");
        let (image, payload) = self.random.pick(&images).context("no image to tag")?;
        self.engine.ask(&["tag", image, &name])?;
        self.acknowledged(Kind::Tag, &name, payload);
        Ok(())
    }

    /// A volume.
    pub(super) fn volume(&mut self) -> Result<String> {
        let name = self.ledger.lock().name("volume");
        self.engine.ask(&["volume", "create", &name])?;
        self.ledger.lock().acknowledge(Kind::Volume, &name, Thing::Volume, &[]);
        Ok(name)
    }

    /// A file in a volume, written by a container that has ended.
    pub(super) fn content(&mut self, volumes: &[String]) -> Result<()> {
        let volume = match self.random.pick(volumes) {
            Some(volume) => volume.clone(),
            None => self.volume()?,
        };
        let (file, container) = {
            let mut ledger = self.ledger.lock();
            (ledger.name("file"), ledger.name("writer"))
        };
        let length = self.random.between(1, 2 << 20);
        let bytes = self.random.bytes(usize::try_from(length)?);
        let checksum = checksum(&bytes);
        let (mount, script) = (format!("{volume}:/v"), format!("cat > /v/{file}"));
        let run =
            ["docker", "run", "-i", "--rm", "--name", &container, "-v", &mount, BASE, "sh", "-c", &script];
        expect(self.engine.exec(&["-i"], &run).stdin(bytes))?;
        self.ledger.lock().acknowledge(
            Kind::Content,
            &file,
            Thing::Content { volume, checksum },
            &[&container],
        );
        Ok(())
    }

    /// A container that runs, or that ran.
    pub(super) fn container(&mut self) -> Result<()> {
        let name = self.ledger.lock().name("container");
        let runs = self.random.chance(50);
        let (policy, script) =
            if runs { ("always", "while :; do sleep 1; done") } else { ("no", "echo done") };
        self.engine.ask(&["run", "-d", "--name", &name, "--restart", policy, BASE, "sh", "-c", script])?;
        self.ledger.lock().acknowledge(Kind::Container, &name, Thing::Container { runs }, &[]);
        Ok(())
    }

    /// A new payload; it may share its lower layers with an image that is there.
    fn payload(&mut self) -> Arc<Payload> {
        let images = self.ledger.lock().images();
        let mut layers = match self.random.pick(&images) {
            Some((_, sibling)) if self.random.chance(33) => sibling.layers.iter().take(1).cloned().collect(),
            _ => Vec::new(),
        };
        let size = self.random.size(self.largest);
        let count = self.random.between(1, 3);
        for _ in 0..count {
            layers.push(Arc::new(Layer::new(&mut self.random, size / count)));
        }
        self.known(layers)
    }

    fn known(&mut self, layers: Vec<Arc<Layer>>) -> Arc<Payload> {
        let id = self.ledger.lock().name("payload");
        let payload = Arc::new(Payload::new(id, layers));
        self.ledger.lock().payloads.insert(payload.id.clone(), Arc::clone(&payload));
        payload
    }

    fn name(&self, prefix: &str) -> String {
        format!("{}:1", self.ledger.lock().name(prefix))
    }

    /// Notes an image. Its id is asked for afterwards: the event of a load names only that.
    fn acknowledged(&self, kind: Kind, name: &str, payload: &Arc<Payload>) {
        let claim = self.ledger.lock().acknowledge(kind, name, Thing::Image(Arc::clone(payload)), &[]);
        if let Ok(id) = self.engine.ask(&["image", "inspect", "--format", "{{.Id}}", name]) {
            self.ledger.lock().also_known_as(claim, id);
        }
    }
}
