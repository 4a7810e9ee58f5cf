//! What is typed is meant, or refused with what would be understood.

use std::fs;
use std::process::Stdio;

use super::{at, ends, parsed, words};
use crate::common::server::{Data, position};

#[test]
fn a_start_that_is_none_is_refused_and_every_id_of_a_frame_is_one() {
    for from in ["garbage", "erliest", "", "1.2.3", "sales:now", "a:1,b"] {
        let mut tail = words("tail sales --from");
        let (printed, said) = ends(2, tail.arg(from));
        assert_eq!(printed, "");
        assert!(
            said.contains("none of snapshot, now, earliest, an RFC 3339 time, and the id"),
            "{said}"
        );
    }

    let data = Data::new();
    let server = data.serve();
    let (sales, orders) = (
        server.add_connector("sales", false),
        server.add_connector("orders", false),
    );
    server.post(&sales, r#"{"id":"a"}"#).expect(202);
    server.post(&orders, r#"{"id":"b"}"#).expect(202);
    let last = position(&server.post(&sales, r#"{"id":"c"}"#).expect(202));
    for streams in ["sales", "sales orders"] {
        let all = format!("tail {streams} --from earliest --output ndjson --until {last}");
        let (printed, _) = ends(0, &mut at(&server, &all));
        let frames: Vec<_> = printed.lines().map(parsed).collect();
        let id = frames.iter().find(|frame| frame["data"]["itemId"] == "a");
        let id = id.unwrap()["id"].as_str().unwrap();
        // Frames of different streams come in any order, so the id may or may not name the other stream too.
        let rest = format!("tail {streams} --output ndjson --until {last} --from {id}");
        let (printed, said) = ends(0, &mut at(&server, &rest));
        let frames = printed.lines().map(parsed);
        let changes = frames.filter(|frame| frame["event"] == "change");
        let ids: Vec<_> = changes.map(|it| it["data"]["itemId"].clone()).collect();
        assert!(ids.contains(&"c".into()), "{printed}");
        assert!(!ids.contains(&"a".into()), "{printed}");
        assert!(!printed.contains("reset"), "{printed}{said}");
    }
    let of_both = "sales:5f8d4c2a91be0c37.1.1,orders:5f8d4c2a91be0c37.1.1";
    let one = format!("tail sales --until {last} --from {of_both}");
    let (printed, said) = ends(2, &mut at(&server, &one));
    assert_eq!(printed, "");
    assert!(said.contains("is an id of several streams"), "{said}");
    let of_times = format!("tail sales --from 2020-01-01T00:00:00Z --until {last}");
    let (printed, _) = ends(0, &mut at(&server, &of_times));
    assert_eq!(printed.lines().count(), 2, "{printed}");
}

#[test]
fn none_is_no_limit_and_no_number_of_times() {
    for line in [
        "items list sales --limit 0",
        "log list sales --limit 0",
        "rejections list --limit 0",
        "send sales f --ingest-key k --count 0",
    ] {
        let (printed, said) = ends(2, &mut words(line));
        assert_eq!(printed, "");
        assert!(said.contains("0 is not in 1.."), "{line}\n{said}");
    }
}

#[test]
fn a_file_without_an_event_is_not_sent() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    let file = data.path().join("empty.ndjson");
    fs::write(&file, " \n\n").unwrap();
    for line in ["send sales", "send sales --dry-run", "ingest sales"] {
        let mut command = at(&server, line);
        command.env("HOOKPOOL_INGEST_KEY", &sales.ingest_key);
        let (printed, said) = ends(1, command.arg(&file));
        assert_eq!(printed, "");
        assert!(said.contains("empty.ndjson has no event"), "{line}\n{said}");
    }
}

#[test]
fn ingest_reads_standard_input_and_knows_it_again_as_the_file() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    let file = data.path().join("events.ndjson");
    fs::write(&file, "{\"id\":\"a\"}\n{\"id\":\"b\"}\n").unwrap();
    let ingest = |file: &str| {
        let mut command = at(&server, "ingest sales --output json");
        command.env("HOOKPOOL_INGEST_KEY", &sales.ingest_key);
        command.arg(file);
        command
    };
    let piped = |from: &std::path::Path| {
        let from = fs::File::open(from).unwrap();
        let output = ingest("-").stdin(Stdio::from(from)).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, printed, said) = piped(&file);
    assert_eq!(code, Some(0), "{said}");
    let first = parsed(&printed);
    assert_eq!(
        (&first["events"], &first["replayed"]),
        (&2.into(), &0.into())
    );
    let (printed, _) = ends(0, &mut ingest(file.to_str().unwrap()));
    assert_eq!(parsed(&printed)["replayed"], 1);
    assert_eq!(server.log("sales").len(), 2);

    fs::write(&file, "").unwrap();
    let (code, _, said) = piped(&file);
    assert_eq!(code, Some(1));
    assert!(said.contains("standard input has no event"), "{said}");
    fs::write(&file, "{\"id\":\"c\"}\n{broken\n").unwrap();
    let (code, _, said) = piped(&file);
    assert_eq!(code, Some(1));
    assert!(said.contains("line 2 of standard input"), "{said}");
}

#[test]
fn what_would_do_nothing_is_wrong_usage() {
    let data = Data::new();
    let server = data.serve();
    server.add_connector("sales", false);
    let (_, said) = ends(2, &mut at(&server, "connector set sales"));
    assert!(said.contains("nothing was said"), "{said}");
    let mut send = at(&server, "send sales --dry-run --idempotency-key k");
    let (_, said) = ends(2, send.env("HOOKPOOL_INGEST_KEY", "ik_a_b"));
    assert!(said.contains("cannot be used with"), "{said}");
}

#[test]
fn what_is_wrong_with_a_setting_is_told_without_talk_of_bodies() {
    let data = Data::new();
    let server = data.serve();
    let (_, said) = ends(1, &mut at(&server, "connector add sales --id-field /a~2"));
    assert!(said.contains("idField") && !said.contains("hint"), "{said}");
}

#[test]
fn what_was_recorded_before_is_said_to_be_a_repeat() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("sales", false);
    let body = data.path().join("body.json");
    fs::write(&body, r#"{"id":"a"}"#).unwrap();
    let send = format!("send sales {} --idempotency-key k", body.display());
    for line in [&*send, "delete sales a --idempotency-key d"] {
        let said = [(); 2].map(|()| {
            let mut command = at(&server, line);
            ends(0, command.env("HOOKPOOL_INGEST_KEY", &connector.ingest_key)).0
        });
        let [first, second] = said.each_ref().map(|said| said.trim_end());
        assert_eq!(second, format!("{first}  (a repeat, not recorded again)"));
    }
    assert_eq!(server.log("sales").len(), 2);
}
