//! Requests of many events: the same steps as for one, of which the long ones leave the threads that serve.

use std::sync::Arc;

use bytes::Bytes;
use hookpool_core::{
    bulk::{BulkError, Form, Terms, bulk},
    event::{Request, RequestId},
    idempotency::IdempotencyKey,
    position::Position,
    registry::Connector,
    verify::{Admitted, Proof, Verified, VerifyError, admit_any},
};
use hookpool_store::{Appended, EventLog, PoolStore};

use super::{AcceptError, Engine};
use crate::{appender::QueueError, follow::blocking};

/// Up to so many bytes are verified and parsed where they are: a change of threads costs more.
const AT_ONCE_BYTES: usize = 16 << 10;

/// What a request of many events asks beside its body.
#[derive(Debug)]
pub struct BulkAsked {
    /// How its events are written down.
    pub form: Form,
    /// What the sender calls the request by.
    pub key: Option<IdempotencyKey>,
    /// Bytes of one event's body at most.
    pub body_bytes_max: usize,
}

/// A request of many events that may be appended.
#[derive(Debug)]
pub struct Bulk {
    pub(crate) request: Request,
    /// Who sent it.
    pub connector: Arc<Connector>,
}

impl Bulk {
    /// How many events it has.
    #[must_use]
    pub fn events(&self) -> u32 {
        u32::try_from(self.request.count()).unwrap_or(u32::MAX)
    }
}

/// What became of an accepted request of many events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkReceipt {
    /// Where its last event is.
    pub last: Position,
    /// How many there are, one after the other.
    pub events: u32,
    /// The request that made them.
    pub request_id: RequestId,
    /// Whether that was an earlier one.
    pub replayed: bool,
}

impl<L: EventLog, P: PoolStore> Engine<L, P> {
    /// Decides by the headers alone whether a body may be read; without a stream it is that of the connector, or the body names it.
    ///
    /// # Errors
    /// [`VerifyError`]
    pub fn admit_bulk(
        &self,
        stream: Option<&str>,
        proof: Proof<'_>,
    ) -> Result<Admitted, VerifyError> {
        match stream {
            Some(stream) => self.admit(stream, proof),
            None => admit_any(&self.control.registry(), proof, self.clock.now()),
        }
    }

    /// The first half of taking a request of many events: verify and shape.
    ///
    /// # Errors
    /// [`AcceptError`]
    pub async fn prepare_bulk(
        self: &Arc<Self>,
        admitted: Admitted,
        body: Bytes,
        asked: BulkAsked,
        request_id: RequestId,
    ) -> Result<Bulk, AcceptError> {
        if body.len() <= AT_ONCE_BYTES {
            return self.prepare(admitted, body, &asked, request_id);
        }
        let engine = Arc::clone(self);
        blocking(move || engine.prepare(admitted, body, &asked, request_id)).await
    }

    /// The second half: append. Returns when all of its events are durable.
    ///
    /// # Errors
    /// [`AcceptError`]; then none of them is in the log, unless the outcome is unknown. Dropping the future loses only the answer.
    pub async fn record_bulk(&self, bulk: Bulk) -> Result<BulkReceipt, AcceptError> {
        let (events, Bulk { request, .. }) = (bulk.events(), bulk);
        let (identity, request_id) = (request.first.idempotency, request.first.request_id);
        let _in_flight = self.in_flight.reserve(identity.as_ref())?;
        if !self.status.is_ready() {
            return Err(QueueError::Refused("the engine is stopping").into());
        }
        let receipt = |first: Position, events: u32, request_id, replayed| BulkReceipt {
            last: Position(first.0 + u64::from(events) - 1),
            events,
            request_id,
            replayed,
        };
        match self.appender.append(request).await? {
            Appended::New(first) => Ok(receipt(first, events, request_id, false)),
            Appended::Duplicate(position) => {
                let first = self.first_event(position, identity, events).await?.event;
                let events = first.idempotency.map_or(1, |had| had.events);
                Ok(receipt(position, events, first.request_id, true))
            }
        }
    }

    fn prepare(
        &self,
        admitted: Admitted,
        body: Bytes,
        asked: &BulkAsked,
        request_id: RequestId,
    ) -> Result<Bulk, AcceptError> {
        let verified = self.verify(admitted, body)?;
        Ok(self.bulk(&verified, asked, request_id)?)
    }

    /// The events of a verified request.
    pub(crate) fn bulk(
        &self,
        verified: &Verified,
        asked: &BulkAsked,
        request_id: RequestId,
    ) -> Result<Bulk, BulkError> {
        let terms = Terms {
            now: self.clock.now(),
            request_id,
            random: self.entropy.bytes(),
            body_bytes_max: asked.body_bytes_max,
        };
        Ok(Bulk {
            request: bulk(verified, &asked.form, asked.key.as_ref(), terms)?,
            connector: Arc::clone(verified.connector()),
        })
    }
}
