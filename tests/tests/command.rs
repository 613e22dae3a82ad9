//! Command mode: `docker run IMAGE COMMAND` is a command on a live Docker host.

use dind_tests::{Call, Ended, Host, HostOptions, Terminal, Volume, busybox, docker, until};

/// A host for a command of a shell.
fn sh(line: &str) -> HostOptions {
    Host::options().arguments(["sh", "-c", line])
}

/// Runs a host in the foreground to its end.
#[track_caller]
fn run(options: HostOptions) -> Ended {
    options.create().run_to_its_end()
}

#[test]
fn a_command_has_its_own_streams_and_exit_code() {
    let ended = run(sh("docker version -f '{{.Server.Os}}'; echo to stderr >&2; exit 7")).exits(7);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("linux\n", "to stderr\n"));
    run(sh("kill -9 $$")).exits(137);
    // Its words are its own, whatever they look like.
    assert_eq!(run(Host::options().arguments(["printf", "%s,", "--debug", "a b", ""])).ok(), "--debug,a b,,");
    // One that hidden helpers of the host could be taken for, and one behind the word that says that a command follows.
    run(Host::options().arguments(["sync"])).ok();
    run(Host::options().arguments(["--", "sh", "-c", "exit 3"])).exits(3);
}

#[test]
fn standard_input_is_the_commands() {
    let host = Host::options()
        .run(["-i"])
        .arguments(["sh", "-c", "docker import - fed && docker images -q fed | wc -l"])
        .create();
    let fed = Call::new("docker").args(["start", "-ai", host.name()]).stdin(busybox()).within(30).run();
    assert_eq!(fed.ok().lines().last(), Some("1"));
}

#[test]
fn a_command_is_a_client_of_its_host() {
    let options = sh("echo \"$DOCKER_HOST|$DOCKER_TLS_VERIFY|$DOCKER_CERT_PATH|$CI|$PWD\"; docker ps -q")
        .env("DOCKER_HOST", "tcp://docker:2376")
        .env("DOCKER_TLS_VERIFY", "1")
        .env("DOCKER_CERT_PATH", "/certs/client")
        .env("CI", "true")
        .run(["-w", "/usr"]);
    let said = run(options).ok();
    assert_eq!(said, "unix:///var/run/docker.sock|||true|/usr");
}

#[test]
fn a_whole_ci_job_keeps_its_exit_code() {
    let source = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(source.path().join(name), text).unwrap();
    std::fs::copy("/bin/busybox", source.path().join("busybox")).expect("./check installs busybox-static");
    write("Dockerfile", b"FROM scratch\nCOPY busybox /bin/busybox\nCOPY answer /\n");
    write("answer", b"42\n");
    write(
        "docker-compose.yml",
        b"services:\n  tests:\n    build: .\n    network_mode: none\n    command: [/bin/busybox, sh, -c, '/bin/busybox grep -qx \"$$WANTED\" /answer']\n    environment: [WANTED]\n",
    );
    let job = |wanted: &str| {
        let mount = format!("{}:/src", source.path().display());
        let compose = ["docker", "compose", "run", "--rm", "tests"];
        let options =
            Host::options().run(["-v", &mount, "-w", "/src"]).env("WANTED", wanted).arguments(compose);
        let host = options.create();
        Call::new("docker").args(["start", "-a", host.name()]).within(120).run()
    };
    job("42").ok();
    job("43").exits(1);
}

#[test]
fn the_log_is_in_a_file_and_shown_only_where_no_command_ran() {
    let log = run(sh("cat /run/dind/log; stat -c %a /run/dind/log >&2")).stdout;
    for line in
        ["dind-init: dind-init ", "dockerd: API listen on /var/run/docker.sock", "dind-init: ready in "]
    {
        assert!(log.contains(line), "{line:?} is not in {log}");
    }
    for (options, says) in [
        (sh("echo never").instead(&["--cap-add", "SYS_ADMIN"]), "this container lacks"),
        (sh("echo never").env("DIND_TLS", "maybe"), "DIND_TLS=maybe is not on or off"),
        (sh("echo never").env("DOCKER_OPTS", "--nosuchoption"), "unknown flag: --nosuchoption"),
    ] {
        let ended = options.refused(125, &[says]);
        assert_eq!(ended.stdout, "");
    }
    // However much its services have said: here as a program that crashes with a long trace, five times.
    let crash = "#!/bin/sh\necho 'time=\"t\" level=info msg=\"up\"'\nfor i in $(seq 3000); do echo \"goroutine $i of very many\"; done\nexit 2\n";
    let crashing = sh("echo never").file("/usr/local/sbin/dockerd", 0o755, crash);
    crashing.refused(125, &["dockerd failed for good", "goroutine 3000 of very many"]);
    // The log of a host that came so far that it has one.
    sh("echo never")
        .env("DOCKER_OPTS", "--nosuchoption")
        .refused(125, &["info  dind-init: storage: ", "error dind-init: stopping, because dockerd refuses"]);
}

