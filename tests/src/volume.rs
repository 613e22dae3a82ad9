//! Named volumes.

use crate::command::Ended;
use crate::engine::{self, docker};
use crate::options::run_in_image;

/// A named volume, removed at the end of the test: declare it before the hosts that use it.
#[derive(Debug)]
pub struct Volume(String);

impl Volume {
    /// Makes an empty volume.
    #[track_caller]
    #[allow(clippy::new_without_default, reason = "a default value that talks to an engine would surprise")]
    pub fn new() -> Self {
        engine::prepare();
        let name = engine::unique_name();
        let labels = engine::labels();
        let _ =
            docker(["volume", "create"].into_iter().chain(labels.iter().map(String::as_str)).chain([&*name]))
                .ok();
        Self(name)
    }

    /// The volume's name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Runs a program of the image on this volume, mounted on `/volume`.
    #[track_caller]
    pub fn run(&self, program: &str, args: &[&str]) -> Ended {
        let mount = format!("{}:/volume", self.0);
        run_in_image(&["-v", &mount, "-w", "/volume"], program, args)
    }

    /// Everything in the volume: mode, owner, size and time of change with each path.
    #[track_caller]
    pub fn listing(&self) -> String {
        self.run("find", &[".", "-mindepth", "1", "-printf", "%m %u:%g %s %T@ %p\n"]).ok()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = docker(["volume", "rm", "-f", &self.0]);
    }
}
