//! The commands of "Change the rules of a stream" in `docs/operating.md`, run as they are printed.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{deliver, operate};
use crate::common::program::repository;
use crate::common::server::{Connector, Data, Server};
use crate::common::terminal::Terminal;

/// The lines of the block, comments included.
fn printed() -> Vec<String> {
    let text = fs::read_to_string(repository("docs/operating.md")).unwrap();
    let (_, section) = text.split_once("## Change the rules of a stream").unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    block.lines().map(str::to_owned).collect()
}

/// The value of a fact in a printed table.
#[track_caller]
fn fact<'a>(said: &'a str, name: &str) -> &'a str {
    let line = said.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {said}")).trim()
}

fn edit(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    assert!(
        text.starts_with("# version 0; version 0 is served\n"),
        "{text}"
    );
    let text = text.replace("unknown = \"keep\"", "unknown = \"drop\"");
    assert!(text.contains("drop"), "{text}");
    let rules = "\n[fields.amount]\ntype = \"number\"\n\n[fields.region]\nfrom = \"/id\"\n";
    fs::write(file, text + rules).unwrap();
}

/// A stream of 40 events, four of which have no amount.
fn filled(server: &Server) -> Connector {
    let connector = server.add_connector("sales", false);
    let body = |n| match n % 10 {
        0 => format!(r#"{{"id":"r{n}","amount":"none"}}"#),
        _ => format!(r#"{{"id":"r{n}","amount":"{n}.50","by":"till"}}"#),
    };
    let bodies: Vec<String> = (0..40).map(body).collect();
    let last = deliver(server, &connector, &bodies);
    server.items("sales", last);
    connector
}

#[test]
fn the_commands_of_a_change_of_rules_work_as_printed() {
    let data = Data::new();
    let server = data.serve();
    let connector = filled(&server);
    let terminal = Terminal::at(&server);
    let before = operate(&server, "sales").hash();
    let lines = printed();
    let [show, set, start, diff, status, promote, rollback, release] = &lines[..] else {
        panic!("the page has other commands by now: {lines:#?}")
    };
    terminal.expect(show, 0);
    edit(&terminal.file("sales.toml"));
    check_history(&terminal, set);
    check_start(&terminal, start);
    check_difference(&terminal, diff, status);
    let after = operate(&server, "sales").hash();
    assert_eq!(
        after, before,
        "nothing changes for anybody before the promotion"
    );

    let (said, _) = terminal.expect(status, 0);
    let stale = promote.replace("3f9a...", fact(&said, "digest"));
    let last = deliver(
        &server,
        &connector,
        &[r#"{"id":"late","amount":1}"#.to_owned()],
    );
    server.items("sales", last);
    terminal.expect(&stale, 5);
    assert_eq!(quarantined(&server), 0);
    let (said, _) = terminal.expect(status, 0);
    check_promotion(
        &terminal,
        &promote.replace("3f9a...", fact(&said, "digest")),
    );
    assert_eq!(quarantined(&server), 4);
    check_way_back(&terminal, rollback, release);
    terminal.expect("hookpool rebuild status nowhere", 3);
}

/// What a monitor is told: events that do not fit the rules that are served.
fn quarantined(server: &Server) -> u64 {
    let metrics = server.get("/metrics").text().to_owned();
    let lines = metrics.lines();
    let mut figures = lines.filter_map(|it| it.strip_prefix("hookpool_pool_quarantined_events "));
    figures.next().unwrap().parse().unwrap()
}

fn check_history(terminal: &Terminal, set: &str) {
    let (said, _) = terminal.expect(set, 0);
    let first = "the rules can be followed; of 40 events 4 would go to quarantine";
    assert_eq!(said.lines().next(), Some(first));
    assert!(said.contains("field amount is not a number"), "{said}");
}

fn check_start(terminal: &Terminal, start: &str) {
    let (said, _) = terminal.expect(start, 0);
    assert_eq!(fact(&said, "state"), "ready");
    assert_eq!(
        (fact(&said, "events"), fact(&said, "quarantined")),
        ("40 of 40", "4")
    );
}

fn check_difference(terminal: &Terminal, diff: &str, status: &str) {
    let (rows, digest) = terminal.expect(diff, 0);
    let rows: Vec<Value> = rows
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 20);
    assert_eq!(rows[0]["kind"], "removed");
    let (said, _) = terminal.expect(status, 0);
    let counts = ["added", "removed", "changed"].map(|name| fact(&said, name));
    assert_eq!(counts, ["0", "4", "36"]);
    assert_eq!(digest, format!("digest {}\n", fact(&said, "digest")));
}

fn check_promotion(terminal: &Terminal, promote: &str) {
    let (said, hint) = terminal.expect(promote, 0);
    assert_eq!(fact(&said, "state"), "promoted");
    assert_eq!(
        hint,
        "served now; hookpool rebuild rollback sales goes back\n"
    );
    let (listed, total) = terminal.expect("hookpool quarantine list sales", 0);
    assert_eq!(listed.matches("field amount is not a number").count(), 4);
    assert_eq!(total, "4 events in generation 2\n");
}

fn check_way_back(terminal: &Terminal, rollback: &str, release: &str) {
    let served = |line: &str| {
        let (said, _) = terminal.expect(line, 0);
        [
            fact(&said, "generation").to_owned(),
            fact(&said, "before it").to_owned(),
        ]
    };
    assert_eq!(served(rollback), ["1", "2"]);
    assert_eq!(served(rollback), ["2", "1"]);
    assert_eq!(served(release), ["2", "-"]);
    terminal.expect(rollback, 5);
}