#[test]
fn what_cannot_run_is_said_before_a_host_is_started() {
    for (command, code) in [("nosuchprogram", 127), ("/etc", 126), ("/nowhere/program", 127)] {
        let ended = Host::options().arguments([command]).refused(code, &[&format!("cannot run {command:?}")]);
        assert!(!ended.stderr.contains("containerd"), "{ended}");
    }
    // Here only the kernel can tell.
    let script = ("/job".to_owned(), 0o755, b"#!/nowhere/interpreter\n".to_vec());
    let host = Host::options().arguments(["/job"]).file(&script.0, script.1, script.2).create();
    host.refuses(127, &["cannot run \"/job\": there is no such program"]);
}

#[test]
fn a_command_keeps_its_code_where_only_the_stop_goes_wrong() {
    // dockerd cannot come back without a containerd that answers, so it is not back when the stop is asked for.
    let line = "trap 'exit 3' TERM; pkill -STOP containerd; pkill -9 -x dockerd; echo killed; while :; do sleep 0.1; done";
    let host = sh(line).create();
    docker(["start", host.name()]).ok();
    says(&host, "killed");
    host.stop();
    host.assert_exited(3);
}

/// Waits until a host has said this on its standard output.
#[track_caller]
fn says(host: &Host, line: &str) {
    until(&format!("{line:?}"), 30, || host.logs().lines().any(|said| said == line).then_some(()));
}

#[test]
fn signals_are_the_commands_and_a_stop_is_a_stop() {
    let traps =
        "trap 'echo HUP' HUP; trap 'echo INT' INT; trap 'echo USR1' USR1; trap 'echo TERM; exit 3' TERM";
    let host = sh(&format!("{traps}; echo ready; while :; do sleep 0.1; done")).create();
    docker(["start", host.name()]).ok();
    says(&host, "ready");
    for signal in ["HUP", "INT", "USR1"] {
        host.signal(signal);
        says(&host, signal);
    }
    host.stop();
    says(&host, "TERM");
    host.assert_exited(3);

    // Who does not hear it ends all the same, and takes nobody's time to end cleanly.
    let data = Volume::new();
    let deaf =
        sh("trap '' TERM; echo ready; while :; do sleep 0.1; done").volume(&data, "/var/lib/docker").create();
    docker(["start", deaf.name()]).ok();
    says(&deaf, "ready");
    deaf.stop();
    deaf.assert_exited(137);
    assert_eq!(
        run(sh("grep -o 'left by a clean stop' /run/dind/log").volume(&data, "/var/lib/docker")).ok(),
        "left by a clean stop"
    );
}

/// Programs that catch every signal, as `ps` does, would take one for their own.
#[test]
fn the_end_of_somebody_elses_child_is_no_signal_for_the_command() {
    let program =
        "$| = 1; $SIG{CHLD} = sub { print qq(CHLD\n) }; $SIG{USR1} = sub { print qq(USR1\n); exit };
        print qq(ready\n); sleep 1 while 1";
    let host = Host::options().arguments(["perl", "-e", program]).create();
    docker(["start", host.name()]).ok();
    says(&host, "ready");
    // An orphan, which PID 1 reaps.
    let orphan = host.shell("sh -c 'sleep 0.2 & echo $!'").ok();
    until("the orphan to end", 20, || {
        host.shell(&format!("test ! -e /proc/{orphan}")).code.filter(|code| *code == 0)
    });
    host.signal("USR1");
    says(&host, "USR1");
    assert_eq!(host.logs(), "ready\nUSR1\n");
}

#[test]
fn what_a_command_leaves_behind_ends_with_its_host() {
    let data = Volume::new();
    let line = "docker import - busybox && docker run -d --restart always --name worker busybox /bin/busybox sleep 1000
        (setsid sleep 1000 &); sleep 1000 & exit 4";
    let host =
        Host::options().run(["-i"]).volume(&data, "/var/lib/docker").arguments(["sh", "-c", line]).create();
    let ended = Call::new("docker").args(["start", "-ai", host.name()]).stdin(busybox()).within(60).run();
    ended.exits(4);
    // And its containers come back with the next.
    let next = "grep -o 'left by a clean stop' /run/dind/log; docker ps --format '{{.Names}}'";
    assert_eq!(run(sh(next).volume(&data, "/var/lib/docker")).ok(), "left by a clean stop\nworker");
}

