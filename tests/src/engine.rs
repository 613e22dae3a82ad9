//! The engine that the tests run on.

use std::fs;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::command::{Call, Ended};
use crate::options::image;

/// The label of everything that a test makes; its value is the test's name.
pub const LABEL: &str = "dind.test";

/// Who made it: pid namespace, pid and time, so that a later test process knows whether the maker still lives.
const OWNER: &str = "dind.test.owner";

/// After this many seconds what another pid namespace made is taken for left behind.
const TOO_OLD: u64 = 3600;

/// Runs `docker` with these arguments against the engine that the tests run on.
#[track_caller]
pub fn docker<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Ended {
    Call::new("docker").args(args).run()
}

/// Checks, once a run of the suite, that the engine and the image are there, and sweeps up what killed tests left behind.
#[track_caller]
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Each test is a process of its own; nextest gives those of a run one name.
        let marker = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tests-prepared-for");
        let run = std::env::var("NEXTEST_RUN_ID").ok();
        if run.is_some() && fs::read_to_string(&marker).ok() == run {
            return;
        }
        let engine = docker(["version", "--format", "{{.Server.Version}}"]);
        assert_eq!(
            engine.code,
            Some(0),
            "these tests need a Docker engine\n  help: run ./quickstart --build, as root if Docker is not installed\n{engine}"
        );
        require(image(), "./quickstart --build");
        sweep();
        if let Some(run) = run {
            // Unwritten, it is only asked again.
            let _ = fs::write(&marker, run);
        }
    });
}

/// Checks that there is an image.
#[track_caller]
pub(crate) fn require(name: &str, command: &str) {
    let found = docker(["image", "inspect", "--format", "{{.Id}}", name]);
    assert_eq!(found.code, Some(0), "these tests need the image {name}\n  help: run {command}\n{found}");
}

/// A name that no other test uses, now or later.
pub(crate) fn unique_name() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("dind-test-{}-{}-{count}", std::process::id(), now() % 1_000_000)
}

/// The options that mark a container or a volume as ours.
pub(crate) fn labels() -> Vec<String> {
    label_pairs()
        .into_iter()
        .flat_map(|(name, value)| ["--label".into(), format!("{name}={value}")])
        .collect()
}

/// The labels themselves, for what is made in another way.
pub(crate) fn label_pairs() -> [(String, String); 2] {
    let owner = format!("{} {} {}", pid_namespace(), std::process::id(), now());
    [(LABEL.into(), test_name()), (OWNER.into(), owner)]
}

fn test_name() -> String {
    let thread = || std::thread::current().name().unwrap_or("unnamed").to_owned();
    std::env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| thread())
}

/// Removes what test processes that are gone left behind, and nothing that belongs to a living one.
fn sweep() {
    let owner = format!("{{{{.ID}}}}\t{{{{.Label {OWNER:?}}}}}");
    let label = format!("label={OWNER}");
    for container in abandoned(&["ps", "-a", "--filter", &label, "--format", &owner]) {
        let _ = docker(["rm", "-fv", &container]);
    }
    let owner = format!("{{{{.Name}}}}\t{{{{.Label {OWNER:?}}}}}");
    for network in abandoned(&["network", "ls", "--filter", &label, "--format", &owner]) {
        let _ = docker(["network", "rm", &network]);
    }
    for volume in abandoned(&["volume", "ls", "--filter", &label, "--format", &owner]) {
        let _ = docker(["volume", "rm", "-f", &volume]);
    }
}

fn abandoned(list: &[&str]) -> Vec<String> {
    let list = docker(list).ok();
    let named = list.lines().filter_map(|line| line.split_once('\t'));
    named.filter(|(_, owner)| is_abandoned(owner)).map(|(name, _)| name.to_owned()).collect()
}

/// Whether the maker of a thing with this owner label is gone.
fn is_abandoned(owner: &str) -> bool {
    let mut words = owner.split(' ');
    let (Some(namespace), Some(pid), Some(since)) = (words.next(), words.next(), words.next()) else {
        return true;
    };
    if namespace == pid_namespace() {
        return !Path::new("/proc").join(pid).exists();
    }
    since.parse().map_or(true, |since: u64| now().saturating_sub(since) > TOO_OLD)
}

pub(crate) fn pid_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid");
    link.map_or_else(|_| "unknown".into(), |link| link.to_string_lossy().into_owned())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
