//! `dind-init exec`, a plain init, beside tini and dumb-init: as PID 1 of a namespace of its own, and as somebody's child.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use dind_tests::{Binary, Call, Ended, Terminal, until};

/// What runs under the init: see `src/bin/child.rs`.
const CHILD: &str = env!("CARGO_BIN_EXE_child");

/// An init: how it is called.
#[derive(Debug, Clone)]
struct Init {
    name: &'static str,
    words: Vec<String>,
}

impl Init {
    fn ours(binary: &Binary) -> Self {
        let program = binary.path().to_string_lossy().into_owned();
        Self { name: "dind-init", words: vec![program, "exec".into(), "--".into()] }
    }

    /// Those that people use today, as Debian packages them.
    fn others() -> [Self; 2] {
        // -s: a subreaper, where it is not PID 1.
        let tini = ["tini", "-s", "--"].map(str::to_owned).to_vec();
        [
            Self { name: "tini", words: tini },
            Self { name: "dumb-init", words: ["dumb-init", "--"].map(str::to_owned).to_vec() },
        ]
    }

    fn all(binary: &Binary) -> Vec<Self> {
        [vec![Self::ours(binary)], Self::others().to_vec()].concat()
    }

    /// The same as PID 1.
    fn first(mut self) -> Self {
        let unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"].map(str::to_owned);
        self.words.splice(0..0, unshare);
        self
    }

    fn call(&self, command: &[&str]) -> Call {
        let (program, args) = self.words.split_first().expect("an init has a name");
        Call::new(program).args(args).args(command.iter().copied())
    }

    fn run(&self, command: &[&str]) -> Ended {
        self.call(command).run()
    }

    fn start(&self, command: &[&str]) -> Started {
        self.start_with(command, Stdio::null())
    }

    fn start_with(&self, command: &[&str], stdin: Stdio) -> Started {
        let (program, args) = self.words.split_first().expect("an init has a name");
        let mut child = Command::new(program)
            .args(args)
            .args(command)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .expect("./check installs tini and dumb-init");
        let said = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Started { child, said }
    }
}

/// An init that runs, killed at the end of the test.
struct Started {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Started {
    #[track_caller]
    fn says(&mut self) -> String {
        self.said.next().expect("it says something").expect("in plain text")
    }

    fn signal(&self, number: i32) {
        let pid = i32::try_from(self.child.id()).expect("a pid is small");
        // SAFETY: kill(2) touches no memory.
        assert_eq!(unsafe { libc::kill(pid, number) }, 0);
    }