#[test]
fn a_host_that_fails_under_its_command_says_so() {
    let line = "pkill -x dockerd; sleep 30; echo never";
    let ended = run(sh(line).env("DIND_ON_FAILURE", "exit")).exits(70);
    assert!(
        ended.stderr.contains("dind-init: dockerd ended with code 0, and DIND_ON_FAILURE is exit"),
        "{ended}"
    );
    assert_eq!(ended.stdout, "");
}

#[test]
fn under_another_init_it_is_the_same() {
    let line = "cat /proc/1/comm; docker info -f '{{.Driver}}'; (setsid sh -c 'sleep 0.1' &);
        while pgrep -x sleep || cat /proc/[0-9]*/stat | grep -q ' Z '; do sleep 0.1; done >/dev/null; exit 5";
    let ended = run(sh(line).run(["--init"])).exits(5);
    assert_eq!(ended.stdout, "docker-init\noverlay2\n");
}

#[test]
fn nothing_of_the_host_is_open_in_its_command() {
    let said = run(sh("ls -l /proc/self/fd | grep -v pipe: | grep -v /proc/")).stdout;
    assert!(!said.contains("socket:") && !said.contains("anon_inode") && !said.contains("dind"), "{said}");
}

#[test]
fn a_command_that_would_start_the_engine_itself_finds_it_there() {
    // As pipelines have it for docker:dind, where a command runs without an engine.
    let host = sh("docker info -f '{{.Driver}}' && dockerd-entrypoint.sh").create();
    docker(["start", host.name()]).ok();
    says(&host, "overlay2");
    until("it to stay", 20, || host.shell("pgrep -f dockerd-entrypoint.sh$").ok().lines().next().map(drop));
    host.stop();
    let log = host.logs();
    assert!(!log.contains("dind-init"), "{log}");
    run(sh("dockerd-entrypoint.sh --debug"))
        .exits(64)
        .says(&["--debug comes too late", "\n  help: give dockerd's options in DOCKER_OPTS"]);
}

/// Starts a host for a command on a terminal.
fn on_terminal(options: HostOptions) -> (Host, Terminal) {
    let host = options.run(["-it"]).create();
    let terminal = Terminal::start("docker", ["start", "-ai", host.name()]);
    (host, terminal)
}

#[test]
fn a_shell_on_a_terminal_is_a_shell() {
    let (host, mut shell) = on_terminal(Host::options().arguments(["bash", "--norc"]));
    shell.shows("# ");
    assert!(!shell.screen().contains("cannot set terminal process group"), "{}", shell.screen());
    assert!(!shell.screen().contains("dind-init"), "the log is not on the terminal: {}", shell.screen());
    shell.types("PS1='host> '; docker info -f '{{.Driver}}'\n");
    shell.shows("\noverlay2\nhost> ");
    // Job control.
    // A key that is a signal throws away what was typed before it and not read: each waits until somebody is there to hear it.
    let job = r#"sh -c 'trap "echo b""ack" CONT; echo re""ady; while :; do sleep 0.1; done'"#;
    shell.types(&format!("{job}\n"));
    shell.shows("\nready");
    shell.types("\x1a");
    shell.shows("Stopped");
    shell.types_until("jobs\n", "\n[1]+  Stopped");
    shell.types("fg\n");
    shell.shows("\nback");
    shell.types("\x03");
    shell.shows("^C");
    shell.types("suspend\n");
    shell.types_until("echo still $((40 + 2))\n", "\nstill 42");
    // The window.
    shell.resize(40, 120);
    shell.types("clear\n");
    until("the size of the window", 20, || {
        shell.types("stty size\n");
        shell.screen().contains("\n40 120").then_some(())
    });
    shell.types("exit 9\n");
    assert_eq!(shell.ends(), 9);
    host.assert_exited(9);
}

#[test]
fn keys_are_the_commands_on_a_terminal() {
    // What the terminal echoes is not what was read: and before the command runs it echoes, too, and its keys are for `docker start`.
    let (host, mut program) = on_terminal(sh("echo ready; while read -r line; do echo \"read $line\"; done"));
    program.shows("ready");
    program.types_until("one\n", "read one");
    // There is no shell to bring it back.
    program.types("\x1a");
    program.types_until("two\n", "read two");
    program.types("\x03");
    assert_eq!(program.ends(), 130);
    host.assert_exited(130);
}

#[test]
fn a_shell_on_a_terminal_ends_with_its_host() {
    let (host, mut shell) = on_terminal(Host::options().arguments(["bash", "--norc"]));
    shell.shows("# ");
    // Shells ignore SIGTERM on a terminal.
    host.stop();
    shell.ends();
    host.assert_exited(129);
}
