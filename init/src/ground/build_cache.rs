//! How much the build cache may grow. Engines remove nothing of it unless they are told to (26.1 was tried; moby#49826 ends it
//! in later ones), so that a host that lives long fills its disk. No option of dockerd's limits it, only its configuration file.

use std::path::Path;

use dind_contract::variables::DIND_BUILD_CACHE;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::decision::Decision;
use crate::failure::Failure;
use crate::settings::Settings;

/// The most that the build cache may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuildCache {
    /// This many bytes.
    Bytes(u64),
    /// This part of the disk.
    Percent(u64),
    /// As much as there is.
    Unlimited,
}

/// A tenth of the disk: what dockerd 26 takes when it is told to limit the cache, and not how far.
const DEFAULT: BuildCache = BuildCache::Percent(10);
/// On a small disk, a tenth is less than one build needs to be quick the next time.
const LEAST: u64 = 512 * 1000 * 1000;
/// The key of dockerd's configuration file.
const KEY: &str = "builder";

impl BuildCache {
    /// Reads `20GB`, `10%` or `off`. Units are powers of ten, as `docker system df` prints them.
    ///
    /// # Errors
    /// It is none of them.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let refused = || {
            Failure::usage(
                format!("{DIND_BUILD_CACHE}={text} is not a size, a percentage or off"),
                format!(
                    "write for example {DIND_BUILD_CACHE}=20GB, {DIND_BUILD_CACHE}=10% (of the disk), or off for no limit"
                ),
            )
        };
        let text = text.trim();
        if text == "off" {
            return Ok(Self::Unlimited);
        }
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().ok().filter(|number| *number > 0).ok_or_else(refused)?;
        let factor = match unit.trim().to_ascii_lowercase().trim_end_matches('b') {
            "%" if number <= 100 => return Ok(Self::Percent(number)),
            // A cache of a few bytes was not meant.
            "k" => 1_000,
            "m" => 1_000_000,
            "g" => 1_000_000_000,
            "t" => 1_000_000_000_000,
            _ => return Err(refused()),
        };
        number
            .checked_mul(factor)
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .map(Self::Bytes)
            .ok_or_else(refused)
    }
}

/// The disk that the cache lies on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Disk {
    /// Its size in bytes; `None`: unknown.
    pub(super) size: Option<u64>,
}

/// Looks at the disk. It may hang.
pub(super) fn probe(data_root: &Path) -> Disk {
    // The data root is made only when a host starts.
    let there = data_root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let size = nix::sys::statvfs::statvfs(there).ok().map(|disk| disk.blocks() * disk.fragment_size());
    Disk { size: size.filter(|size| *size > 0) }
}

/// Whether the user's file decides on it, too.
///
/// # Errors
/// Both do.
pub(crate) fn check(settings: &Settings) -> Result<(), Failure> {
    if settings.build_cache.is_some() && told(settings) {
        return Err(Failure::usage(
            format!(
                "{DIND_BUILD_CACHE} and \"{KEY}\" in {} both limit the build cache",
                settings.daemon.config_file.display()
            ),
            "leave one of them out",
        ));
    }
    Ok(())
}

fn told(settings: &Settings) -> bool {
    settings.daemon.config.get(KEY).is_some_and(|builder| builder.get("gc").is_some())
}

/// How much there may be of it.
pub(super) fn decide(settings: &Settings, disk: &Disk) -> Decision {
    let found =
        disk.size.map_or("a disk of unknown size".to_owned(), |size| format!("a disk of {}", print(size)));
    if told(settings) {
        let file = settings.daemon.config_file.display();
        return Decision::good("build cache", found, format!("what \"{KEY}\" in {file} says"));
    }
    let limit = match (settings.build_cache.unwrap_or(DEFAULT), disk.size) {
        (BuildCache::Bytes(bytes), _) => Some(bytes),
        (BuildCache::Percent(percent), Some(size)) => Some((size / 100 * percent).max(LEAST)),
        (BuildCache::Percent(_), None) => None,
        (BuildCache::Unlimited, _) => {
            return Decision::good("build cache", found, "no limit")
                .because(format!("{DIND_BUILD_CACHE} says so"))
                .with_config(KEY, json!({ "gc": { "enabled": false } }));
        }
    };
    let gc = match limit {
        // The first name is for engines up to 27, where it is the limit; in later ones it stands for what is always
        // kept, and the second is the limit. Each passes over names that it does not know.
        Some(bytes) => {
            let bytes = bytes.to_string();
            json!({ "enabled": true, "defaultKeepStorage": bytes, "defaultMaxUsedSpace": bytes })
        }
        None => json!({ "enabled": true }),
    };
    let chosen =
        limit.map_or("the engine's own limit".to_owned(), |bytes| format!("at most {}", print(bytes)));
    let why = match settings.build_cache {
        Some(_) => format!("{DIND_BUILD_CACHE} says so"),
        None => "not every engine limits it by itself, and it would fill the disk".to_owned(),
    };
    Decision::good("build cache", found, chosen).because(why).with_config(KEY, json!({ "gc": gc }))
}

