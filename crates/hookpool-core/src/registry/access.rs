//! What a key is worth: whose it is, and what it may do.

use std::sync::Arc;

use super::{Connector, Keyed, Registry};
use crate::{
    control::Streams,
    key::{KeyId, KeyKind, PresentedKey, SecretHash},
    name::ConnectorName,
    time::Timestamp,
};

/// A read key.
#[derive(Debug, Clone)]
pub struct Reader {
    /// Unique.
    pub name: ConnectorName,
    /// What it may read.
    pub streams: Streams,
    /// The key itself.
    pub key: Keyed<SecretHash>,
}

/// What somebody who presented a key may read.
#[derive(Debug, Clone)]
pub enum Access {
    /// Everything, and operate.
    Operator(KeyId),
    /// What the reader may.
    Reader(Arc<Reader>),
}

impl Access {
    /// Whether a stream may be read.
    #[must_use]
    pub fn may_read(&self, stream: &str) -> bool {
        match self {
            Self::Operator(_) => true,
            Self::Reader(reader) => reader.streams.contain(stream),
        }
    }
}

/// What a key of a connector is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It works.
    Good,
    /// It works, but the connector is switched off.
    Disabled,
    /// It was rotated away.
    Expired,
    /// It was revoked.
    Revoked,
    /// There is such an id, and the secret is another one.
    WrongSecret,
}

impl Registry {
    /// The connector that an ingest key or a hook belongs to, if the key is right and works now.
    ///
    /// An unknown id costs the same comparison as a known one.
    #[must_use]
    pub fn connector_of(
        &self,
        presented: &PresentedKey<'_>,
        now: Timestamp,
    ) -> Option<&Arc<Connector>> {
        let connector = self
            .connector_by_key
            .get(presented.id)
            .and_then(|name| self.connectors.get(name));
        let key = connector.and_then(|connector| {
            let mut keys = connector.keys_of(presented.kind).iter();
            keys.find(|key| key.key_id.as_str() == presented.id)
        });
        let matches = key
            .map_or(&SecretHash::NONE, |key| &key.value)
            .matches(presented);
        connector.filter(|_| matches && key.is_some_and(|key| key.works(now)))
    }

    /// Whose an ingest key or hook is and what it is worth, for what was refused: it tells more than a sender may know. Hashes once, whatever
    /// is shown.
    #[must_use]
    pub fn standing_of(
        &self,
        presented: &PresentedKey<'_>,
        now: Timestamp,
    ) -> Option<(&Arc<Connector>, Standing)> {
        let revoked = self.revoked.get(presented.id);
        let name = revoked.map(|(name, _)| name);
        let name = name.or_else(|| self.connector_by_key.get(presented.id));
        let connector = name.and_then(|name| self.connectors.get(name));
        let key = connector.and_then(|connector| {
            let mut keys = connector.keys_of(presented.kind).iter();
            keys.find(|key| key.key_id.as_str() == presented.id)
        });
        let revoked = revoked.map(|(_, hash)| hash);
        let hash = key.map(|key| &key.value).or(revoked);
        let matches = hash.unwrap_or(&SecretHash::NONE).matches(presented);
        let connector = connector.filter(|_| hash.is_some())?;
        let standing = match key {
            _ if !matches => Standing::WrongSecret,
            None => Standing::Revoked,
            Some(key) if !key.works(now) => Standing::Expired,
            Some(_) if !connector.enabled => Standing::Disabled,
            Some(_) => Standing::Good,
        };
        Some((connector, standing))
    }

    /// What a read or operator key may do.
    #[must_use]
    pub fn access_of(&self, presented: &PresentedKey<'_>) -> Option<Access> {
        match presented.kind {
            KeyKind::Ingest | KeyKind::Hook => None,
            KeyKind::Read => {
                let reader = self
                    .reader_by_key
                    .get(presented.id)
                    .and_then(|name| self.readers.get(name));
                let hash = reader.map_or(&SecretHash::NONE, |reader| &reader.key.value);
                let matches = hash.matches(presented);
                reader
                    .filter(|_| matches)
                    .map(|reader| Access::Reader(Arc::clone(reader)))
            }
            KeyKind::Operator => {
                let operator = self.operators.get(presented.id);
                let hash = operator.map_or(&SecretHash::NONE, |operator| &operator.key.value);
                let matches = hash.matches(presented);
                operator
                    .filter(|_| matches)
                    .map(|operator| Access::Operator(operator.key.key_id.clone()))
            }
        }
    }
}
