//! The rest of the command: reaching, listing, reading, entering, stopping and removing hosts.

use std::os::unix::fs::PermissionsExt;

use dind_tests::{BuiltImage, Dind, Host, Terminal, docker, local_image, ssh_image};

#[test]
fn env_is_for_sh_and_for_fish_and_its_certificates_are_the_users_alone() {
    let dind = Dind::new();
    let host = dind.up(&[]);
    let name = host.name();
    let lines = dind.run(["env", name]).ok();
    assert!(lines.starts_with("export DOCKER_HOST=tcp://127.0.0.1:"), "{lines}");
    let id = dind.shell(&format!("eval \"$(dind env {name})\"; docker info -f '{{{{.ID}}}}'; eval \"$(dind env --unset)\"; test -z \"${{DOCKER_HOST-}}${{DOCKER_CERT_PATH-}}\"")).ok();
    assert_eq!(id, host.docker(["info", "-f", "{{.ID}}"]).ok());
    let fish = dind.run(["env", "--shell", "fish", name]).ok();
    assert!(fish.contains("set -gx DOCKER_TLS_VERIFY 1;") && fish.contains("| source"), "{fish}");
    let typed = format!(
        "$DIND env --shell fish {name} | source; and docker info -f '{{{{.ID}}}}'; and $DIND env --shell fish --unset | source; and test -z \"$DOCKER_HOST\""
    );
    assert_eq!(dind.dress(dind_tests::Call::new("fish").args(["-c", &typed])).run().ok(), id);
    // A folder that a client cannot be told of.
    for place in ["HOME=$(printf '/tmp/\\377') XDG_STATE_HOME=", "XDG_STATE_HOME=$(printf '/tmp/\\377')"] {
        let call = format!("trap 'rm -rf /tmp/'$'\\377' EXIT; {place} \"$DIND\" env {name}");
        dind.shell(&call).exits(1).says(&["is not UTF-8", "set XDG_STATE_HOME"]);
    }
    // The user's own shell decides.
    assert!(dind.call(["env", name]).env("SHELL", "/usr/bin/fish").run().ok().contains("set -gx"));
    let folder = lines.lines().find_map(|line| line.strip_prefix("export DOCKER_CERT_PATH=")).unwrap();
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder), 0o700);
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        assert_eq!(mode(&format!("{folder}/{file}")), 0o600);
    }
    // A shell that is in the host is told how to leave it.
    let inside = dind.shell(&format!("eval \"$(dind env {name})\"; dind stop {name}"));
    inside.exits(1).says(&["DOCKER_HOST is the host", "dind env --unset"]);
    dind.run(["rm", "-f", name]).ok();
    assert!(!std::path::Path::new(folder).exists());
}

#[test]
fn a_host_without_a_published_port_is_reached_by_its_address() {
    let dind = Dind::new();
    let host = Host::options().start();
    let name = host.name();
    let lines = dind.run(["env", name]).ok();
    assert!(lines.contains(&format!("DOCKER_HOST=tcp://{}:2376", host.ip())), "{lines}");
    dind.shell(&format!("eval \"$(dind env {name})\"; docker version")).ok();
    let plain = Host::options().env("DIND_TLS", "off").start();
    let lines = dind.run(["env", plain.name()]).ok();
    assert!(lines.contains("unset DOCKER_TLS_VERIFY"), "{lines}");
    dind.shell(&format!("eval \"$(dind env {})\"; docker version", plain.name())).ok();
}

#[test]
fn a_context_is_the_docker_commands_own_and_goes_with_the_host() {
    let dind = Dind::new();
    let host = dind.up(&[]);
    let name = host.name();
    assert_eq!(dind.run(["context", name]).ok(), name);
    let id = host.docker(["info", "-f", "{{.ID}}"]).ok();
    assert_eq!(dind.shell(&format!("docker --context {name} info -f '{{{{.ID}}}}'")).ok(), id);
    // Written again, and under another name.
    dind.run(["context", name]).ok();
    dind.run(["context", name, "--as", "other"]).ok();
    let listed = dind.shell("docker context ls --format '{{.Name}} {{.Description}}'").ok();
    assert!(listed.contains(&format!("{name} dind host {name}")) && listed.contains("other "), "{listed}");
    // dind itself follows it, as it follows every context: the host has no hosts.
    assert_eq!(dind.run(["-c", name, "ls", "-q"]).ok(), "");
    dind.shell("docker context create theirs --docker host=tcp://127.0.0.1:1").ok();
    dind.run(["context", name, "--as", "theirs"]).exits(1).says(&["dind did not write it"]);
    dind.run(["context", name, "--as", "default"]).exits(64).says(&["cannot be a name"]);
    // One that cannot be written leaves the one of before, and nothing else.
    let written = "find docker/contexts -type f | sort | xargs sha256sum";
    let before = dind.shell(written).ok();
    dind.run(["context", name, "--as", "broken"]).ok();
    dind.shell("echo { > docker/contexts/meta/$(printf broken | sha256sum | cut -d' ' -f1)/meta.json").ok();
    dind.run(["context", name, "--as", "broken"]).exits(1).says(&["cannot be read", "rm -r "]);
    dind.shell("rm -r docker/contexts/*/$(printf broken | sha256sum | cut -d' ' -f1)").ok();
    dind.shell(&format!(
        "touch file; DOCKER_CONFIG=$PWD/file DOCKER_HOST=unix:///var/run/docker.sock dind context {name}"
    ))
    .exits(1)
    .says(&["cannot write the context", "DOCKER_CONFIG"]);
    assert_eq!(dind.shell(written).ok(), before);
    dind.run(["rm", "-f", name]).ok();
    assert_eq!(dind.shell("docker context ls -q").ok(), "default\ntheirs");
}

