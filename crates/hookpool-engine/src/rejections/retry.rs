//! Trying a refused delivery again, after its connector was put right.

use std::sync::Arc;

use hookpool_core::{
    bulk::Form,
    diagnosis::{self, Evidence, Finding},
    event::{NewEvent, RequestId},
    idempotency::{Call, IdempotencyKey},
    name::ItemId,
    position::Position,
    registry::Connector,
    rejection::{Kept, Rejection, Retried, Unkept},
    source::{Source, SourceError},
    verify::{Admitted, Header, Headers as _, Verified, VerifyError},
};
use hookpool_store::{Cause, EventLog, PoolStore};
use thiserror::Error;

use crate::{
    engine::{AcceptError, Asked, Bulk, BulkAsked, Engine},
    follow::blocking,
    rejections::IDEMPOTENCY_KEY,
};

/// Why a rejection is not an event now either.
#[derive(Debug, Error)]
pub enum RetryError {
    /// There is none of this id, or not any more.
    #[error("find the rejection")]
    Unknown,
    /// Its delivery was not kept.
    #[error("find the delivery of the rejection: {0}")]
    NotKept(Unkept),
    /// Its delivery can't be read.
    #[error("read the delivery of the rejection: {0}")]
    Store(Cause),
    /// Its body is over the limit of the connector or of the server.
    #[error("take a body over the limit of the connector or the server")]
    TooLarge,
    /// Where its request said that the item id is.
    #[error("take the id field: {0}")]
    IdField(#[from] SourceError),
    /// It is a question that its sender wants an answer to, and no event.
    #[error("take the sender's question whether this URL is the right one: it has to ask again")]
    Question,
    /// It is still refused.
    #[error("{0}")]
    Refused(AcceptError, Vec<Finding>),
}

/// How large bodies may be, of connectors without a limit of their own.
#[derive(Debug, Clone, Copy)]
pub struct RetryTerms {
    /// Of one event.
    pub body_bytes_max: usize,
    /// Of a request of many.
    pub bulk_bytes_max: usize,
}

/// What became of a rejection that was tried again and taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retaken {
    /// Where its last event is; the others are right before it.
    pub last: Position,
    /// How many there are.
    pub events: u32,
    /// The item that a delivery of one event touched.
    pub item_id: Option<ItemId>,
    /// Whether they were there already.
    pub replayed: bool,
}

/// A delivery that is to be appended again.
enum Ready {
    One(NewEvent),
    Many(Bulk),
}

impl<L: EventLog, P: PoolStore> Engine<L, P> {
    /// Verifies a refused delivery with its connector as it is now and the time as it was then, and appends it whole, by the way that it came. One
    /// that was appended before gets the answer of then.
    ///
    /// # Errors
    /// [`RetryError`]
    pub async fn retry(
        self: &Arc<Self>,
        id: RequestId,
        terms: RetryTerms,
    ) -> Result<Retaken, RetryError> {
        let rejections = self.rejections();
        let _one = rejections.retrying.lock().await;
        let rejection = rejections.get(id).ok_or(RetryError::Unknown)?;
        if let Some(retried) = &rejection.retried {
            return self.taken(retried).await;
        }
        let engine = Arc::clone(self);
        let ready = blocking(move || engine.ready(&rejection, terms)).await?;
        let retaken = self.take_again(ready).await;
        let retaken = retaken.map_err(|error| RetryError::Refused(error, Vec::new()))?;
        self.note(id, &retaken).await;
        Ok(retaken)
    }

    /// What one that was taken before is told.
    async fn taken(&self, retried: &Retried) -> Result<Retaken, RetryError> {
        let Retried {
            position, events, ..
        } = *retried;
        let mut retaken = Retaken {
            last: position,
            events,
            item_id: None,
            replayed: true,
        };
        if events == 1 {
            let first = self.first_answer(position, None).await;
            let first = first.map_err(|error| RetryError::Refused(error, Vec::new()))?;
            retaken.item_id = Some(first.item_id);
        }
        Ok(retaken)
    }

