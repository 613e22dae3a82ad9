//! An endpoint that answers the Docker API as it likes, and the home of a user who trusts it.
//!
//! It has one container, `victim`, which passes for a host in every question; what it says of it is the test's ([`Answers`]). A path is
//! known by its end alone: a client that puts a bad id into one asks for anything.

mod answers;
mod home;

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use answers::Answers;
pub use home::{EARLIER, Home};

use crate::http::{self, Framing, RequestHead, ResponseHead};
use crate::server::Server;
use crate::vic::Request;
use answers::{Answer, answer};

/// The endpoint, listening on the loopback interface alone.
#[derive(Debug)]
pub struct Hostile {
    server: Server,
    asked: Arc<Mutex<Asked>>,
}

/// What clients have asked.
#[derive(Debug, Default)]
struct Asked {
    requests: Vec<Request>,
    /// The program that was last to be run in the container.
    program: Vec<String>,
}

impl Hostile {
    /// Begins to listen.
    ///
    /// # Panics
    /// When nothing can be listened on.
    #[track_caller]
    pub fn start(answers: Answers) -> Self {
        let asked = Arc::new(Mutex::new(Asked::default()));
        let serving = Arc::clone(&asked);
        // A client may leave whenever it has heard enough.
        let server = Server::start(move |connection| serve(connection, &answers, &serving), |_| ());
        Self { server, asked }
    }

    /// What `DOCKER_HOST` is for it.
    pub fn docker_host(&self) -> String {
        format!("tcp://{}", self.server.address())
    }

    /// What it was asked until now, as `METHOD PATH`; it forgets it.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.asked).requests.drain(..).map(|request| request.to_string()).collect()
    }
}

fn lock(asked: &Mutex<Asked>) -> MutexGuard<'_, Asked> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers one request, and ends the connection behind it.
fn serve(connection: &TcpStream, answers: &Answers, asked: &Mutex<Asked>) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection.try_clone()?);
    let Some(head) = RequestHead::read(&mut reader)? else { return Ok(()) };
    let framing = match head.headers.framing()? {
        Framing::Unsaid => Framing::Length(0),
        framing => framing,
    };
    let is_json = head.headers.get("Content-Type").is_some_and(|kind| kind.starts_with("application/json"));
    let body = if is_json { http::body(&mut reader, framing)? } else { Vec::new() };
    if !is_json {
        http::drain(&mut reader, framing)?;
    }
    let request = Request::new(&head, &body);
    let program = {
        let mut asked = lock(asked);
        asked.requests.push(request.clone());
        if let Some(words) = request.body["Cmd"].as_array() {
            asked.program = words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
        }
        asked.program.clone()
    };
    let port = connection.local_addr()?.port();
    match answer(answers, &request, &program, port) {
        Answer::Json(status, document) => {
            reply(connection, status, "application/json", document.to_string().as_bytes())
        }
        Answer::Archive(archive) => reply(connection, 200, "application/x-tar", &archive),
        Answer::Nothing(status) => reply(connection, status, "text/plain", b""),
        Answer::Stream(text) => {
            stream(connection, &text)?;
            // An attached container goes on until the client has seen enough; a program has ended.
            if request.path.ends_with("/attach") {
                io::copy(&mut reader.take(u64::MAX), &mut io::sink())?;
            }
            Ok(())
        }
    }
}

fn reply(mut connection: &TcpStream, status: u16, kind: &str, body: &[u8]) -> io::Result<()> {
    let mut head = ResponseHead::new(status);
    head.headers.set("Connection", "close");
    if status != 204 {
        head.headers.set("Content-Type", kind);
        head.headers.set("Content-Length", &body.len().to_string());
    }
    connection.write_all(&head.bytes())?;
    connection.write_all(body)
}

/// Standard output of a program, in the frames of the engine's API (`docker attach`, "Stream format").
fn stream(mut connection: &TcpStream, text: &str) -> io::Result<()> {
    let mut head = ResponseHead::new(101);
    head.headers.set("Content-Type", "application/vnd.docker.raw-stream");
    head.headers.set("Connection", "Upgrade");
    head.headers.set("Upgrade", "tcp");
    connection.write_all(&head.bytes())?;
    if !text.is_empty() {
        let length = u32::try_from(text.len()).map_err(http::invalid)?;
        connection.write_all(&[1, 0, 0, 0])?;
        connection.write_all(&length.to_be_bytes())?;
        connection.write_all(text.as_bytes())?;
    }
    Ok(())
}
