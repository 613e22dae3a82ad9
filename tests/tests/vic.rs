//! The stand-in for a VIC endpoint: that it is what `docs/vic.md` says, before a test of something else trusts it.

use std::io::{Read, Write};
use std::net::TcpStream;

use std::time::Duration;

use dind_tests::{Client, Vic, docker, image, patience};
use serde_json::{Value, json};

/// How long an answer may keep silent.
const DEADLINE: Duration = Duration::from_secs(60);

fn client(vic: &Vic) -> Client {
    Client::plain(&vic.docker_host())
}

/// An answer, as it came.
struct Answer {
    status: String,
    head: String,
    body: String,
}

/// Sends a request without any client's help.
#[track_caller]
fn send(vic: &Vic, method: &str, target: &str, body: &str) -> TcpStream {
    let address = vic.docker_host();
    let mut stream = TcpStream::connect(address.trim_start_matches("tcp://")).expect("the stand-in listens");
    stream.set_read_timeout(Some(DEADLINE * patience())).expect("a socket takes a deadline");
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: vic\r\n{kind}Content-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).expect("the stand-in reads");
    stream
}

/// Asks, and reads the answer to its end.
#[track_caller]
fn ask(vic: &Vic, method: &str, target: &str, body: &str) -> Answer {
    let mut answer = String::new();
    send(vic, method, target, body).read_to_string(&mut answer).expect("the stand-in answers in text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).expect("a head has a status");
    Answer { status: status.into(), head: head.to_lowercase(), body: body.into() }
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON: {error}\n{}", self.body))
    }
}

#[test]
fn it_says_what_it_is() {
    let vic = Vic::start();
    let versions =
        client(&vic).docker(["version", "--format", "{{.Client.APIVersion}} {{.Server.APIVersion}}"]);
    assert_eq!(versions.ok(), "1.25 1.25");
    let info = client(&vic).docker(["info", "--format", "{{.ID}}, {{.Driver}}, {{.ServerVersion}}"]).ok();
    assert!(info.starts_with("vSphere Integrated Containers, vSphere Integrated Containers v1."), "{info}");
    assert!(info.contains(" Backend Engine, v1."), "{info}");
    let version = ask(&vic, "GET", "/version", "").json();
    assert_eq!((&version["ApiVersion"], &version["MinAPIVersion"]), (&json!("1.25"), &json!("1.19")));
    let ping = ask(&vic, "GET", "/_ping", "");
    assert_eq!((ping.status.as_str(), ping.body.as_str()), ("200", "OK"));
    assert!(ping.head.contains("\r\napi-version: 1.25"), "{}", ping.head);
    assert!(ping.head.contains("\r\nserver: docker/1.25 (linux)"), "{}", ping.head);
    for later in ["ostype", "docker-experimental", "builder-version", "swarm"] {
        assert!(!ping.head.contains(&format!("\r\n{later}:")), "{}", ping.head);
    }
    vic.assert_content();
}

#[test]
fn it_speaks_no_newer_api_and_no_older() {
    let vic = Vic::start();
    let newer = ask(&vic, "GET", "/v1.41/containers/json", "");
    assert_eq!(newer.status, "400");
    let text = "client is newer than server (client API version: 1.41, server API version: 1.25)";
    assert_eq!(newer.json(), json!({"message": text}));
    let older = ask(&vic, "GET", "/v1.18/containers/json", "");
    assert_eq!(older.status, "400");
    assert!(
        older.body.starts_with("client version 1.18 is too old. Minimum supported API version is 1.19"),
        "{}",
        older.body
    );
    for spoken in ["/v1.19/containers/json", "/v1.25/containers/json", "/containers/json"] {
        assert_eq!(ask(&vic, "GET", spoken, "").status, "200", "{spoken}");
    }
    assert_eq!(vic.refusals().len(), 2);
    assert_eq!(vic.requests()[0].version.as_deref(), Some("1.41"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| vic.assert_content()));
    assert!(panicked.is_err(), "a newer API is not what the endpoint has");
}

