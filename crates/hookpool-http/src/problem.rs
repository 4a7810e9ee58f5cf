//! The one table from errors to what a client is told (RFC 9457). Nothing here echoes input.

use hookpool_core::{
    bulk::{BulkError, PartError, Place},
    event::RequestId,
    json::JsonError,
    plan::PlanError,
    registry::RegistryError,
    rejection::Reason,
    shape::ShapeError,
    verify::VerifyError,
};
use hookpool_engine::{
    AcceptError, appender::QueueError, control::ControlError, follow::FollowError,
    projector::PromoteError,
};
use hookpool_store::{PoolError, ReadError};
use warp::{
    http::{HeaderName, StatusCode, header},
    reply::Response,
};

use crate::{app::set, refusal::Refusal, render::json_response, route::Row};

/// One variant for each code, and all of them for the test of the document.
macro_rules! codes {
    ($($code:ident = $status:ident, $name:literal, $title:literal;)+) => {
        /// What went wrong, for programs. The names are promised in `docs/protocol.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code {
            $($code,)+
        }

        impl Code {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$code),+];

            /// Status, stable name, and one sentence for people.
            pub(crate) fn row(self) -> (StatusCode, &'static str, &'static str) {
                match self {
                    $(Self::$code => (StatusCode::$status, $name, $title),)+
                }
            }
        }
    };
}

codes! {
    MalformedRequest = BAD_REQUEST, "MALFORMED_REQUEST", "The request can't be read in one way only.";
    InvalidPayload = BAD_REQUEST, "INVALID_PAYLOAD", "The body is not strict JSON of the form that is taken here.";
    InvalidItemId = BAD_REQUEST, "INVALID_ITEM_ID", "The item id is too long or holds a control character.";
    InvalidParameter = BAD_REQUEST, "INVALID_PARAMETER", "A parameter is malformed or not known here.";
    TooManyFields = UNPROCESSABLE_ENTITY, "TOO_MANY_FIELDS", "An event has more top-level properties than the connector may send.";
    Unauthorized = UNAUTHORIZED, "UNAUTHORIZED", "No valid key for this.";
    SignatureInvalid = UNAUTHORIZED, "SIGNATURE_INVALID", "The signature is missing or does not match.";
    TimestampOutOfRange = UNAUTHORIZED, "TIMESTAMP_OUT_OF_RANGE", "The timestamp is too far from the server's clock.";
    NotFound = NOT_FOUND, "NOT_FOUND", "There is nothing here that this key may see.";
    MethodNotAllowed = METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "This path takes other methods.";
    NotAcceptable = NOT_ACCEPTABLE, "NOT_ACCEPTABLE", "This path speaks text/event-stream, application/x-ndjson and application/json.";
    BodyTimeout = REQUEST_TIMEOUT, "BODY_TIMEOUT", "The body came too slowly.";
    Conflict = CONFLICT, "CONFLICT", "It does not fit what is there.";
    IdempotencyInProgress = CONFLICT, "IDEMPOTENCY_IN_PROGRESS", "A request with this idempotency key is still in flight.";
    IdempotencyMismatch = UNPROCESSABLE_ENTITY, "IDEMPOTENCY_MISMATCH", "Another request had this idempotency key.";
    NotReady = CONFLICT, "NOT_READY", "The rebuild has not caught up yet.";
    PageExpired = GONE, "PAGE_EXPIRED", "What the pages show can't be read any more; start again without after.";
    BeforeRetention = GONE, "BEFORE_RETENTION", "The stream does not keep history that far back.";
    PreconditionFailed = PRECONDITION_FAILED, "PRECONDITION_FAILED", "It is another one by now.";
    PreconditionRequired = PRECONDITION_REQUIRED, "PRECONDITION_REQUIRED", "This call needs If-Match.";
    PayloadTooLarge = PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", "The body is over the limit.";
    UriTooLong = URI_TOO_LONG, "URI_TOO_LONG", "The target is over the limit.";
    UnsupportedEncoding = UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_ENCODING", "Compressed bodies are not read.";
    ExpectationFailed = EXPECTATION_FAILED, "EXPECTATION_FAILED", "The expectation can't be met.";
    HeadTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE, "HEAD_TOO_LARGE", "The head of the request is over the limit.";
    RateLimited = TOO_MANY_REQUESTS, "RATE_LIMITED", "The connector sends more events than it may.";
    TooManyFailures = TOO_MANY_REQUESTS, "TOO_MANY_FAILURES", "Too many requests without a valid key came from this address.";
    Internal = INTERNAL_SERVER_ERROR, "INTERNAL", "A stored record could not be read.";
    Unavailable = SERVICE_UNAVAILABLE, "UNAVAILABLE", "Not now; the request may be sent again.";
    NotYetApplied = SERVICE_UNAVAILABLE, "NOT_YET_APPLIED", "The position was not reached in time.";
    VersionNotSupported = HTTP_VERSION_NOT_SUPPORTED, "VERSION_NOT_SUPPORTED", "This version of HTTP is not spoken here.";
}

