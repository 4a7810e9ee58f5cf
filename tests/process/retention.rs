//! Retention over HTTP and the command line, on the real binary: what expired is gone for readers, and for nothing else.

mod check;
mod operating;
mod readers;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rand::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::http::Response;
use crate::common::program::{hookpool, succeed};
use crate::common::server::{Connector, Data, Server, position};
use crate::common::{eventually, seeded};

const STREAM: &str = "sales";

/// A stream with many changes of few items, under rules that take fields away and mind the order of events.
fn fill(server: &Server, events: usize) -> (Connector, u64) {
    let connector = server.add_connector(STREAM, false);
    let rules = json!({ "nulls": "delete", "order-by": "v" });
    server
        .admin(
            "POST",
            "streams/sales/rebuilds",
            &json!({"projection": rules}),
        )
        .expect(201);
    ready(server);
    promote(server);
    act(server, ":release").expect(200);
    let last = write(server, &connector, events);
    (connector, last)
}

fn write(server: &Server, connector: &Connector, events: usize) -> u64 {
    let mut random = seeded("retention");
    let mut connection = server.connect();
    let mut last = 0;
    for n in 0..events {
        let field = format!("f{}", random.random_range(0..5));
        let value = match random.random_bool(0.3) {
            true => Value::Null,
            false => json!(n),
        };
        let late = if random.random_bool(0.1) { 4 } else { 0 };
        let id = format!("item-{}", random.random_range(0..7));
        let body = json!({ "id": id, "v": n + 10 - 2 * late, field: value });
        let delivery = match random.random_bool(0.06) {
            true => connector.deletion(&id),
            false => connector.delivery(body.to_string().as_bytes()),
        };
        last = position(&connection.call(&delivery).unwrap().expect(202));
    }
    server.items(STREAM, last);
    last
}

fn ready(server: &Server) {
    eventually("the rebuild is ready", Duration::from_secs(60), || {
        let target = "/api/admin/streams/sales/rebuilds/current";
        let status: Value = server.get(target).expect(200).json();
        (status["state"] == "ready").then_some(())
    });
}

fn promote(server: &Server) {
    let target = "/api/admin/streams/sales/rebuilds/current:promote";
    let request = crate::common::http::Request::post(target)
        .bearer(&server.operator_key)
        .header("If-Match", "*");
    server.call(&request.body("")).expect(200);
}

fn act(server: &Server, what: &str) -> Response {
    server.admin("POST", &format!("streams/sales{what}"), &Value::Null)
}

fn retain(server: &Server, positions: u64) -> Value {
    let limits = json!({ "maxPositions": positions });
    server
        .admin("PUT", "streams/sales/retention", &limits)
        .expect(200)
        .json()
}

fn retention(server: &Server) -> Value {
    let target = "/api/admin/streams/sales/retention";
    server.get(target).expect(200).json()
}

/// Waits until all that expired is dropped, and gives the floor.
fn dropped(server: &Server) -> u64 {
    let told = eventually("history is dropped", Duration::from_secs(60), || {
        let told = retention(server);
        assert_eq!(told["error"], Value::Null, "{told}");
        let done = told["dropped"] == true && told["earliest"].is_object();
        done.then_some(told)
    });
    assert_eq!(told["wholeItems"], 0, "{told}");
    told["earliest"]["position"].as_u64().unwrap()
}

fn read(server: &Server, target: &str) -> Response {
    server.get(&format!("/api/streams/sales{target}"))
}

/// Of all items, with what set each field.
fn hash(server: &Server) -> String {
    let row: Value = read(server, "?hash=true").expect(200).json();
    row["stateHash"].as_str().unwrap().to_owned()
}

/// Everything that is promised from a position on.
fn since(server: &Server, floor: u64, last: u64) -> Vec<String> {
    let mut answers = vec![
        format!("?after={floor}"),
        format!("/log?after={floor}&limit=1000&body=true"),
        format!("/diff?from={floor}&to={last}"),
    ];
    answers[0] = format!("/items?at={floor}");
    for at in (floor..=last).step_by(7) {
        answers.push(format!("/items?at={at}"));
    }
    for item in 0..7 {
        answers.push(format!(
            "/items/item-{item}/history?after={floor}&limit=1000"
        ));
        answers.push(format!("/items/item-{item}?meta=true&at={floor}"));
    }
    // An item may be deleted at the floor.
    let read = |target: &String| {
        let answer = read(server, target);
        match answer.status {
            404 if target.contains("/item-") => "not there".to_owned(),
            _ => answer.expect(200).text().to_owned(),
        }
    };
    answers.iter().map(read).collect()
}

fn verify(data: &Path) {
    succeed(hookpool().arg("verify").arg("--data-dir").arg(data));
}

