//! `dind up`, and the ways in which it can go wrong.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use dind_tests::{Dind, Host, RUN_OPTIONS, Terminal, Volume, docker, image, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The containers that exist of the host's image, by id.
fn containers() -> Vec<String> {
    docker(["ps", "-aq", "--filter", "label=dind.flavour"]).ok().lines().map(str::to_owned).collect()
}

/// The options of `dind up NAME` for a test.
fn up(name: &str, options: &[&str]) -> Vec<String> {
    let mut words = vec!["up".to_owned(), name.to_owned()];
    words.extend(Dind::options());
    words.extend(options.iter().map(|&option| option.to_owned()));
    words
}

#[test]
fn a_host_is_ready_and_the_lines_that_it_prints_work() {
    let dind = Dind::new();
    let name = Dind::name();
    let said = dind.run(up(&name, &[])).ok();
    let host = Host::named(&name);
    assert!(said.contains(&format!("{name} is ready after ")), "{said}");
    for line in said.lines().filter_map(|line| line.trim().split_once("   ")).map(|(line, _)| line.trim()) {
        let line = line.replace("dind exec -it", "dind exec");
        let line = if line.ends_with(" sh") { format!("{line} -c true") } else { line };
        dind.shell(&line).ok();
    }
    // The last of them removes it.
    assert!(said.contains(&format!("dind rm -f {name}")), "{said}");
    assert!(docker(["inspect", host.name()]).code != Some(0), "{said}");
}

