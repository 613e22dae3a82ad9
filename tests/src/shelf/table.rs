//! The table: an image a row, something that users do a column, the machine and a host in each cell.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::engine;
use crate::host::Host;

use super::archive::{archive, folder, local_name};
use super::cells::{self, Cell};
use super::container::Container;
use super::facts::Facts;
use super::place::Place;

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "their names say it")]
pub enum Column {
    ExecAsRoot,
    ExecAsUser,
    Health,
    Logs,
    Stop,
    Restart,
    VolumeKept,
    OwnerKept,
    Top,
    Stats,
    Copy,
    Commit,
    Port,
}

const COLUMNS: [(Column, &str); 13] = [
    (Column::ExecAsRoot, "exec as root"),
    (Column::ExecAsUser, "exec as the user"),
    (Column::Health, "health"),
    (Column::Logs, "logs"),
    (Column::Stop, "stop by its own signal"),
    (Column::Restart, "restart"),
    (Column::VolumeKept, "volume kept"),
    (Column::OwnerKept, "owner kept"),
    (Column::Top, "top"),
    (Column::Stats, "stats"),
    (Column::Copy, "cp"),
    (Column::Commit, "commit"),
    (Column::Port, "port"),
];

impl Column {
    /// What `image.yaml` says of it; nothing where it says that nothing is kept.
    fn expected(self, facts: &Facts) -> Option<String> {
        let kept = facts.kept();
        Some(match self {
            Column::ExecAsRoot => "uid 0".into(),
            Column::ExecAsUser => format!("{}, process 1 is {}", facts.user, facts.uid),
            Column::Health => "healthy".into(),
            Column::Logs => "ready".into(),
            Column::Stop => format!("{} by {}", facts.stop.exit_code, facts.stop.signal),
            Column::Restart => kept.map_or("healthy", |kept| kept.answer).into(),
            Column::VolumeKept => kept?.answer.into(),
            Column::OwnerKept => kept?.owner.into(),
            Column::Top => facts.top.join(", "),
            Column::Stats => "counted".into(),
            Column::Copy => "in and out".into(),
            Column::Commit => "kept".into(),
            Column::Port => "answers".into(),
        })
    }
}

type Cells = BTreeMap<Column, Cell>;

/// What was found of one image.
#[derive(Debug)]
pub struct Row {
    name: String,
    facts: Facts,
    machine: Cells,
    host: Cells,
}

/// Checks that an image is there, with what is expected of it; the name of what is run.
///
/// # Panics
/// When it is not there, or not built from what is in its folder now: naming the command that builds it.
#[track_caller]
pub fn require(name: &str) -> (String, Facts) {
    let facts = Facts::of(name);
    // Of an image with an application, the application is run.
    let image = if folder(name).join("app").is_dir() { format!("{name}-app") } else { name.to_owned() };
    archive(name);
    engine::require(&local_name(&image), &format!("tests/images/build {name}"));
    (image, facts)
}

/// Runs an image on the engine of the machine and in a host.
///
/// # Panics
/// When the image has not been built, or when no host can be started.
#[track_caller]
pub fn examine(name: &str) -> Row {
    let (image, facts) = require(name);
    let host = Host::options().start();
    host.load_image(name);
    let (machine, inside) = std::thread::scope(|scope| {
        let machine = scope.spawn(|| cells_at(Place::Machine, &image, &facts));
        let inside = cells_at(Place::Host(&host), &image, &facts);
        (machine.join().expect("what fails on the machine is in its cells"), inside)
    });
    Row { name: name.into(), facts, machine, host: inside }
}

/// Does everything, in the order of a container's life.
fn cells_at(place: Place<'_>, image: &str, facts: &Facts) -> Cells {
    let mut cells = Cells::new();
    let container = match Container::run(place, image, facts) {
        Ok(container) => container,
        Err(error) => return COLUMNS.iter().map(|(column, _)| (*column, Err(error.clone()))).collect(),
    };
    let container = &container;
    let kept = facts.kept();
    cells.insert(Column::Health, cells::health(container));
    cells.insert(Column::ExecAsRoot, cells::exec_as_root(container));
    cells.insert(Column::ExecAsUser, cells::exec_as_user(container, facts));
    let written = kept.map_or(Ok(()), |kept| cells::write(container, &kept));
    cells.insert(Column::Logs, cells::logs(container, facts));
    cells.insert(Column::Top, cells::top(container, facts));
    cells.insert(Column::Stats, cells::stats(container, facts));
    cells.insert(Column::Copy, cells::copy(container));
    cells.insert(Column::Commit, cells::commit(container, facts));
    cells.insert(Column::Port, cells::port(container, facts));
    cells.insert(Column::Restart, written.and_then(|()| cells::restart(container, facts)));
    cells.insert(Column::Stop, cells::stop(container, facts));
    if let Some(kept) = kept {
        cells.insert(Column::VolumeKept, cells::volume(container, &kept));
        cells.insert(Column::OwnerKept, cells::owner(container, &kept));
    }
    cells
}

impl Row {
    /// A cell that is not as `image.yaml` says, on the machine or in the host, with what was found in its place.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (column, title) in COLUMNS {
            for (place, cells) in [("on the machine", &self.machine), ("in the host", &self.host)] {
                let found = cells.get(&column).cloned();
                let expected = column.expected(&self.facts).map(Ok);
                if found != expected {
                    let [found, expected] = [found, expected].map(text);
                    problems.push(format!("{}: {title}: {expected} expected, {place}: {found}", self.name));
                }
            }
        }
        problems
    }

    /// The row in Markdown: in a cell what was found on the machine and in the host.
    fn draw(&self) -> String {
        let mut line = format!("| {} |", self.name);
        for (column, _) in COLUMNS {
            let [machine, host] =
                [&self.machine, &self.host].map(|cells| match cells.get(&column).cloned() {
                    Some(Err(_)) => "FAILS".into(),
                    found => text(found),
                });
            let both = if machine == host { machine } else { format!("{machine} / {host}") };
            let _ = write!(line, " {both} |");
        }
        line
    }
}

fn text(cell: Option<Cell>) -> String {
    match cell {
        None => "–".into(),
        Some(Ok(text) | Err(text)) => text,
    }
}

/// Draws the table in Markdown: in a cell what was found on the machine and in the host, as `A / B` where they differ.
pub fn draw(rows: &[Row]) -> String {
    let mut text = String::from("| image |");
    for (_, title) in COLUMNS {
        let _ = write!(text, " {title} |");
    }
    let _ = writeln!(text, "\n| --- |{}", " --- |".repeat(COLUMNS.len()));
    for row in rows {
        let _ = writeln!(text, "{}", row.draw());
    }
    text
}
