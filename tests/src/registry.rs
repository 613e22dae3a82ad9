//! A registry: Debian's `docker-registry`, in a container of its own.

use crate::certificates::Identity;
use crate::command::Call;
use crate::engine::docker;
use crate::host::Host;
use crate::network::Network;
use crate::options::HostOptions;
use crate::wait::until;

const PROGRAM: &str = "/usr/bin/docker-registry";
/// The name by which hosts that are [told of it](Registry::known_to) call it.
pub const REGISTRY: &str = "registry.example";
/// Where it listens.
pub const REGISTRY_PORT: u16 = 5000;

/// A registry that runs, removed at the end of the test.
#[derive(Debug)]
pub struct Registry(Host);

impl Registry {
    /// Starts a registry that speaks plain HTTP, or TLS with this certificate.
    #[track_caller]
    pub fn start(identity: Option<&Identity>) -> Self {
        Self::begin(Host::options(), identity, None)
    }

    /// The same on a network, where everything calls it by its name without being told.
    #[track_caller]
    pub fn on(network: &Network, identity: Option<&Identity>) -> Self {
        let options = ["--network", network.name(), "--network-alias", REGISTRY];
        Self::begin(Host::options().run(options), identity, None)
    }

    /// Starts a registry that speaks plain HTTP, and lets in who is in this file of htpasswd's.
    #[track_caller]
    pub fn with_passwords(passwords: &str) -> Self {
        Self::begin(Host::options(), None, Some(passwords))
    }

    #[track_caller]
    fn begin(options: HostOptions, identity: Option<&Identity>, passwords: Option<&str>) -> Self {
        let program = std::fs::read(PROGRAM).unwrap_or_else(|error| {
            panic!("cannot read {PROGRAM}: {error}\n  help: apt-get install docker-registry, or run ./check");
        });
        let tls = match identity {
            Some(_) => "  tls: {certificate: /cert.pem, key: /key.pem}\n",
            None => "",
        };
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: /registry-data}}}}\n\
             http:\n  addr: :{REGISTRY_PORT}\n{tls}{}",
            passwords.map_or("", |_| "auth: {htpasswd: {realm: here, path: /passwords}}\n")
        );
        let mut options = options
            .instead(&[])
            .run(["--entrypoint", "/registry"])
            .arguments(["serve", "/config.yml"])
            .file("/registry", 0o755, program)
            .file("/config.yml", 0o644, config);
        if let Some(passwords) = passwords {
            options = options.file("/passwords", 0o644, passwords);
        }
        if let Some(identity) = identity {
            options = options.file("/cert.pem", 0o644, identity.cert.as_str()).file(
                "/key.pem",
                0o600,
                identity.key.as_str(),
            );
        }
        let registry = Self(options.create());
        docker(["start", registry.0.name()]).ok();
        let listens = || registry.0.listening_ports().contains(&REGISTRY_PORT).then_some(());
        until("the registry to listen", 20, listens);
        registry
    }

    /// Lets a host find it by its name.
    pub fn known_to(&self, host: HostOptions) -> HostOptions {
        host.run(["--add-host", &format!("{REGISTRY}:{}", self.0.ip())])
    }

    /// Lets a host find it by this name, by a link of Docker's default network.
    pub fn linked_to(&self, host: HostOptions, name: &str) -> HostOptions {
        host.run(["--link", &format!("{}:{name}", self.0.name())])
    }

    /// Where hosts on the same network find it: `ADDRESS:PORT`.
    #[track_caller]
    pub fn address(&self) -> String {
        format!("{}:{REGISTRY_PORT}", self.0.ip())
    }

    /// What it has under this name, as its API lists it.
    #[track_caller]
    pub fn tags(&self, name: &str) -> String {
        let found = ["exec", self.0.name(), "ls", "-1"];
        let folder = format!("/registry-data/docker/registry/v2/repositories/{name}/_manifests/tags");
        Call::new("docker").args(found).arg(folder).run().stdout.trim_end().to_owned()
    }
}
