//! Random bodies, deletions and rules.

use hookpool_core::projection::Rules;
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Map, Value, json};

use super::posted::Sent;

pub(super) const NAMES: [&str; 5] = ["a", "b", "c", "v", "o"];

pub(super) fn value(random: &mut StdRng) -> Value {
    match random.random_range(0..9) {
        0 => Value::Null,
        1 => json!(random.random_range(0..5)),
        2 => json!(random.random_range(0..5).to_string()),
        3 => json!(random.random_bool(0.5)),
        4 => json!("text"),
        5 => json!({ "id": random.random_range(0..3), "v": random.random_range(0..4) }),
        6 => json!([1, "x"]),
        7 => json!("true"),
        _ => json!(random.random_range(-3..3)),
    }
}

/// Ids as bodies give them, and as rules find them.
pub(super) const DELETED: [&str; 9] = [
    "item-0", "item-1", "item-2", "item-3", "0", "1", "2", "true", "text",
];

pub(super) fn sent(random: &mut StdRng) -> Sent {
    if random.random_bool(0.12) {
        let item = DELETED.choose(random).unwrap();
        return Sent::Deletion((*item).to_owned());
    }
    Sent::Body(body(random))
}

pub(super) fn body(random: &mut StdRng) -> String {
    let mut body = Map::new();
    body.insert(
        "id".into(),
        json!(format!("item-{}", random.random_range(0..4))),
    );
    for name in NAMES {
        if random.random_bool(0.5) {
            body.insert(name.into(), value(random));
        }
    }
    Value::Object(body).to_string()
}

pub(super) fn rules(random: &mut StdRng) -> Value {
    let mut rules = Map::new();
    let mut maybe = |name: &str, values: &[Value], random: &mut StdRng| {
        if random.random_bool(0.5) {
            rules.insert(name.into(), values.choose(random).unwrap().clone());
        }
    };
    maybe("id", &[json!("a"), json!("/o/id"), json!("/b")], random);
    maybe("merge", &[json!("merge"), json!("replace")], random);
    maybe("nulls", &[json!("store"), json!("delete")], random);
    maybe("unknown", &[json!("keep"), json!("drop")], random);
    maybe("order-by", &[json!("v"), json!("/o/v")], random);
    let mut fields = Map::new();
    for name in ["a", "b", "o", "new"] {
        if random.random_bool(0.4) {
            fields.insert(name.into(), field(random));
        }
    }
    rules.insert("fields".into(), Value::Object(fields));
    let rules = Value::Object(rules);
    assert!(
        serde_json::from_value::<Rules>(rules.clone()).is_ok(),
        "{rules}"
    );
    rules
}

pub(super) fn field(random: &mut StdRng) -> Value {
    let from = ["/o/id", "a", "/c", "/o/v"].choose(random).unwrap();
    match random.random_range(0..6) {
        0 => json!({ "drop": true }),
        1 => json!({ "from": from }),
        2 => json!({ "from": from, "type": "string", "default": "none" }),
        3 => json!({ "type": "number" }),
        4 => json!({ "type": "boolean", "default": false }),
        _ => json!({ "from": "o", "flatten": "." }),
    }
}
