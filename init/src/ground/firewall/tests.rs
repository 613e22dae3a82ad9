//! What is decided, as tables.

use dind_contract::Verdict;

use super::*;

fn daemon(line: &str) -> DaemonOptions {
    DaemonOptions::parse(&shell_words::split(line).unwrap(), "DOCKER_OPTS").unwrap()
}

fn tried(kind: Kind) -> Tried {
    Tried {
        kind,
        folder: "/usr/sbin".into(),
        basic: None,
        ipv6: None,
        raw: None,
        mangle: None,
        us: 10_000,
        rules: 0,
    }
}

fn both() -> Probed {
    let tried = vec![tried(Kind::Nft), tried(Kind::Legacy)];
    Probed { tried, standard: Some(Kind::Nft), untried: None, has_ipv6: true }
}

fn broken() -> Option<String> {
    Some("iptables: no such table".to_owned())
}

fn auto(probed: &Probed) -> Decision {
    decide(Wish::Auto, &daemon(""), Some(probed), "/bin".as_ref())
}

fn uses_links(decision: &Decision) -> bool {
    decision.environment.get("PATH").is_some_and(|path| path == "/run/dind/firewall:/bin")
}

#[test]
fn the_standard_kind_is_used_as_it_is() {
    let decision = auto(&both());
    assert_eq!(decision.finding.verdict, Verdict::Good);
    assert_eq!(decision.finding.chosen, "iptables-nft");
    assert!(decision.arguments.is_empty() && decision.links.is_empty() && decision.environment.is_empty());
}

#[test]
fn of_two_that_work() {
    type Change = fn(&mut Probed);
    let table: [(&str, Change, Kind); 8] = [
        ("nothing differs", |_| {}, Kind::Nft),
        ("rules are followed", |it| it.tried[1].rules = 3, Kind::Legacy),
        ("the more rules are followed", |it| (it.tried[0].rules, it.tried[1].rules) = (7, 3), Kind::Nft),
        ("the faster", |it| it.tried[1].us = 4_900, Kind::Legacy),
        ("not for a little", |it| it.tried[1].us = 5_100, Kind::Nft),
        ("what can do more", |it| it.tried[0].ipv6 = broken(), Kind::Legacy),
        ("rules before speed", |it| (it.tried[0].rules, it.tried[1].us) = (1, 1), Kind::Nft),
        ("the image's own", |it| it.standard = Some(Kind::Legacy), Kind::Legacy),
    ];
    for (what, change, kind) in table {
        let mut probed = both();
        change(&mut probed);
        let decision = auto(&probed);
        assert!(decision.finding.chosen.starts_with(&format!("iptables-{}", kind.name())), "{what}");
        assert_eq!(uses_links(&decision), probed.standard != Some(kind), "{what}");
        assert_eq!(decision.finding.verdict, Verdict::Good, "{what}");
    }
}

#[test]
fn links_lead_to_programs_of_the_kind() {
    let mut probed = both();
    probed.tried[0].basic = broken();
    let decision = auto(&probed);
    let link = |name: &str, target: &str| (folder().join(name), Path::new("/usr/sbin").join(target));
    assert_eq!(decision.links.len(), 6);
    for expected in [
        link("iptables", "iptables-legacy"),
        link("ip6tables", "ip6tables-legacy"),
        link("iptables-save", "iptables-legacy-save"),
    ] {
        assert!(decision.links.contains(&expected), "{expected:?}");
    }
    assert!(decision.finding.chosen.contains("iptables-legacy -S"), "{}", decision.finding.chosen);
}

#[test]
fn what_is_missing_is_named_and_gone_without() {
    let mut probed = both();
    for tried in &mut probed.tried {
        tried.ipv6 = broken();
        tried.raw = broken();
        tried.mangle = broken();
    }
    let decision = auto(&probed);
    assert_eq!(decision.finding.verdict, Verdict::Fallback);
    assert_eq!(decision.arguments, ["--ip6tables=false"]);
    assert_eq!(decision.environment["DOCKER_INSECURE_NO_IPTABLES_RAW"], "1");
    for named in ["IPv6", "table raw", "table mangle", "no such table"] {
        assert!(decision.finding.chosen.contains(named), "{}", decision.finding.chosen);
    }
    // Where the kernel has no IPv6, nothing is lost.
    let mut probed = both();
    probed.has_ipv6 = false;
    for tried in &mut probed.tried {
        tried.ipv6 = broken();
    }
    let decision = auto(&probed);
    assert_eq!(decision.finding.verdict, Verdict::Good);
    assert_eq!(decision.arguments, ["--ip6tables=false"]);
    let told = decide(Wish::Auto, &daemon("--ip6tables"), Some(&probed), "/bin".as_ref());
    assert!(told.arguments.is_empty());
}

