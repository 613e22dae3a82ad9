//! A layer's tar, written anew in one way: tars come from many programs, and what makes a file system of one is stricter than an engine. Heads
//! whose numbers are left out, sparse files and the older ways to write long names are common, and `mkfs.erofs` takes none of them.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use tar::{EntryType, Header};

/// Keys of extended headers (pax(1)) that are numbers or names, and those of attributes begin with this.
const XATTR: &str = "SCHILY.xattr.";
/// The largest number of an owner that fits into a head.
const LARGEST_ID: u64 = 0o777_7777;
/// The longest extended header, in bytes.
const LONGEST_HEAD: u64 = 1024 * 1024;
/// The longest name in a head.
const LONGEST: usize = 100;

/// Writes the tar `from` to `to`: each entry with a head that says everything in plain numbers, and an extended header for the rest.
///
/// # Errors
/// It is no tar, or has an entry of a kind that no layer has.
pub(super) fn write(from: impl Read, to: impl Write) -> io::Result<()> {
    let mut archive = tar::Archive::new(from);
    let mut canonical = tar::Builder::new(to);
    // What the heads before an entry say about it: extended ones, and the older way to write long names.
    let mut before = Before::default();
    // Raw: the library takes a line break for the end of a record, and an attribute may have one in it.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let Before { records: said, name, link } = match before.take(&mut entry)? {
            Some(before) => before,
            None => continue,
        };
        let path = said.get("path").cloned().or(name).unwrap_or_else(|| entry.path_bytes().into_owned());
        let link = said
            .get("linkpath")
            .cloned()
            .or(link)
            .or_else(|| entry.link_name_bytes().map(std::borrow::Cow::into_owned));
        let named =
            |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", String::from_utf8_lossy(&path)));
        let kind = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => EntryType::Regular,
            kind @ (EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo) => kind,
            EntryType::GNUSparse => {
                return Err(named(io::Error::other(
                    "it is a sparse file in GNU tar's own form, which cannot be sealed",
                )));
            }
            _ => return Err(named(io::Error::other("it is of a kind that no file has"))),
        };
        if said.keys().any(|key| key == "size" || key.starts_with("GNU.sparse.")) {
            return Err(named(io::Error::other("it is sparse, or larger than 8 GB, which cannot be sealed")));
        }
        let old = entry.header().clone();
        let number = |value: io::Result<u64>| value.unwrap_or_default();
        let mut extended: BTreeMap<Vec<u8>, Vec<u8>> = said
            .iter()
            .filter(|(key, _)| key.starts_with(XATTR))
            .map(|(key, value)| (key.clone().into_bytes(), value.clone()))
            .collect();
        let text = |key: &str| said.get(key).and_then(|value| String::from_utf8(value.clone()).ok());
        let id = |key: &str, value: io::Result<u64>| {
            text(key).and_then(|text| text.parse().ok()).unwrap_or(number(value))
        };
        let (owner, group) = (id("uid", old.uid()), id("gid", old.gid()));
        // Only files have content; some writers give links a size, too.
        let size = if kind == EntryType::Regular { entry.size() } else { 0 };
        let mut head = Header::new_ustar();
        head.set_entry_type(kind);
        head.set_mode(old.mode().unwrap_or_default() & 0o7777);
        head.set_size(size);
        head.set_mtime(number(old.mtime()));
        head.set_uid(owner.min(LARGEST_ID));
        head.set_gid(group.min(LARGEST_ID));
        for (key, value) in [("uid", owner), ("gid", group)] {
            if value > LARGEST_ID {
                extended.insert(key.into(), value.to_string().into_bytes());
            }
        }
        if matches!(kind, EntryType::Char | EntryType::Block) {
            head.set_device_major(old.device_major().map_err(named)?.unwrap_or_default()).map_err(named)?;
            head.set_device_minor(old.device_minor().map_err(named)?.unwrap_or_default()).map_err(named)?;
        }
        if let Some(time) = said.get("mtime") {
            extended.insert("mtime".into(), time.clone());
        }
        put(&mut head, 0, &path, "path", &mut extended);
        if let Some(link) = link.filter(|_| matches!(kind, EntryType::Link | EntryType::Symlink)) {
            put(&mut head, 157, &link, "linkpath", &mut extended);
        }
        head.set_cksum();
        if !extended.is_empty() {
            extend(canonical.get_mut(), &extended).map_err(named)?;
        }
        canonical.append(&head, (&mut entry).take(size)).map_err(named)?;
    }
    canonical.finish()
}

