//! How a host is run: what was typed, and what the endpoint can do, become one request.

pub(crate) mod ports;
pub(crate) mod units;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, SystemInfo};
use clap::{Args, ValueEnum};
use dind_contract::{API_PORT, PLAIN_PORT, labels, paths, variables};

use crate::endpoint::{Endpoint, Kind};
use crate::failure::{Failure, Result};
use ports::{Ports, Published};

/// Port of sshd.
pub(crate) const SSH_PORT: u16 = 22;

/// When an image is fetched from a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Pull {
    /// Before each start
    Always,
    /// When the endpoint has none of that name
    #[default]
    Missing,
    /// Never
    Never,
}

/// What can be said of a new host.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The host")]
pub(crate) struct HostOptions {
    /// System of the host: its image is dind-FLAVOUR, or dind-FLAVOUR-ssh with --ssh
    #[arg(long, value_name = "FLAVOUR", default_value = "debian", conflicts_with = "image", value_parser = crate::assets::known)]
    pub(crate) flavour: String,
    /// Image of the host, where it has another name
    #[arg(long, value_name = "IMAGE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) image: Option<String>,
    /// Let users log in over ssh
    #[arg(long)]
    pub(crate) ssh: bool,
    /// No port for the Docker API: only its socket inside
    #[arg(long)]
    pub(crate) local: bool,
    /// Publish a port [default: the API's, and sshd's with --ssh, on free ports; of this machine only when the endpoint is here]
    #[arg(short = 'p', long = "publish", value_name = "[ADDRESS:][PORT:]PORT", value_parser = ports::parse)]
    pub(crate) publish: Vec<Ports>,
    /// Memory of the host and all that runs in it, such as 4g
    #[arg(short = 'm', long, value_name = "SIZE", value_parser = units::bytes)]
    pub(crate) memory: Option<i64>,
    /// Processors, such as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = units::cpus)]
    pub(crate) cpus: Option<i64>,
    /// Which processors, such as 0-3; on VIC their number
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Keep the host's data in this volume or folder; with colons it is any mount, as in `docker run -v`
    #[arg(short = 'v', long = "volume", value_name = "NAME|SOURCE:TARGET")]
    pub(crate) volume: Vec<String>,
    /// Options for dockerd, split as a shell splits words
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    pub(crate) docker_opts: Option<String>,
    /// Set a variable of the host: NAME=VALUE, or NAME for its value here
    #[arg(short = 'e', long = "env", value_name = "NAME=VALUE", value_parser = units::variable)]
    pub(crate) env: Vec<String>,
    /// Network of the endpoint to put the host on
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<String>,
    /// Seconds that a stop may take, which the host and the endpoint are both told
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(2..=86_400))]
    pub(crate) stop_timeout: Option<u32>,
    /// Put a label on the host: NAME=VALUE
    #[arg(short = 'l', long = "label", value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// When to fetch the image from a registry
    #[arg(long, value_name = "WHEN", default_value = "missing", value_enum)]
    pub(crate) pull: Pull,
    /// Run it with all privileges instead of the few that it needs
    #[arg(long)]
    pub(crate) privileged: bool,
    /// How long the host may take to be ready
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = units::time)]
    pub(crate) timeout: Duration,
}

/// A request for a container, and what was typed and could not be asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// What is asked for.
    pub(crate) body: ContainerCreateBody,
    /// What was left out, and why: a line each.
    pub(crate) left_out: Vec<String>,
}

impl HostOptions {
    /// The name of the image.
    pub(crate) fn image(&self) -> String {
        match &self.image {
            Some(image) => image.clone(),
            None if self.ssh => format!("dind-{}-ssh", self.flavour),
            None => format!("dind-{}", self.flavour),
        }
    }

    /// How the image can be had, for messages.
    pub(crate) fn build_line(&self) -> String {
        if self.image.is_some() {
            return "let the endpoint reach a registry that has it".to_owned();
        }
        format!("make it: dind build {}{}", self.flavour, if self.ssh { " --ssh" } else { "" })
    }

    /// Whether the host's data is somebody's, and outlives it.
    pub(crate) fn keeps_data(&self) -> bool {
        self.volume.iter().any(|volume| bind(volume).is_ok_and(|bind| is_data_root(&bind)))
    }

