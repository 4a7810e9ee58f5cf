//! Readers who want some of a stream, or of several, or want it less often: what they put together is what the log says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::common::fold::{Event, Field, Fields, Pool, as_served, fold};
use crate::common::http::{Connection, Request};
use crate::common::seeded;
use crate::common::server::percent;
use crate::common::shared::{Stream, shared};
use crate::common::sse::{Frame, Parser};

impl Stream {
    fn stream(&self) -> &str {
        &self.connector.stream
    }

    /// A random event: most name some of the fields only.
    fn post_random(&self, random: &mut StdRng) -> u64 {
        let mut body = json!({ "id": format!("i{}", random.random_range(0..12)) });
        if random.random_bool(0.7) {
            body["n"] = random.random_range(0..10).into();
        }
        if random.random_bool(0.4) {
            body["kind"] = ["a", "b"][random.random_range(0..2)].into();
        }
        if random.random_bool(0.4) {
            body["extra"] = format!("x{}", random.random_range(0..3)).into();
        }
        self.post(&body.to_string())
    }

    fn changes(&self, query: &str) -> Request {
        let target = format!("/api/streams/{}/changes?{query}", self.stream());
        Request::get(&target).bearer(&self.shared.server.operator_key)
    }
}

/// What a client puts together, and what it was at each place to go on from.
#[derive(Default)]
struct Assembly {
    pool: Pool,
    last_id: Option<String>,
    at: Vec<(u64, Pool)>,
    changes: Vec<Value>,
}

impl Assembly {
    fn take(&mut self, frame: &Frame) {
        let data: Value = frame.json();
        let id = data["itemId"].as_str().unwrap_or_default().to_owned();
        match &*frame.event {
            "item" => {
                self.pool.insert(id, fields(frame, "fields"));
            }
            "change" => {
                if data["op"] == "delete" {
                    assert!(self.pool.remove(&id).is_some(), "{data}");
                } else {
                    let item = self.pool.entry(id).or_default();
                    item.extend(fields(frame, "set"));
                    for name in data["unset"].as_array().into_iter().flatten() {
                        item.remove(name.as_str().unwrap());
                    }
                }
                self.changes.push(data);
            }
            "snapshot-end" | "bookmark" => {}
            other => panic!("{other}: {}", frame.data),
        }
        if let Some(id) = &frame.id {
            let position = id.rsplit('.').next().unwrap().parse().unwrap();
            self.at.push((position, self.pool.clone()));
            self.last_id = Some(id.clone());
        }
    }

    /// Reads some frames of a connection; whether a frame with an id at or past a position came.
    fn read(&mut self, request: &Request, frames_max: usize, until: u64) -> bool {
        if self
            .at
            .last()
            .is_some_and(|(position, _)| *position >= until)
        {
            return true;
        }
        let server = shared();
        let request = match &self.last_id {
            Some(id) => request.clone().header("Last-Event-ID", id),
            None => request.clone(),
        };
        let mut connection = Connection::open(server.server.addr).unwrap();
        let (head, mut body) = connection.follow(&request).unwrap();
        assert_eq!(head.status, 200);
        let (mut parser, mut seen, mut buffer) = (Parser::default(), 0, [0; 2_048]);
        // Without an id the rows of a snapshot come again.
        if self.last_id.is_none() {
            self.pool.clear();
        }
        let mut unmarked = self.pool.clone();
        loop {
            let read = body.read(&mut buffer).unwrap();
            assert_ne!(read, 0, "the stream ended");
            for frame in parser.push(&buffer[..read]) {
                self.take(&frame);
                seen += 1;
                if frame.id.is_some() {
                    unmarked = self.pool.clone();
                    if self.at.last().unwrap().0 >= until {
                        return true;
                    }
                }
                if seen >= frames_max {
                    // What came after the last id comes again.
                    self.pool = unmarked;
                    return false;
                }
            }
        }
    }
}

