//! The keys that may do everything: there is always one, once there was.

use std::{collections::BTreeMap, sync::Arc};

use super::{Keyed, RegistryError};
use crate::{
    key::{KeyId, SecretHash},
    name::ConnectorName,
};

/// An operator key.
#[derive(Debug, Clone)]
pub struct Operator {
    /// What it is called, unique; a key that was made in the data folder has no name.
    pub name: Option<ConnectorName>,
    /// The key itself.
    pub key: Keyed<SecretHash>,
}

/// By key id.
#[derive(Debug, Clone, Default)]
pub(super) struct Operators(BTreeMap<KeyId, Arc<Operator>>);

impl Operators {
    pub(super) fn get(&self, key_id: &str) -> Option<&Arc<Operator>> {
        self.0.get(key_id)
    }

    /// Oldest first.
    pub(super) fn all(&self) -> Vec<&Arc<Operator>> {
        let mut all: Vec<_> = self.0.values().collect();
        all.sort_by_key(|operator| operator.key.created_at);
        all
    }

    pub(super) fn add(
        &mut self,
        name: Option<ConnectorName>,
        key: Keyed<SecretHash>,
    ) -> Result<(), RegistryError> {
        let mut names = self.0.values().filter_map(|known| known.name.as_ref());
        if let Some(name) = name
            .as_ref()
            .filter(|name| names.any(|known| known == *name))
        {
            return Err(RegistryError::Taken(name.to_string()));
        }
        let operator = Operator { name, key };
        self.0
            .insert(operator.key.key_id.clone(), Arc::new(operator));
        Ok(())
    }

    pub(super) fn revoke(&mut self, key_id: &KeyId) -> Result<(), RegistryError> {
        if !self.0.contains_key(key_id) {
            return Err(RegistryError::Unknown(key_id.to_string()));
        }
        if self.0.len() == 1 {
            return Err(RegistryError::LastOperator(key_id.clone()));
        }
        self.0.remove(key_id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::{ControlChange, KeyRecord},
        key::{KeyKind, PresentedKey, generate},
        registry::Registry,
        seal::MasterKey,
        time::Timestamp,
    };

    fn apply(registry: &mut Registry, change: ControlChange) -> Result<(), RegistryError> {
        registry.apply(change, Timestamp(0), &MasterKey::new(&[5; 32]))
    }

    /// Adds a key; its id and its text.
    fn add(
        registry: &mut Registry,
        seed: u8,
        name: Option<&str>,
    ) -> Result<(KeyId, String), RegistryError> {
        let key_id = KeyId::from_random([seed; 6]);
        let (secret, secret_sha256) = generate(KeyKind::Operator, &key_id, &[seed; 64]).unwrap();
        let key = KeyRecord {
            key_id: key_id.clone(),
            secret_sha256,
        };
        let operator = name.map(|name| ConnectorName::new(name).unwrap());
        apply(registry, ControlChange::OperatorAdded { key, operator })?;
        Ok((key_id, secret.expose().to_owned()))
    }

    fn revoke(registry: &mut Registry, key_id: &KeyId) -> Result<(), RegistryError> {
        let key_id = key_id.clone();
        apply(registry, ControlChange::OperatorRevoked { key_id })
    }

    fn may_operate(registry: &Registry, key: &str) -> bool {
        let presented = PresentedKey::parse(key).unwrap();
        registry.access_of(&presented).is_some()
    }

    #[test]
    fn an_operator_key_works_until_it_is_revoked_and_the_last_one_stays() {
        let mut registry = Registry::default();
        let (first_id, first) = add(&mut registry, 1, None).unwrap();
        let last = revoke(&mut registry, &first_id);
        assert_eq!(last, Err(RegistryError::LastOperator(first_id.clone())));
        let (second_id, second) = add(&mut registry, 2, Some("alice")).unwrap();
        assert!(may_operate(&registry, &first) && may_operate(&registry, &second));
        revoke(&mut registry, &first_id).unwrap();
        assert!(!may_operate(&registry, &first) && may_operate(&registry, &second));
        let again = revoke(&mut registry, &first_id);
        assert_eq!(again, Err(RegistryError::Unknown(first_id.to_string())));
        let last = revoke(&mut registry, &second_id);
        assert_eq!(last, Err(RegistryError::LastOperator(second_id)));
        assert!(may_operate(&registry, &second));
    }

    #[test]
    fn the_name_of_an_operator_key_is_free_again_once_it_is_revoked() {
        let mut registry = Registry::default();
        add(&mut registry, 1, None).unwrap();
        let (alice, _) = add(&mut registry, 2, Some("alice")).unwrap();
        let taken = add(&mut registry, 3, Some("alice")).map(drop);
        assert_eq!(taken, Err(RegistryError::Taken("alice".to_owned())));
        add(&mut registry, 4, None).unwrap();
        revoke(&mut registry, &alice).unwrap();
        add(&mut registry, 3, Some("alice")).unwrap();
        assert_eq!(registry.operators().len(), 3);
    }
}
