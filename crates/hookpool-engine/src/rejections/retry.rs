//! Trying a refused delivery again, after its connector was put right.

use std::sync::Arc;

use hookpool_core::{
    bulk::Form,
    diagnosis::{self, Evidence, Finding},
    event::{Idempotency, NewEvent, RequestId},
    idempotency::{Call, IDEMPOTENCY_KEY, IdempotencyKey, of_rejection},
    name::ItemId,
    position::Position,
    registry::Connector,
    rejection::{Kept, Marks, Rejection, Retried, Unkept},
    source::{Source, SourceError},
    verify::{Admitted, Header, Headers as _, Verified, VerifyError},
};
use hookpool_store::{Cause, EventLog, PoolStore, dedupe::IDEMPOTENCY_SECONDS};
use thiserror::Error;

use crate::{
    engine::{AcceptError, Asked, Bulk, BulkAsked, Engine},
    follow::blocking,
    rejections::{
        Filter,
        lookback::{Likeness, Lookback},
    },
};

/// For so long the log itself knows what a name was used for; the other half is for a sender that was taken before it was refused.
const NAMES_KNOWN_SECONDS: u64 = IDEMPOTENCY_SECONDS / 2;

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
    /// Nothing names it, and its sender may have sent it again: where something with the same content is, unless too much came since.
    #[error("tell whether it is there already")]
    Doubtful(Option<Position>),
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
    /// Whether what may be there already is taken anyway.
    pub force: bool,
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

impl Ready {
    fn marks(&self) -> Option<Marks> {
        match self {
            Self::One(event) => Marks::of([event]),
            Self::Many(bulk) => Marks::of(bulk.request.events()),
        }
    }

    fn events(&self) -> u32 {
        match self {
            Self::One(_) => 1,
            Self::Many(bulk) => bulk.events(),
        }
    }

    fn first(&mut self) -> &mut NewEvent {
        match self {
            Self::One(event) => event,
            Self::Many(bulk) => &mut bulk.request.first,
        }
    }
}

/// What became of each of some rejections, and whether there are more.
pub type Retrials = (Vec<(RequestId, Result<Retaken, RetryError>)>, bool);

impl<L: EventLog, P: PoolStore> Engine<L, P> {
    /// Verifies a refused delivery with its connector as it is now and the time as it was then, and appends it whole, by the way that it came. One
    /// that is in the log gets the answer of then; one of which that can't be told is not taken, unless that is forced.
    ///
    /// # Errors
    /// [`RetryError`]
    pub async fn retry(
        self: &Arc<Self>,
        id: RequestId,
        terms: RetryTerms,
    ) -> Result<Retaken, RetryError> {
        let rejection = self.rejections().get(id).ok_or(RetryError::Unknown)?;
        let mut lookback = self.lookback(&[rejection], terms).await?;
        self.try_again(id, terms, lookback.as_mut()).await
    }

    /// Does that with those of a connector that wait for it, the oldest first, from behind one of them on, at most so many.
    ///
    /// # Errors
    /// [`RetryError`] if the log can't be read.
    pub async fn retry_all(
        self: &Arc<Self>,
        connector: String,
        after: Option<RequestId>,
        terms: RetryTerms,
        max: usize,
    ) -> Result<Retrials, RetryError> {
        let filter = Filter {
            connector: Some(connector),
            reason: None,
            waiting: true,
        };
        let (mut all, _) = self.rejections().list(&filter, None, usize::MAX);
        all.retain(|rejection| after.is_none_or(|after| rejection.id > after));
        all.reverse();
        let more = all.len() > max;
        all.truncate(max);
        let mut lookback = self.lookback(&all, terms).await?;
        let mut outcomes = Vec::new();
        for rejection in all {
            let id = rejection.id;
            outcomes.push((id, self.try_again(id, terms, lookback.as_mut()).await));
        }
        Ok((outcomes, more))
    }

