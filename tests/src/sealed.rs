//! Sealed appliances: applications of small images, baked by `dind bake`.

use std::fs;
use std::path::PathBuf;

use crate::appliance::BuiltImage;
use crate::command::{Call, Ended};
use crate::dind::Dind;
use crate::engine::{self, docker};
use crate::host::Host;
use crate::image::busybox;
use crate::options::HostOptions;

/// A user who bakes: a home, a folder with an application, and a cache that nobody else uses.
#[derive(Debug)]
pub struct Baking {
    /// The user.
    pub dind: Dind,
    cache: String,
}

/// An appliance's image, removed at the end of the test: declare it before its hosts.
#[derive(Debug)]
pub struct Baked {
    tag: String,
}

impl Baking {
    /// A user who has baked nothing yet.
    #[track_caller]
    #[allow(clippy::new_without_default, reason = "it needs what was built before")]
    pub fn new() -> Self {
        let baking = Self { dind: Dind::new(), cache: engine::unique_name() };
        fs::create_dir(baking.folder()).unwrap();
        baking
    }

    /// The folder of the application.
    pub fn folder(&self) -> PathBuf {
        self.dind.home().join("shop")
    }

    /// Writes a file of the application.
    #[track_caller]
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let file = self.folder().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }

    /// The name of the cache's volume, which is also that of the host that bakes.
    pub fn cache(&self) -> &str {
        &self.cache
    }

    /// A call of `dind bake` for `shop/docker-compose.yml`, with these options, quiet.
    pub fn call(&self, tag: &str, options: &[&str]) -> Call {
        let host = Dind::options();
        let words = ["bake", "-q", "shop/docker-compose.yml", "-t", tag, "--cache", &self.cache];
        self.dind.call(words).args(host).args(options).within(180)
    }

    /// Bakes, which must fail and leave nothing but the cache.
    #[track_caller]
    #[must_use = "say how it should have failed"]
    pub fn fails(&self, options: &[&str]) -> Ended {
        let tag = engine::unique_name();
        let ended = self.call(&tag, options).run().fails().says(&["dind: ", "\n  help: "]);
        assert_eq!(docker(["image", "ls", "-q", &tag]).ok(), "");
        self.assert_nothing_is_left();
        ended
    }

    /// Asserts that no host is left of what was baked.
    #[track_caller]
    pub fn assert_nothing_is_left(&self) {
        assert_eq!(docker(["ps", "-aq", "--filter", &format!("name={}", self.cache)]).ok(), "");
    }

    /// Bakes.
    #[track_caller]
    pub fn bake(&self, options: &[&str]) -> Baked {
        let baked = Baked { tag: format!("{}:1", engine::unique_name()) };
        let id = self.call(&baked.tag, options).run().ok();
        assert_eq!(id, baked.inspect("{{.Id}}"));
        self.assert_nothing_is_left();
        baked
    }
}

impl Drop for Baking {
    fn drop(&mut self) {
        let _ = docker(["rm", "-f", "-v", &self.cache]);
        let _ = docker(["volume", "rm", "-f", &self.cache, &format!("{}-store", self.cache)]);
    }
}

impl Baked {
    /// Its name.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// A field of `docker image inspect`.
    #[track_caller]
    pub fn inspect(&self, format: &str) -> String {
        docker(["image", "inspect", "--format", format, &self.tag]).ok()
    }

    /// Options of a host of it.
    pub fn options(&self) -> HostOptions {
        Host::options().image(&self.tag, "dind bake")
    }
}

impl Drop for Baked {
    fn drop(&mut self) {
        let _ = docker(["rmi", "-f", &self.tag]);
    }
}

/// An image on the engine that the tests run on, with busybox and what these lines of a Dockerfile add.
#[track_caller]
pub fn local_image(lines: &str) -> BuiltImage {
    let dockerfile = format!("FROM scratch\nADD rootfs.tar /\nENV PATH=/bin\n{lines}\nCMD [\"sh\"]\n");
    BuiltImage::new(&dockerfile, &[("rootfs.tar", &busybox())])
}
