//! `docs/operating.md` can't lie: its runbook is run as it is printed, and each refusal of its table is met, with its way out.

mod refusals;

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use crate::common::program::{both, output_within, repository};
use crate::common::terminal::Terminal;

fn page() -> String {
    fs::read_to_string(repository("docs/operating.md")).unwrap()
}

/// Lines to run, and what they print, where the page says it.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    lines: String,
    printed: Option<String>,
}

/// The blocks of a section, up to the next one of its level.
fn blocks(page: &str, section: &str) -> Vec<Block> {
    let (_, text) = page.split_once(&format!("\n{section}\n")).unwrap();
    let text = text.split_once("\n## ").map_or(text, |(text, _)| text);
    let mut blocks: Vec<Block> = Vec::new();
    for fenced in text.split("```").skip(1).step_by(2) {
        match fenced.split_once('\n').unwrap() {
            ("sh", lines) => blocks.push(Block {
                lines: lines.to_owned(),
                printed: None,
            }),
            ("text", printed) => {
                let before = blocks.last_mut().unwrap();
                let twice = before.printed.replace(printed.to_owned());
                assert_eq!(twice, None, "a block prints once");
            }
            (other, _) => panic!("a fence of {other:?} in {section}"),
        }
    }
    blocks
}

/// `...` in what the page prints stands for what is another each time.
fn is_printed(printed: &str, found: &str) -> bool {
    let line = |(printed, found): (&str, &str)| match printed.split_once("...") {
        Some((begin, end)) => {
            found.len() >= begin.len() + end.len()
                && found.starts_with(begin)
                && found.ends_with(end)
        }
        None => printed == found,
    };
    let count = |text: &str| text.lines().count();
    count(printed) == count(found) && printed.lines().zip(found.lines()).all(line)
}

/// A port that nobody has, for pages that speak of the one that is the default; none of those that the system gives to others meanwhile.
fn free_port() -> u16 {
    let ports = std::iter::repeat_with(|| rand::random_range(10_000..30_000));
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.take(100).find(is_free).unwrap()
}

fn elsewhere() -> Vec<(&'static str, String)> {
    let address = format!("127.0.0.1:{}", free_port());
    vec![
        ("HOOKPOOL_SERVER", format!("http://{address}")),
        ("HOOKPOOL_LISTEN", address),
    ]
}

/// Whatever happens, the server ends with the shell.
const BEGIN: &str = "set -eu; trap 'kill \"$server\" 2> /dev/null || true' EXIT\n";

#[test]
fn the_runbook_works_as_printed() {
    let blocks = blocks(&page(), "## Runbook");
    assert!(blocks.len() > 10, "{blocks:#?}");
    let terminal = Terminal::new(elsewhere());
    let mut script = BEGIN.to_owned();
    for (n, block) in blocks.iter().enumerate() {
        script += &format!("echo '=== {n}'; echo '=== {n}' >&2\n{}", block.lines);
    }
    let output = output_within(Duration::from_secs(120), &mut terminal.shell(&script));
    assert!(output.status.success(), "{}", both(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    let mut parts = said.split("=== ").skip(1);
    for (n, block) in blocks.iter().enumerate() {
        let (number, found) = parts.next().unwrap().split_once('\n').unwrap();
        assert_eq!(number, n.to_string());
        if let Some(printed) = &block.printed {
            assert!(
                is_printed(printed, found),
                "{}\nprints\n{found}",
                block.lines
            );
        }
    }
    assert!(
        blocks
            .iter()
            .filter(|block| block.printed.is_some())
            .count()
            > 3
    );
}

/// What a line of the README is run as: some need another terminal, a stopped server, or never end.
fn as_a_step(line: &str) -> Option<String> {
    let command = line.split(" #").next().unwrap().trim();
    let step = match command {
        _ if command.starts_with("cargo ") || command.starts_with("export PATH") => return None,
        "" => return None,
        "hookpool serve" => "start".to_owned(),
        _ if command.starts_with("hookpool connector add sales") => {
            format!("{command} --output json > sales.json")
        }
        // The one thing that a person takes from what is printed.
        "export HOOKPOOL_INGEST_KEY=ik_..." => {
            "export HOOKPOOL_INGEST_KEY=$(key ingestKey sales.json)".to_owned()
        }
        _ if command.starts_with("hookpool tail") => {
            format!(
                "{command} > tail.txt & tail=$!
                 for try in $(seq 300); do grep -qs North tail.txt && break; sleep 0.1; done
                 kill $tail; wait $tail || test $? = 143; grep -q North tail.txt"
            )
        }
        // Again, as its comment says.
        _ if command.starts_with("hookpool ingest") => format!(
            "{command}; {command} > again.txt; hookpool log list sales > twice.txt
             test $(grep -c upsert twice.txt) = $(wc -l < events.ndjson)"
        ),
        "hookpool verify" => format!("stop\n{command}\nstart"),
        _ => command.to_owned(),
    };
    Some(step)
}

#[test]
fn the_commands_of_the_readme_work_as_printed() {
    let readme = fs::read_to_string(repository("README.md")).unwrap();
    let (_, text) = readme.split_once("For real:\n\n```sh\n").unwrap();
    let (lines, _) = text.split_once("```").unwrap();
    let steps: Vec<String> = lines.lines().filter_map(as_a_step).collect();
    assert!(steps.len() > 7, "{steps:#?}");
    // `start`, `stop` and `key`, as the runbook has them.
    let runbook = blocks(&page(), "## Runbook");
    let helpers = runbook[0].lines.split("\n\n").next().unwrap();
    let script = format!("{BEGIN}{helpers}\n{}\nstop\n", steps.join("\n"));
    let terminal = Terminal::new(elsewhere());
    let output = output_within(Duration::from_secs(60), &mut terminal.shell(&script));
    assert!(output.status.success(), "{}", both(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.matches("North").count() > 2, "{said}");
    for made in ["DIR/head.json", "history.ndjson"] {
        assert!(terminal.file(made).exists(), "{made}");
    }
}

#[test]
fn what_is_printed_is_compared() {
    assert!(is_printed("epoch  ...\nlog 1\n", "epoch  0a\nlog 1\n"));
    for (printed, found) in [
        ("log 1\n", "log 2\n"),
        ("log 1\n", ""),
        ("log 1\n", "log 1\nlog 1\n"),
        ("epoch  ... 7\n", "epoch  0a 8\n"),
    ] {
        assert!(!is_printed(printed, found), "{printed:?} {found:?}");
    }
}
