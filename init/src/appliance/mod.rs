//! An appliance: a host that is there for one Compose application. What it is, and what is known of it before the engine starts.
//!
//! Compose files are understood by Compose, which a child of the host asks (`dind-init helper check-application`). The application
//! itself is looked after by another child (`dind-init helper application`), an ordinary program: see [`run`].

mod check;
mod containers;
mod contexts;
mod engine;
mod journal;
mod location;
mod output;
mod programs;
mod run;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dind_contract::paths;
use dind_contract::status::Application;
use dind_contract::variables;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

pub(crate) use check::{Checked, print as print_check, start as start_check};
pub(crate) use engine::{Engine, Seen};
pub(crate) use output::parse as parse_line;
pub(crate) use run::{Duty, run};

/// Names of a Compose file, in Compose's own order, and the files that Compose reads after it.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// What Compose must not see of the host's environment: where an engine is, and files, are decided here.
const KEPT_BACK: [&str; 7] = [
    variables::COMPOSE_SCRIPT,
    "COMPOSE_FILE",
    "DOCKER_CERT_PATH",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
];

/// The application that a host is there for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Appliance {
    /// Where its Compose file comes from; `None`: there is none, which is an error when a host is to run.
    pub(crate) source: Option<Source>,
    /// What paths in it are relative to.
    pub(crate) folder: PathBuf,
    /// The environment that Compose interpolates with.
    pub(crate) environment: BTreeMap<String, OsString>,
}

/// Where a Compose file comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// From `COMPOSE_SCRIPT`; its text.
    Script(String),
    /// From files in the image, the second of which completes the first.
    Files(Vec<PathBuf>),
}

impl Appliance {
    /// The application of this image, if it is an appliance's. `environment`: all that the host was given; `read`: see
    /// [`Settings::load`](crate::settings::Settings::load).
    ///
    /// # Errors
    /// There is more than one Compose file, or it cannot be read.
    pub(crate) fn find(
        environment: BTreeMap<String, OsString>,
        script: Option<&str>,
        read: impl Fn(&Path) -> io::Result<Option<String>>,
    ) -> Result<Option<Self>, Failure> {
        let is_there = |path: &Path| !matches!(read(path), Ok(None));
        let script = script.filter(|text| !text.trim().is_empty());
        if !is_there(Path::new(paths::APPLIANCE)) {
            return match script {
                None => Ok(None),
                Some(_) => Err(Failure::usage(
                    "COMPOSE_SCRIPT is set, but this image runs no Compose application",
                    "use dind-compose-dynamic, or leave it out and run `docker compose` against the host once it is ready",
                )),
            };
        }
        let folders = [Path::new(paths::APPLICATION_FOLDER), Path::new("/")];
        let mut files: Vec<PathBuf> = folders
            .iter()
            .flat_map(|folder| NAMES.map(|name| folder.join(name)))
            .filter(|file| is_there(file))
            .collect();
        let script = script.map(str::to_owned);
        if files.len() + usize::from(script.is_some()) > 1 {
            let mut all: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            all.extend(script.iter().map(|_| variables::COMPOSE_SCRIPT.to_owned()));
            return Err(Failure::usage(
                format!("there is more than one Compose file: {}", all.join(" and ")),
                "leave one; a file that completes another is called docker-compose.override.yml and lies beside it",
            ));
        }
        let mut folder = folders.into_iter().find(|folder| is_there(folder)).unwrap_or(Path::new("/"));
        let source = match (script, files.pop()) {
            (Some(text), _) => Some(Source::Script(text)),
            (None, Some(file)) => {
                folder = folders.into_iter().find(|it| file.parent() == Some(it)).unwrap_or(folder);
                let added = OVERRIDES.map(|name| folder.join(name)).into_iter().find(|file| is_there(file));
                Some(Source::Files([file].into_iter().chain(added).collect()))
            }
            (None, None) => None,
        };
        let mut environment = environment;
        environment.retain(|name, _| !KEPT_BACK.contains(&name.as_str()));
        environment.insert("DOCKER_HOST".to_owned(), format!("unix://{}", paths::DOCKER_SOCKET).into());
        Ok(Some(Self { source, folder: folder.to_owned(), environment }))
    }

    /// Whether there is a Compose file at all.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn has_source(&self) -> Result<&Source, Failure> {
        self.source.as_ref().ok_or_else(|| {
            Failure::usage(
                "this appliance has no application: COMPOSE_SCRIPT is not set, and there is no /docker-compose.yml",
                "give it one: -e COMPOSE_SCRIPT=\"$(cat docker-compose.yml)\", or -v $PWD/docker-compose.yml:/docker-compose.yml:ro",
            )
        })
    }

    /// What Compose is told of it, once the text of a script lies in its file.
    ///
    /// # Errors
    /// There is no Compose file, or the script cannot be written down.
    pub(crate) fn project(&self) -> Result<Project, Failure> {
        let files = match self.has_source()? {
            Source::Script(text) => {
                let file = PathBuf::from(paths::COMPOSE_SCRIPT_FILE);
                write_secret(&file, text).map_err(|e| {
                    Failure::unavailable(
                        format!("cannot write COMPOSE_SCRIPT to {}: {e}", file.display()),
                        "give the host a writable /run (with --read-only: --tmpfs /run)",
                    )
                })?;
                vec![file]
            }
            Source::Files(files) => files.clone(),
        };
        Ok(Project { folder: self.folder.clone(), files, name: None })
    }

    /// What its user calls the Compose file.
    pub(crate) fn called(&self) -> String {
        match &self.source {
            Some(Source::Files(files)) => {
                files.first().map_or_else(String::new, |file| file.display().to_string())
            }
            _ => variables::COMPOSE_SCRIPT.to_owned(),
        }
    }
}

