//! Building from outside: a context is sent to a host, what it makes goes to a registry, and another host runs it.

use dind_tests::{Authority, Host, HostOptions, Network, REGISTRY, REGISTRY_PORT, Registry, Volume};

/// By each name a builder: what `DOCKER_BUILDKIT` says, to the same client.
const BUILDERS: [(&str, &str); 2] = [("classic", "0"), ("buildkit", "1")];

/// The name by which a host's certificate knows it, and a client beside it calls it.
const HOST: &str = "docker";

/// A host on the network, by that name.
fn on(network: &Network) -> HostOptions {
    Host::options().run(["--network", network.name()])
}

/// A machine beside the host, with the docker command and the certificate of a client, and no engine: not even the privileges that
/// one needs.
#[track_caller]
fn workstation(network: &Network, host: &Host) -> Host {
    let mut options = on(network)
        .instead(&[])
        .run(["--entrypoint", "sleep"])
        .arguments(["infinity"])
        .env("DOCKER_HOST", &format!("tcp://{HOST}:2376"))
        .env("DOCKER_TLS_VERIFY", "1")
        .env("DOCKER_CERT_PATH", "/certificates");
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        let pem = host.exec(["cat", &format!("/certs/client/{file}")]).ok() + "\n";
        options = options.file(&format!("/certificates/{file}"), 0o600, pem);
    }
    let machine = options.create().by_docker_exec();
    dind_tests::docker(["start", machine.name()]).ok();
    machine
}

/// Puts an application's folder on the machine.
#[track_caller]
fn put_application(machine: &Host, dockerfile: &str) {
    let file = |path: &str, content: &[u8]| (format!("/app/{path}"), 0o644, content.to_vec());
    machine.put(&[
        file("Dockerfile", dockerfile.as_bytes()),
        file(".dockerignore", b"ignored\n"),
        file("ignored", b"not sent"),
        file("folder/greeting", b"hello from the context"),
        // More than any buffer on the way holds.
        file("large", &[b'x'; 8_000_000]),
    ]);
}

#[test]
fn a_context_is_sent_to_both_builders() {
    let network = Network::new(&[]);
    let host = on(&network).run(["--network-alias", HOST]).start();
    host.load_busybox();
    let machine = workstation(&network, &host);
    let dockerfile = "FROM busybox AS first\nCOPY . /app/\nARG WHAT\n\
         RUN [ \"$WHAT\" != wrong ] || exit 7; [ ! -e /app/ignored ] && echo $(busybox wc -c </app/large) $WHAT >/app/made\n\
         FROM busybox\nCOPY --from=first /app/made /app/folder/greeting /app/\n\
         CMD [\"cat\", \"/app/made\", \"/app/greeting\"]\n";
    put_application(&machine, dockerfile);
    for (builder, buildkit) in BUILDERS {
        let build =
            format!("DOCKER_BUILDKIT={buildkit} docker build -t {builder} --build-arg WHAT={builder} /app");
        machine.shell(&build).ok();
        let said = machine.exec(["docker", "run", "--rm", builder]).ok();
        assert_eq!(said, format!("8000000 {builder}\nhello from the context"));
        // An archive on standard input, with its Dockerfile elsewhere in it.
        let build = format!(
            "cd /app && mkdir -p deep && cp Dockerfile deep/It && tar --exclude ./ignored -c . | \
             DOCKER_BUILDKIT={buildkit} docker build -t again --build-arg WHAT=again -f deep/It -"
        );
        machine.shell(&build).ok();
        let said = machine.exec(["docker", "run", "--rm", "again"]).ok();
        assert!(said.starts_with("8000000 again"), "{said}");
        // One that fails says so to whoever asked.
        let build = format!("DOCKER_BUILDKIT={buildkit} docker build --build-arg WHAT=wrong /app");
        machine.shell(&build).fails().says(&["code: 7"]);
    }
    assert_eq!(host.alarms(), []);
}

#[test]
fn a_secret_of_a_build_reaches_no_image() {
    let network = Network::new(&[]);
    let host = on(&network).run(["--network-alias", HOST]).start();
    host.load_busybox();
    let machine = workstation(&network, &host);
    let dockerfile = "FROM busybox\nRUN --mount=type=secret,id=token busybox wc -c </run/secrets/token >/length\n\
                      CMD [\"cat\", \"/length\"]\n";
    put_application(&machine, dockerfile);
    machine.put(&[("/token".into(), 0o600, b"very secret".to_vec())]);
    machine.shell("DOCKER_BUILDKIT=1 docker build -t app --secret id=token,src=/token /app").ok();
    assert_eq!(machine.exec(["docker", "run", "--rm", "app"]).ok(), "11");
    machine.shell("docker save app | grep -q 'very secret'").fails();
}

