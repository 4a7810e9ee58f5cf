//! Data to stdout, talk to stderr. A closed stdout is an error of its own, so that it can end the process quietly.

use std::{
    env,
    ffi::OsStr,
    io::{self, IsTerminal, Write},
};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// How facts are printed: as tables for people or as JSON for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    #[default]
    Pretty,
    #[value(alias = "ndjson")]
    Json,
}

/// Columns of the narrowest terminal that tables are fitted into.
const WIDTH_MIN: u16 = 20;

/// Whoever read our output has seen enough.
#[derive(Debug)]
pub(crate) struct StdoutClosed;

impl std::fmt::Display for StdoutClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("standard output is closed")
    }
}

impl std::error::Error for StdoutClosed {}

/// Writes bytes as they are.
pub(crate) fn raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
        Err(error) => Err(anyhow::Error::new(error).context("writing to standard output")),
    }
}

/// Tells what is done whether or not anybody reads of it: that nobody does any more is no reason to leave the rest undone.
pub(crate) fn unless_closed(told: anyhow::Result<()>) -> anyhow::Result<()> {
    match told {
        Err(error) if error.is::<StdoutClosed>() => Ok(()),
        told => told,
    }
}

/// Writes a line.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    raw(format!("{text}\n").as_bytes())
}

/// Writes a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string(value)?)
}

/// Writes to stderr. If nobody listens there, nobody can be told.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A table with a header.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> anyhow::Result<()> {
    let mut table = plain();
    table.set_header(header);
    table.add_rows(
        rows.into_iter()
            .map(|row| row.map(|cell| printable_line(&cell))),
    );
    print(table)
}

/// One thing, a fact a line.
pub(crate) fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, String)>) -> anyhow::Result<()> {
    let mut table = plain();
    let cells = |(name, value): (&str, String)| [name.to_owned(), printable_line(&value)];
    table.add_rows(facts.into_iter().map(cells));
    print(table)
}

/// No lines and no colours: it reads well, copies well and asks nothing of the terminal.
fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    // A terminal that does not say how wide it is gets lines as long as they are.
    if table.width().is_some_and(|width| width < WIDTH_MIN) {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table
}

fn print(mut table: Table) -> anyhow::Result<()> {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    line(&table.trim_fmt())
}

/// Colours, where whoever reads standard output is a person who wants them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// On a terminal, unless `NO_COLOR` is set to anything (no-color.org).
    pub(crate) fn of_stdout() -> Self {
        let no_color = env::var_os("NO_COLOR");
        Self::new(io::stdout().is_terminal(), no_color.as_deref())
    }

    fn new(terminal: bool, no_color: Option<&OsStr>) -> Self {
        Self {
            on: terminal && no_color.is_none_or(OsStr::is_empty),
        }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Text of several lines from outside, safe for a terminal: control characters but line feed and tab are shown as escapes.
pub(crate) fn printable(text: &str) -> String {
    escaped(text, |c| c.is_control() && !matches!(c, '\n' | '\t'))
}

/// The same for what stands in one line or cell: nothing in it begins another line, which could say anything.
pub(crate) fn printable_line(text: &str) -> String {
    escaped(text, char::is_control)
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    text.chars()
        .map(|c| match c {
            c if is_escaped(c) => c.escape_default().to_string(),
            c => c.to_string(),
        })
        .collect()
}

/// `1 item`, `2 items`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{end}")
}

/// Something or a dash.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(
            printable("a\u{1b}[2Jb\r\n\tü\u{9b}"),
            "a\\u{1b}[2Jb\\r\n\tü\\u{9b}"
        );
        assert_eq!(
            printable_line("a\u{1b}[2Jb\r\n\tü\u{9b}"),
            "a\\u{1b}[2Jb\\r\\n\\tü\\u{9b}"
        );
    }

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let painted = |terminal, no_color: Option<&str>| {
            Paint::new(terminal, no_color.map(OsStr::new)).red("x")
        };
        assert_eq!(painted(true, None), "\x1b[31mx\x1b[0m");
        assert_eq!(painted(true, Some("")), "\x1b[31mx\x1b[0m");
        assert_eq!(painted(true, Some("1")), "x");
        assert_eq!(painted(false, None), "x");
    }
}
