//! One build, as the endpoint tells it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::query_parameters::BuildImageOptionsBuilder;
use futures_util::StreamExt;

use crate::endpoint::{self, Endpoint, ImageId};
use crate::failure::{Failure, Result};
use crate::output;
use crate::progress::Progress;

/// What is built.
pub(crate) struct Build<'a> {
    /// The name that the image will have, for messages.
    pub(crate) tag: &'a str,
    /// The archive with the Dockerfile.
    pub(crate) context: Vec<u8>,
    /// Values of its ARGs.
    pub(crate) arguments: HashMap<String, String>,
    /// Labels beside its own.
    pub(crate) labels: HashMap<String, String>,
    /// Without what was built before.
    pub(crate) no_cache: bool,
    /// Where it is told which image is the newest that this build has made.
    pub(crate) newest: &'a RefCell<Option<ImageId>>,
    /// Whether each line is printed, as the docker command does elsewhere than on a terminal.
    pub(crate) lines: bool,
}

/// How much of a step is shown while it lasts.
const LONGEST_TITLE: usize = 60;
/// Lines that are shown of a build that failed.
const LAST_LINES: usize = 20;

/// Builds; the image's id. The classic builder, which every endpoint that builds has: it needs no session.
///
/// # Errors
/// A step fails: with its last lines. Or the image has an id that is none.
pub(crate) async fn run(endpoint: &Endpoint, build: Build<'_>, progress: &Progress) -> Result<ImageId> {
    let mut options = BuildImageOptionsBuilder::new()
        .rm(true)
        .forcerm(true)
        .nocache(build.no_cache)
        .buildargs(&build.arguments);
    if !build.labels.is_empty() {
        options = options.labels(&build.labels);
    }
    let body = bollard::body_full(build.context.into());
    let mut pieces = endpoint.docker.build_image(options.build(), None, Some(body));
    let mut last: Vec<String> = Vec::new();
    let mut step = Step::default();
    let mut id = None;
    let mut before = String::new();
    while let Some(piece) = pieces.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => return Err(failed(build.tag, &endpoint::cause(&error), last)),
        };
        if let Some(error) = piece.error_detail.and_then(|detail| detail.message) {
            return Err(failed(build.tag, &error, last));
        }
        for line in piece.stream.unwrap_or_default().lines().filter(|line| !line.trim().is_empty()) {
            if build.lines {
                output::say(line);
            }
            step.heard(line, build.lines, progress);
            // What comes from the cache, or begins the image, was there before.
            let was_there = before.starts_with(" ---> Using cache") || before.contains(" : FROM ");
            if let (false, Some(Ok(made))) = (was_there, line.strip_prefix(" ---> ").map(str::parse)) {
                build.newest.replace(Some(made));
            }
            line.clone_into(&mut before);
            id = line.strip_prefix("Successfully built ").map(str::to_owned).or(id);
            last.push(line.to_owned());
            if last.len() > LAST_LINES {
                last.remove(0);
            }
        }
    }
    step.done(build.lines, progress);
    let id = id.ok_or_else(|| failed(build.tag, "the endpoint ended the build without a word", last))?;
    endpoint.parse(&id)
}

/// A step of the Dockerfile.
#[derive(Default)]
struct Step {
    now: Option<(String, Instant)>,
}

impl Step {
    fn heard(&mut self, line: &str, lines: bool, progress: &Progress) {
        if line.starts_with("Step ") {
            self.done(lines, progress);
            // A step may be as long as a script; its beginning tells it from the others.
            let words: Vec<&str> = line.split_whitespace().collect();
            let title: String = words.join(" ").chars().take(LONGEST_TITLE).collect();
            progress.begin(&title, &title);
            self.now = Some((title, Instant::now()));
        } else {
            progress.detail(line);
        }
    }

    /// Steps from the cache are not worth a line.
    fn done(&mut self, lines: bool, progress: &Progress) {
        progress.clear();
        if let Some((title, began)) = self.now.take()
            && !lines
            && began.elapsed() > Duration::from_millis(200)
        {
            progress.took(&title, began.elapsed());
        }
    }
}

fn failed(tag: &str, cause: &str, last: Vec<String>) -> Failure {
    let help = if cause.contains("no space left") {
        "make room where the endpoint keeps its images: docker system df, docker image prune"
    } else if last.iter().any(|line| line.contains("apt-get")) {
        "its last lines say why; a build installs packages, so the endpoint's containers must reach the distribution's mirrors"
    } else {
        "its last lines say why"
    };
    Failure::new(format!("the image {tag} cannot be built: {cause}"), help).with_details(last)
}
