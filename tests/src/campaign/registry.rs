//! A real registry, in a container of its own, whose storage the campaign fills.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::content::{Payload, checksum};
use super::engine::expect;
use super::packing::{Blob, Image};
use crate::command::Call;
use crate::engine;
use crate::options::image;

const PROGRAM: &str = "docker-registry";
const PORT: u16 = 5000;
/// How long it may take until it answers.
const START: Duration = Duration::from_secs(30);

/// A registry without TLS and passwords. Declare it before the engines that pull from it.
#[derive(Debug)]
pub(super) struct Registry {
    container: String,
    address: String,
    storage: PathBuf,
}

impl Registry {
    /// Starts a registry that stores what it has in `folder`.
    ///
    /// # Errors
    /// When Debian's package `docker-registry` is not installed, or the registry does not come up.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let program = program()?;
        let storage = folder.join("registry");
        fs::create_dir_all(&storage)?;
        let config = folder.join("registry.yml");
        // JSON is YAML.
        let text = json!({
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": "/storage"}},
            "http": {"addr": format!(":{PORT}")},
        });
        fs::write(&config, text.to_string())?;
        engine::prepare();
        let container = engine::unique_name();
        let mounts = [
            format!("{}:/registry:ro", program.display()),
            format!("{}:/registry.yml:ro", config.display()),
            format!("{}:/storage", storage.display()),
        ];
        let run = Call::new("docker").args(["run", "-d", "--no-healthcheck", "--entrypoint", "/registry"]);
        let run = run.args(["--name", &container]).args(engine::labels());
        let run = mounts.iter().fold(run, |run, mount| run.args(["-v", mount]));
        let mut registry = Self { container, address: String::new(), storage };
        expect(run.args([image(), "serve", "/registry.yml"])).context("the registry did not start")?;
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let ip = expect(Call::new("docker").args(["inspect", "--format", format, &registry.container]))?;
        registry.address = format!("{ip}:{PORT}");
        let deadline = Instant::now() + START;
        while TcpStream::connect(&registry.address).is_err() {
            let logs = || Call::new("docker").args(["logs", &registry.container]).attempt();
            ensure!(Instant::now() < deadline, "the registry does not answer: {:?}", logs());
            sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }

    /// Where engines find it: `ADDRESS:PORT`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Puts an image there; the name under which it is pulled.
    pub(super) fn publish(&self, payload: &Payload, tag: &str) -> Result<String> {
        let folder = tempfile::TempDir::new_in(&self.storage).context("a folder for layers")?;
        let image = Image::write(payload, folder.path())?;
        for blob in image.layers.iter().chain([&image.config]) {
            self.store(&blob.digest, |path| fs::rename(&blob.path, path))?;
        }
        let entry = |blob: &Blob, media: &str| {
            let media = format!("application/vnd.docker.{media}");
            json!({"mediaType": media, "size": blob.bytes, "digest": format!("sha256:{}", blob.digest)})
        };
        let layers = image.layers.iter().map(|blob| entry(blob, "image.rootfs.diff.tar.gzip"));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": entry(&image.config, "container.image.v1+json"),
            "layers": layers.collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string();
        let digest = checksum(manifest.as_bytes());
        self.store(&digest, |path| fs::write(path, &manifest))?;
        self.link(&format!("_manifests/revisions/sha256/{digest}"), &digest)?;
        self.link(&format!("_manifests/tags/{tag}/current"), &digest)?;
        Ok(format!("{}/app:{tag}", self.address))
    }

    /// Forgets everything that was published.
    pub(super) fn clear(&self) {
        let _ = fs::remove_dir_all(self.storage.join("docker"));
    }

    /// Files a blob, and links it to the one repository there is: the registry's documented storage layout.
    fn store(&self, digest: &str, put: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
        let start = digest.get(..2).unwrap_or_default();
        let folder = self.storage.join(format!("docker/registry/v2/blobs/sha256/{start}/{digest}"));
        fs::create_dir_all(&folder)?;
        put(&folder.join("data"))?;
        self.link(&format!("_layers/sha256/{digest}"), digest)
    }

    fn link(&self, place: &str, digest: &str) -> Result<()> {
        let folder = self.storage.join("docker/registry/v2/repositories/app").join(place);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join("link"), format!("sha256:{digest}"))?)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = Call::new("docker").args(["rm", "-fv", &self.container]).attempt();
    }
}

fn program() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(PROGRAM));
    found.find(|program| program.is_file()).with_context(|| {
        format!("there is no {PROGRAM} in PATH\n  help: apt-get install {PROGRAM}, or run ./check")
    })
}
