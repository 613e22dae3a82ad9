//! Appliances: hosts that are there for a Compose application.

use crate::archive::Archive;
use crate::command::Call;
use crate::engine::{self, docker};
use crate::host::Host;
use crate::image::busybox;
use crate::log::Line;
use crate::options::{HostOptions, appliance_image};
use crate::wait::until;

const BUILD: &str = "./quickstart --build-all";
/// An image that Compose can build without a registry: the folder `box` beside the Compose file.
const BOX: &str = "FROM scratch\nADD rootfs.tar /\nENV PATH=/bin\nCMD [\"sh\"]\n";

impl HostOptions {
    /// Takes the dynamic appliance. In it is the folder `/compose/box`, from which Compose can build an image with busybox.
    pub fn dynamic(self) -> Self {
        self.image(&appliance_image("dynamic"), BUILD).with_box()
    }

    /// Takes the dynamic appliance, with this text as `COMPOSE_SCRIPT`.
    pub fn script(self, text: &str) -> Self {
        self.dynamic().env("COMPOSE_SCRIPT", text)
    }

    /// Takes the static appliance as it is.
    pub fn fixed(self) -> Self {
        self.image(&appliance_image("static"), BUILD)
    }

    /// Adds that folder.
    pub fn with_box(self) -> Self {
        self.file("/compose/box/Dockerfile", 0o644, BOX).file("/compose/box/rootfs.tar", 0o644, busybox())
    }
}

impl Host {
    /// The lines of the host's log that are marked with this name.
    #[track_caller]
    pub fn lines_of(&self, name: &str) -> Vec<String> {
        let mine = |line: Line| (line.service == name).then_some(line.message);
        self.log_lines().into_iter().filter_map(mine).collect()
    }

    /// Waits until a line that is marked with this name has this text in it.
    #[track_caller]
    pub fn wait_for_line(&self, name: &str, text: &str) {
        until(&format!("a line of {name} with {text:?}"), 60, || {
            self.lines_of(name).iter().any(|line| line.contains(text)).then_some(())
        });
    }
}

/// An image that a test builds on the engine that it runs on, removed at the end of the test: declare it before its hosts.
#[derive(Debug)]
pub struct BuiltImage(String);

impl BuiltImage {
    /// Builds it from a Dockerfile and files beside it.
    #[track_caller]
    pub fn new(dockerfile: &str, files: &[(&str, &[u8])]) -> Self {
        let archive = Archive::new().file("Dockerfile", 0o644, dockerfile.as_bytes());
        let archive =
            files.iter().fold(archive, |archive, (path, content)| archive.file(path, 0o644, content));
        Self::build(Call::new("docker").stdin(archive.bytes()), &[], "-")
    }

    /// Builds it from a folder, with these build arguments; that may take minutes.
    #[track_caller]
    pub fn of_folder(folder: &str, arguments: &[String]) -> Self {
        Self::build(Call::new("docker").within(300), arguments, folder)
    }

    /// One that was made in another way.
    pub(crate) fn named(name: String) -> Self {
        Self(name)
    }

    #[track_caller]
    fn build(call: Call, arguments: &[String], context: &str) -> Self {
        engine::prepare();
        let name = engine::unique_name();
        let arguments = arguments.iter().flat_map(|argument| ["--build-arg", argument]);
        call.args(["build", "-q", "-t", &name]).args(arguments).arg(context).run().ok();
        Self(name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for BuiltImage {
    fn drop(&mut self) {
        let _ = docker(["rmi", "-f", &self.0]);
    }
}
