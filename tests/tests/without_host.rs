//! Commands where no dind host can be brought up: alone, as in `docker:dind`, or refused, where a host was meant. And
//! `docker-entrypoint.sh`, which never brings one up.

use dind_tests::{
    Call, Ended, Host, HostOptions, RUN_OPTIONS, Terminal, Volume, appliance_image, docker, image, until,
};

/// A container with these options of `docker run`, and nothing of what a host needs.
fn container(run: &[&str], command: &[&str]) -> HostOptions {
    Host::options().instead(run).arguments(command)
}

#[track_caller]
fn run(run: &[&str], command: &[&str]) -> Ended {
    container(run, command).create().run_to_its_end()
}

/// The same by `docker-entrypoint.sh`.
#[track_caller]
fn client(options: &[&str], command: &[&str]) -> Ended {
    run(&[&["--entrypoint", "docker-entrypoint.sh"], options].concat(), command)
}

/// What is said of a command that runs alone.
const SAID: [&str; 3] = [" runs without a dind host: ", "\n  help: ", "docker-entrypoint.sh"];

#[test]
fn a_command_without_options_runs_alone_and_says_why() {
    let kubernetes = ["--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
    let forms: [(&[&str], &str); 8] = [
        (&[], "this container lacks NET_ADMIN and SYS_ADMIN and SYS_PTRACE"),
        (&["--user", "1000"], "this process runs as user 1000"),
        (&["--read-only"], "this container lacks NET_ADMIN"),
        // What runners give for gdb, strace and sanitizers.
        (
            &["--cap-add", "SYS_PTRACE", "--security-opt", "seccomp=unconfined"],
            "this container lacks NET_ADMIN and SYS_ADMIN:",
        ),
        (&["--init"], "this container lacks NET_ADMIN"),
        (&["--cap-drop", "CHOWN"], "this container lacks NET_ADMIN"),
        (&["--cap-drop", "ALL"], "this container lacks NET_ADMIN"),
        (&kubernetes, "this process runs as user 1000"),
    ];
    for (options, why) in forms {
        let ended = run(options, &["echo", "x"]).exits(0).says(&SAID).says(&["\"echo\"", why]);
        assert_eq!((ended.stdout.as_str(), ended.stderr.lines().count()), ("x\n", 2), "{options:?}: {ended}");
        // By the other name nothing is missing.
        let ended = client(options, &["echo", "x"]).exits(0);
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("x\n", ""), "{options:?}");
    }
}

#[test]
fn its_exit_code_is_the_commands() {
    let commands: [(&[&str], i32); 5] = [
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -34 $$"], 162),
        (&["nosuchprogram"], 127),
        (&["/etc"], 126),
    ];
    for (command, code) in commands {
        let ended = run(&[], command).exits(code);
        // What does not run at all runs neither with nor without a host.
        let runs = !ended.stderr.contains("cannot run");
        assert_eq!((runs, ended.stderr.contains(SAID[0])), (!(126..=127).contains(&code), runs), "{ended}");
        client(&[], command).exits(code);
    }
}

#[test]
fn signals_and_a_stop_are_the_commands() {
    let line = "trap 'echo HUP' HUP; trap 'echo TERM; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    for options in [&[][..], &["--entrypoint", "docker-entrypoint.sh"]] {
        let job = container(options, &["sh", "-c", line]).create();
        let says = |job: &Host, word: &str| {
            until(word, 30, || job.logs().lines().any(|said| said == word).then_some(()));
        };
        docker(["start", job.name()]).ok();
        says(&job, "ready");
        job.signal("HUP");
        says(&job, "HUP");
        job.stop();
        says(&job, "TERM");
        job.assert_exited(3);
        // As PID 1 of its container it would not get this one: its parent is that.
        let sleeping = container(options, &["sh", "-c", "echo asleep; exec sleep 1000"]).create();
        docker(["start", sleeping.name()]).ok();
        says(&sleeping, "asleep");
        sleeping.stop();
        sleeping.assert_exited(143);
    }
}

#[test]
fn a_shell_on_a_terminal_is_a_shell() {
    for options in [&["-it"][..], &["-it", "--entrypoint", "docker-entrypoint.sh"]] {
        let host = container(options, &["bash", "--norc"]).create();
        let mut shell = Terminal::start("docker", ["start", "-ai", host.name()]);
        shell.shows("# ");
        assert!(!shell.screen().contains("cannot set terminal process group"), "{}", shell.screen());
        assert_eq!(shell.screen().contains("runs without a dind host"), options.len() == 1);
        shell.types("exit 9\n");
        assert_eq!(shell.ends(), 9);
        host.assert_exited(9);
    }
}

