//! What the endpoint says, to which question.

use serde_json::{Value, json};

use crate::archive::Archive;
use crate::vic::Request;

/// What the endpoint says of its container and of itself. By default all is as an engine would say it.
#[derive(Debug, Clone)]
pub struct Answers {
    /// The container's id, when it has been made.
    pub created: String,
    /// The same, when it is looked at.
    pub inspected: String,
    /// The same, in lists.
    pub listed: String,
    /// The id of a container that copies a data root for nobody any more, if there is one.
    pub copier: Option<String>,
    /// The id of a program in the container.
    pub exec: String,
    /// The id of every image.
    pub image: String,
    /// The name of every volume.
    pub volume: String,
    /// The volume that the container's label names, if it names one.
    pub own_volume: Option<String>,
    /// The container's own address.
    pub address: String,
    /// The address at which its API is published, if it is.
    pub published: Option<String>,
    /// Whether the endpoint calls itself VIC.
    pub is_vic: bool,
}

impl Default for Answers {
    fn default() -> Self {
        let id = "0123456789abcdef".repeat(4);
        Self {
            created: id.clone(),
            inspected: id.clone(),
            listed: id.clone(),
            copier: None,
            exec: "fedcba9876543210".repeat(4),
            image: format!("sha256:{id}"),
            volume: "a-volume".into(),
            own_volume: None,
            address: "127.0.0.1".into(),
            published: Some("127.0.0.1".into()),
            is_vic: false,
        }
    }
}

impl Answers {
    /// With this id for its container, whatever is asked.
    pub fn with_id(id: &str) -> Self {
        Self { created: id.into(), inspected: id.into(), listed: id.into(), ..Self::default() }
    }
}

/// An answer.
pub(super) enum Answer {
    Json(u16, Value),
    Archive(Vec<u8>),
    /// A status without a body.
    Nothing(u16),
    /// What a program writes to its standard output.
    Stream(String),
}

/// The answer to a request; `program` is what is to be run, `port` where the endpoint listens.
pub(super) fn answer(it: &Answers, request: &Request, program: &[String], port: u16) -> Answer {
    let ends = |end: &str| request.path.ends_with(end);
    match request.method.as_str() {
        "GET" | "HEAD" if ends("/_ping") => Answer::Nothing(200),
        "GET" if ends("/version") => Answer::Json(200, version(it)),
        "GET" if ends("/info") => {
            Answer::Json(200, json!({"ID": if it.is_vic { "vSphere Integrated Containers" } else { "0" }}))
        }
        "GET" if ends("/containers/json") => Answer::Json(200, listed(it, request, port)),
        "GET" if ends("/volumes") => Answer::Json(200, json!({"Volumes": [volume(it)], "Warnings": null})),
        "GET" if request.path.contains("/volumes/") => Answer::Json(200, volume(it)),
        "GET" if request.path.contains("/images/") => Answer::Json(200, image(it)),
        "GET" if request.path.starts_with("/exec/") => {
            Answer::Json(200, json!({"ID": it.exec, "Running": false, "ExitCode": 0}))
        }
        "GET" if ends("/archive") => archive(request.parameter("path")),
        "GET" if ends("/logs") => Answer::Nothing(200),
        "GET" if ends("/json") => Answer::Json(200, inspected(it, port)),
        "POST" if ends("/containers/create") => Answer::Json(201, json!({"Id": it.created, "Warnings": []})),
        "POST" if ends("/volumes/create") => Answer::Json(201, volume(it)),
        "POST" if ends("/build") => {
            Answer::Json(200, json!({"stream": format!("Successfully built {}\n", it.image)}))
        }
        "POST" if ends("/wait") => Answer::Json(200, json!({"StatusCode": 0})),
        "POST" if ends("/attach") => Answer::Stream(String::new()),
        "POST" if ends("/exec") => Answer::Json(201, json!({"Id": it.exec})),
        "POST" if request.path.starts_with("/exec/") && ends("/start") => Answer::Stream(output(program)),
        "POST" if ends("/start") || ends("/stop") => Answer::Nothing(204),
        "POST" if ends("/tag") => Answer::Nothing(201),
        "DELETE" if request.path.contains("/images/") => Answer::Json(200, json!([])),
        "DELETE" => Answer::Nothing(204),
        _ => Answer::Json(404, json!({"message": "page not found"})),
    }
}