#[test]
fn it_has_what_the_documented_options_give_and_no_more() {
    let dind = Dind::new();
    let ours = dind.up(&[]);
    let theirs = Host::options().create();
    // The order, and the prefix, are the client's.
    let capabilities = |host: &Host| {
        let added = host.inspect("{{range .HostConfig.CapAdd}}{{.}} {{end}}").replace("CAP_", "");
        let mut added: Vec<String> = added.split_whitespace().map(str::to_owned).collect();
        added.sort();
        added
    };
    assert_eq!(capabilities(&ours), capabilities(&theirs));
    let format = "{{json .HostConfig.SecurityOpt}} {{json .HostConfig.DeviceCgroupRules}} \
                  {{.HostConfig.Privileged}} {{.HostConfig.AutoRemove}} {{.Config.StopTimeout}}";
    assert_eq!(ours.inspect(format), theirs.inspect(format), "{RUN_OPTIONS:?}");
    // Of this machine only, on a free port.
    assert!(ours.inspect("{{json .NetworkSettings.Ports}}").contains(r#""HostIp":"127.0.0.1""#));
}

#[test]
fn every_option_reaches_the_host() {
    let dind = Dind::new();
    let volume = Volume::new();
    let host = dind.up(&[
        "-m",
        "1g",
        "--cpus",
        "1.5",
        "-v",
        volume.name(),
        "--docker-opts",
        "--label 'a=b c'",
        "-e",
        "DIND_LOG=json",
        "-e",
        "DIND_TLS_SAN=more.example.com",
        "--stop-timeout",
        "20",
        "-l",
        "mine=yes",
        "-p",
        "127.0.0.1::2376",
        "-p",
        "127.0.0.1::8000",
    ]);
    assert_eq!(host.inspect("{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}"), "1073741824 1500000000");
    assert_eq!(host.inspect("{{.Config.StopTimeout}} {{index .Config.Labels \"mine\"}}"), "20 yes");
    assert!(
        host.inspect("{{json .HostConfig.Binds}}").contains(&format!("{}:/var/lib/docker", volume.name()))
    );
    assert!(host.inspect("{{json .Config.Env}}").contains("DIND_STOP_TIMEOUT=20"));
    assert!(host.docker(["info", "--format", "{{.Labels}}"]).ok().contains("a=b c"));
    let ports = host.inspect("{{json .NetworkSettings.Ports}}");
    assert!(ports.contains("8000/tcp") && ports.contains("2376/tcp"), "{ports}");
    let names = host.shell("openssl x509 -noout -ext subjectAltName -in /certs/server/cert.pem").ok();
    assert!(names.contains("more.example.com"), "{names}");
}

#[test]
fn quiet_prints_the_id_and_a_name_is_made_up() {
    let dind = Dind::new();
    let mut words = vec!["up".to_owned(), "-q".to_owned()];
    words.extend(Dind::options());
    let said = dind.run(words).ok();
    let host = Host::named(&docker(["inspect", "-f", "{{.Name}}", &said]).ok()[1..]);
    assert_eq!(host.inspect("{{.Id}}"), said);
    assert!(host.name().contains('_'), "the engine makes up names of two words: {}", host.name());
}

#[test]
fn a_local_host_has_no_port_and_says_so() {
    let dind = Dind::new();
    let host = dind.up(&["--local"]);
    assert_eq!(host.inspect("{{len .HostConfig.PortBindings}}"), "0");
    dind.run(["env", host.name()]).exits(1).says(&["has no port for the Docker API", "dind exec"]);
    assert_eq!(dind.run(["exec", host.name(), "docker", "ps", "-q"]).ok(), "");
}

#[test]
fn it_does_not_wait_when_told_so() {
    let dind = Dind::new();
    let name = Dind::name();
    let said = dind.run(up(&name, &["--detach-ready=false"])).ok();
    let host = Host::named(&name);
    assert!(said.contains("has been started") && said.contains("dind logs -f"), "{said}");
    host.wait();
}

#[test]
fn what_is_wrong_is_named_with_the_next_step_and_nothing_is_left() {
    let dind = Dind::new();
    let taken = Host::options().create();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let publish = format!("127.0.0.1:{}:2376", busy.local_addr().unwrap().port());
    let name = Dind::name();
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["-p", &publish], 1, &["cannot be started", "address already in use", "take another port"]),
        (
            &["-e", "LOCAL=maybe"],
            1,
            &["ended while it was starting, with exit code 64", "LOCAL=maybe is not a yes or a no"],
        ),
        (&["--docker-opts", "--nonesuch"], 1, &["exit code 64", "--nonesuch"]),
        (&["-e", "DIND_STOP_TIMEOUT=9", "--stop-timeout", "9"], 64, &["say the same thing twice"]),
        (&["-l", "dind.flavour=x"], 64, &["cannot be given", "take another"]),
        (&["--network", "nonesuch"], 1, &["nonesuch"]),
        (&["-v", "relative/but: wrong:z:z"], 1, &["refuses"]),
    ];
    let before = containers();
    for (options, code, texts) in cases {
        let ended = dind.run(up(&name, options)).exits(*code);
        ended.clone().says(&["dind: ", "\n  help: "]).says(texts);
        assert_ne!(docker(["inspect", &name]).code, Some(0), "{options:?} left the host behind\n{ended}");
    }
    dind.run(up(taken.name(), &[])).exits(1).says(&["is taken", "dind rm -f"]);
    assert_eq!(taken.inspect("{{.State.Status}}"), "created", "the host that has the name is left alone");
    dind.run(["up", &name, "--image", "dind-nonesuch", "--pull", "never"])
        .exits(1)
        .says(&["there is no image dind-nonesuch", "--image IMAGE"]);
    dind.run(["up", &name, "-p", "99999"]).exits(64).says(&["99999"]);
    dind.run(["up", &name, "--flavour", "nonesuch", "--pull", "never"])
        .exits(64)
        .says(&["there is no flavour nonesuch", "debian"]);
    for bad in ["", "/slash", "x", "-dash", "a b"] {
        let mut words = vec!["up".to_owned()];
        words.extend(Dind::options());
        words.extend(["--".to_owned(), bad.to_owned()]);
        dind.run(words).exits(64).says(&["cannot be a name of a host"]);
    }
    // A volume that only this host would have had goes with it.
    let volume = format!("{name}-data");
    dind.run(up(&name, &["-v", &volume, "-e", "LOCAL=maybe"])).exits(1);
    assert_ne!(docker(["volume", "inspect", &volume]).code, Some(0));
    // Other tests' hosts come and go; none of ours stays.
    assert!(
        containers().iter().filter(|id| !before.contains(id)).all(|id| docker([
            "inspect",
            "-f",
            "{{.Name}}",
            id
        ])
        .stdout
        .trim()
            != format!("/{name}"))
    );
}

#[test]
fn one_that_is_late_goes_on_and_says_what_it_does() {
    let dind = Dind::new();
    let name = Dind::name();
    // With a hundredth of a processor no engine starts in two seconds.
    let ended = dind.call(up(&name, &["--cpus", "0.02", "--timeout", "1s"])).within(120).run().exits(124);
    let host = Host::named(&name);
    ended.says(&["is not ready after 1.0 s", "dind logs -f", "--timeout", "  | "]);
    assert_eq!(host.inspect("{{.State.Running}}"), "true");
}

