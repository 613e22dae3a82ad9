//! `dind` at an endpoint that answers with ids that are paths and addresses that are options: nothing outside the endpoint changes,
//! and nothing runs.

use dind_tests::{Answers, EARLIER, Ended, Home, Hostile};

/// Exit code of an endpoint that is no good.
const UNAVAILABLE: i32 = 69;
/// What `dind run` makes of it: there is no host for the command.
const NO_COMMAND: i32 = 125;

/// What passes for the id of a container, and how an error shows it.
fn bad_ids() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = [
        // Below the state folder this is the home: `dind rm` and `dind prune` removed all of it.
        ("../../../../", "\"../../../../\""),
        ("", "\"\""),
        // Twelve bytes of it end within the é: `dind ssh` wrote to ~/.ssh/known_hosts.
        ("aaaaaaaaaaaé/../../../../../.ssh", r#""aaaaaaaaaaa\u{e9}/../../../../../.ssh""#),
        ("éééééééééééé", r"\u{e9}"),
        ("0123456789AB", "\"0123456789AB\""),
        ("0123456789ab\0", r"\u{0}"),
        ("0123456789ab\n", r"0123456789ab\n"),
        ("\u{1b}]0;title\u{7}", r"\u{1b}]0;title\u{7}"),
        ("-oProxyCommand=id", "\"-oProxyCommand=id\""),
        ("/nonexistent/a", "\"/nonexistent/a\""),
    ]
    .map(|(id, shown)| (id.to_owned(), shown.to_owned()))
    .into();
    for (length, shown) in [(11, "\"aaaaaaaaaaa\""), (65, "(65 characters)"), (10_000, "(10000 characters)")]
    {
        all.push(("a".repeat(length), shown.to_owned()));
    }
    all
}

/// What passes for an address of a host.
fn bad_addresses(home: &Home) -> Vec<String> {
    vec![
        // It was an operand of ssh, and so an option that ran a command.
        format!("-oProxyCommand=touch {};exit 1", home.marker().display()),
        format!("1.2.3.4 -oProxyCommand=touch {}", home.marker().display()),
        "vic.example.com".into(),
        "localhost".into(),
        "fe80::1%eth0".into(),
        "127.0.0.1\0".into(),
        "127.0.0.1:22".into(),
        "é".into(),
        "1".repeat(10_000),
    ]
}

/// The commands that have to do with a host, and the exit code of each at an endpoint that cannot be trusted.
fn commands(home: &Home) -> Vec<(Vec<String>, i32)> {
    let marker = home.marker().display().to_string();
    [
        (&["rm", "-f", "victim"][..], UNAVAILABLE),
        (&["rm", "victim"], UNAVAILABLE),
        (&["prune"], UNAVAILABLE),
        (&["prune", "--all"], UNAVAILABLE),
        (&["ls"], UNAVAILABLE),
        (&["ls", "-a", "-q"], UNAVAILABLE),
        (&["ls", "--json", "-s"], UNAVAILABLE),
        (&["up", "victim"], UNAVAILABLE),
        (&["up", "-q"], UNAVAILABLE),
        (&["run", "-q", "--", "touch", &marker], NO_COMMAND),
        (&["run", "--from", "a-volume", "--", "touch", &marker], NO_COMMAND),
        (&["env", "victim"], UNAVAILABLE),
        (&["context", "victim"], UNAVAILABLE),
        (&["ssh", "victim", "ls"], UNAVAILABLE),
        (&["stop", "victim"], UNAVAILABLE),
        (&["start", "victim"], UNAVAILABLE),
        (&["exec", "victim", "true"], UNAVAILABLE),
        (&["logs", "victim"], UNAVAILABLE),
        (&["inspect", "victim"], UNAVAILABLE),
        (&["doctor", "victim"], UNAVAILABLE),
        (&["doctor"], UNAVAILABLE),
        (&["build", "-q"], UNAVAILABLE),
        (&["bake", "project", "-t", "shop:1"], UNAVAILABLE),
        (&["bake", "project", "-t", "shop:1", "--no-cache"], UNAVAILABLE),
    ]
    .map(|(words, code)| (words.iter().map(|&word| word.to_owned()).collect(), code))
    .into()
}