fn fields(frame: &Frame, member: &str) -> Fields {
    let mut data: BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_str(&frame.data).unwrap();
    let object = data.remove(member).unwrap();
    let object: BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_str(object.get()).unwrap();
    let served = object.iter();
    served
        .map(|(name, value)| (name.clone(), as_served(value)))
        .collect()
}

/// The pool after the events up to a position, without what a reader does not want.
pub(crate) fn expected(
    log: &[Event],
    until: u64,
    takes: fn(&Fields) -> bool,
    shown: Option<&[&str]>,
) -> Pool {
    let events: Vec<_> = log
        .iter()
        .filter(|event| event.position <= until)
        .cloned()
        .collect();
    let mut pool = fold(&events);
    pool.retain(|_, item| takes(item));
    for item in pool.values_mut() {
        item.retain(|name, _| shown.is_none_or(|shown| shown.contains(&&**name)));
    }
    pool
}

fn number(item: &Fields, name: &str) -> Option<i64> {
    match item.get(name)? {
        Field::Verbatim(text) => text.parse().ok(),
        Field::String(_) => None,
    }
}

fn wanted(item: &Fields) -> bool {
    number(item, "n").is_some_and(|n| n >= 5)
        && item.get("kind") == Some(&Field::String("a".into()))
}

/// Writes, and reads with cuts, until all is read; then every place that a client could go on from is held to the log.
fn read_with_cuts(
    name: &str,
    query: &str,
    takes: fn(&Fields) -> bool,
    shown: Option<&[&str]>,
) -> Assembly {
    let mut random = seeded(name);
    let stream = Stream::new(name);
    for _ in 0..50 {
        stream.post_random(&mut random);
    }
    let request = stream.changes(&format!("heartbeat=1&{query}"));
    let mut assembly = Assembly::default();
    let mut last = 0;
    // A snapshot that was cut begins anew, and later holds what would have come as changes.
    while assembly.at.is_empty() {
        assembly.read(&request, random.random_range(1..15), last);
    }
    for _ in 0..20 {
        for _ in 0..random.random_range(0..30) {
            last = stream.post_random(&mut random);
        }
        assembly.read(&request, random.random_range(1..15), last);
    }
    while !assembly.read(&request, random.random_range(1..15), last) {}
    let log = stream.shared.server.log(name);
    assert!(!assembly.at.is_empty());
    for (position, pool) in &assembly.at {
        assert_eq!(pool, &expected(&log, *position, takes, shown), "{position}");
    }
    assembly
}

#[test]
fn items_that_meet_the_conditions_come_go_and_change() {
    let query = format!(
        "where={}&where={}&fields=n,extra",
        percent("n>=5"),
        percent("kind=a")
    );
    let read = read_with_cuts("conditions", &query, wanted, Some(&["n", "extra"]));
    let gone = read.changes.iter().any(|change| change["op"] == "delete");
    assert!(gone, "no item ever ceased to meet the conditions");
    for change in &read.changes {
        let set = change["set"].as_object().unwrap();
        assert!(set.keys().all(|name| name == "n" || name == "extra"));
        assert_eq!(change.get("merged"), None);
    }
}

#[test]
fn some_fields_are_told_when_they_change() {
    let read = read_with_cuts("some-fields", "fields=n", |_| true, Some(&["n"]));
    assert!(!read.changes.is_empty());
}

#[test]
fn merged_changes_add_up_to_the_same() {
    read_with_cuts("merged", "conflate=5", |_| true, None);
    let query = format!("conflate=5&where={}&where=kind%3Da", percent("n>=5"));
    read_with_cuts("merged-conditions", &query, wanted, None);
}