#[test]
fn the_list_has_hosts_and_nothing_else() {
    let dind = Dind::new();
    let up = dind.up(&[]);
    let made = Host::options().create();
    let client = docker(["run", "-d", "--rm", "--entrypoint", "sleep", dind_tests::image(), "30"]).ok();
    let all = dind.run(["ls", "-a", "--format", "{{.Name}} {{.State}} {{.Flavour}} {{.Address}}"]).ok();
    let line = |host: &Host| {
        all.lines().find(|line| line.starts_with(host.name())).unwrap_or_else(|| panic!("{all}")).to_owned()
    };
    assert!(line(&up).starts_with(&format!("{} running debian 127.0.0.1:", up.name())), "{all}");
    assert!(line(&made).starts_with(&format!("{} created debian", made.name())), "{all}");
    assert!(!dind.run(["ls", "-a", "-q"]).ok().contains(&client[..12]));
    let _ = docker(["rm", "-f", &client]);
    assert!(!dind.run(["ls"]).ok().contains(made.name()), "one that does not run is not in the short list");
    let json: serde_json::Value = serde_json::from_str(&dind.run(["ls", "--json", "-s"]).ok()).unwrap();
    let entry = json.as_array().unwrap().iter().find(|entry| entry["name"] == up.name()).unwrap();
    let engine = up.docker(["version", "-f", "{{.Server.Version}}"]).ok();
    assert!(engine.starts_with(entry["engine"].as_str().unwrap()), "{entry}");
    assert!(entry["size"].as_i64().unwrap() > 10_000, "{entry}");
    dind.run(["ls", "--format", "{{.Nonesuch}}"]).exits(64).says(&["there is no Nonesuch", "{{.Name}}"]);
    for bad in ["", "raw"] {
        dind.run(["ls", "--format", bad]).exits(64).says(&["give json, table, or a pattern"]);
    }
    let titled = dind.run(["ls", "--format", "table {{.Name}}\\t{{.State}}"]).ok();
    assert!(titled.starts_with("NAME ") && titled.contains(up.name()), "{titled}");
    for line in dind.run(["ls", "--format", "json"]).ok().lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).unwrap()["name"].is_string(), "{line}");
    }
    let table = dind.run(["ls", "-s"]).ok();
    assert!(table.starts_with("NAME ") && table.lines().next().unwrap().ends_with("DISK"), "{table}");
}

#[test]
fn logs_and_programs_inside() {
    let dind = Dind::new();
    let host = dind.up(&[]);
    let name = host.name();
    assert_eq!(dind.run(["logs", "-n", "1", name]).ok().lines().count(), 1);
    assert!(dind.run(["logs", name]).ok().contains("ready in"));
    assert!(dind.run(["logs", "-n", "all", name]).ok().contains("ready in"));
    assert_eq!(
        dind.run(["logs", "--since", "2099-01-01T00:00:00Z", name]).fails().code,
        Some(64),
        "out of reach"
    );
    dind.run(["logs", "--since", "1h", name]).ok();
    // Followed to the host's end.
    let followed = dind
        .shell(&format!(
            "dind logs -f {name} > followed & until grep -q 'ready in' followed; do sleep 0.1; done; \
             dind stop {name}; wait; tail -n 1 followed"
        ))
        .ok();
    assert!(followed.contains("dind-init: stopped, exit code 0"), "{followed}");
    dind.run(["exec", name, "true"]).exits(1).says(&["does not run", "dind start"]);
    dind.run(["start", name]).ok();
    assert_eq!(
        dind.run(["exec", name, "sh", "-c", "echo out; echo err >&2; exit 9"]).exits(9).stdout,
        "out\n"
    );
    assert_eq!(dind.call(["exec", "-i", name, "wc", "-c"]).stdin("12345").run().ok(), "5");
    assert_eq!(
        dind.run([
            "exec",
            "-e",
            "A=b c",
            "-w",
            "/tmp",
            "-u",
            "1:1",
            name,
            "sh",
            "-c",
            "echo $A $PWD $(id -u)"
        ])
        .ok(),
        "b c /tmp 1"
    );
    // It has closed its output, and goes on.
    dind.run(["exec", name, "sh", "-c", "exec >&- 2>&-; sleep 0.5; exit 7"]).exits(7);
    dind.run(["exec", name, "nonesuch"]).fails();
    dind.run(["exec", "-it", name, "sh"]).exits(64).says(&["not a terminal"]);
    dind.run(["exec", "nonesuch", "sh"]).exits(1).says(&["there is no host nonesuch"]);
}

