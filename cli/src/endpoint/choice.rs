//! Which endpoint is meant: what was typed, what the environment says, or the docker command's current context.

use std::env;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::endpoint::address::Address;
use crate::failure::{Failure, Result};
use crate::shell::Shell;
use crate::{hash, output};

/// Where an engine listens when nothing else is said.
const DEFAULT: &str = "unix:///var/run/docker.sock";

/// Certificates of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificates {
    /// Folder with `ca.pem`, `cert.pem` and `key.pem`.
    pub(crate) folder: PathBuf,
}

/// An endpoint, found and not yet spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Where it is.
    pub(crate) address: Address,
    /// With what it is spoken to, where that is TLS.
    pub(crate) certificates: Option<Certificates>,
    /// What said so, for messages: `DOCKER_HOST`, `the context NAME` …
    pub(crate) source: String,
}

/// What was typed about it.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Wish {
    /// Docker endpoint to use: unix://PATH, tcp://HOST:PORT or ssh://USER@HOST [default: DOCKER_HOST, or the current context]
    #[arg(short = 'H', long = "host", global = true, value_name = "ADDRESS", help_heading = "Everywhere")]
    pub(crate) host: Option<String>,
    /// Context of the docker command to use
    #[arg(
        short = 'c',
        long = "context",
        global = true,
        value_name = "NAME",
        conflicts_with = "host",
        help_heading = "Everywhere"
    )]
    pub(crate) context: Option<String>,
}

impl Wish {
    /// `dind`, with the options that name the endpoint.
    pub(crate) fn command(&self) -> String {
        let quoted = |word: &str| Shell::Sh.quoted(word);
        match (&self.host, &self.context) {
            (Some(host), _) => format!("dind -H {}", quoted(host)),
            (None, Some(context)) => format!("dind -c {}", quoted(context)),
            (None, None) => "dind".to_owned(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(rename = "currentContext", default)]
    current_context: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    endpoints: std::collections::HashMap<String, MetaEndpoint>,
}

#[derive(Debug, Deserialize)]
struct MetaEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
}

impl Choice {
    /// Decides in the docker command's own order.
    ///
    /// # Errors
    /// An address or a context that is no good, by name.
    pub(crate) fn make(wish: &Wish) -> Result<Self> {
        if let Some(host) = &wish.host {
            return Self::at(host, "--host");
        }
        if let Some(context) = &wish.context {
            return Self::of_context(context, "--context");
        }
        if let Some(host) = set("DOCKER_HOST") {
            return Self::at(&host, "DOCKER_HOST");
        }
        if let Some(context) = set("DOCKER_CONTEXT") {
            return Self::of_context(&context, "DOCKER_CONTEXT");
        }
        let file = docker_folder().join("config.json");
        let config = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|e| {
                output::say(&format!(
                    "dind: {} cannot be read, so the default context is used: {e}",
                    file.display()
                ));
                Config::default()
            }),
            Err(_) => Config::default(),
        };
        match config.current_context.as_str() {
            "" => Self::of_context("default", "the default"),
            name => Self::of_context(name, &format!("currentContext in {}", file.display())),
        }
    }

    fn at(text: &str, source: &str) -> Result<Self> {
        let address = Address::parse(text, source)?;
        let wants_tls =
            set("DOCKER_TLS_VERIFY").is_some() || set("DOCKER_TLS").is_some() || text.starts_with("https://");
        let certificates = (wants_tls && matches!(address, Address::Tcp(_))).then(|| Certificates {
            folder: set("DOCKER_CERT_PATH").map_or_else(docker_folder, PathBuf::from),
        });
        Ok(Self { address, certificates, source: source.to_owned() })
    }

    fn of_context(name: &str, source: &str) -> Result<Self> {
        if name == "default" {
            let address = Address::parse(DEFAULT, source)?;
            return Ok(Self { address, certificates: None, source: "the default context".to_owned() });
        }
        let folder = docker_folder().join("contexts");
        let id = hash::sha256(name.as_bytes());
        let file = folder.join("meta").join(&id).join("meta.json");
        let refuse = |cause: String| {
            Failure::usage(
                format!("there is no usable context {name} ({source}): {cause}"),
                "see what there is: docker context ls",
            )
        };
        let text = std::fs::read(&file).map_err(|e| refuse(format!("{}: {e}", file.display())))?;
        let meta: Meta =
            serde_json::from_slice(&text).map_err(|e| refuse(format!("{}: {e}", file.display())))?;
        let endpoint =
            meta.endpoints.get("docker").ok_or_else(|| refuse("it names no Docker endpoint".to_owned()))?;
        let host = if endpoint.host.is_empty() { DEFAULT } else { &endpoint.host };
        let tls = folder.join("tls").join(&id).join("docker");
        let certificates = tls.join("ca.pem").exists().then_some(Certificates { folder: tls });
        Ok(Self {
            address: Address::parse(host, &format!("context {name}"))?,
            certificates,
            source: format!("the context {name}"),
        })
    }
}

/// A variable that is set to something.
pub(crate) fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where the docker command keeps its configuration.
pub(crate) fn docker_folder() -> PathBuf {
    set("DOCKER_CONFIG").map_or_else(|| home().join(".docker"), PathBuf::from)
}

/// The user's home; without one, the root.
pub(crate) fn home() -> PathBuf {
    env::home_dir().filter(|home| !home.as_os_str().is_empty()).unwrap_or_else(|| Path::new("/").to_owned())
}