/// Asserts that the command has said why it does not go on, and that nothing has come of it.
#[track_caller]
fn refused(ended: Ended, code: i32, endpoint: &Hostile, shown: &str, home: &Home) {
    let text = format!("{ended}");
    assert_eq!(home.changes(), [""; 0], "{text}");
    let ended = ended.exits(code);
    let cause =
        format!("dind: the Docker endpoint {} cannot be trusted: it answers with ", endpoint.docker_host());
    let mut lines = ended.stderr.lines().filter(|line| line.starts_with(&cause));
    assert!(lines.next().is_some_and(|line| line.contains(shown)), "not {shown}: {text}");
    assert!(ended.stderr.contains("\n  help: find out what answers there"), "{text}");
    assert!(ended.stderr.len() < 2000 && !ended.stderr.contains(['\0', '\u{1b}']), "{text}");
}

#[test]
fn ids_that_are_none_are_refused_by_every_command() {
    for (id, shown) in bad_ids() {
        let endpoint = Hostile::start(Answers::with_id(&id));
        let home = Home::new(&endpoint.docker_host());
        for (words, code) in commands(&home) {
            let ended = home.dind(&endpoint.docker_host(), &words).run();
            refused(ended, code, &endpoint, &shown, &home);
            // But for the volume that was made for a copy, and has a good name.
            let removed = endpoint.requests().into_iter().filter(|request| request.starts_with("DELETE"));
            let removed: Vec<String> =
                removed.filter(|request| request != "DELETE /volumes/a-volume").collect();
            assert_eq!(removed, [""; 0], "{words:?}");
        }
    }
}

#[test]
fn each_answer_with_an_id_is_looked_at() {
    let honest = Answers::default;
    let bad = || "../../../../".to_owned();
    for (answers, commands) in [
        (
            Answers { created: bad(), ..honest() },
            &[&["up"][..], &["run", "--", "true"], &["doctor"], &["build"]][..],
        ),
        (Answers { listed: bad(), ..honest() }, &[&["ls"], &["prune"], &["prune", "-l", "a"]]),
        (Answers { copier: Some(bad()), ..honest() }, &[&["prune"]]),
        (
            Answers { exec: bad(), ..honest() },
            &[
                &["exec", "victim", "true"],
                &["exec", "-d", "victim", "true"],
                &["ls", "-s"],
                &["env", "victim"],
                &["context", "victim"],
                &["start", "victim"],
                &["doctor", "victim"],
                &["up"],
                &["up", "-q"],
                &["run", "--", "true"],
            ],
        ),
        (
            Answers { image: bad(), ..honest() },
            &[&["inspect", "victim"], &["inspect", "dind-debian"], &["build"]],
        ),
        (Answers { volume: bad(), ..honest() }, &[&["prune"], &["run", "--from", "a", "--", "true"]]),
    ] {
        let endpoint = Hostile::start(answers.clone());
        for words in commands {
            let home = Home::new(&endpoint.docker_host());
            let code = if words[0] == "run" { NO_COMMAND } else { UNAVAILABLE };
            let ended = home.dind(&endpoint.docker_host(), *words).run();
            refused(ended, code, &endpoint, "\"../../../../\"", &home);
        }
    }
}

#[test]
fn a_label_that_names_another_thing_than_a_volume_removes_nothing() {
    // Of a container that somebody else has made, on an endpoint that may be honest: the path is one of another container there.
    let endpoint = Hostile::start(Answers {
        own_volume: Some("../containers/another".into()),
        listed: "0123456789abcdef".into(),
        ..Answers::default()
    });
    let home = Home::new(&endpoint.docker_host());
    for words in [&["rm", "-f", "victim"][..], &["prune"]] {
        let ended = home.dind(&endpoint.docker_host(), words).run();
        ended.exits(1).says(&[
            "the host victim cannot be removed: its label dind.volume",
            "../containers/another",
            "help: ",
        ]);
        let requests = endpoint.requests();
        assert!(!requests.iter().any(|request| request.contains("another")), "{requests:?}");
    }
    assert!(home.path().join("notes.txt").exists());
}

