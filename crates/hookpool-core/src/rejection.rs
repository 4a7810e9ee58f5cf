//! A delivery that was refused, as it is kept for operators: what was wrong with it, and nothing secret.

mod kept;
mod marks;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    diagnosis::Finding,
    event::RequestId,
    key::{KeyId, KeyKind, PresentedKey},
    name::{ConnectorName, StreamName},
    position::Position,
    registry::{Registry, Standing},
    time::Timestamp,
    verify::Header,
};

pub use kept::{Kept, KeptHeader, KnownBy, Unkept, decode, encode};
pub use marks::Marks;

/// Why a delivery was refused, in one of few words. The words are promised in `docs/protocol.md`: they are labels of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No credential at all, or more than one.
    MissingKey,
    /// A credential that no key looks like.
    MalformedKey,
    /// A well-formed key that nobody has.
    UnknownKey,
    /// A known key with another secret.
    WrongSecret,
    /// A key that is for something else, such as reading.
    OtherKind,
    /// A good key, of another stream.
    OtherStream,
    /// A key that was rotated away.
    ExpiredKey,
    /// A key that was revoked.
    RevokedKey,
    /// A good key of a connector that is switched off.
    Disabled,
    /// So many failures from one address that no more is looked at.
    AddressBudget,
    /// Signature missing, malformed or wrong.
    Signature,
    /// Timestamp outside the window.
    Timestamp,
    /// Faster than the connector may.
    RateLimited,
    /// Larger than the server or the connector takes.
    PayloadTooLarge,
    /// Not one strict JSON object.
    InvalidPayload,
    /// An item id that can't name an item.
    InvalidItemId,
    /// More properties than the connector may send.
    TooManyFields,
    /// A parameter that is malformed.
    InvalidParameter,
    /// A compressed body.
    UnsupportedEncoding,
    /// A body that came too slowly.
    BodyTimeout,
    /// Anything else, such as an idempotency key that was used for another request.
    Other,
}

impl Reason {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 21] = [
        Self::MissingKey,
        Self::MalformedKey,
        Self::UnknownKey,
        Self::WrongSecret,
        Self::OtherKind,
        Self::OtherStream,
        Self::ExpiredKey,
        Self::RevokedKey,
        Self::Disabled,
        Self::AddressBudget,
        Self::Signature,
        Self::Timestamp,
        Self::RateLimited,
        Self::PayloadTooLarge,
        Self::InvalidPayload,
        Self::InvalidItemId,
        Self::TooManyFields,
        Self::InvalidParameter,
        Self::UnsupportedEncoding,
        Self::BodyTimeout,
        Self::Other,
    ];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingKey => "missing-key",
            Self::MalformedKey => "malformed-key",
            Self::UnknownKey => "unknown-key",
            Self::WrongSecret => "wrong-secret",
            Self::OtherKind => "other-kind",
            Self::OtherStream => "other-stream",
            Self::ExpiredKey => "expired-key",
            Self::RevokedKey => "revoked-key",
            Self::Disabled => "disabled",
            Self::AddressBudget => "address-budget",
            Self::Signature => "signature",
            Self::Timestamp => "timestamp",
            Self::RateLimited => "rate-limited",
            Self::PayloadTooLarge => "payload-too-large",
            Self::InvalidPayload => "invalid-payload",
            Self::InvalidItemId => "invalid-item-id",
            Self::TooManyFields => "too-many-fields",
            Self::InvalidParameter => "invalid-parameter",
            Self::UnsupportedEncoding => "unsupported-encoding",
            Self::BodyTimeout => "body-timeout",
            Self::Other => "other",
        }
    }

    /// From the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// By which way a delivery came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// `/api/webhook/{stream}`
    Webhook,
    /// `/api/hooks/{hookId}`
    Hook,
    /// `/api/ingest`
    Ingest,
    /// `DELETE` of an item.
    Delete,
}

/// Who showed a credential, as far as it tells; its reason is `None` if nothing is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What is wrong with it.
    pub reason: Option<Reason>,
    /// Whose it is.
    pub connector: Option<ConnectorName>,
    /// Its public part, if it is one of ours: another text may hold anything.
    pub key_id: Option<KeyId>,
}

impl Shown {
    fn nobodys(reason: Reason) -> Self {
        Self {
            reason: Some(reason),
            connector: None,
            key_id: None,
        }
    }

    /// Whether it would have let its delivery in, if nothing else were wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self.reason, None | Some(Reason::Disabled))
    }

    /// What the credential of a refused delivery is worth; `stream` is the one that it was meant for, where the request says so.
    #[must_use]
    pub fn of(
        registry: &Registry,
        credential: Credential<'_>,
        stream: Option<&str>,
        now: Timestamp,
    ) -> Self {
        let kind = credential.kind();
        let key = match credential {
            Credential::Authorization(Header::Absent | Header::Repeated) => {
                return Self::nobodys(Reason::MissingKey);
            }
            Credential::Authorization(header @ Header::One(_)) => header.presented_key(),
            Credential::Hook(text) => PresentedKey::parse(text),
        };
        let Some(key) = key else {
            return Self::nobodys(Reason::MalformedKey);
        };
        if key.kind != kind {
            return Self::nobodys(Reason::OtherKind);
        }
        let Some((connector, standing)) = registry.standing_of(&key, now) else {
            return Self::nobodys(Reason::UnknownKey);
        };
        let is_foreign = stream.is_some_and(|stream| stream != connector.stream.as_str());
        let reason = match standing {
            Standing::WrongSecret => Some(Reason::WrongSecret),
            Standing::Revoked => Some(Reason::RevokedKey),
            Standing::Expired => Some(Reason::ExpiredKey),
            Standing::Good | Standing::Disabled if is_foreign => Some(Reason::OtherStream),
            Standing::Disabled => Some(Reason::Disabled),
            Standing::Good => None,
        };
        Self {
            reason,
            connector: Some(connector.name.clone()),
            key_id: Some(KeyId::from(key.id)),
        }
    }
}

