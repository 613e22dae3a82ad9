//! The lines of the README, typed as they stand.

use std::collections::BTreeSet;
use std::path::Path;

use dind_tests::{Call, docker};

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
    let options = text.split("```").nth(3).and_then(|block| block.strip_prefix("sh\n")).unwrap();
    assert!(options.starts_with("host=("), "{options}");
    let lines = lines(title);
    let made = Made::by(&lines);
    for name in &made.0 {
        let there = docker(["container", "inspect", name]).code == Some(0);
        assert!(!there, "a container {name} is there already\n  help: docker rm -f -v {name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = format!("set -euo pipefail\ncd {}\n{options}\n{lines}", folder.path().display());
    Call::new("bash").args(["-c", &script]).within(120).run().ok();
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
    start_a_host: "Start a host",
    with_limits: "With limits",
    with_options_for_dockerd: "With options for dockerd",
    without_a_port: "Without a port",
    without_tls: "Without TLS",
    in_place_of_docker_dind: "In place of docker:dind",
    keep_the_images: "Keep the images",
    log_in_over_ssh: "Log in over ssh",
    run_a_command: "Run a command",
    ask_a_host: "Ask a host",
    how_a_host_stops: "How a host stops",
    what_survives: "What survives a kill and a power cut",
}