#[test]
fn without_any_there_are_no_rules() {
    let mut neither = both();
    for tried in &mut neither.tried {
        tried.basic = broken();
    }
    let none = Probed { tried: Vec::new(), standard: None, ..both() };
    for probed in [&neither, &none] {
        let decision = auto(probed);
        assert_eq!(decision.finding.verdict, Verdict::Fallback);
        assert_eq!(decision.arguments, ["--iptables=false", "--ip6tables=false"]);
        let forced = decide(Wish::Only(Kind::Nft), &daemon(""), Some(probed), "/bin".as_ref());
        assert_eq!(forced.finding.verdict, Verdict::Missing);
    }
}

#[test]
fn where_nothing_can_be_tried_the_image_decides() {
    let untried = Probed { untried: Some("ENOSPC".to_owned()), ..both() };
    let decision = auto(&untried);
    assert_eq!(decision.finding.verdict, Verdict::Fallback);
    assert_eq!(decision.finding.chosen, "iptables-nft");
    let forced = decide(Wish::Only(Kind::Legacy), &daemon(""), Some(&untried), "/bin".as_ref());
    assert!(uses_links(&forced));
}

#[test]
fn who_has_decided_is_obeyed() {
    let forced = decide(Wish::Only(Kind::Legacy), &daemon(""), Some(&both()), "/bin".as_ref());
    assert!(uses_links(&forced) && forced.finding.why.contains("DIND_FIREWALL"));
    let off = decide(Wish::Off, &daemon(""), None, "/bin".as_ref());
    assert_eq!(off.arguments, ["--iptables=false", "--ip6tables=false"]);
    let told = decide(Wish::Auto, &daemon("--iptables=false"), None, "/bin".as_ref());
    assert_eq!(told.arguments, ["--ip6tables=false"]);
    let told = decide(Wish::Auto, &daemon("--iptables=false --ip6tables=false"), None, "/bin".as_ref());
    assert!(told.arguments.is_empty());
    assert!(!Wish::Auto.needs_probe(&daemon("--iptables=false")) && !Wish::Off.needs_probe(&daemon("")));
    assert!(Wish::Auto.needs_probe(&daemon("--iptables")));
}

#[test]
fn words_are_read_or_refused() {
    let parse = |word: &'static str, options| Wish::parse(|_| Some(word), &daemon(options));
    assert_eq!(parse("legacy", ""), Ok(Wish::Only(Kind::Legacy)));
    assert_eq!(parse("nft", "--iptables"), Ok(Wish::Only(Kind::Nft)));
    assert_eq!(parse("auto", "--iptables=false"), Ok(Wish::Auto));
    assert_eq!(parse("off", "--iptables=false"), Ok(Wish::Off));
    assert_eq!(Wish::parse(|_| None, &daemon("")), Ok(Wish::Auto));
    for (word, options) in [("both", ""), ("", ""), ("off", "--iptables=true"), ("nft", "--iptables=false")] {
        let failure = parse(word, options).unwrap_err();
        assert_eq!(failure.code, 64, "{word}");
        assert!(failure.cause.contains("DIND_FIREWALL="), "{}", failure.cause);
    }
}

#[test]
fn the_outer_engines_name_server_does_not_count() {
    let outer = "*nat\n:OUTPUT ACCEPT [0:0]\n:DOCKER_OUTPUT - [0:0]\n\
        -A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT\n\
        -A POSTROUTING -d 127.0.0.11/32 -j DOCKER_POSTROUTING\n\
        -A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:41724\n\
        -A DOCKER_POSTROUTING -s 127.0.0.11/32 -p udp -m udp --sport 41724 -j SNAT --to-source :53\nCOMMIT\n";
    assert_eq!(probe::count(outer), 0);
    assert_eq!(probe::count(""), 0);
    assert_eq!(probe::count(":FORWARD DROP [0:0]\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j ACCEPT\n"), 2);
}
