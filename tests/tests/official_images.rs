//! What Docker's official images are tested for, of which `docker:dind` is one: written after `test/tests/docker-dind`,
//! `docker-registry-push-pull` and `override-cmd` in docker-library/official-images. Here the host has the documented options in place of
//! `--privileged`, and a registry that stands in for Docker Hub.

use dind_tests::{Call, Ended, Host, HostOptions, REGISTRY_PORT, Registry, docker, image, until};

/// As the registry is called where it is asked by its name.
const NAME: &str = "reg.example.com";

/// A registry that has busybox, as Docker Hub would.
#[track_caller]
fn hub() -> Registry {
    let registry = Registry::start(None);
    let by_name = format!("{NAME}:{REGISTRY_PORT}");
    let host = registry.linked_to(Host::options(), NAME).env("DIND_INSECURE_REGISTRIES", &by_name).start();
    host.load_busybox();
    let image = format!("{by_name}/library/busybox");
    host.docker(["tag", "busybox", &image]).ok();
    host.docker(["push", "-q", &image]).ok();
    registry
}

/// A host as these tests run it, for which `hub` is Docker Hub: no network of its own, the certificates on a volume without a name.
fn daemon(hub: &Registry, arguments: &[&str]) -> Host {
    let mirror = format!("--registry-mirror=http://{NAME}:{REGISTRY_PORT}");
    let options: HostOptions = hub.linked_to(Host::options(), NAME).run(["-it", "-v", "/certs"]);
    let host =
        options.env("DOCKER_TLS_CERTDIR", "/certs").arguments([&*mirror]).arguments(arguments).create();
    docker(["start", host.name()]).ok();
    host
}

/// A client in a container of its own, which has nothing but the host's name and its volumes.
#[track_caller]
fn client(host: &Host, arguments: &[&str]) -> Ended {
    let (link, volumes) = (format!("{}:docker", host.name()), format!("{}:ro", host.name()));
    Call::new("docker")
        .args([
            "run",
            "--rm",
            "-i",
            "--link",
            &link,
            "-e",
            "DOCKER_TLS_CERTDIR=/certs",
            "--volumes-from",
            &volumes,
        ])
        .args(["--entrypoint", "docker-entrypoint.sh", image()])
        .args(arguments)
        .run()
}

/// Waits as those tests do: until a client is answered.
#[track_caller]
fn answers(host: &Host) {
    until("docker version to succeed", 60, || (client(host, &["version"]).code == Some(0)).then_some(()));
}

#[track_caller]
fn count(host: &Host, arguments: &[&str]) -> usize {
    client(host, arguments).ok().lines().count()
}

#[test]
fn docker_dind() {
    let hub = hub();
    let host = daemon(&hub, &[]);
    let docker = |arguments: &[&str]| client(&host, arguments).ok();
    let is_running = || docker(&["inspect", "-f", "{{.State.Running}}", "test1"]);
    answers(&host);

    assert_eq!(count(&host, &["images", "-q"]), 0);
    docker(&["pull", "busybox"]);
    assert_eq!(count(&host, &["images", "-q"]), 1);

    assert_eq!(count(&host, &["ps", "-aq"]), 0);
    for _ in 0..3 {
        docker(&["run", "--rm", "busybox", "true"]);
    }
    assert_eq!(count(&host, &["ps", "-aq"]), 0);

    docker(&["create", "-i", "--name", "test1", "busybox", "cat"]);
    assert_eq!(count(&host, &["ps", "-aq"]), 1);
    assert_eq!(is_running(), "false");
    docker(&["start", "test1"]);
    assert_eq!(is_running(), "true");
    docker(&["stop", "test1"]);
    assert_eq!(is_running(), "false");
    docker(&["rm", "test1"]);
    assert_eq!(count(&host, &["ps", "-aq"]), 0);
}

#[test]
fn docker_registry_push_pull() {
    let hub = hub();
    let namespace = format!("{NAME}:{REGISTRY_PORT}");
    let host = daemon(&hub, &["--insecure-registry", &namespace]);
    let docker = |arguments: &[&str]| client(&host, arguments).ok();
    let pushed = format!("{namespace}/busybox");
    answers(&host);

    assert_eq!(count(&host, &["images", "-q"]), 0);
    docker(&["pull", "busybox"]);
    assert_eq!(count(&host, &["images", "-q"]), 1);

    docker(&["tag", "busybox", &pushed]);
    docker(&["push", &pushed]);
    assert_eq!(hub.tags("busybox"), "latest");

    docker(&["rmi", "busybox", &pushed]);
    assert_eq!(count(&host, &["images", "-q"]), 0);
    docker(&["pull", &pushed]);
    assert_eq!(count(&host, &["images", "-q"]), 1);
    docker(&["run", "--rm", &pushed, "true"]);
}

/// With the program as the entrypoint, and with the image's own.
#[test]
fn override_cmd() {
    let entrypoint = Host::options().instead(&["--entrypoint", "echo"]).arguments(["Hello", "world"]);
    let own = Host::options().instead(&[]).arguments(["echo", "Hello", "world"]);
    for options in [entrypoint, own] {
        let ended = options.create().run_to_its_end().exits(0);
        assert_eq!(ended.stdout, "Hello world\n", "{ended}");
    }
}
