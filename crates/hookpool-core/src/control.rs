//! What operators change, as recorded in the control log: one JSON object per event, so that the log can be read by eye.
//!
//! Secrets are not here: ingest, read and operator keys as SHA-256, signing keys sealed.

use serde::{Deserialize, Serialize};

use crate::{
    difference::Counts,
    key::{KeyId, SecretHash},
    limits::Limits,
    name::{ConnectorName, StreamName},
    position::{Generation, Position},
    projection::Rules,
    registry::Replay,
    scheme::Scheme,
    time::Timestamp,
};

/// The stream name under which control events are recorded.
pub const CONTROL_STREAM: &str = "control";

/// One change. Names and tags are stored: never rename, only add.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    tag = "change",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum ControlChange {
    /// A connector with its first key.
    ConnectorAdded {
        /// Its name.
        connector: ConnectorName,
        /// The stream it may write to.
        stream: StreamName,
        /// Where the item id is: the name of a property, or a JSON Pointer.
        id_field: Option<String>,
        /// What happens to repeated signed requests.
        replay: Replay,
        /// The first ingest key.
        key: KeyRecord,
        /// The first signing key, if deliveries must be signed.
        signing_key: Option<SigningKeyRecord>,
        /// How its sender signs, if somebody said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scheme: Option<Scheme>,
        /// The key in the URL for senders that can't set headers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hook: Option<KeyRecord>,
        /// What it may send.
        #[serde(default, skip_serializing_if = "Limits::is_none")]
        limits: Limits,
        /// Whether bodies of refused deliveries are kept.
        #[serde(default, skip_serializing_if = "is_false")]
        keep_rejected: bool,
    },
    /// What a connector does otherwise from now on; what is left out stays.
    ConnectorChanged {
        /// Which connector.
        connector: ConnectorName,
        /// Where the item id is; empty is `id` again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id_field: Option<String>,
        /// What happens to repeated signed requests.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replay: Option<Replay>,
        /// What it may send, all of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limits: Option<Limits>,
        /// Whether bodies of refused deliveries are kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep_rejected: Option<bool>,
    },
    /// Another hook for a connector.
    HookAdded {
        /// Of which connector.
        connector: ConnectorName,
        /// The new key.
        key: KeyRecord,
        /// When the hooks before it stop working.
        others_expire_at: Timestamp,
    },
    /// A hook that must not work any more.
    HookRevoked {
        /// Of which connector.
        connector: ConnectorName,
        /// Which.
        key_id: KeyId,
    },
    /// Another ingest key for a connector.
    IngestKeyAdded {
        /// Of which connector.
        connector: ConnectorName,
        /// The new key.
        key: KeyRecord,
        /// When the keys before it stop working.
        others_expire_at: Timestamp,
    },
    /// An ingest key that must not work any more.
    IngestKeyRevoked {
        /// Of which connector.
        connector: ConnectorName,
        /// Which key.
        key_id: KeyId,
    },
    /// Another signing key for a connector; with the first one, signatures become required.
    SigningKeyAdded {
        /// Of which connector.
        connector: ConnectorName,
        /// The new key.
        signing_key: SigningKeyRecord,
        /// When the keys before it stop working.
        others_expire_at: Timestamp,
    },
    /// A signing key that must not count any more.
    SigningKeyRevoked {
        /// Of which connector.
        connector: ConnectorName,
        /// Which.
        key_id: KeyId,
    },
    /// A connector switched on or off.
    ConnectorEnabled {
        /// Which connector.
        connector: ConnectorName,
        /// On or off.
        enabled: bool,
    },
    /// A read key.
    ReaderAdded {
        /// Its name.
        reader: ConnectorName,
        /// The key.
        key: KeyRecord,
        /// What it may read.
        streams: Streams,
    },
    /// A read key that must not work any more.
    ReaderRevoked {
        /// Which reader.
        reader: ConnectorName,
    },
    /// An operator key.
    OperatorAdded {
        /// The key.
        key: KeyRecord,
        /// What it is called, if somebody said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        operator: Option<ConnectorName>,
    },
    /// An operator key that must not work any more.
    OperatorRevoked {
        /// Which key.
        key_id: KeyId,
    },
    /// Another version of a stream's projection; nothing follows it until a rebuild with it is promoted.
    ProjectionSet {
        /// Of which stream.
        stream: StreamName,
        /// The rules; the version is the number of those before, and one.
        rules: Rules,
    },
    /// A generation to be made beside the live one.
    RebuildStarted {
        /// Of which stream.
        stream: StreamName,
        /// The next number.
        generation: Generation,
        /// Version of the projection it follows; 0 is the page's behaviour.
        projection: u32,
        /// How fast it may be.
        events_per_second: Option<u32>,
    },
    /// A rebuild that rests, or goes on.
    RebuildPaused {
        /// Of which stream.
        stream: StreamName,
        /// Which.
        generation: Generation,
        /// Whether it rests.
        paused: bool,
    },
    /// A rebuild that is not wanted any more.
    RebuildCancelled {
        /// Of which stream.
        stream: StreamName,
        /// Which.
        generation: Generation,
    },
    /// What was rebuilt is live from now on.
    GenerationPromoted {
        /// Of which stream.
        stream: StreamName,
        /// Which.
        generation: Generation,
        /// Of the difference that was promoted; `None` if whatever it was was wanted.
        digest: Option<String>,
        /// Of the same, if it was recorded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counts: Option<Counts>,
    },
    /// Live and previous generation change places.
    GenerationRolledBack {
        /// Of which stream.
        stream: StreamName,
    },
    /// The previous generation is not kept any more.
    GenerationReleased {
        /// Of which stream.
        stream: StreamName,
    },
    /// How much history of a stream is kept from now on; without any limit, all that is there.
    RetentionSet {
        /// Of which stream.
        stream: StreamName,
        /// Only events that are at most this old.
        max_age_seconds: Option<u64>,
        /// Only this many positions before the head.
        max_positions: Option<u64>,
    },
    /// History that can't be read any more, recorded before the first of its events is dropped.
    HistoryDropped {
        /// Of which stream.
        stream: StreamName,
        /// The last event of it.
        through: Position,
        /// The time of that event.
        time: Timestamp,
    },
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn is_false(value: &bool) -> bool {
    !value
}

