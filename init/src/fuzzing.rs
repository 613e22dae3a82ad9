//! What the fuzz targets in `init/fuzz` call: every parser that reads from outside, on bytes. Nothing here may panic or hang.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use dind_contract::paths;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::http::{Question, Watch, is_good};
use crate::layers::read_list;
use crate::log::parse_event;
use crate::repair::{containers, images};
use crate::settings::Settings;
use crate::sync::Synced;
use crate::tls::Parsed;
use crate::{appliance, arguments, ground, process, users};

/// Environment, arguments and `daemon.json`: `NAME=value` a line, then arguments, then the file, apart by NUL.
pub fn settings(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let text = |part: Option<&[u8]>| part.unwrap_or_default().to_vec();
    let environment: Vec<(OsString, OsString)> = text(parts.next())
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b'=')?;
            let (name, value) = line.split_at_checked(at)?;
            Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value.get(1..)?.to_vec())))
        })
        .collect();
    let words =
        String::from_utf8_lossy(&text(parts.next())).split('\n').map(str::to_owned).collect::<Vec<_>>();
    let file = String::from_utf8_lossy(&text(parts.next())).into_owned();
    let _ = arguments::parse(words.iter().map(OsString::from));
    let is_there = |path: &Path| !file.is_empty() && path != Path::new(paths::APPLIANCE);
    let _ = Settings::load(environment, &words, |path| Ok(is_there(path).then(|| file.clone())));
}

/// The engine's answers and events.
pub fn engine(bytes: &[u8]) {
    for question in [Question::Ping, Question::SeesContainerd] {
        let _ = (is_good(question, bytes, false), is_good(question, bytes, true));
    }
    let Ok((ours, mut theirs)) = UnixStream::pair() else { return };
    let _ = ours.set_nonblocking(true);
    let mut watch = Watch::on(ours);
    for piece in bytes.chunks(64) {
        let _ = theirs.write_all(piece);
        let _ = watch.advance();
    }
}

/// What services write.
pub fn log(bytes: &[u8]) {
    for line in String::from_utf8_lossy(bytes).lines() {
        let _ = parse_event(line);
    }
}

/// Tables of the kernel.
pub fn kernel(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = (ground::parse_mounts(&text), process::parse(&text));
}

/// A layer's list of files.
pub fn layer(bytes: &[u8]) {
    let _ = read_list(bytes);
    let mut gzipped = GzEncoder::new(Vec::new(), Compression::fast());
    let _ = gzipped.write_all(bytes);
    let _ = gzipped.finish().map(|bytes| read_list(bytes.as_slice()));
}

/// The engine's records in a data root, and ours.
pub fn records(bytes: &[u8]) {
    let _ = (images::read_chains(bytes), images::parse_repositories(bytes), containers::parse(bytes));
    let _ = serde_json::from_slice::<Synced>(bytes);
}

/// Certificates that somebody brought.
pub fn certificates(bytes: &[u8]) {
    let _ = Parsed::read(&String::from_utf8_lossy(bytes), "/certs/cert.pem");
}

/// Names of users, keys, and the tables of accounts.
pub fn users(bytes: &[u8]) {
    users::fuzz(&String::from_utf8_lossy(bytes));
}

/// What the engine and Compose say of an application: a Compose file and a complaint, apart by NUL, and lines.
pub fn application(bytes: &[u8]) {
    appliance::fuzz(&String::from_utf8_lossy(bytes));
}
