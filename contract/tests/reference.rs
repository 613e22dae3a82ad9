//! The reference has every setting, exit code, port and place that the contract has.

use dind_contract::variables;

const REFERENCE: &str = include_str!("../../docs/reference.md");

/// The values of the constants in a source file.
fn values(source: &str) -> impl Iterator<Item = &str> {
    source
        .lines()
        .filter(|line| line.starts_with("pub const"))
        .filter_map(|line| line.split_once(" = ")?.1.strip_suffix(';'))
        .map(|value| value.trim_matches('"'))
}

#[test]
fn every_setting_is_in_it() {
    for variable in variables::ALL {
        let row = format!("| `{}` |", variable.name);
        assert!(REFERENCE.contains(&row), "docs/reference.md lacks {row}");
    }
}

#[test]
fn every_exit_code_is_in_it() {
    let mut codes = 0;
    for code in values(include_str!("../src/exit.rs")) {
        let row = format!("\n| {code} | ");
        assert!(REFERENCE.contains(&row), "docs/reference.md lacks exit code {code}");
        codes += 1;
    }
    assert!(codes > 5, "{codes}");
}

#[test]
fn every_port_is_in_it() {
    for port in [dind_contract::API_PORT, dind_contract::PLAIN_PORT, 22] {
        assert!(REFERENCE.contains(&format!("\n| {port} | ")), "docs/reference.md lacks port {port}");
    }
}

#[test]
fn every_place_is_in_it() {
    let mut places = 0;
    for place in values(include_str!("../src/paths.rs")) {
        let place =
            if place.starts_with('/') { place.to_owned() } else { format!("/var/lib/docker/{place}") };
        assert!(REFERENCE.contains(&format!("`{place}`")), "docs/reference.md lacks {place}");
        places += 1;
    }
    assert!(places > 20, "{places}");
}