#[test]
fn it_refuses_what_vic_refuses_in_its_words() {
    let lacks = |what: &str| format!("vSphere Integrated Containers does not yet implement {what}");
    let on_loopback = r#"{"Image":"x","HostConfig":{"PortBindings":{"1/tcp":[{"HostIp":"127.0.0.1"}]}}}"#;
    let cases: Vec<(&str, &str, &str, &str, String)> = vec![
        ("POST", "/v1.25/build?t=x", "", "404", "page not found".into()),
        ("POST", "/session", "", "404", "page not found".into()),
        ("POST", "/v1.25/images/load", "", "200", lacks("LoadImage")),
        ("GET", "/v1.25/images/get?names=x", "", "500", lacks("ExportImage")),
        ("POST", "/v1.25/images/a/b/push", "", "500", lacks("PushImage")),
        ("POST", "/v1.25/images/create?fromSrc=-", "", "500", lacks("ImportImage")),
        ("GET", "/v1.25/images/x/history", "", "500", lacks("ImageHistory")),
        ("GET", "/v1.25/system/df", "", "500", lacks("SystemDiskUsage")),
        ("POST", "/v1.25/containers/prune", "", "500", lacks("ContainersPrune")),
        ("POST", "/v1.25/volumes/prune", "", "500", lacks("VolumesPrune")),
        ("POST", "/v1.25/networks/prune", "", "500", lacks("NetworksPrune")),
        ("POST", "/v1.25/networks/n/disconnect", "{}", "500", lacks("DisconnectContainerFromNetwork")),
        ("POST", "/v1.25/containers/x/pause", "", "500", lacks("ContainerPause")),
        ("POST", "/v1.25/containers/x/update", "{}", "500", lacks("ContainerUpdate")),
        ("GET", "/v1.25/containers/x/top", "", "500", lacks("ContainerTop")),
        ("GET", "/v1.25/containers/x/export", "", "500", lacks("ContainerExport")),
        ("GET", "/v1.25/swarm", "", "404", "Docker Swarm is not yet supported".into()),
        (
            "GET",
            "/v1.25/containers/json?filters=%7B%22health%22%3A%5B%22healthy%22%5D%7D",
            "",
            "500",
            "filter health is not currently supported by vic".into(),
        ),
        (
            "POST",
            "/v1.25/volumes/create",
            r#"{"Name":"x"}"#,
            "500",
            "error looking up volume plugin : plugin not found".into(),
        ),
        (
            "POST",
            "/v1.25/volumes/create",
            r#"{"Name":"x","Driver":"local","DriverOpts":{"type":"tmpfs"}}"#,
            "500",
            "bad driver value - type is not a supported option".into(),
        ),
        (
            "POST",
            "/v1.25/containers/create",
            r#"{"Image":"x","HostConfig":{"Binds":["/var/run/docker.sock:/x"]}}"#,
            "400",
            "Bad request error from portlayer: mounting directories as a data volume is not supported.".into(),
        ),
        (
            "POST",
            "/v1.25/containers/create",
            on_loopback,
            "500",
            "Server error from portlayer: host IP for port bindings is only supported for 0.0.0.0 and the public interface IP \
             address"
                .into(),
        ),
    ];
    let vic = Vic::start();
    for (method, target, body, status, text) in &cases {
        let answer = ask(&vic, method, target, body);
        assert_eq!(answer.status, *status, "{method} {target}: {}", answer.body);
        let said = answer.json();
        let said = said.get("message").or_else(|| said.get("error")).cloned();
        assert_eq!(said, Some(json!(text)), "{method} {target}: {}", answer.body);
    }
    let refusals = vic.refusals();
    assert_eq!(refusals.len(), cases.len());
    for refusal in refusals {
        let source = refusal.source.to_string();
        assert!(source.contains("vic") && source.contains(", "), "{source}");
    }
}

#[test]
fn docker_shows_its_refusals() {
    let vic = Vic::start();
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::write(folder.path().join("Dockerfile"), "FROM scratch\n").expect("a file can be written");
    // More than a connection takes at once: refused only when all of it has been sent.
    std::fs::write(folder.path().join("large"), vec![7; 8 << 20]).expect("a file can be written");
    let build =
        client(&vic).call().env("DOCKER_BUILDKIT", "0").args(["build", &folder.path().to_string_lossy()]);
    build.run().fails().says(&["page not found"]);
    let create = |options: &[&str]| {
        client(&vic).docker(["create"].iter().chain(options).chain(&[image()]).copied()).fails()
    };
    create(&["--cpuset-cpus", "0-1"]).says(&["Error parsing CPU count: "]);
    create(&["-v", "/etc:/x"]).says(&["mounting directories as a data volume is not supported."]);
    create(&["-p", "127.0.0.1::2376"]).says(&["host IP for port bindings is only supported for 0.0.0.0"]);
    client(&vic).docker(["pause", "x"]).fails().says(&["does not yet implement ContainerPause"]);
}