    /// What to ask this endpoint for.
    ///
    /// # Errors
    /// Options that contradict each other.
    pub(crate) fn request(
        &self,
        endpoint: &Endpoint,
        info: &SystemInfo,
        labels: HashMap<String, String>,
    ) -> Result<Request> {
        let published = self.published(endpoint)?;
        let (env, stop_timeout) = self.environment(endpoint, &published)?;
        let mut host = HostConfig {
            memory: self.memory,
            nano_cpus: self.cpus,
            cpuset_cpus: self.cpuset_cpus.clone(),
            network_mode: self.network.clone(),
            binds: (!self.volume.is_empty())
                .then(|| self.volume.iter().map(|volume| bind(volume)).collect::<Result<_>>())
                .transpose()?,
            port_bindings: (!published.is_empty()).then(|| ports::bindings(&published)),
            ..Default::default()
        };
        self.privileges(&mut host, info);
        let mut body = ContainerCreateBody {
            image: Some(self.image()),
            env: (!env.is_empty()).then_some(env),
            labels: Some(self.labels(labels)?).filter(|labels| !labels.is_empty()),
            exposed_ports: (!published.is_empty()).then(|| published.iter().map(Published::key).collect()),
            stop_timeout: stop_timeout.map(i64::from),
            host_config: Some(host),
            ..Default::default()
        };
        let left_out = fit(&mut body, endpoint);
        Ok(Request { body, left_out })
    }

    /// The published ports: what was typed, and the API's unless that was.
    fn published(&self, endpoint: &Endpoint) -> Result<Vec<Published>> {
        let mut published: Vec<Published> = self.publish.iter().flat_map(|ports| ports.0.clone()).collect();
        if self.network.as_deref() == Some("host") {
            return if published.is_empty() {
                Ok(published)
            } else {
                Err(Failure::usage(
                    "-p has no effect with --network host",
                    "leave one of them out: on that network every port is the machine's own",
                ))
            };
        }
        if self.network.as_deref() == Some("none") {
            return Ok(published);
        }
        // Who is on the endpoint's machine needs no port that others can reach.
        // VIC takes no address at all: ports are opened on its own.
        let here = endpoint.is_here() && endpoint.kind == Kind::Engine;
        let address = here.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut by_default = |port: u16| {
            if !published.iter().any(|published| published.port == port && published.protocol == "tcp") {
                published.push(Published::anywhere(port, address));
            }
        };
        if !self.local {
            by_default(API_PORT);
        }
        if self.ssh {
            by_default(SSH_PORT);
        }
        Ok(published)
    }

    /// The host's variables, and the stop timeout that they agree on with the endpoint.
    fn environment(
        &self,
        endpoint: &Endpoint,
        published: &[Published],
    ) -> Result<(Vec<String>, Option<u32>)> {
        let mut env = Vec::new();
        let mut names = Vec::new();
        let mut stop_timeout = self.stop_timeout;
        for variable in &self.env {
            let Some((name, value)) = units::with_value(variable) else { continue };
            let option = match name {
                variables::DIND_STOP_TIMEOUT => self.stop_timeout.map(|_| "--stop-timeout"),
                variables::DOCKER_OPTS => self.docker_opts.as_ref().map(|_| "--docker-opts"),
                variables::LOCAL => self.local.then_some("--local"),
                _ => None,
            };
            if let Some(option) = option {
                return Err(Failure::usage(
                    format!("{option} and -e {name} say the same thing twice"),
                    "leave one of them out",
                ));
            }
            match name {
                variables::DIND_TLS_SAN => names.push(value),
                variables::DIND_STOP_TIMEOUT => {
                    // What is no number the host refuses, with its own words.
                    stop_timeout = value.trim().parse().ok();
                    env.push(format!("{name}={value}"));
                }
                _ => env.push(format!("{name}={value}")),
            }
        }
        if let (Some(seconds), Some(_)) = (stop_timeout, self.stop_timeout) {
            env.push(format!("{}={seconds}", variables::DIND_STOP_TIMEOUT));
        }
        env.extend(self.docker_opts.as_ref().map(|options| format!("{}={options}", variables::DOCKER_OPTS)));
        if self.local {
            env.push(format!("{}=true", variables::LOCAL));
        } else {
            // By these a client will call the host: the endpoint's own address, and what a port was bound to.
            let machine = endpoint.machine();
            names.extend(Some(machine.as_str()).filter(|name| *name != "localhost").map(str::to_owned));
            let ours = published.iter().filter(|published| matches!(published.port, API_PORT | PLAIN_PORT));
            names.extend(
                ours.filter_map(|published| published.address)
                    .filter(|address| !address.is_unspecified() && !address.is_loopback())
                    .map(|address| address.to_string()),
            );
        }
        if !names.is_empty() {
            env.push(format!("{}={}", variables::DIND_TLS_SAN, names.join(",")));
        }
        Ok((env, stop_timeout))
    }

