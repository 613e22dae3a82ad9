//! The build cache is limited, so that a host that lives long does not fill its disk.

use dind_tests::{Host, HostOptions, Volume, until};
use serde_json::Value;

/// The size of the build cache in bytes.
fn cached(host: &Host) -> u64 {
    let text = host.docker(["system", "df", "-v", "--format", "{{json .BuildCache}}"]).ok();
    let records: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
    let sizes = records.iter().filter_map(|record| record["Size"].as_str());
    sizes.map(size).sum()
}

/// As the docker command prints it: `12.3MB`.
fn size(text: &str) -> u64 {
    let at = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor = match unit {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => panic!("{text:?} is not a size"),
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of a test's files")]
    let bytes = (number.parse::<f64>().unwrap() * factor) as u64;
    bytes
}

/// Four builds that leave 20 MB each in the cache, and next to nothing in an image.
fn fill(host: &Host) {
    for number in 1..=4 {
        host.build(
            "app",
            &format!(
                "FROM busybox AS made\nRUN echo {number} && dd if=/dev/urandom of=/large bs=1M count=20 && touch /small\n\
                 FROM busybox\nCOPY --from=made /small /small\n"
            ),
        );
    }
    assert!(cached(host) > 80_000_000, "{}", cached(host));
}

fn with(cache: &str, data: &Volume) -> HostOptions {
    Host::options().volume(data, "/var/lib/docker").env("DIND_BUILD_CACHE", cache)
}

#[test]
fn a_cache_that_is_over_its_limit_shrinks() {
    let data = Volume::new();
    let without = with("off", &data).start();
    without.load_busybox();
    fill(&without);
    without.stop();
    drop(without);
    // dockerd looks at its start, and after builds, at most once a minute.
    let host = with("50MB", &data).start();
    until("the build cache to shrink", 60, || (cached(&host) <= 50_000_000).then_some(()));
    assert!(cached(&host) > 0, "what fits stays");
    host.docker(["run", "--rm", "app", "ls", "/small"]).ok();
}

#[test]
fn the_limit_is_stated() {
    let chosen = |host: &Host| {
        let status = host.status();
        let ground = status["ground"].as_array().cloned().unwrap();
        let found = ground.into_iter().find(|finding| finding["subject"] == "build cache").unwrap();
        found["chosen"].as_str().unwrap().to_owned()
    };
    let host = Host::options().env("DIND_BUILD_CACHE", "20GB").start();
    assert_eq!(chosen(&host), "at most 20.0 GB");
    let rules = host.docker(["buildx", "inspect"]).ok();
    assert!(rules.contains("18.63GiB"), "{rules}");
    drop(host);
    let own = r#"{"builder": {"gc": {"enabled": true, "defaultKeepStorage": "1GB"}}}"#;
    let host = Host::options().file("/etc/docker/daemon.json", 0o644, own).start();
    assert!(chosen(&host).contains("/etc/docker/daemon.json"), "{}", chosen(&host));
    let rules = host.docker(["buildx", "inspect"]).ok();
    assert!(rules.contains("1GiB"), "{rules}");
    drop(host);
    Host::options()
        .env("DIND_BUILD_CACHE", "20GB")
        .file("/etc/docker/daemon.json", 0o644, own)
        .refused(64, &["DIND_BUILD_CACHE", "/etc/docker/daemon.json"]);
}
