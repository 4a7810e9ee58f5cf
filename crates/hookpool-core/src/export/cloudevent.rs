//! Events as CloudEvents 1.0, one JSON object a line.

use serde::Serialize;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{
    event::{Event, Op},
    position::{Epoch, Position},
};

/// A recorded body that is not JSON can't be the data of a CloudEvent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("write the event at position {0} as a CloudEvent: its body is not JSON; export as ndjson")]
pub struct CloudEventError(pub Position);

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    r#type: String,
    subject: &'a str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<&'static str>,
    /// A string, since integers of CloudEvents have 32 bits.
    position: String,
    /// None of a deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
}

/// The line of an event. `public_url` is that of the server, without a slash at its end.
///
/// # Errors
/// [`CloudEventError`]
pub fn cloud_event(
    public_url: &str,
    epoch: Epoch,
    stored: &Event,
) -> Result<String, CloudEventError> {
    let Event { position, event } = stored;
    let failed = || CloudEventError(*position);
    let data = match event.op {
        Op::Upsert => Some(data(&event.body).ok_or_else(failed)?),
        Op::Delete => None,
    };
    let line = CloudEvent {
        specversion: "1.0",
        id: format!("{epoch}.{position}"),
        source: format!("{public_url}/api/streams/{}", event.stream),
        r#type: format!("hookpool.{}", event.op.as_str()),
        subject: event.item_id.as_str(),
        time: event.time.to_string(),
        datacontenttype: data.as_ref().map(|_| "application/json"),
        position: position.to_string(),
        data,
    };
    Ok(super::line::text(&line))
}

/// A body as one line.
fn data(body: &[u8]) -> Option<Box<RawValue>> {
    // Between the tokens of JSON a line feed is a space; inside them there is none.
    let text = str::from_utf8(body).ok()?.replace(['\n', '\r'], " ");
    RawValue::from_string(text).ok()
}
