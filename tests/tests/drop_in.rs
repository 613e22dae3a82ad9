//! In place of `docker:dind`: what its users rely on, and the examples of docs/ci.md, read from their files.

use std::path::{Path, PathBuf};

use dind_tests::{Call, Client, Compose, Ended, Host, HostOptions, Network, Volume, image, until_equal};
use serde_json::Value;

/// What a client is told, and nothing else.
const TLS_CLIENT: [(&str, &str); 3] =
    [("DOCKER_HOST", "tcp://docker:2376"), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/certs/client")];

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(name)
}

fn yaml(name: &str) -> Value {
    let text = std::fs::read_to_string(example(name)).unwrap();
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The strings in a list.
fn words(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("not a list: {list}"));
    list.iter()
        .map(|word| word.as_str().unwrap_or_else(|| panic!("not a string: {word}")).to_owned())
        .collect()
}

/// Runs a line of shell in a container beside a host: a client that has its variables and what else `run` gives it.
#[track_caller]
fn beside(variables: &[(&str, &str)], run: &[&str], line: &str) -> Ended {
    let variables = variables.iter().flat_map(|(name, value)| ["-e".to_owned(), format!("{name}={value}")]);
    let call = Call::new("docker").args(["run", "--rm", "--entrypoint", "sh"]).args(variables).args(run);
    call.args([image(), "-ec", line]).run()
}

fn on_a_network(network: &Network) -> HostOptions {
    Host::options().run(["--network", network.name(), "--network-alias", "docker"])
}

/// The folder for the client alone is a mount point, which nobody can rename; or all the folders are on one volume; or they
/// are somewhere else.
#[test]
fn a_client_needs_nothing_but_the_usual_variables() {
    let table = [
        ("/certs/client", "/certs", "/certs/client"),
        ("/certs", "/certs", "/certs"),
        ("/tmp/tls/client", "/tmp/tls", "/certs/client"),
    ];
    for (target, folder, seen_at) in table {
        let (network, certificates) = (Network::new(&[]), Volume::new());
        let host =
            on_a_network(&network).volume(&certificates, target).env("DOCKER_TLS_CERTDIR", folder).start();
        let mount = format!("{}:{seen_at}:ro", certificates.name());
        let server = beside(
            &TLS_CLIENT,
            &["--network", network.name(), "-v", &mount],
            "docker version -f '{{.Server.Version}}'",
        );
        assert_eq!(server.ok(), host.docker(["version", "-f", "{{.Server.Version}}"]).ok(), "{target}");
    }
}

/// A job that starts with its host, as runners do it, and goes by the port. The volume has the certificate of a host that is gone.
#[test]
fn whoever_finds_the_port_open_finds_the_certificate_there() {
    let (network, certificates) = (Network::new(&[]), Volume::new());
    let mount = format!("{}:/certs/client", certificates.name());
    drop(on_a_network(&network).volume(&certificates, "/certs/client").start());
    let stale = certificates.run("cat", &["cert.pem"]).ok();
    let line = "until (exec 3<>/dev/tcp/docker/2376) 2>/dev/null; do sleep 0.01; done; exec docker version";
    let job = TLS_CLIENT.iter().fold(Host::options().instead(&[]), |job, (name, value)| job.env(name, value));
    let job =
        job.run(["--network", network.name(), "-v", &mount, "--entrypoint", "bash"]).arguments(["-c", line]);
    let (job, host) = (job.create(), on_a_network(&network).volume(&certificates, "/certs/client").create());
    for container in [&job, &host] {
        Call::new("docker").args(["start", container.name()]).run().ok();
    }
    assert_eq!(job.ends(), 0, "{}", job.logs());
    assert_ne!(certificates.run("cat", &["cert.pem"]).ok(), stale);
}

