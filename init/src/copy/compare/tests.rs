//! What cp(1) makes is like its source, and whatever is not is named. What only root can make (owners, devices, attributes of
//! overlay) is in the end-to-end tests.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::*;

/// A folder with something of each kind in it that needs no privilege.
fn fill(place: &Path) {
    fs::create_dir_all(place.join("d/empty")).unwrap();
    fs::write(place.join("d/file"), [1; 5000]).unwrap();
    fs::hard_link(place.join("d/file"), place.join("d/linked")).unwrap();
    fs::write(place.join("d/other"), [1; 5000]).unwrap();
    symlink("file", place.join("d/link")).unwrap();
    set_time_of_link(&place.join("d/link"), 5);
    nix::unistd::mkfifo(&place.join("d/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(place.join("outside"), "not compared").unwrap();
    for file in ["d/file", "d/other"] {
        set_time(&place.join(file), 5);
    }
}

fn set_time_of_link(path: &Path, seconds: i64) {
    let time = TimeSpec::new(seconds, 0);
    utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
}

fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 1);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// A source and its copy, as the program makes it.
fn copied() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("a"), folder.path().join("b"));
    fill(&source);
    fs::create_dir(&target).unwrap();
    super::super::copy(&source, &target, &["d".into()]).unwrap();
    (folder, source, target)
}

fn result(source: &Path, target: &Path) -> Result<Tally, String> {
    compare(source, target, &["d".into()])
}

#[test]
fn what_cp_makes_is_like_its_source() {
    let (_folder, source, target) = copied();
    let tally = result(&source, &target).unwrap();
    assert_eq!(tally.files, 5, "file, linked, other, link and pipe");
    let room = |name: &str| source.join(name).symlink_metadata().unwrap().blocks() * 512;
    let bytes = room("d/file") + room("d/other") + room("d/link") + room("d/pipe");
    assert_eq!(tally.bytes, bytes, "one with two names counts once");
    assert!(!target.join("outside").exists());
}

#[test]
fn whatever_is_not_as_it_was_is_named() {
    let replace = |path: PathBuf, make: &dyn Fn(&Path)| {
        fs::remove_file(&path).unwrap();
        make(&path);
    };
    type Spoil<'a> = &'a dyn Fn(&Path);
    let table: [(Spoil<'_>, &str); 10] = [
        (&|copy| fs::remove_file(copy.join("pipe")).unwrap(), "d: 6 entries became 5"),
        (&|copy| fs::rename(copy.join("pipe"), copy.join("more")).unwrap(), "d/pipe: it is missing"),
        (&|copy| set_time(&copy.join("other"), 7), "d/other: its time of change differs"),
        (&|copy| set_time(&copy.join("empty"), 7), "d/empty: its time of change differs"),
        (
            &|copy| fs::set_permissions(copy.join("other"), Permissions::from_mode(0o4711)).unwrap(),
            "d/other: its mode differs",
        ),
        (
            &|copy| OpenOptions::new().write(true).open(copy.join("other")).unwrap().set_len(7).unwrap(),
            "d/other: its size differs",
        ),
        (
            &|copy| {
                replace(copy.join("link"), &|path| symlink("elif", path).unwrap());
                set_time_of_link(&copy.join("link"), 5);
            },
            "d/link: where it leads differs",
        ),
        (
            &|copy| replace(copy.join("pipe"), &|path| fs::write(path, "").unwrap()),
            "d/pipe: its kind differs",
        ),
        // Two of one, and one of two.
        (
            &|copy| {
                replace(copy.join("linked"), &|path| {
                    fs::copy(copy.join("file"), path).map(drop).unwrap();
                    set_time(path, 5);
                });
            },
            "its hard links differ",
        ),
        (
            &|copy| replace(copy.join("other"), &|path| fs::hard_link(copy.join("file"), path).unwrap()),
            "its hard links differ",
        ),
    ];
    for (spoil, text) in table {
        let (_folder, source, target) = copied();
        let copy = target.join("d");
        let time = copy.metadata().unwrap().modified().unwrap();
        spoil(&copy);
        File::open(&copy).unwrap().set_modified(time).unwrap();
        let found = result(&source, &target).unwrap_err();
        assert!(found.contains(text), "{found:?} and not {text:?}");
    }
}

#[test]
fn attributes_are_compared_by_name_and_value() {
    let set = |pairs: &[(&CStr, &str)]| -> Attributes {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
    };
    let both = set(&[(c"user.a", "1"), (c"user.b", "2")]);
    let one = set(&[(c"user.a", "1")]);
    let other = set(&[(c"user.a", "2")]);
    assert_eq!(attribute(&both, &both), None);
    assert_eq!(attribute(&both, &one).as_deref(), Some("user.b"));
    assert_eq!(attribute(&one, &both).as_deref(), Some("user.b"));
    assert_eq!(attribute(&one, &other).as_deref(), Some("user.a"));
}