#[test]
fn nothing_is_changed() {
    let data = Volume::new();
    let meant = ["--cap-add", "SYS_ADMIN"];
    for (options, code) in [(&[][..], 0), (&meant, 125)] {
        let job = container(options, &["true"]).volume(&data, "/var/lib/docker").create();
        let _ = job.run_to_its_end().exits(code);
        let changes = docker(["diff", job.name()]).ok();
        // What Docker itself makes on the way: folders for mounts.
        let changed =
            |line: &&str| !line.starts_with("C ") && !["A /var/lib/docker", "A /run/secrets"].contains(line);
        assert_eq!(changes.lines().filter(changed).collect::<Vec<_>>(), [""; 0], "{options:?}");
    }
    assert_eq!(data.listing(), "");
}

/// Some of what a host needs was given, or asked of it: then tests without an engine would be a surprise.
#[test]
fn a_host_that_was_meant_is_refused_by_name() {
    let as_user: Vec<&str> = RUN_OPTIONS.into_iter().chain(["--user", "1000"]).collect();
    let without_chown: Vec<&str> = RUN_OPTIONS.into_iter().chain(["--cap-drop", "CHOWN"]).collect();
    let meant: [(&[&str], &[&str]); 10] = [
        (&["--cap-add", "SYS_ADMIN"], &["lacks NET_ADMIN and SYS_PTRACE:", "the capability SYS_ADMIN"]),
        (&["--cap-add", "NET_ADMIN"], &["lacks SYS_ADMIN and SYS_PTRACE:", "the capability NET_ADMIN"]),
        (&as_user, &["this process runs as user 1000", "leave --user out"]),
        (&without_chown, &["this container lacks CHOWN,", "--cap-add CHOWN"]),
        (
            &["-e", "DIND_STORAGE=auto"],
            &["lacks NET_ADMIN and SYS_ADMIN", "DIND_STORAGE asks for a dind host"],
        ),
        (&["-e", "DIND_TIME_LIMIT=1h", "--user", "1"], &["as user 1 ", "DIND_TIME_LIMIT asks for"]),
        (&["-e", "DIND_STORGE=auto"], &["DIND_STORGE asks for a dind host"]),
        (&["-e", "DOCKER_OPTS=--debug"], &["DOCKER_OPTS asks for a dind host"]),
        (&["-e", "COMPOSE_SCRIPT=services: {}"], &["COMPOSE_SCRIPT asks for a dind host"]),
        (&["-e", "LOCAL=true", "-e", "DIND_LOG=json"], &["DIND_LOG asks for a dind host"]),
    ];
    for (options, texts) in meant {
        let refused = container(options, &["echo", "never"]).refused(125, texts);
        assert_eq!(refused.stdout, "", "{options:?}");
        refused.says(&["docker-entrypoint.sh runs a command without a host"]);
    }
    // Which is true.
    let all: Vec<&str> = meant.iter().flat_map(|(options, _)| *options).copied().collect();
    for options in [&["--cap-add", "SYS_ADMIN"], &as_user[..], &all] {
        assert_eq!(client(options, &["echo", "x"]).ok(), "x", "{options:?}");
    }
    let appliance = container(&[], &["echo", "never"]);
    let appliance = appliance.image(&appliance_image("static"), "./quickstart --build-all");
    appliance.refused(125, &["an appliance's image asks for a dind host"]);
    // No command: a host.
    container(&[], &[]).refused(69, &["this container lacks NET_ADMIN and SYS_ADMIN"]);
}

/// What jobs have around them, whatever they want.
#[test]
fn variables_of_jobs_ask_for_no_host() {
    let variables = [
        "DOCKER_TLS_CERTDIR=/certs",
        "DOCKER_TLS_SAN=DNS:a",
        "DOCKER_HOST=tcp://docker:2376",
        "DOCKER_DRIVER=overlay2",
        "LOCAL=true",
        "DIND_VERSION=29",
        "DIND_SERVICE_HOST=10.0.0.1",
        "DIND_PORT_2376_TCP=tcp://10.0.0.1:2376",
        "DIND_STORAGE=",
    ];
    let options: Vec<&str> = variables.into_iter().flat_map(|variable| ["-e", variable]).collect();
    assert_eq!(run(&options, &["sh", "-c", "echo $DOCKER_HOST"]).says(&SAID).ok(), "tcp://docker:2376");
}