fn metric(server: &Server, name: &str) -> u64 {
    let text = server.get("/metrics").expect(200).text().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn a_drop_changes_nothing_that_is_served_from_the_floor_on() {
    let data = Data::new();
    let server = data.serve();
    let (connector, last) = fill(&server, 600);
    let floor = last - 100;
    let (before, state) = (since(&server, floor, last), hash(&server));
    assert_eq!(retention(&server)["earliest"], Value::Null);
    retain(&server, 100);
    assert_eq!(dropped(&server), floor);
    let told = retention(&server);
    let kept = told["kept"].as_u64().unwrap();
    assert!((1..200).contains(&kept), "{told}");
    assert_eq!(
        metric(&server, "hookpool_retention_dropped_events_total"),
        floor - kept
    );
    assert!(metric(&server, "hookpool_retention_dropped_bytes_total") > 0);
    assert_eq!(since(&server, floor, last), before, "after the drop");
    assert_eq!(hash(&server), state, "after the drop");
    let server = server.restart();
    assert_eq!(since(&server, floor, last), before, "after a restart");
    server.stop();
    verify(data.path());
    fs::remove_dir_all(data.path().join("pool")).unwrap();
    let mut server = data.serve();
    assert!(server.settles());
    assert_eq!(hash(&server), state, "folded from what is left");
    assert_eq!(dropped(&server), floor);
    assert_eq!(since(&server, floor, last), before, "of a new pool");
    let row: Value = read(&server, "").expect(200).json();
    assert_eq!(row["earliest"], floor);
    // It goes on: what comes now expires later.
    let last = write(&server, &connector, 150);
    let (before, state) = (since(&server, last - 100, last), hash(&server));
    retain(&server, 100);
    eventually("the floor rises", Duration::from_secs(60), || {
        (dropped(&server) == last - 100).then_some(())
    });
    assert_eq!(since(&server, last - 100, last), before);
    assert_eq!(hash(&server), state);
}

#[test]
fn a_kill_in_the_middle_of_a_drop_leaves_a_log_that_folds_to_the_same_items() {
    let mut random = seeded("retention kills");
    let data = Data::new();
    let mut server = data.serve();
    let (_, last) = fill(&server, 3_000);
    let state = hash(&server);
    let floor = last - 20;
    let before = since(&server, floor, last);
    retain(&server, 20);
    for round in 0.. {
        std::thread::sleep(Duration::from_millis(random.random_range(0..60)));
        let finished = retention(&server)["dropped"] == true;
        server.kill9();
        if round % 2 == 0 {
            fs::remove_dir_all(data.path().join("pool")).unwrap();
        }
        server = data.serve();
        assert!(server.settles());
        assert_eq!(hash(&server), state, "after kill {round}");
        if finished || round == 20 {
            break;
        }
    }
    assert_eq!(dropped(&server), floor);
    assert_eq!(since(&server, floor, last), before);
    server.stop();
    verify(data.path());
}

#[test]
fn a_backup_from_before_a_drop_is_brought_up_to_date_and_restores_to_the_same_items() {
    let data = Data::new();
    let server = data.serve();
    let (connector, _) = fill(&server, 300);
    let desk = TempDir::with_prefix("hookpool-desk-").unwrap();
    let copy = desk.path().join("backup");
    let backup = || {
        let mut command: Command = hookpool();
        command
            .args(["backup", "--server", &server.url()])
            .env("HOOKPOOL_OPERATOR_KEY", &server.operator_key);
        succeed(command.arg(&copy));
    };
    backup();
    let last = write(&server, &connector, 300);
    retain(&server, 100);
    let floor = dropped(&server);
    assert_eq!(floor, last - 100);
    // The copy has everything of its first half, and of its second half only what survived.
    backup();
    verify(&copy);
    let (before, state) = (since(&server, floor, last), hash(&server));
    server.stop();
    let restored = Data::new();
    let mut restore = hookpool();
    succeed(
        restore
            .arg("restore")
            .arg(&copy)
            .arg("--data-dir")
            .arg(restored.path()),
    );
    for key in ["master.key", "operator.key"] {
        fs::copy(data.path().join(key), restored.path().join(key)).unwrap();
    }
    let mut server = restored.serve();
    assert!(server.settles());
    assert_eq!(hash(&server), state, "folded from the copy");
    assert_eq!(dropped(&server), floor);
    assert_eq!(since(&server, floor, last), before);
}

#[test]
fn history_waits_for_a_rebuild_and_for_the_way_back() {
    let data = Data::new();
    let server = data.serve();
    let (_, last) = fill(&server, 200);
    let start = |rules: Value| {
        let body = json!({ "projection": rules });
        server
            .admin("POST", "streams/sales/rebuilds", &body)
            .expect(201);
        ready(&server);
    };
    start(json!({}));
    let told = retain(&server, 50);
    assert_eq!(told["maxPositions"], 50);
    let waits = |what: &str| {
        let told = eventually("it waits", Duration::from_secs(10), || {
            let told = retention(&server);
            told["waiting"].is_string().then_some(told)
        });
        assert!(told["waiting"].as_str().unwrap().contains(what), "{told}");
        assert_eq!(told["earliest"], Value::Null);
    };
    waits("promote or cancel it");
    promote(&server);
    eventually("it waits for the release", Duration::from_secs(10), || {
        let told = retention(&server);
        let waiting = told["waiting"].as_str()?;
        waiting.contains("release it").then_some(())
    });
    waits("release it");
    assert_eq!(server.log(STREAM).len(), 200);
    let state = hash(&server);
    act(&server, ":release").expect(200);
    assert_eq!(dropped(&server), last - 50);
    assert_eq!(hash(&server), state);
    // Other rules see what is left.
    let total = read(&server, "/log?limit=1000").expect(200).json::<Value>();
    let readable = total["events"].as_array().unwrap().len() as u64;
    let kept = retention(&server)["kept"].as_u64().unwrap();
    start(json!({ "merge": "replace" }));
    let target = "/api/admin/streams/sales/rebuilds/current";
    let rebuild: Value = server.get(target).expect(200).json();
    assert_eq!(
        (&rebuild["done"], &rebuild["total"]),
        (&json!(readable + kept), &json!(readable + kept))
    );
}
