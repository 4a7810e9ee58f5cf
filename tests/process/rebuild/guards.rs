//! What a promotion asks for, and what can be done with a rebuild that runs.

use std::io::Read;
use std::time::Duration;

use serde_json::{Value, json};

use super::writers::Writers;
use super::{Operated, counts_of, deliver, operate};
use crate::common::eventually;
use crate::common::http::Request;
use crate::common::program::both;
use crate::common::projection::project;
use crate::common::server::{Connector, Data, Server, position};
use crate::common::sse::{Frame, Parser};

const STREAM: &str = "guarded";

fn rules() -> Value {
    json!({"unknown": "drop", "fields": {"n": {"type": "number"}}})
}

/// `n` is a number in all but every tenth.
fn bodies(count: usize) -> Vec<String> {
    let body = |n: usize| match n % 10 {
        0 => format!(r#"{{"id":"item-{}","n":"none"}}"#, n % 7),
        _ => format!(r#"{{"id":"item-{}","n":{n},"m":{n}}}"#, n % 7),
    };
    (0..count).map(body).collect()
}

fn filled(data: &Data, count: usize) -> (Server, Connector) {
    let server = data.serve();
    let connector = server.add_connector(STREAM, false);
    let last = deliver(&server, &connector, &bodies(count));
    server.items(STREAM, last);
    (server, connector)
}

/// So slow that it does not end before it is told to pause.
fn start_slow(stream: Operated<'_>) {
    stream.start(&json!({"projection": rules(), "eventsPerSecond": 20}));
}

fn settled(server: &Server, connector: &Connector, body: &str) -> u64 {
    let at = position(&server.post(connector, body).expect(202));
    server.items(STREAM, at);
    at
}

#[test]
fn a_promotion_names_the_difference_that_was_looked_at() {
    let data = Data::new();
    let (server, connector) = filled(&data, 50);
    let stream = operate(&server, STREAM);
    stream.start(&json!({"projection": rules()}));
    let looked_at = stream.digest();
    stream
        .promote(None)
        .expect_problem(428, "PRECONDITION_REQUIRED");

    settled(&server, &connector, r#"{"id":"item-1","n":"1.0","m":0}"#);
    let stale = stream.promote(Some(&format!("\"{looked_at}\"")));
    stale.expect_problem(412, "PRECONDITION_FAILED");
    let output = stream.cli(&["rebuild", "promote", STREAM, "--digest", &looked_at]);
    assert_eq!(output.status.code(), Some(5), "{}", both(&output));
    let digest = stream.digest();
    assert_ne!(digest, looked_at);
    let said: Value = stale.json();
    assert!(said["detail"].as_str().unwrap().contains(&digest), "{said}");
    assert_eq!(stream.row()["generation"], 1);

    let output = stream.cli(&["rebuild", "promote", STREAM, "--digest", &digest]);
    assert_eq!(output.status.code(), Some(0), "{}", both(&output));
    assert_eq!(stream.row()["generation"], 2);
    stream.promote(Some("*")).expect_problem(409, "CONFLICT");
}

#[test]
fn a_difference_that_goes_and_comes_back_has_its_digest_again() {
    let data = Data::new();
    let (server, connector) = filled(&data, 20);
    let stream = operate(&server, STREAM);
    settled(&server, &connector, r#"{"id":"x","n":1,"m":1}"#);
    stream.start(&json!({"projection": rules()}));
    let before = stream.digest();
    settled(&server, &connector, r#"{"id":"x","m":2}"#);
    assert_ne!(stream.digest(), before);
    settled(&server, &connector, r#"{"id":"x","m":1}"#);
    assert_eq!(stream.digest(), before);
}

#[test]
fn a_rebuild_that_runs_cannot_be_promoted() {
    let data = Data::new();
    let (server, _) = filled(&data, 200);
    let stream = operate(&server, STREAM);
    start_slow(stream);
    stream.promote(Some("*")).expect_problem(409, "NOT_READY");
    stream
        .promote(None)
        .expect_problem(428, "PRECONDITION_REQUIRED");
    stream
        .get("/rebuilds/current/diff")
        .expect_problem(409, "NOT_READY");
    assert_eq!(stream.status()["diff"], Value::Null);
    let output = stream.cli(&["rebuild", "promote", STREAM, "--any"]);
    assert_eq!(output.status.code(), Some(5), "{}", both(&output));
}

#[test]
fn on_a_busy_stream_a_promotion_may_take_what_it_is() {
    let data = Data::new();
    let (server, connector) = filled(&data, 100);
    let stream = operate(&server, STREAM);
    stream.start(&json!({"projection": rules()}));
    stream.ready();
    let writers = Writers::start(&server, &connector, &bodies(100), Duration::ZERO);
    std::thread::sleep(Duration::from_millis(50));
    stream.promote(Some("*")).expect(200);
    assert!(writers.finish().accepted > 0);
    let log = server.log(STREAM);
    let expected = project(&rules(), &log);
    let (_, items) = server.items(STREAM, log.last().unwrap().position);
    assert_eq!(items, expected.served());
    assert_eq!(stream.row()["quarantined"], expected.quarantined.len());
}

#[test]
fn a_rebuild_that_is_ready_stays_promotable_over_a_restart_and_changes_of_plan() {
    let data = Data::new();
    let (server, _) = filled(&data, 50);
    let stream = operate(&server, STREAM);
    stream.start(&json!({"projection": rules()}));
    let digest = stream.digest();
    let tag = format!("\"{digest}\"");
    // Nobody posts meanwhile.
    stream.act("pause").expect(200);
    stream
        .promote(Some("\"other\""))
        .expect_problem(412, "PRECONDITION_FAILED");
    let server = server.restart();
    let stream = operate(&server, STREAM);
    assert_eq!(stream.digest(), digest);
    let promoted: Value = stream.promote(Some(&tag)).expect(200).json();
    assert_eq!(promoted["state"], "promoted");
}

#[test]
fn a_paused_rebuild_rests_also_over_a_restart_and_goes_on_when_resumed() {
    let data = Data::new();
    let (server, _) = filled(&data, 120);
    let stream = operate(&server, STREAM);
    start_slow(stream);
    eventually("it makes progress", Duration::from_secs(20), || {
        (stream.status()["done"].as_u64() > Some(5)).then_some(())
    });
    let paused: Value = stream.act("pause").expect(200).json();
    assert_eq!(
        (&paused["state"], &paused["paused"]),
        (&json!("running"), &json!(true))
    );
    // The page in hand is still folded.
    let done = eventually("it rests", Duration::from_secs(20), || {
        let done = stream.status()["done"].as_u64();
        std::thread::sleep(Duration::from_millis(600));
        done.filter(|done| stream.status()["done"] == *done)
    });
    assert!(done < 120, "it did not stop");

    let server = server.restart();
    let stream = operate(&server, STREAM);
    std::thread::sleep(Duration::from_millis(600));
    let status = stream.status();
    assert_eq!(
        (&status["paused"], &status["done"]),
        (&json!(true), &json!(done))
    );
    stream.act("resume").expect(200);
    let status = stream.ready();
    assert_eq!(
        (&status["paused"], &status["done"]),
        (&json!(false), &json!(120))
    );
    assert_eq!(status["quarantined"], 12);
}

#[test]
fn a_cancelled_rebuild_disappears() {
    let data = Data::new();
    let (server, _) = filled(&data, 50);
    let stream = operate(&server, STREAM);
    stream.start(&json!({"projection": rules()}));
    stream.ready();
    let unfit = || -> Value { stream.get("/quarantine?generation=2").expect(200).json() };
    assert_eq!(unfit()["total"], 5);
    let cancelled: Value = stream.act("cancel").expect(200).json();
    assert_eq!(cancelled["state"], "cancelled");
    stream
        .get("/rebuilds/current/diff")
        .expect_problem(404, "NOT_FOUND");
    stream.act("cancel").expect_problem(409, "CONFLICT");
    eventually("its rows go away", Duration::from_secs(20), || {
        let unfit = unfit();
        (unfit["total"] == 0 && unfit["events"] == json!([])).then_some(())
    });
    assert_eq!(
        (
            stream.row()["generation"].clone(),
            stream.row()["items"].clone()
        ),
        (json!(1), json!(7))
    );

    // The number is not used again.
    assert_eq!(stream.start(&json!({}))["id"], "3");
    let listed: Value = stream.get("/rebuilds").expect(200).json();
    let ids: Vec<_> = listed["rebuilds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].clone())
        .collect();
    assert_eq!(ids, ["2", "3"]);
}

#[test]
fn a_released_generation_disappears() {
    let data = Data::new();
    let (server, connector) = filled(&data, 50);
    let stream = operate(&server, STREAM);
    stream.put_in_force(&rules());
    stream.put_in_force(&json!({}));
    let unfit = || -> Value { stream.get("/quarantine?generation=2").expect(200).json() };
    settled(&server, &connector, r#"{"id":"item-1","n":"nor this"}"#);
    assert_eq!(
        unfit()["total"],
        6,
        "what can be gone back to is kept up to date"
    );
    let before = stream.hash();
    stream.post(":release", &Value::Null).expect(200);
    eventually("its rows go away", Duration::from_secs(20), || {
        let unfit = unfit();
        (unfit["total"] == 0 && unfit["events"] == json!([])).then_some(())
    });
    assert_eq!(stream.hash(), before);
    stream
        .post(":rollback", &Value::Null)
        .expect_problem(409, "CONFLICT");
}

#[test]
fn a_stream_has_one_rebuild_at_a_time() {
    let data = Data::new();
    let (server, _) = filled(&data, 100);
    let stream = operate(&server, STREAM);
    start_slow(stream);
    stream
        .post("/rebuilds", &json!({}))
        .expect_problem(409, "CONFLICT");
    stream.act("pause").expect(200);
    stream
        .post("/rebuilds", &json!({}))
        .expect_problem(409, "CONFLICT");
    stream.act("cancel").expect(200);
    stream.start(&json!({}));
    stream.ready();
    stream
        .post("/rebuilds", &json!({}))
        .expect_problem(409, "CONFLICT");
    stream.promote(Some("*")).expect(200);
    stream.start(&json!({}));
}

#[test]
fn a_stream_without_events_takes_rules_too() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector(STREAM, false);
    let stream = operate(&server, STREAM);
    stream.start(&json!({"projection": rules()}));
    assert_eq!(counts_of(&stream.ready()), json!([0, 0, 0]));
    stream.promote(Some("*")).expect(200);
    let last = deliver(&server, &connector, &bodies(20));
    let (_, items) = server.items(STREAM, last);
    assert_eq!(items, project(&rules(), &server.log(STREAM)).served());
    assert_eq!(stream.row()["generation"], 2);
}

#[test]
fn more_rebuilds_than_run_at_once_wait_for_their_turn() {
    let data = Data::new();
    let server = data.serve();
    let names = ["one", "two", "three", "four"];
    for name in names {
        let connector = server.add_connector(name, false);
        deliver(&server, &connector, &bodies(40));
    }
    let stream = operate(&server, "one");
    let output = stream.cli(&["rebuild", "start", "--all", "--wait", "--output", "json"]);
    assert!(output.status.success(), "{}", both(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), names.len());
    for row in rows {
        assert_eq!(row["state"], "ready");
        assert_eq!((&row["done"], &row["total"]), (&json!(40), &json!(40)));
        assert_eq!(counts_of(&row), json!([0, 0, 0]));
    }
}

#[test]
fn a_rebuild_tells_how_far_it_came_and_what_was_promoted_also_after_restarts() {
    let data = Data::new();
    let (server, connector) = filled(&data, 50);
    let stream = operate(&server, STREAM);
    stream.start(&json!({"projection": rules()}));
    let ready = stream.ready();
    assert_eq!(progress_of(&ready), json!([50, 50, 5, 0]));
    assert_ne!(counts_of(&ready), json!([0, 0, 0]));
    let server = server.restart();
    let stream = operate(&server, STREAM);
    let again = stream.status();
    assert_eq!(progress_of(&again), progress_of(&ready));
    assert_eq!(again["diff"], ready["diff"]);

    let promoted: Value = stream.promote(Some("*")).expect(200).json();
    assert_eq!(promoted["state"], "promoted");
    settled(&server, &connector, r#"{"id":"late","n":"none"}"#);
    let server = server.restart();
    let stream = operate(&server, STREAM);
    let status = stream.status();
    assert_eq!(progress_of(&status), json!([51, 51, 6, 0]));
    assert_eq!(
        [&status["diff"], &status["startedAt"]],
        [&ready["diff"], &ready["startedAt"]]
    );
    assert_eq!(promoted["diff"], ready["diff"]);
    let all: Value = stream.get("/rebuilds").expect(200).json();
    assert_eq!(all["rebuilds"], json!([status]));

    // Its generation is the one that could be gone back to, and then is none.
    stream.post(":rollback", &Value::Null).expect(200);
    assert_eq!(progress_of(&stream.status()), json!([51, 51, 6, 0]));
    stream.post(":release", &Value::Null).expect(200);
    let status = stream.status();
    assert_eq!(progress_of(&status), json!([null, null, null, null]));
    assert_eq!(status["diff"], ready["diff"]);
    let told = stream.cli(&["rebuild", "status", STREAM, "--output", "json"]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(
        (&told["done"], &told["diff"]),
        (&Value::Null, &ready["diff"])
    );

    stream.start(&json!({}));
    stream.ready();
    let cancelled: Value = stream.act("cancel").expect(200).json();
    assert_eq!(progress_of(&cancelled), json!([null, null, null, null]));
    assert_eq!(cancelled["diff"], Value::Null);
}

#[test]
fn a_rebuild_that_is_ready_has_done_all_of_it_also_where_history_was_dropped() {
    let data = Data::new();
    let (server, connector) = filled(&data, 50);
    let stream = operate(&server, STREAM);
    let limits = json!({"maxPositions": 10});
    let retention = format!("streams/{STREAM}/retention");
    server.admin("PUT", &retention, &limits).expect(200);
    eventually("history is dropped", Duration::from_secs(60), || {
        let told: Value = stream.get("/retention").expect(200).json();
        (told["dropped"] == true && told["earliest"].is_object()).then_some(())
    });
    settled(&server, &connector, r#"{"id":"late"}"#);
    stream.start(&json!({"projection": rules()}));
    let ready = stream.ready();
    let done = ready["done"].as_u64();
    assert!(Some(10) <= done && done < Some(51), "{ready}");
    assert_eq!(ready["done"], ready["total"]);
}

/// Events done and to be done, and of them quarantined and superseded.
fn progress_of(status: &Value) -> Value {
    let names = ["done", "total", "quarantined", "superseded"];
    names.iter().map(|name| status[name].clone()).collect()
}

#[test]
fn progress_is_told_until_a_rebuild_ended() {
    let data = Data::new();
    let (server, _) = filled(&data, 60);
    let stream = operate(&server, STREAM);
    stream.start(&json!({"projection": rules(), "eventsPerSecond": 10}));
    let target = format!("/api/admin/streams/{STREAM}/rebuilds/2");
    let request = Request::get(&target).bearer(&server.operator_key);
    let request = request.header("Accept", "text/event-stream");
    let mut connection = server.connect();
    let (head, mut body) = connection.follow(&request).unwrap();
    assert_eq!(head.header("Content-Type"), Some("text/event-stream"));
    stream.ready();
    stream.promote(Some("*")).expect(200);
    let mut text = Vec::new();
    body.read_to_end(&mut text).unwrap();
    let frames = Parser::default().push(&text);
    assert!(frames.iter().all(|frame| frame.event == "progress"));
    let rows: Vec<Value> = frames.iter().map(Frame::json).collect();
    assert!(rows.is_sorted_by_key(|row| row["done"].as_u64().unwrap_or(u64::MAX)));
    assert!(rows.len() > 2, "{rows:?}");
    assert_eq!(rows[0]["state"], "running");
    assert_eq!(rows.last().unwrap()["state"], "promoted");
}
