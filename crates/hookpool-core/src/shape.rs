//! From a verified delivery to an event: the item id and the field count, by the rules of the webhook page.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{
    event::{DedupeKey, Idempotency, NewEvent, Op, RequestId, uuid_v7},
    json::{self, Fields, JsonError, Object, Value},
    name::{ItemId, NameError},
    registry::Connector,
    source::Source,
    time::Timestamp,
    verify::Verified,
};

/// The property that holds the item id where nothing else is named.
const DEFAULT_ID_FIELD: &str = "id";

/// Why a verified delivery can't become an event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// The body is not one strict JSON object.
    #[error("read the body: {0}")]
    Payload(#[from] JsonError),
    /// The id in the body can't name an item.
    #[error("take the item id: {0}")]
    ItemId(#[from] NameError),
    /// More top-level properties than the connector may send.
    #[error(
        "take more than {0} top-level properties of an event, which is the limit of the connector"
    )]
    TooManyFields(u32),
    /// What is deleted is named by the path alone.
    #[error("take a deletion: it has no body")]
    DeletionBody,
}

/// What the engine adds to a delivery: the time, the request and the randomness for an id.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// When the delivery was verified.
    pub now: Timestamp,
    /// The request it came with.
    pub request_id: RequestId,
    /// Used if the body names no id.
    pub random: [u8; 10],
}

/// Makes the event. `id_field` is the request's `idField`; the connector's own comes next, then the property `id`.
///
/// # Errors
/// See [`ShapeError`]; nothing else is wrong with a verified delivery.
pub fn shape(
    verified: Verified,
    id_field: Option<&Source>,
    stamp: Stamp,
) -> Result<NewEvent, ShapeError> {
    let Verified {
        connector,
        body,
        dedupe,
        ..
    } = &verified;
    let object = json::object(body)?;
    let given = given_id(&object.fields, id_field.or(connector.id_field.as_ref()))?;
    // The same delivery is the same whatever its body says by now: senders change counters of their own when they try again.
    let idempotency = verified.delivery(&object.fields).map(|key| Idempotency {
        key,
        request: None,
        events: 1,
    });
    Ok(NewEvent {
        dedupe: *dedupe,
        idempotency,
        ..event(connector, &object, given, body.clone(), stamp)?
    })
}

/// The event of one body, without what makes a repetition of its request known.
pub(crate) fn event(
    connector: &Connector,
    object: &Object<'_>,
    given: Option<ItemId>,
    body: Bytes,
    stamp: Stamp,
) -> Result<NewEvent, ShapeError> {
    let field_count = u32::try_from(object.fields.len()).unwrap_or(u32::MAX);
    if let Some(limit) = connector
        .limits
        .fields
        .filter(|limit| field_count > limit.get())
    {
        return Err(ShapeError::TooManyFields(limit.get()));
    }
    let generated_id = given.is_none();
    let item_id = match given {
        Some(id) => id,
        None => ItemId::new(uuid_v7(stamp.now, &stamp.random).to_string())?,
    };
    Ok(NewEvent {
        time: stamp.now,
        stream: connector.stream.clone(),
        op: Op::Upsert,
        item_id,
        generated_id,
        duplicate_keys: object.duplicate_keys,
        field_count,
        connector: connector.name.clone(),
        request_id: stamp.request_id,
        dedupe: None,
        idempotency: None,
        body,
    })
}

/// Makes the event that deletes an item; a deletion has no body.
///
/// # Errors
/// [`ShapeError::DeletionBody`]
pub fn deletion(verified: Verified, item_id: ItemId, stamp: Stamp) -> Result<NewEvent, ShapeError> {
    let Verified {
        connector,
        body,
        dedupe,
        ..
    } = &verified;
    if !body.is_empty() {
        return Err(ShapeError::DeletionBody);
    }
    let idempotency = verified
        .delivery(&Fields::default())
        .map(|key| Idempotency {
            key: key_of(key, &item_id),
            request: None,
            events: 1,
        });
    Ok(NewEvent {
        time: stamp.now,
        stream: connector.stream.clone(),
        op: Op::Delete,
        dedupe: dedupe.map(|key| key_of(key, &item_id)),
        idempotency,
        item_id,
        generated_id: false,
        duplicate_keys: false,
        field_count: 0,
        connector: connector.name.clone(),
        request_id: stamp.request_id,
        body: Bytes::new(),
    })
}

/// The signature of an empty body is the same for all items of a second, and their deletions are not one.
fn key_of(DedupeKey(key): DedupeKey, item_id: &ItemId) -> DedupeKey {
    let digest = Sha256::new()
        .chain_update(b"delete\0")
        .chain_update(key)
        .chain_update(item_id.as_str())
        .finalize();
    let mut key = [0; 16];
    key.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    DedupeKey(key)
}