#[test]
fn an_item_is_told_once_in_an_interval_however_often_it_changed() {
    let stream = Stream::new("conflated");
    let first = stream.post(r#"{"id":"a","n":0}"#);
    let request = stream.changes("after=earliest&conflate=400");
    let mut assembly = Assembly::default();
    assert!(assembly.read(&request, 10, first));
    let begun = Instant::now();
    let mut last = 0;
    for n in 1..=60 {
        last = stream.post(&format!(r#"{{"id":"{}","n":{n}}}"#, ["a", "b"][n % 2]));
    }
    assembly.changes.clear();
    assert!(assembly.read(&request, 1_000, last));
    let intervals = begun.elapsed().as_millis() / 400 + 2;
    let frames = assembly.changes.len() as u128;
    assert!(
        frames <= intervals * 2,
        "{frames} frames in {intervals} intervals"
    );
    let merged: u64 = assembly
        .changes
        .iter()
        .map(|change| change["merged"].as_u64().unwrap())
        .sum();
    assert_eq!(merged, 60, "every event is in exactly one frame");
    assert_eq!(
        number(&assembly.pool["a"], "n").max(number(&assembly.pool["b"], "n")),
        Some(60)
    );
}

#[test]
fn a_stream_ends_at_the_position_that_was_asked_for() {
    let stream = Stream::new("until");
    let positions: Vec<_> = (0..5)
        .map(|n| stream.post(&format!(r#"{{"id":"{n}"}}"#)))
        .collect();
    for query in ["", "&fields=id", "&conflate=1"] {
        let until = positions[2];
        let request = stream.changes(&format!("after=earliest&until={until}{query}"));
        let answer = stream.shared.server.call(&request).expect(200);
        let frames = Parser::default().push(&answer.body);
        let (last, changes) = frames.split_last().unwrap();
        assert_eq!(last.event, "goodbye");
        assert_eq!(last.json()["reason"], "until");
        let seen: Vec<_> = changes.iter().map(Frame::position).collect();
        assert_eq!(seen, positions[..3], "{query}");
    }
}

#[test]
fn several_streams_are_read_on_one_connection_and_resumed_by_one_id() {
    let mut random = seeded("several");
    let streams = [Stream::new("several-a"), Stream::new("several-b")];
    let server = &streams[0].shared.server;
    for n in 0..40 {
        streams[n % 2].post_random(&mut random);
    }
    let request = Request::get("/api/changes?stream=several-b&stream=several-a&heartbeat=1");
    let request = request.bearer(&server.operator_key);
    let (mut pools, mut last_id) = (BTreeMap::<String, Pool>::new(), None::<String>);
    let mut seen = BTreeMap::<String, Vec<u64>>::new();
    let mut last = [0; 2];
    for _ in 0..25 {
        for _ in 0..random.random_range(1..10) {
            let n = random.random_range(0..2);
            last[n] = streams[n].post_random(&mut random);
        }
        let request = match &last_id {
            Some(id) => request.clone().header("Last-Event-ID", id),
            None => request.clone(),
        };
        let mut connection = server.connect();
        let (head, mut body) = connection.follow(&request).unwrap();
        assert_eq!(head.status, 200);
        let (mut parser, mut buffer, mut left) =
            (Parser::default(), [0; 512], random.random_range(1..60));
        'connection: while left > 0 {
            let read = body.read(&mut buffer).unwrap();
            for frame in parser.push(&buffer[..read]) {
                let data = frame.json();
                if frame.event == "change" {
                    let name = data["stream"].as_str().unwrap().to_owned();
                    let id = data["itemId"].as_str().unwrap().to_owned();
                    seen.entry(name.clone()).or_default().push(frame.position());
                    let item = pools.entry(name).or_default().entry(id).or_default();
                    item.extend(fields(&frame, "set"));
                } else if frame.event == "item" {
                    let name = data["stream"].as_str().unwrap().to_owned();
                    let id = data["itemId"].as_str().unwrap().to_owned();
                    let pool = pools.entry(name).or_default();
                    pool.insert(id, fields(&frame, "fields"));
                }
                last_id = frame.id.or(last_id);
                left -= 1;
                let id = last_id.as_deref().unwrap_or_default();
                let there = |n: usize| reached(id, streams[n].stream()) >= last[n];
                if left == 0 || (there(0) && there(1)) {
                    break 'connection;
                }
            }
        }
    }
    let id = last_id.unwrap();
    assert_eq!(id.matches(':').count(), 2, "{id}");
    for stream in &streams {
        let name = stream.stream();
        let until = reached(&id, name);
        let log = server.log(name);
        assert_eq!(
            pools[name],
            expected(&log, until, |_| true, None),
            "{name} at {until}"
        );
        let told = &seen[name];
        let once: BTreeSet<_> = told.iter().collect();
        assert!(told.is_sorted() && once.len() == told.len(), "{told:?}");
    }
}

/// Where a stream is in an id of several; zero if it is not in it.
fn reached(id: &str, stream: &str) -> u64 {
    let places = id.split(',').filter_map(|place| place.split_once(':'));
    let mut cursors = places.filter(|(name, _)| *name == stream);
    let cursor = cursors.next().map(|(_, cursor)| cursor);
    cursor.map_or(0, |cursor| {
        cursor.rsplit('.').next().unwrap().parse().unwrap()
    })
}

#[test]
fn long_polls_give_every_change_once() {
    let mut random = seeded("long-polls");
    let stream = Stream::new("polled");
    let server = &stream.shared.server;
    let mut place = "snapshot".to_owned();
    let mut pool = Pool::new();
    let mut last = 0;
    for _ in 0..15 {
        for _ in 0..random.random_range(1..20) {
            last = stream.post_random(&mut random);
        }
        while place == "snapshot" || reached(&format!("s:{place}"), "s") < last {
            let request = stream.changes(&format!("after={place}"));
            let request = request.header("Accept", "application/json");
            let answer = server.call(&request.header("Prefer", "wait=5")).expect(200);
            assert_eq!(answer.header("Content-Type"), Some("application/json"));
            let answer: Value = answer.json();
            assert!(!answer["frames"].as_array().unwrap().is_empty());
            for frame in answer["frames"].as_array().unwrap() {
                let data = &frame["data"];
                let id = data["itemId"].as_str().unwrap_or_default();
                let member = match frame["event"].as_str().unwrap() {
                    "item" => "fields",
                    "change" => "set",
                    _ => continue,
                };
                let frame = Frame {
                    event: String::new(),
                    id: None,
                    data: data.to_string(),
                };
                let item = pool.entry(id.to_owned()).or_default();
                item.extend(fields(&frame, member));
            }
            place = answer["cursor"].as_str().unwrap().to_owned();
        }
    }
    let log = server.log("polled");
    let until = reached(&format!("s:{place}"), "s");
    assert_eq!(pool, expected(&log, until, |_| true, None));
    let begun = Instant::now();
    let request = stream.changes(&format!("after={place}"));
    let request = request.header("Accept", "application/json");
    let empty: Value = server
        .call(&request.header("Prefer", "wait=1"))
        .expect(200)
        .json();
    assert!(begun.elapsed() >= Duration::from_secs(1), "it waits");
    assert_eq!(empty, json!({"frames": [], "cursor": place}));
}

#[test]
fn a_ticket_opens_one_stream_once_for_a_client_without_headers() {
    let stream = Stream::new("ticketed");
    let other = Stream::new("not-ticketed");
    let server = &stream.shared.server;
    let at = stream.post(r#"{"id":"a"}"#);
    server.items("ticketed", at);
    let key = server.add_reader("browser", &["ticketed", "not-ticketed"]);
    let ask = |key: &str, body: Value| {
        let request = Request::post("/api/tickets").bearer(key);
        server.call(&request.body(body.to_string()))
    };
    let answer = ask(&key, json!({"streams": ["ticketed"], "ttlSeconds": 30})).expect(201);
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    let answer: Value = answer.json();
    let ticket = answer["ticket"].as_str().unwrap();
    assert!(answer["expiresAt"].as_str().unwrap().ends_with('Z'));
    let open = |name: &str, ticket: &str| {
        let target = format!("/api/streams/{name}/changes?until=0&ticket={ticket}");
        server.call(&Request::get(&target))
    };
    let frames = Parser::default().push(&open("ticketed", ticket).expect(200).body);
    assert_eq!((&*frames[0].event, frames.len()), ("item", 3));
    open("ticketed", ticket).expect_problem(401, "UNAUTHORIZED");
    open("ticketed", "tk_none").expect_problem(401, "UNAUTHORIZED");

    let answer: Value = ask(&key, json!({"streams": ["ticketed"]}))
        .expect(201)
        .json();
    let ticket = answer["ticket"].as_str().unwrap();
    open(other.stream(), ticket).expect_problem(404, "NOT_FOUND");

    let answer: Value = ask(&key, json!({"streams": ["ticketed"]}))
        .expect(201)
        .json();
    let ticket = answer["ticket"].as_str().unwrap();
    server
        .admin("DELETE", "readers/browser", &Value::Null)
        .expect(204);
    open("ticketed", ticket).expect_problem(401, "UNAUTHORIZED");
    ask(&key, json!({"streams": ["ticketed"]})).expect_problem(401, "UNAUTHORIZED");

    let key = server.add_reader("narrow", &["ticketed"]);
    ask(&key, json!({"streams": ["not-ticketed"]})).expect_problem(404, "NOT_FOUND");
    for wrong in [
        json!({"streams": []}),
        json!({"streams": ["ticketed"], "ttlSeconds": 301}),
        json!({"streams": ["ticketed"], "ttlSeconds": 0}),
    ] {
        ask(&key, wrong).expect_problem(400, "INVALID_PARAMETER");
    }
    ask(&key, json!({"stream": "ticketed"})).expect_problem(400, "INVALID_PAYLOAD");
}

#[test]
fn pages_hold_the_items_that_meet_the_conditions() {
    let mut random = seeded("pages");
    let stream = Stream::new("pages-where");
    let mut last = 0;
    for n in 0..300 {
        let kind = ["a", "b"][random.random_range(0..2)];
        let n = format!(r#"{{"id":"{n:03}","n":{},"kind":"{kind}"}}"#, n % 10);
        last = stream.post(&n);
    }
    let server = &stream.shared.server;
    server.items("pages-where", last);
    let get = |target: &str| {
        let request = Request::get(target).bearer(&server.operator_key);
        server.call(&request)
    };
    let query = format!("where={}&where=kind%3Da&fields=n", percent("n>=5"));
    let mut target = format!("/api/streams/pages-where/items?limit=7&{query}");
    let mut pool = Pool::new();
    loop {
        let answer = get(&target).expect(200);
        let page: Value = answer.json();
        let items = page["items"].as_array().unwrap();
        for item in items {
            let id = item["itemId"].as_str().unwrap().to_owned();
            let frame = Frame {
                event: String::new(),
                id: None,
                data: item.to_string(),
            };
            assert!(pool.insert(id, fields(&frame, "fields")).is_none());
        }
        let Some(link) = answer.header("Link") else {
            break;
        };
        assert_eq!(items.len(), 7, "a page with a next one is full");
        target = link[1..link.find('>').unwrap()].to_owned();
    }
    let log = server.log("pages-where");
    assert_eq!(pool, expected(&log, last, wanted, Some(&["n"])));
    get("/api/streams/pages-where/items?where=%3D1").expect_problem(400, "INVALID_PARAMETER");
    get("/api/streams/pages-where/items?where=n%3Ctrue").expect_problem(400, "INVALID_PARAMETER");

    let first = "/api/streams/pages-where/items?limit=2";
    let tag = get(first).expect(200).header("ETag").unwrap().to_owned();
    let again = |tag: &str| {
        let request = Request::get(first).bearer(&server.operator_key);
        server.call(&request.header("If-None-Match", tag))
    };
    assert_eq!(again(&tag).status, 304);
    let at = stream.post(r#"{"id":"new"}"#);
    server.items("pages-where", at);
    again(&tag).expect(200);
}