/// As `docker:dind` makes them: RSA, by openssl, under its own names.
const DOCKER_DINDS_OWN: &str = r#"
make() {
    mkdir -p $1; openssl genrsa -out $1/key.pem 2048
    openssl req -new -key $1/key.pem -subj "/CN=docker:dind $1" -out $1/csr.pem
    printf '%s' "$2" >$1/openssl.cnf
    openssl x509 -req -in $1/csr.pem -CA ca/cert.pem -CAkey ca/key.pem -CAcreateserial -days 825 \
        -out $1/cert.pem -extfile $1/openssl.cnf
    cp ca/cert.pem $1/ca.pem
}
mkdir ca; openssl genrsa -out ca/key.pem 2048
openssl req -new -x509 -key ca/key.pem -subj '/CN=docker:dind CA' -days 825 -out ca/cert.pem
make server 'subjectAltName = DNS:docker,DNS:localhost,IP:10.255.255.1'
make client 'extendedKeyUsage = clientAuth'
chmod 0644 client/key.pem
"#;

#[test]
fn the_certificates_of_a_docker_dind_go_on_with_their_clients() {
    let (network, certificates) = (Network::new(&[]), Volume::new());
    certificates.run("sh", &["-ec", DOCKER_DINDS_OWN]).ok();
    let read = |file| certificates.run("cat", &[file]).ok();
    let (ca, client) = (read("ca/cert.pem"), read("client/cert.pem"));
    let host = on_a_network(&network).volume(&certificates, "/certs").start();
    assert_eq!((read("ca/cert.pem"), read("client/cert.pem")), (ca, client));
    assert!(host.logs().contains("certificates: server certificate renewed in /certs"), "{}", host.logs());
    let mount = format!("{}:/certs:ro", certificates.name());
    // Its client's key is for everybody, and stays so.
    let run = ["--network", network.name(), "-v", &mount, "--user", "1000:1000"];
    beside(&TLS_CLIENT, &run, "docker version").ok();
    host.client().docker(["version"]).ok();
}

