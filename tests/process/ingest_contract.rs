//! The ingest contract of `docs/protocol.md` over raw sockets against one server, where more is to be said than which request is refused:
//! that is in `tests/corpus`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::common::fold::{Event, Field, Pool, fold};
use crate::common::http::{Request, Response};
use crate::common::now_s;
use crate::common::server::{Connector, Data, Server, position, signed};
use crate::common::shared::{Shared, shared};

const MIB: usize = 1 << 20;

/// A stream of the shared server that belongs to one test.
struct Stream {
    shared: Arc<Shared>,
    connector: Connector,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Accepted {
    status: String,
    item_id: String,
    fields_updated: u64,
}

impl Stream {
    fn new(name: &str) -> Self {
        Self::with(json!({"stream": name}))
    }

    fn signed(name: &str) -> Self {
        Self::with(json!({"stream": name, "signed": true}))
    }

    fn with(settings: Value) -> Self {
        let shared = shared();
        let connector = shared.server.add_connector_with(&settings);
        Self { shared, connector }
    }

    fn server(&self) -> &Server {
        &self.shared.server
    }

    fn call(&self, request: &Request) -> Response {
        self.server().call(request)
    }

    fn post(&self, body: impl AsRef<[u8]>) -> Response {
        self.server().post(&self.connector, body)
    }

    /// A delivery with this query string.
    fn query(&self, query: &str, body: &str) -> Response {
        let target = format!("{}?{query}", self.connector.target());
        self.call(&self.connector.delivery_to(&target, body.as_bytes()))
    }

    /// The start of a request with the ingest key and nothing else.
    fn request(&self) -> Request {
        Request::post(&self.connector.target()).bearer(&self.connector.ingest_key)
    }

    fn log(&self) -> Vec<Event> {
        self.server().log(&self.connector.stream)
    }

    /// The items when everything in the log is applied, which have to be the fold of that log.
    fn items(&self) -> Pool {
        let log = self.log();
        let last = log.last().map_or(0, |event| event.position);
        let (_, pool) = self.server().items(&self.connector.stream, last);
        assert_eq!(pool, fold(&log));
        pool
    }

