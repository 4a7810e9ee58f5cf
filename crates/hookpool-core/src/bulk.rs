//! From one verified body to the many events of one request: all of them, or the place of the first that can't be one.

use bytes::Bytes;
use thiserror::Error;

use crate::{
    event::{NewEvent, Request, RequestId},
    idempotency::{Call, IdempotencyKey},
    json::{self, JsonError, Object, Value},
    name::{ItemId, StreamName},
    registry::Connector,
    shape::{ShapeError, Stamp, event, given_id},
    source::Source,
    time::Timestamp,
    verify::Verified,
};

/// Most events of one request.
pub const EVENTS_MAX: usize = 50_000;

/// How the events are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// `{"stream":"s","items":[{"id":"...","fields":{...}}]}`
    Items,
    /// A webhook's body a line; blank lines are none.
    Lines {
        /// The request's `idField`; the connector's own comes next.
        id_field: Option<Source>,
    },
}

/// What the engine adds, and how large a body may be.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// When the request was verified.
    pub now: Timestamp,
    /// Its identity.
    pub request_id: RequestId,
    /// For generated ids.
    pub random: [u8; 10],
    /// Bytes of one event's body at most.
    pub body_bytes_max: usize,
}

/// Where in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Index of an item, from 0 on.
    Item(usize),
    /// Number of a line, from 1 on, blank ones included.
    Line(usize),
}

/// What is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PartError {
    /// It is no event.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// It is no item.
    #[error("read an item: {0}")]
    Item(&'static str),
    /// Its body is over the limit of one event.
    #[error("take an event that is over the limit of one body")]
    TooLarge,
}

/// Why a verified request can't become events.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BulkError {
    /// It names a stream that the connector does not write to; which, if that is a name at all.
    #[error("find a key that may write to the stream that is named")]
    Stream(Option<StreamName>),
    /// The whole is no strict JSON.
    #[error("read the request: {0}")]
    Payload(#[from] JsonError),
    /// The whole is not of the form.
    #[error("read the request: {0}")]
    Form(&'static str),
    /// One of the events.
    #[error("read the event at {0:?}: {1}")]
    Part(Place, PartError),
}

/// Makes the events of a request, and its identity: by its key, else by what its sender signs.
///
/// # Errors
/// See [`BulkError`]; nothing else is wrong with a verified request.
pub fn bulk(
    verified: &Verified,
    form: &Form,
    key: Option<&IdempotencyKey>,
    terms: Terms,
) -> Result<Request, BulkError> {
    let mut maker = Maker {
        connector: &verified.connector,
        whole: &verified.body,
        terms,
        events: Vec::new(),
    };
    let (call, id_field) = match form {
        Form::Items => {
            maker.items()?;
            (Call::Items, None)
        }
        Form::Lines { id_field } => {
            maker.lines(id_field.as_ref())?;
            (Call::Lines, id_field.as_ref())
        }
    };
    let mut events = maker.events.into_iter();
    let mut first = events.next().ok_or(BulkError::Form("it has no event"))?;
    let rest: Vec<_> = events.collect();
    let mut identity = match key {
        // The stream is the connector's whether the request names it or not, so it is no part of what was asked.
        Some(key) => Some(verified.identity(key, call, id_field)),
        None => verified.own_identity(),
    };
    if let Some(identity) = &mut identity {
        identity.events = u32::try_from(1 + rest.len()).unwrap_or(u32::MAX);
    }
    first.dedupe = verified.dedupe;
    first.idempotency = identity;
    Ok(Request { first, rest })
}

/// Collects the events; their bodies are slices of the whole.
struct Maker<'a> {
    connector: &'a Connector,
    whole: &'a Bytes,
    terms: Terms,
    events: Vec<NewEvent>,
}

impl<'a> Maker<'a> {
    fn items(&mut self) -> Result<(), BulkError> {
        let object = json::object(self.whole)?;
        let known = ["items", "stream"];
        exactly(&object, &known).map_err(BulkError::Form)?;
        let stream = object.fields.get("stream").and_then(Value::as_string);
        let stream = stream.ok_or(BulkError::Form("stream is not a string"))?;
        if stream != self.connector.stream.as_str() {
            return Err(BulkError::Stream(StreamName::new(&stream).ok()));
        }
        let items = object.fields.get("items").copied().and_then(json::elements);
        let items = items.ok_or(BulkError::Form("items is not an array"))?;
        for (index, item) in items.into_iter().enumerate() {
            self.must_have_room()?;
            self.item(item)
                .map_err(|error| BulkError::Part(Place::Item(index), error))?;
        }
        Ok(())
    }

