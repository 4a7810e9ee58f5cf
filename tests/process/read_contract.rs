//! The reading contract of `docs/protocol.md`.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::common::http::{Request, Response};
use crate::common::server::{Connector, percent, position};
use crate::common::shared::{Shared, shared};

/// A stream with `items` items `a000`, `a001`, ... of one event each.
struct Filled {
    shared: Arc<Shared>,
    connector: Connector,
    last: u64,
}

fn filled(stream: &str, items: usize) -> Filled {
    let shared = shared();
    let connector = shared.server.add_connector(stream, false);
    let mut connection = shared.server.connect();
    let mut last = 0;
    for n in 0..items {
        let body = format!(r#"{{"id":"a{n:03}","n":{n}.50}}"#);
        last = position(
            &connection
                .call(&connector.delivery(body.as_bytes()))
                .unwrap()
                .expect(202),
        );
    }
    let filled = Filled {
        shared,
        connector,
        last,
    };
    filled
        .get(
            &format!("items?limit=1&minPosition={last}"),
            &[("Prefer", "wait=30")],
        )
        .expect(200);
    filled
}

impl Filled {
    /// A read under this stream with the operator's key.
    fn get(&self, target: &str, headers: &[(&str, &str)]) -> Response {
        let request = Request::get(&format!("/api/streams/{}/{target}", self.connector.stream));
        let request = request.bearer(&self.shared.server.operator_key);
        let add = |request: Request, (name, value): &(&str, &str)| request.header(name, value);
        self.shared.server.call(&headers.iter().fold(request, add))
    }

    fn json(&self, target: &str) -> Value {
        self.get(target, &[]).expect(200).json()
    }
}

#[test]
fn a_chain_of_pages_shows_one_position_while_writes_go_on() {
    let stream = filled("chain", 25);
    let (mut seen, mut at) = (Vec::new(), None);
    let mut target = "items?limit=10".to_owned();
    loop {
        let answer = stream.get(&target, &[]).expect(200);
        let page: Value = answer.json();
        // Other streams of this server move the position too, but not that of a chain.
        assert_eq!(
            *at.get_or_insert_with(|| page["position"].clone()),
            page["position"]
        );
        assert!(page["position"].as_u64() >= Some(stream.last));
        for item in page["items"].as_array().unwrap() {
            assert!(item["fields"].get("late").is_none(), "a torn chain: {item}");
            seen.push(item["itemId"].as_str().unwrap().to_owned());
        }
        let link = answer.header("Link");
        let Some(next) = page["next"].as_str() else {
            assert_eq!(link, None);
            break;
        };
        assert!(
            link.is_some_and(|link| link.contains("rel=\"next\"")),
            "{link:?}"
        );
        target = format!("items?limit=10&after={}", percent(next));
        for n in 0..25 {
            let body = format!(r#"{{"id":"a{n:03}","late":true}}"#);
            stream
                .shared
                .server
                .post(&stream.connector, body)
                .expect(202);
        }
    }
    let expected: Vec<String> = (0..25).map(|n| format!("a{n:03}")).collect();
    assert_eq!(seen, expected, "in byte order, each once");
}

#[test]
fn the_link_of_a_page_leads_to_the_next() {
    let stream = filled("links", 3);
    let first = stream.get("items?limit=2", &[]).expect(200);
    let link = first.header("Link").unwrap();
    let target = link.strip_prefix('<').unwrap().split_once('>').unwrap().0;
    let path = target.find("/api/").map(|at| &target[at..]).unwrap();
    let next: Value = stream.shared.server.get(path).expect(200).json();
    assert_eq!(
        next["items"],
        json!([{"itemId": "a002", "fields": {"id": "a002", "n": 2.5}}])
    );
}

#[test]
fn limits_and_parameters_that_make_no_sense_are_refused() {
    let stream = filled("parameters", 1);
    for target in [
        "items?limit=0",
        "items?limit=1001",
        "items?limit=x",
        "items?limt=1",
        "items?limit=1&limit=2",
        "items?after=%zz",
        "items?after=nonsense",
        "items?minPosition=-1",
        "items/a000?meta=maybe",
        "log?after=x",
        "log?limit=0",
        "log?body=perhaps",
        "changes?after=nowhere-good&heartbeat=0",
        "changes?heartbeat=61",
        "changes?unknown=1",
    ] {
        let answer = stream.get(target, &[]);
        assert_eq!(answer.status, 400, "{target}");
        answer.expect_problem(400, "INVALID_PARAMETER");
    }
}

#[test]
fn an_item_has_an_etag_that_changes_with_it() {
    let stream = filled("etags", 1);
    let first = stream.get("items/a000", &[]).expect(200);
    assert_eq!(
        first.text().replace(char::is_whitespace, ""),
        format!(
            r#"{{"itemId":"a000","fields":{{"id":"a000","n":0.50}},"position":{}}}"#,
            stream.last
        )
    );
    let tag = first.header("ETag").unwrap();
    let unchanged = stream
        .get("items/a000", &[("If-None-Match", tag)])
        .expect(304);
    assert!(unchanged.body.is_empty());
    assert_eq!(unchanged.header("ETag"), Some(tag));
    let answer = stream
        .shared
        .server
        .post(&stream.connector, r#"{"id":"a000","n":1}"#);
    let target = format!("items/a000?minPosition={}", position(&answer));
    let second = stream
        .get(&target, &[("If-None-Match", tag), ("Prefer", "wait=30")])
        .expect(200);
    assert_ne!(second.header("ETag"), Some(tag));
}

#[test]
fn meta_names_the_event_that_each_field_is_from() {
    let stream = filled("meta", 1);
    let answer = stream
        .shared
        .server
        .post(&stream.connector, r#"{"id":"a000","m":true}"#);
    let target = format!("items/a000?meta=true&minPosition={}", position(&answer));
    let item: Value = stream
        .get(&target, &[("Prefer", "wait=30")])
        .expect(200)
        .json();
    assert_eq!(item["meta"]["n"]["position"], stream.last);
    assert_eq!(item["meta"]["m"]["position"], position(&answer));
    assert_eq!(item["meta"]["m"]["connector"], "meta");
    assert!(item["meta"]["m"]["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn an_item_id_is_percent_encoded_in_the_path() {
    let stream = filled("odd-ids", 0);
    for id in ["a/b", "ü %", "..", "a?b#c", "%41"] {
        let answer = stream
            .shared
            .server
            .post(&stream.connector, json!({"id": id}).to_string());
        let target = format!("items/{}?minPosition={}", percent(id), position(&answer));
        let item: Value = stream
            .get(&target, &[("Prefer", "wait=30")])
            .expect(200)
            .json();
        assert_eq!(item["itemId"], id);
    }
}

#[test]
fn what_is_not_there_and_what_may_not_be_seen_look_alike() {
    let stream = filled("visible", 1);
    let hidden = filled("hidden", 1);
    let server = &stream.shared.server;
    let reader = server.add_reader("visible-only", &["visible"]);
    let read = |path: &str| server.call(&Request::get(path).bearer(&reader));
    read("/api/streams/visible/items/a000").expect(200);
    for path in [
        "items",
        "items/a000",
        "log",
        &format!("log/{}", hidden.last),
        "changes",
    ] {
        let unseen = read(&format!("/api/streams/hidden/{path}"));
        let absent = read(&format!("/api/streams/nowhere/{path}"));
        unseen.expect_problem(404, "NOT_FOUND");
        let plain = |answer: &Response| {
            answer
                .text()
                .replace(answer.header("X-Request-Id").unwrap(), "")
        };
        assert_eq!(plain(&unseen), plain(&absent), "{path}");
    }
    read("/api/streams/visible/items/nowhere").expect_problem(404, "NOT_FOUND");
    read("/api/streams/visible/log/999999999").expect_problem(404, "NOT_FOUND");
    // The position exists, in another stream.
    read(&format!("/api/streams/visible/log/{}", hidden.last)).expect_problem(404, "NOT_FOUND");

    let streams: Value = read("/api/streams").expect(200).json();
    let names: Vec<&Value> = streams["streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| &stream["stream"])
        .collect();
    assert_eq!(names, ["visible"]);
    assert_eq!(streams["streams"][0]["items"], 1);
}

#[test]
fn a_row_of_a_stream_has_its_name() {
    let stream = filled("named-rows", 1);
    let row: Value = stream
        .shared
        .server
        .get("/api/streams/named-rows")
        .expect(200)
        .json();
    assert_eq!(
        (&row["name"], &row["stream"]),
        (&json!("named-rows"), &json!("named-rows"))
    );
}

#[test]
fn every_read_waits_for_the_position_that_it_names() {
    let stream = filled("waiting-reads", 1);
    let log_event = format!("/log/{}", stream.last);
    for path in [
        "",
        "/items",
        "/items/a000",
        "/items/a000/history",
        "/log",
        &log_event,
    ] {
        let target = format!("/api/streams/waiting-reads{path}");
        waits(&stream, &target);
    }
    waits(&stream, "/api/streams");
}

fn waits(stream: &Filled, target: &str) {
    let server = &stream.shared.server;
    let far = server.get(&format!("{target}?minPosition={}", u64::MAX));
    far.expect_problem(503, "NOT_YET_APPLIED");
    server
        .get(&format!("{target}?minPosition={}", stream.last))
        .expect(200);
}

#[test]
fn reading_needs_a_read_key() {
    let stream = filled("read-keys", 1);
    let server = &stream.shared.server;
    for key in [
        &*stream.connector.ingest_key,
        "nonsense",
        "rk_000000000000_x",
    ] {
        for path in [
            "/api/streams",
            "/api/streams/read-keys/items",
            "/api/streams/read-keys/changes",
        ] {
            let answer = server.call(&Request::get(path).bearer(key));
            answer.expect_problem(401, "UNAUTHORIZED");
        }
    }
    let reader = server.add_reader("not-an-operator", &["*"]);
    let answer = server.call(&Request::get("/api/admin/connectors").bearer(&reader));
    answer.expect_problem(401, "UNAUTHORIZED");
}

#[test]
fn the_log_is_paged_oldest_first_and_until_is_included() {
    let stream = filled("paged-log", 7);
    let page = stream.json("log?limit=3");
    let positions = |page: &Value| -> Vec<u64> {
        let events = page["events"].as_array().unwrap();
        events
            .iter()
            .map(|event| event["position"].as_u64().unwrap())
            .collect()
    };
    let first = positions(&page);
    assert_eq!(first.len(), 3);
    assert_eq!(page["next"], first[2]);
    assert_eq!(page["events"][0].get("body"), None);
    let rest = stream.json(&format!("log?after={}&limit=1000", first[2]));
    assert_eq!(rest["next"], Value::Null);
    let all = [first, positions(&rest)].concat();
    assert_eq!((all.len(), all[6]), (7, stream.last));
    let some = stream.json(&format!("log?after={}&until={}", all[0], all[3]));
    assert_eq!(positions(&some), all[1..=3]);
}

#[test]
fn the_log_as_ndjson_is_one_event_a_line() {
    let stream = filled("ndjson-log", 3);
    let answer = stream
        .get("log?body=true", &[("Accept", "application/x-ndjson")])
        .expect(200);
    assert_eq!(answer.header("Content-Type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = answer
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answer.header("Link"), None, "there is no more");
    let page = stream.json("log?body=true");
    assert_eq!(Value::Array(lines), page["events"]);
    assert_eq!(page["events"][2]["body"], r#"{"id":"a002","n":2.50}"#);
}

#[test]
fn a_page_of_the_log_leads_to_the_next_in_either_form() {
    let stream = filled("linked-log", 5);
    for accept in ["application/json", "application/x-ndjson"] {
        let (mut target, mut pages) = ("log?limit=2&after=0".to_owned(), 1);
        loop {
            let answer = stream.get(&target, &[("Accept", accept)]).expect(200);
            let Some(link) = answer.header("Link") else {
                assert!(
                    answer.text().contains("a004"),
                    "{accept}: {}",
                    answer.text()
                );
                break;
            };
            let next = link.strip_suffix(">; rel=\"next\"").unwrap();
            let path = "</api/streams/linked-log/";
            next.strip_prefix(path).unwrap().clone_into(&mut target);
            assert!(target.starts_with("log?limit=2&after="), "{target}");
            pages += 1;
        }
        assert_eq!(pages, 3, "{accept}");
    }
}

#[test]
fn health_and_readiness_and_metrics_need_no_key() {
    let stream = filled("health", 1);
    let open = |path: &str| stream.shared.server.call(&Request::get(path)).expect(200);
    open("/healthz");
    let ready: Value = open("/readyz").json();
    assert_eq!(ready["status"], "ready");
    assert!(ready["position"].as_u64() >= Some(stream.last), "{ready}");
    let metrics = open("/metrics");
    assert!(
        metrics
            .text()
            .lines()
            .any(|line| line.starts_with("hookpool_"))
    );
}
