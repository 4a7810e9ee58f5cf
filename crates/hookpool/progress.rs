//! How far long work is, on stderr: each percent on a terminal, else each tenth of what is really long.

use std::io::{self, IsTerminal, Write as _};

use crate::output;

/// Without a terminal, so many events, or KiB of text, are done before anybody looks.
const QUIET: u64 = 1_000_000;

/// One piece of work.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    terminal: bool,
    /// The last that was said.
    percent: u64,
}

impl Progress {
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            terminal: io::stderr().is_terminal(),
            percent: 0,
        }
    }

    /// Says it if it is news. Of a total of 0 nobody knows how much it is.
    pub(crate) fn at(&mut self, done: u64, total: u64) {
        if total == 0 {
            return;
        }
        let step = if self.terminal { 1 } else { 10 };
        let percent = done.saturating_mul(100) / total / step * step;
        if percent <= self.percent || !(self.terminal || total > QUIET) {
            return;
        }
        self.percent = percent;
        let line = format!("{}: {percent} %", self.what);
        if self.terminal {
            // If nobody listens there, nobody can be told.
            let _ = write!(io::stderr(), "\r{line}");
        } else {
            output::say(&line);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.percent > 0 {
            output::say("");
        }
    }
}
