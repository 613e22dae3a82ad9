//! `dind build`, from a folder with nothing in it.

use std::io::Read;
use std::process::Stdio;

use dind_tests::{BuiltImage, Dind, docker, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Removes the images of a test.
struct Images(Vec<String>);

impl Drop for Images {
    fn drop(&mut self) {
        for image in &self.0 {
            let _ = docker(["rmi", "-f", image]);
        }
    }
}

#[test]
fn an_image_is_built_from_anywhere_and_its_hosts_start() {
    let dind = Dind::new();
    let tag = format!("{}:built", Dind::name());
    let _images = Images(vec![tag.clone()]);
    let ended = dind.call(["build", "debian", "--tag", &tag, "--progress", "plain"]).within(240).run();
    assert!(ended.stderr.contains("Step 1/") && ended.stderr.contains("Successfully built"), "{ended}");
    assert!(ended.clone().ok().contains(&format!("{tag} is built")), "{ended}");
    let labels = docker([
        "inspect",
        "-f",
        "{{index .Config.Labels \"dind.flavour\"}} {{index .Config.Labels \"dind.engine\"}}",
        &tag,
    ])
    .ok();
    assert!(labels.starts_with("debian ") && labels.len() > "debian ".len(), "{labels}");
    // Quiet, from the cache.
    let id = || docker(["inspect", "-f", "{{.Id}}", &tag]).ok();
    let said = dind.call(["build", "-q", "--tag", &tag]).within(240).run();
    assert_eq!(said.stderr, "");
    let built = said.ok();
    assert!(id().contains(&built), "{} is not {built}", id());
    // Cut off, it has changed nothing, wherever it was. On a base of its own: an engine takes the youngest step that it has for the
    // same, and half a build of the common one would be the cache of nothing that comes later.
    let common = ["dind-base:trixie", "debian:trixie-slim"];
    let common = common.into_iter().find(|name| docker(["image", "inspect", name]).code == Some(0));
    let dockerfile = format!("FROM {}\nLABEL dind.test.base=cut-off\n", common.expect("it was built on one"));
    let base = BuiltImage::new(&dockerfile, &[]);
    for _ in 0..3 {
        let build = ["build", "-q", "--no-cache", "--base", base.name(), "--tag", &tag];
        let mut child = dind.command(build).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let step = ["ps", "-q", "--filter", &format!("ancestor={}", base.name())];
        until("a step of the build to run", 60, || (!docker(step).ok().is_empty()).then_some(()));
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
        assert!(said.contains("what it had made is removed"), "{said}");
        assert!(id().contains(&built), "{} is not {built}", id());
    }
    let mut words = vec!["run".to_owned(), "-q".to_owned()];
    words.extend(
        Dind::options().into_iter().map(|word| if word == dind_tests::image() { tag.clone() } else { word }),
    );
    words.extend(["--", "docker", "version", "-f", "{{.Server.Os}}"].map(str::to_owned));
    assert_eq!(dind.run(words).ok(), "linux");
}

#[test]
fn the_images_on_top_begin_with_the_host() {
    let dind = Dind::new();
    let tag = Dind::name();
    let all = [
        tag.clone(),
        format!("{tag}-ssh"),
        format!("{tag}-compose-dynamic"),
        format!("{tag}-compose-static"),
    ];
    let _images = Images(all.iter().rev().cloned().collect());
    let said = dind.call(["build", "--tag", &tag, "--ssh", "--compose"]).within(240).run().ok();
    for name in &all {
        assert!(said.contains(&format!("{name} is built (")), "{said}");
        let labels = docker([
            "inspect",
            "-f",
            "{{index .Config.Labels \"dind.flavour\"}} {{json .Config.Entrypoint}}",
            name,
        ])
        .ok();
        assert_eq!(labels, r#"debian ["/usr/sbin/dind-init"]"#, "{name}");
    }
    let kind = docker(["run", "--rm", "--entrypoint", "cat", &all[2], "/etc/dind/appliance"]).ok();
    assert_eq!(kind, "dynamic");
}

#[test]
fn what_cannot_be_built_says_what_to_do() {
    let dind = Dind::new();
    let tag = format!("{}:never", Dind::name());
    dind.run(["build", "nonesuch"]).exits(64).says(&["there is no flavour nonesuch", "debian"]);
    let ended = dind.run(["build", "--tag", &tag, "--suite", "nonesuch"]).exits(69);
    ended.says(&["debian:nonesuch-slim", "cannot be pulled", "--bootstrap", "--base IMAGE"]);
    // A base that is no system of that release.
    let ended =
        dind.run(["build", "--tag", &tag, "--base", dind_tests::image(), "--suite", "bookworm"]).exits(1);
    ended.says(&["cannot be built", "BASE is Debian trixie", "its last lines"]);
    dind.run(["build", "--tag", "No Good"]).exits(64).says(&["\"No Good\" cannot be the name", "help: "]);
    assert_ne!(docker(["inspect", &tag]).code, Some(0));
}
