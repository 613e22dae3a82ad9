//! What a user decided about storage: `DIND_STORAGE` and `DIND_STORAGE_SIZE`.

use dind_contract::variables;
use serde_json::Value;

use super::Way;
use crate::failure::Failure;
use crate::options::DaemonOptions;

/// Sizes that can be asked for: ext4 is good for more, but files on it are not.
pub(super) const SMALLEST: u64 = 256 << 20;
pub(super) const LARGEST: u64 = 16 << 40;

/// What a user decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// `DIND_STORAGE`; `None` is `auto`.
    pub(crate) way: Option<Way>,
    /// `DIND_STORAGE_SIZE`, in bytes.
    pub(crate) size: Option<u64>,
}

impl Wish {
    /// Reads what the two variables say.
    ///
    /// # Errors
    /// A word or a size that is none, or a decision that dockerd's own options have made already.
    pub(crate) fn parse<'a>(
        get: impl Fn(&str) -> Option<&'a str>,
        daemon: &DaemonOptions,
    ) -> Result<Self, Failure> {
        let way = match get(variables::DIND_STORAGE) {
            None | Some("auto") => None,
            Some(text) => Some(Way::ALL.into_iter().find(|way| way.word() == text).ok_or_else(|| {
                Failure::usage(
                    format!("DIND_STORAGE={text} is not a way to store images"),
                    "set it to auto, overlay2, loop, fuse-overlayfs or vfs, or leave it out",
                )
            })?),
        };
        if let (Some(way), Some(driver)) = (way, driver(daemon)) {
            return Err(Failure::usage(
                format!("DIND_STORAGE={} and the storage driver {driver} both decide on storage", way.word()),
                "leave one of them out: --storage-driver in DOCKER_OPTS or arguments, \"storage-driver\" in daemon.json",
            ));
        }
        let size = get(variables::DIND_STORAGE_SIZE).map(parse_size).transpose()?;
        Ok(Self { way, size })
    }
}

/// The storage driver that dockerd's own options name.
pub(super) fn driver(daemon: &DaemonOptions) -> Option<&str> {
    let named = daemon.named.iter().rev().find(|(name, _)| name == "storage-driver");
    named
        .map(|(_, value)| value.as_str())
        .or_else(|| daemon.config.get("storage-driver").and_then(Value::as_str))
}

/// Whether dockerd's own options choose containerd's image store, which has drivers of its own.
pub(super) fn snapshotter(daemon: &DaemonOptions) -> bool {
    const FEATURE: &str = "containerd-snapshotter";
    let is_it = |value: &str| value == FEATURE || value.strip_prefix(FEATURE) == Some("=true");
    let in_file = daemon.config.get("features").and_then(|features| features.get(FEATURE));
    daemon.named.iter().any(|(name, value)| name == "feature" && is_it(value))
        || in_file == Some(&Value::Bool(true))
}

/// A number of bytes as people write it: with K, M, G or T for powers of 1024.
pub(super) fn parse_size(text: &str) -> Result<u64, Failure> {
    let letters = text.trim().trim_end_matches(['b', 'B']).trim_end_matches('i');
    let (digits, shift) = match letters.char_indices().next_back() {
        Some((at, letter)) if !letter.is_ascii_digit() => {
            let shift = "KMGT".find(letter.to_ascii_uppercase()).map(|power| 10 * (power + 1));
            (letters.get(..at), shift)
        }
        _ => (Some(letters), Some(0)),
    };
    let bytes = digits.zip(shift).and_then(|(digits, shift)| {
        let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| plain)?.checked_mul(1 << shift)
    });
    bytes.filter(|bytes| (SMALLEST..=LARGEST).contains(bytes)).ok_or_else(|| {
        Failure::usage(
            format!("DIND_STORAGE_SIZE={text} is not a size from 256M to 16T"),
            "write a number with M, G or T after it, for example 20G",
        )
    })
}

/// A size, in the largest unit in which it is a number that reads well.
pub(super) fn size_in_words(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let (unit, shift) = units.into_iter().find(|(_, shift)| bytes >> shift > 0).unwrap_or(("bytes", 0));
    let tenths = (u128::from(bytes) * 10) >> shift;
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {unit}"),
        (whole, tenth) => format!("{whole}.{tenth} {unit}"),
    }
}
