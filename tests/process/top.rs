//! `hookpool top`, `tail` and `items list` as somebody at a terminal has them, and what the server tells them.

use std::process::Command;

use serde_json::{Value, json};

use crate::common::eventually;
use crate::common::http::Request;
use crate::common::program::{hookpool, succeed};
use crate::common::server::{Connector, Data, Server, percent, position};

struct Terminal {
    server: Server,
    connectors: [Connector; 2],
    _data: Data,
}

impl Terminal {
    /// Two streams with five events each.
    fn new() -> Self {
        let data = Data::new();
        let server = data.serve();
        let connectors = ["sales", "orders"].map(|name| server.add_connector(name, false));
        let terminal = Self {
            server,
            connectors,
            _data: data,
        };
        for n in 0..10 {
            let last = terminal.post(n);
            terminal.server.items("sales", last);
        }
        terminal
    }

    fn post(&self, n: usize) -> u64 {
        let body = json!({"id": format!("i{}", n / 2 % 3), "n": n, "kind": "k"}).to_string();
        position(&self.server.post(&self.connectors[n % 2], body).expect(202))
    }

    fn hookpool(&self, line: &str) -> Command {
        let mut command = hookpool();
        command
            .env("HOOKPOOL_SERVER", self.server.url())
            .env("HOOKPOOL_OPERATOR_KEY", &self.server.operator_key)
            .args(line.split_whitespace());
        command
    }

    fn frames(&self, line: &str) -> Vec<Value> {
        let said = succeed(&mut self.hookpool(line));
        let frame = |line: &str| serde_json::from_str(line).unwrap();
        said.lines().map(frame).collect()
    }

    fn head(&self) -> u64 {
        let head: Value = self.server.get("/readyz").expect(200).json();
        head["position"].as_u64().unwrap()
    }
}

fn positions(frames: &[Value]) -> Vec<u64> {
    let changes = frames.iter().filter(|frame| frame["event"] == "change");
    changes
        .map(|frame| frame["data"]["position"].as_u64().unwrap())
        .collect()
}

#[test]
fn tail_follows_several_streams_and_ends_where_it_is_told_to() {
    let terminal = Terminal::new();
    let until = terminal.head();
    let frames = terminal.frames(&format!(
        "tail sales orders --from earliest --until {until} --output ndjson"
    ));
    let mut told = positions(&frames);
    told.sort_unstable();
    let log = |stream| {
        terminal
            .server
            .log(stream)
            .into_iter()
            .map(|event| event.position)
    };
    let mut recorded: Vec<_> = log("sales").chain(log("orders")).collect();
    recorded.sort_unstable();
    assert_eq!(told, recorded);
    assert_eq!(frames.last().unwrap()["data"]["reason"], "until");

    let line = format!("tail orders --where n>=7 --fields n --until {until} --output ndjson");
    let rows = terminal.frames(&line);
    let rows: Vec<_> = rows
        .iter()
        .filter(|frame| frame["event"] == "item")
        .collect();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(
        rows.iter()
            .all(|row| row["data"]["fields"].as_object().unwrap().len() == 1)
    );

    let said = succeed(&mut terminal.hookpool(&format!("tail sales orders --until {until}")));
    assert!(said.contains("  orders  i0  "), "{said}");
    assert!(!said.contains('\u{1b}'), "colours are for terminals");
    let merged =
        format!("tail sales --from earliest --conflate 1s --until {until} --output ndjson");
    let merged = terminal.frames(&merged);
    let events = merged
        .iter()
        .filter_map(|frame| frame["data"]["merged"].as_u64());
    assert_eq!(events.sum::<u64>(), 5);
}

