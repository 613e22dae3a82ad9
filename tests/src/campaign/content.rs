//! Content that is known to the last byte: made from a seed, and recognised by its checksums wherever it turns up again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use super::random::Random;
use crate::image;

/// The label that says which payload an image holds, also when it has lost its name.
pub(super) const LABEL: &str = "dind.campaign.payload";

/// No file is larger, so that content fits into memory a file at a time.
const LARGEST_FILE: u64 = 64 << 20;
/// More files than this say nothing new.
const MOST_SMALL_FILES: u64 = 3000;

/// Paths, without a leading slash, and the SHA-256 of what is in each, in hexadecimal.
pub(super) type Checksums = BTreeMap<String, String>;

/// What the files of a layer are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// As few and as large as can be.
    Large,
    /// Thousands, up to 8 KiB each.
    Small,
    /// Both.
    Mixed,
}

/// The files of one layer: random, so that nothing compresses them, and the same whenever they are made again.
#[derive(Debug)]
pub(super) struct Layer {
    folder: String,
    seed: u64,
    bytes: u64,
    shape: Shape,
}

impl Layer {
    /// A layer of about this many bytes.
    pub(super) fn new(random: &mut Random, bytes: u64) -> Self {
        let shape = *random.pick(&[Shape::Large, Shape::Small, Shape::Mixed]).unwrap_or(&Shape::Mixed);
        let seed = random.number();
        Self { folder: format!("data/{:08x}", seed >> 32), seed, bytes, shape }
    }

    /// The folder that all of it lies in, without a leading slash.
    pub(super) fn folder(&self) -> &str {
        &self.folder
    }

    /// Shows every file to `visit`: its path, without a leading slash, and its content.
    pub(super) fn each(&self, mut visit: impl FnMut(&str, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut random = Random::new(self.seed);
        let (mut left, mut count) = (self.bytes.max(1), 0);
        while left > 0 {
            let small = match self.shape {
                Shape::Large => false,
                Shape::Small => true,
                Shape::Mixed => count % 4 != 0,
            };
            let most = if small { 8 << 10 } else { LARGEST_FILE };
            let size = left.min(if small { random.between(1, most) } else { most });
            let path = format!("{}/{}/{count}", self.folder, count % 16);
            visit(&path, &random.bytes(usize::try_from(size).unwrap_or(0)))?;
            left -= size;
            count += 1;
            if small && count >= MOST_SMALL_FILES {
                break;
            }
        }
        Ok(())
    }
}

/// What an image is made of, above the base that all have in common.
#[derive(Debug)]
pub(super) struct Payload {
    /// The value of [`LABEL`] on every image that holds it.
    pub(super) id: String,
    /// From the lowest to the highest.
    pub(super) layers: Vec<Arc<Layer>>,
    /// Of all its files, the base's among them.
    pub(super) checksums: Checksums,
    /// The size of all its files.
    pub(super) bytes: u64,
}

impl Payload {
    /// A payload of these layers.
    pub(super) fn new(id: String, layers: Vec<Arc<Layer>>) -> Self {
        let mut checksums = base_checksums();
        let mut bytes = 0;
        for layer in &layers {
            let seen = layer.each(|path, content| {
                checksums.insert(path.into(), checksum(content));
                bytes += content.len() as u64;
                Ok(())
            });
            seen.unwrap_or_else(|error| unreachable!("nothing is written here: {error}"));
        }
        Self { id, layers, checksums, bytes }
    }

    /// The base itself.
    pub(super) fn base() -> Self {
        Self { id: "base".into(), layers: Vec::new(), checksums: base_checksums(), bytes: 0 }
    }

    /// What differs from this payload in files that were found; files that nobody put there do not count. With
    /// `in_part`, what is not there is no difference: a build that was cut off leaves images of its first steps.
    pub(super) fn differences(&self, found: &Checksums, in_part: bool) -> Vec<String> {
        let mut differences = Vec::new();
        for (path, wanted) in &self.checksums {
            match found.get(path) {
                None if in_part => {}
                None => differences.push(format!("{path} is missing")),
                Some(found) if found == wanted => {}
                Some(found) if *found == checksum(b"") => differences.push(format!("{path} is empty")),
                Some(_) => differences.push(format!("{path} has other content")),
            }
        }
        differences
    }
}

/// The SHA-256 of some bytes, in hexadecimal.
pub(super) fn checksum(bytes: &[u8]) -> String {
    hexadecimal(digest(&SHA256, bytes).as_ref())
}

/// Bytes as lower-case hexadecimal.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `sha256sum` has printed about files under the current folder.
pub(super) fn parse_sha256sum(output: &str) -> Checksums {
    let lines = output.lines().filter_map(|line| line.split_once("  "));
    lines.map(|(sum, path)| (path.trim_start_matches("./").to_owned(), sum.to_owned())).collect()
}

fn base_checksums() -> Checksums {
    let busybox = image::busybox_program();
    Checksums::from([("bin/busybox".to_owned(), checksum(&busybox))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_the_same_whenever_it_is_made() {
        for seed in 1..20 {
            let mut random = Random::new(seed);
            let size = random.size(5 << 20);
            let layer = Arc::new(Layer::new(&mut random, size));
            let [one, other] = [1, 2].map(|_| Payload::new("one".into(), vec![Arc::clone(&layer)]));
            assert_eq!(one.checksums, other.checksums);
            assert!(one.bytes <= size && one.bytes > 0, "{} of {size}", one.bytes);
            assert!(one.differences(&other.checksums, false).is_empty());
        }
    }

    #[test]
    fn every_difference_is_told() {
        let payload = Payload::new("one".into(), vec![Arc::new(Layer::new(&mut Random::new(7), 1 << 20))]);
        let mut found = payload.checksums.clone();
        let paths: Vec<String> = found.keys().take(3).cloned().collect();
        found.remove(&paths[0]);
        found.insert(paths[1].clone(), checksum(b""));
        found.insert(paths[2].clone(), checksum(b"else"));
        found.insert("etc/hosts".into(), checksum(b"the engine's own"));
        let said = payload.differences(&found, false);
        let wanted = [" is missing", " is empty", " has other content"];
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said.iter().zip(wanted).all(|(said, wanted)| said.ends_with(wanted)), "{said:?}");
        assert_eq!(payload.differences(&found, true).len(), 2);
    }

    #[test]
    fn the_output_of_sha256sum_is_read() {
        let found = parse_sha256sum("ab01  ./data/x/1\nno sum\ncd  ./bin/busybox\n");
        let wanted = [("bin/busybox", "cd"), ("data/x/1", "ab01")];
        assert_eq!(found, wanted.map(|(path, sum)| (path.to_owned(), sum.to_owned())).into());
    }
}
