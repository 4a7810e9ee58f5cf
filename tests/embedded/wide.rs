//! A stream with items of two kilobytes each.

use hookpool_core::event::NewEvent;

use crate::node::event;

pub(crate) const STREAM: &str = "wide";
/// Every item looks different with them.
pub(crate) const OTHER_RULES: &str = r#"{"fields": {"text": {"from": "/padding"}}}"#;

pub(crate) fn id(n: u64) -> String {
    format!("item-{n:06}")
}

/// Sets a field of an item.
pub(crate) fn item(n: u64, value: u64) -> NewEvent {
    let (id, padding) = (id(n), "x".repeat(2_000));
    let body = format!(r#"{{"id":"{id}","n":{value},"padding":"{padding}"}}"#);
    event(STREAM, &id, n, body)
}
