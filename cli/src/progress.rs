//! What a user sees of long work: a line that moves on a terminal, plain lines elsewhere, nothing when asked to be quiet.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Show {
    /// A moving line where standard error is a terminal, plain lines elsewhere
    #[default]
    Auto,
    /// A line for each step
    Plain,
    /// A moving line
    Tty,
    /// Nothing
    Quiet,
}

/// The progress of one command.
#[derive(Debug)]
pub(crate) struct Progress {
    draws: bool,
    plain: bool,
    colours: bool,
    step: RefCell<Option<Step>>,
}

/// A step under way.
#[derive(Debug)]
struct Step {
    /// What it is while it lasts: `pulling debian`.
    doing: String,
    /// What is true when it has ended well: `debian is there`. Nothing, where the command prints that itself.
    done: String,
    began: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shown as wished; `quiet` wins.
    pub(crate) fn new(show: Show, quiet: bool) -> Self {
        let draws = match show {
            _ if quiet => false,
            Show::Auto => output::draws(),
            Show::Tty => true,
            Show::Plain | Show::Quiet => false,
        };
        let plain = !quiet && !draws && show != Show::Quiet;
        Self { draws, plain, colours: output::colours(), step: RefCell::new(None) }
    }

    /// Begins a step; the one before it is done.
    pub(crate) fn begin(&self, doing: &str, done: &str) {
        self.end();
        if self.plain && done.is_empty() {
            self.line(&format!("dind: {doing}"));
        }
        let bar = self.draws.then(|| bar(doing));
        let step = Step { doing: doing.to_owned(), done: done.to_owned(), began: Instant::now(), bar };
        self.step.replace(Some(step));
    }

    /// Says where the step is; seen only while it lasts.
    pub(crate) fn detail(&self, text: &str) {
        if let Some(Step { doing, bar: Some(bar), .. }) = &*self.step.borrow() {
            bar.set_message(format!("{doing}: {}", text.trim()));
        }
    }

    /// Ends the step well.
    pub(crate) fn end(&self) {
        if let Some(step) = self.take() {
            self.took(&step.done, step.began.elapsed());
        }
    }

    /// Says that something is done, and how long it took.
    pub(crate) fn took(&self, done: &str, time: Duration) {
        if self.plain {
            self.line(&format!("dind: {done}: {}", seconds(time)));
        } else if self.draws {
            let (green, grey, reset) =
                if self.colours { ("\x1b[32m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
            self.line(&format!(" {green}✔{reset} {done} {grey}{}{reset}", seconds(time)));
        }
    }

    /// Says something that stays: a warning, or what was left out.
    pub(crate) fn note(&self, text: &str) {
        self.line(&format!("dind: {text}"));
    }

    /// Takes away what moves, so that something else can be shown. The step is forgotten.
    pub(crate) fn clear(&self) {
        self.take();
    }

    fn take(&self) -> Option<Step> {
        let step = self.step.take()?;
        if let Some(bar) = &step.bar {
            bar.finish_and_clear();
        }
        Some(step)
    }

    /// A line above what moves.
    fn line(&self, text: &str) {
        match &*self.step.borrow() {
            Some(Step { bar: Some(bar), .. }) => bar.suspend(|| output::say(text)),
            _ => output::say(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn bar(doing: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(" {spinner} {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.set_message(doing.to_owned());
    bar.enable_steady_tick(Duration::from_millis(80));
    bar
}

/// A time as it is read: `31 ms`, `2.4 s`, `3 min 20 s`.
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        1000..100_000 => format!("{:.1} s", time.as_secs_f64()),
        _ => format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (ms, text) in
            [(0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (2449, "2.4 s"), (200_000, "3 min 20 s")]
        {
            assert_eq!(seconds(Duration::from_millis(ms)), text);
        }
    }
}
