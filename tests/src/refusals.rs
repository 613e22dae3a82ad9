//! Many refusals in one container.

use crate::command::Ended;
use crate::engine::docker;
use crate::host::Host;
use crate::options::HostOptions;

/// A container of the image in which no host runs, and in which the program is started as often as one likes: what it refuses
/// before it touches anything, it refuses here as it does as PID 1, and a hundred times as fast as in a container for each.
/// One of each kind is tried in a container of its own: see [`Host::refuses`].
#[derive(Debug)]
pub struct Refusals {
    container: Host,
}

impl HostOptions {
    /// A container with these options for many refusals; nothing is started in it.
    #[track_caller]
    pub fn refusals(self) -> Refusals {
        let container = self.run(["--entrypoint", "sleep"]).arguments(["infinity"]).create();
        docker(["start", container.name()]).ok();
        Refusals { container }
    }
}

impl Refusals {
    /// The container.
    pub fn container(&self) -> &Host {
        &self.container
    }

    /// Starts a host with these arguments, after words in front of its name (`env A=b`), and checks that it refuses to run, with
    /// this exit code, and an error that has these texts in it and says what to do next.
    ///
    /// # Panics
    /// When it does not: with the words.
    #[track_caller]
    pub fn refuses(&self, before: &[&str], arguments: &[&str], code: i32, texts: &[&str]) -> Ended {
        let words: Vec<&str> = [before, &["dind-init"], arguments].concat();
        let (program, rest) = words.split_first().expect("dind-init is one of the words");
        let ended = self.container.call(program).args(rest).within(30).run();
        ended.exits(code).says(&["dind-init: ", "\n  help: "]).says(texts)
    }

    /// The same for the environment: `NAME=value`.
    #[track_caller]
    pub fn refuses_setting(&self, setting: &str, texts: &[&str]) -> Ended {
        self.refuses(&["env", setting], &[], 64, texts)
    }

    /// Asserts that nothing in the container has changed. It is slow, because Docker looks at each file of the image.
    #[track_caller]
    pub fn assert_unchanged(&self) {
        let changes = docker(["diff", self.container.name()]).ok();
        // What Docker itself makes on the way: folders for mounts.
        let changed =
            |line: &&str| !line.starts_with("C ") && !["A /var/lib/docker", "A /run/secrets"].contains(line);
        assert_eq!(changes.lines().filter(changed).collect::<Vec<_>>(), [""; 0]);
    }
}
