//! A connector with its keys.

use serde::{Deserialize, Serialize};

use crate::{
    key::{KeyId, KeyKind, SecretHash},
    limits::Limits,
    name::{ConnectorName, StreamName},
    scheme::Scheme,
    sign::SigningKey,
    source::Source,
    time::Timestamp,
};

/// What happens to a signed request that comes again inside the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Replay {
    /// It gets the first answer, and no second event.
    #[default]
    Collapse,
    /// It is appended again.
    Allow,
}

/// A key with its life.
#[derive(Debug, Clone)]
pub struct Keyed<T> {
    /// Public.
    pub key_id: KeyId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working, if it was rotated.
    pub expires_at: Option<Timestamp>,
    pub(super) value: T,
}

impl<T> Keyed<T> {
    pub(crate) fn works(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// Who may write to a stream, and how it proves it.
#[derive(Debug, Clone)]
pub struct Connector {
    /// Unique.
    pub name: ConnectorName,
    /// The one stream it may write to.
    pub stream: StreamName,
    /// How its sender signs.
    pub scheme: Scheme,
    /// Where the item id is if a request does not say so.
    pub id_field: Option<Source>,
    /// For signed requests.
    pub replay: Replay,
    /// What it may send.
    pub limits: Limits,
    /// Whether bodies of refused deliveries are kept.
    pub keep_rejected: bool,
    /// Whether deliveries are taken at all.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Oldest first.
    pub keys: Vec<Keyed<SecretHash>>,
    /// Keys that are a part of a URL, oldest first.
    pub hooks: Vec<Keyed<SecretHash>>,
    /// Oldest first; empty where deliveries are not signed.
    pub signing_keys: Vec<Keyed<SigningKey>>,
}

impl Connector {
    /// Whether deliveries must be signed.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        !self.signing_keys.is_empty()
    }

    /// The keys of a kind that let in deliveries.
    pub(crate) fn keys_of(&self, kind: KeyKind) -> &[Keyed<SecretHash>] {
        match kind {
            KeyKind::Ingest => &self.keys,
            KeyKind::Hook => &self.hooks,
            KeyKind::Read | KeyKind::Operator => &[],
        }
    }

    /// The signing keys, also those that were rotated away.
    pub(crate) fn all_signing_keys(&self) -> impl Iterator<Item = &SigningKey> {
        self.signing_keys.iter().map(|key| &key.value)
    }

    /// The signing keys that count now.
    pub fn signing_keys(&self, now: Timestamp) -> impl Iterator<Item = &SigningKey> {
        self.signing_keys
            .iter()
            .filter(move |key| key.works(now))
            .map(|key| &key.value)
    }
}

#[cfg(test)]
impl Connector {
    pub(crate) fn for_test(name: &str) -> Self {
        Self {
            name: ConnectorName::new(name).unwrap(),
            stream: StreamName::new(name).unwrap(),
            scheme: Scheme::Hookpool,
            id_field: None,
            replay: Replay::Collapse,
            limits: Limits::default(),
            keep_rejected: false,
            enabled: true,
            created_at: Timestamp(0),
            keys: Vec::new(),
            hooks: Vec::new(),
            signing_keys: Vec::new(),
        }
    }
}
