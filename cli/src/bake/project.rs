//! The application as Compose has understood it: which images it needs, which files, and what no appliance can give it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value, json};

use super::names::Name;
use crate::failure::{Failure, Result};

/// Where the application lies, in the host that bakes and in the appliance.
pub(crate) const FOLDER: &str = "/compose";
/// The engine's socket, which an application may ask for: in an appliance it is that of its host.
const SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];
/// What is passed on of an environment but these, which say where programs and engines are.
const KEPT_BACK: [&str; 12] = [
    "COMPOSE_FILE",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
    "HOME",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PATH",
    "PWD",
];

/// An application.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// With its variables filled in, for what is to be known now.
    config: Value,
    /// With its variables, as it goes into the appliance.
    open: Value,
}

/// A service and its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) image: Name,
    /// Whether the image is built.
    pub(crate) is_built: bool,
}

/// The variables that Compose interpolates with.
pub(crate) fn environment() -> Vec<String> {
    std::env::vars()
        .filter(|(name, _)| !KEPT_BACK.contains(&name.as_str()) && !name.starts_with("LC_"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

impl Project {
    /// From what `docker compose config --format json` says, with and without interpolation.
    ///
    /// # Errors
    /// It is no JSON, or nothing that an appliance can be.
    pub(crate) fn read(config: &str, open: &str) -> Result<Self> {
        let parse = |text: &str| {
            serde_json::from_str(text).map_err(|e| {
                Failure::new(
                    format!("Compose says something that is no JSON: {e}"),
                    "report this as a defect, with the Compose file",
                )
            })
        };
        let project = Self { config: parse(config)?, open: parse(open)? };
        if project.services().is_empty() {
            return Err(Failure::usage(
                "the Compose file has no service to run",
                "add one; services with a profile count only where COMPOSE_PROFILES names it",
            ));
        }
        Ok(project)
    }

    fn all(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.config.get("services").and_then(Value::as_object).into_iter().flatten()
    }

    /// Its services.
    pub(crate) fn services(&self) -> Vec<Service> {
        let project = self.config.get("name").and_then(Value::as_str).unwrap_or("compose");
        self.all()
            .map(|(name, service)| {
                let image = service.get("image").and_then(Value::as_str);
                let image = image.map_or_else(|| format!("{project}-{name}"), str::to_owned);
                let is_built = service.get("build").is_some_and(|build| !build.is_null());
                Service { name: name.clone(), image: Name::parse(&image), is_built }
            })
            .collect()
    }

    /// Dockerfiles of what is built, as paths in [`FOLDER`].
    pub(crate) fn dockerfiles(&self) -> Vec<PathBuf> {
        let of = |service: &Value| {
            let build = service.get("build")?;
            let context = Path::new(build.get("context")?.as_str()?);
            let file = build.get("dockerfile").and_then(Value::as_str).unwrap_or("Dockerfile");
            Some(context.join(file))
        };
        self.all().filter_map(|(_, service)| of(service)).collect()
    }

    /// What is wrong with it for an appliance; and what a user should know.
    ///
    /// # Errors
    /// The first thing that no appliance can give it: the service by name.
    pub(crate) fn check(&self, folder: &Path) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        for (name, service) in self.all() {
            let refused =
                |what: String, help: &str| Err(Failure::usage(format!("the service {name} {what}"), help));
            let devices = service.pointer("/deploy/resources/reservations/devices").and_then(Value::as_array);
            let runtime = service.get("runtime").and_then(Value::as_str);
            if devices.is_some_and(|all| !all.is_empty())
                || service.get("gpus").is_some()
                || runtime == Some("nvidia")
            {
                return refused(
                    "needs a GPU, which an appliance has not".to_owned(),
                    "take the devices out; such an application runs on the machine's own engine",
                );
            }
            if let Some(device) = service.get("devices").and_then(Value::as_array).and_then(|all| all.first())
            {
                return refused(
                    format!("needs the device {}, which an appliance has not", said(device)),
                    "take it out of the Compose file",
                );
            }
            for volume in service.get("volumes").and_then(Value::as_array).into_iter().flatten() {
                let Some(source) = volume.get("source").and_then(Value::as_str) else { continue };
                if volume.get("type").and_then(Value::as_str) != Some("bind") || SOCKETS.contains(&source) {
                    continue;
                }
                let Some(inside) = inside(source) else {
                    return refused(
                        format!("mounts {source} of the machine, which an appliance does not have"),
                        "put what it needs into the folder of the Compose file, or make it a volume",
                    );
                };
                if !folder.join(inside).exists() {
                    return refused(
                        format!("mounts {source}, and there is no {}", folder.join(inside).display()),
                        "make it, or take the mount out",
                    );
                }
                if volume.get("read_only").and_then(Value::as_bool) != Some(true) {
                    warnings.push(format!(
                        "the service {name} can write to ./{}, which is in the image: what it writes goes with the container; keep data in a volume",
                        inside.display()
                    ));
                }
            }
        }
        for kind in ["networks", "volumes", "configs", "secrets"] {
            for (name, entry) in self.config.get(kind).and_then(Value::as_object).into_iter().flatten() {
                if entry.get("external").and_then(Value::as_bool) == Some(true) {
                    return Err(Failure::usage(
                        format!("{name} among the {kind} is external, and nobody makes it in an appliance"),
                        "leave `external: true` out, so that the application makes it",
                    ));
                }
            }
        }
        for file in self.files() {
            let Some(inside) = inside(&file) else {
                return Err(Failure::usage(
                    format!("the application needs {file}, which is not in the folder of the Compose file"),
                    "put it there, and name it by a relative path",
                ));
            };
            if !folder.join(inside).exists() {
                return Err(Failure::usage(
                    format!("the application needs {}, which is not there", folder.join(inside).display()),
                    "make it, or take it out of the Compose file",
                ));
            }
        }
        Ok(warnings)
    }

    /// What it reads when it runs: env files, configs, secrets; paths in [`FOLDER`].
    fn files(&self) -> Vec<String> {
        let of_kind = |kind: &str| {
            let all = self.config.get(kind).and_then(Value::as_object).into_iter().flatten();
            all.filter_map(|(_, entry)| entry.get("file")?.as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        let open = self.open.get("services").and_then(Value::as_object).into_iter().flatten();
        let env_files = open
            .flat_map(|(_, service)| service.get("env_file").and_then(Value::as_array).into_iter().flatten())
            .filter_map(|file| {
                let is_required = file.get("required").and_then(Value::as_bool) != Some(false);
                file.get("path")
                    .and_then(Value::as_str)
                    .filter(|_| is_required)
                    .or(file.as_str())
                    .map(str::to_owned)
            });
        env_files.chain(of_kind("configs")).chain(of_kind("secrets")).collect()
    }

    /// Everything of its folder that the appliance has, relative to it.
    pub(crate) fn carried(&self, folder: &Path) -> BTreeSet<PathBuf> {
        let mounts = self
            .all()
            .flat_map(|(_, service)| service.get("volumes").and_then(Value::as_array).into_iter().flatten());
        let mounts = mounts.filter(|volume| volume.get("type").and_then(Value::as_str) == Some("bind"));
        let mounts = mounts.filter_map(|volume| volume.get("source")?.as_str().map(str::to_owned));
        let named = mounts.chain(self.files());
        let mut all: BTreeSet<PathBuf> = named.filter_map(|path| inside(&path).map(Path::to_owned)).collect();
        if folder.join(".env").is_file() {
            all.insert(PathBuf::from(".env"));
        }
        all
    }

    /// The Compose file of the appliance: nothing is built or pulled, and each service has the image that is sealed in.
    pub(crate) fn sealed(&self) -> String {
        let images: Map<String, Value> = self
            .services()
            .into_iter()
            .map(|service| (service.name, Value::from(service.image.sealed)))
            .collect();
        let mut open = self.open.clone();
        if let Some(services) = open.get_mut("services").and_then(Value::as_object_mut) {
            services.retain(|name, _| images.contains_key(name));
            for (name, service) in services.iter_mut() {
                if let Some(service) = service.as_object_mut() {
                    service.remove("build");
                    service.insert("image".to_owned(), images.get(name).cloned().unwrap_or_default());
                    service.insert("pull_policy".to_owned(), json!("never"));
                }
            }
        }
        serde_json::to_string_pretty(&open).unwrap_or_default() + "\n"
    }
}

/// The part of a path that is below [`FOLDER`].
fn inside(path: &str) -> Option<&Path> {
    let inside = Path::new(path).strip_prefix(FOLDER).ok()?;
    inside.components().all(|part| matches!(part, Component::Normal(_))).then_some(inside)
}

fn said(value: &Value) -> String {
    value
        .get("source")
        .and_then(Value::as_str)
        .or(value.as_str())
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The images that a Dockerfile begins with.
pub(crate) fn bases(dockerfile: &str) -> Vec<String> {
    let froms = dockerfile.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_from = words.next()?.eq_ignore_ascii_case("from");
        let name = words.find(|word| !word.starts_with("--"))?;
        (is_from && name != "scratch" && !name.contains('$')).then(|| name.to_owned())
    });
    let stages: Vec<String> = dockerfile
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let at = words.iter().position(|word| word.eq_ignore_ascii_case("as"))?;
            words
                .first()?
                .eq_ignore_ascii_case("from")
                .then(|| words.get(at + 1).map(|&name| name.to_owned()))?
        })
        .collect();
    froms.filter(|name| !stages.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(services: &Value) -> Project {
        let config = json!({"name": "shop", "services": services});
        Project { open: config.clone(), config }
    }

    #[test]
    fn images_are_pinned_and_nothing_is_built() {
        let project = project(&json!({
            "web": {"image": "docker.io/library/web", "ports": ["${PORT:-80}:80"]},
            "api": {"build": {"context": "/compose/api", "dockerfile": "D"}},
        }));
        let services = project.services();
        assert_eq!(
            services.iter().map(|it| it.image.sealed.as_str()).collect::<Vec<_>>(),
            ["shop-api:latest", "web:latest"]
        );
        assert_eq!(services.iter().map(|it| it.is_built).collect::<Vec<_>>(), [true, false]);
        assert_eq!(project.dockerfiles(), [Path::new("/compose/api/D")]);
        let sealed: Value = serde_json::from_str(&project.sealed()).unwrap();
        assert_eq!(sealed["services"]["api"], json!({"image": "shop-api:latest", "pull_policy": "never"}));
        assert_eq!(sealed["services"]["web"]["ports"], json!(["${PORT:-80}:80"]));
    }

    #[test]
    fn what_no_appliance_has_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("there"), "").unwrap();
        let mount = |source: &str, read_only: bool| json!({"web": {"volumes": [{"type": "bind", "source": source, "target": "/x", "read_only": read_only}]}});
        for (services, named) in [
            (
                json!({"web": {"deploy": {"resources": {"reservations": {"devices": [{"capabilities": ["gpu"]}]}}}}}),
                "web needs a GPU",
            ),
            (json!({"web": {"devices": ["/dev/ttyS0:/dev/ttyS0"]}}), "/dev/ttyS0"),
            (mount("/srv/data", true), "/srv/data of the machine"),
            (mount("/compose/../etc", true), "/compose/../etc of the machine"),
            (mount("/compose/gone", true), "there is no"),
            (json!({"web": {"env_file": [{"path": "/compose/gone.env"}]}}), "gone.env"),
            (json!({"web": {"env_file": [{"path": "/etc/x.env"}]}}), "not in the folder"),
        ] {
            let failure = project(&services).check(folder.path()).unwrap_err();
            assert!(failure.to_string().contains(named), "{failure}");
        }
        assert_eq!(
            project(&mount("/var/run/docker.sock", false)).check(folder.path()).unwrap(),
            Vec::<String>::new()
        );
        assert_eq!(
            project(&mount("/compose/there", true)).check(folder.path()).unwrap(),
            Vec::<String>::new()
        );
        let warned = project(&mount("/compose/there", false)).check(folder.path()).unwrap();
        assert!(warned[0].contains("./there"), "{warned:?}");
        let external = Project {
            config: json!({"services": {"a": {}}, "volumes": {"v": {"external": true}}}),
            open: json!({}),
        };
        assert!(external.check(folder.path()).unwrap_err().to_string().contains("v among the volumes"));
    }

    #[test]
    fn bases_of_a_dockerfile() {
        let text = "FROM --platform=linux/amd64 a:1 AS build\nRUN x\nfrom scratch\nFROM build\nFROM b\nFROM ${BASE}\n";
        assert_eq!(bases(text), ["a:1", "b"]);
    }
}
