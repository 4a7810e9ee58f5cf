//! Trying a refused delivery again, after its connector was put right.

use hookpool_core::{
    diagnosis::{self, Evidence, Finding},
    event::RequestId,
    idempotency::IdempotencyKey,
    rejection::{Kept, Retried},
    source::{Source, SourceError},
    verify::{Admitted, Header, Headers as _, VerifyError},
};
use hookpool_store::{Cause, EventLog, PoolStore};
use thiserror::Error;

use crate::{
    engine::{AcceptError, Asked, Engine, Receipt},
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
    #[error(
        "find the delivery of the rejection: it is kept only if its connector has keepRejected, and its credential was good"
    )]
    NotKept,
    /// Its delivery can't be read.
    #[error("read the delivery of the rejection: {0}")]
    Store(Cause),
    /// Its body is over the limit of the connector.
    #[error("take a body over the limit of the connector")]
    TooLarge,
    /// Where its request said that the item id is.
    #[error("take the id field: {0}")]
    IdField(#[from] SourceError),
    /// It is still refused.
    #[error("{0}")]
    Refused(AcceptError, Vec<Finding>),
}

impl<L: EventLog, P: PoolStore> Engine<L, P> {
    /// Verifies a refused delivery with its connector as it is now and the time as it was then, and appends it. One that was
    /// appended before gets the answer of then.
    ///
    /// # Errors
    /// [`RetryError`]
    pub async fn retry(&self, id: RequestId) -> Result<Receipt, RetryError> {
        let rejections = self.rejections();
        let _one = rejections.retrying.lock().await;
        let rejection = rejections.get(id).ok_or(RetryError::Unknown)?;
        if let Some(retried) = &rejection.retried {
            let answer = self.first_answer(retried.position, None).await;
            return answer.map_err(|error| RetryError::Refused(error, Vec::new()));
        }
        let kept = rejections.kept(id).map_err(RetryError::Store)?;
        let kept = kept.ok_or(RetryError::NotKept)?;
        let registry = self.control().registry();
        let name = rejection.connector.as_ref().ok_or(RetryError::NotKept)?;
        let connector = registry
            .connector(name.as_str())
            .ok_or(RetryError::Unknown)?;
        if kept.body.len() > connector.limits.body_bytes_of(usize::MAX) {
            return Err(RetryError::TooLarge);
        }
        let verified = Admitted::again(connector, &kept, rejection.time)
            .and_then(|admitted| admitted.verify(kept.body.clone(), rejection.time));
        let verified = verified.map_err(|error: VerifyError| {
            let evidence = Evidence {
                headers: &kept,
                body: Some(&kept.body),
                at: rejection.time,
            };
            let findings = match connector.is_signed() && error != VerifyError::Unauthorized {
                true => diagnosis::diagnose(&registry, connector, evidence),
                false => Vec::new(),
            };
            RetryError::Refused(error.into(), findings)
        })?;
        drop(registry);
        let key = match kept.header(IDEMPOTENCY_KEY) {
            Header::One(value) => IdempotencyKey::parse(value).ok(),
            Header::Absent | Header::Repeated => None,
        };
        let id_field = kept.id_field.clone().map(Source::try_from).transpose()?;
        let asked = Asked {
            id_field: id_field.as_ref(),
            key: key.as_ref(),
        };
        let recorded = self.record(verified, asked, id).await;
        let receipt = recorded.map_err(|error| RetryError::Refused(error, Vec::new()))?;
        self.note(id, kept, &receipt).await;
        Ok(receipt)
    }

    async fn note(&self, id: RequestId, kept: Kept, receipt: &Receipt) {
        let retried = Retried {
            at: self.now(),
            position: receipt.position,
        };
        let rejections = std::sync::Arc::clone(self.rejections());
        blocking(move || {
            if let Some(rejection) = rejections.get(id) {
                rejections.note(&rejection, &kept, retried);
            }
        })
        .await;
    }
}