impl Code {
    /// Whether it refuses a delivery, which its sender could change: by itself, or for what is wrong with its credential (`Some(None)`).
    pub(crate) fn rejection(self) -> Option<Option<Reason>> {
        match self {
            Self::Unauthorized => Some(None),
            Self::SignatureInvalid => Some(Some(Reason::Signature)),
            Self::TimestampOutOfRange => Some(Some(Reason::Timestamp)),
            Self::InvalidPayload => Some(Some(Reason::InvalidPayload)),
            Self::InvalidItemId => Some(Some(Reason::InvalidItemId)),
            Self::InvalidParameter => Some(Some(Reason::InvalidParameter)),
            Self::TooManyFields => Some(Some(Reason::TooManyFields)),
            Self::BodyTimeout => Some(Some(Reason::BodyTimeout)),
            Self::PayloadTooLarge => Some(Some(Reason::PayloadTooLarge)),
            Self::UnsupportedEncoding => Some(Some(Reason::UnsupportedEncoding)),
            Self::RateLimited => Some(Some(Reason::RateLimited)),
            Self::Conflict
            | Self::IdempotencyMismatch
            | Self::PreconditionFailed
            | Self::PreconditionRequired => Some(Some(Reason::Other)),
            // No delivery, or nothing that its sender did.
            Self::TooManyFailures
            | Self::IdempotencyInProgress
            | Self::MalformedRequest
            | Self::UriTooLong
            | Self::ExpectationFailed
            | Self::HeadTooLarge
            | Self::VersionNotSupported
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::NotAcceptable
            | Self::NotReady
            | Self::PageExpired
            | Self::BeforeRetention
            | Self::Internal
            | Self::Unavailable
            | Self::NotYetApplied => None,
        }
    }

    /// Its stable name.
    pub(crate) fn name(self) -> &'static str {
        self.row().1
    }
}

/// What a client is told instead of an answer.
#[derive(Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: Option<String>,
    place: Option<Place>,
    headers: Vec<(HeaderName, String)>,
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        let header = match code {
            Code::Unauthorized | Code::SignatureInvalid | Code::TimestampOutOfRange => {
                Some((header::WWW_AUTHENTICATE, "Bearer".to_owned()))
            }
            Code::Unavailable | Code::NotYetApplied | Code::IdempotencyInProgress => {
                Some((header::RETRY_AFTER, "1".to_owned()))
            }
            _ => None,
        };
        Self {
            code,
            detail: None,
            place: None,
            headers: header.into_iter().collect(),
        }
    }
}

impl Problem {
    /// With a sentence that holds nothing from the request but names that it is about.
    pub(crate) fn with(code: Code, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..code.into()
        }
    }

    pub(crate) fn method_not_allowed(row: &Row) -> Self {
        let allowed: Vec<_> = row.methods().collect();
        Self {
            headers: vec![(header::ALLOW, allowed.join(", "))],
            ..Code::MethodNotAllowed.into()
        }
    }

    /// Not before so many seconds.
    pub(crate) fn wait(code: Code, seconds: u64) -> Self {
        Self {
            headers: vec![(header::RETRY_AFTER, seconds.to_string())],
            ..code.into()
        }
    }

    /// With another header.
    pub(crate) fn header(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.code.row().0
    }

    pub(crate) fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Which of many events is meant, and what it is counted as.
    pub(crate) fn place(&self) -> Option<(&'static str, usize)> {
        self.place.map(|place| match place {
            Place::Item(index) => ("item", index),
            Place::Line(number) => ("line", number),
        })
    }

    /// The document, with the status and header that go with it.
    pub(crate) fn into_response(self, request_id: RequestId) -> Response {
        let place = self.place();
        let (status, code, title) = self.code.row();
        let mut document = serde_json::json!({
            "type": format!("/problems/{}", code.to_ascii_lowercase().replace('_', "-")),
            "title": title,
            "status": status.as_u16(),
            "code": code,
            "requestId": request_id.to_string(),
        });
        if let (Some(detail), Some(members)) = (self.detail, document.as_object_mut()) {
            members.insert("detail".into(), detail.into());
        }
        if let (Some((name, number)), Some(members)) = (place, document.as_object_mut()) {
            members.insert(name.into(), number.into());
        }
        let mut response = json_response(document.to_string());
        *response.status_mut() = status;
        set(
            &mut response,
            header::CONTENT_TYPE,
            "application/problem+json",
        );
        for (name, value) in self.headers {
            set(&mut response, name, &value);
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::TargetTooLong => Code::UriTooLong,
            Refusal::TooLarge => Code::HeadTooLarge,
            Refusal::Expectation => Code::ExpectationFailed,
            Refusal::Version => Code::VersionNotSupported,
            Refusal::RequestLine
            | Refusal::Target
            | Refusal::LineEnd
            | Refusal::Field
            | Refusal::Host
            | Refusal::Length
            | Refusal::Coding
            | Refusal::TwoLengths => Code::MalformedRequest,
        };
        Self::with(code, refusal.to_string())
    }
}

