//! What comes from outside stays in the line, or the cell, that it stands in.

use std::fs;

use super::{at, ends};
use crate::common::server::{Data, position};

/// Lines that stand where a position does, so that they can be taken for those of another event.
fn begin_with(number: &str, printed: &str) -> usize {
    let lines = printed.lines();
    lines
        .filter(|line| line.trim_start().starts_with(number))
        .count()
}

#[test]
fn names_and_values_of_fields_begin_no_line() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    let name = r"a\n      99  delete  North  gone\t";
    let body = |value: &str| format!(r#"{{"id":"b","{name}":{value}}}"#);
    let post = |value: &str| position(&server.post(&sales, body(value)).expect(202));
    post("1");
    // Blanks inside of it are kept as they were posted.
    let last = post("[1,\n      98  ]").to_string();

    for (line, rows) in [
        ("items list sales".to_owned(), 2),
        ("items history sales b".to_owned(), 3),
        ("items get sales b".to_owned(), 6),
        ("log list sales --body".to_owned(), 3),
        (format!("tail sales --from earliest --until {last}"), 2),
        (format!("tail sales --until {last}"), 1),
    ] {
        let (printed, _) = ends(0, &mut at(&server, &line));
        assert_eq!(printed.lines().count(), rows, "{line}\n{printed}");
        for forged in ["98", "99"] {
            assert_eq!(begin_with(forged, &printed), 0, "{line}\n{printed}");
        }
        assert!(printed.contains(name), "{line}\n{printed}");
        assert!(printed.contains(r"[1,\n      98  ]"), "{line}\n{printed}");
    }
}

#[test]
fn the_name_of_a_field_that_went_away_begins_no_line() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    let body = |value: &str| format!(r#"{{"id":"a","b\n      99  x":{value}}}"#);
    server.post(&sales, body("1")).expect(202);
    let rules = data.path().join("rules.toml");
    fs::write(&rules, "nulls = \"delete\"\n").unwrap();
    let start = "rebuild start sales --wait --from-file";
    ends(0, at(&server, start).arg(&rules));
    ends(0, &mut at(&server, "rebuild promote sales --any"));
    let file = data.path().join("body.json");
    fs::write(&file, body("null")).unwrap();
    let mut send = at(&server, "send sales --dry-run");
    send.env("HOOKPOOL_INGEST_KEY", &sales.ingest_key);
    let (printed, _) = ends(0, send.arg(&file));
    assert!(printed.contains(r"take away b\n      99  x"), "{printed}");
    let last = position(&server.post(&sales, body("null")).expect(202)).to_string();

    let mut tail = at(&server, "tail sales --from earliest --until");
    let (printed, _) = ends(0, tail.arg(&last));
    assert!(printed.contains(r" -b\n      99  x"), "{printed}");
    assert_eq!(begin_with("99", &printed), 0, "{printed}");
}