/// Where a delivery shows its key.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// In a header.
    Authorization(Header<'a>),
    /// In the URL.
    Hook(&'a str),
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

impl Credential<'_> {
    fn kind(self) -> KeyKind {
        match self {
            Self::Authorization(_) => KeyKind::Ingest,
            Self::Hook(_) => KeyKind::Hook,
        }
    }
}

/// A header that came with a delivery: what it is called and how long it was, never what was in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderShape {
    /// In lower case.
    pub name: String,
    /// Of the value.
    pub bytes: usize,
}

/// What became of a rejection that was tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retried {
    /// When.
    pub at: Timestamp,
    /// Where its event is; the last one of many.
    pub position: Position,
    /// How many they are.
    #[serde(default = "one")]
    pub events: u32,
}

fn one() -> u32 {
    1
}

/// A refused delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// The request, as the sender was told it.
    #[serde(with = "request_id")]
    pub id: RequestId,
    /// When it was refused.
    pub time: Timestamp,
    /// Why.
    pub reason: Reason,
    /// What the sender was answered.
    pub status: u16,
    /// What is wrong with its signature, the most telling first.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// By which way it came.
    pub way: Way,
    /// Where it was meant for, if there is such a stream.
    pub stream: Option<StreamName>,
    /// Who sent it, as far as it was known.
    pub connector: Option<ConnectorName>,
    /// The public part of the key that was shown, if it is one of ours.
    pub key_id: Option<KeyId>,
    /// Where it came from.
    pub address: Option<String>,
    /// Of the body, as far as it was read.
    pub body_bytes: u64,
    /// Which headers it had.
    pub headers: Vec<HeaderShape>,
    /// Whether it is kept whole and may be tried again.
    pub kept: bool,
    /// Why it is not, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unkept: Option<Unkept>,
    /// By what it is known when its sender sends it again, if it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_by: Option<KnownBy>,
    /// What became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried: Option<Retried>,
}

impl Rejection {
    /// Whose places it takes where room is short; `None` for those of strangers, who must not push out what somebody needs.
    #[must_use]
    pub fn owner(&self) -> Option<&ConnectorName> {
        let is_known = self.reason != Reason::WrongSecret;
        self.connector.as_ref().filter(|_| is_known)
    }
}

mod request_id {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::event::RequestId;

    pub(super) fn serialize<S: Serializer>(id: &RequestId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<RequestId, D::Error> {
        let text = String::deserialize(from)?;
        RequestId::parse(&text).ok_or_else(|| D::Error::custom("not a request id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{control::ControlChange, registry::tests::World};

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

    fn shown(world: &World, stream: &str, value: &str) -> Shown {
        let header = if value.is_empty() {
            Header::Absent
        } else {
            Header::One(value.as_bytes())
        };
        Shown::of(
            &world.registry,
            Credential::Authorization(header),
            Some(stream),
            NOW,
        )
    }

    #[test]
    fn a_credential_is_told_for_what_it_is() {
        let mut world = World::new();
        let key = format!("Bearer {}", world.plain_key);
        let wrong = format!("{key}x");
        let read = format!("Bearer {}", world.read_key);
        for (stream, value, reason) in [
            ("plain", key.as_str(), None),
            ("plain", "", Some(Reason::MissingKey)),
            ("plain", "Basic abc", Some(Reason::MalformedKey)),
            (
                "plain",
                "Bearer ik_000000000000_x",
                Some(Reason::UnknownKey),
            ),
            ("plain", &wrong, Some(Reason::WrongSecret)),
            ("plain", &read, Some(Reason::OtherKind)),
            ("signed", &key, Some(Reason::OtherStream)),
        ] {
            assert_eq!(shown(&world, stream, value).reason, reason, "{value}");
        }
        world.rotate_plain(NOW);
        assert_eq!(
            shown(&world, "plain", &key).reason,
            Some(Reason::ExpiredKey)
        );
        world.change(|connector| ControlChange::IngestKeyRevoked {
            connector,
            key_id: KeyId::from_random([1; 6]),
        });
        assert_eq!(
            shown(&world, "plain", &key).reason,
            Some(Reason::RevokedKey)
        );
        assert_eq!(
            shown(&world, "plain", &wrong).reason,
            Some(Reason::WrongSecret)
        );
    }

    #[test]
    fn nothing_of_a_key_that_is_not_ours_is_told() {
        let world = World::new();
        let strange = shown(&world, "plain", "Bearer ik_perhapsasecret_x");
        assert_eq!(strange.key_id, None);
        let ours = shown(&world, "plain", &format!("Bearer {}", world.plain_key));
        let secret = world.plain_key.rsplit('_').next().unwrap();
        assert!(!format!("{ours:?}").contains(secret));
        assert!(ours.key_id.is_some());
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
            let json = serde_json::to_value(reason).unwrap();
            assert_eq!(json, reason.as_str());
        }
    }
}
