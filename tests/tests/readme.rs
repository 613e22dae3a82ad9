//! The lines of the README, typed as they stand.

use std::collections::BTreeSet;
use std::path::Path;

use dind_tests::{Call, Dind, docker};

/// The text of the README.
fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    std::fs::read_to_string(path).unwrap()
}

/// Each section's title and the lines in it that are to be typed (blocks marked `sh`).
fn sections(text: &str) -> Vec<(String, String)> {
    text.split("\n## ")
        .filter_map(|section| {
            let (title, body) = section.split_once('\n')?;
            let blocks: String =
                body.split("```sh\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
            (!blocks.is_empty()).then(|| (title.to_owned(), blocks))
        })
        .collect()
}

/// Removes what a section makes: the containers, volumes and networks that its lines name.
struct Made(BTreeSet<String>);

impl Made {
    fn by(lines: &str) -> Self {
        let words: Vec<&str> = lines.split([' ', '\n', ':']).collect();
        let named = |option: &'static str| {
            words.windows(2).filter(move |pair| pair[0] == option).map(|pair| pair[1].to_owned())
        };
        Self(
            named("--name")
                .chain(named("-v"))
                .chain(named("create"))
                .chain(named("up"))
                .chain(named("--volume"))
                .filter(|name| name.starts_with("dind-"))
                .collect(),
        )
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = docker(["rm", "--force", "--volumes", name]);
            let _ = docker(["volume", "rm", "--force", name]);
            let _ = docker(["network", "rm", name]);
        }
    }
}

/// Types the lines of the section with this title into a shell that ends at the first that fails.
#[track_caller]
fn type_section(title: &str) {
    let sections = sections(&readme());
    let lines = |title: &str| {
        let found = sections.iter().find(|(found, _)| found == title);
        found.unwrap_or_else(|| panic!("the README has no section {title:?}")).1.clone()
    };
    // The options come first in the README, and the lines of all sections use them.
    let text = readme();
    let options = text.split("```sh\n").find(|block| block.starts_with("host=(")).unwrap();
    let options = options.split("```").next().unwrap();
    let lines = lines(title);
    let made = Made::by(&lines);
    for name in &made.0 {
        let there = docker(["container", "inspect", name]).code == Some(0);
        assert!(!there, "a container {name} is there already\n  help: docker rm -f -v {name}");
    }
    // A user who has put dind into the PATH, and whose home knows nothing of it yet.
    let dind = Dind::new();
    let programs = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(std::path::absolute(Dind::program()).unwrap(), programs.path().join("dind"))
        .unwrap();
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    let script = format!("set -euo pipefail\n{options}\n{lines}");
    dind.dress(Call::new("bash").args(["-c", &script]).env("PATH", path)).within(120).run().ok();
    let left: Vec<&String> =
        made.0.iter().filter(|name| docker(["container", "inspect", name]).code == Some(0)).collect();
    assert!(left.is_empty(), "the section leaves {left:?} behind");
}

macro_rules! typed {
    ($($test:ident: $title:literal,)*) => {
        $(
            #[test]
            fn $test() {
                type_section($title);
            }
        )*

        #[test]
        fn every_section_with_lines_to_type_is_typed() {
            let titles: Vec<String> = sections(&readme()).into_iter().map(|(title, _)| title).collect();
            assert_eq!(titles, [$($title),*]);
        }
    };
}

typed! {
    quickstart: "Quickstart",
    on_a_network: "On a network",
    by_a_port_of_the_machine: "By a port of the machine",
    memory_and_processors: "Memory and processors",
    options_for_dockerd: "Options for dockerd",
    without_a_port: "Without a port",
    log_in_over_ssh: "Log in over ssh",
    keep_the_images: "Keep the images",
    stop_start_and_kill: "Stop, start and kill",
    build_images: "Build images",
    a_dynamic_appliance: "A dynamic appliance",
    a_static_appliance: "A static appliance",
    a_sealed_appliance: "A sealed appliance",
    in_ci: "In CI",
    in_place_of_docker_dind: "In place of docker:dind",
    several_hosts: "Several hosts",
    what_it_protects: "What it protects, and what it does not",
}

/// What is typed but by no test here is the two commands, of which the one runs the tests and `tests/quickstart.rs` the other.
#[test]
fn nothing_else_looks_as_if_it_were_to_be_typed() {
    let text = readme();
    let fences: Vec<&str> = text.lines().filter(|line| line.starts_with("```") && line.len() > 3).collect();
    let others: Vec<&str> = fences.iter().copied().filter(|&fence| fence != "```sh").collect();
    assert_eq!(others, ["```console"]);
    let commands = text.split("```console\n").nth(1).unwrap().split("```").next().unwrap();
    let typed: Vec<&str> = commands.lines().map(|line| line.split('#').next().unwrap().trim()).collect();
    assert_eq!(typed, ["$ ./quickstart", "$ ./check"]);
}

/// The name by which a title is linked to.
fn anchor(title: &str) -> String {
    let kept = title.trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root.join(name)).to_vec();
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(docs.filter(|path| path.extension().is_some_and(|it| it == "md")));
    let mut links = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (path, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !wanted.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                let mut titles = text
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .map(|line| anchor(line.trim_start_matches('#')));
                assert!(titles.any(|it| it == wanted), "{}: {link}: there is no such title", page.display());
            }
        }
    }
    assert!(links > 30, "{links}");
}
