//! `dind` at an endpoint that is VIC: a stand-in, as no real one was at hand (docs/vic.md).

use dind_tests::{Dind, Host, Vic};

#[test]
fn a_host_lives_there_and_nothing_is_asked_that_the_endpoint_lacks() {
    let vic = Vic::start();
    let dind = Dind::new();
    let endpoint = vic.docker_host();
    let call = |words: &[&str]| dind.call(words.iter().copied()).env("DOCKER_HOST", &endpoint).run();
    let name = Dind::name();
    let mut words = vec!["up", &name];
    let options = Dind::options();
    words.extend(options.iter().map(String::as_str));
    words.extend(["--cpuset-cpus", "2", "-m", "1g", "--stop-timeout", "20"]);
    let ended = call(&words);
    let _host = Host::named(&name);
    assert!(ended.stderr.contains("the host's data will have 1 GiB"), "{ended}");
    assert!(ended.clone().ok().contains("is ready after"), "{ended}");
    assert!(call(&["ls"]).ok().contains(&format!("{name} ")), "it is in the list");
    // The stand-in shows the machine's other containers, too.
    let listed = call(&["ls", "-a", "--format", "{{.Name}} {{.State}} {{.Flavour}}"]).ok();
    assert!(listed.lines().any(|line| line == format!("{name} running debian")), "{listed}");
    assert_eq!(call(&["exec", &name, "docker", "ps", "-q"]).ok(), "");
    assert_eq!(call(&["exec", "-i", &name, "cat"]).ok(), "");
    assert!(call(&["logs", &name]).ok().contains("ready in"));
    assert!(call(&["doctor", &name]).ok().contains("storage"));
    let script =
        format!("eval \"$(DOCKER_HOST={endpoint} dind env {name})\"; docker version -f '{{{{.Server.Os}}}}'");
    assert_eq!(dind.shell(&script).ok(), "linux");
    call(&["stop", &name]).ok();
    call(&["start", &name]).ok();
    call(&["rm", "-f", &name]).ok();
    vic.assert_content();
}

#[test]
fn a_command_has_a_host_there() {
    let vic = Vic::start();
    let dind = Dind::new();
    let mut words = vec!["run".to_owned(), "-q".to_owned()];
    words.extend(Dind::options());
    words.extend(["--", "docker", "version", "-f", "{{.Server.Os}}"].map(str::to_owned));
    assert_eq!(dind.call(words).env("DOCKER_HOST", vic.docker_host()).run().ok(), "linux");
    vic.assert_content();
}

#[test]
fn what_is_left_out_is_said() {
    let vic = Vic::start();
    let dind = Dind::new();
    let name = Dind::name();
    let mut words =
        vec!["up".to_owned(), name.clone(), "--privileged".to_owned(), "--cpus".to_owned(), "1.5".to_owned()];
    words.extend(Dind::options());
    let ended = dind.call(words).env("DOCKER_HOST", vic.docker_host()).run();
    let _host = Host::named(&name);
    ended.exits(0).says(&["--privileged is left out", "--cpus is left out"]);
    vic.assert_content();
    dind.call(["build"])
        .env("DOCKER_HOST", vic.docker_host())
        .run()
        .exits(69)
        .says(&["VIC does not build images", "registry"]);
}