#[test]
fn ctrl_c_while_it_starts_leaves_nothing() {
    let dind = Dind::new();
    let name = Dind::name();
    let mut words = vec!["-i".to_owned()];
    words.extend(dind.environment().into_iter().map(|(variable, value)| format!("{variable}={value}")));
    words.extend(["TERM=xterm".to_owned(), format!("PATH={}", std::env::var("PATH").unwrap())]);
    words.push(Dind::program().display().to_string());
    words.extend(up(&name, &["--cpus", "0.02"]));
    let mut terminal = Terminal::start("env", words);
    terminal.shows(" starts");
    until("the container", 30, || (docker(["inspect", &name]).code == Some(0)).then_some(()));
    terminal.types("\x03");
    assert_eq!(terminal.ends(), 130);
    assert!(terminal.screen().contains("ended by SIGINT"), "{}", terminal.screen());
    assert_ne!(docker(["inspect", &name]).code, Some(0));
}

#[test]
fn endpoints_that_are_no_good_are_named() {
    let dind = Dind::new();
    let folder = tempfile::tempdir().unwrap();
    let nowhere = format!("unix://{}/docker.sock", folder.path().display());
    dind.run(["-H", &nowhere, "ls"]).exits(69).says(&["there is no socket", "systemctl start docker"]);
    dind.run(["-H", "tcp://127.0.0.1:1", "ls"]).exits(69).says(&["cannot reach", "refused"]);
    dind.run(["-H", "nonsense://x", "ls"]).exits(64).says(&["nonsense:// is not spoken here"]);
    dind.run(["-c", "nonesuch", "ls"])
        .exits(64)
        .says(&["there is no usable context nonesuch", "docker context ls"]);
    dind.call(["ls"])
        .env("DOCKER_HOST", "tcp://127.0.0.1:1")
        .env("DOCKER_TLS_VERIFY", "1")
        .run()
        .exits(69)
        .says(&["ca.pem", "DOCKER_CERT_PATH"]);
    // Docker's socket is root's and its group's.
    let program = folder.path().join("dind");
    std::fs::copy(Dind::program(), &program).unwrap();
    let open: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open.clone()).unwrap();
    std::fs::set_permissions(&program, open).unwrap();
    let script = format!("setpriv --reuid 65534 --regid 65534 --clear-groups {} ls", program.display());
    dind.shell(&script).exits(69).says(&["ermission denied", "docker group"]);
}

/// An engine that answers `GET /version` with this version of the API, and nothing else.
fn old_engine(version: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let body = format!(r#"{{"Version":"1.10.0","ApiVersion":"{version}"}}"#);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("tcp://{address}")
}

#[test]
fn an_endpoint_that_is_too_old_is_refused() {
    let dind = Dind::new();
    dind.run(["-H", &old_engine("1.22"), "ls"])
        .exits(69)
        .says(&["speaks API version 1.22, which is too old", "1.24"]);
}

#[test]
fn images_of_another_version_are_told_to_be_built_again() {
    let dind = Dind::new();
    let name = Dind::name();
    // What an image was before it knew `wait --json`: the option is refused there, with 64.
    let dockerfile = format!(
        "FROM {}\nRUN mv /usr/sbin/dind-init /usr/sbin/dind-init.new && printf '%s\\n' '#!/bin/sh' 'case \"$*\" in *--json*) echo unexpected >&2; exit 64;; esac' 'exec /usr/sbin/dind-init.new \"$@\"' > /usr/sbin/dind-init && chmod +x /usr/sbin/dind-init\n",
        image()
    );
    let tag = format!("{name}:old");
    dind.call(["--version"]).run().ok();
    dind_tests::Call::new("docker").args(["build", "-q", "-t", &tag, "-"]).stdin(dockerfile).run().ok();
    let ended = dind.run(["up", &name, "--image", &tag]);
    let _ = docker(["rm", "-fv", &name]);
    let _ = docker(["rmi", "-f", &tag]);
    ended.exits(1).says(&["is of an image that this dind does not fit", "dind build"]);
}

#[test]
fn a_signal_is_heard_while_an_endpoint_says_nothing() {
    let dind = Dind::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    for words in [&["up"][..], &["run", "--", "true"], &["build"], &["ls"]] {
        let mut child = dind.command(["-H", &endpoint]).args(words).stderr(Stdio::null()).spawn().unwrap();
        // It has asked, and nobody answers.
        let _connection = listener.accept().unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
        let ended = child.wait().unwrap();
        // What makes nothing has nothing to tidy: the signal itself ends it.
        let expected = if words == ["ls"] { (None, Some(Signal::SIGINT as i32)) } else { (Some(130), None) };
        assert_eq!((ended.code(), ended.signal()), expected, "{words:?}");
    }
}
