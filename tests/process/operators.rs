//! Operator keys come and go while a server runs; whoever may write to its folder always gets in again.

use std::fs;
use std::io::Read;

use serde_json::{Value, json};

use crate::common::canary;
use crate::common::http::{Request, Response};
use crate::common::server::{Data, Server};
use crate::common::sse::Parser;
use crate::common::terminal::Terminal;

struct Operator {
    key_id: String,
    key: String,
}

/// The one whose key the first start wrote down.
fn first(server: &Server) -> Operator {
    let key = server.operator_key.clone();
    let key_id = key.split('_').nth(1).unwrap().to_owned();
    Operator { key_id, key }
}

fn add(server: &Server, by: &Operator, name: &str) -> Operator {
    let request = Request::post("/api/admin/operators").bearer(&by.key);
    let answer = server.call(&request.body(json!({"name": name}).to_string()));
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    let made: Value = answer.expect(201).json();
    assert_eq!(made["name"], name);
    let text = |member: &str| made[member].as_str().unwrap().to_owned();
    Operator {
        key_id: text("keyId"),
        key: text("operatorKey"),
    }
}

fn revoke(server: &Server, by: &Operator, key_id: &str) -> Response {
    let target = format!("/api/admin/operators/{key_id}");
    server.call(&Request::new("DELETE", &target).bearer(&by.key))
}

fn list(server: &Server, by: &Operator) -> Response {
    server.call(&Request::get("/api/admin/operators").bearer(&by.key))
}

/// Names and key ids, oldest first.
fn listed(server: &Server, by: &Operator) -> Vec<(Value, Value)> {
    let answer: Value = list(server, by).expect(200).json();
    let operators = answer["operators"].as_array().unwrap().iter();
    operators
        .map(|one| (one["name"].clone(), one["keyId"].clone()))
        .collect()
}

#[test]
fn a_revoked_operator_key_is_refused_at_once_and_after_a_restart() {
    let data = Data::new();
    let server = data.serve();
    let first = first(&server);
    let second = add(&server, &first, "alice");
    let both = [
        (Value::Null, json!(first.key_id)),
        (json!("alice"), json!(second.key_id)),
    ];
    assert_eq!(listed(&server, &second), both);

    revoke(&server, &second, &first.key_id).expect(204);
    list(&server, &first).expect_problem(401, "UNAUTHORIZED");
    revoke(&server, &first, &second.key_id).expect_problem(401, "UNAUTHORIZED");
    assert_eq!(listed(&server, &second), both[1..]);
    revoke(&server, &second, &first.key_id).expect_problem(404, "NOT_FOUND");

    // The file still holds the key that was revoked: no start makes another while somebody may operate.
    let server = server.restart();
    assert_eq!(server.operator_key, first.key);
    list(&server, &first).expect_problem(401, "UNAUTHORIZED");
    assert_eq!(listed(&server, &second), both[1..]);
}

