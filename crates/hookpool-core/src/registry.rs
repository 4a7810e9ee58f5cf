//! Who may do what, as a fold of the control log.

mod access;
mod apply;
mod connector;
mod operators;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::BTreeMap, sync::Arc};

use thiserror::Error;

pub use access::{Access, Reader, Standing};
pub use connector::{Connector, Keyed, Replay};
pub use operators::Operator;
use operators::Operators;

use crate::{
    key::{KeyId, SecretHash},
    name::{ConnectorName, StreamName},
    plan::{Plan, PlanError},
    scheme::SecretError,
    seal::SealError,
    source::SourceError,
};

/// A control event that does not fit what came before it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// It names a connector, reader or key that is not there.
    #[error("apply a control event: it names {0}, which is not there")]
    Unknown(String),
    /// The name is taken.
    #[error("apply a control event: {0} is there already")]
    Taken(String),
    /// Nobody could operate any more.
    #[error("revoke operator key {0}: it is the last one; add another first")]
    LastOperator(KeyId),
    /// What is to be materialised is another thing.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The signing key can't be opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The signing key is none of its connector's scheme.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Without it nothing that the connector's sender signs would count.
    #[error(
        "revoke {0}: it is the last signing key that counts; rotate it, which ends it as soon as there is another one, or disable the connector"
    )]
    LastSigningKey(KeyId),
    /// There is no such place for an item id.
    #[error("take the id field: {0}")]
    IdField(#[from] SourceError),
}

/// Connectors, readers and operators by name and key.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    connectors: BTreeMap<ConnectorName, Arc<Connector>>,
    readers: BTreeMap<ConnectorName, Arc<Reader>>,
    operators: Operators,
    connector_by_key: BTreeMap<KeyId, ConnectorName>,
    reader_by_key: BTreeMap<KeyId, ConnectorName>,
    plans: BTreeMap<StreamName, Arc<Plan>>,
    /// Keys that were taken away: only to say so of who still shows one.
    revoked: BTreeMap<KeyId, (ConnectorName, SecretHash)>,
}

impl Registry {
    /// By name.
    #[must_use]
    pub fn connector(&self, name: &str) -> Option<&Arc<Connector>> {
        self.connectors.get(name)
    }

    /// All, by name.
    pub fn connectors(&self) -> impl Iterator<Item = &Arc<Connector>> {
        self.connectors.values()
    }

    /// By name.
    #[must_use]
    pub fn reader(&self, name: &str) -> Option<&Arc<Reader>> {
        self.readers.get(name)
    }

    /// All, by name.
    pub fn readers(&self) -> impl Iterator<Item = &Arc<Reader>> {
        self.readers.values()
    }

    /// By key id.
    #[must_use]
    pub fn operator(&self, key_id: &str) -> Option<&Arc<Operator>> {
        self.operators.get(key_id)
    }

    /// All operator keys, oldest first.
    #[must_use]
    pub fn operators(&self) -> Vec<&Arc<Operator>> {
        self.operators.all()
    }

    /// Whether some connector writes to the stream.
    #[must_use]
    pub fn has_stream(&self, stream: &str) -> bool {
        self.connectors()
            .any(|connector| connector.stream.as_str() == stream)
    }

    /// What is to be materialised of a stream.
    #[must_use]
    pub fn plan(&self, stream: &str) -> Arc<Plan> {
        self.plans.get(stream).cloned().unwrap_or_default()
    }

    /// The streams for which somebody planned something.
    pub fn plans(&self) -> impl Iterator<Item = (&StreamName, &Arc<Plan>)> {
        self.plans.iter()
    }
}
