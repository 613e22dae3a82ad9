//! `./quickstart`, and the lines that it prints, typed as they stand.

use std::path::Path;

use dind_tests::{Call, docker};

const HOST: &str = "dind-quickstart";

/// Removes the host that quickstart leaves for its user.
struct Made;

impl Drop for Made {
    fn drop(&mut self) {
        let _ = docker(["rm", "--force", "--volumes", HOST]);
    }
}

#[test]
fn it_ends_with_a_host_that_its_last_lines_reach_and_stop() {
    let there = docker(["container", "inspect", HOST]).code == Some(0);
    assert!(!there, "a host {HOST} is there already, and would be replaced\n  help: docker rm -f -v {HOST}");
    let _made = Made;
    let state = tempfile::tempdir().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // The environment of a user, and not the one that a test runner makes.
    let run = || {
        let script = format!(
            "cd {} && exec env -i PATH=\"$PATH\" HOME=\"$HOME\" CARGO_HOME=\"${{CARGO_HOME:-$HOME/.cargo}}\" \
             RUSTUP_HOME=\"${{RUSTUP_HOME:-$HOME/.rustup}}\" XDG_STATE_HOME={} ${{DIND_TEST_PROFILE:+DIND_TEST_PROFILE=$DIND_TEST_PROFILE}} ./quickstart",
            folder.display(),
            state.path().display()
        );
        Call::new("bash").args(["-c", &script]).within(230).run().ok()
    };
    run();
    // Run again, it starts clean.
    let said = run();
    assert!(said.contains("hello from a container in a host in a container"), "{said}");
    let line = |start: &str| {
        let found = said.lines().find_map(|line| line.trim().strip_prefix(start));
        found.unwrap_or_else(|| panic!("no line begins with {start:?}: {said}")).trim().to_owned()
    };
    let typed = |lines: &str| {
        let script =
            format!("cd {} && export XDG_STATE_HOME={} && {lines}", folder.display(), state.path().display());
        Call::new("bash").args(["-c", &script]).run().ok()
    };
    let (using, leaving) = (line("Use the host from here:"), line("Leave it again:"));
    let hello = typed(&format!(
        "{using}; docker run --rm hello && docker ps -aq; {leaving}; docker inspect -f '{{{{.Name}}}}' {HOST}"
    ));
    assert_eq!(hello, format!("hello from a container in a host in a container\n/{HOST}"));
    let stopping = line("Stop it:");
    typed(stopping.split("   ").next().unwrap());
    assert_eq!(docker(["inspect", "-f", "{{.State.ExitCode}}", HOST]).ok(), "0");
}