#[test]
fn a_terminal_inside_is_a_terminal() {
    let dind = Dind::new();
    let host = dind.up(&[]);
    let mut words: Vec<String> =
        dind.environment().into_iter().map(|(variable, value)| format!("{variable}={value}")).collect();
    words.push(Dind::program().display().to_string());
    words.extend(["exec", "-it", host.name(), "bash"].map(str::to_owned));
    let mut terminal = Terminal::start("env", &words);
    terminal.types_until("echo si''ze $(stty size)\n", "size 24 80");
    terminal.resize(30, 100);
    terminal.types_until("echo si''ze $(stty size)\n", "size 30 100");
    // Ctrl-C is the program's.
    terminal.types("sleep 100\n");
    terminal.types_until("\x03", "^C");
    terminal.types_until("echo st''ill\n", "still");
    terminal.types("exit 4\n");
    assert_eq!(terminal.ends(), 4);
    words.pop();
    words.extend(["sh", "-c", "echo ready; exec cat"].map(str::to_owned));
    let mut terminal = Terminal::start("env", &words);
    // Before there is something of the program to be seen, the keys are those of the terminal outside.
    terminal.shows("ready");
    terminal.types("\x10\x11");
    assert_eq!(terminal.ends(), 0, "{}", terminal.screen());
    assert!(!terminal.screen().contains("dind:"), "{}", terminal.screen());
}

#[test]
fn stop_start_and_remove_many() {
    let dind = Dind::new();
    let (one, two) = (dind.up(&[]), dind.up(&[]));
    let both = [one.name(), two.name()];
    let stopped = dind.run(["stop", both[0], both[1]]).ok();
    assert_eq!(stopped, both.join("\n"));
    one.assert_exited(0);
    two.assert_exited(0);
    dind.run(["rm", both[0], "nonesuch"]).exits(1).says(&["there is no host nonesuch"]);
    assert_eq!(one.inspect("{{.State.Status}}"), "exited", "nothing is done when one of them is not there");
    dind.run(["start", both[0]]).ok();
    dind.run(["rm", both[0]]).exits(1).says(&["cannot be removed", "dind rm -f"]);
    let volume = one.inspect("{{range .Mounts}}{{.Name}}{{end}}");
    assert_eq!(dind.run(["rm", "-f", both[0], both[1]]).ok(), both.join("\n"));
    assert_ne!(docker(["volume", "inspect", &volume]).code, Some(0), "its data is gone with it");
    let stubborn = dind.up(&[]);
    dind.run(["stop", "-t", "1", stubborn.name()]).says(&["thinks that it has 10 s"]);
    let image = local_image("RUN echo no host >/this");
    let other = docker(["create", image.name()]).ok();
    let refused = dind.run(["rm", "-f", &other]);
    docker(["rm", &other]).ok();
    refused.exits(1).says(&["is not a host"]);
}

#[test]
fn prune_all_removes_what_has_ended() {
    let dind = Dind::new();
    let host = dind.up(&[]);
    dind.run(["stop", host.name()]).ok();
    // Without --all it is somebody's, and other tests' hosts end meanwhile: what would be removed is enough to see.
    assert!(!dind.run(["prune", "--dry-run"]).ok().contains(host.name()));
    assert!(
        dind.run(["prune", "--all", "--dry-run"])
            .ok()
            .contains(&format!("host {}: it has ended", host.name()))
    );
    assert_eq!(host.inspect("{{.State.Status}}"), "exited");
}