#[test]
fn the_last_operator_key_stays_and_the_answer_says_the_way_out() {
    let data = Data::new();
    let server = data.serve();
    let first = first(&server);
    let refused = revoke(&server, &first, &first.key_id);
    refused.expect_problem(409, "CONFLICT");
    assert!(
        refused.text().contains("add another one first"),
        "{}",
        refused.text()
    );
    let second = add(&server, &first, "alice");
    let request = Request::post("/api/admin/operators").bearer(&first.key);
    let taken = server.call(&request.body(r#"{"name":"alice"}"#));
    taken.expect_problem(409, "CONFLICT");
    revoke(&server, &first, &first.key_id).expect(204);
    revoke(&server, &second, &second.key_id).expect_problem(409, "CONFLICT");
    assert_eq!(listed(&server, &second).len(), 1);
}

#[test]
fn what_a_revoked_operator_key_had_begun_ends() {
    let data = Data::new();
    let server = data.serve();
    server.add_connector("sales", false);
    let first = first(&server);
    let second = add(&server, &first, "alice");

    let mut following = server.connect();
    let changes = Request::get("/api/streams/sales/changes?after=now&heartbeat=1");
    let (head, mut changes) = following.follow(&changes.bearer(&second.key)).unwrap();
    assert_eq!(head.status, 200);

    let throttled = json!({"eventsPerSecond": 1});
    server
        .admin("POST", "streams/sales/rebuilds", &throttled)
        .expect(201);
    server
        .admin("POST", "streams/sales/rebuilds/current:pause", &json!({}))
        .expect(200);
    let mut watching = server.connect();
    let progress = Request::get("/api/admin/streams/sales/rebuilds/current")
        .header("Accept", "text/event-stream")
        .bearer(&second.key);
    let (head, mut progress) = watching.follow(&progress).unwrap();
    assert_eq!(head.status, 200);

    // A call whose head was let in, and whose body is still on its way.
    let body = json!({"name": "mallory"}).to_string();
    let call = Request::post("/api/admin/operators").bearer(&second.key);
    let call = call.body(body);
    let mut halfway = server.connect();
    halfway.begin(&call);

    revoke(&server, &first, &second.key_id).expect(204);
    let refused = halfway.finish(&call);
    refused.expect_problem(401, "UNAUTHORIZED");
    let mut rest = Vec::new();
    changes.read_to_end(&mut rest).unwrap();
    let frames = Parser::default().push(&rest);
    assert_eq!(frames.last().unwrap().json()["reason"], "revoked");
    progress.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(listed(&server, &first).len(), 1);
}

#[test]
fn operators_are_added_listed_and_revoked_by_commands() {
    let data = Data::new();
    let server = data.serve();
    let terminal = Terminal::at(&server);
    let key_id = first(&server).key_id;
    let (_, why) = terminal.expect(&format!("hookpool operator revoke {key_id}"), 5);
    assert!(why.contains("add another one first"), "{why}");
    assert!(!why.contains("choose another name"), "{why}");
    let (made, _) = terminal.expect("hookpool operator add alice --output json", 0);
    let made: Value = serde_json::from_str(&made).unwrap();
    canary::plant_all(data.path(), &made);
    let (_, why) = terminal.expect("hookpool operator add alice", 5);
    assert!(why.contains("choose another name"), "{why}");
    let (table, _) = terminal.expect("hookpool operator list", 0);
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 3, "{table}");
    assert!(rows[1].starts_with("(none)") && rows[1].contains(&key_id));
    assert!(rows[2].starts_with("alice"));
    let (said, _) = terminal.expect(&format!("hookpool operator revoke {key_id}"), 0);
    assert_eq!(said, format!("operator key {key_id} is revoked\n"));
    terminal.expect("hookpool operator list", 4);
    let key = made["operatorKey"].as_str().unwrap();
    let line = format!("HOOKPOOL_OPERATOR_KEY={key} hookpool operator list --output json");
    let (left, _) = terminal.expect(&line, 0);
    let left: Value = serde_json::from_str(&left).unwrap();
    assert_eq!(left["operators"][0]["name"], "alice");
}

#[test]
fn who_may_write_to_the_folder_gets_in_again_and_can_shut_all_others_out() {
    let data = Data::new();
    let server = data.serve();
    let first = first(&server);
    let second = add(&server, &first, "alice");
    server.stop();
    let folder = data.path().display();
    let terminal = Terminal::new(Vec::new());
    let recover = format!("hookpool operator recover --data-dir '{folder}'");
    let (_, why) = terminal.expect(&recover, 1);
    assert!(why.contains("is there already"), "{why}");

    fs::remove_file(data.path().join("operator.key")).unwrap();
    terminal.expect(&recover, 0);
    let server = data.serve();
    let third = self::first(&server);
    assert_ne!(third.key, first.key);
    for operator in [&first, &second, &third] {
        assert_eq!(listed(&server, operator).len(), 3);
    }
    server.stop();

    fs::remove_file(data.path().join("operator.key")).unwrap();
    terminal.expect(&format!("{recover} --revoke-others"), 0);
    let server = data.serve();
    let fourth = self::first(&server);
    for operator in [&first, &second, &third] {
        list(&server, operator).expect_problem(401, "UNAUTHORIZED");
    }
    assert_eq!(listed(&server, &fourth).len(), 1);
}
