//! The DataPool as the product page describes it, folded from the bytes in the log.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A field as it is compared: strings by their characters, everything else by the text that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Field {
    String(String),
    Verbatim(String),
}

pub(crate) type Fields = BTreeMap<String, Field>;
pub(crate) type Pool = BTreeMap<String, Fields>;

/// An event as `GET /api/streams/{s}/log?body=true` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    pub(crate) position: u64,
    pub(crate) stream: String,
    pub(crate) op: String,
    pub(crate) item_id: String,
    pub(crate) connector: String,
    pub(crate) bytes: usize,
    pub(crate) body: String,
}

/// Object, top level only; the last of two equal keys wins.
pub(crate) type Object = BTreeMap<String, Box<RawValue>>;

/// A deletion takes the whole item. Else the last write wins per top-level property; nested values become strings of their text.
pub(crate) fn fold(events: &[Event]) -> Pool {
    let mut pool = Pool::new();
    for event in events {
        if event.op == "delete" {
            assert_eq!(event.body, "");
            pool.remove(&event.item_id);
            continue;
        }
        assert_eq!(event.op, "upsert");
        let object: Object = serde_json::from_str(&event.body).unwrap();
        let fields = object.into_iter().map(|(name, value)| {
            let text = value.get();
            let nested = text.starts_with(['{', '[']);
            (
                name,
                if nested {
                    Field::String(text.to_owned())
                } else {
                    as_served(&value)
                },
            )
        });
        pool.entry(event.item_id.clone())
            .or_default()
            .extend(fields);
    }
    pool
}

/// A field as an answer shows it.
pub(crate) fn as_served(value: &RawValue) -> Field {
    match serde_json::from_str(value.get()) {
        Ok(text) => Field::String(text),
        Err(_) => Field::Verbatim(value.get().to_owned()),
    }
}

/// Asserts that two readings of a log are one; shows the first difference and not all of both.
#[track_caller]
pub(crate) fn assert_same(found: &[Event], expected: &[Event], context: &str) {
    let different = found.iter().zip(expected).find(|(a, b)| a != b);
    assert_eq!(different, None, "{context}");
    assert_eq!(found.len(), expected.len(), "events, {context}");
}
