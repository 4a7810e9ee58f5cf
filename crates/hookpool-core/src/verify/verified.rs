//! A delivery whose sender is known, and what its sender calls it.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use super::delivery::delivery_key;
use crate::{
    event::{DedupeKey, Idempotency},
    idempotency::{Call, IdempotencyKey, fingerprint},
    json::{self, Fields, Value},
    name::ItemId,
    registry::{Connector, Replay},
    scheme::DeliveryAt,
    source::Source,
};

/// A delivery whose sender is known. Only [`super::Admitted::verify`] makes one.
#[derive(Debug)]
pub struct Verified {
    pub(crate) connector: Arc<Connector>,
    pub(crate) body: Bytes,
    pub(crate) dedupe: Option<DedupeKey>,
    pub(super) delivery: Option<DedupeKey>,
}

impl Verified {
    /// Who sends.
    #[must_use]
    pub fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

    /// What names the delivery, the same on every retry of its sender; `fields` are those of its body.
    #[must_use]
    pub fn delivery(&self, fields: &Fields<'_>) -> Option<DedupeKey> {
        self.delivery.or_else(|| {
            let scheme = self.connector.scheme.description();
            let Some(DeliveryAt::Body(place)) = &scheme.delivery else {
                return None;
            };
            let counts = self.connector.is_signed() && self.connector.replay == Replay::Collapse;
            let id = place.find(fields).filter(|_| counts)?.name_text()?;
            Some(delivery_key(&self.connector, &[id.as_bytes()]))
        })
    }

    /// The text that the sender wants back before it sends anything, if this is its question.
    #[must_use]
    pub fn challenge(&self) -> Option<String> {
        const QUESTION: &str = "url_verification";
        let may_be = self.connector.scheme.description().challenge
            && self.connector.is_signed()
            && memchr::memmem::find(&self.body, QUESTION.as_bytes()).is_some();
        if !may_be {
            return None;
        }
        let object = json::object(&self.body).ok()?;
        let text = |name| object.fields.get(name).and_then(Value::as_string);
        (text("type")? == QUESTION).then(|| text("challenge").map(Cow::into_owned))?
    }

    /// The identity that a key gives the deletion of an item.
    #[must_use]
    pub fn deletion_identity(&self, key: &IdempotencyKey, item_id: &ItemId) -> Idempotency {
        key.identity(
            &self.connector.name,
            fingerprint(Call::Delete, Some(item_id.as_str()), &self.body),
        )
    }

    /// The identity that a key gives it.
    #[must_use]
    pub fn identity(
        &self,
        key: &IdempotencyKey,
        call: Call,
        id_field: Option<&Source>,
    ) -> Idempotency {
        key.identity(
            &self.connector.name,
            fingerprint(call, id_field.map(Source::as_str), &self.body),
        )
    }

    /// The identity of a request of many events that has no key: what its sender named it by in the headers, or what it signed. The first
    /// event has to say how many there were, so that a replay gets the same answer.
    pub(crate) fn own_identity(&self) -> Option<Idempotency> {
        let key = self.delivery(&Fields::default()).or(self.dedupe)?;
        Some(Idempotency {
            key,
            request: None,
            events: 1,
        })
    }
}

#[cfg(test)]
impl Verified {
    pub(crate) fn for_test(connector: Connector, body: &str) -> Self {
        Self {
            connector: Arc::new(connector),
            body: Bytes::copy_from_slice(body.as_bytes()),
            dedupe: None,
            delivery: None,
        }
    }
}