    fn item(&mut self, item: Value<'a>) -> Result<(), PartError> {
        let item = json::object_of(item).ok_or(PartError::Item("it is not an object"))?;
        exactly(&item, &["fields", "id"]).map_err(PartError::Item)?;
        let fields = item.fields.get("fields").copied();
        let object = fields.and_then(|fields| Some((fields, json::object_of(fields)?)));
        let (fields, object) = object.ok_or(PartError::Item("fields is not an object"))?;
        let id = item.fields.get("id").and_then(Value::id_text);
        let id = id.map(ItemId::new).transpose();
        self.push(
            fields.text.as_bytes(),
            &object,
            id.map_err(ShapeError::from)?,
        )
    }

    fn lines(&mut self, id_field: Option<&Source>) -> Result<(), BulkError> {
        let id_field = id_field.or(self.connector.id_field.as_ref());
        let mut rest: &[u8] = self.whole;
        for number in 1.. {
            let end = memchr::memchr(b'\n', rest);
            let (line, next) = rest.split_at(end.unwrap_or(rest.len()));
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.trim_ascii().is_empty() {
                self.must_have_room()?;
                self.line(line, id_field)
                    .map_err(|error| BulkError::Part(Place::Line(number), error))?;
            }
            rest = match next.split_first() {
                Some((_, next)) => next,
                None => return Ok(()),
            };
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], id_field: Option<&Source>) -> Result<(), PartError> {
        let object = json::object(line).map_err(ShapeError::from)?;
        let id = given_id(&object.fields, id_field).map_err(ShapeError::from)?;
        self.push(line, &object, id)
    }

    fn push(
        &mut self,
        body: &[u8],
        object: &Object<'_>,
        id: Option<ItemId>,
    ) -> Result<(), PartError> {
        if body.len() > self.terms.body_bytes_max {
            return Err(PartError::TooLarge);
        }
        let Terms {
            now, request_id, ..
        } = self.terms;
        let stamp = Stamp {
            now,
            request_id,
            random: nth(self.terms.random, self.events.len()),
        };
        let body = self.whole.slice_ref(body);
        let event = event(self.connector, object, id, body, stamp)?;
        self.events.push(event);
        Ok(())
    }

    fn must_have_room(&self) -> Result<(), BulkError> {
        if self.events.len() < EVENTS_MAX {
            Ok(())
        } else {
            Err(BulkError::Form("it has more than 50000 events"))
        }
    }
}

