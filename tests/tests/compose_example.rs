//! The example appliance, a guest book: what its database has acknowledged is there after whatever happens to its host.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use dind_tests::campaign::{Disk, Place};
use dind_tests::{BuiltImage, Call, Host, HostOptions, Volume, appliance_image, docker, until};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/example");

/// The image; building it takes Debian's packages once, and no time after that.
fn example() -> BuiltImage {
    BuiltImage::of_folder(FOLDER, &[format!("BASE={}", appliance_image("static"))])
}

/// A guest book that runs.
struct Book {
    host: Host,
    /// What it has acknowledged.
    entries: Vec<String>,
}

impl Book {
    #[track_caller]
    fn open(options: HostOptions, entries: &[String]) -> Self {
        let book = Self { host: options.create(), entries: entries.to_vec() };
        book.start();
        book
    }

    #[track_caller]
    fn start(&self) {
        docker(["start", self.host.name()]).ok();
        until("the guest book to be ready", 120, || {
            let waited =
                Call::new("docker").args(["exec", self.host.name(), "dind-init", "wait", "--timeout", "10"]);
            (waited.run().code == Some(0)).then_some(())
        });
    }

    /// What it answers: without what is to be written, everything.
    #[track_caller]
    fn ask(&self, entry: Option<&str>) -> String {
        let (method, body) = entry.map_or(("GET", ""), |entry| ("POST", entry));
        let mut stream = TcpStream::connect((self.host.ip(), 8000)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let length = body.len();
        let head = format!("{method} /cgi-bin/entries HTTP/1.0\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        assert!(head.contains(" 200 "), "{answer}");
        body.trim_end().to_owned()
    }

    #[track_caller]
    fn write(&mut self, entry: &str) {
        let said = self.ask(Some(entry));
        self.entries.push(entry.to_owned());
        assert_eq!(said, format!("entry {}", self.entries.len()));
    }

    #[track_caller]
    fn assert_whole(&self) {
        let expected: Vec<&str> =
            ["Welcome"].into_iter().chain(self.entries.iter().map(String::as_str)).collect();
        assert_eq!(self.ask(None).lines().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn entries_survive_stops_kills_and_a_new_version() {
    let image = example();
    let data = Volume::new();
    let options =
        |image: &BuiltImage| Host::options().image(image.name(), "").volume(&data, "/var/lib/docker");
    let mut book = Book::open(options(&image), &[]);
    book.write("the first, with $signs and \"quotes\"");
    book.write("*2 ends");
    book.assert_whole();
    let started = Host::status(&book.host)["application"].to_string();
    assert!(started.contains("database-1") && started.contains("healthy"), "{started}");

    book.host.stop();
    book.host.assert_exited(0);
    assert_eq!(book.host.alarms(), []);
    book.start();
    book.assert_whole();

    book.write("before the kill");
    docker(["kill", book.host.name()]).ok();
    book.start();
    book.assert_whole();
    book.write("after it");
    book.host.stop();

    // A new version: other words, and another image of the web server.
    let entries = book.entries.clone();
    drop(book);
    let dockerfile = format!(
        "FROM {}\nRUN sed -i 's/^FROM scratch/FROM scratch\\nLABEL version=2/' /compose/web/Dockerfile\n",
        image.name()
    );
    let next = BuiltImage::new(&dockerfile, &[]);
    let book = Book::open(options(&next), &entries);
    book.assert_whole();
    let label = book.host.docker(["inspect", "-f", "{{.Config.Labels.version}}", "guestbook-web-1"]).ok();
    assert_eq!(label, "2");
    book.host.stop();
    book.host.assert_exited(0);
}

#[test]
fn entries_survive_power_cuts() {
    let image = example();
    let place = Place::new().unwrap();
    let disk = Disk::new(&place).unwrap();
    let mount = format!("{}:/var/lib/docker", disk.path().display());
    let options = || Host::options().image(image.name(), "").run(["-v", &mount]);
    let mut entries = Vec::new();
    for cut in 0..3 {
        let mut book = Book::open(options(), &entries);
        book.assert_whole();
        for number in 0..3 {
            book.write(&format!("cut {cut}, entry {number}"));
        }
        disk.cut().unwrap();
        docker(["kill", book.host.name()]).ok();
        entries.clone_from(&book.entries);
        drop(book);
        disk.power_on().unwrap();
    }
    let book = Book::open(options(), &entries);
    book.assert_whole();
    book.host.stop();
    book.host.assert_exited(0);
}