/// What is said of an entry before it comes.
#[derive(Default)]
struct Before {
    /// Records of extended headers.
    records: BTreeMap<String, Vec<u8>>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Before {
    /// Everything that was said of this entry; `None`: it says something itself of the one that follows.
    fn take(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Option<Self>> {
        let kind = entry.header().entry_type();
        // What counts for the whole tar says nothing about a file.
        if !matches!(
            kind,
            EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
        ) {
            return Ok(Some(std::mem::take(self)));
        }
        let mut text = Vec::new();
        entry.take(LONGEST_HEAD).read_to_end(&mut text)?;
        match kind {
            EntryType::XHeader => self.records.extend(records(&text)?),
            EntryType::GNULongName | EntryType::GNULongLink => {
                let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
                text.truncate(end);
                *(if kind == EntryType::GNULongName { &mut self.name } else { &mut self.link }) = Some(text);
            }
            _ => {}
        }
        Ok(None)
    }
}

/// The records of an extended header (pax(1)): `LENGTH KEY=VALUE` and a line break, the length being that of all of it.
fn records(mut text: &[u8]) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let bad = || io::Error::other("an extended header is not as it should be");
    let mut records = BTreeMap::new();
    while text.first().is_some_and(|byte| *byte != 0) {
        let space = text.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length =
            text.get(..space).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
        let length = length.filter(|length| *length > space + 1 && *length <= text.len()).ok_or_else(bad)?;
        let record = text.get(space + 1..length - 1).ok_or_else(bad)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        let (key, value) =
            (record.get(..equals).unwrap_or_default(), record.get(equals + 1..).unwrap_or_default());
        records.insert(String::from_utf8_lossy(key).into_owned(), value.to_vec());
        text = text.get(length..).unwrap_or_default();
    }
    Ok(records)
}

/// Puts a name into a head at this place, or into the extended header, where it is too long.
fn put(head: &mut Header, place: usize, name: &[u8], key: &str, extended: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    if name.len() > LONGEST {
        extended.insert(key.into(), name.to_vec());
    }
    let short = name.get(..name.len().min(LONGEST)).unwrap_or(name);
    if let Some(field) = head.as_mut_bytes().get_mut(place..place + short.len()) {
        field.copy_from_slice(short);
    }
}

/// Writes an extended header: `LENGTH KEY=VALUE`, a line each, the length being that of the line.
fn extend(to: &mut impl Write, records: &BTreeMap<Vec<u8>, Vec<u8>>) -> io::Result<()> {
    let mut text = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        text.extend_from_slice(format!("{length} ").as_bytes());
        text.extend_from_slice(key);
        text.push(b'=');
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    let mut head = Header::new_ustar();
    head.set_entry_type(EntryType::XHeader);
    head.set_path("pax")?;
    head.set_mode(0o644);
    head.set_size(text.len() as u64);
    head.set_mtime(0);
    head.set_uid(0);
    head.set_gid(0);
    head.set_cksum();
    to.write_all(head.as_bytes())?;
    text.resize(text.len().div_ceil(512) * 512, 0);
    to.write_all(&text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_that_are_left_out_are_written_and_long_names_kept() {
        let mut tar = tar::Builder::new(Vec::new());
        // As some write it: no time, no owner.
        let mut head = Header::new_gnu();
        head.set_entry_type(EntryType::Symlink);
        head.set_size(0);
        tar.append_link(&mut head, "bin/sh", "busybox").unwrap();
        let long = "d/".repeat(80) + "f";
        let mut head = Header::new_gnu();
        head.set_size(3);
        head.set_mode(0o4755);
        tar.append_data(&mut head, &long, &b"abc"[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        let mut written = Vec::new();
        write(tar.as_slice(), &mut written).unwrap();
        assert_eq!(&written[136..147], b"00000000000");
        let mut archive = tar::Archive::new(written.as_slice());
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let link = entries.next().unwrap();
        assert_eq!(link.link_name().unwrap().unwrap().to_str(), Some("busybox"));
        let mut file = entries.next().unwrap();
        assert_eq!(
            (file.path().unwrap().to_str(), file.header().mode().unwrap()),
            (Some(long.as_str()), 0o4755)
        );
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "abc");
        // Once more, it is the same.
        let mut again = Vec::new();
        write(written.as_slice(), &mut again).unwrap();
        assert_eq!(again, written);
    }

    #[test]
    fn attributes_and_fractions_of_seconds_are_kept() {
        let mut tar = Vec::new();
        let records = BTreeMap::from([
            (b"mtime".to_vec(), b"12.5".to_vec()),
            (b"SCHILY.xattr.user.a".to_vec(), vec![0, 10, 255]),
        ]);
        extend(&mut tar, &records).unwrap();
        let mut head = Header::new_ustar();
        head.set_path("f").unwrap();
        head.set_size(0);
        head.set_cksum();
        tar.extend_from_slice(head.as_bytes());
        tar.extend_from_slice(&[0; 1024]);
        let mut written = Vec::new();
        write(tar.as_slice(), &mut written).unwrap();
        let mut archive = tar::Archive::new(written.as_slice());
        let mut entry = archive.entries().unwrap().raw(true).next().unwrap().unwrap();
        let mut text = Vec::new();
        entry.read_to_end(&mut text).unwrap();
        let found = self::records(&text).unwrap();
        assert_eq!(
            found.into_iter().map(|(key, value)| (key.into_bytes(), value)).collect::<BTreeMap<_, _>>(),
            records
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let _ = write(bytes.as_slice(), io::sink());
        }
    }
}
