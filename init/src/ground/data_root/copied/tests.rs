//! Who may have a data root when it is copied, and what a folder must be to become a copy.

use tempfile::{TempDir, tempdir};

use super::super::{DataRoot, mark_clean};
use super::*;

/// An empty folder, and a data root that a host has left clean.
fn both() -> (TempDir, TempDir) {
    let (source, target) = (tempdir().unwrap(), tempdir().unwrap());
    drop(DataRoot::lock(source.path()).unwrap());
    mark_clean(source.path()).unwrap();
    (source, target)
}

fn mark(folder: &TempDir) -> String {
    fs::read_to_string(folder.path().join(LOCK_FILE)).unwrap()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Failure>, text: &str) {
    let failure = result.unwrap_err();
    assert!(failure.cause.contains(text), "{failure}");
}

#[test]
fn copies_share_what_a_host_has_for_itself() {
    let (folder, _) = both();
    let first = Source::lock(folder.path()).unwrap();
    let second = Source::lock(folder.path()).unwrap();
    refused(DataRoot::lock(folder.path()).map(drop), "in use by another host, or is being copied");
    drop((first, second));
    let mut host = DataRoot::lock(folder.path()).unwrap();
    host.mark_running().unwrap();
    refused(Source::lock(folder.path()), "in use by a host");
    drop(host);
    refused(Source::lock(folder.path()), "was not clean");
    assert_eq!(mark(&folder), "running\n");
}

#[test]
fn one_that_no_host_has_used_stays_one() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("image"), "").unwrap();
    for name in [DAMAGED, LOST_AND_FOUND] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let source = Source::lock(folder.path()).unwrap();
    assert_eq!((source.last_stop, mark(&folder)), (LastStop::First, String::new()));
    assert_eq!(source.names().unwrap(), ["image"]);
}

#[test]
fn what_is_no_folder_or_the_same_is_refused() {
    let (folder, _) = both();
    let inside = folder.path().join("inside");
    refused(Source::lock(&inside), "there is no folder");
    refused(Source::lock(&folder.path().join(LOCK_FILE)), "there is no folder");
    let source = Source::lock(folder.path()).unwrap();
    fs::create_dir(&inside).unwrap();
    for target in [folder.path(), &inside, folder.path().parent().unwrap()] {
        refused(Target::lock(target, &source), "one is in the other");
    }
    assert_eq!(mark(&folder), CLEAN);
}

#[test]
fn a_folder_that_is_not_empty_is_left_alone() {
    let (folder, other) = both();
    let source = Source::lock(folder.path()).unwrap();
    fs::create_dir(other.path().join(LOST_AND_FOUND)).unwrap();
    fs::write(other.path().join("file"), "").unwrap();
    refused(Target::lock(other.path(), &source), "is not empty: there is \"file\" in it");
    assert!(!other.path().join(LOCK_FILE).exists());
    let (used, _) = both();
    refused(Target::lock(used.path(), &source), "is not empty: there is \"dind.lock\" in it");
    fs::write(used.path().join(LOCK_FILE), COPYING).unwrap();
    refused(Target::lock(used.path(), &source), "a copy that was cut off");
    refused(Source::lock(used.path()), "a copy that was cut off");
}

#[test]
fn links_in_place_of_the_lock_are_not_followed() {
    let (folder, other) = both();
    std::os::unix::fs::symlink(folder.path().join(LOCK_FILE), other.path().join(LOCK_FILE)).unwrap();
    refused(Source::lock(other.path()), "cannot be locked");
    let source = Source::lock(folder.path()).unwrap();
    refused(Target::lock(other.path(), &source), "is not empty");
}