/// What is said after the image's name, with or without docker:dind's entrypoint: the ports, and whether 2375 is plain.
#[test]
fn plain_clients_get_in_where_docker_dind_lets_them() {
    const EMPTY: &[(&str, &str)] = &[("DOCKER_TLS_CERTDIR", "")];
    const FOLDER: &[(&str, &str)] = &[("DOCKER_TLS_CERTDIR", "/certs")];
    type Row = (&'static [(&'static str, &'static str)], &'static [&'static str], &'static [u16], bool);
    let table: [Row; 7] = [
        (EMPTY, &[], &[2375, 2376], true),
        (EMPTY, &["--host=tcp://0.0.0.0:2375", "--tls=false"], &[2375, 2376], true),
        (EMPTY, &["dockerd", "--host=tcp://0.0.0.0:2375"], &[2375], true),
        (&[], &["dockerd", "--host=tcp://0.0.0.0:2375", "--host=unix:///var/run/docker.sock"], &[2375], true),
        // docker:dind has no TLS where dockerd is called by its name, whatever the variable says …
        (FOLDER, &["dockerd-entrypoint.sh", "dockerd", "--host", "tcp://0.0.0.0:2375"], &[2375], true),
        // … and on every port where it is not.
        (FOLDER, &["--host=tcp://0.0.0.0:2375"], &[2375, 2376], false),
        (&[], &["dockerd-entrypoint.sh", "--host=tcp://0.0.0.0:2375"], &[2375, 2376], false),
    ];
    for (variables, arguments, ports, is_plain) in table {
        let options =
            variables.iter().fold(Host::options(), |options, (name, value)| options.env(name, value));
        let host = options.arguments(arguments).start();
        assert_eq!(host.listening_ports(), ports, "{variables:?} {arguments:?}");
        let client = Client::plain(&format!("tcp://{}:2375", host.ip()));
        let call = client.docker(["version"]);
        let alarms = host.alarms();
        let said = |text: &str| alarms.iter().any(|line| line.level == "warn" && line.message.contains(text));
        if is_plain {
            call.ok();
            assert!(said("TLS is off"), "{arguments:?}: {alarms:?}");
            assert!(
                host.logs().contains(&format!("DOCKER_HOST=tcp://{}:2375\n", host.ip())),
                "{}",
                host.logs()
            );
        } else {
            call.fails().says(&["HTTP request to an HTTPS server"]);
            assert!(said("port 2375 speaks TLS, too"), "{arguments:?}: {alarms:?}");
            host.client().docker(["version"]).ok();
            host.client_at(&format!("tcp://{}:2375", host.ip())).docker(["version"]).ok();
        }
    }
}

/// As in a Pod: what is for containers beside it stays on the loopback interface.
#[test]
fn a_plain_port_on_loopback_opens_no_other() {
    let host = Host::options().arguments(["dockerd", "--host=tcp://127.0.0.1:2375"]).start();
    assert_eq!(host.listening_ports(), [2375]);
    let table = host.shell("cat /proc/net/tcp /proc/net/tcp6").ok();
    assert!(table.contains(" 0100007F:0947 ") && !table.contains(" 00000000:0947 "), "{table}");
    let network = format!("container:{}", host.name());
    beside(&[("DOCKER_HOST", "tcp://localhost:2375")], &["--network", &network], "docker version").ok();
    assert!(host.logs().contains("DOCKER_HOST=tcp://127.0.0.1:2375\n"), "{}", host.logs());
}

/// GitLab's advice for services on Kubernetes, where variables of the job reach the service.
#[test]
fn the_entrypoint_of_docker_dind_is_there_by_its_name() {
    let forms: [(&[&str], &[u16]); 3] = [
        (&["env", "-u", "DOCKER_HOST", "dockerd-entrypoint.sh"], &[2376]),
        (&["env", "-u", "DOCKER_HOST", "dockerd-entrypoint.sh", "--tls=false"], &[2375, 2376]),
        // Not as PID 1: after what somebody does first.
        (&["sh", "-c", "update-ca-certificates && dockerd-entrypoint.sh || exit"], &[2376]),
    ];
    for (line, ports) in forms {
        let (program, arguments) = line.split_first().unwrap();
        let host = Host::options().run(["--entrypoint", program]).env("DOCKER_HOST", "tcp://docker:2376");
        let host = host.arguments(arguments).start();
        assert_eq!(host.listening_ports(), ports, "{line:?}");
        host.stop();
        if *program == "env" {
            host.assert_exited(0);
        }
    }
    let host = Host::options().arguments(["dockerd-entrypoint.sh", "dockerd", "--label", "a=b"]).start();
    assert_eq!(host.docker(["info", "-f", "{{.Labels}}"]).ok(), "[a=b]");
}

#[test]
fn the_options_that_people_give_to_docker_dind_reach_dockerd() {
    let options = [
        "--mtu=1400",
        "--registry-mirror=https://mirror.example",
        "--insecure-registry=registry.example:5000",
        "--storage-driver=vfs",
        "--group=4321",
        "--experimental=false",
        "--default-address-pool=base=10.223.0.0/16,size=24",
        "--log-level=warn",
    ];
    let host = Host::options().env("DOCKER_TLS_CERTDIR", "/certs").arguments(options).start();
    let info = host.docker(["info", "-f", "{{.Driver}} {{json .RegistryConfig}}"]).ok();
    for text in ["vfs ", "https://mirror.example/", "registry.example:5000"] {
        assert!(info.contains(text), "{info}");
    }
    assert_eq!(host.exec(["stat", "-c", "%g", "/var/run/docker.sock"]).ok(), "4321");
    host.docker(["network", "create", "made"]).ok();
    let subnet = host.docker(["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "made"]).ok();
    assert!(subnet.starts_with("10.223."), "{subnet}");
    host.load_busybox();
    assert_eq!(host.docker(["run", "--rm", "busybox", "cat", "/sys/class/net/eth0/mtu"]).ok(), "1400");
}

/// Runners that share the socket's folder instead of a port (GitHub's actions-runner-controller does).
#[test]
fn a_socket_in_a_shared_folder_serves_a_group_beside_the_host() {
    let folder = Volume::new();
    let arguments = ["dockerd", "--host=unix:///var/run/docker.sock", "--group=4321"];
    let host = Host::options().volume(&folder, "/var/run").arguments(arguments).start();
    let mount = format!("{}:/shared", folder.name());
    let socket = [("DOCKER_HOST", "unix:///shared/docker.sock")];
    beside(&socket, &["-v", &mount, "--user", "1001:4321"], "docker version").ok();
    beside(&socket, &["-v", &mount, "--user", "1001:1001"], "docker version")
        .fails()
        .says(&["permission denied"]);
    host.stop();
    host.assert_exited(0);
    host.start();
    beside(&socket, &["-v", &mount, "--user", "1001:4321"], "docker version").ok();
}

#[test]
fn names_come_from_both_variables_and_from_the_domain() {
    let names = ["ours.example", "theirs.example", "ci.domain.example", "docker", "localhost"];
    let host = Host::options()
        .run(["--hostname", "ci", "--domainname", "domain.example"])
        .env("DIND_TLS_SAN", "ours.example,10.9.8.7")
        .env("DOCKER_TLS_SAN", "DNS:theirs.example,IP:10.9.8.6")
        .start();
    let certificates = host.client().into_certificates();
    let mount = format!("{}:/certs:ro", certificates.path().display());
    for name in names.into_iter().chain(["stranger.example"]) {
        let (alias, endpoint) = (format!("--add-host={name}:{}", host.ip()), format!("tcp://{name}:2376"));
        // Docker puts `localhost` first, so that one is asked from within.
        let network = format!("container:{}", host.name());
        let way = if name == "localhost" { ["--network", &network] } else { ["--label", "a=b"] };
        let run =
            [way.as_slice(), if name == "localhost" { &[] } else { &[alias.as_str()] }, &["-v", &mount]];
        let variables =
            [("DOCKER_HOST", &*endpoint), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/certs")];
        let call = beside(&variables, &run.concat(), "docker version");
        if name == "stranger.example" {
            call.fails().says(&["x509", "stranger.example"]);
        } else {
            call.ok();
        }
    }
    let certificate = host.shell("openssl x509 -noout -ext subjectAltName </certs/server/cert.pem").ok();
    for address in ["10.9.8.7", "10.9.8.6", "127.0.0.1", &host.ip()] {
        assert!(certificate.contains(&format!("IP Address:{address}")), "{certificate}");
    }
}

#[test]
fn an_address_that_changes_over_a_restart_is_certified_and_the_client_stays() {
    let (first, second) = (Network::new(&[]), Network::new(&[]));
    let host = on_a_network(&first).start();
    let client = host.client();
    client.docker(["version"]).ok();
    let before = host.ip();
    host.stop();
    Call::new("docker").args(["network", "disconnect", first.name(), host.name()]).run().ok();
    second.connect(&host);
    host.start();
    assert_ne!(host.ip(), before);
    let moved = Client::with_certificates(&format!("tcp://{}:2376", host.ip()), client.into_certificates());
    moved.docker(["version"]).ok();
    let said = host.logs();
    assert!(said.contains("server certificate renewed in /certs"), "{said}");
    assert!(!said.contains("client certificate renewed"), "{said}");
}

/// docs/examples/gitlab-ci.yml and gitlab-runner.toml: the runner mounts its volumes into service and job, gives the job's
/// variables to both, and calls the service by its alias. Its volumes outlive the host: the next job's is another.
#[test]
fn the_gitlab_example_builds_in_two_jobs() {
    let job = &yaml("gitlab-ci.yml")["build"];
    let runner = std::fs::read_to_string(example("gitlab-runner.toml")).unwrap();
    // The values in it are JSON, too.
    let setting = |name: &str| -> Value {
        let line = runner.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(" = "));
        serde_json::from_str(line.unwrap_or_else(|| panic!("no {name}"))).unwrap()
    };
    assert_eq!((setting("privileged"), setting("services_privileged")), (false.into(), true.into()));
    let service = &job["services"][0];
    let name = service["name"].as_str().unwrap();
    assert!(words(&setting("allowed_privileged_services")).iter().any(|allowed| allowed == name), "{name}");
    let alias = service["alias"].as_str().unwrap();
    let variables: Vec<(&str, &str)> = job["variables"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (&**name, value.as_str().unwrap()))
        .collect();
    for told in TLS_CLIENT {
        assert!(variables.contains(&told), "{told:?}");
    }
    let network = Network::new(&[]);
    let volumes: Vec<(Volume, String)> =
        words(&setting("volumes")).into_iter().map(|target| (Volume::new(), target)).collect();
    let mounts: Vec<String> =
        volumes.iter().map(|(volume, target)| format!("{}:{target}", volume.name())).collect();
    let mounts: Vec<&str> = mounts.iter().flat_map(|mount| ["-v", mount]).collect();
    let script = words(&job["script"]).join("\n");
    let script = format!("mkdir /build; cd /build; printf 'FROM scratch\nCOPY . /\n' >Dockerfile\n{script}");
    for _ in 0..2 {
        let host = Host::options().run(["--network", network.name(), "--network-alias", alias]).run(&mounts);
        let host = variables.iter().fold(host, |host, (name, value)| host.env(name, value)).start();
        let run = [&["--network", network.name(), "-e", "CI_PROJECT_NAME=project"], &*mounts].concat();
        beside(&variables, &run, &script).ok();
        // The variables are in the service, too, and lead a client inside astray, as in docker:dind.
        let inside = "docker -H unix:///var/run/docker.sock image inspect -f '{{.RepoTags}}' project";
        assert_eq!(host.shell(&format!("unset DOCKER_TLS_VERIFY; {inside}")).ok(), "[project:latest]");
        let alarms = host.alarms();
        assert!(alarms.is_empty(), "{alarms:?}");
        host.stop();
        host.assert_exited(0);
    }
}

/// The options of `docker run` that stand for a container's part of a Pod.
fn options_of(container: &Value, volumes: &[(String, Volume)]) -> Vec<String> {
    let mut options = Vec::new();
    let security = &container["securityContext"];
    for (list, option) in [("drop", "--cap-drop"), ("add", "--cap-add")] {
        let capabilities = &security["capabilities"][list];
        if !capabilities.is_null() {
            options.extend(words(capabilities).into_iter().flat_map(|name| [option.to_owned(), name]));
        }
    }
    for (profile, name) in [("seccompProfile", "seccomp"), ("appArmorProfile", "apparmor")] {
        if security[profile]["type"] == "Unconfined" {
            options.extend(["--security-opt".to_owned(), format!("{name}=unconfined")]);
        }
    }
    if security["allowPrivilegeEscalation"] == false {
        options.extend(["--security-opt".to_owned(), "no-new-privileges".to_owned()]);
    }
    if let Some(user) = security["runAsUser"].as_u64() {
        options.extend(["--user".to_owned(), format!("{user}:0")]);
    }
    for mount in container["volumeMounts"].as_array().unwrap() {
        let (_, volume) = volumes.iter().find(|(name, _)| mount["name"] == **name).unwrap();
        let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
        let mount = format!("{}:{}:{mode}", volume.name(), mount["mountPath"].as_str().unwrap());
        options.extend(["-v".to_owned(), mount]);
    }
    for variable in container["env"].as_array().unwrap() {
        let value = |key| variable[key].as_str().unwrap();
        options.extend(["-e".to_owned(), format!("{}={}", value("name"), value("value"))]);
    }
    options
}

/// docs/examples/kubernetes-pod.yaml: two containers that share a network and volumes, started and ended in the order of a
/// Pod. The job is ended in its midst: it must be able to tidy up in the host, which is asked to stop after it.
#[test]
fn the_kubernetes_example_runs_and_ends_in_order() {
    let pod = &yaml("kubernetes-pod.yaml")["spec"];
    let (sidecar, job) = (&pod["initContainers"][0], &pod["containers"][0]);
    assert_eq!(sidecar["restartPolicy"], "Always");
    let volumes: Vec<(String, Volume)> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| (volume["name"].as_str().unwrap().to_owned(), Volume::new()))
        .collect();
    let host = Host::options().instead(&[]).run(options_of(sidecar, &volumes)).create();
    Call::new("docker").args(["start", host.name()]).run().ok();
    let probe = &sidecar["startupProbe"];
    let command = words(&probe["exec"]["command"]);
    let tries = probe["periodSeconds"].as_u64().unwrap() * probe["failureThreshold"].as_u64().unwrap();
    let probe = || host.docker_exec().args(&command).run().code;
    until_equal("the startup probe to succeed", tries, Some(0), probe);
    assert_eq!(host.listening_ports(), [2376]);

    let groups = pod["securityContext"]["supplementalGroups"].as_array().unwrap();
    let shared = ["--network".to_owned(), format!("container:{}", host.name())];
    let groups = groups.iter().flat_map(|group| ["--group-add".to_owned(), group.to_string()]);
    let run: Vec<String> = shared.into_iter().chain(groups).chain(options_of(job, &volumes)).collect();
    let run: Vec<&str> = run.iter().map(String::as_str).collect();
    let [shell, option, line] = &*words(&job["command"]) else { panic!("{job}") };
    assert_eq!((&**shell, &**option), ("sh", "-c"));
    beside(&[], &run, line).ok();

    host.load_busybox();
    let line = "trap 'docker rm -f inner && echo tidied up && exit 0' TERM; \
        docker run -d --name inner busybox sleep 1000; while :; do sleep 0.1; done";
    let job =
        Host::options().instead(&[]).run(&run).run(["--entrypoint", "sh"]).arguments(["-ec", line]).create();
    Call::new("docker").args(["start", job.name()]).run().ok();
    until_equal("the job to be at work", 20, "inner\n".to_owned(), || {
        host.docker(["ps", "--format", "{{.Names}}"]).stdout
    });
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    let budget =
        sidecar["env"].as_array().unwrap().iter().find(|variable| variable["name"] == "DIND_STOP_TIMEOUT");
    let budget: u64 = budget.unwrap()["value"].as_str().unwrap().parse().unwrap();
    assert!(budget < grace, "the job has no time of its own: {budget} of {grace}");
    job.stop_within(u32::try_from(grace - budget).unwrap());
    job.assert_exited(0);
    assert!(job.logs().ends_with("tidied up\n"), "{}", job.logs());
    assert_eq!(host.docker(["ps", "-aq"]).ok(), "");
    host.stop_within(u32::try_from(budget).unwrap());
    host.assert_exited(0);
    assert!(!host.logs().contains("not clean"), "{}", host.logs());
}

#[test]
fn the_compose_example_runs_as_it_stands() {
    let compose = Compose::new(example("docker-compose.yml"), &["docker", "job"], &["client"]);
    let ended = compose.call().args(["up", "--exit-code-from", "job"]).run();
    assert!(ended.stdout.contains("Server Version: "), "{ended}");
    ended.ok();
}

/// docs/ci.md shows the files as they are.
#[test]
fn the_page_shows_the_examples() {
    let page = std::fs::read_to_string(example("../ci.md")).unwrap();
    for name in ["gitlab-ci.yml", "gitlab-runner.toml", "kubernetes-pod.yaml", "docker-compose.yml"] {
        let text = std::fs::read_to_string(example(name)).unwrap();
        assert!(page.contains(&text), "docs/ci.md does not show docs/examples/{name} as it is");
    }
}
