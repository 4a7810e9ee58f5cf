//! Who may do what, as a fold of the control log.

mod access;
mod apply;
mod connector;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::BTreeMap, sync::Arc};

use thiserror::Error;

pub use access::{Access, Reader, Standing};
pub use connector::{Connector, Keyed, Replay};

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
    /// What is to be materialised is another thing.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The signing key can't be opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The signing key is none of its connector's scheme.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// There is no such place for an item id.
    #[error("take the id field: {0}")]
    IdField(#[from] SourceError),
}

/// Connectors, readers and operators by name and key.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    connectors: BTreeMap<ConnectorName, Arc<Connector>>,
    readers: BTreeMap<ConnectorName, Arc<Reader>>,
    operators: BTreeMap<KeyId, SecretHash>,
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

    /// Whether anybody may operate yet.
    #[must_use]
    pub fn has_operator(&self) -> bool {
        !self.operators.is_empty()
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