fn version(it: &Answers) -> Value {
    json!({"Version": "26.1.5", "ApiVersion": if it.is_vic { "1.25" } else { "1.45" }, "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"})
}

/// The container's network, with its own address.
fn networks(it: &Answers) -> Value {
    json!({"bridge": {"IPAddress": it.address}})
}

fn inspected(it: &Answers, port: u16) -> Value {
    let mut labels = json!({"dind.flavour": "debian"});
    if let Some(volume) = &it.own_volume {
        labels["dind.volume"] = volume.as_str().into();
    }
    let published =
        it.published.as_ref().map(|address| json!([{"HostIp": address, "HostPort": port.to_string()}]));
    json!({
        "Id": it.inspected, "Name": "/victim", "Image": it.image,
        "State": {"Status": "running", "Running": true},
        "Config": {"Image": "dind-debian", "Labels": labels},
        "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {"Ports": {"2376/tcp": published}, "Networks": networks(it)},
    })
}

/// The container as one of a `dind run` of another machine that is gone, or the one that copies.
fn listed(it: &Answers, request: &Request, port: u16) -> Value {
    // Among those that run it runs, and among all it has ended: each list has something to do for a client.
    let state = if request.parameter("all") == "true" { "exited" } else { "running" };
    let container = |id: &str, label: &str| {
        json!({
            "Id": id, "Names": ["/victim"], "Image": "dind-debian", "Command": "/usr/sbin/dind-init", "Created": 1,
            "State": state, "Status": "2 hours",
            "Labels": {label: "debian", "dind.owner": "elsewhere/1/1"},
            "Ports": it.published.iter().map(|address| json!({"IP": address, "PrivatePort": 2376, "PublicPort": port, "Type": "tcp"})).collect::<Vec<_>>(),
            "NetworkSettings": {"Networks": networks(it)},
        })
    };
    if request.parameter("filters").contains("dind.copy-of") {
        return it.copier.iter().map(|id| container(id, "dind.copy-of")).collect();
    }
    json!([container(&it.listed, "dind.flavour")])
}

/// A copy of a data root, of another machine and long ago.
fn volume(it: &Answers) -> Value {
    json!({
        "Name": it.volume, "Driver": "local", "Mountpoint": "/x", "Scope": "local", "Options": {},
        "CreatedAt": "2020-01-01T00:00:00Z", "Labels": {"dind.copy-of": "x", "dind.owner": "elsewhere/1/1"},
    })
}

fn image(it: &Answers) -> Value {
    json!({
        "Id": it.image, "Os": "linux", "Architecture": "amd64", "Size": 1, "RepoTags": ["dind-debian:latest"],
        "Config": {"Labels": {"dind.flavour": "debian", "dind.engine": "26.1.5"}},
    })
}

/// Certificates and keys, as far as a client fetches any.
fn archive(path: &str) -> Answer {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match (folder, name) {
        ("/certs", "client") => Answer::Archive(
            ["ca.pem", "cert.pem", "key.pem"]
                .iter()
                .fold(Archive::new(), |archive, file| {
                    archive.file(&format!("client/{file}"), 0o644, b"hostile\n")
                })
                .bytes(),
        ),
        ("/etc/ssh", "ssh_host_ed25519_key.pub") => {
            Answer::Archive(Archive::new().file(name, 0o644, b"ssh-ed25519 AAAA hostile\n").bytes())
        }
        _ => Answer::Json(404, json!({"message": "no such file"})),
    }
}

/// A host that is ready, to whoever asks.
fn output(program: &[String]) -> String {
    if !program.iter().any(|word| word == "status" || word == "wait") {
        return String::new();
    }
    let status = json!({
        "version": "0", "phase": "ready", "services": [], "last_stop": "first", "steps": [], "ground": [], "warnings": [],
        "endpoint": {"docker_host": "tcp://host:2376", "tls_verify": true, "cert_path": "/certs/client"},
    });
    format!("{status}\n")
}