#[test]
fn a_tail_since_a_time_tells_what_came_later() {
    let terminal = Terminal::new();
    let log: Value = terminal
        .server
        .get("/api/streams/sales/log")
        .expect(200)
        .json();
    let events = log["events"].as_array().unwrap();
    let time = events[1]["time"].as_str().unwrap();
    let later = events
        .iter()
        .filter(|event| event["time"].as_str().unwrap() > time);
    let later: Vec<_> = later
        .map(|event| event["position"].as_u64().unwrap())
        .collect();
    let until = terminal.head();
    let since = |since: &str| {
        let line = format!("tail sales --since {since} --until {until} --output ndjson");
        let frames = terminal.frames(&line);
        assert_eq!(
            frames[0]["event"], "bookmark",
            "there is an id to resume from at once"
        );
        positions(&frames)
    };
    assert_eq!(since(time), later);
    assert_eq!(
        since("1h"),
        events
            .iter()
            .map(|event| event["position"].as_u64().unwrap())
            .collect::<Vec<_>>()
    );
    assert_eq!(since("2100-01-01T00:00:00Z"), Vec::<u64>::new());
    let wrong = terminal
        .hookpool("tail sales --since yesterday")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn items_are_listed_that_meet_the_conditions_then_and_now() {
    let terminal = Terminal::new();
    let list = |line: &str| -> Value {
        let said =
            succeed(&mut terminal.hookpool(&format!("items list sales {line} --output json")));
        serde_json::from_str(&said).unwrap()
    };
    let all = list("");
    assert_eq!(all["items"].as_array().unwrap().len(), 3);
    let some = list("--where n>=6 --where kind=k --fields n");
    let expected =
        json!([{"itemId": "i0", "fields": {"n": 6}}, {"itemId": "i1", "fields": {"n": 8}}]);
    assert_eq!(some["items"], expected);
    let first = terminal.server.log("sales")[0].position;
    let then = list(&format!("--at {first} --where n<1"));
    assert_eq!(then["items"].as_array().unwrap().len(), 1);
}

#[test]
fn top_shows_who_follows_what_and_how_far_they_are() {
    let terminal = Terminal::new();
    let key = terminal.server.add_reader("dashboard", &["sales"]);
    let request = Request::get("/api/streams/sales/changes?after=now").bearer(&key);
    let mut connection = terminal.server.connect();
    let (head, _) = connection.follow(&request).unwrap();
    assert_eq!(head.status, 200);
    let top = || -> Value {
        let said = succeed(&mut terminal.hookpool("top --interval 50ms --output json"));
        serde_json::from_str(&said).unwrap()
    };
    let last = terminal.post(10);
    let told = eventually(
        "the follower is told",
        std::time::Duration::from_secs(10),
        || {
            let top = top();
            (top["followers"][0]["position"] == last).then_some(top)
        },
    );
    let followers = told["followers"].as_array().unwrap();
    assert_eq!(followers.len(), 1);
    assert_eq!(followers[0]["reader"], "dashboard");
    assert_eq!(followers[0]["lag"], 0);
    let stream = |name: &str| {
        let streams = told["streams"].as_array().unwrap();
        streams
            .iter()
            .find(|row| row["stream"] == name)
            .unwrap()
            .clone()
    };
    let sales = stream("sales");
    assert_eq!(
        (&sales["events"], &sales["followers"]),
        (&json!(6), &json!(1))
    );
    assert_eq!(stream("orders")["followers"], 0);
    let table = succeed(&mut terminal.hookpool("top --once --interval 50ms"));
    assert!(
        table.contains("dashboard") && !table.contains('\u{1b}'),
        "{table}"
    );

    drop(connection);
    eventually(
        "the follower is gone",
        std::time::Duration::from_secs(10),
        || {
            // A server learns that a reader has gone when it has something to say to it.
            terminal.post(0);
            (top()["followers"] == json!([])).then_some(())
        },
    );
    let refused = Request::get("/api/admin/followers").bearer(&key);
    terminal.server.call(&refused).expect(401);
}

#[test]
fn streams_begin_where_after_says_if_the_id_does_not() {
    let terminal = Terminal::new();
    let until = terminal.head();
    let first = terminal.frames("tail sales orders --from earliest --until 0 --output ndjson");
    assert_eq!(first.last().unwrap()["event"], "goodbye");
    let cursor = terminal.frames(&format!("tail sales --until {until} --output ndjson"));
    let cursor = cursor
        .iter()
        .find_map(|frame| frame["id"].as_str())
        .unwrap();
    let target = format!(
        "/api/changes?stream=sales&stream=orders&after=earliest&until={until}&last_event_id={}",
        percent(&format!("sales:{cursor}"))
    );
    let request = Request::get(&target).header("Accept", "application/x-ndjson");
    let answer = terminal
        .server
        .call(&request.bearer(&terminal.server.operator_key));
    let answer = answer.expect(200);
    let frames: Vec<Value> = answer
        .text()
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let log: Vec<_> = terminal
        .server
        .log("orders")
        .iter()
        .map(|event| event.position)
        .collect();
    assert_eq!(positions(&frames), log);
    assert!(
        frames.iter().all(|frame| frame["event"] != "item"),
        "{frames:?}"
    );
}

#[test]
fn a_reset_of_one_of_several_streams_names_it() {
    let terminal = Terminal::new();
    let until = terminal.head();
    let target = format!(
        "/api/changes?stream=sales&stream=orders&after=earliest&until={until}&last_event_id={}",
        percent("sales:nonsense")
    );
    let request = Request::get(&target).header("Accept", "application/x-ndjson");
    let answer = terminal
        .server
        .call(&request.bearer(&terminal.server.operator_key));
    let frames = answer.expect(200);
    let named: Vec<Value> = frames
        .text()
        .lines()
        .filter(|line| line.contains("reset") || line.contains("snapshot-end"))
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["data"]["stream"].clone())
        .collect();
    assert_eq!(named, ["sales", "sales"]);
}
