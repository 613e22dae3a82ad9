//! The options of a key in authorized_keys, as sshd(8) lists them.

use super::key::{Refusal, no_key, refuse};

const HELP: &str = "sshd(8) lists the options under AUTHORIZED_KEYS FILE FORMAT; most keys need none";

/// An option of authorized_keys: its name, whether it has a value, and whether it may be there twice.
const OPTIONS: [(&str, bool, bool); 22] = [
    ("agent-forwarding", false, true),
    ("cert-authority", false, true),
    ("command", true, false),
    ("environment", true, true),
    ("expiry-time", true, false),
    ("from", true, false),
    ("no-agent-forwarding", false, true),
    ("no-port-forwarding", false, true),
    ("no-pty", false, true),
    ("no-touch-required", false, true),
    ("no-user-rc", false, true),
    ("no-x11-forwarding", false, true),
    ("permitlisten", true, true),
    ("permitopen", true, true),
    ("port-forwarding", false, true),
    ("principals", true, false),
    ("pty", false, true),
    ("restrict", false, true),
    ("tunnel", true, false),
    ("user-rc", false, true),
    ("verify-required", false, true),
    ("x11-forwarding", false, true),
];

/// Refuses options that sshd(8) does not know: it would ignore the whole key, and say so only in its log.
pub(super) fn check(options: &str) -> Result<(), Refusal> {
    let mut seen: Vec<&str> = Vec::new();
    let mut rest = options;
    while !rest.is_empty() {
        let end = rest.find([',', '=']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let lower = name.to_ascii_lowercase();
        let Some((known, has_value, repeats)) = OPTIONS.iter().find(|(known, ..)| *known == lower) else {
            // What is not even a word like an option's is none, and is not repeated.
            let is_word = name.len() <= 32 && name.chars().all(|it| it.is_ascii_alphanumeric() || it == '-');
            if is_word && !name.is_empty() {
                return refuse(format!("sshd knows no key option {name}"), HELP);
            }
            return no_key();
        };
        if !repeats && seen.contains(known) {
            return refuse(format!("the key option {known} is there twice"), HELP);
        }
        seen.push(known);
        rest = after;
        if let Some(after) = rest.strip_prefix('=') {
            let value = if *has_value { quoted(after) } else { None };
            let Some((value, after)) = value else {
                let how = if *has_value { "needs a value in double quotes" } else { "has no value" };
                return refuse(format!("the key option {known} {how}"), HELP);
            };
            if !is_valid(known, value) {
                return refuse(
                    format!("the value of the key option {known} is not one that sshd takes"),
                    HELP,
                );
            }
            rest = after;
        } else if *has_value {
            return refuse(format!("the key option {known} needs a value in double quotes"), HELP);
        }
        rest = match rest.strip_prefix(',') {
            Some("") => return refuse("the key's options end with a comma", HELP),
            Some(rest) => rest,
            None if rest.is_empty() => rest,
            None => {
                return refuse(
                    format!("what follows the key option {known} is neither a comma nor a blank"),
                    HELP,
                );
            }
        };
    }
    Ok(())
}

/// A value in double quotes, in which a backslash keeps a quote from ending it; and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut chars = inside.char_indices();
    while let Some((at, it)) = chars.next() {
        match it {
            // sshd knows this escape and no other: two backslashes are two.
            '\\' if inside.get(at + 1..).is_some_and(|rest| rest.starts_with('"')) => drop(chars.next()),
            '"' => return Some((inside.get(..at)?, inside.get(at + 1..)?)),
            _ => {}
        }
    }
    None
}

/// The highest number of a tunnel device that sshd takes (`SSH_TUNID_MAX`).
const LAST_TUNNEL: u32 = 0x7fff_fffd;

/// Whether this is a port or `*`, behind a host that may be left out if it need not be there.
fn has_port(value: &str, needs_host: bool) -> bool {
    let port = |text: &str| text == "*" || text.parse::<u16>().is_ok_and(|port| port > 0);
    match value.rsplit_once(':') {
        Some((host, number)) => !host.is_empty() && port(number),
        None => !needs_host && port(value),
    }
}

/// Whether sshd can read a value; what most of them mean is the user's affair.
fn is_valid(option: &str, value: &str) -> bool {
    match option {
        "expiry-time" => {
            let digits = value.strip_suffix(['Z', 'z']).unwrap_or(value);
            matches!(digits.len(), 8 | 12 | 14) && digits.bytes().all(|it| it.is_ascii_digit())
        }
        "tunnel" => value == "any" || value.parse::<u32>().is_ok_and(|device| device <= LAST_TUNNEL),
        "environment" => value.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_')
        }),
        "permitopen" => has_port(value, true),
        "permitlisten" => has_port(value, false),
        // Where all are exceptions, nobody is meant.
        "from" => {
            value.split(',').any(|pattern| !pattern.trim().is_empty() && !pattern.trim().starts_with('!'))
        }
        "principals" => !value.trim().is_empty(),
        _ => true,
    }
}
