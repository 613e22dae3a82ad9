//! The images' archives, which `tests/images/build` makes, and how they come into a host.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::command::Call;
use crate::host::Host;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/images");
/// Below the repository.
const ARCHIVES: &str = "target/shelf";
/// What the tests expect of an image, beside its Dockerfile.
pub(crate) const FACTS: &str = "image.yaml";

/// The name of an image on the engine of the machine, where a plain `postgres` may be the real one.
pub fn local_name(image: &str) -> String {
    format!("dind-test/{image}")
}

/// The names of all images of `tests/images`, sorted.
///
/// # Panics
/// When the folder cannot be read.
#[track_caller]
pub fn names() -> Vec<String> {
    let entries = std::fs::read_dir(SOURCES).unwrap_or_else(|error| panic!("cannot read {SOURCES}: {error}"));
    let folders = entries.flatten().filter(|entry| entry.path().join("Dockerfile").is_file());
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The folder of an image's Dockerfile.
pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(SOURCES).join(name)
}

/// The archive of an image.
///
/// # Panics
/// When there is none, or when it was built from other files than those that are there now.
#[track_caller]
pub fn archive(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = tests.with_file_name(ARCHIVES).join(format!("{name}.tar"));
    let built = path.metadata().and_then(|metadata| metadata.modified());
    let built = built.unwrap_or_else(|error| {
        panic!("these tests need {}: {error}\n  help: run tests/images/build {name}", path.display())
    });
    let (changed, file) = youngest(&folder(name));
    assert!(
        changed <= built,
        "{} is older than {}\n  help: run tests/images/build {name}",
        path.display(),
        file.display()
    );
    path
}

/// What was changed last, and when, by the inodes' own time: that sees a file that was removed, or whose mode was changed, or that was
/// moved here with an older time. What the tests expect of an image is no part of it.
#[track_caller]
fn youngest(folder: &Path) -> (SystemTime, PathBuf) {
    let cannot = |error: std::io::Error| -> ! { panic!("cannot read {}: {error}", folder.display()) };
    let changed = |path: &Path| {
        let metadata = path.symlink_metadata().unwrap_or_else(|error| cannot(error));
        let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
        let nanoseconds = u32::try_from(metadata.ctime_nsec()).unwrap_or_default();
        UNIX_EPOCH + Duration::new(seconds, nanoseconds)
    };
    let mut found = (changed(folder), folder.to_owned());
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| cannot(error)) {
        let path = entry.unwrap_or_else(|error| cannot(error)).path();
        if path.file_name().is_some_and(|name| name == FACTS) {
            continue;
        }
        found = found.max(if path.is_dir() { youngest(&path) } else { (changed(&path), path) });
    }
    found
}

/// What `docker load` prints of each image that it has loaded.
fn loaded(output: &str) -> Vec<&str> {
    output.lines().filter_map(|line| line.strip_prefix("Loaded image: ")).collect()
}

impl Host {
    /// Brings an image of `tests/images` into the host, under its own name: `postgres`. An application of it comes along:
    /// `python-app`.
    #[track_caller]
    pub fn load_image(&self, name: &str) {
        let load = ["exec", "-i", self.name(), "docker", "load"];
        let output = Call::new("docker").args(load).stdin_file(archive(name)).within(180).run().ok();
        let images = loaded(&output);
        assert!(!images.is_empty(), "docker load of {name} has loaded nothing: {output}");
        for image in images {
            let plain = image.trim_start_matches("dind-test/");
            self.docker(["tag", image, plain]).ok();
            self.docker(["rmi", image]).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_of_an_archive_is_named() {
        let output = "Loaded image: dind-test/python:latest\nLoaded image: dind-test/python-app:latest\n";
        assert_eq!(loaded(output), ["dind-test/python:latest", "dind-test/python-app:latest"]);
        assert!(loaded("Loaded image ID: sha256:0123\n").is_empty());
    }
}
