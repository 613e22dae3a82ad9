//! The tables that a campaign prints at its end, one column group a way.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::engine::Way;
use super::ledger::Kind;
use super::tally::{Row, Tally, median};

impl Way {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Way::Host => "host",
            Way::HostUnderInit => "host under init",
            Way::HostUnsynced => "host, DIND_SYNC=off",
            Way::Sealed => "sealed appliance",
            Way::Bare => "bare dockerd",
        }
    }
}

/// Draws the tallies of one campaign side by side, as a Markdown table.
pub fn draw(tallies: &[Tally]) -> String {
    let mut text = String::new();
    let Some(first) = tallies.first() else { return text };
    let heads: Vec<&str> = tallies.iter().map(|tally| tally.way.name()).collect();
    let _ = writeln!(text, "| {} | {} |", first.campaign, heads.join(" | "));
    let _ = writeln!(text, "| --- |{}", " --- |".repeat(heads.len()));
    let mut line = |name: &str, cell: &dyn Fn(&Tally) -> String| {
        let cells: Vec<String> = tallies.iter().map(cell).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
    };
    line("rounds", &|tally| tally.rounds.to_string());
    let counts = |tally: &Tally| {
        let counts = tally.happened.iter().map(|(what, count)| format!("{what} {count}"));
        counts.collect::<Vec<_>>().join(", ")
    };
    line("what happened", &counts);
    let kinds: BTreeSet<_> = tallies.iter().flat_map(|tally| tally.rows.keys()).collect();
    for kind in kinds {
        line(kind.name(), &|tally| tally.rows.get(kind).map(row).unwrap_or_default());
    }
    line("**together**", &|tally| row(&tally.total()));
    line("kept before, and compared again", &|tally| number(tally.seen_again));
    line("rows there, and never answered", &|tally| number(tally.unanswered));
    line("images verified, each file", &|tally| number(tally.verified_images));
    // Nothing is said of what a campaign does not look at.
    let only = |looked: bool, count: usize| if looked { count.to_string() } else { String::new() };
    line("listed and damaged", &|tally| only(tally.verified_images > 0, tally.damaged_images));
    line("whole only at the second look", &|tally| number(tally.unsteady_runs));
    line("damaged when loaded again", &|tally| match tally.loaded_again {
        0 => String::new(),
        all => format!("{} of {all}", tally.damaged_again),
    });
    line("dead containers", &|tally| only(!tally.rows.contains_key(&Kind::DatabaseRow), tally.dead));
    line("restart policies not kept", &|tally| number(tally.not_back));
    line("failed starts", &|tally| tally.failed_starts.to_string());
    line("unclean stops", &|tally| number(tally.unclean_stops));
    line("e2fsck not clean", &|tally| number(tally.fsck));
    for what in tallies.iter().flat_map(|tally| tally.wrong.keys()).collect::<BTreeSet<_>>() {
        line(what, &|tally| number(tally.wrong.get(what).copied().unwrap_or_default()));
    }
    line("refused, undisturbed", &|tally| number(tally.refused));
    line("rounds broken off", &|tally| number(tally.broken));
    line("start after it, median (most) ms", &|tally| spread(&tally.unclean_ms));
    line("database ready after that, median (most) ms", &|tally| spread(&tally.ready_ms));
    line("start after a clean stop, median (most) ms", &|tally| spread(&tally.clean_ms));
    line("ratio of the two, pair by pair, median (most)", &|tally| {
        let most = tally.ratios.iter().copied().fold(0.0, f64::max);
        if tally.ratios.is_empty() {
            String::new()
        } else {
            format!("{:.2} ({most:.2})", median(&tally.ratios))
        }
    });
    text
}

fn row(row: &Row) -> String {
    let Row { acknowledged, due, kept, younger, lost, damaged } = row;
    format!(
        "{acknowledged}, due {due}: {kept} kept, {younger} gone and younger, {lost} **lost**, {damaged} damaged"
    )
}

fn number(count: usize) -> String {
    if count == 0 { String::new() } else { count.to_string() }
}

fn spread(samples: &[u64]) -> String {
    let most = samples.iter().max();
    most.map(|most| format!("{} ({most})", median(samples))).unwrap_or_default()
}