impl From<AcceptError> for Problem {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Verify(error) => error.into(),
            AcceptError::Mismatch => Code::IdempotencyMismatch.into(),
            AcceptError::InFlight => Code::IdempotencyInProgress.into(),
            AcceptError::Shape(error) => error.into(),
            AcceptError::Bulk(error) => error.into(),
            AcceptError::Queue(error) => error.into(),
            AcceptError::Read(error) => error.into(),
        }
    }
}

impl From<VerifyError> for Problem {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Unauthorized => Code::Unauthorized,
            VerifyError::SignatureInvalid => Code::SignatureInvalid,
            VerifyError::TimestampOutOfRange => Code::TimestampOutOfRange,
        }
        .into()
    }
}

impl From<ShapeError> for Problem {
    fn from(error: ShapeError) -> Self {
        match error {
            ShapeError::Payload(JsonError { offset, reason }) => {
                Self::with(Code::InvalidPayload, format!("{reason} at byte {offset}"))
            }
            ShapeError::ItemId(error) => Self::with(Code::InvalidItemId, error.to_string()),
            ShapeError::TooManyFields(limit) => Self::with(
                Code::TooManyFields,
                format!("the limit of the connector is {limit}"),
            ),
            ShapeError::DeletionBody => Self::with(Code::InvalidPayload, "a deletion has no body"),
        }
    }
}

impl From<BulkError> for Problem {
    fn from(error: BulkError) -> Self {
        match error {
            BulkError::Stream(_) => Code::Unauthorized.into(),
            BulkError::Payload(error) => ShapeError::Payload(error).into(),
            BulkError::Form(reason) => Self::with(Code::InvalidPayload, reason),
            BulkError::Part(place, error) => Self {
                place: Some(place),
                ..error.into()
            },
        }
    }
}

impl From<PartError> for Problem {
    fn from(error: PartError) -> Self {
        match error {
            PartError::Shape(error) => error.into(),
            PartError::Item(reason) => Self::with(Code::InvalidPayload, reason),
            PartError::TooLarge => Self::with(
                Code::PayloadTooLarge,
                "the event's body is over the limit of one body",
            ),
        }
    }
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Refused(reason) => Self::with(Code::Unavailable, reason),
            QueueError::Append(error) => {
                tracing::warn!(%error, "an append failed");
                Self::with(
                    Code::Unavailable,
                    "the outcome is unknown; a request that is signed or has an idempotency key may safely be sent again",
                )
            }
        }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Registry(RegistryError::Taken(_)) => {
                Self::with(Code::Conflict, "the name is taken")
            }
            ControlError::Registry(RegistryError::LastOperator(_)) => Self::with(
                Code::Conflict,
                "it is the last operator key: add another one first, and revoke this one with that",
            ),
            ControlError::Registry(RegistryError::Plan(error)) => error.into(),
            ControlError::Registry(RegistryError::Unknown(_)) => Code::NotFound.into(),
            ControlError::Registry(RegistryError::Secret(error)) => {
                Self::with(Code::InvalidPayload, error.to_string())
            }
            ControlError::Registry(RegistryError::IdField(error)) => {
                Self::with(Code::InvalidPayload, format!("idField: {error}"))
            }
            ControlError::Registry(error @ RegistryError::LastSigningKey(_)) => {
                Self::with(Code::Conflict, error.to_string())
            }
            ControlError::Registry(error @ RegistryError::Seal(_)) => {
                tracing::error!(%error, "a control change failed");
                Code::Internal.into()
            }
            ControlError::Queue(error) => error.into(),
        }
    }
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        let code = match error {
            PlanError::Running(_) | PlanError::NoPrevious | PlanError::Dropped(_) => Code::Conflict,
            PlanError::NotRunning(_) | PlanError::NoProjection(_) => Code::NotFound,
            PlanError::Rules(_) => Code::InvalidPayload,
        };
        Self::with(code, error.to_string())
    }
}

impl From<PromoteError> for Problem {
    fn from(error: PromoteError) -> Self {
        match error {
            PromoteError::NotReady => Code::NotReady.into(),
            PromoteError::Moved(digest) => Self::with(
                Code::PreconditionFailed,
                format!("the digest of the difference is {digest} by now; look at it again"),
            ),
            PromoteError::Control(error) => error.into(),
            PromoteError::Stopped => Code::Unavailable.into(),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        tracing::error!(%error, "a read of the log failed");
        match error {
            ReadError::Damaged { .. } => Code::Internal.into(),
            ReadError::Backend(_) => Code::Unavailable.into(),
        }
    }
}

impl From<FollowError> for Problem {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Read(error) => error.into(),
            FollowError::Pool(error) => error.into(),
            FollowError::BeforeRetention(earliest) => Self::with(
                Code::BeforeRetention,
                format!("the earliest position that can be read is {earliest}"),
            ),
            FollowError::Body(..) | FollowError::Unfit(..) => {
                tracing::error!(%error, "the past of an item can't be read");
                Code::Internal.into()
            }
        }
    }
}

impl From<PoolError> for Problem {
    fn from(error: PoolError) -> Self {
        tracing::error!(%error, "a read of the pool failed");
        Code::Internal.into()
    }
}