#[test]
fn a_host_runs_behind_it_with_no_options_at_all() {
    let vic = Vic::start();
    let client = client(&vic);
    let host = client.docker(["run", "-d", "-p", "2376", image()]).ok();
    client.call().args(["exec", &host, "dind-init", "wait", "--timeout", "60"]).within(70).run().ok();
    client.docker(["exec", &host, "docker", "info"]).ok();

    // Streams: input to its end, an exit code, files in and out.
    let heard = client.call().args(["exec", "-i", &host, "cat"]).stdin("one\ntwo\n").run();
    assert_eq!(heard.ok(), "one\ntwo");
    client.docker(["exec", &host, "sh", "-c", "exit 7"]).exits(7);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (sent, back) = (folder.path().join("sent"), folder.path().join("back"));
    std::fs::write(&sent, vec![b'x'; 3 << 20]).expect("a file can be written");
    client.docker(["cp", &sent.to_string_lossy(), &format!("{host}:/tmp/sent")]).ok();
    client.docker(["cp", &format!("{host}:/tmp/sent"), &back.to_string_lossy()]).ok();
    assert!(
        std::fs::read(&back).expect("the file came back") == vec![b'x'; 3 << 20],
        "another file came back"
    );

    // It is the endpoint's address at which a port is found, and there is no word of health.
    let port = client.docker(["port", &host, "2376"]).ok();
    assert!(port.starts_with("127.0.0.1:"), "{port}");
    TcpStream::connect(&port).expect("somebody listens there");
    assert_eq!(client.docker(["inspect", "--format", "{{.State.Health}}", &host]).ok(), "<nil>");

    // Logs come while the host runs, and end with it.
    let mut logs =
        send(&vic, "GET", &format!("/v1.25/containers/{host}/logs?follow=1&stdout=1&stderr=1"), "");
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("ready") {
        let mut piece = [0; 4096];
        let length = logs.read(&mut piece).expect("what the host has said comes while it runs");
        assert!(length > 0, "the logs ended: {}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&piece[..length]);
    }
    client.docker(["stop", &host]).ok();
    logs.read_to_end(&mut heard).expect("the logs end with the host");
    assert_eq!(client.docker(["wait", &host]).ok(), "0");
    client.docker(["rm", "-v", &host]).ok();

    // A command in the foreground: attached to, with input, and gone when it has ended.
    let cat = ["run", "--rm", "-i", "--entrypoint", "cat", image()];
    assert_eq!(client.call().args(cat).stdin("hello\n").run().ok(), "hello");
    vic.assert_content();
    let asked = |path: &str| vic.requests().iter().any(|request| request.path.starts_with(path));
    assert!(asked("/containers/create") && asked("/exec/") && asked("/_ping"), "{:?}", vic.requests());
}

#[test]
fn what_has_no_effect_is_recorded() {
    let vic = Vic::start();
    let client = client(&vic);
    let options =
        ["--privileged", "--cap-add", "SYS_ADMIN", "--restart", "always", "--shm-size", "64m", "--init"];
    let meant = ["--cpuset-cpus", "1", "-m", "700m", "--label", "color=red"];
    let create = ["create"].into_iter().chain(options).chain(meant).chain([image()]);
    let id = client.docker(create).ok();
    let mut names: Vec<String> = vic.lacking().into_iter().map(|lacking| lacking.what).collect();
    names.sort();
    let expected = [
        "HostConfig.CapAdd",
        "HostConfig.Init",
        "HostConfig.Privileged",
        "HostConfig.RestartPolicy",
        "HostConfig.ShmSize",
    ];
    assert_eq!(names, expected);

    // As VIC shows it: what was sent, and the size of a virtual machine.
    let shown = ask(&vic, "GET", &format!("/v1.25/containers/{id}/json"), "").json();
    assert_eq!(shown["HostConfig"]["Privileged"], true);
    assert_eq!(shown["HostConfig"]["CpusetCpus"], "1");
    assert_eq!(shown["HostConfig"]["Memory"], 768);
    assert_eq!(shown["State"]["StartedAt"], "");
    assert_eq!(shown["Config"]["Labels"]["color"], "red");
    assert_eq!(shown["Config"]["Labels"].get("dind.test"), None);
    let list = ask(
        &vic,
        "GET",
        "/v1.25/containers/json?all=1&filters=%7B%22label%22%3A%5B%22color%3Dred%22%5D%7D",
        "",
    )
    .json();
    assert_eq!(list[0]["Id"], json!(id));
    assert_eq!(list[0]["Labels"], Value::Null);

    // As it is.
    let real = docker([
        "inspect",
        "--format",
        "{{.HostConfig.Privileged}} {{.HostConfig.CpusetCpus}} {{.HostConfig.Memory}}",
        &id,
    ]);
    assert_eq!(real.ok(), "false 0-0 805306368");
    let label = docker(["inspect", "--format", "{{index .Config.Labels \"dind.test\"}}", &id]).ok();
    assert!(!label.is_empty(), "the sweep would not find it");

    // What was made goes with the endpoint.
    drop(vic);
    docker(["inspect", &id]).fails();
}

#[test]
fn parameters_that_came_later_have_no_effect() {
    let vic = Vic::start();
    for (target, later) in [
        ("/v1.25/containers/x/wait?condition=removed", Some("?condition")),
        ("/v1.25/containers/x/stop?t=1&signal=SIGINT", Some("?signal")),
        ("/v1.25/containers/x/stop?t=1&signal=", None),
    ] {
        // There is no such container; what is sent is looked at all the same.
        assert_eq!(ask(&vic, "POST", target, "").status, "404", "{target}");
        let found =
            vic.lacking().pop().filter(|lacking| target.ends_with(lacking.value.as_str().unwrap_or("?")));
        assert_eq!(found.map(|lacking| lacking.what).as_deref(), later, "{target}");
    }
}

#[test]
fn a_label_filters_no_events() {
    let vic = Vic::start();
    let events =
        client(&vic).docker(["events", "--since", "1", "--until", "2", "--filter", "label=color=red"]);
    assert_eq!(events.ok(), "");
    let names: Vec<String> = vic.lacking().into_iter().map(|lacking| lacking.what).collect();
    assert_eq!(names, ["filters.label"]);
}
