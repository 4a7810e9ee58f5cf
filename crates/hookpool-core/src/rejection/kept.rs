//! What is kept of a refused delivery beside its facts, so that it can be tried again; or why it is not.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::Error as _};

use super::Rejection;
use crate::{
    idempotency::{Call, IDEMPOTENCY_KEY, IdempotencyKey},
    json,
    registry::{Connector, Replay},
    scheme::DeliveryAt,
    source::Source,
    verify::{Header, Headers},
};

/// Why a rejection can't be tried again, in one of few words, which are promised in `docs/protocol.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unkept {
    /// It showed no good key: what strangers send is not kept.
    Credential,
    /// Its connector does not keep bodies.
    Off,
    /// It is a deletion or a dry run.
    NoDelivery,
    /// Its headers and query do not say how its events are written down.
    Form,
    /// Its body was not read to its end.
    Partial,
    /// It is larger than what is kept of one.
    TooLarge,
    /// It came while too much waited to be looked at.
    Busy,
    /// Later ones needed its room.
    Room,
    /// It was taken by another try.
    Taken,
}

impl Unkept {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Off => "off",
            Self::NoDelivery => "no-delivery",
            Self::Form => "form",
            Self::Partial => "partial",
            Self::TooLarge => "too-large",
            Self::Busy => "busy",
            Self::Room => "room",
            Self::Taken => "taken",
        }
    }
}

/// What it means, and what to do.
impl fmt::Display for Unkept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Credential => {
                "it showed no good key of the stream, and what strangers send is not kept; its sender has to send it again with a good one"
            }
            Self::Off => {
                "its connector keeps no bodies; `hookpool connector set NAME --keep-rejected true` keeps those that come from then on, and this one has to be sent again"
            }
            Self::NoDelivery => {
                "deletions and dry runs are not kept; its sender has to ask again"
            }
            Self::Form => {
                "its Content-Type and query do not say how its events are written down; its sender has to put that right and send it again"
            }
            Self::Partial => {
                "its body was not read to its end; its sender has to send it again"
            }
            Self::TooLarge => {
                "it takes more than half of limits.rejection-bytes, or over 32 MiB; its sender has to send it again, in parts or after limits.rejection-bytes was raised"
            }
            Self::Busy => {
                "it came while 32 MiB of others waited to be kept; its sender has to send it again"
            }
            Self::Room => {
                "later ones needed its room; its sender has to send it again, and limits.rejection-bytes makes more room"
            }
            Self::Taken => "it was taken by an earlier try",
        })
    }
}

/// What is kept of a delivery beside its facts, if its operator wants it: enough to verify it again. The credential is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// How its events are written down; no deletion.
    pub call: Call,
    /// The headers that the connector's scheme looks at.
    pub headers: Vec<KeptHeader>,
    /// Where the request said that the item id is.
    pub id_field: Option<String>,
    /// The exact bytes.
    #[serde(skip)]
    pub body: Bytes,
}

/// A header that proves a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptHeader {
    /// In lower case.
    pub name: String,
    /// As it was sent, as hex.
    #[serde(with = "hex_bytes")]
    pub value: Bytes,
}

/// By what a delivery is known when its sender sends it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KnownBy {
    /// What the sender calls the request.
    IdempotencyKey,
    /// What the sender's scheme names the delivery by.
    DeliveryId,
    /// Nothing but what is in it: a sender that changes anything has sent something else.
    Content,
}

impl Kept {
    /// By what it is known, with its connector as it is.
    #[must_use]
    pub fn known_by(&self, connector: &Connector) -> KnownBy {
        let is_one = |name: &str| matches!(self.header(name), Header::One(_));
        if let Header::One(value) = self.header(IDEMPOTENCY_KEY)
            && IdempotencyKey::parse(value).is_ok()
        {
            return KnownBy::IdempotencyKey;
        }
        let counts = connector.is_signed() && connector.replay == Replay::Collapse;
        let is_named = counts
            && match &connector.scheme.description().delivery {
                Some(DeliveryAt::SignedHeader(name)) => is_one(name),
                Some(DeliveryAt::TrustedHeader { id, .. }) => is_one(id),
                Some(DeliveryAt::Body(place)) => self.call == Call::Webhook && self.names(place),
                None => false,
            };
        if is_named {
            KnownBy::DeliveryId
        } else {
            KnownBy::Content
        }
    }