#[test]
fn the_cache_of_both_builders_lies_on_a_named_volume() {
    let data = Volume::new();
    let network = Network::new(&[]);
    let start = || on(&network).run(["--network-alias", HOST]).volume(&data, "/var/lib/docker").start();
    // What no two runs make alike, and what a folder that is kept between builds has counted.
    let dockerfile = "FROM busybox\nRUN busybox head -c 32 /dev/urandom >/random\nCOPY folder /folder\n";
    let counted = "RUN --mount=type=cache,target=/kept echo x >>/kept/count && cat /kept/count >/count\n";
    let build = |machine: &Host| {
        BUILDERS.map(|(builder, buildkit)| {
            machine.shell(&format!("DOCKER_BUILDKIT={buildkit} docker build -t {builder} /app")).ok();
            machine.exec(["docker", "run", "--rm", builder, "busybox", "sha256sum", "/random"]).ok()
        })
    };
    let first = start();
    first.load_busybox();
    let machine = workstation(&network, &first);
    put_application(&machine, dockerfile);
    let made = build(&machine);
    put_application(&machine, &format!("{dockerfile}{counted}"));
    machine.shell("DOCKER_BUILDKIT=1 docker build -t counted /app").ok();
    drop(machine);
    first.stop();
    first.assert_exited(0);
    drop(first);
    // Another host on the volume, and a client that has never built here.
    let second = start();
    let machine = workstation(&network, &second);
    put_application(&machine, dockerfile);
    machine.exec(["docker", "rmi", "classic", "buildkit"]).ok();
    assert_eq!(build(&machine)[1], made[1]);
    put_application(&machine, &format!("{dockerfile}ARG AGAIN\n{counted}"));
    machine.shell("DOCKER_BUILDKIT=1 docker build -t counted --build-arg AGAIN=1 /app").ok();
    assert_eq!(machine.exec(["docker", "run", "--rm", "counted", "cat", "/count"]).ok(), "x\nx");
}

/// Builds beside the first host, with each builder, pushes, and runs on the second what it pulls by its digest.
#[track_caller]
fn build_here_and_run_there(network: &Network, registry: &Registry, host: impl Fn() -> HostOptions) {
    let builds = host().run(["--network-alias", HOST]).start();
    let runs = host().start();
    builds.load_busybox();
    let machine = workstation(network, &builds);
    put_application(&machine, "FROM busybox\nCOPY folder /app\nCMD [\"cat\", \"/app/greeting\"]\n");
    for (builder, buildkit) in BUILDERS {
        let name = format!("{REGISTRY}:{REGISTRY_PORT}/team/{builder}");
        machine
            .shell(&format!(
                "DOCKER_BUILDKIT={buildkit} docker build -t {name}:1 /app && docker push {name}:1"
            ))
            .ok();
        assert_eq!(registry.tags(&format!("team/{builder}")), "1");
        let digests = ["image", "inspect", "-f", "{{join .RepoDigests \"\\n\"}}", &format!("{name}:1")];
        let digest = machine.exec(["docker"].into_iter().chain(digests)).ok();
        assert!(digest.starts_with(&format!("{name}@sha256:")), "{digest}");
        assert_eq!(runs.docker(["run", "--rm", "--quiet", &digest]).ok(), "hello from the context");
    }
    assert_eq!((builds.alarms(), runs.alarms()), (vec![], vec![]));
}

#[test]
fn built_on_one_host_and_run_on_another_by_a_registry_with_tls() {
    let network = Network::new(&[]);
    let authority = Authority::new("a company");
    let registry = Registry::on(&network, Some(&authority.server_named(REGISTRY)));
    build_here_and_run_there(&network, &registry, || {
        on(&network)
            .file("/etc/company/ca.pem", 0o644, authority.certificate())
            .env("DIND_CA_CERTIFICATES", "/etc/company")
    });
}

#[test]
fn built_on_one_host_and_run_on_another_by_a_registry_without_tls() {
    let network = Network::new(&[]);
    let registry = Registry::on(&network, None);
    let insecure = format!("--insecure-registry {REGISTRY}:{REGISTRY_PORT}");
    build_here_and_run_there(&network, &registry, || on(&network).env("DOCKER_OPTS", &insecure));
}
