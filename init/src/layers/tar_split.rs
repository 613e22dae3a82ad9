//! The list of a layer's files, as the engine keeps it: a JSON object a line, gzipped, which says how to put the layer's tar
//! together again (github.com/vbatts/tar-split, `tar/storage`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::Bound;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde::Deserialize;

/// An entry that stands for a file; others are pieces of the tar between the files.
const FILE: u8 = 1;

/// The longest line, in bytes: the padding at the end of some tars is one piece of a few megabytes.
const LONGEST: u64 = 256 * 1024 * 1024;

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    /// In bytes; there are no entries for empty files.
    pub(crate) size: u64,
    /// CRC-64 (ISO), where the engine wrote one down.
    pub(crate) checksum: Option<u64>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    name: Option<String>,
    /// In base64, where the name is not UTF-8.
    #[serde(default)]
    name_raw: Option<String>,
    #[serde(default)]
    size: i64,
    #[serde(default)]
    payload: Option<String>,
}

/// The files with content, by their path in the layer. Of two entries of one name the later counts, as when unpacking.
///
/// # Errors
/// The list is not complete, or no such list.
pub(crate) fn read(list: impl Read) -> io::Result<BTreeMap<PathBuf, Expected>> {
    let mut files = BTreeMap::new();
    let mut lines = BufReader::new(GzDecoder::new(list));
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(files);
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let entry: Entry = serde_json::from_slice(&line)?;
        if entry.kind != FILE {
            continue;
        }
        let Some((path, is_folder)) = path(&entry)? else { continue };
        if !is_folder {
            // A folder that was unpacked before has gone with what was in it.
            let inside: Vec<PathBuf> = files
                .range::<PathBuf, _>((Bound::Excluded(&path), Bound::Unbounded))
                .map(|(other, _)| other)
                .take_while(|other| other.starts_with(&path))
                .cloned()
                .collect();
            for other in inside {
                files.remove(&other);
            }
        }
        let checksum = checksum(entry.payload.as_deref());
        // Some writers of tars give links and folders a size, though no content follows: the checksum is that of nothing.
        match u64::try_from(entry.size) {
            Ok(size) if size > 0 && checksum != Some(0) => files.insert(path, Expected { size, checksum }),
            _ => files.remove(&path),
        };
    }
}

/// Puts the tar together from which a layer was unpacked: the pieces between the files are in the list, the files' content gives
/// `open` by the path in the layer.
///
/// # Errors
/// The list is not complete, a file cannot be read or has another size, or the tar cannot be written.
pub(crate) fn assemble(
    list: impl Read,
    mut open: impl FnMut(&Path) -> io::Result<File>,
    tar: &mut impl Write,
) -> io::Result<()> {
    let mut lines = BufReader::new(GzDecoder::new(list));
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let entry: Entry = serde_json::from_slice(&line)?;
        if entry.kind != FILE {
            tar.write_all(&STANDARD.decode(entry.payload.unwrap_or_default()).map_err(io::Error::other)?)?;
            continue;
        }
        let size = u64::try_from(entry.size).unwrap_or_default();
        if size == 0 || checksum(entry.payload.as_deref()) == Some(0) {
            continue;
        }
        let Some((path, _)) = path(&entry)? else {
            return Err(io::Error::other("a file that was not unpacked has content"));
        };
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let mut file = open(&path).map_err(named)?.take(size);
        let copied = io::copy(&mut file, tar)?;
        if copied != size {
            return Err(io::Error::other(format!(
                "{}: has {copied} bytes instead of {size}",
                path.display()
            )));
        }
    }
}

/// The length of the tar that [`assemble`] makes, in bytes.
///
/// # Errors
/// The list is not complete.
pub(crate) fn size(list: impl Read) -> io::Result<u64> {
    let mut counted = Counter(0);
    assemble(list, |_| File::open("/dev/zero"), &mut counted)?;
    Ok(counted.0)
}

/// Counts what is written.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The entry's path, relative and without `..`, and whether it is a folder's; `None`: nothing of that name is unpacked.
///
/// # Errors
/// It has none.
fn path(entry: &Entry) -> io::Result<Option<(PathBuf, bool)>> {
    let bytes = match (&entry.name, &entry.name_raw) {
        (Some(name), _) if !name.is_empty() => name.clone().into_bytes(),
        (_, Some(raw)) => STANDARD.decode(raw).map_err(io::Error::other)?,
        _ => return Err(io::Error::other("an entry has no name")),
    };
    let is_folder = bytes.ends_with(b"/");
    let path = clean(Path::new(&OsString::from_vec(bytes)));
    // What takes something of a lower layer away, and the marks of older drivers.
    let is_whiteout = |path: &PathBuf| path.iter().any(|part| part.as_encoded_bytes().starts_with(b".wh."));
    Ok(path.filter(|path| !is_whiteout(path)).map(|path| (path, is_folder)))
}

