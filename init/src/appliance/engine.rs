//! Questions to the engine by an ordinary program, which may wait for the answers.
//!
//! They are HTTP/1.0: then an answer is neither chunked nor followed by another, and ends when the engine hangs up.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use dind_contract::paths;
use dind_contract::status::{Container as Shown, ContainerState, Health};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// How long the engine may take to answer. It answers for seconds late when it starts many containers.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer, in bytes, but for streams.
const LONGEST: u64 = 16 * 1024 * 1024;
/// The labels that Compose gives its containers.
const PROJECT: &str = "com.docker.compose.project";

/// The engine behind a unix socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Engine<'a>(pub(super) &'a Path);

/// An image, as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) id: String,
    pub(crate) created: Option<String>,
    /// DiffIDs.
    pub(crate) layers: Vec<String>,
}

#[derive(Deserialize)]
struct InspectedImage {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Created", default)]
    created: Option<String>,
    #[serde(rename = "RootFS", default)]
    root_fs: Option<RootFs>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(rename = "Layers", default)]
    layers: Option<Vec<String>>,
}

/// A body of unknown length (RFC 9112, 7.1).
struct Chunked(UnixStream);

impl Write for Chunked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An empty one would be the last.
        if !bytes.is_empty() {
            self.0.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
            self.0.write_all(bytes)?;
            self.0.write_all(b"\r\n")?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A stream of the engine's.
pub(super) struct Answer {
    pub(super) body: BufReader<UnixStream>,
}

impl Engine<'_> {
    /// The host's own.
    pub(crate) fn own() -> Engine<'static> {
        Engine(Path::new(paths::DOCKER_SOCKET))
    }

    fn ask(&self, method: &str, path: &str, patience: Duration) -> io::Result<(u16, Answer)> {
        let mut stream = UnixStream::connect(self.0)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.write_all(
            format!("{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Length: 0\r\n\r\n").as_bytes(),
        )?;
        let mut body = BufReader::new(stream);
        let code = head(&mut body)?;
        Ok((code, Answer { body }))
    }

    /// An image by its name; `None`: there is none.
    pub(crate) fn image(&self, name: &str) -> io::Result<Option<Seen>> {
        let seen: Option<InspectedImage> = self.get(&format!("/images/{}/json", escape(name)))?;
        Ok(seen.map(|seen| Seen {
            id: seen.id,
            created: seen.created,
            layers: seen.root_fs.and_then(|it| it.layers).unwrap_or_default(),
        }))
    }

    /// Has it load the archive that `write` writes.
    ///
    /// # Errors
    /// The archive cannot be written or is not taken.
    pub(crate) fn load(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut stream = UnixStream::connect(self.0)?;
        stream.write_all(
            b"POST /images/load?quiet=1 HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\n\
              Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        )?;
        let mut body = Chunked(stream);
        let written = write(&mut body).and_then(|()| body.0.write_all(b"0\r\n\r\n"));
        // One that is cut off here gets no answer; where the engine has hung up, it has said why.
        if let Err(e) = &written
            && !matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
        {
            return written;
        }
        let mut answer = BufReader::new(body.0);
        let code = head(&mut answer)?;
        let mut text = String::new();
        answer.take(LONGEST).read_to_string(&mut text)?;
        // An error while it loads comes as a line of the answer, whose code was sent before.
        match text.split("\"errorDetail\":{\"message\":\"").nth(1).and_then(|rest| rest.split('"').next()) {
            Some(said) => Err(io::Error::other(said.to_owned())),
            None if code != 200 => Err(io::Error::other(message(&text))),
            None => written,
        }
    }

    /// Whether it answers.
    pub(super) fn answers(&self) -> bool {
        self.ask("GET", "/_ping", Duration::from_secs(5)).is_ok_and(|(code, _)| code == 200)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> io::Result<Option<T>> {
        let (code, answer) = self.ask("GET", path, PATIENCE)?;
        let mut text = Vec::new();
        answer.body.take(LONGEST).read_to_end(&mut text)?;
        match code {
            200 => serde_json::from_slice(&text).map(Some).map_err(io::Error::other),
            404 => Ok(None),
            _ => Err(io::Error::other(format!("{code}: {}", String::from_utf8_lossy(&text).trim()))),
        }
    }

    /// The ids of all containers of a project.
    pub(super) fn list(&self, project: &str) -> io::Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Listed {
            #[serde(rename = "Id")]
            id: String,
        }
        let filters = serde_json::json!({"label": [format!("{PROJECT}={project}")]});
        let path = format!("/containers/json?all=1&filters={}", escape(&filters.to_string()));
        let all: Option<Vec<Listed>> = self.get(&path)?;
        Ok(all.unwrap_or_default().into_iter().map(|listed| listed.id).collect())
    }

    /// One container; `None`: there is none of this id any more.
    pub(super) fn inspect(&self, id: &str) -> io::Result<Option<Container>> {
        let seen: Option<Inspected> = self.get(&format!("/containers/{id}/json"))?;
        Ok(seen.map(Container::from))
    }

    /// What happens to containers of a project from now on, an event a line.
    pub(super) fn events(&self, project: &str) -> io::Result<Answer> {
        let filters = serde_json::json!({"type": ["container"], "label": [format!("{PROJECT}={project}")]});
        self.stream(&format!("/events?filters={}", escape(&filters.to_string())))
    }

    /// What a container has written since a moment (seconds and nanoseconds of the Unix clock), and goes on to write.
    pub(super) fn logs(&self, id: &str, since: &str) -> io::Result<Answer> {
        self.stream(&format!("/containers/{id}/logs?follow=1&stdout=1&stderr=1&timestamps=1&since={since}"))
    }

    fn stream(&self, path: &str) -> io::Result<Answer> {
        let (code, mut answer) = self.ask("GET", path, PATIENCE)?;
        if code != 200 {
            let mut text = String::new();
            let _ = answer.body.by_ref().take(4096).read_to_string(&mut text);
            return Err(io::Error::other(message(&text)));
        }
        answer.body.get_ref().set_read_timeout(None)?;
        Ok(answer)
    }

    /// Ends a container's processes at once, as one whose time is over.
    pub(super) fn kill(&self, id: &str) -> io::Result<()> {
        self.ask("POST", &format!("/containers/{id}/kill"), PATIENCE).map(|_| ())
    }
}