/// The commands of docker, alone and on a host, with and without `docker`, as in `docker:dind`.
#[test]
fn words_of_dockers_are_dockers() {
    let ended = run(&[], &["version"]).fails().says(&SAID).says(&["\"docker\"", "docker:2375"]);
    assert!(ended.stdout.contains("Client"), "{ended}");
    run(&[], &["dockerd-entrypoint.sh", "wait"]).exits(1).says(&SAID).says(&["docker wait"]);
    client(&[], &["--version"]).ok();
    client(&[], &["exec"]).exits(1).says(&["docker exec"]);
    client(&[], &[]).exits(64).says(&["docker-entrypoint.sh lacks the command", "\n  help: "]);

    let on_a_host = |words: &[&str]| run(&RUN_OPTIONS, words).ok();
    assert_eq!(on_a_host(&["version", "-f", "{{.Server.Os}}"]), "linux");
    assert_eq!(on_a_host(&["ps", "-q"]), "");
    assert!(on_a_host(&["--", "ps", "-e"]).contains("dockerd"));
}

/// docker's commands are known without asking docker, so that no start waits for it. This asks.
#[test]
fn every_command_of_docker_is_known() {
    let help = client(&[], &["docker", "--help"]).ok();
    let commands: Vec<&str> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_once(' '))
        .map(|(command, _)| command.trim_end_matches('*'))
        .filter(|command| command.starts_with(|first: char| first.is_ascii_lowercase()))
        .collect();
    assert!(commands.len() > 50 && commands.contains(&"compose"), "{help}");
    // A program of this name has other words for it, where there is one.
    let line = "for command; do docker-entrypoint.sh $command --help | grep -q '^Usage:  docker ' || echo $command; done";
    let unknown = client(&[], &[&["sh", "-c", line, "sh"], &commands[..]].concat());
    assert_eq!(unknown.stdout, "", "{unknown}");
}

/// Where a client goes: to the socket that is there, else to the host that is called as in `docker:dind`, with the certificate that
/// is there.
#[test]
fn a_client_finds_the_engine_that_is_there() {
    let show = ["sh", "-c", "echo \"$DOCKER_HOST|$DOCKER_TLS_VERIFY|$DOCKER_CERT_PATH\""];
    let certificates = Volume::new();
    let host = Host::options().volume(&certificates, "/certs/client").start();
    let mount = format!("{}:/certs/client:ro", certificates.name());
    let socket = "/var/run/docker.sock:/var/run/docker.sock";
    let table: [(&[&str], &str); 5] = [
        (&[], "tcp://docker:2375||"),
        (&["-v", &mount], "tcp://docker:2376|1|/certs/client"),
        (&["-v", &mount, "-e", "DOCKER_TLS_CERTDIR="], "tcp://docker:2375||"),
        (&["-v", &mount, "-e", "DOCKER_HOST=tcp://a:1"], "tcp://a:1|1|/certs/client"),
        (&["-v", &mount, "-v", socket], "unix:///var/run/docker.sock||"),
    ];
    for (options, shown) in table {
        assert_eq!(client(options, &show).ok(), shown, "{options:?}");
        assert_eq!(run(options, &show).says(&SAID).ok(), shown, "{options:?}");
    }
    // The engine of the machine, the host from beside, and the host from within.
    let id = ["info", "-f", "{{.ID}}"];
    assert_eq!(client(&["-v", socket], &id).ok(), docker(id).ok());
    let link = format!("{}:docker", host.name());
    let theirs = host.docker(id).ok();
    assert_eq!(client(&["--link", &link, "-v", &mount], &id).ok(), theirs);
    assert_eq!(run(&["--link", &link, "-v", &mount], &id).ok(), theirs);
    assert_eq!(host.exec(["docker-entrypoint.sh"].into_iter().chain(id)).ok(), theirs);
}

/// In `docker:dind` this is dockerd itself.
#[test]
fn dockerd_is_a_host_by_that_name_too() {
    let options = Host::options().run(["--entrypoint", "docker-entrypoint.sh"]);
    let host = options.arguments(["dockerd", "--label", "a=b"]).start();
    assert_eq!(host.docker(["info", "-f", "{{.Labels}}"]).ok(), "[a=b]");
    host.stop();
    host.assert_exited(0);
    let named =
        Call::new("docker").args(["run", "--rm", "--entrypoint", "docker-entrypoint.sh", image(), "dockerd"]);
    named.run().exits(69).says(&["this container lacks"]);
}
