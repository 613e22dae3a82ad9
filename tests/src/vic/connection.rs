//! One connection of a client: one request, its answer, and the end. Hijacked ones become raw streams in both directions.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

use serde_json::{Value, json};

use super::answers::{Made, VERSION, inspected, listed};
use super::create::Wanted;
use super::decision::{self, Decision};
use super::real::Answer;
use super::record::{Refused, Request};
use super::shared::Shared;
use crate::http::{self, Framing, LONGEST_BODY, RequestHead, ResponseHead};

const JSON: &str = "application/json";

/// Answers the request of a client.
pub(super) fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(head) = RequestHead::read(&mut reader)? else { return Ok(()) };
    if head.headers.get("Expect").is_some() {
        (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let framing = match head.headers.framing()? {
        Framing::Unsaid => Framing::Length(0),
        framing => framing,
    };
    let is_json = head.headers.get("Content-Type").is_some_and(|kind| kind.starts_with(JSON));
    let is_short = matches!(framing, Framing::Length(length) if length <= LONGEST_BODY);
    let body = if is_json || is_short { Some(http::body(&mut reader, framing)?) } else { None };
    let request = Request::new(&head, body.as_deref().unwrap_or_default());
    let (decision, no_effect) = decision::decide(&request, &shared.real)?;
    shared.asked(&request, no_effect);

    let mut talk = Talk { stream, reader, shared, request: &request, head, body, framing };
    match decision {
        Decision::Refuse(refused) => talk.refuse(refused),
        Decision::NoSuchWay => talk.answer(404, JSON, ""),
        Decision::Answer(status, kind, body) => talk.answer(status, kind, &body),
        Decision::Forward => talk.forward(),
        Decision::ForwardInstead(body) => {
            talk.body = Some(body.to_string().into_bytes());
            talk.forward()
        }
        Decision::Create(wanted) => talk.create(&wanted),
        Decision::VolumeCreate(body) => talk.create_volume(body),
        Decision::Inspect => talk.inspect(),
        Decision::List => talk.translated(false, |real, _| listed(&real)),
    }
}

struct Talk<'a> {
    stream: &'a TcpStream,
    reader: BufReader<TcpStream>,
    shared: &'a Shared,
    request: &'a Request,
    head: RequestHead,
    /// The body, when it has been read; else it is still in `reader`.
    body: Option<Vec<u8>>,
    framing: Framing,
}

