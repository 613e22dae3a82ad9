//! Where in a Compose file the line is that Compose complains of. Compose says a number for what is no YAML at all; for the rest it
//! says a path, `services.web.ports`, whose keys are looked for in the text. What is not found that way is not guessed.

/// The number and the text of the line, counted from one.
pub(super) fn find<'a>(text: &'a str, complaint: &str) -> Option<(usize, &'a str)> {
    let number = said(complaint).or_else(|| of_path(text, &path(complaint)))?;
    let line = text.lines().nth(number.checked_sub(1)?)?;
    Some((number, line.trim()))
}

/// How many lines a bracket or a quote may go over, beginnings of which are no YAML though the whole is.
const LONGEST: usize = 12;

/// The first line, counted from one, behind which no beginning of a text is good; `is_good` says whether that of so many lines is.
/// It is asked as seldom as can be.
pub(super) fn first_bad(lines: usize, is_good: impl Fn(usize) -> bool) -> Option<usize> {
    let mut good = 0;
    loop {
        let mut bad = lines;
        while bad.checked_sub(good)? > 1 {
            let middle = usize::midpoint(good, bad);
            if is_good(middle) {
                good = middle;
            } else {
                bad = middle;
            }
        }
        match (bad + 1..lines.min(bad + LONGEST)).find(|length| is_good(*length)) {
            Some(longer) => good = longer,
            None => return Some(bad).filter(|bad| *bad > 0),
        }
    }
}

/// The number in "yaml: line 3: …".
fn said(complaint: &str) -> Option<usize> {
    let (_, rest) = complaint.split_once("line ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The keys that lead to what the complaint is about, as far as it tells.
fn path(complaint: &str) -> Vec<String> {
    let is_between = |c: char| c.is_whitespace() || c == ',' || c == ':' || c == '\'' || c == '`';
    let mut keys: Vec<String> = Vec::new();
    let mut words = complaint.split(is_between).filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let (first, rest) = word.split_once('.').unwrap_or((word, ""));
        match word {
            "service" if keys.is_empty() => {
                let name = words.next().unwrap_or_default().trim_matches('"');
                keys = vec!["services".to_owned(), name.to_owned()];
            }
            // "services.web Additional property imagee is not allowed"
            "property" | "Property" => keys.extend(words.next().map(|key| key.trim_matches('"').to_owned())),
            _ if ["services", "networks", "volumes", "configs", "secrets"].contains(&first)
                && !rest.is_empty()
                && keys.is_empty() =>
            {
                let all = word.split(['.', '[', ']', '"']).filter(|key| !key.is_empty());
                keys = all.map(str::to_owned).collect();
            }
            _ => {}
        }
    }
    // Newer releases: "services.web additional properties 'imagee' not allowed"
    if let Some((_, names)) = complaint.split_once("dditional properties ") {
        keys.extend(names.split_whitespace().next().map(|key| key.trim_matches(['\'', '"', ',']).to_owned()));
    }
    keys
}

/// The line of the last of these keys, each of which lies deeper than the one before. One that is not there ends the way.
fn of_path(text: &str, keys: &[String]) -> Option<usize> {
    let mut found = None;
    let mut depth: Option<usize> = None;
    let mut lines = text.lines().enumerate();
    'keys: for key in keys {
        let mut level = None;
        for (number, line) in lines.by_ref() {
            let bare = line.trim_start();
            if bare.is_empty() || bare.starts_with('#') {
                continue;
            }
            let indent = line.len() - bare.len();
            if depth.is_some_and(|depth| indent <= depth) {
                break 'keys;
            }
            // The keys beside each other are as deep as the first of them.
            if *level.get_or_insert(indent) == indent && is_key(bare, key) {
                found = Some(number + 1);
                depth = Some(indent);
                continue 'keys;
            }
        }
        break;
    }
    found
}

fn is_key(line: &str, key: &str) -> bool {
    let quoted = [format!("\"{key}\""), format!("'{key}'"), key.to_owned()];
    quoted
        .iter()
        .any(|key| line.strip_prefix(key.as_str()).is_some_and(|rest| rest.trim_start().starts_with(':')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "\
# an application
services:
  db:
    image: db
    ports: 1
  web:
    environment:
      ports: x
    imagee: web
    ports: no
volumes:
  web: x
";

    #[test]
    fn lines_of_complaints() {
        for (complaint, line) in [
            ("yaml: line 3: did not find expected key", Some((3, "db:"))),
            ("yaml: line 99: no", None),
            (
                "validating /run/dind/compose.yml: services.web Additional property imagee is not allowed",
                Some((9, "imagee: web")),
            ),
            ("services.web additional properties 'imagee' not allowed", Some((9, "imagee: web"))),
            ("additional properties 'volumes', 'x' not allowed", Some((11, "volumes:"))),
            ("services.web.ports must be a list", Some((10, "ports: no"))),
            ("services.db.ports must be a array", Some((5, "ports: 1"))),
            ("service \"db\" has neither an image nor a build context specified: invalid", Some((3, "db:"))),
            ("services.web.nothing must be a string", Some((6, "web:"))),
            ("volumes.web must be a mapping or null", Some((12, "web: x"))),
            ("(root) Additional property volumes is not allowed", Some((11, "volumes:"))),
            ("out of memory", None),
        ] {
            assert_eq!(find(FILE, complaint), line, "{complaint}");
        }
    }

    #[test]
    fn the_line_from_which_on_nothing_is_good() {
        for (lines, bad, over) in [(1, 1, 0..0), (9, 4, 0..0), (40, 40, 10..13), (40, 20, 3..8), (5, 1, 0..0)]
        {
            let is_good = |length: usize| length < bad && !over.contains(&length);
            assert_eq!(first_bad(lines, is_good), Some(bad), "{bad} of {lines}");
        }
        assert_eq!(first_bad(0, |_| false), None);
    }

    proptest! {
        #[test]
        fn any_text_and_complaint(text in "[a-c: \n\"]{0,60}", complaint in "\\PC{0,60}") {
            let _ = find(&text, &complaint);
        }
    }
}
