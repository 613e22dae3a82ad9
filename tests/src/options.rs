//! How a host is run.

use std::sync::OnceLock;

use crate::archive::Archive;
use crate::command::{Call, Ended};
use crate::engine::{self, docker};
use crate::host::Host;
use crate::volume::Volume;

/// The image under test: `dind-debian`, unless `DIND_TEST_IMAGE` names another.
pub fn image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| std::env::var("DIND_TEST_IMAGE").unwrap_or_else(|_| "dind-debian".into()))
}

/// The same with sshd, as `./quickstart --build-ssh` names it: `-ssh` before the tag.
pub fn ssh_image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| beside(image(), "ssh"))
}

/// An appliance, as `./quickstart --build-compose` names it: `dynamic` or `static`.
pub fn appliance_image(kind: &str) -> String {
    match image() {
        "dind-debian" => format!("dind-compose-{kind}"),
        image => beside(image, &format!("compose-{kind}")),
    }
}

fn beside(image: &str, what: &str) -> String {
    // A colon before the last slash belongs to a port.
    let name = image.rfind('/').map_or(0, |slash| slash + 1);
    match image[name..].find(':') {
        Some(colon) => format!("{}-{what}{}", &image[..name + colon], &image[name + colon..]),
        None => format!("{image}-{what}"),
    }
}

/// The run options that the README documents: what a host needs instead of `--privileged`.
pub const RUN_OPTIONS: [&str; 12] = [
    "--cap-add",
    "SYS_ADMIN",
    "--cap-add",
    "NET_ADMIN",
    "--cap-add",
    "SYS_PTRACE",
    "--security-opt",
    "seccomp=unconfined",
    "--security-opt",
    "apparmor=unconfined",
    "--device-cgroup-rule",
    "a *:* rwm",
];

/// How to run one host: built up, then [started](Self::start) or [refused](Self::refused).
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct HostOptions {
    /// What takes the place of the documented options.
    instead: Option<Vec<String>>,
    /// The image, where it is not [`image`], and the command that brings it.
    image: Option<(String, &'static str)>,
    run: Vec<String>,
    arguments: Vec<String>,
    files: Vec<(String, u32, Vec<u8>)>,
}

impl HostOptions {
    /// Adds options of `docker run`.
    pub fn run<S: AsRef<str>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.run.extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// Takes the image with sshd.
    pub fn ssh(self) -> Self {
        self.image(ssh_image(), "./quickstart --build-all")
    }

    /// Takes this image; `command` brings it.
    pub fn image(mut self, image: &str, command: &'static str) -> Self {
        self.image = Some((image.to_owned(), command));
        self
    }

    /// Takes the documented options away, and these in their place.
    pub fn instead(mut self, options: &[&str]) -> Self {
        self.instead = Some(options.iter().map(|option| (*option).to_owned()).collect());
        self
    }

    /// Runs the host with `--privileged`, instead of the [documented options](RUN_OPTIONS).
    pub fn privileged(self) -> Self {
        self.instead(&["--privileged"])
    }

    /// Sets an environment variable of the host.
    pub fn env(self, name: &str, value: &str) -> Self {
        self.run(["-e", &format!("{name}={value}")])
    }

    /// Mounts a volume; `target` may end in `:ro`.
    pub fn volume(self, volume: &Volume, target: &str) -> Self {
        self.run(["-v", &format!("{}:{target}", volume.name())])
    }

    /// Adds arguments of the host itself, after the image's name.
    pub fn arguments<S: AsRef<str>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Puts a file into the host before it starts.
    pub fn file(mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.into(), mode, content.into()));
        self
    }

    /// Starts the host and waits until it says that it is ready.
    #[track_caller]
    pub fn start(self) -> Host {
        let host = self.create();
        host.start();
        host
    }

    /// Makes the host's container, with its files in it, without starting it.
    #[track_caller]
    pub fn create(self) -> Host {
        engine::prepare();
        let name = engine::unique_name();
        let create = Call::new("docker").args(["create", "--name", &name]).args(engine::labels());
        let create = create
            .args(self.instead.unwrap_or_else(|| RUN_OPTIONS.map(str::to_owned).to_vec()))
            .args(self.run)
            .arg(self.image.as_ref().map_or(image(), |(image, _)| image))
            .args(self.arguments);
        let created = create.run();
        if let Some((image, command)) = &self.image
            && created.code != Some(0)
        {
            engine::require(image, command);
        }
        created.ok();
        let host = Host::new(name);
        host.put(&self.files);
        host
    }

    /// Starts a host that must refuse to run: see [`Host::refuses`].
    #[track_caller]
    pub fn refused(self, code: i32, texts: &[&str]) -> Ended {
        self.create().refuses(code, texts)
    }
}

/// Runs one program of the image, without a host.
#[track_caller]
pub(crate) fn run_in_image(options: &[&str], program: &str, args: &[&str]) -> Ended {
    engine::prepare();
    let labels = engine::labels();
    let run = ["run", "--rm", "--entrypoint", program].into_iter();
    docker(
        run.chain(labels.iter().map(String::as_str))
            .chain(options.iter().copied())
            .chain([image()])
            .chain(args.iter().copied()),
    )
}

impl Host {
    /// Starts the host in the foreground, for the tests in which it ends by itself within seconds.
    #[track_caller]
    #[must_use = "say how it should have ended"]
    pub fn run_to_its_end(&self) -> Ended {
        Call::new("docker").args(["start", "-a", self.name()]).within(30).run()
    }

    /// Starts a host that must refuse to run: with this exit code, and an error that has these texts in it and says
    /// what to do next.
    #[track_caller]
    pub fn refuses(&self, code: i32, texts: &[&str]) -> Ended {
        self.run_to_its_end().exits(code).says(&["dind-init: ", "\n  help: "]).says(texts)
    }

    /// Puts files into the container, stopped or running.
    #[track_caller]
    pub fn put(&self, files: &[(String, u32, Vec<u8>)]) {
        if files.is_empty() {
            return;
        }
        let archive = files
            .iter()
            .fold(Archive::new(), |archive, (path, mode, content)| archive.file(path, *mode, content));
        let target = format!("{}:/", self.name());
        Call::new("docker").args(["cp", "-", &target]).stdin(archive.bytes()).run().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_with_sshd_has_the_tag_of_the_other() {
        for (image, expected) in [
            ("dind-debian", "dind-debian-ssh"),
            ("dind-debian:dev", "dind-debian-ssh:dev"),
            ("host.example:5000/a/dind", "host.example:5000/a/dind-ssh"),
            ("host.example:5000/dind:1.0", "host.example:5000/dind-ssh:1.0"),
        ] {
            assert_eq!(beside(image, "ssh"), expected);
        }
    }
}
