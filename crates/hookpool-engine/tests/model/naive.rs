//! The rules of `docs/projections.md`, as plainly as they can be written.

use std::collections::{BTreeMap, BTreeSet};

use hookpool_core::position::Position;
use serde_json::Value;

use super::posted::Sent;

pub(super) type Fields = BTreeMap<String, String>;

#[derive(Default)]
pub(super) struct Fold {
    pub(super) items: BTreeMap<String, Fields>,
    pub(super) quarantined: u64,
    pub(super) superseded: u64,
}

/// Numbers before texts; no times here.
#[derive(Clone, PartialEq, PartialOrd)]
enum Order {
    Number(f64),
    Text(String),
}

pub(super) fn fold(rules: &Value, bodies: &[(Position, Sent)]) -> Fold {
    let mut fold = Fold::default();
    let mut orders: BTreeMap<String, Order> = BTreeMap::new();
    for (_, sent) in bodies {
        let body = match sent {
            Sent::Body(body) => body,
            Sent::Deletion(id) => {
                fold.items.remove(id);
                continue;
            }
        };
        let body: Value = serde_json::from_str(body).unwrap();
        let Some((id, order, mut set)) = read(rules, &body) else {
            fold.quarantined += 1;
            continue;
        };
        if order.is_some() && orders.contains_key(&id) && order.as_ref() < orders.get(&id) {
            fold.superseded += 1;
            continue;
        }
        orders.extend(order.map(|order| (id.clone(), order)));
        let item = fold.items.entry(id).or_default();
        if rules["merge"] == "replace" {
            item.clear();
        }
        if rules["nulls"] == "delete" {
            item.retain(|name, _| set.get(name).is_none_or(|value| value != "null"));
            set.retain(|_, value| value != "null");
        }
        item.extend(set);
        for (name, rule) in rules["fields"].as_object().into_iter().flatten() {
            if !rule["default"].is_null() && !item.contains_key(name) {
                item.insert(name.clone(), rule["default"].to_string());
            }
        }
    }
    fold
}

fn find<'a>(body: &'a Value, source: &Value) -> Option<&'a Value> {
    match source.as_str()? {
        pointer if pointer.starts_with('/') => body.pointer(pointer),
        name => body.get(name),
    }
}

/// Item, order, and fields that are set; `None` if the event does not fit.
fn read(rules: &Value, body: &Value) -> Option<(String, Option<Order>, Fields)> {
    let id = find(body, &rules["id"]).and_then(id_text);
    let id = id.or_else(|| id_text(&body["id"])).unwrap();
    let order = match find(body, &rules["order-by"]) {
        None | Some(Value::Null) => None,
        Some(Value::Number(number)) => number.as_f64().map(Order::Number),
        Some(Value::String(text)) => Some(match text.parse() {
            Ok(number) => Order::Number(number),
            Err(_) => Order::Text(text.clone()),
        }),
        Some(_) => return None,
    };
    let (mut set, mut named) = (Fields::new(), BTreeSet::new());
    for (name, rule) in rules["fields"].as_object().into_iter().flatten() {
        named.insert(name.clone());
        let from = rule.get("from").and_then(Value::as_str).unwrap_or(name);
        if from.matches('/').count() <= 1 {
            named.insert(from.trim_start_matches('/').to_owned());
        }
        let Some(value) = find(body, &Value::from(from)).filter(|_| rule["drop"] != true) else {
            continue;
        };
        match rule["flatten"].as_str() {
            Some(separator) => flatten(name, value, separator, &mut set),
            None => drop(set.insert(name.clone(), convert(value, &rule["type"])?)),
        }
    }
    for (name, value) in body.as_object().unwrap() {
        if rules["unknown"] != "drop" && !named.contains(name) && !set.contains_key(name) {
            set.insert(name.clone(), value.to_string());
        }
    }
    Some((id, order, set))
}

fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn flatten(name: &str, value: &Value, separator: &str, set: &mut Fields) {
    match value.as_object() {
        Some(members) => members.iter().for_each(|(member, value)| {
            flatten(&format!("{name}{separator}{member}"), value, separator, set)
        }),
        None => drop(set.insert(name.to_owned(), value.to_string())),
    }
}

fn convert(value: &Value, into: &Value) -> Option<String> {
    if value.is_null() {
        return Some("null".to_owned());
    }
    match (into.as_str(), value) {
        (None, value) => Some(value.to_string()),
        (Some("string"), Value::String(_)) => Some(value.to_string()),
        (Some("string"), other) => Some(Value::from(other.to_string()).to_string()),
        (Some("number"), Value::Number(number)) => Some(number.to_string()),
        (Some("number"), Value::String(text)) => text.parse::<i64>().ok().map(|_| text.clone()),
        (Some("boolean"), Value::Bool(_)) => Some(value.to_string()),
        (Some("boolean"), Value::String(text)) if text == "true" || text == "false" => {
            Some(text.clone())
        }
        _ => None,
    }
}
