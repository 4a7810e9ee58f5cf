//! The state of an item as a fold of its events. A pure function of the events' bytes: every replay gives the same item.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    event::{Event, Op},
    json::{Fields, Kind, Value},
    name::ConnectorName,
    position::Position,
    time::Timestamp,
};

/// The event that set a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its position.
    pub position: Position,
    /// Its time.
    pub time: Timestamp,
    /// Who wrote it.
    pub connector: ConnectorName,
}

/// A field of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// How the value is stored.
    pub kind: Kind,
    /// Its JSON text as sent.
    pub text: Box<str>,
    /// What set it.
    pub source: Arc<Source>,
}

impl Field {
    /// The value to show.
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        Value {
            kind: self.kind,
            text: &self.text,
        }
    }
}

/// Current state of one item of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item {
    /// Of the last event that touched it, also if it set nothing.
    pub position: Position,
    /// By name, in byte order.
    pub fields: BTreeMap<Box<str>, Field>,
}

impl Item {
    /// Bytes of all names and values: about what the item takes in memory and on the wire.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.fields
            .iter()
            .map(|(name, field)| name.len() + field.text.len())
            .sum()
    }

    /// Takes the next event of this item; `fields` are those of its body.
    ///
    /// # Panics
    /// If the event is not after the last one: folding twice would be a wrong answer, and is a bug of the caller.
    pub fn apply(&mut self, event: &Event, fields: &Fields<'_>) {
        assert!(
            event.position > self.position,
            "events of an item are folded in order, once"
        );
        self.position = event.position;
        match event.event.op {
            Op::Upsert => self.merge(event, fields),
        }
    }

    fn merge(&mut self, event: &Event, fields: &Fields<'_>) {
        let source = Arc::new(Source {
            position: event.position,
            time: event.event.time,
            connector: event.event.connector.clone(),
        });
        for (name, value) in fields {
            let field = Field {
                kind: value.kind,
                text: value.text.into(),
                source: Arc::clone(&source),
            };
            match self.fields.get_mut(name.as_ref()) {
                Some(old) => *old = field,
                None => {
                    self.fields.insert(name.as_ref().into(), field);
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        event::{NewEvent, RequestId},
        json,
        name::{ItemId, StreamName},
    };

    pub(crate) fn event(position: u64, item: &str, body: &str) -> Event {
        Event {
            position: Position(position),
            event: NewEvent {
                time: Timestamp(position * 1_000),
                stream: StreamName::new("sales").unwrap(),
                op: Op::Upsert,
                item_id: ItemId::new(item).unwrap(),
                generated_id: false,
                duplicate_keys: false,
                field_count: 0,
                connector: ConnectorName::new("till").unwrap(),
                request_id: RequestId([1; 16]),
                dedupe: None,
                body: Bytes::copy_from_slice(body.as_bytes()),
            },
        }
    }

    pub(crate) fn folded(bodies: &[&str]) -> Item {
        let mut item = Item::default();
        for (position, body) in (1..).zip(bodies) {
            item.apply(
                &event(position, "North", body),
                &json::object(body.as_bytes()).unwrap().fields,
            );
        }
        item
    }

    fn check(bodies: &[&str], expected: &[(&str, &str, u64)]) {
        let item = folded(bodies);
        let fields: Vec<_> = item
            .fields
            .iter()
            .map(|(name, field)| (name.as_ref(), field.text.as_ref(), field.source.position.0))
            .collect();
        assert_eq!(fields, expected);
    }

    #[test]
    fn given_fields_overwrite_and_others_stay() {
        check(
            &[r#"{"a":1,"b":2}"#, r#"{"b":3,"c":4}"#],
            &[("a", "1", 1), ("b", "3", 2), ("c", "4", 2)],
        );
    }

    #[test]
    fn null_is_stored_and_deletes_nothing() {
        check(
            &[r#"{"a":1,"b":2}"#, r#"{"a":null}"#],
            &[("a", "null", 2), ("b", "2", 1)],
        );
    }

    #[test]
    fn numbers_and_nested_texts_stay_as_sent() {
        check(
            &[r#"{"n":1.0e+2,"o":{ "x" : 1 }}"#],
            &[("n", "1.0e+2", 1), ("o", r#"{ "x" : 1 }"#, 1)],
        );
    }

    #[test]
    fn an_empty_object_touches_the_item_and_sets_nothing() {
        let item = folded(&[r#"{"a":1}"#, "{}"]);
        assert_eq!((item.position, item.fields.len()), (Position(2), 1));
    }

    #[test]
    #[should_panic(expected = "in order, once")]
    fn folding_an_event_twice_is_a_bug() {
        let mut item = folded(&["{}"]);
        item.apply(&event(1, "North", "{}"), &Fields::new());
    }
}