#[test]
fn ssh_needs_nothing_to_be_prepared() {
    let dind = Dind::new();
    let name = Dind::name();
    let mut words = vec!["up".to_owned(), name.clone(), "--ssh".to_owned(), "--local".to_owned()];
    words.extend(
        Dind::options()
            .into_iter()
            .map(|word| if word == dind_tests::image() { ssh_image().to_owned() } else { word }),
    );
    dind.run(words).ok();
    let _host = Host::named(&name);
    let listed = dind.run(["ls", "--format", "{{.Name}}={{.Address}}"]).ok();
    assert!(listed.lines().any(|line| line == format!("{name}=-")), "nothing is served to others: {listed}");
    // Many first calls at a time, and a path with all that ssh would take for its own.
    dind.shell(&format!(
        r#"export XDG_STATE_HOME="$PWD/a b%d\"q\\s"; calls=
        for i in 1 2 3 4 5 6; do dind ssh derek@{name} true & calls="$calls $!"; done
        for call in $calls; do wait "$call"; done
        dind ssh derek@{name} true; ls "$XDG_STATE_HOME/dind" | grep -c ssh | grep -qx 1"#
    ))
    .ok();
    dind.shell(&format!("export XDG_STATE_HOME=$PWD/'${{x}}'; dind ssh derek@{name} true"))
        .exits(1)
        .says(&["ssh cannot be told of", "set XDG_STATE_HOME"]);
    let said = dind
        .run(["ssh", &format!("derek@{name}"), "sudo docker version -f '{{.Server.Os}}'; exit 3"])
        .exits(3);
    assert_eq!(said.stdout.trim(), "linux", "{said}");
    dind.run(["ssh", &format!("derek@{name}"), "true"]).ok();
    dind.run(["ssh", &format!("no good@{name}"), "true"]).exits(1).says(&["cannot be let in"]);
    let without = dind.up(&[]);
    dind.run(["ssh", without.name()]).fails().says(&["help: "]);
}

#[test]
fn doctor_looks_at_an_endpoint_and_at_a_host() {
    let dind = Dind::new();
    let mut words = vec!["doctor".to_owned()];
    words.extend(Dind::options());
    let said = dind.run(words.clone()).ok();
    assert!(said.starts_with("endpoint: unix://") && said.contains("storage"), "{said}");
    words.push("--json".to_owned());
    let json: serde_json::Value = serde_json::from_str(&dind.run(words).ok()).unwrap();
    assert_eq!(json["host"], false, "{json}");
    let findings = json["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["subject"] == "storage"), "{json}");
    // Cut off, it leaves no container. The one of this image never comes to its end.
    let dockerfile = format!(
        "FROM {}\nENTRYPOINT [\"sh\", \"-c\", \"trap exit TERM; sleep 60 & wait\"]\n",
        dind_tests::image()
    );
    let image = BuiltImage::new(&dockerfile, &[]);
    let label = format!("looked={}", Dind::name());
    let script = format!(
        r#""$DIND" doctor --image {} --label {label} & doctor=$!
        for _ in {{1..600}}; do [[ $(docker ps -q --filter label={label}) ]] && break; sleep 0.1; done
        kill -TERM $doctor; code=0; wait $doctor || code=$?; exit $code"#,
        image.name()
    );
    dind.shell(&script).exits(143);
    assert_eq!(docker(["ps", "-aq", "--filter", &format!("label={label}")]).ok(), "");
    let host = dind.up(&[]);
    assert!(dind.run(["doctor", host.name()]).ok().contains("storage"));
}

#[test]
fn completions_and_man_pages_come_from_the_binary() {
    let dind = Dind::new();
    dind.shell("dind completions bash > c && bash -n c && grep -q 'dind__subcmd__up\\|dind__up' c").ok();
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(dind.run(["completions", shell]).ok().contains("dind"));
    }
    dind.shell("mkdir man && dind man man | grep -q dind-run.1 && test -s man/dind.1").ok();
    // They are in the documentation, too: `target/dind man docs/man` writes them anew.
    let documented = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/man");
    dind.shell(&format!("diff -r man {}", documented.display())).ok();
    dind.run(["man", "nonesuch"]).exits(1).says(&["cannot write nonesuch/dind.1"]);
}

#[test]
fn nobody_who_reads_is_no_error() {
    let dind = Dind::new();
    let host = dind.up(&[]);
    dind.shell(&format!(
        "set -o pipefail; dind logs {0} | true; dind ls -a | true; dind --help | true; dind exec {0} yes 2>said | head -c 10; test ! -s said",
        host.name()
    ))
    .ok();
    let full = dind.shell("dind ls -a > /dev/full");
    full.exits(1).says(&["cannot write to standard output", "disk may be full"]);
}
