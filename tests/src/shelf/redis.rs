//! A redis in a host: a database that changes its user, keeps what it acknowledges, and is healthy only if a check can be run in it.

use crate::host::Host;
use crate::wait::until_equal;

/// The user that the server runs as.
pub const REDIS_USER: &str = "999:999";

/// What keeps each write before it is answered.
const SERVER: [&str; 5] = ["redis-server", "--appendonly", "yes", "--appendfsync", "always"];

impl Host {
    /// Starts a redis of this name, from the image `redis` that was [loaded](Host::load_image), with its data on the volume
    /// `NAME-data`, and waits until it is healthy.
    #[track_caller]
    pub fn run_redis(&self, name: &str, options: &[&str]) {
        let data = format!("{name}-data:/data");
        let run = ["run", "-d", "--name", name, "-v", &data, "--health-cmd", "redis-cli ping | grep -q PONG"];
        let run = run.iter().chain(&["--health-interval", "500ms"]).chain(options);
        self.docker(run.chain(&["redis"]).chain(&SERVER)).ok();
        self.wait_healthy(name);
    }

    /// Adds one to the counter of a redis, as its own user; what it answers.
    #[track_caller]
    pub fn count_up(&self, redis: &str) -> u32 {
        let answer = self.docker(["exec", "-u", REDIS_USER, redis, "redis-cli", "incr", "counter"]).ok();
        answer.parse().unwrap_or_else(|_| panic!("redis answers {answer:?}"))
    }

    /// Waits until the health check of a nested container succeeds.
    #[track_caller]
    pub fn wait_healthy(&self, name: &str) {
        let health = || self.docker(["inspect", "-f", "{{.State.Health.Status}}", name]).stdout;
        until_equal(&format!("{name} to be healthy"), 30, "healthy\n", health);
    }

    /// Asserts that everything on the volume of a redis still belongs to the user of the image.
    #[track_caller]
    pub fn assert_redis_owns_its_data(&self, redis: &str) {
        let owners = self.docker(["exec", redis, "sh", "-c", "find /data -printf '%U:%G\\n' | sort -u"]).ok();
        assert_eq!(owners, REDIS_USER);
    }
}