#[test]
fn addresses_that_are_none_reach_no_program() {
    let scratch = Home::new("");
    for address in bad_addresses(&scratch) {
        let shown: String = address.chars().take(8).flat_map(char::escape_default).collect();
        let own = Answers { address: address.clone(), published: None, ..Answers::default() };
        for answers in [
            own.clone(),
            Answers { is_vic: true, ..own },
            Answers { published: Some(address.clone()), ..Answers::default() },
        ] {
            let is_published = answers.published.is_some();
            let endpoint = Hostile::start(answers);
            let home = Home::new(&endpoint.docker_host());
            let marker = scratch.marker().display().to_string();
            for (words, code) in [
                (&["ssh", "victim", "ls"][..], UNAVAILABLE),
                (&["ssh", "derek@victim", "-v", "ls"], UNAVAILABLE),
                (&["env", "victim"], UNAVAILABLE),
                (&["context", "victim"], UNAVAILABLE),
                (&["ls"], UNAVAILABLE),
                (&["up"], UNAVAILABLE),
                (&["run", "--", "touch", &marker], NO_COMMAND),
            ] {
                // Its port for ssh is published nowhere.
                if is_published && words[0] == "ssh" {
                    continue;
                }
                let ended = home.dind(&endpoint.docker_host(), words).run();
                assert!(!scratch.marker().exists(), "{address} ran a command in {words:?}");
                refused(ended, code, &endpoint, &shown, &home);
            }
        }
    }
}

#[test]
fn a_host_without_an_address_is_one_that_cannot_be_reached() {
    let endpoint = Hostile::start(Answers { address: String::new(), published: None, ..Answers::default() });
    let home = Home::new(&endpoint.docker_host());
    for name in ["env", "context", "ssh"] {
        let ended = home.dind(&endpoint.docker_host(), [name, "victim"]).run();
        ended.exits(1).says(&["of the host victim cannot be reached from here", "help: "]);
    }
    assert_eq!(home.changes(), [""; 0]);
}

/// Without this nobody would know whether the endpoint is refused for its bad answers, or for being no endpoint at all.
#[test]
fn the_same_endpoint_is_served_when_its_answers_are_good() {
    for digits in [12, 64] {
        let id = &"0123456789abcdef".repeat(4)[..digits];
        let endpoint = Hostile::start(Answers::with_id(id));
        let at = endpoint.docker_host();
        let home = Home::new(&at);
        let run = |words: &[&str]| home.dind(&at, words).run();
        assert_eq!(run(&["ls", "-q"]).ok(), "0123456789ab");
        assert!(run(&["ls"]).ok().contains("victim"));
        assert!(run(&["up"]).ok().contains("victim is ready after"));
        assert!(run(&["env", "--shell", "sh", "victim"]).ok().contains(&format!("export DOCKER_HOST={at}")));
        assert!(home.kept(&at, id).join("ca.pem").exists());
        assert_eq!(run(&["context", "victim"]).ok(), "victim");
        for words in [
            &["start", "victim"][..],
            &["stop", "victim"],
            &["exec", "-d", "victim", "true"],
            &["logs", "victim"],
            &["inspect", "victim"],
            &["doctor", "victim"],
            &["doctor"],
            &["build", "-q"],
        ] {
            run(words).ok();
        }
        let marker = home.marker().display().to_string();
        run(&["run", "-q", "--", "touch", &marker]).ok();
        assert!(home.marker().exists());
        assert!(run(&["prune"]).ok().contains("host victim: it has ended"));
        assert!(!home.kept(&at, id).exists() && !home.kept(&at, EARLIER).exists());
        assert!(home.notes().join("endpoint").exists(), "a folder that is no host's");
        assert_eq!(run(&["rm", "-f", "victim"]).ok(), "victim");
    }
}

