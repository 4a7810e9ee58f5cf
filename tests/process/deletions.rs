//! Deletions and dry runs as `docs/protocol.md` promises them, and how they look at the command line, on the real binary.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::eventually;
use crate::common::http::{Request, Response};
use crate::common::server::{Connector, Data, Server, percent, position, signed};
use crate::common::shared::Stream;
use crate::common::terminal::Terminal;

fn get(stream: &Stream, target: &str) -> Response {
    let target = format!("/api/streams/{}/{target}", stream.connector.stream);
    let key = &stream.shared.server.operator_key;
    stream
        .shared
        .server
        .call(&Request::get(&target).bearer(key))
}

fn delete(stream: &Stream, item: &str) -> u64 {
    let request = stream.connector.deletion(item);
    let answer = stream.shared.server.call(&request).expect(202);
    let body: Value = answer.json();
    assert_eq!(body, json!({ "status": "accepted", "itemId": item }));
    assert!(answer.header("x-request-id").is_some());
    position(&answer)
}

fn applied(stream: &Stream, position: u64) {
    let server = &stream.shared.server;
    server.items(&stream.connector.stream, position);
}

fn rows(text: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_deleted_item_is_gone_for_readers_and_its_past_stays() {
    let stream = Stream::new("deleted");
    stream.post(r#"{"id":"other","n":0}"#);
    let made = stream.post(r#"{"id":"a/b","n":1,"m":1}"#);
    let gone = delete(&stream, "a/b");
    let id = percent("a/b");
    applied(&stream, gone);
    get(&stream, &format!("items/{id}")).expect(404);
    let page: Value = get(&stream, "items").expect(200).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let then: Value = get(&stream, &format!("items/{id}?at={made}"))
        .expect(200)
        .json();
    assert_eq!(then["fields"]["m"], 1);
    let then: Value = get(&stream, &format!("items?at={made}")).expect(200).json();
    assert_eq!(then["items"].as_array().unwrap().len(), 2);
    get(&stream, &format!("items/{id}?at={gone}")).expect(404);

    let history: Value = get(&stream, &format!("items/{id}/history"))
        .expect(200)
        .json();
    let last = &history["events"][1];
    assert_eq!(
        (&last["op"], &last["position"]),
        (&json!("delete"), &json!(gone))
    );
    assert_eq!(last["fields"]["m"], json!({ "old": 1 }));
    let log: Value = get(&stream, "log?body=true").expect(200).json();
    let last = &log["events"][2];
    assert_eq!((&last["op"], &last["bytes"]), (&json!("delete"), &json!(0)));

    let diff = get(&stream, &format!("diff?from={made}&to={gone}")).expect(200);
    let fields = json!({ "id": { "old": "a/b" }, "n": { "old": 1 }, "m": { "old": 1 } });
    let removed = json!({ "kind": "removed", "itemId": "a/b", "fields": fields });
    assert_eq!(rows(diff.text()), [removed]);

    // What comes later starts from nothing.
    let again = stream.post(r#"{"id":"a/b","k":2}"#);
    applied(&stream, again);
    let item: Value = get(&stream, &format!("items/{id}?meta=true")).json();
    assert_eq!(item["fields"], json!({ "id": "a/b", "k": 2 }));
    assert_eq!(item["meta"]["k"]["position"], again);
    let diff = get(&stream, &format!("diff?from={gone}&to={again}")).expect(200);
    assert_eq!(rows(diff.text())[0]["kind"], "added");
}

#[test]
fn deleting_what_is_not_there_is_recorded_and_told_to_nobody() {
    let stream = Stream::new("deleted-nothing");
    let first = delete(&stream, "nobody");
    let second = delete(&stream, "nobody");
    let there = stream.post(r#"{"id":"a"}"#);
    assert!(first < second);
    applied(&stream, there);
    let page: Value = get(&stream, "items").expect(200).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    for query in ["", "&where=!x", "&conflate=100"] {
        let told = get(
            &stream,
            &format!("changes?after=earliest&until={there}{query}"),
        );
        let text = told.expect(200).text().to_owned();
        assert!(
            !text.contains("\"delete\"") && text.contains("\"upsert\""),
            "{text}"
        );
    }
}

#[test]
fn every_kind_of_follower_is_told_of_a_deletion() {
    let stream = Stream::new("deleted-told");
    let made = stream.post(r#"{"id":"a","n":1}"#);
    let gone = delete(&stream, "a");
    applied(&stream, gone);
    let server = &stream.shared.server;
    for query in ["", "&where=n%3D1", "&fields=n", "&item=a"] {
        for accept in ["text/event-stream", "application/x-ndjson"] {
            let target =
                format!("/api/streams/deleted-told/changes?after=earliest&until={gone}{query}");
            let request = Request::get(&target).bearer(&server.operator_key);
            let told = server.call(&request.header("Accept", accept)).expect(200);
            let text = told.text();
            let deletion = format!(
                r#"{{"op":"delete","stream":"deleted-told","itemId":"a","set":{{}},"position":{gone}"#
            );
            assert!(text.contains(&deletion), "{query} {accept}: {text}");
            assert_eq!(text.matches(r#""op":"upsert""#).count(), 1, "{text}");
        }
    }
    // Merged, it came and went: for such a reader it was never there, and who saw it is told.
    let target = format!("changes?after=earliest&until={gone}&conflate=100");
    let text = get(&stream, &target).expect(200).text().to_owned();
    assert!(!text.contains(r#""op""#), "{text}");
    let time: Value = get(&stream, &format!("log/{made}")).expect(200).json();
    let seen = time["time"].as_str().unwrap();
    let target = format!("changes?after={seen}&until={gone}&conflate=100");
    let text = get(&stream, &target).expect(200).text().to_owned();
    assert_eq!(text.matches(r#""op":"delete""#).count(), 1, "{text}");
}

#[test]
fn merged_changes_are_of_the_events_that_changed_something() {
    let stream = Stream::new("deleted-merged");
    let made = stream.post(r#"{"id":"a","n":1}"#);
    let gone = delete(&stream, "a");
    delete(&stream, "a");
    delete(&stream, "b");
    let there = stream.post(r#"{"id":"b","n":1}"#);
    applied(&stream, there);
    let time: Value = get(&stream, &format!("log/{made}")).expect(200).json();
    let after = time["time"].as_str().unwrap();
    let target =
        format!("/api/streams/deleted-merged/changes?after={after}&until={there}&conflate=100");
    let server = &stream.shared.server;
    let request = Request::get(&target).bearer(&server.operator_key);
    let told = server.call(&request.header("Accept", "application/x-ndjson"));
    let frames = rows(told.expect(200).text());
    let changes = frames.iter().filter(|frame| frame["event"] == "change");
    let facts = ["op", "itemId", "position", "merged"];
    let changes: Vec<_> = changes
        .map(|change| facts.map(|fact| change["data"][fact].clone()))
        .collect();
    let expected = [
        [json!("delete"), json!("a"), json!(gone), json!(1)],
        [json!("upsert"), json!("b"), json!(there), json!(1)],
    ];
    assert_eq!(changes, expected, "{frames:?}");
}

#[test]
fn somebody_at_a_terminal_sees_that_an_item_was_deleted() {
    let stream = Stream::new("deleted-shown");
    let server = &stream.shared.server;
    let terminal = Terminal::at(server);
    stream.post(r#"{"id":"North","n":1}"#);
    let gone = delete(&stream, "North");
    let nothing = delete(&stream, "North");
    let back = stream.post(r#"{"id":"North","n":5}"#);
    stream.post(r#"{"id":"South","n":1}"#);
    let last = delete(&stream, "North");
    applied(&stream, last);
    let line = |table: &str, position: u64| {
        let start = format!("{position} ");
        let mut lines = table.lines();
        lines
            .find(|line| line.trim_start().starts_with(&start))
            .map(str::to_owned)
    };

    let tail = format!("hookpool tail deleted-shown --from earliest --until {last}");
    let (told, _) = terminal.expect(&tail, 0);
    for deletion in [gone, last] {
        let told = line(&told, deletion).unwrap();
        assert!(told.contains("  delete  North  gone  20"), "{told}");
    }
    assert_eq!(line(&told, nothing), None, "{told}");

    let (history, _) = terminal.expect("hookpool items history deleted-shown North", 0);
    let deletion = line(&history, gone).unwrap();
    assert!(deletion.contains("  delete  deleted-shown  "), "{history}");
    assert!(deletion.ends_with(r#"  id="North"-> n=1->"#), "{history}");
    let nothing = line(&history, nothing).unwrap();
    assert!(nothing.contains("  delete  "), "{history}");
    assert!(nothing.ends_with("  was not there"), "{history}");
    assert!(line(&history, back).unwrap().contains("  upsert  "));

    let get = "hookpool items get deleted-shown North";
    for (at, deleted) in [(String::new(), last), (format!("--at {gone}"), gone)] {
        for output in ["pretty", "json"] {
            let (shown, said) = terminal.expect(&format!("{get} {at} --output {output}"), 3);
            assert_eq!(shown, "");
            let deleted = format!("the item was deleted at position {deleted} (404 NOT_FOUND");
            assert!(said.contains(&deleted), "{said}");
            assert!(said.contains("`hookpool items history`"), "{said}");
        }
    }
    let (then, _) = terminal.expect(&format!("{get} --at {back}"), 0);
    assert!(then.lines().any(|line| line == "n      5"), "{then}");
    let (_, never) = terminal.expect(&format!("{get}west"), 3);
    assert!(!never.contains("was deleted"), "{never}");

    let (top, _) = terminal.expect("hookpool top --interval 50ms --output json", 0);
    let top: Value = serde_json::from_str(&top).unwrap();
    let streams = top["streams"].as_array().unwrap();
    let row = streams.iter().find(|row| row["stream"] == "deleted-shown");
    assert_eq!([&row.unwrap()["events"], &row.unwrap()["items"]], [6, 1]);
}

#[test]
fn the_command_line_gives_frames_and_histories_of_deletions_as_they_are() {
    let stream = Stream::new("deleted-given");
    let server = &stream.shared.server;
    let terminal = Terminal::at(server);
    for n in 0..3 {
        stream.post(&format!(r#"{{"id":"a","n":{n}.0,"m":{{"x": 1}}}}"#));
        stream.post(r#"{"id":"b","n":1}"#);
        delete(&stream, "a");
        delete(&stream, "nobody");
    }
    let last = stream.post(r#"{"id":"a","n":9}"#);
    applied(&stream, last);
    for (query, options) in [
        ("", ""),
        ("&item=a", "--item a"),
        ("&where=n%3E%3D1", "--where 'n>=1'"),
        ("&fields=n", "--fields n"),
        ("&conflate=100", "--conflate 100ms"),
    ] {
        let target =
            format!("/api/streams/deleted-given/changes?after=earliest&until={last}{query}");
        let request = Request::get(&target).bearer(&server.operator_key);
        let frames = server.call(&request.header("Accept", "application/x-ndjson"));
        let frames = frames.expect(200).text().to_owned();
        let tail = "hookpool tail deleted-given --from earliest --output ndjson";
        let (told, _) = terminal.expect(&format!("{tail} --until {last} {options}"), 0);
        let lines = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.is_empty());
            lines.map(str::to_owned).collect()
        };
        assert_eq!(lines(&told), lines(&frames), "{options}");
    }
    let history = "hookpool items history deleted-given a --output json";
    let (history, _) = terminal.expect(history, 0);
    let served = get(&stream, "items/a/history").expect(200);
    assert_eq!(history.trim_end(), served.text());
}

#[test]
fn readers_get_and_connectors_delete() {
    let stream = Stream::new("deleted-by");
    let server = &stream.shared.server;
    let other = server.add_connector("deleted-by-other", false);
    let reader = server.add_reader("deleted-by-reader", &["deleted-by"]);
    let target = "/api/streams/deleted-by/items/a";
    let refused = |key: &str| {
        let answer = server.call(&Request::new("DELETE", target).bearer(key));
        answer.expect_problem(401, "UNAUTHORIZED");
        let mut body: Value = answer.json();
        body["requestId"].take();
        body
    };
    let unknown = refused("ik_0123456789ab_nothing");
    for key in [&other.ingest_key, &reader, &server.operator_key] {
        assert_eq!(refused(key), unknown);
    }
    let unread = server.call(&Request::get(target).bearer(&stream.connector.ingest_key));
    unread.expect_problem(401, "UNAUTHORIZED");
    let post = server
        .call(&Request::post(target).bearer(&reader))
        .expect(405);
    assert_eq!(post.header("allow"), Some("GET, HEAD, DELETE"));

    let key = &stream.connector.ingest_key;
    let call = |target: &str, body: &str| {
        let request = Request::new("DELETE", target).bearer(key);
        server.call(&request.body(body.as_bytes().to_vec()))
    };
    call(target, "{}").expect_problem(400, "INVALID_PAYLOAD");
    call(&format!("{target}?dryRun=true"), "").expect_problem(400, "INVALID_PARAMETER");
    call("/api/streams/deleted-by/items/%00", "").expect_problem(400, "INVALID_ITEM_ID");
    assert!(server.log("deleted-by").is_empty());
}

#[test]
fn a_signed_deletion_is_known_again_and_one_of_another_item_is_another() {
    let stream = Stream::new("deleted-signed");
    let server = &stream.shared.server;
    let connector: Connector = server.add_connector_with(
        &json!({ "name": "deleted-signed-too", "stream": "deleted-signed", "signed": true }),
    );
    let first = connector.deletion("a");
    let at = position(&server.call(&first).expect(202));
    let again = server.call(&first).expect(202);
    assert_eq!(position(&again), at);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    // The same signature, since both bodies are empty.
    let timestamp = first_timestamp(&first);
    let target = "/api/streams/deleted-signed/items/b";
    let other = Request::new("DELETE", target).bearer(&connector.ingest_key);
    let key = connector.signing_key.as_deref().unwrap();
    let other = server
        .call(&signed(other, key, &timestamp, b""))
        .expect(202);
    assert!(position(&other) > at);
    assert_eq!(other.header("idempotency-replayed"), None);
    let unsigned = Request::new("DELETE", target).bearer(&connector.ingest_key);
    server
        .call(&unsigned)
        .expect_problem(401, "SIGNATURE_INVALID");
}

#[test]
fn a_deletion_with_a_key_is_one_and_its_key_is_that_of_one_deletion() {
    let stream = Stream::new("deleted-keys");
    let server = &stream.shared.server;
    let keyed = |item: &str, key: &str| {
        let request = stream.connector.deletion(item);
        server.call(&request.header("Idempotency-Key", key))
    };
    stream.post(r#"{"id":"a"}"#);
    let first = keyed("a", "k").expect(202);
    assert_eq!(first.header("idempotency-replayed"), None);
    // It would be another event, after one that brings the item back.
    let back = stream.post(r#"{"id":"a"}"#);
    let again = keyed("a", "k").expect(202);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(
        (again.text(), position(&again)),
        (first.text(), position(&first))
    );
    // Of another item, or as another call, it is another request.
    keyed("b", "k").expect_problem(422, "IDEMPOTENCY_MISMATCH");
    let delivery = stream.connector.delivery(br#"{"id":"a"}"#);
    server
        .call(&delivery.header("Idempotency-Key", "k"))
        .expect_problem(422, "IDEMPOTENCY_MISMATCH");
    keyed("a", "").expect_problem(400, "INVALID_PARAMETER");
    applied(&stream, back);
    get(&stream, "items/a").expect(200);
    let other = keyed("a", "l").expect(202);
    assert_eq!(other.header("idempotency-replayed"), None);
    assert_eq!(server.log("deleted-keys").len(), 4);
}

/// Each deletion is sent by all at once: one of them waits for the disk, and the others are told so or get its answer.
#[test]
fn a_deletion_whose_key_is_in_flight_is_told_to_come_again() {
    const CLIENTS: usize = 6;
    let stream = Stream::new("deleted-at-once");
    let server = &stream.shared.server;
    let mut keys = 0;
    eventually("one is in flight", Duration::from_secs(60), || {
        keys += 1;
        let request = stream.connector.deletion("a");
        let request = request.header("Idempotency-Key", keys.to_string());
        let start = Barrier::new(CLIENTS);
        let answers = std::thread::scope(|scope| {
            let send = || {
                let mut connection = server.connect();
                start.wait();
                connection.call(&request).unwrap()
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(send)).collect();
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .collect::<Vec<_>>()
        });
        let (told, early): (Vec<_>, Vec<_>) = answers.iter().partition(|it| it.status == 202);
        let places: BTreeSet<_> = told.iter().map(|it| position(it)).collect();
        assert_eq!(places.len(), 1, "{answers:?}");
        for answer in &early {
            answer.expect_problem(409, "IDEMPOTENCY_IN_PROGRESS");
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
        assert_eq!(
            position(&server.call(&request).expect(202)),
            *places.first().unwrap()
        );
        (!early.is_empty()).then_some(())
    });
    assert_eq!(server.log("deleted-at-once").len(), keys);
}

fn first_timestamp(request: &Request) -> String {
    let bytes = request.encode();
    let text = String::from_utf8(bytes).unwrap().to_lowercase();
    let (_, rest) = text.split_once("x-webhook-timestamp: ").unwrap();
    rest.lines().next().unwrap().to_owned()
}

#[test]
fn a_pool_that_is_rebuilt_has_the_same_items_and_the_same_past() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("sales", false);
    let mut last = 0;
    for n in 0..400 {
        let item = format!("item-{}", n % 7);
        let request = match n % 5 {
            3 => connector.deletion(&item),
            _ => connector.delivery(
                json!({ "id": item, (format!("f{}", n % 3)): n })
                    .to_string()
                    .as_bytes(),
            ),
        };
        last = position(&server.call(&request).expect(202));
    }
    let before = seen(&server, last);
    server.stop();
    std::fs::remove_dir_all(data.path().join("pool")).unwrap();
    let server = data.serve();
    assert_eq!(seen(&server, last), before);
}

fn seen(server: &Server, last: u64) -> Vec<String> {
    let read = |target: &str| {
        let request = Request::get(&format!("/api/streams/sales{target}"));
        let answer = server.call(&request.bearer(&server.operator_key));
        answer.text().to_owned()
    };
    let (_, items) = server.items("sales", last);
    assert_eq!(items, crate::common::fold::fold(&server.log("sales")));
    let mut seen = vec![read("?hash=true"), read(&format!("/items?at={}", last / 2))];
    seen.extend((0..7).map(|n| read(&format!("/items/item-{n}/history?limit=1000"))));
    seen
}

#[test]
fn a_dry_run_tells_what_would_happen_and_writes_nothing() {
    let stream = Stream::new("dry");
    let server = &stream.shared.server;
    let target = |query: &str| format!("/api/webhook/dry?idField=region&{query}");
    let ask = |query: &str, body: &str| {
        server.call(
            &stream
                .connector
                .delivery_to(&target(query), body.as_bytes()),
        )
    };
    let body = r#"{"region":"North","n":1.0,"n":1.0,"o":{"x": 1}}"#;
    let answer = ask("dryRun=true", body).expect(200);
    assert_eq!(
        answer.text(),
        r#"{"status":"dry-run","itemId":"North","generatedId":false,"fieldsUpdated":3,"projection":0,"quarantine":null,"changes":{"itemId":"North","set":{"n":1.0,"o":"{\"x\": 1}","region":"North"},"unset":[]}}"#
    );
    assert_eq!(answer.header("datapool-notice"), Some("duplicate-keys"));
    assert_eq!(answer.header("datapool-position"), None);
    let generated: Value = ask("dryRun=true", "{}").expect(200).json();
    assert_eq!(
        (&generated["generatedId"], &generated["itemId"]),
        (&json!(true), &Value::Null)
    );
    ask("dryRun=true", "[]").expect_problem(400, "INVALID_PAYLOAD");
    for bad in ["dryRun=1", "dryRun=yes", "dryRun=true&dryRun=true"] {
        ask(bad, body).expect_problem(400, "INVALID_PARAMETER");
    }
    let wrong = Request::post(&target("dryRun=true")).bearer("ik_0123456789ab_no");
    server
        .call(&wrong.body(body.as_bytes().to_vec()))
        .expect_problem(401, "UNAUTHORIZED");
    assert!(server.log("dry").is_empty());
    for given in ["dryRun=false", "dryRun="] {
        ask(given, body).expect(202);
    }
    assert_eq!(server.log("dry").len(), 2);
}
