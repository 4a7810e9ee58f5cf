//! The fold: what a control event does to the registry.

use std::{collections::BTreeMap, sync::Arc};

use super::{Connector, Keyed, Reader, Registry, RegistryError};
use crate::{
    control::{ControlChange, KeyRecord, SigningKeyRecord},
    key::{KeyId, SecretHash},
    name::{ConnectorName, StreamName},
    plan::{Plan, PlanError},
    retention::Retention,
    scheme::Scheme,
    seal::MasterKey,
    sign::SigningKey,
    source::Source,
    time::Timestamp,
};

impl Registry {
    /// Takes the next control event; `at` is its time.
    ///
    /// # Errors
    /// [`RegistryError`]; the registry is then unchanged.
    pub fn apply(
        &mut self,
        change: ControlChange,
        at: Timestamp,
        master: &MasterKey,
    ) -> Result<(), RegistryError> {
        match change {
            ControlChange::ConnectorAdded {
                connector: name,
                stream,
                id_field,
                replay,
                key,
                signing_key,
                scheme,
                hook,
                limits,
                keep_rejected,
            } => {
                self.must_be_free(&self.connectors, &name)?;
                let scheme = scheme.unwrap_or_default();
                let id_field = id_field.map(Source::try_from).transpose()?;
                let signing_keys = match signing_key {
                    Some(record) => vec![opened(record, &name, &scheme, at, master)?],
                    None => Vec::new(),
                };
                for key in [Some(&key), hook.as_ref()].into_iter().flatten() {
                    self.connector_by_key
                        .insert(key.key_id.clone(), name.clone());
                }
                let keys = vec![hashed(key, at)];
                let connector = Connector {
                    name: name.clone(),
                    stream,
                    scheme,
                    id_field,
                    replay,
                    limits,
                    keep_rejected,
                    enabled: true,
                    created_at: at,
                    keys,
                    hooks: hook.into_iter().map(|hook| hashed(hook, at)).collect(),
                    signing_keys,
                };
                self.connectors.insert(name, Arc::new(connector));
            }
            ControlChange::ConnectorChanged {
                connector,
                id_field,
                replay,
                limits,
                keep_rejected,
            } => {
                let id_field = match id_field {
                    Some(path) if path.is_empty() => Some(None),
                    Some(path) => Some(Some(Source::try_from(path)?)),
                    None => None,
                };
                let entry = self.connector_mut(&connector)?;
                entry.id_field = id_field.unwrap_or_else(|| entry.id_field.take());
                entry.replay = replay.unwrap_or(entry.replay);
                entry.limits = limits.unwrap_or(entry.limits);
                entry.keep_rejected = keep_rejected.unwrap_or(entry.keep_rejected);
            }
            ControlChange::HookAdded {
                connector,
                key,
                others_expire_at,
            } => {
                let key = hashed(key, at);
                let key_id = key.key_id.clone();
                let entry = self.connector_mut(&connector)?;
                add(&mut entry.hooks, key, others_expire_at);
                self.connector_by_key.insert(key_id, connector);
            }
            ControlChange::HookRevoked { connector, key_id } => {
                let hooks = &mut self.connector_mut(&connector)?.hooks;
                let key = remove(hooks, &key_id)?;
                self.revoke(key, connector);
            }
            ControlChange::IngestKeyAdded {
                connector,
                key,
                others_expire_at,
            } => {
                let key = hashed(key, at);
                let key_id = key.key_id.clone();
                let entry = self.connector_mut(&connector)?;
                add(&mut entry.keys, key, others_expire_at);
                self.connector_by_key.insert(key_id, connector);
            }
            ControlChange::IngestKeyRevoked { connector, key_id } => {
                let keys = &mut self.connector_mut(&connector)?.keys;
                let key = remove(keys, &key_id)?;
                self.revoke(key, connector);
            }
            ControlChange::SigningKeyAdded {
                connector,
                signing_key,
                others_expire_at,
            } => {
                let entry = self.connector_mut(&connector)?;
                let key = opened(signing_key, &connector, &entry.scheme, at, master)?;
                add(&mut entry.signing_keys, key, others_expire_at);
            }
            ControlChange::SigningKeyRevoked { connector, key_id } => {
                let keys = &mut self.connector_mut(&connector)?.signing_keys;
                let is_left = |key: &Keyed<_>| key.key_id != key_id && key.works(at);
                if keys.iter().any(|key| key.key_id == key_id) && !keys.iter().any(is_left) {
                    return Err(RegistryError::LastSigningKey(key_id));
                }
                remove(keys, &key_id)?;
            }
            ControlChange::ConnectorEnabled { connector, enabled } => {
                self.connector_mut(&connector)?.enabled = enabled
            }
            ControlChange::ReaderAdded {
                reader: name,
                key,
                streams,
            } => {
                self.must_be_free(&self.readers, &name)?;
                self.reader_by_key.insert(key.key_id.clone(), name.clone());
                self.readers.insert(
                    name.clone(),
                    Arc::new(Reader {
                        name,
                        streams,
                        key: hashed(key, at),
                    }),
                );
            }
            ControlChange::ReaderRevoked { reader } => {
                let removed = self
                    .readers
                    .remove(&reader)
                    .ok_or_else(|| RegistryError::Unknown(reader.to_string()))?;
                self.reader_by_key.remove(&removed.key.key_id);
            }
            ControlChange::OperatorAdded { key, operator } => {
                self.operators.add(operator, hashed(key, at))?;
            }
            ControlChange::OperatorRevoked { key_id } => self.operators.revoke(&key_id)?,
            ControlChange::ProjectionSet { stream, rules } => {
                self.replan(stream, |plan| plan.set_projection(rules))?;
            }
            ControlChange::RebuildStarted {
                stream,
                generation,
                projection,
                events_per_second,
            } => self.replan(stream, |plan| {
                plan.start(generation, projection, events_per_second, at)
            })?,
            ControlChange::RebuildPaused {
                stream,
                generation,
                paused,
            } => self.replan(stream, |plan| plan.pause(generation, paused))?,
            ControlChange::RebuildCancelled { stream, generation } => {
                self.replan(stream, |plan| plan.cancel(generation, at))?;
            }
            ControlChange::GenerationPromoted {
                stream,
                generation,
                digest,
                counts,
            } => self.replan(stream, |plan| {
                plan.promote(generation, digest.zip(counts), at)
            })?,
            ControlChange::GenerationRolledBack { stream } => {
                self.replan(stream, Plan::roll_back)?;
            }
            ControlChange::GenerationReleased { stream } => self.replan(stream, Plan::release)?,
            ControlChange::RetentionSet {
                stream,
                max_age_seconds,
                max_positions,
            } => self.replan(stream, |plan| {
                plan.retention = Retention {
                    max_age_seconds,
                    max_positions,
                };
                Ok(())
            })?,
            ControlChange::HistoryDropped {
                stream,
                through,
                time,
            } => self.replan(stream, |plan| plan.raise_floor(through, time))?,
        }
        Ok(())
    }

