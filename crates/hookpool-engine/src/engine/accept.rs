//! A delivery on its way into the log: admitted, verified, shaped, appended.

use std::sync::Arc;

use bytes::Bytes;
use hookpool_core::{
    bulk::BulkError,
    event::{Event, Idempotency, NewEvent, RequestId},
    idempotency::{Call, IdempotencyKey},
    name::ItemId,
    position::Position,
    projection::Projection,
    registry::Connector,
    rejection::{Credential, Shown},
    shape::{ShapeError, Stamp, deletion, shape},
    source::Source,
    verify::{self, Admitted, Headers, Proof, Verified, VerifyError},
};
use hookpool_store::{AppendError, Appended, EventLog, PageRequest, PoolStore, ReadError};
use thiserror::Error;

use super::{
    Engine,
    unfit::{self, Unfit},
};
use crate::{
    appender::QueueError,
    pace::{Pace, TooFast},
};

/// Why a delivery is not accepted.
#[derive(Debug, Error)]
pub enum AcceptError {
    /// Who sent it is not known, or the bytes are not what they sent.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The key of another request.
    #[error("use an idempotency key again: another request had it")]
    Mismatch,
    /// A request with the key is not done yet.
    #[error("use an idempotency key again: a request that has it is still in flight")]
    InFlight,
    /// It is not an event.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// They are no events.
    #[error(transparent)]
    Bulk(#[from] BulkError),
    /// It was not, or perhaps not, appended.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// It came before, but what came before can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What a delivery asks beside its body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The property that holds the item id.
    pub id_field: Option<&'a Source>,
    /// What the sender calls the request by.
    pub key: Option<&'a IdempotencyKey>,
}

/// What became of an accepted delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Where its event is.
    pub position: Position,
    /// Whether the event is that of an earlier delivery of the same request.
    pub replayed: bool,
    /// The item it touched.
    pub item_id: ItemId,
    /// Distinct top-level properties.
    pub field_count: u32,
    /// Whether the id was generated.
    pub generated_id: bool,
    /// Whether a property came twice.
    pub duplicate_keys: bool,
}

impl Receipt {
    fn new(event: &NewEvent) -> Self {
        Self {
            position: Position::ZERO,
            replayed: false,
            item_id: event.item_id.clone(),
            field_count: event.field_count,
            generated_id: event.generated_id,
            duplicate_keys: event.duplicate_keys,
        }
    }
}

impl<L: EventLog, P: PoolStore> Engine<L, P> {
    /// Decides by the headers alone whether a body may be read.
    ///
    /// # Errors
    /// [`VerifyError`]
    pub fn admit(&self, stream: &str, proof: Proof<'_>) -> Result<Admitted, VerifyError> {
        verify::admit(&self.control.registry(), stream, proof, self.clock.now())
    }

    /// The same for a sender that has a hook.
    ///
    /// # Errors
    /// [`VerifyError`]
    pub fn admit_hook(&self, hook: &str, headers: &dyn Headers) -> Result<Admitted, VerifyError> {
        verify::admit_hook(&self.control.registry(), hook, headers, self.clock.now())
    }

    /// Whether there is such a hook.
    ///
    /// # Errors
    /// [`VerifyError::Unauthorized`]
    pub fn must_be_hook(&self, hook: &str) -> Result<(), VerifyError> {
        verify::must_be_hook(&self.control.registry(), hook, self.clock.now())
    }

    /// Takes a delivery: verify, shape, append. Returns when its event is durable.
    ///
    /// # Errors
    /// [`AcceptError`]. Dropping the future loses only the answer.
    pub async fn accept(
        &self,
        admitted: Admitted,
        body: Bytes,
        asked: Asked<'_>,
        request_id: RequestId,
    ) -> Result<Receipt, AcceptError> {
        let verified = self.verify(admitted, body)?;
        self.record(verified, asked, request_id).await
    }

    /// The first half of [`Self::accept`]: whether these bytes are what the sender sent.
    ///
    /// # Errors
    /// [`VerifyError`]
    pub fn verify(&self, admitted: Admitted, body: Bytes) -> Result<Verified, VerifyError> {
        let now = self.clock.now();
        let admitted = admitted.renewed(&self.control.registry(), now)?;
        admitted.verify(body, now)
    }

    /// Lets so many events of a connector in; what is left where it is limited.
    ///
    /// # Errors
    /// [`TooFast`]
    pub fn pace(&self, connector: &Connector, events: u64) -> Result<Option<Pace>, TooFast> {
        self.paces.take(connector, events, self.clock.now())
    }

    /// What the credential of a refused delivery is worth.
    #[must_use]
    pub fn shown(&self, credential: Credential<'_>, stream: Option<&str>) -> Shown {
        Shown::of(
            &self.control.registry(),
            credential,
            stream,
            self.clock.now(),
        )
    }

