//! A registry: Debian's `docker-registry`, in a container of its own.

use crate::certificates::Identity;
use crate::command::Call;
use crate::engine::docker;
use crate::host::Host;
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
        let program = std::fs::read(PROGRAM).unwrap_or_else(|error| {
            panic!("cannot read {PROGRAM}: {error}\n  help: apt-get install docker-registry, or run ./check");
        });
        let tls = match identity {
            Some(_) => "  tls: {certificate: /cert.pem, key: /key.pem}\n",
            None => "",
        };
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: /registry-data}}}}\n\
             http:\n  addr: :{REGISTRY_PORT}\n{tls}"
        );
        let mut options = Host::options()
            .instead(&[])
            .run(["--entrypoint", "/registry"])
            .arguments(["serve", "/config.yml"])
            .file("/registry", 0o755, program)
            .file("/config.yml", 0o644, config);
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

    /// What it has under this name, as its API lists it.
    #[track_caller]
    pub fn tags(&self, name: &str) -> String {
        let found = ["exec", self.0.name(), "ls", "-1"];
        let folder = format!("/registry-data/docker/registry/v2/repositories/{name}/_manifests/tags");
        Call::new("docker").args(found).arg(folder).run().stdout.trim_end().to_owned()
    }
}