    async fn try_again(
        self: &Arc<Self>,
        id: RequestId,
        terms: RetryTerms,
        lookback: Option<&mut Lookback>,
    ) -> Result<Retaken, RetryError> {
        let rejections = self.rejections();
        let _one = rejections.retrying.lock().await;
        let rejection = rejections.get(id).ok_or(RetryError::Unknown)?;
        if let Some(retried) = &rejection.retried {
            return self.taken(retried).await;
        }
        let refused = |error| RetryError::Refused(error, Vec::new());
        let (engine, facts) = (Arc::clone(self), Arc::clone(&rejection));
        let mut ready = blocking(move || engine.ready(&facts, terms)).await?;
        if let (Some(lookback), Some(marks)) = (lookback, ready.marks()) {
            let read = lookback.read(self.log()).await;
            read.map_err(|error| refused(error.into()))?;
            match lookback.likeness(&marks, rejection.time) {
                Likeness::Same(first) => {
                    let there = self.there(first, &mut ready, id).await;
                    let retaken = there.map_err(refused)?;
                    self.note(id, &retaken).await;
                    return Ok(retaken);
                }
                Likeness::Alike(first) if !terms.force => {
                    return Err(RetryError::Doubtful(Some(first)));
                }
                Likeness::Unknown if !terms.force => return Err(RetryError::Doubtful(None)),
                Likeness::Alike(_) | Likeness::Unknown | Likeness::Nothing => {}
            }
        }
        let events = ready.events();
        let first = ready.first();
        if first.idempotency.is_none() {
            first.idempotency = Some(of_rejection(&first.connector, id, events));
        }
        let retaken = self.take_again(ready).await.map_err(refused)?;
        self.note(id, &retaken).await;
        Ok(retaken)
    }

    /// What has to be looked for to tell whether these are there already; nothing, where the log itself knows it.
    async fn lookback(
        self: &Arc<Self>,
        rejections: &[Arc<Rejection>],
        terms: RetryTerms,
    ) -> Result<Option<Lookback>, RetryError> {
        let (mut wanted, mut since, mut whose) = (Vec::new(), self.now(), None);
        let names_known = self.now().0.saturating_sub(NAMES_KNOWN_SECONDS * 1_000_000);
        for rejection in rejections {
            if rejection.retried.is_some() {
                continue;
            }
            let (engine, facts) = (Arc::clone(self), Arc::clone(rejection));
            // What can't be taken is told when it is tried.
            let ready = blocking(move || engine.ready(&facts, terms)).await;
            let Ok(mut ready) = ready else { continue };
            let Some(marks) = ready.marks() else { continue };
            if marks.is_named() && rejection.time.0 > names_known {
                continue;
            }
            let first = ready.first();
            whose.get_or_insert_with(|| (first.connector.clone(), first.stream.clone()));
            since = since.min(rejection.time);
            wanted.push(marks);
        }
        let Some(whose) = whose else { return Ok(None) };
        let lookback = Lookback::since(self.log(), whose, since, &wanted).await;
        let lookback = lookback.map_err(|error| RetryError::Refused(error.into(), Vec::new()));
        lookback.map(Some)
    }

    /// What one is told that is in the log already.
    async fn there(
        &self,
        first: Position,
        ready: &mut Ready,
        id: RequestId,
    ) -> Result<Retaken, AcceptError> {
        let (events, is_one) = (ready.events(), matches!(ready, Ready::One(_)));
        let identity: Option<Idempotency> = ready.first().idempotency;
        let found = self.first_event(first, identity, events).await;
        let found = match found {
            // Its own earlier try, under rules for ids or names that are others by now.
            Err(AcceptError::Mismatch) => {
                let found = self.first_event(first, None, events).await?;
                if found.event.request_id != id {
                    return Err(AcceptError::Mismatch);
                }
                found
            }
            found => found?,
        };
        let events = found.event.idempotency.map_or(1, |had| had.events);
        Ok(Retaken {
            last: Position(first.0 + u64::from(events) - 1),
            events,
            item_id: is_one.then_some(found.event.item_id),
            replayed: true,
        })
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
                    .map_err(|unfit| RetryError::Refused(unfit.error.into(), Vec::new()));
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
