//! What a request is known by when it comes again, with or without a name.

use sha2::{Digest, Sha256};

use crate::{
    event::{DedupeKey, Event, NewEvent, RequestId},
    idempotency::first_half,
};

/// What a request of the log, or one that may get into it, is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Its own id.
    pub id: RequestId,
    /// What its sender names it by.
    pub key: Option<DedupeKey>,
    /// What was signed.
    pub dedupe: Option<DedupeKey>,
    /// What is in it: a hash of its bodies, and of the ids that were not generated.
    pub content: [u8; 16],
}

impl Marks {
    /// Of the events of one request, of which the first says what names it.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a NewEvent>) -> Option<Self> {
        let mut events = events.into_iter().peekable();
        let first = *events.peek()?;
        let content = events.fold(Sha256::new(), |hash, event| {
            let id = if event.generated_id {
                ""
            } else {
                event.item_id.as_str()
            };
            hash.chain_update((id.len() as u64).to_le_bytes())
                .chain_update(id)
                .chain_update((event.body.len() as u64).to_le_bytes())
                .chain_update(&event.body)
        });
        Some(Self {
            id: first.request_id,
            key: first.idempotency.map(|identity| identity.key),
            dedupe: first.dedupe,
            content: first_half(content),
        })
    }

    /// Of those in the log, which lie one after the other.
    #[must_use]
    pub fn of_recorded(events: &[Event]) -> Option<Self> {
        Self::of(events.iter().map(|event| &event.event))
    }

    /// Whether its sender names it: what it signed is no name, since it signs anew when it tries again.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.key.is_some() && self.key != self.dedupe
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        event::{Idempotency, Op},
        name::{ConnectorName, ItemId, StreamName},
        time::Timestamp,
    };

    fn event(id: Option<&str>, body: &'static str) -> NewEvent {
        NewEvent {
            time: Timestamp(1),
            stream: StreamName::new("sales").unwrap(),
            op: Op::Upsert,
            item_id: ItemId::new(id.unwrap_or("made")).unwrap(),
            generated_id: id.is_none(),
            duplicate_keys: false,
            field_count: 0,
            connector: ConnectorName::new("sales").unwrap(),
            request_id: RequestId([1; 16]),
            dedupe: None,
            idempotency: None,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn content_is_that_of_all_events_and_of_the_ids_that_were_given() {
        let of = |events: &[NewEvent]| Marks::of(events).unwrap().content;
        let one = of(&[event(None, "{}")]);
        let made_otherwise = NewEvent {
            item_id: ItemId::new("otherwise").unwrap(),
            request_id: RequestId([2; 16]),
            ..event(None, "{}")
        };
        assert_eq!(of(&[made_otherwise]), one);
        for other in [
            vec![event(None, "{ }")],
            vec![event(Some("a"), "{}")],
            vec![event(None, "{}"), event(None, "{}")],
            vec![event(None, "{}{}")],
        ] {
            assert_ne!(of(&other), one, "{other:?}");
        }
        assert_eq!(Marks::of(&[]), None);
    }

    #[test]
    fn what_was_signed_is_no_name() {
        let key = |key| DedupeKey([key; 16]);
        let marks = |named: Option<u8>| {
            let idempotency = named.map(|named| Idempotency {
                key: key(named),
                request: None,
                events: 1,
            });
            let dedupe = Some(key(1));
            let event = NewEvent {
                dedupe,
                idempotency,
                ..event(None, "{}")
            };
            Marks::of(&[event]).unwrap().is_named()
        };
        assert_eq!(
            [marks(None), marks(Some(1)), marks(Some(2))],
            [false, false, true]
        );
    }
}
