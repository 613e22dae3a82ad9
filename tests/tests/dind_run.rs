//! `dind run`: a host for one command.

use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use dind_tests::shelf::{archive, local_name};
use dind_tests::{Dind, Host, Terminal, Volume, docker, until};

/// The options of a host of `dind run`, and a label by which it is found again.
struct Mine {
    dind: Dind,
    label: String,
}

impl Mine {
    fn new() -> Self {
        Self { dind: Dind::new(), label: format!("mine={}", Dind::name()) }
    }

    fn words(&self, options: &[&str], command: &[&str]) -> Vec<String> {
        let mut words = vec!["run".to_owned(), "--label".to_owned(), self.label.clone()];
        words.extend(Dind::options());
        words.extend(options.iter().map(|&word| word.to_owned()));
        words.push("--".to_owned());
        words.extend(command.iter().map(|&word| word.to_owned()));
        words
    }

    /// The same for env(1) on a terminal, quiet.
    fn typed(&self, command: &[&str]) -> Vec<String> {
        let mut words = vec!["-u".to_owned(), "DOCKER_HOST".to_owned()];
        let variables = self.dind.environment().into_iter();
        words.extend(variables.map(|(variable, value)| format!("{variable}={value}")));
        words.push(Dind::program().display().to_string());
        words.extend(self.words(&["-q"], command));
        words
    }

    /// The hosts that there are.
    fn hosts(&self) -> String {
        docker(["ps", "-aq", "--filter", &format!("label={}", self.label)]).ok()
    }

    /// Starts it without waiting, with its output in a file of its home.
    fn spawn(&self, options: &[&str], command: &[&str]) -> Child {
        let out = std::fs::File::create(self.dind.home().join("out")).unwrap();
        let mut run = self.dind.command(self.words(options, command));
        run.stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .process_group(0)
            .spawn()
            .unwrap()
    }

    fn out(&self) -> String {
        std::fs::read_to_string(self.dind.home().join("out")).unwrap_or_default()
    }

    fn waits_for(&self, text: &str) {
        until(&format!("{text:?} in {}", self.out()), 60, || self.out().contains(text).then_some(()));
    }
}

fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

fn code(child: &mut Child) -> Option<i32> {
    until("dind to end", 60, || child.try_wait().unwrap()).code()
}

#[test]
fn the_command_has_a_host_of_its_own_which_goes_with_it() {
    let mine = Mine::new();
    let script = "docker version -f '{{.Server.Os}}' && docker ps -q && test -r $DOCKER_CERT_PATH/key.pem && echo here: $PWD && exit 7";
    let ended = mine.dind.run(mine.words(&["-q"], &["sh", "-c", script])).exits(7);
    assert_eq!(ended.stdout, format!("linux\nhere: {}\n", mine.dind.home().display()));
    assert_eq!(ended.stderr, "");
    assert_eq!(mine.hosts(), "");
    let kept = std::fs::read_dir(mine.dind.home().join("state/dind/hosts")).unwrap().count();
    assert_eq!(kept, 0, "certificates of a host that is no more");
    // The endpoint's own docker, asked from inside the command.
    let outside = "env -u DOCKER_HOST -u DOCKER_TLS_VERIFY -u DOCKER_CERT_PATH docker";
    let script = format!(
        "{outside} inspect -f '{{{{range .Mounts}}}}{{{{.Name}}}}{{{{end}}}}' $({outside} ps -q --filter label={})",
        mine.label
    );
    let volume = mine.dind.run(mine.words(&["-q"], &["sh", "-c", &script])).ok();
    assert!(!volume.is_empty());
    assert_ne!(docker(["volume", "inspect", &volume]).code, Some(0), "its volume goes with it");
}

