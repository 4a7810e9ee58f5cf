//! Rules tried on one item: what is said before anything is rebuilt is what a rebuild finds.

use std::fs;

use serde_json::{Value, json};

use super::{Operated, deliver, difference, operate};
use crate::common::http::{Request, Response};
use crate::common::server::{Data, percent};
use crate::common::terminal::Terminal;

const STREAM: &str = "tried";

/// Some move to other items, some fit the rules not at all, some come too late.
fn bodies() -> Vec<String> {
    let body = |n: usize| match n % 4 {
        0 => format!(r#"{{"id":"a{}","n":"none"}}"#, n % 7),
        1 => format!(
            r#"{{"id":"a{}","to":"b {}","n":"{n}","at":{}}}"#,
            n % 7,
            n % 3,
            n * 7 % 11
        ),
        _ => format!(r#"{{"id":"a{}","n":{n},"at":{}}}"#, n % 7, n * 5 % 13),
    };
    (0..90).map(body).collect()
}

fn rules() -> Value {
    json!({"id": "/to", "order-by": "/at", "fields": {"n": {"type": "number", "default": 0}}})
}

fn check(stream: Operated<'_>, rules: &Value, id: &str) -> Response {
    let target = format!(
        "/api/admin/streams/{STREAM}/projection?check=item&item={}",
        percent(id)
    );
    let request = Request::new("PUT", &target).bearer(&stream.server.operator_key);
    stream.server.call(&request.body(rules.to_string()))
}

#[test]
fn rules_tried_on_one_item_say_what_a_rebuild_finds() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector(STREAM, false);
    let stream = operate(&server, STREAM);
    let last = deliver(&server, &connector, &bodies());
    let (_, served) = server.items(STREAM, last);
    let tried: Vec<(String, Value)> = served
        .keys()
        .cloned()
        .chain(["b 0", "b 1", "b 2", "nobody"].map(str::to_owned))
        .map(|id| {
            let answer: Value = check(stream, &rules(), &id).expect(200).json();
            assert_eq!(answer["position"], last);
            (id, answer)
        })
        .collect();
    for id in served.keys() {
        let same: Value = check(stream, &json!({}), id).expect(200).json();
        assert_eq!(same["difference"], Value::Null, "{id}");
        assert_ne!(same["events"], 0, "{id}");
    }
    check_cli(stream);

    stream.start(&json!({"projection": rules()}));
    stream.ready();
    let (_, lines) = stream.diff();
    assert!(lines.iter().any(|line| line.kind == "added"));
    for (id, answer) in &tried {
        let found = lines.iter().find(|line| line.item_id == *id);
        let told = Some(&answer["difference"]).filter(|told| !told.is_null());
        let told = told.map(|told| difference(&told.to_string()));
        assert_eq!(told.as_ref(), found, "{id}");
    }
    assert_eq!(
        lines.len(),
        tried
            .iter()
            .filter(|(_, answer)| !answer["difference"].is_null())
            .count()
    );
}

#[test]
fn an_item_is_named_where_rules_are_tried_on_one() {
    let data = Data::new();
    let server = data.serve();
    server.add_connector(STREAM, false);
    let put = |query: &str| {
        let target = format!("/api/admin/streams/{STREAM}/projection?{query}");
        let request = Request::new("PUT", &target).bearer(&server.operator_key);
        server.call(&request.body("{}"))
    };
    for query in [
        "check=item",
        "item=a",
        "check=history&item=a",
        "check=item&item=",
        "check=other",
    ] {
        put(query).expect_problem(400, "INVALID_PARAMETER");
    }
    let nothing: Value = put("check=item&item=a").expect(200).json();
    assert_eq!(
        (&nothing["events"], &nothing["difference"]),
        (&json!(0), &Value::Null)
    );
}

fn check_cli(stream: Operated<'_>) {
    let terminal = Terminal::at(stream.server);
    fs::write(terminal.file("same.toml"), "").unwrap();
    fs::write(terminal.file("other.json"), rules().to_string()).unwrap();
    let (said, _) = terminal.expect("hookpool projection set tried same.toml --check-item a1", 0);
    assert_eq!(said, "a1 would not change\n");
    let (said, hint) = terminal.expect(
        "hookpool projection set tried other.json --check-item 'b 1'",
        0,
    );
    assert_eq!(difference(&said).kind, "added");
    assert!(hint.contains("events are of this item"), "{hint}");
    let json = terminal.expect(
        "hookpool projection set tried other.json --check-item 'b 1' --output json",
        0,
    );
    let answer: Value = serde_json::from_str(&json.0).unwrap();
    assert_eq!(
        difference(&answer["difference"].to_string()),
        difference(&said)
    );
    assert_eq!(
        stream.get("/projection").expect(200).json::<Value>()["version"],
        0,
        "nothing is stored"
    );
}
