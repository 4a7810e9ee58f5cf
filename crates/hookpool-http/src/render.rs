//! Served JSON, written straight into text: values go out as the sender spelled them.

use hookpool_core::{
    difference::Difference,
    event::Event,
    fold::Item,
    json::{Kind, Value},
    selection::Selection,
};
use warp::{http::header, reply::Response};

use crate::app::set;

/// An answer with a JSON body.
pub(crate) fn json_response(json: String) -> Response {
    let mut response = Response::new(json.into());
    set(&mut response, header::CONTENT_TYPE, "application/json");
    response
}

/// An answer that is nothing but this text.
pub(crate) fn text_response(text: String) -> Response {
    let mut response = Response::new(text.into());
    let kind = "text/plain; charset=utf-8";
    set(&mut response, header::CONTENT_TYPE, kind);
    // It is what somebody else wrote; no browser may take it for a page.
    set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

/// Appends a JSON string.
pub(crate) fn push_string(json: &mut String, text: &str) {
    let plain = text
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
    if plain {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        json.push_str(&serde_json::to_string(text).expect("every text is a JSON string"));
    }
}

/// Whether nested values go out as strings, as they are stored, or as the JSON they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Nested {
    #[default]
    AsString,
    Expanded,
}

/// Appends an object of field values.
pub(crate) fn push_fields<'a>(
    json: &mut String,
    fields: impl Iterator<Item = (&'a str, Value<'a>)>,
    nested: Nested,
) {
    push_object(json, fields, |json, value| match (value.kind, nested) {
        (Kind::Scalar, _) => json.push_str(value.text),
        // Between tokens alone are there line ends, and what goes out may have to be one line.
        (Kind::Nested, Nested::Expanded) => {
            json.extend(value.text.chars().map(|char| match char {
                '\n' | '\r' => ' ',
                char => char,
            }));
        }
        (Kind::Nested, Nested::AsString) => push_string(json, value.text),
    });
}

fn push_object<'a, T>(
    json: &mut String,
    members: impl Iterator<Item = (&'a str, T)>,
    mut push: impl FnMut(&mut String, T),
) {
    json.push('{');
    for (n, (name, value)) in members.enumerate() {
        if n > 0 {
            json.push(',');
        }
        push_string(json, name);
        json.push(':');
        push(json, value);
    }
    json.push('}');
}

/// Appends `"itemId":...,"fields":{...}`.
pub(crate) fn push_item(json: &mut String, id: &str, item: &Item, nested: Nested) {
    push_some_of_item(json, id, item, &Selection::default(), nested);
}

/// The same with the fields of a selection.
pub(crate) fn push_some_of_item(
    json: &mut String,
    id: &str,
    item: &Item,
    selection: &Selection,
    nested: Nested,
) {
    json.push_str(r#""itemId":"#);
    push_string(json, id);
    json.push_str(r#","fields":"#);
    let fields = item
        .fields()
        .iter()
        .map(|(name, field)| (name.as_ref(), field.value()));
    let shown = fields.filter(|(name, _)| selection.shows(name));
    push_fields(json, shown, nested);
}

/// Appends per field what set it.
fn push_meta(json: &mut String, item: &Item) {
    let sources = item
        .fields()
        .iter()
        .map(|(name, field)| (name.as_ref(), &field.source));
    push_object(json, sources, |json, source| {
        let (position, time, connector) = (source.position, source.time, &source.connector);
        let request_id = source.request_id;
        json.push_str(&format!(
            r#"{{"position":{position},"time":"{time}","connector":"{connector}","requestId":"{request_id}"}}"#
        ));
    });
}

/// Appends `{"kind":...,"itemId":...,"fields":{"name":{"old":...,"new":...}}}`.
pub(crate) fn push_difference(
    json: &mut String,
    id: &str,
    difference: &Difference<'_>,
    nested: Nested,
) {
    json.push_str(&format!(
        r#"{{"kind":"{}","itemId":"#,
        difference.sort.as_str()
    ));
    push_string(json, id);
    json.push_str(r#","fields":"#);
    push_values(json, Some(difference), nested);
    json.push('}');
}

/// Appends `{"name":{"old":...,"new":...}}`.
pub(crate) fn push_values(json: &mut String, difference: Option<&Difference<'_>>, nested: Nested) {
    let fields = difference.into_iter().flat_map(|it| &it.fields);
    let fields = fields.map(|(name, values)| (*name, values));
    push_object(json, fields, |json, (old, new)| {
        let sides = [("old", old), ("new", new)];
        let sides = sides
            .into_iter()
            .filter_map(|(side, value)| Some((side, (*value)?)));
        push_fields(json, sides, nested);
    });
}

/// Appends `"itemId":...,"fields":{...},"position":...,"meta":{...}`: all there is to an item.
pub(crate) fn push_whole_item(json: &mut String, id: &str, item: &Item, nested: Nested) {
    push_item(json, id, item, nested);
    json.push_str(&format!(r#","position":{},"meta":"#, item.position));
    push_meta(json, item);
}

/// Appends an event of the log, with its body as a string if asked for.
pub(crate) fn push_event(json: &mut String, event: &Event, body: bool) {
    json.push('{');
    push_event_facts(json, event);
    if body {
        json.push_str(r#","body":"#);
        // A body was checked to be UTF-8 before it was appended.
        push_string(json, &String::from_utf8_lossy(&event.event.body));
    }
    json.push('}');
}

/// Appends what is known of an event beside its body, as members.
pub(crate) fn push_event_facts(json: &mut String, Event { position, event }: &Event) {
    let (time, stream, op) = (event.time, &event.stream, event.op.as_str());
    json.push_str(&format!(
        r#""position":{position},"time":"{time}","stream":"{stream}","op":"{op}","itemId":"#
    ));
    push_string(json, event.item_id.as_str());
    let (connector, request_id, bytes) = (&event.connector, event.request_id, event.body.len());
    json.push_str(&format!(
        r#","connector":"{connector}","requestId":"{request_id}","bytes":{bytes}"#
    ));
}