    #[track_caller]
    fn ends(&mut self) -> Option<i32> {
        let child = &mut self.child;
        until("the init to end", 20, || child.try_wait().expect("it can be waited for")).code()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_exit_code_comes_through() {
    let binary = Binary::new();
    for init in Init::all(&binary) {
        for code in 0..=255 {
            init.run(&["sh", "-c", &format!("exit {code}")]).exits(code);
        }
    }
    for init in Init::all(&binary).into_iter().map(Init::first) {
        for code in [0, 1, 77, 126, 127, 128, 255] {
            init.run(&["sh", "-c", &format!("exit {code}")]).exits(code);
        }
    }
}

#[test]
fn death_by_a_signal_is_128_and_its_number() {
    let binary = Binary::new();
    // What is ignored unless somebody asks for it, and what stops.
    let harmless = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
    let stopping = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    for number in (1..=64).filter(|number| ![harmless, stopping].concat().contains(number)) {
        Init::ours(&binary).run(&[CHILD, "die", &number.to_string()]).exits(128 + number);
        if number < 32 {
            for init in Init::others() {
                init.run(&[CHILD, "die", &number.to_string()]).exits(128 + number);
            }
        }
    }
}

/// What cannot be caught, what tells an init of its children, and what ends the test's child.
const NOT_SENT: [i32; 4] = [libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD, libc::SIGTERM];

/// Whether a child of this init hears these signals.
#[track_caller]
fn assert_forwards(init: &Init, sent: impl Iterator<Item = i32>) {
    let mut started = init.start(&[CHILD, "hear"]);
    assert_eq!(started.says(), "ready");
    for number in sent {
        started.signal(number);
        assert_eq!(started.says(), number.to_string(), "{}", init.name);
    }
    started.signal(libc::SIGTERM);
    assert_eq!(started.says(), libc::SIGTERM.to_string(), "{}", init.name);
    assert_eq!(started.ends(), Some(0), "{}", init.name);
}

#[test]
fn every_signal_that_can_be_forwarded_is() {
    let binary = Binary::new();
    assert_forwards(&Init::ours(&binary), (1..=64).filter(|number| !NOT_SENT.contains(number)));
    for init in Init::others() {
        let usual = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];
        assert_forwards(&init, usual.into_iter());
    }
}

#[test]
fn what_a_command_inherits_is_as_if_nobody_were_between() {
    let binary = Binary::new();
    let mut init = Init::ours(&binary);
    let direct = Call::new(CHILD).arg("describe").run().ok();
    assert!(direct.contains("SigBlk=0000000000000000"), "{direct}");
    for init in [init.clone(), init.clone().first()] {
        // Nothing is blocked, nothing more is open or ignored; only that it leads a process group of its own.
        let wanted = direct.replace("leads_its_group=false", "leads_its_group=true");
        assert_eq!(init.run(&[CHILD, "describe"]).ok(), wanted);
    }
    // SIGCHLD ignored by whoever starts us would have the kernel reap children itself; a child must not inherit that either.
    init.words.splice(0..0, ["sh", "-c", "trap '' CHLD; exec \"$@\"", "sh"].map(str::to_owned));
    init.run(&["sh", "-c", "sleep 0.1; exit 7"]).exits(7);
    let said = init.run(&[CHILD, "describe"]).ok();
    let ignored = said.lines().find_map(|line| line.strip_prefix("SigIgn=")).unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    assert_eq!(ignored & (1 << (libc::SIGCHLD - 1)), 0, "{said}");
}

#[test]
fn ten_thousand_orphans_are_reaped() {
    let binary = Binary::new();
    for init in Init::all(&binary).into_iter().map(Init::first) {
        let ended = init.call(&[CHILD, "orphans", "10000"]).within(120).run();
        assert_eq!(ended.code, Some(0), "{}: {ended}", init.name);
    }
    Init::ours(&binary).run(&[CHILD, "orphans", "1000"]).ok();
}

#[test]
fn who_left_the_session_is_reaped_and_never_killed() {
    let binary = Binary::new();
    // Two leave the session, and their parents end: one ends before the command does, the other does not.
    let script = "(setsid sh -c 'echo $$; exec sleep 0.1' &); (setsid sh -c 'echo $$; exec sleep 30' &); read go; exit 5";
    for init in Init::all(&binary) {
        let mut started = init.start_with(&["sh", "-c", script], Stdio::piped());
        let strangers = [started.says(), started.says()].map(|pid| pid.parse::<i32>().unwrap());
        let is_there = |pid: i32| std::fs::exists(format!("/proc/{pid}")).unwrap();
        // One that nobody reaped would be there still, as a zombie.
        until("one of them to end and be reaped", 10, || {
            strangers.iter().any(|pid| !is_there(*pid)).then_some(())
        });
        let stranger = strangers.into_iter().find(|pid| is_there(*pid)).unwrap();
        drop(started.child.stdin.take());
        assert_eq!(started.ends(), Some(5), "{}", init.name);
        // Not PID 1, so it is somebody else's now, and not ours to end.
        // SAFETY: signal 0 asks whether the process is there.
        assert_eq!(unsafe { libc::kill(stranger, 0) }, 0, "{}", init.name);
        // SAFETY: it is this test's own.
        unsafe { libc::kill(stranger, libc::SIGKILL) };
    }
}

#[test]
fn a_child_that_stops_itself_is_not_taken_for_dead() {
    let binary = Binary::new();
    let script = "echo before; kill -STOP $$; echo after; exit 5";
    for init in Init::all(&binary) {
        let mut started = init.start(&["sh", "-c", script]);
        assert_eq!(started.says(), "before");
        let init_pid = started.child.id();
        let children = format!("/proc/{init_pid}/task/{init_pid}/children");
        until("the child to stop", 10, || {
            let child = std::fs::read_to_string(&children).ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).ok()?;
            stat.contains(") T ").then_some(())
        });
        assert!(started.child.try_wait().unwrap().is_none(), "{}", init.name);
        started.signal(libc::SIGCONT);
        assert_eq!(started.says(), "after", "{}", init.name);
        assert_eq!(started.ends(), Some(5), "{}", init.name);
    }
}

#[test]
fn what_cannot_run_is_126_or_127() {
    let binary = Binary::new();
    let init = Init::ours(&binary);
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "exit 9\n").unwrap();
    let plain = plain.to_str().unwrap();
    for (command, code, says) in [
        ("nosuchprogram", 127, "cannot run \"nosuchprogram\": there is no such program"),
        ("/nowhere/program", 127, "cannot run \"/nowhere/program\": there is no such program"),
        ("", 127, "cannot run \"\": there is no such program"),
        (plain, 126, "permission denied"),
        ("/etc", 126, "is a directory"),
    ] {
        init.run(&[command]).exits(code).says(&[says, "\n  help: "]);
    }
    // Without a first line that says what runs it, a script is the shell's, as it is with tini.
    Call::new("chmod").args(["+x", plain]).run().ok();
    init.run(&[plain]).exits(9);
    Init::others()[0].run(&[plain]).exits(9);
    init.run(&[]).exits(64).says(&["exec lacks the command to run", "\n  help: "]);
    Call::new(&init.words[0])
        .args(["exec", "--loud", "true"])
        .run()
        .exits(64)
        .says(&["exec has no option --loud"]);
}

