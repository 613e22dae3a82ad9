//! The results as text.

use std::fmt::Write;

use crate::results::{Figure, Results};
use crate::statistics::{Spread, ratio};
use crate::ways::Way;

/// Draws the table.
pub(crate) fn draw(results: &Results) -> String {
    let mut text = heading(results);
    let Results { host, bare, plain, .. } = results;
    let [ours, theirs, plainly] = [Way::Host, Way::Bare, Way::Plain].map(Way::name);
    row(&mut text, ["median (least - most), ms", ours, theirs, plainly]);
    let figures: [(&str, Figure); 4] = [
        ("ready, first start", |times| &times.ready_ms),
        ("  of that, the script", |times| &times.script_ms),
        ("ready, with an image", |times| &times.restart_ms),
        ("stopped, idle", |times| &times.stop_ms),
    ];
    for (name, figure) in figures {
        let [host, bare, plain] = [host, bare, plain].map(figure).map(spread);
        row(&mut text, [name, &host, &bare, &plain]);
    }
    text.push('\n');
    row(&mut text, ["this host's time divided by", "", theirs, plainly]);
    for (name, figure) in figures {
        let [of_bare, of_plain] = [bare, plain].map(|other| ratio(figure(host), figure(other)).map(divided));
        if of_bare.is_some() || of_plain.is_some() {
            row(&mut text, [name, "", &of_bare.unwrap_or("-".into()), &of_plain.unwrap_or("-".into())]);
        }
    }
    text.push('\n');
    idle(&mut text, results);
    text.push('\n');
    work(&mut text, results);
    text.push('\n');
    driving(&mut text, results);
    text.push('\n');
    for aim in results.aims() {
        let met = if aim.met { "met" } else { "MISSED" };
        text.push_str(format!("{:<50}{:>14}   {met}", aim.text, aim.measured).trim_end());
        text.push('\n');
    }
    text
}

fn heading(results: &Results) -> String {
    let machine = &results.machine;
    let (short, rounds) =
        (machine.image_revision.get(..12).unwrap_or(&machine.image_revision), results.host.ready_ms.len());
    format!(
        "{}, {rounds} rounds ({} of the plain script); {} cores, load {} before, Linux {}, cgroup {}\n\
         in the image: Docker {}, built from {short}; around it: Docker {}\n\n",
        results.date,
        results.plain.ready_ms.len(),
        machine.cores,
        machine.load,
        machine.kernel,
        machine.cgroup,
        machine.engine_in_image,
        machine.engine,
    )
}

fn idle(text: &mut String, results: &Results) {
    let idle = &results.idle;
    row(text, ["idle", "dind-init", "tini*", ""]);
    let figures = [
        ("private memory, KiB", idle.init.private_kib, idle.tini.private_kib),
        ("  of that, dirty", idle.init.private_dirty_kib, idle.tini.private_dirty_kib),
        ("context switches", idle.init.wakes, idle.tini.wakes),
    ];
    for (name, init, tini) in figures {
        row(text, [name, &init.to_string(), &tini.to_string(), ""]);
    }
    let _ = writeln!(
        text,
        "* the engine's own docker-init, above a sleep, for scale; switches are in {} s",
        idle.seconds
    );
}

fn work(text: &mut String, results: &Results) {
    row(text, ["the same work, ms", "with syncs", "without (DIND_SYNC=off)", "ratio"]);
    for work in &results.work {
        let of =
            ratio(&work.with_syncs_ms, &work.without_ms).map_or("-".into(), |ratio| format!("{ratio:.3}"));
        row(text, [&work.name, &spread(&work.with_syncs_ms), &spread(&work.without_ms), &of]);
    }
}

fn driving(text: &mut String, results: &Results) {
    let driving = &results.driving;
    row(text, ["the command, ms", "dind", "docker", "ratio"]);
    let of = |dind, docker| ratio(dind, docker).map_or("-".into(), |ratio| format!("{ratio:.3}"));
    let (up, docker) = (&driving.up_ms, &driving.docker_up_ms);
    row(text, ["a host, until it is ready", &spread(up), &spread(docker), &of(up, docker)]);
    row(text, ["  of that, added by dind", &spread(&driving.added_ms), "", ""]);
    let (ls, docker) = (&driving.ls_ms, &driving.docker_ps_ms);
    row(text, ["a list of 50 hosts", &spread(ls), &spread(docker), &of(ls, docker)]);
}

fn row(text: &mut String, cells: [&str; 4]) {
    let [name, host, bare, plain] = cells;
    text.push_str(format!("{name:<28}{host:>20}{bare:>22}{plain:>24}").trim_end());
    text.push('\n');
}

fn spread(samples: &[f64]) -> String {
    let said = |spread: Spread| format!("{:.0} ({:.0} - {:.0})", spread.median, spread.least, spread.most);
    Spread::of(samples).map_or("-".into(), said)
}

/// A ratio, and what it is the other way round.
fn divided(ratio: f64) -> String {
    format!("{ratio:.3} (1/{:.1})", 1.0 / ratio)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::sample;

    #[test]
    fn the_table_says_medians_spreads_ratios_and_aims() {
        let table = draw(&sample());
        let table: Vec<_> =
            table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for line in [
            "ready, first start 310 (300 - 320) 1300 (1250 - 1400) 17400 (17400 - 17400)",
            "of that, the script - 40 (40 - 40) 40 (40 - 40)",
            "ready, first start 0.238 (1/4.2) 0.018 (1/56.1)",
            "stopped, idle 30 (25 - 31) 1012 (1010 - 1015) 1000 (1000 - 1000)",
            "private memory, KiB 1200 120",
            "a host, until it is ready 600 (600 - 600) 700 (700 - 700) 0.857",
            "of that, added by dind 40 (40 - 40)",
            "docker load 1020 (1020 - 1020) 1000 (1000 - 1000) 1.020",
            "ready in at most 0.4 of bare dockerd's time 0.238 met",
        ] {
            assert!(
                table.iter().any(|actual| actual == line),
                "{line}
{table:#?}"
            );
        }
    }

    #[test]
    fn a_missed_aim_stands_out() {
        let mut results = sample();
        results.idle.init.wakes = 30;
        assert!(draw(&results).contains("30 of 10 in 10 s   MISSED\n"));
    }
}
