//! Rules tried on an item whose history was dropped.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{STREAM, dropped, fill, ready, retain};
use crate::common::http::Request;
use crate::common::server::{Data, Server};

fn check(server: &Server, rules: &Value, id: &str) -> Value {
    let target = format!("/api/admin/streams/{STREAM}/projection?check=item&item={id}");
    let request = Request::new("PUT", &target).bearer(&server.operator_key);
    server
        .call(&request.body(rules.to_string()))
        .expect(200)
        .json()
}

/// What a rebuild with these rules finds, by item.
fn rebuilt(server: &Server, rules: &Value) -> BTreeMap<String, Value> {
    let start = json!({ "projection": rules });
    server
        .admin("POST", "streams/sales/rebuilds", &start)
        .expect(201);
    ready(server);
    let target = "/api/admin/streams/sales/rebuilds/current/diff";
    let answer = server.get(target).expect(200);
    let lines = answer.text().lines().map(serde_json::from_str::<Value>);
    let by_id = |line: Value| (line["itemId"].as_str().unwrap().to_owned(), line);
    lines.map(|line| by_id(line.unwrap())).collect()
}

#[test]
fn rules_tried_on_an_item_see_what_is_left_of_its_history_as_a_rebuild_does() {
    let data = Data::new();
    let server = data.serve();
    let (_, last) = fill(&server, 400);
    let served = json!({ "nulls": "delete", "order-by": "v" });
    let others = json!({ "nulls": "store", "merge": "replace", "fields": { "f0": { "type": "string", "default": "none" } } });
    let ids: Vec<String> = (0..7).map(|n| format!("item-{n}")).collect();
    let all =
        |rules: &Value| -> Vec<Value> { ids.iter().map(|id| check(&server, rules, id)).collect() };
    let before = all(&served);
    assert!(before.iter().all(|answer| answer["earliest"] == 0));
    retain(&server, 20);
    let floor = dropped(&server);

    let events = |answers: &[Value]| -> u64 {
        let events = answers.iter().map(|answer| answer["events"].as_u64());
        events.map(Option::unwrap).sum()
    };
    let same = all(&served);
    for answer in &same {
        assert_eq!(answer["difference"], Value::Null, "{answer}");
        assert_eq!(
            (&answer["earliest"], &answer["position"]),
            (&json!(floor), &json!(last))
        );
    }
    assert!(events(&same) < events(&before) / 2, "nothing was dropped");

    let tried = all(&others);
    let found = rebuilt(&server, &others);
    assert!(!found.is_empty());
    for (id, answer) in ids.iter().zip(&tried) {
        let told = Some(&answer["difference"]).filter(|told| !told.is_null());
        assert_eq!(told, found.get(id), "{id}");
    }
    assert!(found.keys().all(|id| ids.contains(id)));
}