/// Reads the head of an answer; its code.
fn head(body: &mut impl BufRead) -> io::Result<u16> {
    let mut code = None;
    for _ in 0..100 {
        let mut line = String::new();
        if body.by_ref().take(8192).read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        match (code, line.trim_end()) {
            (None, first) => {
                let number = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
                code = Some(number.and_then(|number| number.parse().ok()).ok_or(ErrorKind::InvalidData)?);
            }
            (Some(code), "") => return Ok(code),
            _ => {}
        }
    }
    Err(ErrorKind::InvalidData.into())
}

/// The text of an error in the engine's form.
fn message(text: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let said = parsed.as_ref().and_then(|value| value.get("message")).and_then(|said| said.as_str());
    said.unwrap_or(text.trim()).to_owned()
}

/// For a query (RFC 3986): everything but unreserved characters is escaped.
fn escape(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// An event of a container's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Event {
    #[serde(rename = "Action")]
    pub(super) action: String,
    #[serde(rename = "Actor")]
    actor: Actor,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
}

impl Event {
    pub(super) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// Which container it is about.
    pub(super) fn id(&self) -> &str {
        &self.actor.id
    }
}

/// What the engine says of a container, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) shown: Shown,
    pub(super) service: String,
    /// `docker compose run` made it for somebody who is there to see it end.
    pub(super) is_one_off: bool,
    /// The services that must be there before it.
    pub(super) needs: Vec<String>,
    /// When it ended last, in the engine's words.
    pub(super) finished: String,
    /// Whether it writes to a terminal.
    pub(super) has_terminal: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    state: State,
    config: Config,
    #[serde(default)]
    restart_count: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: ContainerState,
    #[serde(default)]
    exit_code: i64,
    #[serde(default)]
    finished_at: String,
    health: Option<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    tty: bool,
    labels: Option<std::collections::BTreeMap<String, String>>,
}