/// What most commands of `dind run` do: they start a database, wait until it is healthy, and use it.
#[test]
fn a_database_runs_in_the_commands_host() {
    let mine = Mine::new();
    let script = format!(
        "set -e; docker load -q -i {} >/dev/null
        docker run -d --name db --health-cmd 'redis-cli ping' --health-interval 500ms {} >/dev/null
        until [ \"$(docker inspect -f '{{{{.State.Health.Status}}}}' db)\" = healthy ]; do sleep 0.2; done
        docker exec -u redis db id -u; docker run --rm --network container:db {} redis-cli ping",
        archive("redis").display(),
        local_name("redis"),
        local_name("redis"),
    );
    let ended = mine.dind.call(mine.words(&["-q"], &["sh", "-c", &script])).within(120).run();
    assert_eq!(ended.ok(), "999\nPONG");
    assert_eq!(mine.hosts(), "");
}

#[test]
fn a_command_that_cannot_run_gets_no_host() {
    let mine = Mine::new();
    mine.dind.run(mine.words(&[], &["nonesuch"])).exits(127).says(&["cannot run nonesuch", "PATH"]);
    std::fs::write(mine.dind.home().join("plain"), "").unwrap();
    mine.dind.run(mine.words(&[], &["./plain"])).exits(126).says(&["it is not executable"]);
    mine.dind.run(mine.words(&["--local"], &["true"])).exits(125).says(&["--local"]);
    mine.dind.run(mine.words(&["-e", "LOCAL=maybe"], &["true"])).exits(125).says(&["LOCAL=maybe"]);
    mine.dind
        .run(mine.words(&["--from", "nonesuch"], &["true"]))
        .exits(125)
        .says(&["there is no volume nonesuch", "warm one first"]);
    mine.dind.run(mine.words(&["--from", ""], &["true"])).exits(125).says(&["is not the name of a volume"]);
    mine.dind.run(mine.words(&["--from", "a", "-v", "b"], &["true"])).exits(125).says(&["both say where"]);
    mine.dind
        .run(mine.words(&["--time-limit", "1h", "-e", "DIND_TIME_LIMIT=2h"], &["true"]))
        .exits(125)
        .says(&["say the same thing twice"]);
    mine.dind.run(["run"]).exits(64);
    assert_eq!(mine.hosts(), "");
}

#[test]
fn input_and_output_are_the_commands_own() {
    let mine = Mine::new();
    let ended = mine.dind.call(mine.words(&["-q"], &["sh", "-c", "cat; echo err >&2"])).stdin("in").run();
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str(), ended.code), ("in", "err\n", Some(0)));
}

#[test]
fn sigterm_and_sighup_end_the_command_and_remove_the_host() {
    for (sent, expected) in
        [(nix::sys::signal::Signal::SIGTERM, 143), (nix::sys::signal::Signal::SIGHUP, 129)]
    {
        let mine = Mine::new();
        let mut child = mine.spawn(&["-q"], &["sh", "-c", "echo up; exec sleep 100"]);
        mine.waits_for("up");
        assert_ne!(mine.hosts(), "");
        signal(&child, sent);
        assert_eq!(code(&mut child), Some(expected), "{}", mine.out());
        assert_eq!(mine.hosts(), "");
    }
}

#[test]
fn a_signal_before_the_command_runs_removes_the_host() {
    let mine = Mine::new();
    let mut child = mine.spawn(&["--cpus", "0.02"], &["true"]);
    until("the host", 60, || (!mine.hosts().is_empty()).then_some(()));
    signal(&child, nix::sys::signal::Signal::SIGTERM);
    assert_eq!(code(&mut child), Some(143), "{}", mine.out());
    mine.waits_for("ended by SIGTERM");
    assert_eq!(mine.hosts(), "");
}

#[test]
fn ctrl_c_is_the_commands_and_twice_is_the_end() {
    let mine = Mine::new();
    let script =
        "trap 'echo caught' INT; trap 'echo asked; exit 5' TERM; echo up; while :; do sleep 0.1; done";
    let mut terminal = Terminal::start("env", mine.typed(&["sh", "-c", script]));
    terminal.shows("up");
    terminal.types("\x03");
    terminal.shows("caught");
    assert_ne!(mine.hosts(), "");
    terminal.types("\x03");
    terminal.shows("asked");
    assert_eq!(terminal.ends(), 5);
    assert_eq!(mine.hosts(), "");
}

/// The command and we get the signal at the same time, and the command ends at once.
#[test]
fn a_command_that_ctrl_c_ends_takes_its_host_with_it() {
    let mine = Mine::new();
    let mut terminal = Terminal::start("env", mine.typed(&["sh", "-c", "echo up; exec sleep 100"]));
    terminal.shows("up");
    terminal.types("\x03");
    assert_eq!(terminal.ends(), 130);
    assert_eq!(mine.hosts(), "");
}

