//! What Compose says of a Compose file before the engine starts: asked by a child of the host, for Compose is a program.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dind_contract::{paths, store};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Appliance, Project, location, write_secret};
use crate::failure::Failure;
use crate::ground::run_program;
use crate::helper::Helper;
use crate::layers::sha256;
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

/// Asks Compose, where it has not understood the very same file already, and prints what came of it: the work of the child.
pub(crate) fn print(project: &Project) -> String {
    let variables = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let mut checked = match as_baked(project, Path::new(store::FOLDER), variables) {
        Some(name) => Checked::Good { name, warnings: Vec::new() },
        None => ask(project),
    };
    if let Checked::Bad { complaint, .. } = &checked
        && complaint.contains("project name")
        && complaint.contains("empty")
    {
        // Compose makes none of the folder `/`.
        checked = ask(&Project { name: Some(NAME.to_owned()), ..project.clone() });
    }
    serde_json::to_string(&checked).unwrap_or_default()
}

/// The project's name, if its file is what Compose said when the appliance was baked, and nothing that the host was told (these variables) can
/// make it mean something else. To ask Compose again takes longer than all else before the engine starts.
fn as_baked(project: &Project, store: &Path, mut variables: impl Iterator<Item = String>) -> Option<String> {
    let [file] = project.files.as_slice() else { return None };
    let sealed = fs::read_to_string(store.join(store::APPLICATION)).ok()?;
    let text = fs::read_to_string(file).ok()?;
    let is_as_sealed = sealed.trim() == format!("sha256:{}", sha256(text.as_bytes()));
    // Compose's own settings may be in this file, too.
    let is_told = variables.any(|name| name.starts_with("COMPOSE_")) || project.folder.join(".env").exists();
    if !is_as_sealed || is_told || text.contains('$') {
        return None;
    }
    let config: Value = serde_json::from_str(&text).ok()?;
    let mut services = config.get("services")?.as_object()?.values();
    let depends =
        services.any(|it| ["profiles", "env_file", "label_file"].iter().any(|key| it.get(key).is_some()));
    config.get("name")?.as_str().filter(|name| !depends && !name.is_empty()).map(str::to_owned)
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
        complaint = bare(&complaint, file);
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

/// What Compose says, less what it says of where: releases differ in that.
fn bare(said: &str, file: &Path) -> String {
    let said = said.strip_prefix("docker-compose: ").unwrap_or(said);
    ["validating", "failed to parse"]
        .iter()
        .fold(said.to_owned(), |said, word| said.replace(&format!("{word} {}: ", file.display()), ""))
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
            && run_program("docker-compose", arguments, "", PATIENCE)
                .map_or_else(|said| !is_no_yaml(&bare(&said, &part)), |_| true)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compose_is_asked_unless_all_is_as_it_was_baked() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let file = at("docker-compose.yml");
        let project = Project { folder: folder.path().to_owned(), files: vec![file.clone()], name: None };
        let bake = |text: &str| {
            fs::write(&file, text).unwrap();
            fs::write(at(store::APPLICATION), format!("sha256:{}\n", sha256(text.as_bytes()))).unwrap();
        };
        let name = |project: &Project, variables: &[&str]| {
            as_baked(project, folder.path(), variables.iter().map(|name| (*name).to_owned()))
        };
        let good = r#"{"name": "shop", "services": {"web": {"image": "web:1"}}}"#;
        bake(good);
        assert_eq!(name(&project, &["PATH"]).as_deref(), Some("shop"));
        assert_eq!(name(&project, &["COMPOSE_PROFILES"]), None);
        let two = Project { files: vec![file.clone(), file.clone()], ..project.clone() };
        assert_eq!(name(&two, &[]), None, "an override completes it");
        fs::write(at(".env"), "").unwrap();
        assert_eq!(name(&project, &[]), None);
        fs::remove_file(at(".env")).unwrap();
        fs::write(&file, good.replace("web:1", "web:2")).unwrap();
        assert_eq!(name(&project, &[]), None, "it is another file");
        for other in [
            good.replace("web:1", "web:${TAG}"),
            good.replace("\"image\"", "\"profiles\": [\"a\"], \"image\""),
            good.replace("\"image\"", "\"env_file\": [\"a\"], \"image\""),
            good.replace("shop", ""),
            "services: {web: {image: web}}".to_owned(),
        ] {
            bake(&other);
            assert_eq!(name(&project, &[]), None, "{other}");
        }
        bake(good);
        fs::remove_file(at(store::APPLICATION)).unwrap();
        assert_eq!(name(&project, &[]), None, "nobody says what was baked");
    }
}