/// An endpoint that knows the id of a host on another one, and answers with it.
#[test]
fn what_is_kept_of_a_host_is_out_of_reach_for_another_endpoint() {
    let id = "0123456789abcdef".repeat(4);
    let same_beginning = format!("{}{}", &id[..12], "9".repeat(52));
    let honest = Hostile::start(Answers::with_id(&id));
    let mut home = Home::new("");
    for name in ["env", "context"] {
        home.dind(&honest.docker_host(), [name, "victim"]).run().ok();
    }
    let kept = home.kept(&honest.docker_host(), &id);
    assert!(kept.join("ca.pem").exists());
    home.settle();
    for id in [id.as_str(), &same_beginning] {
        let thief = Hostile::start(Answers::with_id(id));
        let at = thief.docker_host();
        let run = |words: &[&str]| home.dind(&at, words).run();
        run(&["env", "victim"]).ok();
        assert_ne!(home.kept(&at, id), kept);
        assert!(home.kept(&at, id).join("ca.pem").exists());
        run(&["rm", "-f", "victim"]).ok();
        assert!(run(&["prune"]).ok().contains("host victim: it has ended"));
        assert_eq!(home.changes(), [""; 0], "{id}");
    }
    home.dind(&honest.docker_host(), ["rm", "-f", "victim"]).run().ok();
    assert!(!kept.exists());
    let contexts = std::fs::read_dir(home.path().join(".docker/contexts/meta")).unwrap().count();
    assert_eq!(contexts, 0, "the context goes with its host");
}

#[test]
fn names_that_are_paths_are_no_names_of_hosts() {
    let endpoint = Hostile::start(Answers::default());
    let home = Home::new(&endpoint.docker_host());
    for name in [".", "..", "_a", ".a", "a/b", "é"] {
        let ended = home.dind(&endpoint.docker_host(), ["rm", "-f", name]).run();
        ended.exits(64).says(&["is not a name of a host", "help: "]);
    }
    assert!(!endpoint.requests().iter().any(|request| request.starts_with("DELETE")));
}

#[test]
fn options_of_ssh_stay_options_and_a_command_stays_a_command() {
    let endpoint = Hostile::start(Answers { published: None, is_vic: true, ..Answers::default() });
    let home = Home::new(&endpoint.docker_host());
    // ssh runs a proxy's command in place of a connection: what it was given is in there.
    let proxy = format!("-oProxyCommand=sh -c 'echo %r %h %p >{}'", home.marker().display());
    let ssh = |words: &[&str]| {
        let _ = std::fs::remove_file(home.marker());
        let ended = home.dind(&endpoint.docker_host(), [&["ssh", "derek@victim"], words].concat()).run();
        (ended, std::fs::read_to_string(home.marker()).unwrap_or_default())
    };
    for words in [
        &[proxy.as_str()][..],
        &[&proxy, "ls", "-l"],
        &["-N", &proxy],
        &["-v", "-o", &proxy[2..], "--", "ls"],
    ] {
        let (ended, seen) = ssh(words);
        assert_eq!((ended.code, seen.as_str()), (Some(255), "derek 127.0.0.1 22\n"), "{ended}");
    }
    // Behind the command's first word nothing is an option of ssh any more; nor is it behind `--`.
    for words in
        [&["-oConnectTimeout=1", "-oBatchMode=yes", "ls", &proxy][..], &["-oConnectTimeout=1", "--", &proxy]]
    {
        let (ended, seen) = ssh(words);
        assert_eq!((ended.code, seen.as_str()), (Some(255), ""), "{ended}");
    }
    ssh(&["-L"]).0.exits(64).says(&["the option -L of ssh needs a value", "help: "]);
}

#[test]
fn what_is_typed_is_no_option_either() {
    let endpoint = Hostile::start(Answers { published: None, is_vic: true, ..Answers::default() });
    let at = endpoint.docker_host();
    let home = Home::new(&at);
    let proxy = format!("-oProxyCommand=touch${{IFS}}{}", home.marker().display());
    for words in
        [&["ssh", "--", &format!("{proxy}@victim")][..], &["ssh", "@victim"], &["ssh", "$(id)@victim"]]
    {
        home.dind(&at, words).run().exits(64).says(&["is not a name of a user", "help: "]);
    }
    for bad in [
        format!("tcp://{proxy}:2376"),
        "tcp://-oProxyCommand=id:1".into(),
        "ssh://a@-oProxyCommand=id".into(),
        "ssh://-oX@a".into(),
    ] {
        let ended = home.dind(&bad, ["ssh", "victim", "ls"]).run();
        ended.exits(64).says(&["is not an address of a Docker endpoint", "help: "]);
    }
    assert_eq!(home.changes(), [""; 0]);
}
