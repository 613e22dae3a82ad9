//! What Compose says of a Compose file before the engine starts: asked by a child of the host, for Compose is a program.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dind_contract::paths;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Appliance, Project, location, write_secret};
use crate::failure::Failure;
use crate::ground::run_program;
use crate::helper::Helper;
use crate::log::parse_event;

/// The longest that Compose may take to read a file: on a busy machine it takes half a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// The name of a project that nobody has named: what Compose makes of the folder `/compose`.
const NAME: &str = "compose";

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Checked {
    /// Compose understands the file, and this is what it warns of.
    Good { name: String, warnings: Vec<String> },
    /// It does not, and this is the line, where that is known.
    Bad { complaint: String, line: Option<(usize, String)> },
    /// There is no Compose.
    Failed { cause: String, help: String },
}

impl Checked {
    /// The project with its name, and what Compose warns of.
    ///
    /// # Errors
    /// Compose does not understand the file.
    pub(crate) fn judge(
        self,
        appliance: &Appliance,
        project: Project,
    ) -> Result<(Project, Vec<String>), Failure> {
        let file = appliance.called();
        match self {
            Self::Good { name, warnings } => Ok((Project { name: Some(name), ..project }, warnings)),
            Self::Bad { complaint, line } => {
                let place = line.map_or_else(
                    || format!("{file} is not a good Compose file: {complaint}"),
                    |(number, text)| {
                        format!("{file}, line {number}, is not good in a Compose file: {text:?}: {complaint}")
                    },
                );
                Err(Failure::usage(place, "correct it; `docker compose config` checks a file, too"))
            }
            Self::Failed { cause, help } => Err(Failure::unavailable(cause, help)),
        }
    }
}

/// The child that asks Compose, while other work is done.
///
/// # Errors
/// No process can be made.
pub(crate) fn start(appliance: &Appliance, project: &Project) -> Result<Helper, Failure> {
    let arguments: Vec<String> =
        ["check-application".to_owned()].into_iter().chain(project.of_helper()).collect();
    Helper::start("Compose to read the Compose file", &arguments, &appliance.environment, PATIENCE * 2)
}

/// Asks Compose and prints what came of it: the work of the child.
pub(crate) fn print(project: &Project) -> String {
    let mut checked = ask(project);
    if let Checked::Bad { complaint, .. } = &checked
        && complaint.contains("project name")
        && complaint.contains("empty")
    {
        // Compose makes none of the folder `/`.
        checked = ask(&Project { name: Some(NAME.to_owned()), ..project.clone() });
    }
    serde_json::to_string(&checked).unwrap_or_default()
}

fn ask(project: &Project) -> Checked {
    let output = Path::new(paths::APPLICATION);
    // Made before Compose writes it, for root alone: the environment is in it.
    if let Err(e) = write_secret(output, "") {
        return Checked::Failed {
            cause: format!("cannot write {}: {e}", output.display()),
            help: "give the host a writable /run (with --read-only: --tmpfs /run)".to_owned(),
        };
    }
    let mut arguments = project.arguments();
    arguments.extend(["config", "--format", "json", "--output", paths::APPLICATION].map(str::to_owned));
    match run_program("docker-compose", arguments, "", PATIENCE) {
        Ok(said) => {
            let text = fs::read_to_string(output).unwrap_or_default();
            let config: Value = serde_json::from_str(&text).unwrap_or_default();
            if config.get("services").and_then(Value::as_object).is_none_or(serde_json::Map::is_empty) {
                let complaint = "it has no service, or none of the profiles that are wanted".to_owned();
                return Checked::Bad { complaint, line: None };
            }
            match config.get("name").and_then(Value::as_str) {
                Some(name) => Checked::Good { name: name.to_owned(), warnings: warnings(&said) },
                None => Checked::Failed {
                    cause: "docker-compose does not say what it has read".to_owned(),
                    help: "use a release of Compose from 2.13 on".to_owned(),
                },
            }
        }
        Err(said) if said.contains("is in no folder of PATH") => Checked::Failed {
            cause: said,
            help: "build the appliance FROM an image of this project, or install Compose in it".to_owned(),
        },
        Err(said) => bad(project, &said),
    }
}

fn bad(project: &Project, said: &str) -> Checked {
    let said = said.strip_prefix("docker-compose: ").unwrap_or(said);
    // The last that it says is why it ends; before that it may warn.
    let complaint = said.rsplit("; ").find(|part| parse_event(part).0.is_none()).unwrap_or(said);
    let (mut complaint, mut line) = (complaint.to_owned(), None);
    // It does not say which of several files is meant.
    if let [file] = project.files.as_slice() {
        let text = fs::read_to_string(file).unwrap_or_default();
        complaint = complaint.replace(&format!("validating {}: ", file.display()), "");
        if is_no_yaml(&complaint) {
            line = first_bad_line(project, &text);
            // Its own number would contradict ours.
            if line.is_some()
                && let Some((_, what)) =
                    complaint.split_once(": ").and_then(|(_, rest)| rest.split_once(": "))
            {
                complaint = format!("yaml: {what}");
            }
        }
        line = line
            .or_else(|| location::find(&text, &complaint).map(|(number, line)| (number, line.to_owned())));
    }
    Checked::Bad { complaint, line }
}

/// Whether the text is no YAML at all, whatever it should say.
fn is_no_yaml(complaint: &str) -> bool {
    complaint.starts_with("yaml: ") && !complaint.contains("unmarshal")
}

/// The line from which on a text is no YAML. Compose's own number is that of the block around it, or the one before.
fn first_bad_line(project: &Project, text: &str) -> Option<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let part = PathBuf::from(format!("{}.part", paths::COMPOSE_SCRIPT_FILE));
    let is_good = |length: usize| {
        let beginning = lines.get(..length).unwrap_or_default().join("\n");
        let project = Project { files: vec![part.clone()], name: Some(NAME.to_owned()), ..project.clone() };
        let mut arguments = project.arguments();
        arguments.extend(["config", "--quiet"].map(str::to_owned));
        write_secret(&part, &beginning).is_ok()
            && run_program("docker-compose", arguments, "", PATIENCE).map_or_else(
                |said| !is_no_yaml(said.strip_prefix("docker-compose: ").unwrap_or(&said)),
                |_| true,
            )
    };
    let number = location::first_bad(lines.len(), is_good);
    let _ = fs::remove_file(&part);
    let line = lines.get(number?.checked_sub(1)?)?;
    Some((number?, line.trim_end().to_owned()))
}

/// What Compose warns of, a line each.
fn warnings(said: &str) -> Vec<String> {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut warnings: Vec<String> =
        lines.map(|line| format!("the Compose file: {}", parse_event(line).1)).collect();
    warnings.dedup();
    warnings
}