/// Writes what only root may read: a script may have passwords in it.
fn write_secret(file: &Path, text: &str) -> io::Result<()> {
    let mut open = std::fs::OpenOptions::new();
    let mut written = open.write(true).create(true).truncate(true).mode(0o600).open(file)?;
    io::Write::write_all(&mut written, text.as_bytes())
}

/// A Compose project, as Compose is told of it.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct Project {
    /// What paths in its files are relative to
    #[arg(long)]
    pub(crate) folder: PathBuf,
    /// Its Compose files
    #[arg(long = "file", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Its name, once it is known
    #[arg(long)]
    pub(crate) name: Option<String>,
}

impl Project {
    /// Arguments of `docker-compose` that say which project is meant.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut words = vec!["--ansi".to_owned(), "never".to_owned()];
        words.extend(["--project-directory".to_owned(), self.folder.display().to_string()]);
        words.extend(self.files.iter().flat_map(|file| ["--file".to_owned(), file.display().to_string()]));
        words.extend(self.name.iter().flat_map(|name| ["--project-name".to_owned(), name.clone()]));
        words
    }

    /// The same as arguments of a helper of ours.
    pub(crate) fn of_helper(&self) -> Vec<String> {
        let mut words = vec!["--folder".to_owned(), self.folder.display().to_string()];
        words.extend(self.files.iter().flat_map(|file| ["--file".to_owned(), file.display().to_string()]));
        words.extend(self.name.iter().flat_map(|name| ["--name".to_owned(), name.clone()]));
        words
    }
}

/// What is parsed here that comes from outside.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    let (file, rest) = text.split_once('\0').unwrap_or((text, ""));
    let _ = (location::find(file, rest), output::parse(text), engine::Event::parse(text));
    output::fuzz(text.as_bytes());
    engine::fuzz(text.as_bytes());
    let _ = serde_json::from_str::<Report>(text);
}

/// What whoever looks after the application reports of it, each time that something has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Whether its containers are up, and healthy where they have health checks.
    pub(crate) ready: bool,
    /// That it has ended for good: its exit code, and what ended how.
    pub(crate) ended: Option<(u8, String)>,
    /// What its containers do.
    pub(crate) application: Application,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An appliance in an image that has these files.
    fn find(files: &[&str], script: Option<&str>) -> Result<Option<Appliance>, Failure> {
        let environment = [("DOCKER_HOST", "tcp://x:1"), ("GREETING", "hi"), ("COMPOSE_FILE", "/x")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.into())).into();
        Appliance::find(environment, script, |path| {
            Ok(files.iter().any(|file| Path::new(file) == path).then(String::new))
        })
    }

    #[test]
    fn only_an_appliances_image_runs_an_application() {
        assert_eq!(find(&["/docker-compose.yml"], None), Ok(None));
        assert_eq!(find(&[], Some(" \n")), Ok(None));
        let refused = find(&[], Some("services: {}")).unwrap_err();
        assert_eq!((refused.code, refused.help.contains("dind-compose-dynamic")), (64, true));
    }

    #[test]
    fn a_compose_file_is_found_where_it_may_lie() {
        let files = |names: &[&str]| Some(Source::Files(names.iter().map(PathBuf::from).collect()));
        let script = |text: &str| Some(Source::Script(text.to_owned()));
        type Row<'a> = (&'a [&'a str], Option<&'a str>, Option<Source>, &'a str);
        let table: [Row<'_>; 6] = [
            (&[], None, None, "/"),
            (&[], Some("x"), script("x"), "/"),
            (&["/compose"], Some("x"), script("x"), "/compose"),
            (&["/docker-compose.yml", "/compose"], None, files(&["/docker-compose.yml"]), "/"),
            (&["/compose", "/compose/compose.yaml"], None, files(&["/compose/compose.yaml"]), "/compose"),
            (
                &["/compose.yml", "/docker-compose.override.yml"],
                None,
                files(&["/compose.yml", "/docker-compose.override.yml"]),
                "/",
            ),
        ];
        for (there, text, source, folder) in table {
            let there: Vec<&str> = there.iter().copied().chain([paths::APPLIANCE]).collect();
            let found = find(&there, text).unwrap().unwrap();
            assert_eq!((found.source, found.folder), (source, folder.into()), "{there:?}");
        }
    }

    #[test]
    fn two_compose_files_are_one_too_many() {
        for (there, script) in
            [(vec!["/compose.yaml", "/docker-compose.yml"], None), (vec!["/docker-compose.yml"], Some("x"))]
        {
            let there: Vec<&str> = there.into_iter().chain([paths::APPLIANCE]).collect();
            let refused = find(&there, script).unwrap_err();
            assert!(refused.code == 64 && refused.cause.contains("/docker-compose.yml"), "{}", refused.cause);
        }
    }

    #[test]
    fn compose_sees_the_environment_and_one_engine() {
        let environment = find(&[paths::APPLIANCE], None).unwrap().unwrap().environment;
        let expected = [("DOCKER_HOST", "unix:///var/run/docker.sock"), ("GREETING", "hi")];
        assert_eq!(environment, expected.map(|(name, value)| (name.to_owned(), value.into())).into());
    }

    #[test]
    fn an_appliance_without_an_application_is_an_error() {
        let failure = find(&[paths::APPLIANCE], None).unwrap().unwrap().project().unwrap_err();
        assert_eq!(failure.code, 64);
    }
}
