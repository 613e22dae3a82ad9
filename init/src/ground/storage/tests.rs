use dind_contract::Verdict;

use super::wish::parse_size;
use super::*;
use crate::failure::Failure;

const GIB: u64 = 1 << 30;

/// An ext4 with 40 GiB free on which all is well.
fn well() -> Probe {
    Probe { kind: "ext4".into(), free: 40 * GIB, overlay: Tried::Works, ..Probe::default() }
}

fn fails(why: &str) -> Tried {
    Tried::Fails(why.into())
}

/// Overlay fails, and so does each of the next ways that `failing` counts.
fn without_overlay(failing: usize) -> Probe {
    let tried = |at: usize, why: &str| if failing > at { fails(why) } else { Tried::Works };
    Probe {
        kind: "fuse".into(),
        overlay: fails("EINVAL"),
        on_loop: tried(0, "no loop"),
        fuse: tried(1, "no fuse"),
        ..well()
    }
}

fn images(probe: Probe, images: &[(&str, usize)]) -> Probe {
    Probe { images: images.iter().map(|(driver, count)| ((*driver).into(), *count)).collect(), ..probe }
}

fn with_disk(probe: Probe) -> Probe {
    Probe { disk: Some(10 * GIB), on_loop: Tried::Works, ..probe }
}

fn load(environment: &[(&str, &str)], config: Option<&str>) -> Result<Settings, Failure> {
    let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let is_meant = |path: &Path| path == Path::new(dind_contract::paths::DAEMON_JSON);
    Settings::load(environment, &[], |path| Ok(config.filter(|_| is_meant(path)).map(str::to_owned)))
}

fn settings(environment: &[(&str, &str)]) -> Settings {
    load(environment, None).unwrap()
}

type Environment = &'static [(&'static str, &'static str)];