/// Whether an object has members of these names and no others, each once at most.
fn exactly(object: &Object<'_>, known: &[&str]) -> Result<(), &'static str> {
    let mut names = object.fields.iter().map(|(name, _)| name.as_ref());
    if object.duplicate_keys {
        Err("a member comes twice")
    } else if !names.all(|name| known.contains(&name)) {
        Err("it has a member that is not known")
    } else {
        Ok(())
    }
}

/// Other bytes for each event, of one draw.
fn nth(mut random: [u8; 10], index: usize) -> [u8; 10] {
    #[expect(clippy::cast_possible_truncation, reason = "at most EVENTS_MAX")]
    if let Some(last) = random.last_chunk_mut::<4>() {
        *last = u32::from_be_bytes(*last)
            .wrapping_add(index as u32)
            .to_be_bytes();
    }
    random
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const TERMS: Terms = Terms {
        now: Timestamp(1_700_000_000_000_000),
        request_id: RequestId([7; 16]),
        random: [0xff; 10],
        body_bytes_max: 40,
    };

    fn of(form: &Form, body: &str) -> Result<Vec<NewEvent>, BulkError> {
        let connector = Connector {
            id_field: Some(Source::try_from("sku".to_owned()).unwrap()),
            ..Connector::for_test("sales")
        };
        let verified = Verified::for_test(connector, body);
        let request = bulk(&verified, form, None, TERMS)?;
        let whole = verified.body.as_ptr_range();
        for event in request.events() {
            assert!(whole.contains(&event.body.as_ptr()), "a body was copied");
        }
        Ok(request.events().cloned().collect())
    }

    fn items(items: &str) -> Result<Vec<NewEvent>, BulkError> {
        let body = format!(r#" {{"items": [{items}],"stream":"sales"}}"#);
        of(&Form::Items, &body)
    }

    fn lines(id_field: Option<&str>, body: &str) -> Result<Vec<NewEvent>, BulkError> {
        let id_field = id_field.map(|name| Source::try_from(name.to_owned()).unwrap());
        of(&Form::Lines { id_field }, body)
    }

    fn shown(events: &[NewEvent]) -> Vec<(&str, &str)> {
        events
            .iter()
            .map(|event| {
                let id = if event.generated_id {
                    ""
                } else {
                    event.item_id.as_str()
                };
                (id, str::from_utf8(&event.body).unwrap())
            })
            .collect()
    }

    #[test]
    fn items_are_their_fields_to_the_letter_under_their_id() {
        let events = items(
            r#"{"id":"a","fields":{ "x" : 1.0 }} , {"fields":{},"id":42},{"id":null,"fields":{"id":"b","id":1}},{"fields":{}},{"id":{},"fields":{}},{"id":"","fields":{}}"#,
        );
        let events = events.unwrap();
        assert_eq!(
            shown(&events),
            [
                ("a", r#"{ "x" : 1.0 }"#),
                ("42", "{}"),
                ("", r#"{"id":"b","id":1}"#),
                ("", "{}"),
                ("", "{}"),
                ("", "{}"),
            ]
        );
        assert_eq!(events[2].field_count, 1);
        assert!(events[2].duplicate_keys);
        let ids: BTreeSet<_> = events.iter().map(|it| it.item_id.as_str()).collect();
        assert_eq!(ids.len(), events.len(), "generated ids are not the same");
    }

    #[test]
    fn lines_are_bodies_without_their_ends_and_blank_ones_are_none() {
        let text = "\r\n{\"sku\":1,\"id\":2} \r\n \t\n{\"id\":3}\n\n";
        let by_connector = lines(None, text).unwrap();
        assert_eq!(
            shown(&by_connector),
            [("1", "{\"sku\":1,\"id\":2} "), ("", "{\"id\":3}")]
        );
        let by_request = lines(Some("/id"), "{\"sku\":1,\"id\":2}\n{\"id\":3}").unwrap();
        assert_eq!(
            shown(&by_request),
            [("2", "{\"sku\":1,\"id\":2}"), ("3", "{\"id\":3}")]
        );
    }

    #[test]
    fn the_place_of_what_is_wrong_is_told() {
        let line = |number, text: &str| match lines(None, text) {
            Err(BulkError::Part(place, _)) => assert_eq!(place, Place::Line(number), "{text}"),
            other => panic!("{text}: {other:?}"),
        };
        line(1, "x");
        line(1, "\u{feff}{}");
        line(3, "{}\r\n\r\n[]\n{}");
        line(2, "{}\n{\"sku\":\"\\u0000\"}");
        line(2, "{}\n{\"a\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}");
        line(1, "{}{}");
        let item = |index, text: &str| match items(text) {
            Err(BulkError::Part(place, _)) => assert_eq!(place, Place::Item(index), "{text}"),
            other => panic!("{text}: {other:?}"),
        };
        item(0, "1");
        item(1, r#"{"fields":{}},{"id":"a"}"#);
        item(1, r#"{"fields":{}},{"fields":[]}"#);
        item(0, r#"{"fields":null}"#);
        item(0, r#"{"fields":"{}"}"#);
        item(0, r#"{"fields":{},"fields":{}}"#);
        item(0, r#"{"fields":{},"op":"delete"}"#);
        item(0, r#"{"fields":{},"id":"\u0000"}"#);
        item(
            0,
            r#"{"fields":{"a":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}}"#,
        );
    }

    #[test]
    fn the_whole_has_its_form_and_an_event() {
        for empty in ["", "\n", " \r\n\r\n"] {
            assert!(matches!(lines(None, empty), Err(BulkError::Form(_))));
        }
        for bad in [
            r#"{"stream":"sales","items":[]}"#,
            r#"{"stream":"sales"}"#,
            r#"{"items":[{"fields":{}}]}"#,
            r#"{"stream":1,"items":[{"fields":{}}]}"#,
            r#"{"stream":"sales","items":{}}"#,
            r#"{"stream":"sales","stream":"sales","items":[{"fields":{}}]}"#,
            r#"{"stream":"sales","items":[{"fields":{}}],"more":1}"#,
        ] {
            let outcome = of(&Form::Items, bad);
            assert!(matches!(outcome, Err(BulkError::Form(_))), "{bad}");
        }
        for bad in ["", "[]", "{}x", r#"{"stream":"sales","items":[{]}"#] {
            let outcome = of(&Form::Items, bad);
            assert!(matches!(outcome, Err(BulkError::Payload(_))), "{bad}");
        }
        // Told before anything of its items.
        let foreign = r#"{"stream":"other","items":[1]}"#;
        assert_eq!(
            of(&Form::Items, foreign),
            Err(BulkError::Stream(StreamName::new("other").ok()))
        );
    }

    #[test]
    fn fifty_thousand_events_are_in_and_one_more_is_out() {
        let most = "{}\n".repeat(EVENTS_MAX);
        assert_eq!(lines(None, &most).unwrap().len(), EVENTS_MAX);
        let more = format!("{most}{{}}");
        assert!(matches!(lines(None, &more), Err(BulkError::Form(_))));
        let more = vec![r#"{"fields":{}}"#; EVENTS_MAX + 1].join(",");
        assert!(matches!(items(&more), Err(BulkError::Form(_))));
    }
}
