//! Rows as a table, as the docker command prints it, or each by a pattern.

use crate::failure::{Failure, Result};

/// Space between columns.
const GAP: usize = 3;

/// A table: names of columns, and rows of as many cells.
pub(crate) fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let width = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
        cells.chain(columns.get(index).map(|name| name.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            line.push_str(&format!("{cell:<width$}", width = width + GAP));
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut columns.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// How rows are to be printed, as the docker command has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// `json`: an object a line.
    Json,
    /// `table`: as without a format.
    Usual,
    /// `table PATTERN`: with a line of names, in columns where the pattern has tabs.
    Table(String),
    /// `PATTERN`: each row by it.
    Lines(String),
}

impl Format {
    /// Understands one, with a pattern of these fields.
    ///
    /// # Errors
    /// It is empty, names no field, or one that is none.
    pub(crate) fn parse(text: &str, fields: &[&str]) -> Result<Self> {
        let format = match text.trim() {
            "json" | "{{json .}}" => return Ok(Self::Json),
            "table" => return Ok(Self::Usual),
            trimmed => match trimmed.strip_prefix("table ") {
                Some(rest) => Self::Table(rest.trim_start().to_owned()),
                None => Self::Lines(text.to_owned()),
            },
        };
        if let Self::Table(inner) | Self::Lines(inner) = &format {
            if !inner.contains("{{") {
                let cause = if text.trim().is_empty() { "it is empty" } else { "it names no field" };
                return Err(Failure::usage(
                    format!("--format {text:?}: {cause}"),
                    format!("give json, table, or a pattern of what there is: {}", known(fields)),
                ));
            }
            pattern(inner, fields, &[])?;
        }
        Ok(format)
    }
}

/// Rows by a pattern, under a line of the fields' names in capitals.
///
/// # Errors
/// As [`pattern`].
pub(crate) fn titled(text: &str, fields: &[&str], rows: &[Vec<String>]) -> Result<String> {
    let titles: Vec<String> = fields.iter().map(|field| field.to_uppercase()).collect();
    let mut lines = pattern(text, fields, &titles)?;
    for row in rows {
        lines.push_str(&pattern(text, fields, row)?);
    }
    let mut cells = lines.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
    let first = cells.next().unwrap_or_default();
    let columns: Vec<&str> = first.iter().map(String::as_str).collect();
    Ok(table(&columns, &cells.collect::<Vec<_>>()))
}

/// What a pattern can name.
fn known(fields: &[&str]) -> String {
    fields.iter().map(|field| format!("{{{{.{field}}}}}")).collect::<Vec<_>>().join(" ")
}

/// Fills a pattern: `{{.Name}}` becomes the cell of that name, `\t` and `\n` what they mean. The names are those of the fields.
///
/// # Errors
/// A name that is none, or braces that do not fit.
pub(crate) fn pattern(pattern: &str, fields: &[&str], row: &[String]) -> Result<String> {
    let refuse = |cause: String| {
        Failure::usage(format!("--format {pattern}: {cause}"), format!("what there is: {}", known(fields)))
    };
    let mut text = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(&plain(before));
        let (inner, after) = after.split_once("}}").ok_or_else(|| refuse("{{ has no }}".to_owned()))?;
        let name = inner
            .trim()
            .strip_prefix('.')
            .ok_or_else(|| refuse(format!("{{{{{inner}}}}} is not understood")))?;
        let index = fields
            .iter()
            .position(|field| *field == name)
            .ok_or_else(|| refuse(format!("there is no {name}")))?;
        text.push_str(row.get(index).map_or("", String::as_str));
        rest = after;
    }
    text.push_str(&plain(rest));
    Ok(text + "\n")
}

fn plain(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// An amount of time as it is read: `5 seconds`, `3 hours`, `2 weeks`.
pub(crate) fn age(seconds: i64) -> String {
    let (number, unit) = match seconds.max(0) {
        s @ 0..120 => (s, "second"),
        s @ 120..7200 => (s / 60, "minute"),
        s @ 7200..172_800 => (s / 3600, "hour"),
        s @ 172_800..1_209_600 => (s / 86_400, "day"),
        s => (s / 604_800, "week"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![
            vec!["a".to_owned(), "längst".to_owned(), "x".to_owned()],
            vec!["bbbbb".to_owned(), String::new(), "y".to_owned()],
        ];
        assert_eq!(
            table(&["ONE", "TWO", "THREE"], &rows),
            "ONE     TWO      THREE\na       längst   x\nbbbbb            y\n"
        );
    }

    #[test]
    fn patterns_are_filled_and_bad_ones_refused() {
        let row = ["one".to_owned(), "up".to_owned()];
        let fill = |text: &str| pattern(text, &["Name", "State"], &row);
        assert_eq!(fill("{{.Name}}\\t{{ .State }}!").unwrap(), "one\tup!\n");
        for (bad, says) in
            [("{{.Nme}}", "there is no Nme"), ("{{Name}}", "is not understood"), ("{{.Name", "has no }}")]
        {
            assert!(fill(bad).unwrap_err().to_string().contains(says), "{bad}");
        }
    }

    #[test]
    fn formats_are_those_of_docker() {
        let parse = |text: &str| Format::parse(text, &["Name", "State"]);
        assert_eq!(parse("json"), Ok(Format::Json));
        assert_eq!(parse("table"), Ok(Format::Usual));
        assert_eq!(parse("table {{.Name}}"), Ok(Format::Table("{{.Name}}".into())));
        assert_eq!(parse(" {{.Name}}"), Ok(Format::Lines(" {{.Name}}".into())));
        for (bad, says) in [
            ("", "it is empty"),
            (" ", "it is empty"),
            ("raw", "names no field"),
            ("table Name", "names no field"),
            ("table {{.Nme}}", "there is no Nme"),
        ] {
            let said = parse(bad).unwrap_err().to_string();
            assert!(said.contains(says) && said.contains("{{.Name}} {{.State}}"), "{bad}: {said}");
        }
    }

    #[test]
    fn a_table_by_a_pattern_has_names() {
        let rows = [vec!["one".to_owned(), "running".to_owned()], vec!["a_longer".to_owned(), String::new()]];
        assert_eq!(
            titled("{{.Name}}\\t{{.State}}", &["Name", "State"], &rows).unwrap(),
            "NAME       STATE\none        running\na_longer\n"
        );
        assert_eq!(titled("{{.Name}}!", &["Name", "State"], &[]).unwrap(), "NAME!\n");
    }

    #[test]
    fn ages() {
        for (seconds, text) in [
            (-5, "0 seconds"),
            (1, "1 second"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7200, "2 hours"),
            (172_800, "2 days"),
            (1_209_600, "2 weeks"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }
}
