//! What a restart keeps, what can be derived again, and how a planned end looks to those who are connected.

use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::eventually;
use crate::common::fold::assert_same;
use crate::common::http::Request;
use crate::common::server::{Data, Server, position};
use crate::common::sse::{Frame, Parser};

/// Deliveries with merges, nested values, generated ids and odd numbers.
fn fill(server: &Server, stream: &str) -> u64 {
    let connector = server.add_connector(stream, false);
    let mut last = 0;
    for n in 0..40 {
        let body = match n % 4 {
            0 => format!(r#"{{"id":"item-{}","a":{n}.0}}"#, n % 6),
            1 => format!(r#"{{"id":"item-{}","b":{{ "n" : [{n}, null] }}}}"#, n % 6),
            2 => format!(r#"{{"id":"item-{}","a":null,"c":"\u00e9\n{n}"}}"#, n % 6),
            _ => format!(r#"{{"no":{n}}}"#),
        };
        last = position(&server.post(&connector, body).expect(202));
    }
    last
}

#[test]
fn everything_is_the_same_after_a_stop_and_a_start() {
    let data = Data::new();
    let server = data.serve();
    let last = fill(&server, "sales");
    let (log, items) = (server.log("sales"), server.items("sales", last));
    assert_eq!(log.len(), 40);
    let server = server.restart();
    assert_same(&server.log("sales"), &log, "after a restart");
    assert_eq!(server.items("sales", last), items);
}

#[test]
fn a_removed_pool_is_rebuilt_with_the_same_items_and_generated_ids() {
    let data = Data::new();
    let server = data.serve();
    let last = fill(&server, "sales");
    let (at, items) = server.items("sales", last);
    assert_eq!(items.len(), 6 + 10);
    server.stop();
    fs::remove_dir_all(data.path().join("pool")).unwrap();
    let server = data.serve();
    assert_eq!(server.items("sales", last), (at, items));
}

#[test]
fn a_chain_of_pages_goes_on_after_a_restart_also_while_its_pool_is_made_again() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    // So many that the pool is not made in no time.
    let rewrite = |server: &Server, stamp: u64, times: u64| {
        let line = |n| format!("{{\"id\":\"item-{:02}\",\"stamp\":{stamp}}}\n", n % 40);
        let lines: String = (0..40 * times).map(line).collect();
        let request = sales.delivery_to("/api/ingest", lines.as_bytes());
        let request = request.header("Content-Type", "application/x-ndjson");
        position(&server.call(&request).expect(202))
    };
    let last = rewrite(&server, 1, 500);
    server.items("sales", last);
    let target = "/api/streams/sales/items?limit=15";
    let mut page: Value = server.get(target).expect(200).json();
    let at = page["position"].clone();
    let last = rewrite(&server, 2, 1);
    server.items("sales", last);
    server.stop();
    fs::remove_dir_all(data.path().join("pool")).unwrap();
    let server = data.serve();
    let mut seen = 0;
    loop {
        assert_eq!(page["position"], at);
        for item in page["items"].as_array().unwrap() {
            assert_eq!(item["itemId"], format!("item-{seen:02}"));
            assert_eq!(item["fields"]["stamp"], 1);
            seen += 1;
        }
        let Some(next) = page["next"].as_str() else {
            break;
        };
        let next = format!("{target}&after={next}");
        page = eventually("the next page", Duration::from_secs(60), || {
            let answer = server.get(&next);
            if answer.status == 503 {
                answer.expect_problem(503, "NOT_YET_APPLIED");
                return None;
            }
            Some(answer.expect(200).json())
        });
    }
    assert_eq!(seen, 40);
}

#[test]
fn sigterm_says_goodbye_to_open_streams_and_ends_with_0() {
    let data = Data::new();
    let server = data.serve();
    let last = fill(&server, "sales");
    // A snapshot is of what is applied, and may come before that.
    server.items("sales", last);
    let reader = server.add_reader("dashboard", &["sales"]);
    let mut connection = server.connect();
    let request = Request::get("/api/streams/sales/changes?after=snapshot").bearer(&reader);
    let (head, mut body) = connection.follow(&request).unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("Content-Type"), Some("text/event-stream"));
    assert_eq!(head.header("Cache-Control"), Some("no-store, no-transform"));
    assert_eq!(head.header("X-Accel-Buffering"), Some("no"));

    let mut parser = Parser::default();
    let mut frames: Vec<Frame> = Vec::new();
    let mut buffer = [0; 4096];
    let mut terminated = false;
    loop {
        let read = body
            .read(&mut buffer)
            .expect("the stream ends as a whole body");
        if read == 0 {
            break;
        }
        frames.extend(parser.push(&buffer[..read]));
        if !terminated && frames.iter().any(|frame| frame.event == "snapshot-end") {
            terminated = true;
            server.terminate();
        }
    }
    let status = server.wait();

    assert_eq!(status.code(), Some(0));
    let end = frames
        .iter()
        .position(|frame| frame.event == "snapshot-end")
        .unwrap();
    assert_eq!(end, 16, "a row for each item");
    assert!(
        frames[..end]
            .iter()
            .all(|frame| frame.event == "item" && frame.id.is_none())
    );
    assert!(frames[end].id.is_some());
    assert_eq!(
        (frames[end].position(), &frames[end].json()["items"]),
        (last, &json!(16))
    );
    let goodbye = frames.last().unwrap();
    assert_eq!(
        (&*goodbye.event, &goodbye.json()["reason"]),
        ("goodbye", &json!("shutdown"))
    );
}

#[test]
fn a_revoked_reader_is_told_goodbye() {
    let data = Data::new();
    let server = data.serve();
    fill(&server, "sales");
    let reader = server.add_reader("dashboard", &["sales"]);
    let mut connection = server.connect();
    let request = Request::get("/api/streams/sales/changes?after=now&heartbeat=1").bearer(&reader);
    let (head, mut body) = connection.follow(&request).unwrap();
    assert_eq!(head.status, 200);
    let revoke =
        Request::new("DELETE", "/api/admin/readers/dashboard").bearer(&server.operator_key);
    server.call(&revoke).expect(204);
    let mut rest = Vec::new();
    body.read_to_end(&mut rest).unwrap();
    let frames = Parser::default().push(&rest);
    assert_eq!(frames.last().unwrap().json()["reason"], "revoked");
    let again = Request::get("/api/streams/sales/changes?after=now").bearer(&reader);
    server.call(&again).expect_problem(401, "UNAUTHORIZED");
}

#[test]
fn a_read_that_names_its_own_write_sees_it_at_once() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("counters", false);
    let mut connection = server.connect();
    for n in 0..200 {
        let body = format!(r#"{{"id":"one","n":{n}}}"#);
        let answer = connection
            .call(&connector.delivery(body.as_bytes()))
            .unwrap()
            .expect(202);
        let target = format!(
            "/api/streams/counters/items/one?minPosition={}",
            position(&answer)
        );
        let request = Request::get(&target)
            .bearer(&server.operator_key)
            .header("Prefer", "wait=30");
        let item: Value = connection.call(&request).unwrap().expect(200).json();
        assert_eq!(item["fields"]["n"], n);
    }
}

#[test]
fn a_read_of_the_future_is_answered_not_yet_applied_after_its_wait() {
    let data = Data::new();
    let server = data.serve();
    server.add_connector("counters", false);
    let target = "/api/streams/counters/items?minPosition=1000000";
    server.get(target).expect_problem(503, "NOT_YET_APPLIED");
    let started = Instant::now();
    let request = Request::get(target)
        .bearer(&server.operator_key)
        .header("Prefer", "wait=1");
    server.call(&request).expect_problem(503, "NOT_YET_APPLIED");
    assert!(started.elapsed() >= Duration::from_secs(1));
}