/// What the user says, what was probed, the driver that dockerd is told, whether it is on a disk, the verdict, and texts of
/// the line in the log.
type Row<'a> = (&'a [(&'a str, &'a str)], Probe, &'a str, bool, Verdict, &'a [&'a str]);

#[test]
fn the_best_that_works_is_chosen_and_what_is_there_is_followed() {
    use Verdict::{Fallback, Good, Missing};
    let told = |way: &'static str| -> [(&str, &str); 1] { [("DIND_STORAGE", way)] };
    let (overlay, looped, fuse, vfs) = (told("overlay2"), told("loop"), told("fuse-overlayfs"), told("vfs"));
    let table: Vec<Row> = vec![
        (&[], well(), "overlay2", false, Good, &["overlay2", "overlay works on the data root"]),
        (&[("DIND_STORAGE", "auto")], well(), "overlay2", false, Good, &[]),
        (
            &[],
            without_overlay(0),
            "overlay2",
            true,
            Fallback,
            &["30 GiB", "overlay2: EINVAL", "-v NAME:/var/lib/docker"],
        ),
        (&[], without_overlay(1), "fuse-overlayfs", false, Fallback, &["overlay2: EINVAL; loop: no loop"]),
        (
            &[],
            without_overlay(2),
            "vfs",
            false,
            Fallback,
            &["overlay2: EINVAL; loop: no loop; fuse-overlayfs: no fuse"],
        ),
        // Too little room for a disk.
        (
            &[],
            Probe { free: GIB / 4, ..without_overlay(0) },
            "fuse-overlayfs",
            false,
            Fallback,
            &["loop: only 256 MiB are free"],
        ),
        // As told.
        (&overlay, well(), "overlay2", false, Good, &["DIND_STORAGE=overlay2"]),
        (&overlay, without_overlay(0), "", false, Missing, &["overlay2 does not work here: EINVAL"]),
        (&looped, Probe { on_loop: Tried::Works, ..well() }, "overlay2", true, Good, &["DIND_STORAGE=loop"]),
        (&looped, without_overlay(1), "", false, Missing, &["on a loop device does not work here: no loop"]),
        (&fuse, Probe { fuse: Tried::Works, ..well() }, "fuse-overlayfs", false, Good, &[]),
        (&fuse, without_overlay(2), "", false, Missing, &["fuse-overlayfs does not work here: no fuse"]),
        (&vfs, well(), "vfs", false, Good, &[]),
        (
            &vfs,
            images(well(), &[("overlay2", 3)]),
            "vfs",
            false,
            Fallback,
            &["not visible now", "3 images under overlay2"],
        ),
        // What an earlier host left.
        (&[], images(well(), &[("overlay2", 3)]), "overlay2", false, Good, &[]),
        (
            &[],
            images(well(), &[("vfs", 2)]),
            "vfs",
            false,
            Fallback,
            &["has images under vfs", "DIND_STORAGE=overlay2, which works here"],
        ),
        (
            &[],
            images(well(), &[("overlay2", 3), ("vfs", 2)]),
            "overlay2",
            false,
            Fallback,
            &["2 images under vfs"],
        ),
        (&[], images(well(), &[("zfs", 2)]), "overlay2", false, Fallback, &["2 images under zfs"]),
        (
            &[],
            images(without_overlay(0), &[("overlay2", 3)]),
            "overlay2",
            true,
            Fallback,
            &["not visible now", "3 images under overlay2"],
        ),
        (
            &[],
            images(without_overlay(0), &[("fuse-overlayfs", 1)]),
            "fuse-overlayfs",
            false,
            Fallback,
            &["has images under fuse-overlayfs"],
        ),
        (
            &[],
            images(without_overlay(2), &[("fuse-overlayfs", 1)]),
            "vfs",
            false,
            Fallback,
            &["1 images under fuse-overlayfs"],
        ),
        (
            &[],
            with_disk(well()),
            "overlay2",
            true,
            Fallback,
            &["an earlier host has made dind.ext4", "10 GiB", "DIND_STORAGE=overlay2, which works here"],
        ),
        (&[], with_disk(without_overlay(0)), "overlay2", true, Fallback, &["10 GiB", "-v NAME"]),
        (
            &[],
            Probe { disk: Some(10 * GIB), ..without_overlay(2) },
            "vfs",
            false,
            Fallback,
            &["what is in dind.ext4"],
        ),
        (&overlay, with_disk(well()), "overlay2", false, Fallback, &["what is in dind.ext4"]),
        // As dockerd's own options say.
        (&[("DOCKER_OPTS", "-s overlay2")], well(), "", false, Good, &["overlay2, as dockerd's options say"]),
        (
            &[("DOCKER_OPTS", "-s overlay2")],
            without_overlay(0),
            "",
            false,
            Missing,
            &["EINVAL", "leave --storage-driver"],
        ),
        (&[("DOCKER_OPTS", "--storage-driver=btrfs")], well(), "", false, Good, &["btrfs, as"]),
        (&[("DOCKER_OPTS", "--storage-driver vfs")], without_overlay(2), "", false, Good, &["vfs, as"]),
        (
            &[("DOCKER_OPTS", "--feature containerd-snapshotter")],
            well(),
            "",
            false,
            Good,
            &["containerd's image store"],
        ),
        (
            &[("DOCKER_OPTS", "--feature=containerd-snapshotter=true")],
            without_overlay(0),
            "",
            false,
            Fallback,
            &["EINVAL"],
        ),
    ];
    for (environment, probe, driver, disk, verdict, texts) in table {
        let chosen = decide(&settings(environment), &probe);
        let said = format!("{environment:?} {probe:?}\n{chosen:?}");
        let arguments: Vec<&str> = chosen.decision.arguments.iter().map(String::as_str).collect();
        let expected: &[&str] = if driver.is_empty() { &[] } else { &["--storage-driver", driver] };
        assert_eq!(arguments, expected, "{said}");
        assert_eq!((chosen.disk.is_some(), chosen.decision.finding.verdict), (disk, verdict), "{said}");
        assert_eq!(chosen.decision.finding.better.is_some(), verdict != Good, "{said}");
        let line = super::super::decision::one_line(&chosen.decision.finding);
        texts.iter().for_each(|text| assert!(line.contains(text), "no {text:?} in {line}\n{said}"));
    }
}

#[test]
fn the_disk_has_the_size_that_was_asked_for_and_never_shrinks() {
    let size = |environment: Environment, probe| decide(&settings(environment), &probe).disk.unwrap() / GIB;
    let twenty: Environment = &[("DIND_STORAGE_SIZE", "20G")];
    assert_eq!(size(&[], without_overlay(0)), 30);
    assert_eq!(size(twenty, without_overlay(0)), 20);
    assert_eq!(size(&[], with_disk(without_overlay(0))), 10);
    assert_eq!(size(twenty, with_disk(without_overlay(0))), 20);
    assert_eq!(size(&[("DIND_STORAGE_SIZE", "5G")], with_disk(without_overlay(0))), 10);
}

#[test]
fn a_size_without_a_disk_is_not_passed_over_in_silence() {
    let chosen = decide(&settings(&[("DIND_STORAGE_SIZE", "20G")]), &well());
    assert_eq!(chosen.decision.finding.chosen, "overlay2, which takes no heed of DIND_STORAGE_SIZE");
}

#[test]
fn daemon_json_decides_too() {
    let config = Some(r#"{"storage-driver": "vfs"}"#);
    let chosen = decide(&load(&[], config).unwrap(), &well());
    assert_eq!(chosen.decision.arguments, [""; 0]);
    assert_eq!(chosen.decision.finding.chosen, "vfs, as dockerd's options say");
    let config = Some(r#"{"features": {"containerd-snapshotter": true}}"#);
    let chosen = decide(&load(&[], config).unwrap(), &well());
    assert!(chosen.decision.finding.chosen.contains("containerd's image store"), "{chosen:?}");
    assert_eq!(chosen.decision.arguments, [""; 0]);
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("20G", 20 * GIB),
        ("20g", 20 * GIB),
        ("20GB", 20 * GIB),
        ("20GiB", 20 * GIB),
        (" 512M ", GIB / 2),
        ("1T", 1024 * GIB),
        ("300000K", 300_000 << 10),
        ("1073741824", GIB),
        ("1073741824b", GIB),
    ] {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
    for text in [
        "",
        "G",
        "20",
        "255M",
        "17T",
        "-1G",
        "+1G",
        "1.5G",
        "20X",
        "20 G G",
        "99999999999999999999G",
        "9999999999T",
        "ß",
    ] {
        let failure = parse_size(text).err().unwrap();
        assert_eq!(failure.cause, format!("DIND_STORAGE_SIZE={text} is not a size from 256M to 16T"));
    }
    for (bytes, words) in [(7, "7 bytes"), (GIB, "1 GiB"), (GIB * 5 / 2, "2.5 GiB"), (GIB / 2, "512 MiB")] {
        assert_eq!(size_in_words(bytes), words);
    }
}

#[test]
fn bad_values_are_named() {
    for (environment, cause) in [
        (&[("DIND_STORAGE", "aufs")][..], "DIND_STORAGE=aufs is not a way"),
        (&[("DIND_STORAGE", "")], "DIND_STORAGE= is not a way"),
        (&[("DIND_STORAGE_SIZE", "big")], "DIND_STORAGE_SIZE=big is not a size"),
        (
            &[("DIND_STORAGE", "vfs"), ("DOCKER_OPTS", "-s vfs")],
            "DIND_STORAGE=vfs and the storage driver vfs both decide",
        ),
    ] {
        let failure = load(environment, None).err().unwrap();
        assert_eq!(failure.code, 64);
        assert!(failure.cause.contains(cause), "{}", failure.cause);
    }
    assert!(load(&[("DIND_STORAGE", "auto"), ("DOCKER_OPTS", "-s vfs")], None).is_ok());
}
