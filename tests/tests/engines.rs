//! What an engine does in one way or another, by its version or its options: docs/engines.md has the table.

use dind_tests::{Call, Host, POLITE, until};
use serde_json::Value;

/// What later engines do unless told otherwise.
const SNAPSHOTTER: &str = r#"{"features": {"containerd-snapshotter": true}}"#;

#[test]
fn containerds_image_store_serves_and_survives_a_kill() {
    let host = Host::options().file("/etc/docker/daemon.json", 0o644, SNAPSHOTTER).start();
    assert_eq!(host.docker(["info", "-f", "{{.Driver}}"]).ok(), "overlayfs");
    host.load_busybox();
    for buildkit in ["0", "1"] {
        let dockerfile = format!("FROM busybox\nRUN echo {buildkit} >/built\nCMD [\"cat\", \"/built\"]\n");
        let setting = format!("DOCKER_BUILDKIT={buildkit}");
        let tag = format!("by-{buildkit}");
        let build = ["exec", "-i", "-e", &setting, host.name(), "docker", "build", "-t", &tag, "-"];
        Call::new("docker").args(build).stdin(dockerfile).run().ok();
    }
    // Some releases tell nobody of what BuildKit has built there, and it is brought to the disk all the same.
    let before = host.status()["last_sync"].clone();
    host.build("unheard-of", "FROM busybox\nRUN echo kept >/kept\n");
    until("a sync after the build", 20, || {
        (host.status()["last_sync"].as_str() > before.as_str()).then_some(())
    });
    host.run_nested("worker", &["--restart", "always"], POLITE);
    host.signal("KILL");
    host.ends();
    host.start();
    host.wait_for_nested("worker");
    for buildkit in ["0", "1"] {
        assert_eq!(host.docker(["run", "--rm", &format!("by-{buildkit}")]).ok(), buildkit);
    }
    // It cannot be checked as the engine's own can, and that is said.
    host.exec(["dind-init", "verify"]).exits(69).says(&["containerd's image store, which is not checked"]);
    host.stop();
    host.assert_exited(0);
}

/// Clients and libraries that are older than the engine name the version of the API that they were written for.
pub(crate) fn the_oldest_version_of_the_api_that_the_engine_has_is_answered(host: &Host) {
    let version = host.docker(["version", "-f", "{{json .Server}}"]).ok();
    let version: Value = serde_json::from_str(&version).unwrap();
    let oldest = version["MinAPIVersion"].as_str().unwrap();
    let ask = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new('/var/run/docker.sock') or die; \
               print $s \"GET /v$ARGV[0]/containers/json HTTP/1.0\\r\\n\\r\\n\"; print while <$s>;";
    let answer = |version: &str| host.exec(["perl", "-e", ask, version]).ok();
    assert!(answer(oldest).contains("200 OK"), "{version}: {}", answer(oldest));
    assert!(answer("1.1").contains("400 Bad Request"), "{}", answer("1.1"));
}