impl From<Inspected> for Container {
    fn from(seen: Inspected) -> Self {
        let labels = seen.config.labels.unwrap_or_default();
        let label =
            |name: &str| labels.get(&format!("com.docker.compose.{name}")).cloned().unwrap_or_default();
        let state = seen.state.status;
        let health = seen.state.health.and_then(|check| match check.status.as_str() {
            "starting" => Some(Health::Starting),
            "healthy" => Some(Health::Healthy),
            "unhealthy" => Some(Health::Unhealthy),
            _ => None,
        });
        let has_ended = matches!(state, ContainerState::Exited | ContainerState::Dead);
        // `db:service_healthy:false,cache:service_started:true`
        let needs = label("depends_on")
            .split(',')
            .filter_map(|need| need.split(':').next().filter(|name| !name.is_empty()).map(str::to_owned))
            .collect();
        let service = label("service");
        Self {
            id: seen.id,
            shown: Shown {
                name: format!("{service}-{}", label("container-number")),
                state,
                health,
                exit_code: has_ended.then(|| u8::try_from(seen.state.exit_code).unwrap_or(u8::MAX)),
                restarts: seen.restart_count,
            },
            service,
            is_one_off: label("oneoff").eq_ignore_ascii_case("true"),
            needs,
            finished: seen.state.finished_at,
            has_terminal: seen.config.tty,
        }
    }
}

/// Answers of the engine.
#[cfg(fuzzing)]
pub(super) fn fuzz(bytes: &[u8]) {
    let _ = head(&mut &bytes[..]);
    let _ = serde_json::from_slice::<Inspected>(bytes).map(Container::from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_answers() {
        let code = |text: &str| head(&mut text.as_bytes()).ok();
        assert_eq!(code("HTTP/1.0 200 OK\r\nServer: Docker\r\n\r\n{}"), Some(200));
        assert_eq!(code("HTTP/1.1 404 Not Found\r\n\r\n"), Some(404));
        assert_eq!(code("HTTP/1.0 200 OK\r\n"), None);
        assert_eq!(code("SSH-2.0\r\n\r\n"), None);
        assert_eq!(code(""), None);
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(escape(r#"{"a b":["c=d"]}"#), "%7B%22a%20b%22%3A%5B%22c%3Dd%22%5D%7D");
        assert_eq!(message(r#"{"message":"no such container"}"#), "no such container");
        assert_eq!(message("oh\n"), "oh");
    }

    #[test]
    fn what_an_engine_says_of_a_container() {
        let text = r#"{"Id":"0af","State":{"Status":"exited","ExitCode":137,"FinishedAt":"2026-01-01T00:00:00.5Z",
            "Health":{"Status":"unhealthy"}},"RestartCount":2,"Config":{"Tty":false,"Labels":{
            "com.docker.compose.service":"web","com.docker.compose.container-number":"2","com.docker.compose.oneoff":"False",
            "com.docker.compose.depends_on":"db:service_healthy:false,cache:service_started:true"}}}"#;
        let container = Container::from(serde_json::from_str::<Inspected>(text).unwrap());
        assert_eq!(container.shown.name, "web-2");
        assert_eq!((container.shown.exit_code, container.shown.restarts), (Some(137), 2));
        assert_eq!(container.shown.health, Some(Health::Unhealthy));
        assert_eq!(container.needs, ["db", "cache"]);
        assert!(!container.is_one_off);
        let bare = r#"{"Id":"1","State":{"Status":"running"},"Config":{"Labels":null}}"#;
        let bare = Container::from(serde_json::from_str::<Inspected>(bare).unwrap());
        assert_eq!((bare.shown.exit_code, bare.needs.len()), (None, 0));
    }

    #[test]
    fn events_name_their_container() {
        let line = r#"{"status":"die","id":"7f","Type":"container","Action":"die","Actor":{"ID":"7f","Attributes":{}}}"#;
        // Engines before 29 say the action twice.
        let event = Event::parse(line).map(|event| (event.action.clone(), event.id().to_owned()));
        assert_eq!(event, Some(("die".into(), "7f".into())));
        assert_eq!(Event::parse("{}"), None);
    }
}