/// As the engine does: `..` takes the part before it away, and what leads out of the layer is not unpacked.
fn clean(name: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir if clean.pop() => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

fn checksum(payload: Option<&str>) -> Option<u64> {
    let bytes = STANDARD.decode(payload?).ok()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn gzipped(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// As the engine wrote it for `bin/` with a `busybox`, a link, and a file whose name is not UTF-8.
    const LIST: &str = r#"{"type":2,"payload":"YmluLw==","position":0}
{"type":1,"name":"bin/","payload":null,"position":1}
{"type":1,"name":"./bin/busybox","size":3,"payload":"AAAAAAAAAAE=","position":2}
{"type":1,"name":"bin/sh","payload":null,"position":3}
{"type":1,"name_raw":"Zv8=","size":7,"payload":"AAAAAAAAAQA=","position":4}
{"type":1,"name":"twice","size":7,"payload":"AAAAAAAAAQA=","position":5}
{"type":1,"name":"twice","size":8,"payload":null,"position":6}
{"type":1,"name":"replaced","size":7,"payload":"AAAAAAAAAQA=","position":7}
{"type":1,"name":"/replaced","size":0,"payload":"","position":8}
"#;

    #[test]
    fn files_with_content_are_listed() {
        let files = read(gzipped(LIST.as_bytes()).as_slice()).unwrap();
        let raw = PathBuf::from(OsString::from_vec(b"f\xff".to_vec()));
        let expected = [
            (PathBuf::from("bin/busybox"), Expected { size: 3, checksum: Some(1) }),
            (raw, Expected { size: 7, checksum: Some(256) }),
            (PathBuf::from("twice"), Expected { size: 8, checksum: None }),
        ];
        assert_eq!(files, BTreeMap::from(expected));
    }

    /// Tars that others than the engine have written.
    #[test]
    fn odd_entries_are_understood_as_the_engine_does() {
        for (list, expected) in [
            // A hard link and a folder that have a size, and no content.
            (r#"{"type":1,"name":"link","size":4096,"payload":"AAAAAAAAAAA="}"#, &[][..]),
            (r#"{"type":1,"name":"a/../b","size":1,"payload":"AAAAAAAAAAE="}"#, &["b"]),
            (r#"{"type":1,"name":"../out","size":1,"payload":"AAAAAAAAAAE="}"#, &[]),
            (r#"{"type":1,"name":".wh..wh.plnk/7","size":1,"payload":"AAAAAAAAAAE="}"#, &[]),
            (
                r#"{"type":1,"name":"a/b","size":1,"payload":"AAAAAAAAAAE="}
{"type":1,"name":"a-b","size":1,"payload":"AAAAAAAAAAE="}
{"type":1,"name":"a/","payload":null}
{"type":1,"name":"c/d","size":1,"payload":"AAAAAAAAAAE="}
{"type":1,"name":"c","payload":null}"#,
                &["a/b", "a-b"],
            ),
        ] {
            let files = read(gzipped(list.as_bytes()).as_slice()).unwrap();
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(files.into_keys().collect::<Vec<_>>(), expected, "{list}");
        }
    }

    #[test]
    fn a_tar_is_put_together_from_its_pieces_and_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), "abc").unwrap();
        let list = r#"{"type":2,"payload":"PGhlYWQ+","position":0}
{"type":1,"name":"./f","size":3,"payload":"AAAAAAAAAAE=","position":1}
{"type":2,"payload":"PHBhZD4=","position":2}
{"type":1,"name":"folder/","payload":null,"position":3}
{"type":1,"name":"link","size":4096,"payload":"AAAAAAAAAAA=","position":4}
"#;
        let open = |path: &Path| File::open(folder.path().join(path));
        let mut tar = Vec::new();
        assemble(gzipped(list.as_bytes()).as_slice(), open, &mut tar).unwrap();
        assert_eq!(String::from_utf8(tar).unwrap(), "<head>abc<pad>");
        std::fs::write(folder.path().join("f"), "a").unwrap();
        let short = assemble(gzipped(list.as_bytes()).as_slice(), open, &mut Vec::new()).unwrap_err();
        assert_eq!(short.to_string(), "f: has 1 bytes instead of 3");
        std::fs::remove_file(folder.path().join("f")).unwrap();
        assert!(assemble(gzipped(list.as_bytes()).as_slice(), open, &mut Vec::new()).is_err());
    }

    #[test]
    fn a_list_that_is_cut_off_is_an_error() {
        let whole = gzipped(LIST.as_bytes());
        for length in 1..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length}");
        }
        for bad in ["{", "[]\n", r#"{"type":1,"size":3}"#, r#"{"type":1,"name_raw":"*","size":3}"#] {
            assert!(read(gzipped(bad.as_bytes()).as_slice()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(bytes.as_slice());
            let _ = read(gzipped(&bytes).as_slice());
            let none = |_: &Path| Err(io::ErrorKind::NotFound.into());
            let _ = assemble(gzipped(&bytes).as_slice(), none, &mut Vec::new());
        }
    }
}
