//! A Compose project on the engine that the tests run on.

use std::path::PathBuf;

use crate::command::Call;
use crate::engine;
use crate::options::image;

/// A project, taken down with its volumes at the end of the test.
#[derive(Debug)]
pub struct Compose {
    name: String,
    file: PathBuf,
    /// What marks as ours what the file makes; it is read after the file.
    labels: tempfile::NamedTempFile,
}

impl Compose {
    /// A project of this file, whose services and volumes have these names.
    ///
    /// # Panics
    /// When no file for the labels can be written.
    #[track_caller]
    pub fn new(file: PathBuf, services: &[&str], volumes: &[&str]) -> Self {
        engine::prepare();
        let labels: Vec<String> = engine::labels().into_iter().filter(|word| word != "--label").collect();
        let marked = |name: &&str| ((*name).to_owned(), serde_json::json!({ "labels": labels }));
        let all = |names: &[&str]| names.iter().map(marked).collect::<serde_json::Map<_, _>>();
        let text = serde_json::json!({
            "services": all(services), "volumes": all(volumes), "networks": all(&["default"]),
        });
        let file_of_labels = tempfile::Builder::new().suffix(".yml").tempfile().expect("a file can be made");
        std::fs::write(file_of_labels.path(), text.to_string()).expect("the labels can be written");
        Self { name: engine::unique_name(), file, labels: file_of_labels }
    }

    /// `docker-compose` for this project, with the image under test; it may take two minutes.
    pub fn call(&self) -> Call {
        let call = Call::new("docker-compose").env("DIND_IMAGE", image()).within(120);
        let files = ["-f", &*self.file.to_string_lossy(), "-f", &*self.labels.path().to_string_lossy()];
        call.args(["-p", &self.name]).args(files)
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        let _ = self.call().args(["down", "--volumes"]).attempt();
    }
}