/// What is kept of a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyRecord {
    /// Public.
    pub key_id: KeyId,
    /// Of the secret.
    pub secret_sha256: SecretHash,
}

/// What is kept of a signing key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SigningKeyRecord {
    /// Public.
    pub key_id: KeyId,
    /// The key sealed with the master key for this connector, as hex; see [`crate::seal`].
    pub sealed: String,
}

/// Which streams a read key sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Streams {
    /// Every stream, also later ones.
    All,
    /// These.
    Only(Vec<StreamName>),
}

impl Streams {
    /// Whether a stream is among them.
    #[must_use]
    pub fn contain(&self, stream: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(streams) => streams.iter().any(|name| name.as_str() == stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_text_of_a_connector_still_reads() {
        let text = r#"{"change":"connector-added","connector":"sales","stream":"sales","idField":"region","replay":"collapse","key":{"keyId":"5f8d4c2a91be","secretSha256":"0000000000000000000000000000000000000000000000000000000000000001"},"signingKey":null}"#;
        let change: ControlChange = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&change).unwrap(), text);
    }

    #[test]
    fn golden_texts_of_schemes_and_hooks_still_read() {
        let key = r#"{"keyId":"5f8d4c2a91be","secretSha256":"0000000000000000000000000000000000000000000000000000000000000001"}"#;
        for text in [
            format!(
                r#"{{"change":"connector-added","connector":"gh","stream":"gh","idField":"/repository/id","replay":"collapse","key":{key},"signingKey":null,"scheme":"github","hook":{key}}}"#
            ),
            format!(
                r#"{{"change":"connector-added","connector":"c","stream":"c","idField":null,"replay":"allow","key":{key},"signingKey":null,"scheme":{{"header":"X-Sig","prefix":"v1=","encoding":"base64","template":"{{timestamp}}.{{body}}","timestampHeader":"X-Time","tolerance":60}},"hook":{key}}}"#
            ),
            format!(
                r#"{{"change":"connector-added","connector":"c","stream":"c","idField":null,"replay":"allow","key":{key},"signingKey":null,"scheme":{{"header":"X-Sig","prefix":"","encoding":"hex","template":"{{id}}.{{body}}","deliveryHeader":"X-Id"}},"hook":{key}}}"#
            ),
            format!(
                r#"{{"change":"connector-added","connector":"c","stream":"c","idField":null,"replay":"allow","key":{key},"signingKey":null,"scheme":{{"header":"X-Sig","prefix":"","encoding":"hex","template":"{{body}}","deliveryField":"/event/id"}},"hook":{key}}}"#
            ),
            r#"{"change":"connector-changed","connector":"c","idField":"","replay":"allow"}"#
                .to_owned(),
            r#"{"change":"connector-changed","connector":"c"}"#.to_owned(),
            format!(
                r#"{{"change":"hook-added","connector":"c","key":{key},"othersExpireAt":1700000000123456}}"#
            ),
            r#"{"change":"hook-revoked","connector":"c","keyId":"5f8d4c2a91be"}"#.to_owned(),
            r#"{"change":"signing-key-revoked","connector":"c","keyId":"5f8d4c2a91be"}"#.to_owned(),
        ] {
            let change: ControlChange = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&change).unwrap(), text);
        }
    }

    #[test]
    fn golden_texts_of_operators_still_read() {
        let key = r#"{"keyId":"5f8d4c2a91be","secretSha256":"0000000000000000000000000000000000000000000000000000000000000001"}"#;
        for text in [
            format!(r#"{{"change":"operator-added","key":{key}}}"#),
            format!(r#"{{"change":"operator-added","key":{key},"operator":"alice"}}"#),
            r#"{"change":"operator-revoked","keyId":"5f8d4c2a91be"}"#.to_owned(),
        ] {
            let change: ControlChange = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&change).unwrap(), text);
        }
    }

    #[test]
    fn golden_texts_of_plans_still_read() {
        for text in [
            r#"{"change":"projection-set","stream":"sales","rules":{"id":"/a","merge":"merge","nulls":"store","unknown":"drop","fields":{"b":{"type":"number"}}}}"#,
            r#"{"change":"rebuild-started","stream":"sales","generation":2,"projection":1,"eventsPerSecond":null}"#,
            r#"{"change":"rebuild-paused","stream":"sales","generation":2,"paused":true}"#,
            r#"{"change":"rebuild-cancelled","stream":"sales","generation":2}"#,
            r#"{"change":"generation-promoted","stream":"sales","generation":2,"digest":"ab"}"#,
            r#"{"change":"generation-promoted","stream":"sales","generation":2,"digest":"ab","counts":{"added":1,"removed":0,"changed":3}}"#,
            r#"{"change":"generation-rolled-back","stream":"sales"}"#,
            r#"{"change":"generation-released","stream":"sales"}"#,
            r#"{"change":"retention-set","stream":"sales","maxAgeSeconds":2592000,"maxPositions":null}"#,
            r#"{"change":"history-dropped","stream":"sales","through":42,"time":1700000000123456}"#,
        ] {
            let change: ControlChange = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&change).unwrap(), text);
        }
    }
}