#[test]
fn on_a_terminal_the_command_is_in_the_foreground() {
    let binary = Binary::new();
    for mut init in [Init::ours(&binary), Init::ours(&binary).first()] {
        init.words.extend([CHILD.to_owned(), "describe".to_owned()]);
        let (program, args) = init.words.split_first().unwrap();
        let mut terminal = Terminal::start(program, args);
        terminal.shows("foreground=true");
        assert_eq!(terminal.ends(), 0);
    }
    // Ctrl-C is for the command, and not for the init.
    let mut init = Init::ours(&binary);
    init.words
        .extend(["sh", "-c", "trap 'echo heard; exit 4' INT; echo ready; read line"].map(str::to_owned));
    let (program, args) = init.words.split_first().unwrap();
    let mut terminal = Terminal::start(program, args);
    terminal.shows("ready");
    terminal.types("\x03");
    terminal.shows("heard");
    assert_eq!(terminal.ends(), 4);
}

#[test]
fn a_shell_above_can_stop_it_and_bring_it_back() {
    let binary = Binary::new();
    let mut shell = Terminal::start("bash", ["--norc", "--noprofile"]);
    let exec = format!("{} exec --", binary.path().display());
    shell.types("PS1='shell> '\n");
    shell.shows("shell> ");
    shell.types(&format!("{exec} sh -c 'echo re''ady; exec cat'\n"));
    shell.shows("ready");
    shell.types_until("one\n", "\none\none");
    shell.types("\x1a");
    shell.shows("Stopped");
    shell.types("echo $((40 + 2)) here\n");
    shell.shows("\n42 here");
    shell.types("fg\n");
    shell.types_until("two\n", "\ntwo\ntwo");
    shell.types("\x03");
    shell.shows("\n^Cshell> ");
    shell.types("echo code $?\n");
    shell.shows("\ncode 130");
    // In the background it may not read: it is stopped for that, as any job is, and goes on when it is brought back.
    shell.types(&format!("{exec} sh -c 'read word; echo got $word' &\n"));
    shell.shows("\n[1] ");
    shell.types_until("jobs\n", &format!("Stopped                 {exec} sh -c 'read word"));
    shell.types("fg\n");
    shell.types_until("three\n", "got three");
    shell.shows("shell> ");
    shell.types("exit 6\n");
    assert_eq!(shell.ends(), 6);
}

#[test]
fn nobody_is_left_stopped_where_no_shell_could_bring_it_back() {
    let binary = Binary::new();
    let ours = Init::ours(&binary);
    // As PID 1, as the leader of the session, and under a shell that has no job control.
    let shell =
        Init { name: "a shell", words: ["sh", "-c", "\"$@\"; exit $?", "sh"].map(str::to_owned).to_vec() };
    let under_shell = Init { words: [shell.words, ours.words.clone()].concat(), ..ours.clone() };
    for mut init in [ours.clone().first(), ours, under_shell] {
        init.words.push("cat".to_owned());
        let (program, args) = init.words.split_first().unwrap();
        let mut terminal = Terminal::start(program, args);
        terminal.types_until("one\n", "one\none");
        terminal.types("\x1a");
        terminal.types_until("two\n", "two\ntwo");
        terminal.types("\x04");
        assert_eq!(terminal.ends(), 0);
    }
}

#[test]
fn a_command_whose_streams_are_elsewhere_finds_the_terminal_by_name() {
    let binary = Binary::new();
    let ask = "read word </dev/tty; echo got $word >/dev/tty";
    let line =
        format!("{} exec -- sh -c '{ask}' </dev/null >/dev/null 2>&1; exit $?", binary.path().display());
    let mut terminal = Terminal::start("sh", ["-c", &line]);
    terminal.types_until("secret\n", "got secret");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn an_error_goes_where_those_of_others_go() {
    let binary = Binary::new();
    let line =
        format!("(echo before; {} exec -- nosuchprogram; echo after) >$0 2>&1", binary.path().display());
    let file = tempfile::NamedTempFile::new().unwrap();
    Call::new("sh").args(["-c", &line, file.path().to_str().unwrap()]).run().ok();
    let said = std::fs::read_to_string(file.path()).unwrap();
    assert!(said.starts_with("before\ndind-init: cannot run") && said.ends_with("\nafter\n"), "{said}");
}
