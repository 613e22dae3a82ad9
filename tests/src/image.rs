//! Images: the nested busybox, and images derived from the one under test.

use std::sync::OnceLock;

use crate::archive::Archive;
use crate::command::Call;
use crate::engine::{self, docker};
use crate::options::IMAGE;

/// Debian's static busybox, and the programs that tests call by name in nested containers.
const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 11] =
    ["cat", "date", "echo", "false", "ls", "nc", "ps", "sh", "sleep", "touch", "true"];

/// A tar of the root file system of the image `busybox`, to be imported into a host.
#[track_caller]
pub(crate) fn busybox() -> Vec<u8> {
    static TAR: OnceLock<Vec<u8>> = OnceLock::new();
    let tar = TAR.get_or_init(|| {
        let busybox = std::fs::read(BUSYBOX).unwrap_or_else(|error| {
            panic!("cannot read {BUSYBOX}: {error}\n  help: apt-get install busybox-static, or run ./check");
        });
        let archive = Archive::new().file(BUSYBOX, 0o755, &busybox);
        APPLETS
            .iter()
            .fold(archive, |archive, applet| archive.link(&format!("bin/{applet}"), "busybox"))
            .bytes()
    });
    tar.clone()
}

/// A build context for `docker build -`: a Dockerfile alone.
pub(crate) fn context(dockerfile: &str) -> Vec<u8> {
    Archive::new().file("Dockerfile", 0o644, dockerfile.as_bytes()).bytes()
}

/// An image derived from the one under test, removed at the end of the test: declare it before its hosts.
#[derive(Debug)]
pub struct Image(String);

impl Image {
    /// The image under test with these Dockerfile lines applied.
    #[track_caller]
    pub fn derived(lines: &str) -> Self {
        engine::prepare();
        let name = engine::unique_name();
        let build = Call::new("docker").args(["build", "-q", "-t", &name]).args(engine::labels()).arg("-");
        build.stdin(context(&format!("FROM {IMAGE}\n{lines}\n"))).run().ok();
        Self(name)
    }

    /// The image's name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = docker(["rmi", "-f", &self.0]);
    }
}