    /// The second half: shape and append.
    ///
    /// # Errors
    /// As for [`Self::accept`].
    pub async fn record(
        &self,
        verified: Verified,
        asked: Asked<'_>,
        request_id: RequestId,
    ) -> Result<Receipt, AcceptError> {
        match self.event(verified, asked, request_id) {
            Ok(event) => self.append_once(event).await,
            Err(unfit) => self.unfit(unfit).await,
        }
    }

    pub(crate) fn event(
        &self,
        verified: Verified,
        Asked { id_field, key }: Asked<'_>,
        request_id: RequestId,
    ) -> Result<NewEvent, Unfit> {
        let identity = key.map(|key| verified.identity(key, Call::Webhook, id_field));
        let known_by = unfit::known_by(identity, &verified);
        let shaped = shape(verified, id_field, self.stamp(request_id));
        let mut event = shaped.map_err(|error| Unfit { known_by, error })?;
        // What the sender says itself comes before what its scheme names the delivery by.
        event.idempotency = identity.or(event.idempotency);
        Ok(event)
    }

    /// The same for a deletion.
    ///
    /// # Errors
    /// As for [`Self::accept`].
    pub async fn record_deletion(
        &self,
        verified: Verified,
        item_id: ItemId,
        key: Option<&IdempotencyKey>,
        request_id: RequestId,
    ) -> Result<Receipt, AcceptError> {
        let identity = key.map(|key| verified.deletion_identity(key, &item_id));
        let mut event = match deletion(verified, item_id, self.stamp(request_id)) {
            Ok(event) => event,
            Err(error) => {
                let known_by = identity;
                return self.unfit(Unfit { known_by, error }).await;
            }
        };
        event.idempotency = identity.or(event.idempotency);
        self.append_once(event).await
    }

    /// What [`Self::record`] would append, and the rules by which it would be read. Nothing is written.
    ///
    /// # Errors
    /// [`ShapeError`]
    pub fn rehearse(
        &self,
        verified: Verified,
        id_field: Option<&Source>,
        request_id: RequestId,
    ) -> Result<(NewEvent, Arc<Projection>), ShapeError> {
        let event = shape(verified, id_field, self.stamp(request_id))?;
        let plan = self.control.registry().plan(event.stream.as_str());
        Ok((event, Arc::clone(&plan.live.projection)))
    }

    pub(crate) fn log(&self) -> &Arc<L> {
        &self.log
    }

    fn stamp(&self, request_id: RequestId) -> Stamp {
        Stamp {
            now: self.clock.now(),
            request_id,
            random: self.entropy.bytes(),
        }
    }

    pub(crate) async fn append_once(&self, event: NewEvent) -> Result<Receipt, AcceptError> {
        let _in_flight = self.in_flight.reserve(event.idempotency.as_ref())?;
        self.append(event).await
    }

    async fn append(&self, event: NewEvent) -> Result<Receipt, AcceptError> {
        if !self.status.is_ready() {
            return Err(QueueError::Refused("the engine is stopping").into());
        }
        let (receipt, identity) = (Receipt::new(&event), event.idempotency);
        match self.appender.append(event.into()).await? {
            Appended::New(position) => Ok(Receipt {
                position,
                ..receipt
            }),
            Appended::Duplicate(position) => self.first_answer(position, identity).await,
        }
    }

    /// The answer that the delivery at this position got.
    pub(crate) async fn first_answer(
        &self,
        position: Position,
        identity: Option<Idempotency>,
    ) -> Result<Receipt, AcceptError> {
        let first = self.first_event(position, identity, 1).await?;
        Ok(Receipt {
            position,
            replayed: true,
            ..Receipt::new(&first.event)
        })
    }

    /// The first event of the request of which this one of so many events is a repetition; fails if only the key is the same.
    pub(crate) async fn first_event(
        &self,
        position: Position,
        identity: Option<Idempotency>,
        events: u32,
    ) -> Result<Event, AcceptError> {
        let request = PageRequest {
            until: position,
            events_max: 1,
            ..PageRequest::after(Position(position.0 - 1))
        };
        let page = self.log_page(request).await?;
        let gone = || {
            QueueError::Append(AppendError::Unknown(Arc::from(Box::from(
                "the first delivery is no longer in the log",
            ))))
        };
        let first = page.events.into_iter().next().ok_or_else(gone)?;
        let same = match (identity, first.event.idempotency) {
            (Some(asked), Some(had)) if asked.key == had.key => asked.request == had.request,
            // The same signature, whatever the request is called. Bytes that were signed for one call may be shown to another, where they
            // would be other events.
            (_, had) => had.map_or(1, |had| had.events) == events,
        };
        if same {
            Ok(first)
        } else {
            Err(AcceptError::Mismatch)
        }
    }
}
