//! Networks around hosts, and neighbours of hosts on them.

use crate::command::Call;
use crate::engine::{self, docker};
use crate::host::Host;
use crate::options::image;

/// A neighbour answers each connection to port 80 with the address that it comes from.
const ANSWER: &str = "use IO::Socket::INET; \
    my $s = IO::Socket::INET->new(LocalPort => 80, Listen => 9, ReuseAddr => 1) or die; \
    while (my $c = $s->accept) { print $c $c->peerhost, qq(\\n); close $c }";

/// A network of the engine that the tests run on, removed at the end of the test: declare it before what is on it.
#[derive(Debug)]
pub struct Network(String);

impl Network {
    /// Makes a network with these options of `docker network create`.
    #[track_caller]
    pub fn new(options: &[&str]) -> Self {
        Self::attempt(options).unwrap_or_else(|why| panic!("no network with {options:?}: {why}"))
    }

    /// Makes a network with the first of these subnets that is free.
    #[track_caller]
    pub fn with_free_subnet(subnets: &[&str]) -> Self {
        let attempts = subnets.iter().map(|subnet| Self::attempt(&["--subnet", subnet]));
        let mut made = attempts.filter_map(Result::ok);
        made.next().unwrap_or_else(|| panic!("none of these subnets is free: {subnets:?}"))
    }

    fn attempt(options: &[&str]) -> Result<Self, String> {
        engine::prepare();
        let name = engine::unique_name();
        let create = Call::new("docker").args(["network", "create"]).args(engine::labels()).args(options);
        let made = create.arg(&name).run();
        if made.code == Some(0) { Ok(Self(name)) } else { Err(made.stderr) }
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Its subnet.
    #[track_caller]
    pub fn subnet(&self) -> String {
        docker(["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}}{{end}}", &self.0]).ok()
    }

    /// Attaches a host to it, too.
    #[track_caller]
    pub fn connect(&self, host: &Host) {
        docker(["network", "connect", &self.0, host.name()]).ok();
    }

    /// The address of a host on it.
    #[track_caller]
    pub fn address_of(&self, host: &Host) -> String {
        host.inspect(&format!("{{{{(index .NetworkSettings.Networks {:?}).IPAddress}}}}", self.0))
    }

    /// Starts a neighbour with this name on it.
    #[track_caller]
    pub fn neighbour(&self, alias: &str) -> Neighbour {
        let name = engine::unique_name();
        let run = Call::new("docker").args(["run", "-d", "--name", &name]).args(engine::labels());
        let run = run.args(["--network", &self.0, "--network-alias", alias, "--entrypoint", "perl"]);
        run.args([image(), "-e", ANSWER]).run().ok();
        Neighbour(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = docker(["network", "rm", &self.0]);
    }
}

/// A container beside a host, which says from which address it is spoken to.
#[derive(Debug)]
pub struct Neighbour(String);

impl Neighbour {
    /// Its address.
    #[track_caller]
    pub fn ip(&self) -> String {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        docker(["inspect", "-f", format, &self.0]).ok()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = docker(["rm", "-fv", &self.0]);
    }
}