    /// What a host needs instead of all privileges: docs/capabilities.md has the reasons.
    fn privileges(&self, host: &mut HostConfig, info: &SystemInfo) {
        let has = |name: &str| {
            info.security_options.iter().flatten().any(|option| option.contains(&format!("name={name}")))
        };
        if has("userns") {
            // In the endpoint's own namespace for users: in a mapped one nothing can be mounted.
            host.userns_mode = Some("host".to_owned());
        }
        if self.privileged {
            host.privileged = Some(true);
            return;
        }
        host.cap_add = Some(["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"].map(str::to_owned).to_vec());
        host.security_opt = Some(vec!["seccomp=unconfined".to_owned(), "apparmor=unconfined".to_owned()]);
        host.device_cgroup_rules = Some(vec!["a *:* rwm".to_owned()]);
    }

    fn labels(&self, mut given: HashMap<String, String>) -> Result<HashMap<String, String>> {
        for label in &self.label {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            if name.is_empty() || labels::OWN.contains(&name) {
                return Err(Failure::usage(
                    format!("--label {label}: this name cannot be given"),
                    format!("take another: {} are the command's own", labels::OWN.join(", ")),
                ));
            }
            given.insert(name.to_owned(), value.to_owned());
        }
        if self.local {
            given.insert(labels::LOCAL.to_owned(), "true".to_owned());
        }
        Ok(given)
    }
}

/// A mount as the API wants it: a name or a folder alone is the data root.
fn bind(volume: &str) -> Result<String> {
    if let Some((source, target)) = volume.split_once(':') {
        // As the docker command does it: a folder of here is given with all of its path.
        let folder = source.starts_with('.').then(|| std::path::absolute(source).ok()).flatten();
        return Ok(
            folder.map_or_else(|| volume.to_owned(), |folder| format!("{}:{target}", folder.display()))
        );
    }
    if volume.contains('/') && !volume.starts_with('/') {
        let folder = std::path::absolute(volume).map_err(|e| {
            Failure::usage(
                format!("-v {volume}: {e}"),
                "give the name of a volume, or a folder with all of its path",
            )
        })?;
        return Ok(format!("{}:{}", folder.display(), paths::DATA_ROOT));
    }
    if volume.is_empty() {
        return Err(Failure::usage(
            "-v needs the name of a volume",
            "give one: -v NAME keeps the host's data there",
        ));
    }
    Ok(format!("{volume}:{}", paths::DATA_ROOT))
}

/// Whether a mount, as the API wants it, is the data root's.
fn is_data_root(bind: &str) -> bool {
    bind.split(':').nth(1) == Some(paths::DATA_ROOT)
}

/// Takes out what the endpoint does not know, and says so of what somebody has typed.
fn fit(body: &mut ContainerCreateBody, endpoint: &Endpoint) -> Vec<String> {
    let mut left_out = Vec::new();
    let Some(host) = &mut body.host_config else { return left_out };
    if endpoint.kind == Kind::Vic {
        // A container there is a VM, which has all that these would give.
        host.cap_add = None;
        host.security_opt = None;
        host.device_cgroup_rules = None;
        host.userns_mode = None;
        if host.privileged.take().is_some() {
            left_out.push(
                "--privileged is left out: on VIC a host is a VM, and has all privileges in it".to_owned(),
            );
        }
        // It is said when the host is stopped.
        body.stop_timeout = None;
        if !host.binds.iter().flatten().any(|bind| is_data_root(bind)) {
            left_out.push(
                "the host's data will have 1 GiB, as VIC makes volumes: for more, make one (docker volume create --driver vsphere \
                 --opt Capacity=20GB NAME) and give it with -v NAME"
                    .to_owned(),
            );
        }
        if host.nano_cpus.take().is_some() {
            left_out.push("--cpus is left out: VIC gives whole processors: --cpuset-cpus NUMBER".to_owned());
        }
    }
    let old =
        |option: &str, needs: &str| format!("{option} is left out: the endpoint's API is older than {needs}");
    if !endpoint.speaks(1, 28) {
        host.device_cgroup_rules = None;
    }
    if !endpoint.speaks(1, 25) {
        if host.nano_cpus.take().is_some() {
            left_out.push(old("--cpus", "1.25"));
        }
        if body.stop_timeout.take().is_some() {
            left_out.push(old("--stop-timeout (to the endpoint; the host is told)", "1.25"));
        }
        host.auto_remove = None;
    }
    left_out
}