    fn names(&self, place: &Source) -> bool {
        let object = json::object(&self.body).ok();
        let id = object.and_then(|it| place.find(&it.fields)?.name_text());
        id.is_some()
    }
}

impl Headers for Kept {
    fn header(&self, name: &str) -> Header<'_> {
        let named = self.headers.iter();
        let named = named.filter(|header| header.name.eq_ignore_ascii_case(name));
        Header::from_values(named.map(|header| &*header.value))
    }
}

/// As it is stored: its facts as a line of JSON, and behind it, where it is kept, another line with its headers and then the body as it is.
///
/// # Errors
/// Never: everything in it can be written.
pub fn encode(rejection: &Rejection, kept: Option<&Kept>) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(rejection)?;
    bytes.push(b'\n');
    if let Some(kept) = kept {
        serde_json::to_writer(&mut bytes, kept)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&kept.body);
    }
    Ok(bytes)
}

/// Reads what was stored; what does not read is nothing that has to be kept.
///
/// # Errors
/// For anything else, also where the body is cut off.
pub fn decode(bytes: &[u8]) -> Result<(Rejection, Option<Kept>), serde_json::Error> {
    let (facts, rest) = line(bytes);
    let facts: Rejection = serde_json::from_slice(facts)?;
    if rest.is_empty() {
        return Ok((facts, None));
    }
    let (kept, body) = line(rest);
    if body.len() as u64 != facts.body_bytes {
        return Err(serde_json::Error::custom("the body is not whole"));
    }
    let kept = Kept {
        body: Bytes::copy_from_slice(body),
        ..serde_json::from_slice(kept)?
    };
    Ok((facts, Some(kept)))
}

/// The first line, and what follows it.
fn line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    let (line, rest) = bytes.split_at(end);
    (line, rest.get(1..).unwrap_or_default())
}

mod hex_bytes {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&const_hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(from)?;
        const_hex::decode(text)
            .map(Bytes::from)
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::RequestId,
        rejection::{Reason, Way},
        time::Timestamp,
    };

    fn rejection(body_bytes: u64) -> Rejection {
        Rejection {
            id: RequestId([1; 16]),
            time: Timestamp::from_seconds(1),
            reason: Reason::Signature,
            status: 401,
            findings: Vec::new(),
            way: Way::Ingest,
            stream: None,
            connector: None,
            key_id: None,
            address: None,
            body_bytes,
            headers: Vec::new(),
            kept: true,
            unkept: None,
            known_by: None,
            retried: None,
        }
    }

    #[test]
    fn what_is_stored_is_read_back_and_what_is_cut_off_is_not() {
        let kept = Kept {
            call: Call::Lines,
            headers: vec![KeptHeader {
                name: "x".to_owned(),
                value: Bytes::from_static(b"\xff\n"),
            }],
            id_field: Some("a".to_owned()),
            body: Bytes::from_static(b"{}\n\xff\n{}"),
        };
        let facts = rejection(kept.body.len() as u64);
        let bytes = encode(&facts, Some(&kept)).unwrap();
        assert_eq!(decode(&bytes).unwrap(), (facts.clone(), Some(kept)));
        let lines = bytes.len() - usize::try_from(facts.body_bytes).unwrap();
        for end in 1..bytes.len() {
            let cut = decode(&bytes[..end]).is_err();
            // What was cut off at the end of a line has all of the facts.
            assert!(cut || end < lines, "{end}");
        }
        let alone = encode(&facts, None).unwrap();
        assert_eq!(decode(&alone).unwrap(), (facts, None));
    }

    #[test]
    fn the_words_are_those_of_the_stored_facts() {
        for unkept in [
            Unkept::Credential,
            Unkept::Off,
            Unkept::NoDelivery,
            Unkept::Form,
            Unkept::Partial,
            Unkept::TooLarge,
            Unkept::Busy,
            Unkept::Room,
            Unkept::Taken,
        ] {
            assert_eq!(serde_json::to_value(unkept).unwrap(), unkept.as_str());
        }
    }
}
