//! A container of an image of the shelf, in one of the two places.

use crate::engine;

use super::facts::{Facts, Kept};
use super::place::{Place, wait};

/// What every container is given to become healthy, in seconds.
const HEALTHY: u64 = 90;

/// A container with its volume; both are removed with it.
#[derive(Debug)]
pub(super) struct Container<'a> {
    pub(super) place: Place<'a>,
    pub(super) name: String,
    image: String,
    facts: &'a Facts,
}

impl<'a> Container<'a> {
    /// Runs one of this image, without waiting for it.
    ///
    /// # Errors
    /// When `docker run` fails.
    pub(super) fn run(place: Place<'a>, image: &str, facts: &'a Facts) -> Result<Self, String> {
        let container = Self { place, name: engine::unique_name(), image: place.image(image), facts };
        let labels = place.labels();
        let create = ["volume", "create"].map(str::to_owned).into_iter().chain(labels);
        place.docker(create.chain([container.name.clone()]))?;
        container.start_anew()?;
        Ok(container)
    }

    /// `docker run`, with the volume that there is.
    pub(super) fn start_anew(&self) -> Result<(), String> {
        let port = self.facts.port.to_string();
        let mut words: Vec<String> =
            ["run", "-d", "--name", &self.name, "-p", &port].map(str::to_owned).into();
        words.extend(self.place.labels());
        if let Some(Kept { volume, .. }) = self.facts.kept() {
            words.extend(["-v".into(), format!("{}:{volume}", self.name)]);
        }
        if let Some(health) = &self.facts.health {
            words.extend(["--health-cmd", health, "--health-interval", "1s"].map(str::to_owned));
            // What fails while it starts does not count.
            words.extend(["--health-start-period", "60s"].map(str::to_owned));
        }
        words.extend(self.facts.run.iter().cloned().chain([self.image.clone()]));
        words.extend(self.facts.command.iter().cloned());
        self.place.docker(words).map(|_| ())
    }

    /// Runs the image's programs without the container, on its volume.
    pub(super) fn run_on_volume(&self, volume: &str, program: &str, args: &[&str]) -> Result<(), String> {
        let mount = format!("{}:{volume}", self.name);
        let run = ["run", "--rm", "--user", "0", "-v", &mount, "--entrypoint", program, &self.image];
        self.place.docker(run.iter().chain(args)).map(|_| ())
    }

    /// `docker exec` of a line of shell, with these options.
    pub(super) fn exec(&self, options: &[&str], line: &str) -> Result<String, String> {
        let words = ["exec"].iter().chain(options);
        self.place.docker(words.chain([self.name.as_str(), "sh", "-c", line].iter()))
    }

    /// `docker inspect --format`.
    pub(super) fn inspect(&self, format: &str) -> Result<String, String> {
        self.place.docker(["inspect", "--format", format, &self.name])
    }

    /// Everything that it has logged.
    pub(super) fn logs(&self) -> Result<String, String> {
        let ended = self.place.call().args(["logs", &self.name]).attempt()?;
        if ended.code == Some(0) { Ok(ended.stdout + &ended.stderr) } else { Err(ended.to_string()) }
    }

    /// Waits until its health check says that it is healthy.
    pub(super) fn wait(&self) -> Result<(), String> {
        let state = "{{.State.Status}}, {{with .State.Health}}{{.Status}}{{else}}no health check{{end}}";
        let healthy = || {
            let state = self.inspect(state)?;
            match state.as_str() {
                "running, healthy" => Ok(Ok(())),
                state if state.starts_with("running, ") => Ok(Err(state.to_owned())),
                state => Err(format!("the container is {state}")),
            }
        };
        wait(HEALTHY, healthy).map_err(|error| {
            let checks = self.inspect("{{json .State.Health}}").unwrap_or_else(|error| error);
            let logs = self.logs().unwrap_or_else(|error| error);
            format!("{} is not healthy: {error}\n--- health\n{checks}\n--- logs\n{logs}", self.name)
        })
    }

    /// Waits until its log has this text so many times.
    pub(super) fn wait_for_log(&self, text: &str, times: usize) -> Result<(), String> {
        let logged = || {
            let logs = self.logs()?;
            let found = logs.matches(text).count();
            let enough = found >= times;
            Ok(if enough { Ok(()) } else { Err(format!("{text:?} is {found} times in the log\n{logs}")) })
        };
        wait(20, logged)
    }

    /// Removes it, but not the volume that it keeps things in.
    pub(super) fn remove(&self) -> Result<(), String> {
        self.place.docker(["rm", "-fv", &self.name]).map(|_| ())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.place.docker(["rm", "-fv", &self.name]);
        let _ = self.place.docker(["volume", "rm", "-f", &self.name]);
    }
}
