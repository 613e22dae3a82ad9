//! The results as a picture: horizontal bars from nought, in SVG.
//!
//! It has no background of its own and only colours that can be read on white and on near-black alike (contrast above 4
//! on both): a page that embeds it may be either, and `prefers-color-scheme` tells the system's taste, not the page's.

use std::fmt::Write;

use crate::results::{Figure, Results};
use crate::statistics::Spread;
use crate::ways::Way;

const WIDTH: f64 = 760.0;
/// Where the bars begin, and how long the longest is: to its right stands its figure.
const LEFT: f64 = 150.0;
const LONGEST: f64 = 440.0;
const BAR: f64 = 18.0;
/// From the top of a bar to the line that goes from the least sample to the most: below, where it can be seen.
const SPREAD: f64 = BAR + 3.0;
const PITCH: f64 = 29.0;
/// The height of a panel's title, and of the space after a panel.
const TITLE: f64 = 26.0;
const GAP: f64 = 16.0;
/// From one line of notes to the next.
const NOTE: f64 = 18.0;

const TEXT: &str = "#78797c";
const OURS: &str = "#1a7fd4";
const OTHERS: &str = "#8f8378";

/// One group of bars, on a scale of its own.
struct Panel {
    title: &'static str,
    bars: Vec<(Way, Spread)>,
}

/// Draws the plot.
pub(crate) fn draw(results: &Results) -> String {
    let mut body = String::new();
    let mut y = 8.0;
    for panel in panels(results) {
        y = draw_panel(&mut body, &panel, y) + GAP;
    }
    let notes = [
        format!(
            "Bars: medians of {} rounds in turns, {} of the plain TCP script. Lines below them: least to most.",
            results.host.ready_ms.len(),
            results.plain.ready_ms.len(),
        ),
        format!(
            "Docker {} on {} cores, {}.",
            results.machine.engine_in_image, results.machine.cores, results.date
        ),
    ];
    for note in notes {
        body.push_str(&label(8.0, y + 8.0, "font-size=\"12\"", &note));
        y += NOTE;
    }
    let height = y + 2.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"14\" fill=\"{TEXT}\">\n\
         <title>Time until a Docker host is ready, and until it has stopped</title>\n{body}</svg>\n"
    )
}

fn panels(results: &Results) -> Vec<Panel> {
    let ways = [(Way::Host, &results.host), (Way::Bare, &results.bare), (Way::Plain, &results.plain)];
    let figures: [(&str, Figure); 3] = [
        ("Ready, first start", |times| &times.ready_ms),
        ("Ready, started again with an image in the data root", |times| &times.restart_ms),
        ("Stopped, nothing running", |times| &times.stop_ms),
    ];
    let panel = |(title, figure): (&'static str, Figure)| {
        let bars = ways.iter().filter_map(|(way, times)| Some((*way, Spread::of(figure(times))?))).collect();
        Panel { title, bars }
    };
    figures.into_iter().map(panel).filter(|panel| !panel.bars.is_empty()).collect()
}

/// Draws a panel at `y`; gives where it ends.
fn draw_panel(body: &mut String, panel: &Panel, mut y: f64) -> f64 {
    let most = panel.bars.iter().map(|(_, spread)| spread.most).fold(f64::MIN_POSITIVE, f64::max);
    let length = |milliseconds: f64| LONGEST * milliseconds / most;
    body.push_str(&label(8.0, y + 14.0, "font-weight=\"bold\"", panel.title));
    y += TITLE;
    for (way, spread) in &panel.bars {
        let (colour, weight) = if *way == Way::Host { (OURS, "font-weight=\"bold\"") } else { (OTHERS, "") };
        let (below, baseline) = (y + SPREAD, y + 14.0);
        let (least, most) = (LEFT + length(spread.least), LEFT + length(spread.most));
        body.push_str(&label(LEFT - 8.0, baseline, "text-anchor=\"end\"", way.name()));
        let _ = writeln!(
            body,
            "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n\
             <path d=\"M{least:.1} {below:.1}H{most:.1}\" stroke=\"{TEXT}\" stroke-width=\"2\"/>",
            length(spread.median),
        );
        body.push_str(&label(most + 8.0, baseline, weight, &figure(spread.median)));
        y += PITCH;
    }
    y
}

fn label(x: f64, y: f64, attributes: &str, text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let space = if attributes.is_empty() { "" } else { " " };
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\"{space}{attributes}>{text}</text>\n")
}

fn figure(milliseconds: f64) -> String {
    if milliseconds < 1000.0 {
        format!("{milliseconds:.0} ms")
    } else {
        format!("{:.2} s", milliseconds / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Times;
    use crate::results::tests::sample;

    #[test]
    fn bars_are_as_long_as_their_medians() {
        let svg = draw(&sample());
        let widths = |text: &str| -> Vec<f64> {
            let rects = text.lines().filter_map(|line| line.strip_prefix("<rect"));
            rects
                .map(|rect| {
                    rect.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
                })
                .collect()
        };
        let widths = widths(&svg);
        // Three ready, two restarted, three stopped.
        assert_eq!(widths.len(), 8);
        assert!((widths[2] - LONGEST).abs() < 0.1, "{widths:?}");
        assert!((widths[0] / widths[2] - 310.0 / 17_400.0).abs() < 0.001, "{widths:?}");
    }

    #[test]
    fn every_figure_stands_next_to_its_bar() {
        let svg = draw(&sample());
        for text in
            [">this host</text>", ">310 ms</text>", ">1.30 s</text>", ">17.40 s</text>", ">30 ms</text>"]
        {
            assert!(svg.contains(text), "{text}\n{svg}");
        }
    }

    #[test]
    fn what_has_no_samples_is_left_out() {
        let mut results = sample();
        results.plain = Times::default();
        assert!(!draw(&results).contains("plain TCP script</text>"));
    }

    #[test]
    fn text_cannot_break_the_picture() {
        assert_eq!(label(1.0, 2.0, "", "a<b&c"), "<text x=\"1.0\" y=\"2.0\">a&lt;b&amp;c</text>\n");
    }
}