/// The id that the body gives, if it gives one that can name an item.
pub(crate) fn given_id(
    fields: &Fields<'_>,
    id_field: Option<&Source>,
) -> Result<Option<ItemId>, NameError> {
    let value = match id_field {
        Some(source) => source.find(fields),
        None => fields.get(DEFAULT_ID_FIELD).copied(),
    };
    match value.as_ref().and_then(Value::id_text) {
        Some(text) => ItemId::new(text).map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Verified;

    const STAMP: Stamp = Stamp {
        now: Timestamp(1_700_000_000_000_000),
        request_id: RequestId([7; 16]),
        random: [9; 10],
    };

    fn shaped(body: &str, id_field: Option<&str>) -> Result<NewEvent, ShapeError> {
        let id_field = id_field.map(source);
        shape(
            Verified::for_test(Connector::for_test("sales"), body),
            id_field.as_ref(),
            STAMP,
        )
    }

    fn source(path: &str) -> Source {
        Source::try_from(path.to_owned()).unwrap()
    }

    fn check(body: &str, id_field: Option<&str>, id: &str, field_count: u32) {
        let event = shaped(body, id_field).unwrap();
        assert!(!event.generated_id, "{body}");
        assert_eq!(
            (event.item_id.as_str(), event.field_count),
            (id, field_count),
            "{body}"
        );
        assert_eq!(event.body, body.as_bytes());
    }

    #[test]
    fn id_is_the_named_property_or_id() {
        check(
            r#"{"region":"North","sales":1}"#,
            Some("region"),
            "North",
            2,
        );
        check(r#"{"id":"a","region":"North"}"#, Some("region"), "North", 2);
        check(r#"{"id":"a","region":"North"}"#, None, "a", 2);
        check(r#"{"id":"a","id":"b"}"#, None, "b", 1);
        check(r#"{"\u0069d":"\u0041/\/"}"#, None, "A//", 1);
        check(r#"{"a.b":"x"}"#, Some("a.b"), "x", 1);
        check(r#"{"a/b":"x"}"#, Some("a/b"), "x", 1);
    }

    #[test]
    fn id_is_what_a_pointer_finds() {
        let body = r#"{"id":"top","repository":{"id":1296269,"a/b":{"~":["x",true]},"none":null}}"#;
        check(body, Some("/repository/id"), "1296269", 2);
        check(body, Some("/repository/a~1b/~0/0"), "x", 2);
        check(body, Some("/repository/a~1b/~0/1"), "true", 2);
        check(body, Some("/id"), "top", 2);
        for nothing in [
            "/repository",
            "/repository/none",
            "/repository/ID",
            "/sender/id",
        ] {
            let event = shaped(body, Some(nothing)).unwrap();
            assert!(event.generated_id, "{nothing}");
        }
    }

    #[test]
    fn number_and_boolean_ids_are_their_json_text() {
        check(r#"{"id":42}"#, None, "42", 1);
        check(r#"{"id":42.0}"#, None, "42.0", 1);
        check(r#"{"id":4.2e1}"#, None, "4.2e1", 1);
        check(r#"{"id":true}"#, None, "true", 1);
    }

    #[test]
    fn missing_or_unusable_ids_are_generated_without_fallback() {
        for (body, id_field) in [
            ("{}", None),
            (r#"{"id":null}"#, None),
            (r#"{"id":""}"#, None),
            (r#"{"id":{}}"#, None),
            (r#"{"id":[1]}"#, None),
            (r#"{"id":"a"}"#, Some("region")),
            (r#"{"ID":"a"}"#, None),
        ] {
            let event = shaped(body, id_field).unwrap();
            assert!(event.generated_id, "{body}");
            assert_eq!(
                event.item_id.as_str(),
                "018bcfe5-6800-7909-8909-090909090909",
                "{body}"
            );
        }
    }

    #[test]
    fn ids_that_can_not_be_keys_are_refused() {
        assert_eq!(
            shaped(r#"{"id":"a\u0000"}"#, None),
            Err(ShapeError::ItemId(NameError::ItemIdControl))
        );
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(257));
        assert_eq!(
            shaped(&long, None),
            Err(ShapeError::ItemId(NameError::ItemIdTooLong))
        );
    }

    #[test]
    fn a_deletion_names_its_item_and_has_no_body() {
        let verified = |body| Verified::for_test(Connector::for_test("sales"), body);
        let id = || ItemId::new("North").unwrap();
        let event = deletion(verified(""), id(), STAMP).unwrap();
        assert_eq!((event.op, event.item_id), (Op::Delete, id()));
        assert_eq!((event.field_count, event.body.len()), (0, 0));
        for body in ["{}", " "] {
            let refused = deletion(verified(body), id(), STAMP);
            assert_eq!(refused, Err(ShapeError::DeletionBody));
        }
    }

    #[test]
    fn deletions_with_one_signature_are_one_only_of_the_same_item() {
        let dedupe = |id| {
            let mut verified = Verified::for_test(Connector::for_test("sales"), "");
            verified.dedupe = Some(DedupeKey([7; 16]));
            let event = deletion(verified, ItemId::new(id).unwrap(), STAMP).unwrap();
            event.dedupe.unwrap()
        };
        assert_eq!(dedupe("North"), dedupe("North"));
        assert_ne!(dedupe("North"), dedupe("South"));
        assert_ne!(dedupe("North"), DedupeKey([7; 16]));
    }

    #[test]
    fn connectors_id_field_stands_between_the_request_and_the_default() {
        let connector = || Connector {
            id_field: Some(source("build")),
            ..Connector::for_test("ci")
        };
        let id = |id_field: Option<&str>| {
            let id_field = id_field.map(source);
            let verified = Verified::for_test(connector(), r#"{"id":"a","build":"7","x":"y"}"#);
            shape(verified, id_field.as_ref(), STAMP)
                .unwrap()
                .item_id
                .as_str()
                .to_owned()
        };
        assert_eq!((id(None).as_str(), id(Some("x")).as_str()), ("7", "y"));
    }
}