impl Talk<'_> {
    fn refuse(&mut self, refused: Refused) -> io::Result<()> {
        let (kind, body) = decision::refusal(self.request, &refused);
        let status = refused.status;
        self.shared.refused(self.request, refused);
        self.answer(status, kind, &body)
    }

    fn answer(&mut self, status: u16, kind: &str, body: &str) -> io::Result<()> {
        if self.body.is_none() {
            http::drain(&mut self.reader, self.framing)?;
        }
        let mut head = ResponseHead::new(status);
        head.headers.set("Content-Type", kind);
        head.headers.set("Content-Length", &body.len().to_string());
        of_that_age(&mut head);
        (&*self.stream).write_all(&head.bytes())?;
        if self.head.method != "HEAD" {
            (&*self.stream).write_all(body.as_bytes())?;
        }
        self.stream.shutdown(Shutdown::Write)
    }

    /// The head for the real engine, which is to end the connection behind its answer.
    fn head_for_real(&self, newest: bool) -> RequestHead {
        let mut head = self.head.clone();
        let query = self.head.target.split_once('?').map_or("", |(_, query)| query);
        head.target = self.shared.real.target(&self.request.path, query, newest);
        head.headers.remove("Expect");
        if !head.headers.upgrades() {
            head.headers.set("Connection", "close");
        }
        if let Some(body) = &self.body
            && (!body.is_empty() || self.framing != Framing::Length(0))
        {
            head.headers.remove("Transfer-Encoding");
            head.headers.set("Content-Length", &body.len().to_string());
        }
        head
    }

    /// Hands the request on, and then whatever comes from either side.
    fn forward(mut self) -> io::Result<()> {
        let real =
            self.shared.real.send(&self.head_for_real(false), self.body.as_deref().unwrap_or_default())?;
        let mut answers = BufReader::new(real.try_clone()?);
        thread::scope(|scope| {
            let reader = &mut self.reader;
            scope.spawn(move || upstream(reader, &real));
            let done = downstream(&mut answers, self.stream);
            // Ends the other direction, too.
            let _ = self.stream.shutdown(Shutdown::Both);
            done
        })
    }

    /// Asks the real engine with this body, and answers with what becomes of its answer.
    fn translated(
        &mut self,
        newest: bool,
        translate: impl FnOnce(Value, &Shared) -> Value,
    ) -> io::Result<()> {
        let head = self.head_for_real(newest);
        let Answer { status, body } =
            self.shared.real.exchange(&head, self.body.as_deref().unwrap_or_default())?;
        let body = match serde_json::from_slice(&body) {
            Ok(real) if (200..300).contains(&status) => translate(real, self.shared).to_string().into_bytes(),
            _ => body,
        };
        self.answer(status, JSON, &String::from_utf8_lossy(&body))
    }

    fn create(&mut self, wanted: &Wanted) -> io::Result<()> {
        let mut body = wanted.body.clone();
        self.shared.label(&mut body);
        self.body = Some(body.to_string().into_bytes());
        let host = self.request.body["HostConfig"].clone();
        let made = Made { host, cpus: wanted.cpus, memory_mib: wanted.memory_mib };
        self.translated(true, |real, shared| {
            shared.made(real["Id"].as_str().unwrap_or_default(), made);
            // VIC warns of nothing: container.go, ContainerCreate.
            json!({"Id": real["Id"], "Warnings": null})
        })
    }

    fn create_volume(&mut self, mut body: Value) -> io::Result<()> {
        self.shared.label(&mut body);
        self.body = Some(body.to_string().into_bytes());
        self.translated(false, |real, shared| {
            shared.made_volume(real["Name"].as_str().unwrap_or_default());
            real
        })
    }

    fn inspect(&mut self) -> io::Result<()> {
        self.translated(false, |real, shared| {
            let made = shared.find(real["Id"].as_str().unwrap_or_default());
            inspected(real, made.as_ref(), &shared.hidden())
        })
    }
}

/// Everything from the client to the engine; the end as well, which for a hijacked connection is the end of the input.
fn upstream(from: &mut impl Read, to: &UnixStream) {
    let _ = copy(from, &mut &*to);
    let _ = to.shutdown(Shutdown::Write);
}

/// The answer from the engine to the client.
fn downstream(from: &mut BufReader<UnixStream>, to: &TcpStream) -> io::Result<()> {
    let mut head = ResponseHead::read(from)?;
    if head.status != 101 {
        of_that_age(&mut head);
    }
    (&*to).write_all(&head.bytes())?;
    match copy(from, &mut &*to) {
        // A client may leave whenever it has seen enough of a log.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(())
        }
        done => done,
    }
}

/// Hands on what comes as soon as it comes.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = [0; 16 * 1024];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&piece[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The fields that Docker 1.13's middleware sets, with what VIC hands it (`cmd/docker/main.go`, `NewVersionMiddleware`), and
/// none that came later. One request a connection: simple, and clients know how to go on.
fn of_that_age(head: &mut ResponseHead) {
    for later in
        ["Ostype", "Docker-Experimental", "Builder-Version", "Swarm", "Cache-Control", "Pragma", "Keep-Alive"]
    {
        head.headers.remove(later);
    }
    head.headers.set("Server", &format!("Docker/{VERSION} (linux)"));
    head.headers.set("Api-Version", VERSION);
    head.headers.set("Connection", "close");
}
