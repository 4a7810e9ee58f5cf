//! How far long work is, on stderr: a bar on a terminal, else a line for each tenth of what is really long.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// Without a terminal, so many events, or KiB of text, are done before anybody looks.
const QUIET: u64 = 1_000_000;

/// One piece of work.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    bar: Option<ProgressBar>,
    /// The last that was said without a bar.
    percent: u64,
}

impl Progress {
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            bar: io::stderr().is_terminal().then(|| bar(what)),
            percent: 0,
        }
    }

    /// Says it if it is news. Of a total of 0 nobody knows how much it is.
    pub(crate) fn at(&mut self, done: u64, total: u64) {
        if total == 0 {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        let percent = done.saturating_mul(10) / total * 10;
        if percent > self.percent && total > QUIET {
            self.percent = percent;
            output::say(&format!("{}: {percent} %", self.what));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {percent} %, {eta} left");
    let bar = ProgressBar::new(0).with_prefix(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
