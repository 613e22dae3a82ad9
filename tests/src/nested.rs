//! Containers inside a host.

use crate::command::Ended;
use crate::host::Host;
use crate::image;
use crate::wait::{until, until_equal};

/// What runs in a nested container that says a last word when it is asked to end.
pub const POLITE: &str =
    "trap 'echo last words; exit 0' TERM; echo up; while :; do sleep 1000 & wait $!; done";
/// What runs in one that does not listen.
pub const STUBBORN: &str = "trap '' TERM INT HUP; echo up; while :; do sleep 1000; done";

impl Host {
    /// Brings the image `busybox` into the host.
    #[track_caller]
    pub fn load_busybox(&self) {
        let import = ["import", "-c", "ENV PATH=/bin", "-c", "CMD [\"sh\"]", "-", "busybox"];
        self.call("docker").args(import).stdin(image::busybox()).run().ok();
    }

    /// Builds an image inside the host from a Dockerfile alone.
    #[track_caller]
    pub fn build(&self, tag: &str, dockerfile: &str) {
        self.call("docker").args(["build", "-t", tag, "-"]).stdin(dockerfile).run().ok();
    }

    /// Asserts that a container runs inside the host.
    #[track_caller]
    pub fn assert_runs_containers(&self) {
        assert_eq!(self.docker(["run", "--rm", "busybox", "echo", "from within"]).ok(), "from within");
    }

    /// Starts a nested container in the background, and waits until its `script` has said that it is up.
    #[track_caller]
    pub fn run_nested(&self, name: &str, options: &[&str], script: &str) {
        let run = ["run", "-d", "--name", name].into_iter().chain(options.iter().copied());
        self.docker(run.chain(["busybox", "sh", "-c", script])).ok();
        until("a nested container to be up", 20, || {
            self.nested_logs(name).stdout.contains("up").then_some(())
        });
    }

    /// `docker logs` of a nested container.
    #[track_caller]
    #[must_use = "say whether it should have succeeded: .ok() or .fails()"]
    pub fn nested_logs(&self, name: &str) -> Ended {
        self.docker(["logs", name])
    }

    /// Waits until a nested container runs again, brought back by its restart policy.
    #[track_caller]
    pub fn wait_for_nested(&self, name: &str) {
        let running = || self.docker(["inspect", "-f", "{{.State.Running}}", name]).stdout;
        until_equal("the nested container to come back", 20, "true\n", running);
    }
}
