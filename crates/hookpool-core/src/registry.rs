//! Who may do what, as a fold of the control log.

mod operators;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use operators::Operator;
use operators::Operators;

use crate::{
    control::{ControlChange, KeyRecord, SigningKeyRecord, Streams},
    key::{KeyId, KeyKind, PresentedKey, SecretHash},
    limits::Limits,
    name::{ConnectorName, StreamName},
    plan::{Plan, PlanError},
    retention::Retention,
    scheme::{Scheme, SecretError},
    seal::{MasterKey, SealError},
    sign::SigningKey,
    source::{Source, SourceError},
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
    value: T,
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
                stream, generation, ..
            } => self.replan(stream, |plan| plan.promote(generation, at))?,
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::key::generate;

    /// A registry with an unsigned connector `plain`, a signed one `signed`, and a reader of `plain`.
    pub(crate) struct World {
        pub(crate) registry: Registry,
        pub(crate) plain_key: String,
        pub(crate) signed_key: String,
        pub(crate) signing_key: String,
        pub(crate) read_key: String,
    }

    const MASTER: [u8; 32] = [5; 32];

    fn key(kind: KeyKind, seed: u8) -> (String, KeyRecord) {
        let key_id = KeyId::from_random([seed; 6]);
        let (secret, secret_sha256) = generate(kind, &key_id, &[seed; 64]).unwrap();
        (
            secret.expose().to_owned(),
            KeyRecord {
                key_id,
                secret_sha256,
            },
        )
    }

    fn name(text: &str) -> ConnectorName {
        ConnectorName::new(text).unwrap()
    }

    fn connector(
        text: &str,
        key: KeyRecord,
        signing_key: Option<SigningKeyRecord>,
    ) -> ControlChange {
        ControlChange::ConnectorAdded {
            connector: name(text),
            stream: StreamName::new(text).unwrap(),
            id_field: None,
            replay: Replay::Collapse,
            key,
            signing_key,
            scheme: None,
            hook: None,
            limits: Limits::default(),
            keep_rejected: false,
        }
    }

    impl World {
        pub(crate) fn new() -> Self {
            let master = MasterKey::new(&MASTER);
            let (plain_key, plain) = key(KeyKind::Ingest, 1);
            let (signed_key, signed) = key(KeyKind::Ingest, 2);
            let (read_key, read) = key(KeyKind::Read, 3);
            let signing = Scheme::Hookpool.generate_key(&[4; 64]).unwrap();
            let record = SigningKeyRecord {
                key_id: KeyId::from_random([4; 6]),
                sealed: master.seal(&signing, &name("signed"), [0; 12]),
            };
            let mut world = Self {
                registry: Registry::default(),
                plain_key,
                signed_key,
                signing_key: signing.expose().to_owned(),
                read_key,
            };
            world.apply(connector("plain", plain, None)).unwrap();
            world
                .apply(connector("signed", signed, Some(record)))
                .unwrap();
            let streams = Streams::Only(vec![StreamName::new("plain").unwrap()]);
            world
                .apply(ControlChange::ReaderAdded {
                    reader: name("reader"),
                    key: read,
                    streams,
                })
                .unwrap();
            world
        }

        fn apply(&mut self, change: ControlChange) -> Result<(), RegistryError> {
            self.registry
                .apply(change, Timestamp(0), &MasterKey::new(&MASTER))
        }

        pub(crate) fn rotate_plain(&mut self, others_expire_at: Timestamp) {
            let (_, record) = key(KeyKind::Ingest, 9);
            self.apply(ControlChange::IngestKeyAdded {
                connector: name("plain"),
                key: record,
                others_expire_at,
            })
            .unwrap();
        }

        pub(crate) fn change(&mut self, change: impl FnOnce(ConnectorName) -> ControlChange) {
            self.apply(change(name("plain"))).unwrap();
        }

        fn works(&self, key: &str, seconds: u64) -> bool {
            let presented = PresentedKey::parse(key).unwrap();
            self.registry
                .connector_of(&presented, Timestamp::from_seconds(seconds))
                .is_some()
        }
    }

    #[test]
    fn a_rotated_key_works_until_its_overlap_ends() {
        let mut world = World::new();
        let (new_key, record) = key(KeyKind::Ingest, 9);
        let others_expire_at = Timestamp::from_seconds(100);
        world
            .apply(ControlChange::IngestKeyAdded {
                connector: name("plain"),
                key: record,
                others_expire_at,
            })
            .unwrap();
        assert!(world.works(&world.plain_key, 99) && world.works(&new_key, 99));
        assert!(!world.works(&world.plain_key, 100) && world.works(&new_key, 100));
    }

    #[test]
    fn a_revoked_key_and_a_disabled_connector_stop_at_once() {
        let mut world = World::new();
        let key_id = KeyId::from_random([1; 6]);
        world
            .apply(ControlChange::IngestKeyRevoked {
                connector: name("plain"),
                key_id: key_id.clone(),
            })
            .unwrap();
        assert!(!world.works(&world.plain_key, 0));
        let foreign = ControlChange::IngestKeyRevoked {
            connector: name("plain"),
            key_id: KeyId::from_random([2; 6]),
        };
        assert!(matches!(
            world.apply(foreign),
            Err(RegistryError::Unknown(_))
        ));
        assert!(
            world.works(&world.signed_key, 0),
            "a connector can't take another one's key away"
        );
        let again = world.apply(ControlChange::IngestKeyRevoked {
            connector: name("plain"),
            key_id,
        });
        assert!(matches!(again, Err(RegistryError::Unknown(_))));
        world
            .apply(ControlChange::ConnectorEnabled {
                connector: name("signed"),
                enabled: false,
            })
            .unwrap();
        assert!(!world.registry.connector("signed").unwrap().enabled);
    }

    #[test]
    fn readers_see_their_streams_until_revoked() {
        let mut world = World::new();
        let read_key = world.read_key.clone();
        let presented = PresentedKey::parse(&read_key).unwrap();
        let access = world.registry.access_of(&presented).unwrap();
        assert!(access.may_read("plain") && !access.may_read("signed"));
        world
            .apply(ControlChange::ReaderRevoked {
                reader: name("reader"),
            })
            .unwrap();
        assert!(world.registry.access_of(&presented).is_none());
    }

    #[test]
    fn taken_names_and_a_foreign_master_key_are_refused() {
        let mut world = World::new();
        let (_, record) = key(KeyKind::Ingest, 9);
        assert!(matches!(
            world.apply(connector("plain", record.clone(), None)),
            Err(RegistryError::Taken(_))
        ));
        let sealed = MasterKey::new(&[6; 32]).seal(
            &Scheme::Hookpool.generate_key(&[4; 64]).unwrap(),
            &name("new"),
            [0; 12],
        );
        let signing = SigningKeyRecord {
            key_id: KeyId::from_random([8; 6]),
            sealed,
        };
        assert_eq!(
            world.apply(connector("new", record, Some(signing))),
            Err(RegistryError::Seal(SealError))
        );
        assert!(world.registry.connector("new").is_none());
    }
}