    /// Asserts a refusal that leaves no event behind and does not harm the next delivery.
    #[track_caller]
    fn refuses(&self, request: &Request, status: u16, code: &str) {
        let before = self.log().len();
        self.call(request).expect_problem(status, code);
        assert_eq!(self.log().len(), before, "a refused delivery is in the log");
        self.post("{}").expect(202);
        assert_eq!(self.log().len(), before + 1);
    }
}

#[track_caller]
fn accepted(response: Response) -> Accepted {
    let accepted: Accepted = response.expect(202).json();
    assert_eq!(accepted.status, "accepted");
    accepted
}

fn string(text: &str) -> Field {
    Field::String(text.to_owned())
}

fn verbatim(text: &str) -> Field {
    Field::Verbatim(text.to_owned())
}

/// The id is a UUID of version 7, in lower case.
#[track_caller]
fn assert_generated(response: Response) -> String {
    assert_eq!(response.header("DataPool-Notice"), Some("generated-id"));
    let id = accepted(response).item_id;
    let dashes: Vec<usize> = id.match_indices('-').map(|(at, _)| at).collect();
    assert_eq!((id.len(), &dashes[..]), (36, &[8, 13, 18, 23][..]), "{id}");
    assert!(
        id.bytes()
            .all(|b| matches!(b, b'-' | b'0'..=b'9' | b'a'..=b'f')),
        "{id}"
    );
    assert_eq!(
        (&id[14..15], "89ab".contains(&id[19..20])),
        ("7", true),
        "{id}"
    );
    id
}

// The answer.

#[test]
fn the_success_body_is_exactly_the_pages() {
    let stream = Stream::with(json!({"stream": "exact-body", "idField": "region"}));
    let answer = stream
        .post(r#"{ "region": "North", "sales": 142000 }"#)
        .expect(202);
    assert_eq!(
        answer.text(),
        r#"{"status":"accepted","itemId":"North","fieldsUpdated":2}"#
    );
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.header("DataPool-Notice"), None);
    assert_eq!(answer.header("Idempotency-Replayed"), None);
    assert!(!answer.header("X-Request-Id").unwrap().is_empty());
    let header = answer.header("DataPool-Position").unwrap();
    assert_eq!(
        header,
        position(&answer).to_string(),
        "decimal without decoration"
    );
    let event = &stream.log()[0];
    assert_eq!(event.position, position(&answer));
    assert_eq!(
        (&*event.item_id, &*event.op, &*event.connector),
        ("North", "upsert", "exact-body")
    );
    assert_eq!(event.body, r#"{ "region": "North", "sales": 142000 }"#);
    assert_eq!(event.bytes, event.body.len());
}

#[test]
fn an_item_id_is_escaped_in_the_success_body() {
    let stream = Stream::new("escaped-id");
    let answer = accepted(stream.post(r#"{"id":"a\"b\\c/\u00e9 %41"}"#));
    assert_eq!(answer.item_id, "a\"b\\c/é %41");
    assert!(stream.items().contains_key("a\"b\\c/é %41"));
}

#[test]
fn fields_updated_counts_distinct_properties_with_the_id() {
    let stream = Stream::new("fields-updated");
    for (body, count) in [
        ("{}", 0),
        (r#"{"id":"a"}"#, 1),
        (r#"{"id":"a","b":null,"c":{"d":1,"e":2}}"#, 3),
        (r#"{"a":1,"a":2,"\u0061":3,"b":4}"#, 2),
        (r#"{"":1}"#, 1),
    ] {
        assert_eq!(accepted(stream.post(body)).fields_updated, count, "{body}");
    }
}

// The fold.

#[test]
fn an_upsert_merges_at_the_top_level_and_stores_null() {
    let stream = Stream::new("upsert");
    stream
        .post(r#"{"id":"a","kept":1,"replaced":{"x":1},"nulled":"text"}"#)
        .expect(202);
    stream
        .post(r#"{"id":"a","replaced":{"y":2},"nulled":null,"added":true}"#)
        .expect(202);
    let items = stream.items();
    assert_eq!(items["a"]["kept"], verbatim("1"));
    assert_eq!(items["a"]["replaced"], string(r#"{"y":2}"#));
    assert_eq!(items["a"]["nulled"], verbatim("null"));
    assert_eq!(items["a"]["added"], verbatim("true"));
    assert_eq!(items["a"]["id"], string("a"));
}

#[test]
fn nested_values_are_strings_with_the_text_as_sent() {
    let stream = Stream::new("nested");
    let object = "{ \"b\" : [1.0,\t2e2], \"a\":{\"\\u0061\":null}}";
    let array = "[ ]";
    stream
        .post(format!(
            r#"{{"id":"a","object":{object} , "array": {array} }}"#
        ))
        .expect(202);
    let items = stream.items();
    assert_eq!(items["a"]["object"], string(object));
    assert_eq!(items["a"]["array"], string(array));
}

#[test]
fn expand_gives_nested_values_back_as_json() {
    let stream = Stream::new("expand");
    stream
        .post(r#"{"id":"a","object":{"n":[1,2]},"text":"[3]"}"#)
        .expect(202);
    stream.items();
    let item: Value = stream
        .server()
        .get("/api/streams/expand/items/a?expand=json")
        .expect(200)
        .json();
    assert_eq!(
        item["fields"],
        json!({"id": "a", "object": {"n": [1, 2]}, "text": "[3]"})
    );
}

#[test]
fn expanded_values_stay_on_one_line_wherever_they_are_told() {
    let stream = Stream::new("expand-lines");
    let posted = stream.post("{\"id\":\"a\",\"object\":{\"n\":[1,\r\n2.0]}}");
    let position = position(&posted.expect(202));
    stream.server().items("expand-lines", position);
    let get = |target: &str, accept: &str| {
        let target = format!("/api/streams/expand-lines/{target}expand=json");
        let request = Request::get(&target).bearer(&stream.server().operator_key);
        stream.server().call(&request.header("Accept", accept))
    };
    let expanded = r#"{"n":[1,  2.0]}"#;
    for target in ["items?", "items/a?", "items/a/history?", "diff?from=0&to="] {
        let target = match target.strip_suffix("to=") {
            Some(_) => format!("{target}{position}&"),
            None => target.to_owned(),
        };
        let answer = get(&target, "*/*").expect(200);
        assert!(
            answer.text().contains(expanded),
            "{target}: {}",
            answer.text()
        );
    }
    for start in ["snapshot", "earliest"] {
        for more in ["", "&fields=object", "&conflate=1"] {
            let target = format!("changes?after={start}&until={position}{more}&");
            for accept in ["text/event-stream", "application/x-ndjson"] {
                let answer = get(&target, accept).expect(200);
                let line = answer.text().lines().find(|line| line.contains(expanded));
                assert!(line.is_some(), "{accept} {target}: {}", answer.text());
            }
        }
    }
}

#[test]
fn numbers_come_back_as_they_were_sent() {
    let stream = Stream::new("numbers");
    let numbers = [
        "1.0",
        "1e2",
        "1E+2",
        "-0",
        "-0.0",
        "0.10",
        "18446744073709551616",
        "9007199254740993",
        "123456789012345678901234567890",
        "0.1234567890123456789012345678901",
        "1e400",
        "1e-999",
    ];
    let members: Vec<String> = numbers
        .iter()
        .enumerate()
        .map(|(n, number)| format!(r#""n{n}":{number}"#))
        .collect();
    let body = format!(r#"{{"id":"a",{}}}"#, members.join(","));
    stream.post(&body).expect(202);
    let items = stream.items();
    for (n, number) in numbers.iter().enumerate() {
        assert_eq!(items["a"][&format!("n{n}")], verbatim(number));
    }
    let log = stream.log();
    assert_eq!(log[0].body, body);
    let target = format!("/api/streams/numbers/log/{}", log[0].position);
    let request = Request::get(&target).bearer(&stream.server().operator_key);
    let raw = stream
        .call(&request.header("Accept", "application/octet-stream"))
        .expect(200);
    assert_eq!(raw.text(), body);
}

#[test]
fn field_names_are_kept_and_distinct() {
    let stream = Stream::new("field-names");
    let body = "{\"id\":\"a\",\"\":1,\"__proto__\":2,\"a\\nb\":3,\"\\\"\":4,\"\u{e9}\":5,\"e\u{301}\":6,\
        \"\u{1f600}\":7,\"\\ud83d\\ude01\":8,\"a.b\":9}";
    assert_eq!(accepted(stream.post(body)).fields_updated, 10);
    let item = &stream.items()["a"];
    assert_eq!(item["__proto__"], verbatim("2"));
    assert_eq!(item["a\nb"], verbatim("3"));
    assert_eq!(item["\u{1f601}"], verbatim("8"));
    assert_eq!(
        (&item["\u{e9}"], &item["e\u{301}"]),
        (&verbatim("5"), &verbatim("6"))
    );
}

// The item id.

#[test]
fn a_number_or_boolean_as_id_is_its_json_text() {
    let stream = Stream::new("scalar-ids");
    for (id, item_id) in [
        ("42", "42"),
        ("\"42\"", "42"),
        ("42.0", "42.0"),
        ("4.2e1", "4.2e1"),
        ("true", "true"),
    ] {
        assert_eq!(
            accepted(stream.post(format!(r#"{{"id":{id}}}"#))).item_id,
            item_id
        );
    }
    let ids: Vec<String> = stream.items().into_keys().collect();
    assert_eq!(
        ids,
        ["4.2e1", "42", "42.0", "true"],
        "42 and \"42\" are one item"
    );
}

#[test]
fn an_id_that_cannot_be_one_is_generated() {
    let stream = Stream::new("generated-ids");
    let bodies = [
        "{}",
        r#"{"id":null}"#,
        r#"{"id":""}"#,
        r#"{"id":{}}"#,
        r#"{"id":["a"]}"#,
    ];
    let ids: BTreeSet<String> = bodies
        .iter()
        .map(|body| assert_generated(stream.post(body)))
        .collect();
    assert_eq!(ids.len(), bodies.len());
    let logged: BTreeSet<String> = stream
        .log()
        .into_iter()
        .map(|event| event.item_id)
        .collect();
    assert_eq!(logged, ids, "fixed at append");
}

#[test]
fn an_id_field_that_is_missing_does_not_fall_back_to_id() {
    let stream = Stream::new("no-fallback");
    let id = assert_generated(stream.query("idField=absent", r#"{"id":"a","b":1}"#));
    assert_eq!(stream.items()[&id]["id"], string("a"));
}

#[test]
fn the_id_field_of_the_request_wins_over_the_connectors() {
    let stream = Stream::with(json!({"stream": "id-fields", "idField": "region"}));
    let body = r#"{"id":"i","region":"North","build":7}"#;
    assert_eq!(accepted(stream.post(body)).item_id, "North");
    assert_eq!(accepted(stream.query("idField=build", body)).item_id, "7");
    assert_eq!(accepted(stream.query("idField=b%75ild", body)).item_id, "7");
    assert_eq!(
        accepted(stream.query("idField=a.b", r#"{"a.b":"x","a":{"b":"y"}}"#)).item_id,
        "x"
    );
}

#[test]
fn an_empty_id_field_is_as_not_given() {
    let stream = Stream::new("empty-id-field");
    assert_eq!(
        accepted(stream.query("idField=", r#"{"id":"a","":"b"}"#)).item_id,
        "a"
    );
}

#[test]
fn an_item_id_has_at_most_256_bytes() {
    let stream = Stream::new("long-ids");
    let longest = "é".repeat(128);
    assert_eq!(
        accepted(stream.post(json!({"id": longest}).to_string())).item_id,
        longest
    );
    for id in [format!("{longest}x"), "x".repeat(70_000)] {
        let request = stream
            .connector
            .delivery(json!({"id": id}).to_string().as_bytes());
        stream.refuses(&request, 400, "INVALID_ITEM_ID");
    }
}

#[test]
fn of_duplicate_keys_the_last_wins_and_the_raw_body_keeps_both() {
    let stream = Stream::new("duplicate-keys");
    let body = r#"{"id":"a","x":1,"\u0078":2,"id":"b"}"#;
    let answer = stream.post(body);
    assert_eq!(answer.header("DataPool-Notice"), Some("duplicate-keys"));
    let answer = accepted(answer);
    assert_eq!((&*answer.item_id, answer.fields_updated), ("b", 2));
    assert_eq!(stream.items()["b"]["x"], verbatim("2"));
    assert_eq!(stream.log()[0].body, body);
    let both = stream.post(r#"{"x":1,"x":2}"#);
    let notice: BTreeSet<&str> = both
        .header("DataPool-Notice")
        .unwrap()
        .split(", ")
        .collect();
    assert_eq!(notice, BTreeSet::from(["duplicate-keys", "generated-id"]));
}

// The body.

#[test]
fn blanks_around_the_object_are_kept() {
    let stream = Stream::new("blanks");
    let body = "\r\n\t {\"id\":\"a\"} \n";
    stream.post(body).expect(202);
    assert_eq!(stream.log()[0].body, body);
}

/// An object of exactly this many bytes.
fn object_of(bytes: usize) -> String {
    format!(r#"{{"id":"a","x":"{}"}}"#, "x".repeat(bytes - 17))
}

#[test]
fn a_body_of_the_limit_is_accepted_chunked_or_not() {
    let stream = Stream::new("at-the-limit");
    let body = object_of(MIB);
    assert_eq!(body.len(), MIB);
    stream.post(&body).expect(202);
    stream
        .call(&stream.request().chunked(body.as_bytes(), 50_000))
        .expect(202);
    assert!(stream.log().iter().all(|event| event.body == body));
}

#[test]
fn endless_chunks_are_cut_off_at_the_limit() {
    let stream = Stream::new("endless");
    let mut connection = stream.server().connect();
    let request = stream.request().header("Transfer-Encoding", "chunked");
    connection.send(&request.encode()).unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(1 << 16));
    let sent = (0..4096)
        .take_while(|_| connection.send(chunk.as_bytes()).is_ok())
        .count();
    assert!(sent < 4096, "256 MiB were taken");
    assert!(stream.log().is_empty());
}

#[test]
fn a_body_that_never_comes_is_answered_408() {
    let stream = Stream::new("slow-body");
    let mut connection = stream.server().connect();
    let started = Instant::now();
    connection
        .send(&stream.request().header("Content-Length", "100").encode())
        .unwrap();
    connection.send(br#"{"id":"a""#).unwrap();
    connection
        .response()
        .unwrap()
        .expect_problem(408, "BODY_TIMEOUT");
    assert!(started.elapsed() >= Duration::from_secs(9));
    assert!(stream.log().is_empty());
}

// The credential.

/// The whole answer but for what may differ between two of them.
fn without_identity(response: &Response) -> (u16, Vec<(String, String)>, String) {
    let id = response.header("X-Request-Id").unwrap().to_owned();
    let varying = |name: &str| ["date", "x-request-id"].contains(&name.to_lowercase().as_str());
    let headers = response
        .headers
        .iter()
        .filter(|(name, _)| !varying(name))
        .cloned()
        .collect();
    (
        response.status,
        headers,
        response.text().replace(&id, "<id>"),
    )
}

/// A server that closed on unread bytes would reset the connection, and with it the answer.
#[test]
fn a_refusal_arrives_although_the_body_was_still_coming() {
    let stream = Stream::new("refused-large");
    let body = vec![b' '; 900 << 10];
    let request = Request::post(&stream.connector.target()).body(body);
    let mut connection = stream.server().connect();
    for part in request.encode().chunks(300 << 10) {
        connection.send(part).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    let answer = connection.response().unwrap();
    answer.expect_problem(401, "UNAUTHORIZED");
}

#[test]
fn every_bad_credential_gets_the_same_401_byte_for_byte() {
    let stream = Stream::new("credentials");
    let other = Stream::signed("credentials-other");
    let revoked = Stream::new("credentials-revoked");
    let Connector { name, key_id, .. } = &revoked.connector;
    let target = format!("connectors/{name}/keys/{key_id}");
    stream
        .server()
        .admin("DELETE", &target, &json!({}))
        .expect(204);

    let key = &*stream.connector.ingest_key;
    let (id, secret) = key.strip_prefix("ik_").unwrap().split_once('_').unwrap();
    let reader = stream.server().add_reader("credentials", &["*"]);
    let to = |name: &str, authorization: &str| {
        Request::post(&format!("/api/webhook/{name}"))
            .header("Authorization", authorization)
            .body("{}")
    };
    let here = |authorization: &str| to("credentials", authorization);
    let flipped = if secret.ends_with('A') { "B" } else { "A" };
    let cases = [
        (
            "no header",
            Request::post("/api/webhook/credentials").body("{}"),
        ),
        (
            "unknown stream",
            to("credentials-nowhere", &format!("Bearer {key}")),
        ),
        (
            "key of another stream",
            here(&format!("Bearer {}", other.connector.ingest_key)),
        ),
        (
            "signed stream, other key",
            to("credentials-other", &format!("Bearer {key}")),
        ),
        (
            "revoked",
            to(name, &format!("Bearer {}", revoked.connector.ingest_key)),
        ),
        (
            "unknown id",
            here(&format!("Bearer ik_000000000000_{secret}")),
        ),
        (
            "wrong secret",
            here(&format!(
                "Bearer ik_{id}_{}{flipped}",
                &secret[..secret.len() - 1]
            )),
        ),
        ("longer secret", here(&format!("Bearer {key}A"))),
        ("no secret", here(&format!("Bearer ik_{id}_"))),
        ("other case", here(&format!("Bearer IK_{id}_{secret}"))),
        ("read key", here(&format!("Bearer {reader}"))),
        (
            "operator key",
            here(&format!("Bearer {}", stream.server().operator_key)),
        ),
        (
            "signing key",
            here(&format!(
                "Bearer {}",
                other.connector.signing_key.as_ref().unwrap()
            )),
        ),
        ("Basic", here(&format!("Basic {key}"))),
        ("no scheme", here(key)),
        ("scheme only", here("Bearer")),
        ("two keys", here(&format!("Bearer {key}, Bearer {key}"))),
        (
            "repeated",
            here(&format!("Bearer {key}\r\nAuthorization: Bearer {key}")),
        ),
        (
            "good then bad",
            here(&format!("Bearer {key}\r\nAuthorization: Bearer x")),
        ),
        (
            "key in the query",
            Request::post(&format!("/api/webhook/credentials?key={key}")).body("{}"),
        ),
        (
            "broken body too",
            to("credentials-nowhere", "Bearer x").header("X-Webhook-Signature", "x"),
        ),
    ];
    let mut first = None;
    for (case, request) in &cases {
        let answer = stream.call(request);
        assert_eq!(answer.status, 401, "{case}");
        answer.expect_problem(401, "UNAUTHORIZED");
        assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"), "{case}");
        let answer = without_identity(&answer);
        assert_eq!(
            first.get_or_insert_with(|| answer.clone()),
            &answer,
            "{case}"
        );
    }
    let mut bytes = b"Bearer ".to_vec();
    bytes.extend_from_slice(&[0xe9, 0xff]);
    let odd = Request::post("/api/webhook/credentials")
        .header("Authorization", bytes)
        .body("{}");
    assert_eq!(Some(without_identity(&stream.call(&odd))), first);
    assert!(stream.log().is_empty() && other.log().is_empty() && revoked.log().is_empty());
}

#[test]
fn a_rotated_key_works_until_its_overlap_ends_and_the_new_one_at_once() {
    let stream = Stream::new("rotation");
    let rotate = |overlap: u64| {
        let body = json!({"overlapSeconds": overlap});
        let answer = stream
            .server()
            .admin("POST", "connectors/rotation/keys:rotate", &body);
        let key = answer.expect(200).json::<Value>()["ingestKey"]
            .as_str()
            .unwrap()
            .to_owned();
        Connector {
            ingest_key: key,
            ..stream.connector.clone()
        }
    };
    let second = rotate(3600);
    stream.post("{}").expect(202);
    stream.server().post(&second, "{}").expect(202);
    let third = rotate(0);
    stream.post("{}").expect_problem(401, "UNAUTHORIZED");
    stream
        .server()
        .post(&second, "{}")
        .expect_problem(401, "UNAUTHORIZED");
    stream.server().post(&third, "{}").expect(202);
}

#[test]
fn a_disabled_connector_is_refused_until_it_is_enabled() {
    let stream = Stream::new("disabled");
    stream
        .server()
        .admin("POST", "connectors/disabled:disable", &json!({}))
        .expect(200);
    stream.post("{}").expect_problem(401, "UNAUTHORIZED");
    stream
        .server()
        .admin("POST", "connectors/disabled:enable", &json!({}))
        .expect(200);
    stream.post("{}").expect(202);
}

// The signature.

#[test]
fn turning_signing_on_refuses_unsigned_deliveries() {
    let stream = Stream::new("signing-on");
    stream.post("{}").expect(202);
    let target = "connectors/signing-on/signing-keys:rotate";
    let answer = stream
        .server()
        .admin("POST", target, &json!({}))
        .expect(200)
        .json::<Value>();
    let key = answer["signingKey"].as_str().unwrap().to_owned();
    assert!(key.starts_with("whsk_"));
    stream.post("{}").expect_problem(401, "SIGNATURE_INVALID");
    let with_key = Connector {
        signing_key: Some(key),
        ..stream.connector.clone()
    };
    stream.server().post(&with_key, "{}").expect(202);
}

// The replay.

/// The parts of an answer that a replay has to repeat.
fn first_answer(response: &Response) -> (u16, &str, u64) {
    (response.status, response.text(), position(response))
}

#[test]
fn a_replayed_signed_request_gets_the_first_answer_and_no_second_event() {
    let stream = Stream::signed("replay");
    let request = stream.connector.delivery(br#"{"n":1}"#);
    let first = stream.call(&request).expect(202);
    let newer = stream.post(r#"{"n":2}"#).expect(202);
    for _ in 0..3 {
        let again = stream.call(&request);
        assert_eq!(first_answer(&again), first_answer(&first));
        assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    }
    assert_eq!(newer.header("Idempotency-Replayed"), None);
    assert_eq!(stream.log().len(), 2);
}

#[test]
fn a_replay_of_an_older_delivery_does_not_roll_the_item_back() {
    let stream = Stream::signed("no-roll-back");
    let older = stream.connector.delivery(br#"{"id":"a","n":1}"#);
    stream.call(&older).expect(202);
    stream.post(r#"{"id":"a","n":2}"#).expect(202);
    stream.call(&older).expect(202);
    assert_eq!(stream.items()["a"]["n"], verbatim("2"));
}

#[test]
fn concurrent_replays_make_one_event() {
    let stream = Stream::signed("concurrent-replay");
    let request = stream.connector.delivery(br#"{"n":1}"#);
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| stream.call(&request)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for answer in &answers {
        assert_eq!(first_answer(answer), first_answer(&answers[0]));
    }
    let fresh = answers
        .iter()
        .filter(|a| a.header("Idempotency-Replayed").is_none())
        .count();
    assert_eq!((fresh, stream.log().len()), (1, 1));
}

#[test]
fn where_replay_is_allowed_each_one_is_an_event() {
    let stream =
        Stream::with(json!({"stream": "replay-allowed", "signed": true, "replay": "allow"}));
    let request = stream.connector.delivery(b"{}");
    let first = stream.call(&request).expect(202);
    let second = stream.call(&request).expect(202);
    assert!(position(&second) > position(&first));
    assert_eq!(second.header("Idempotency-Replayed"), None);
    assert_eq!(stream.log().len(), 2);
}

#[test]
fn a_replay_is_recognised_after_a_stop_and_after_a_kill() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("sales", true);
    let request = connector.delivery(br#"{"no":"id"}"#);
    let first = server.call(&request).expect(202);

    let server = server.restart();
    let again = server.call(&request);
    assert_eq!(first_answer(&again), first_answer(&first));
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));

    server.kill9();
    let server = data.serve();
    let again = server.call(&request);
    assert_eq!(first_answer(&again), first_answer(&first));
    assert_eq!(server.log("sales").len(), 1);
}

// The path and the method.

#[test]
fn a_stream_name_has_up_to_64_characters_of_the_listed_ones() {
    let longest = format!("0aZ._-{}", "x".repeat(58));
    let stream = Stream::new(&longest);
    stream.post("{}").expect(202);
    for name in [
        "",
        "-a",
        ".a",
        "_a",
        "a b",
        "a/b",
        "é",
        &format!("{longest}x"),
    ] {
        let answer = stream
            .server()
            .admin("POST", "connectors", &json!({"stream": name}));
        answer.expect(400);
    }
}

#[test]
fn checks_run_in_their_order() {
    let stream = Stream::signed("order-of-checks");
    let target = stream.connector.target();
    let get = Request::get(&target).bearer("nonsense");
    stream.call(&get).expect_problem(405, "METHOD_NOT_ALLOWED");
    let bad_key = signed(Request::post(&target).bearer("nonsense"), "x", "1", b"[").body("[");
    stream.call(&bad_key).expect_problem(401, "UNAUTHORIZED");
    let bad_signature = signed(stream.request(), "x", &now_s().to_string(), b"[").body("[");
    stream
        .call(&bad_signature)
        .expect_problem(401, "SIGNATURE_INVALID");
    stream.post("[").expect_problem(400, "INVALID_PAYLOAD");
    let first = stream.connector.delivery(b"[");
    stream.call(&first).expect_problem(400, "INVALID_PAYLOAD");
    stream.call(&first).expect_problem(400, "INVALID_PAYLOAD");
}

// The transport.

#[test]
fn pipelined_deliveries_keep_their_order() {
    let stream = Stream::new("pipeline");
    let requests: Vec<Vec<u8>> = (0..50)
        .map(|n| {
            stream
                .connector
                .delivery(format!(r#"{{"id":"a","n":{n}}}"#).as_bytes())
                .encode()
        })
        .collect();
    let mut connection = stream.server().connect();
    connection.send(&requests.concat()).unwrap();
    let positions: Vec<u64> = (0..50)
        .map(|_| position(&connection.response().unwrap().expect(202)))
        .collect();
    assert!(positions.is_sorted_by(|a, b| a < b));
    assert_eq!(stream.items()["a"]["n"], verbatim("49"));
}

#[test]
fn a_delivery_split_at_every_byte_is_one_delivery() {
    let stream = Stream::new("split");
    let bytes = stream.connector.delivery(br#"{"id":"a"}"#).encode();
    let mut connection = stream.server().connect();
    for byte in bytes {
        connection.send(&[byte]).unwrap();
    }
    connection.response().unwrap().expect(202);
    assert_eq!(stream.log().len(), 1);
}

#[test]
fn a_problem_echoes_nothing_that_was_sent() {
    let stream = Stream::new("echo");
    let canary = "canary-51d7";
    let bodies = [
        format!(r#"{{"{canary}":}}"#),
        format!(r#"{{"id":"{canary}\u0000"}}"#),
        canary.to_owned(),
    ];
    for body in bodies {
        let answer = stream.query(&format!("x={canary}"), &body);
        assert_eq!(answer.status, 400);
        assert!(!String::from_utf8_lossy(&answer.body).contains(canary));
    }
}