#[test]
fn a_closed_terminal_removes_the_host() {
    let mine = Mine::new();
    let words = mine.typed(&["sh", "-c", "echo up; sleep 100"]);
    // The terminal's session belongs to a program that is killed with it; dind is left with a terminal that is gone.
    let script = format!(
        "env {} & wait",
        words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ")
    );
    let terminal = Terminal::start("sh", ["-c", &script]);
    terminal.shows("up");
    drop(terminal);
    until("the host to be gone", 60, || mine.hosts().is_empty().then_some(()));
}

#[test]
fn a_killed_dind_leaves_what_prune_finds() {
    let mine = Mine::new();
    let mut child = mine.spawn(&["-q"], &["sh", "-c", "echo up; exec sleep 100"]);
    mine.waits_for("up");
    // Not while it lives.
    let host = mine.hosts();
    mine.dind.run(["prune", "--label", &mine.label]).ok();
    assert_eq!(mine.hosts(), host);
    nix::sys::signal::killpg(
        nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    child.wait().unwrap();
    assert!(
        mine.dind.run(["prune", "--dry-run", "--label", &mine.label]).ok().contains("its `dind run` is gone")
    );
    assert_eq!(mine.hosts(), host);
    mine.dind.run(["prune", "--label", &mine.label]).ok();
    assert_eq!(mine.hosts(), "");
}

#[test]
fn a_killed_dind_leaves_a_host_that_ends_and_goes_by_itself() {
    let mine = Mine::new();
    let mut child = mine.spawn(&["-q", "--time-limit", "15s"], &["sh", "-c", "echo up; exec sleep 100"]);
    mine.waits_for("up");
    nix::sys::signal::killpg(
        nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    child.wait().unwrap();
    until("the host to be gone", 60, || mine.hosts().is_empty().then_some(()));
}

#[test]
fn a_host_that_dies_meanwhile_is_told_of() {
    let mine = Mine::new();
    let mut child = mine.spawn(&["-q"], &["sh", "-c", "echo up; read line < fifo; exit 3"]);
    let fifo = mine.dind.home().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    mine.waits_for("up");
    docker(["kill", &mine.hosts()]).ok();
    mine.waits_for("has ended while the command runs");
    std::fs::write(fifo, "\n").unwrap();
    assert_eq!(code(&mut child), Some(3), "{}", mine.out());
    assert_eq!(mine.hosts(), "");
}

#[test]
fn a_volume_keeps_the_data_warm_and_a_copy_does_not_spoil_it() {
    let mine = Mine::new();
    let volume = Volume::new();
    let build =
        |name: &str| format!("echo FROM scratch | docker build -q -t {name} --label a=b - >/dev/null");
    let listed = "docker image ls --format '{{.Repository}}' | sort | tr '\\n' ' '";
    let run = |options: &[&str], script: &str| {
        mine.dind
            .call(mine.words(&[options, &["-q"]].concat(), &["sh", "-c", script]))
            .env("DOCKER_BUILDKIT", "0")
            .run()
            .ok()
    };
    run(&["--volume", volume.name()], &build("warm"));
    assert_eq!(run(&["--volume", volume.name()], listed), "warm");
    // Of this volume: other tests have copies of theirs.
    let label = format!("label=dind.copy-of={}", volume.name());
    let copies = || docker(["volume", "ls", "-q", "--filter", &label]).ok();
    assert_eq!(run(&["--from", volume.name()], &format!("{}; {listed}", build("spoilt"))), "spoilt warm");
    assert_eq!(run(&["--from", volume.name()], listed), "warm");
    assert_eq!(copies(), "", "the copy is gone");
    // A host that is gone before its command cannot say which copy was its own.
    let engine = "env -u DOCKER_HOST -u DOCKER_TLS_VERIFY -u DOCKER_CERT_PATH docker";
    let hosts = format!("$({engine} ps -q --filter label={})", mine.label);
    let script = format!("{engine} kill {hosts} >/dev/null; while [ \"{hosts}\" ]; do sleep 0.1; done");
    run(&["--from", volume.name()], &script);
    assert_eq!(copies(), "");
    // In use: it could not be copied whole.
    let host = Host::options().volume(&volume, "/var/lib/docker").start();
    mine.dind.run(mine.words(&["--from", volume.name()], &["true"])).exits(125).says(&["cannot be copied"]);
    drop(host);
    assert_eq!(mine.hosts(), "");
    assert_eq!(copies(), "");
}