    /// Reads, verifies and shapes. May block.
    fn ready(&self, rejection: &Rejection, terms: RetryTerms) -> Result<Ready, RetryError> {
        let unkept = RetryError::NotKept(rejection.unkept.unwrap_or(Unkept::Room));
        let kept = self.rejections().kept(rejection.id);
        let Some(kept) = kept.map_err(RetryError::Store)? else {
            return Err(unkept);
        };
        let registry = self.control().registry();
        let name = rejection.connector.as_ref();
        let connector = name.and_then(|name| registry.connector(name.as_str()));
        let connector = Arc::clone(connector.ok_or(RetryError::Unknown)?);
        let body_bytes_max = connector.limits.body_bytes_of(terms.body_bytes_max);
        let bytes_max = match kept.call {
            Call::Webhook | Call::Delete => body_bytes_max,
            Call::Items | Call::Lines => terms.bulk_bytes_max,
        };
        if kept.body.len() > bytes_max {
            return Err(RetryError::TooLarge);
        }
        let verified = self.verify_again(&connector, &kept, rejection)?;
        let key = match kept.header(IDEMPOTENCY_KEY) {
            Header::One(value) => IdempotencyKey::parse(value).ok(),
            Header::Absent | Header::Repeated => None,
        };
        let id_field = kept.id_field.clone().map(Source::try_from).transpose()?;
        let form = match kept.call {
            Call::Webhook => {
                if verified.challenge().is_some() {
                    return Err(RetryError::Question);
                }
                let asked = Asked {
                    id_field: id_field.as_ref(),
                    key: key.as_ref(),
                };
                let event = self.event(verified, asked, rejection.id);
                return event
                    .map(Ready::One)
                    .map_err(|error| RetryError::Refused(error.into(), Vec::new()));
            }
            Call::Delete => return Err(RetryError::NotKept(Unkept::NoDelivery)),
            Call::Items => Form::Items,
            Call::Lines => Form::Lines { id_field },
        };
        let asked = BulkAsked {
            form,
            key,
            body_bytes_max,
        };
        self.bulk(&verified, &asked, rejection.id)
            .map(Ready::Many)
            .map_err(|error| RetryError::Refused(error.into(), Vec::new()))
    }

    fn verify_again(
        &self,
        connector: &Arc<Connector>,
        kept: &Kept,
        rejection: &Rejection,
    ) -> Result<Verified, RetryError> {
        let verified = Admitted::again(connector, kept, rejection.time)
            .and_then(|admitted| admitted.verify(kept.body.clone(), rejection.time));
        verified.map_err(|error: VerifyError| {
            let evidence = Evidence {
                headers: kept,
                body: Some(&kept.body),
                at: rejection.time,
            };
            let findings = match connector.is_signed() && error != VerifyError::Unauthorized {
                true => diagnosis::diagnose(&self.control().registry(), connector, evidence),
                false => Vec::new(),
            };
            RetryError::Refused(error.into(), findings)
        })
    }

    async fn take_again(&self, ready: Ready) -> Result<Retaken, AcceptError> {
        Ok(match ready {
            Ready::One(event) => {
                let receipt = self.append_once(event).await?;
                Retaken {
                    last: receipt.position,
                    events: 1,
                    item_id: Some(receipt.item_id),
                    replayed: receipt.replayed,
                }
            }
            Ready::Many(bulk) => {
                let receipt = self.record_bulk(bulk).await?;
                Retaken {
                    last: receipt.last,
                    events: receipt.events,
                    item_id: None,
                    replayed: receipt.replayed,
                }
            }
        })
    }

    async fn note(&self, id: RequestId, retaken: &Retaken) {
        let retried = Retried {
            at: self.now(),
            position: retaken.last,
            events: retaken.events,
        };
        let rejections = Arc::clone(self.rejections());
        blocking(move || rejections.note(id, retried)).await;
    }
}