/// A size as `docker system df` prints it.
fn print(bytes: u64) -> String {
    let units = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    units.iter().find(|(_, unit)| bytes >= *unit).map_or_else(
        || format!("{bytes} B"),
        |(name, unit)| {
            let tenths = bytes / (unit / 10);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(cache: Option<&str>, file: &'static str) -> Result<Settings, Failure> {
        let environment = cache.map(|text| (DIND_BUILD_CACHE.into(), text.into()));
        Settings::load(environment, &[], |path| {
            Ok((path == Path::new(dind_contract::paths::DAEMON_JSON)).then(|| file.to_owned()))
        })
    }

    #[test]
    fn sizes_percentages_and_off() {
        for (text, expected) in [
            ("20GB", BuildCache::Bytes(20_000_000_000)),
            ("20g", BuildCache::Bytes(20_000_000_000)),
            ("5 mb", BuildCache::Bytes(5_000_000)),
            ("10%", BuildCache::Percent(10)),
            ("off", BuildCache::Unlimited),
        ] {
            assert_eq!(BuildCache::parse(text).unwrap(), expected, "{text}");
        }
        for text in ["", "0", "0GB", "10", "101%", "-5GB", "1.5GB", "GB", "99999999999TB", "on", "5xb"] {
            let failure = BuildCache::parse(text).unwrap_err();
            assert_eq!(failure.code, 64, "{text}");
            assert!(failure.cause.contains("DIND_BUILD_CACHE="), "{}", failure.cause);
        }
    }

    #[test]
    fn the_limit_is_a_part_of_the_disk_unless_somebody_says_more() {
        let limit = |cache, file, size| {
            let decision = decide(&settings(cache, file).unwrap(), &Disk { size });
            decision.config.get(KEY).map(|builder| builder["gc"].to_string())
        };
        let bytes = |bytes: u64| {
            Some(json!({"enabled": true, "defaultKeepStorage": bytes.to_string(), "defaultMaxUsedSpace": bytes.to_string()}).to_string())
        };
        let gigabyte = 1_000_000_000;
        assert_eq!(limit(None, "", Some(100 * gigabyte)), bytes(10 * gigabyte));
        assert_eq!(limit(None, "", Some(gigabyte)), bytes(LEAST));
        assert_eq!(limit(None, "", None), Some(r#"{"enabled":true}"#.to_owned()));
        assert_eq!(limit(Some("3GB"), "", Some(gigabyte)), bytes(3 * gigabyte));
        assert_eq!(limit(Some("50%"), "", Some(10 * gigabyte)), bytes(5 * gigabyte));
        assert_eq!(limit(Some("off"), "", Some(gigabyte)), Some(r#"{"enabled":false}"#.to_owned()));
        assert_eq!(limit(None, r#"{"builder": {"gc": {}}}"#, Some(gigabyte)), None);
        let twice = settings(Some("3GB"), r#"{"builder": {"gc": {}}}"#).unwrap_err();
        assert!(twice.cause.contains("both limit the build cache"), "{}", twice.cause);
    }

    #[test]
    fn sizes_are_printed_short() {
        assert_eq!(print(252_345_000_000), "252.3 GB");
        assert_eq!(print(512_000_000), "512.0 MB");
        assert_eq!(print(999), "999 B");
    }
}