    fn replan(
        &mut self,
        stream: StreamName,
        change: impl FnOnce(&mut Plan) -> Result<(), PlanError>,
    ) -> Result<(), PlanError> {
        let mut plan = self.plan(stream.as_str());
        change(Arc::make_mut(&mut plan))?;
        self.plans.insert(stream, plan);
        Ok(())
    }

    fn must_be_free<T>(
        &self,
        taken: &BTreeMap<ConnectorName, T>,
        name: &ConnectorName,
    ) -> Result<(), RegistryError> {
        if taken.contains_key(name) {
            Err(RegistryError::Taken(name.to_string()))
        } else {
            Ok(())
        }
    }

    fn revoke(&mut self, key: Keyed<SecretHash>, connector: ConnectorName) {
        self.connector_by_key.remove(&key.key_id);
        self.revoked.insert(key.key_id, (connector, key.value));
    }

    fn connector_mut(&mut self, name: &ConnectorName) -> Result<&mut Connector, RegistryError> {
        let connector = self
            .connectors
            .get_mut(name)
            .ok_or_else(|| RegistryError::Unknown(name.to_string()))?;
        Ok(Arc::make_mut(connector))
    }
}

fn hashed(record: KeyRecord, at: Timestamp) -> Keyed<SecretHash> {
    Keyed {
        key_id: record.key_id,
        created_at: at,
        expires_at: None,
        value: record.secret_sha256,
    }
}

fn opened(
    record: SigningKeyRecord,
    connector: &ConnectorName,
    scheme: &Scheme,
    at: Timestamp,
    master: &MasterKey,
) -> Result<Keyed<SigningKey>, RegistryError> {
    let key = scheme.key(master.open(&record.sealed, connector)?.expose())?;
    Ok(Keyed {
        key_id: record.key_id,
        created_at: at,
        expires_at: None,
        value: key,
    })
}

/// Adds a key and lets the ones before it expire, unless they do so earlier.
fn add<T>(keys: &mut Vec<Keyed<T>>, key: Keyed<T>, others_expire_at: Timestamp) {
    for old in keys.iter_mut() {
        old.expires_at = Some(
            old.expires_at
                .map_or(others_expire_at, |end| end.min(others_expire_at)),
        );
    }
    keys.push(key);
}

fn remove<T>(keys: &mut Vec<Keyed<T>>, key_id: &KeyId) -> Result<Keyed<T>, RegistryError> {
    let own = keys.iter().position(|key| key.key_id == *key_id);
    Ok(keys.remove(own.ok_or_else(|| RegistryError::Unknown(key_id.to_string()))?))
}
