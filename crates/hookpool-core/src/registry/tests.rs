use super::*;
use crate::{
    control::{ControlChange, KeyRecord, SigningKeyRecord, Streams},
    key::{KeyKind, PresentedKey, generate},
    limits::Limits,
    scheme::Scheme,
    seal::MasterKey,
    time::Timestamp,
};

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

fn signing_key(seed: u8) -> SigningKeyRecord {
    let key = Scheme::Hookpool.generate_key(&[seed; 64]).unwrap();
    SigningKeyRecord {
        key_id: KeyId::from_random([seed; 6]),
        sealed: MasterKey::new(&MASTER).seal(&key, &name("signed"), [0; 12]),
    }
}

fn connector(text: &str, key: KeyRecord, signing_key: Option<SigningKeyRecord>) -> ControlChange {
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
        let (plain_key, plain) = key(KeyKind::Ingest, 1);
        let (signed_key, signed) = key(KeyKind::Ingest, 2);
        let (read_key, read) = key(KeyKind::Read, 3);
        let signing = Scheme::Hookpool.generate_key(&[4; 64]).unwrap();
        let record = signing_key(4);
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

    pub(crate) fn add_signing_key(&mut self, seed: u8, others_expire_at: Timestamp) {
        self.apply(ControlChange::SigningKeyAdded {
            connector: name("signed"),
            signing_key: signing_key(seed),
            others_expire_at,
        })
        .unwrap();
    }

    pub(crate) fn revoke_signing_key(&mut self, seed: u8) -> Result<(), RegistryError> {
        self.apply(ControlChange::SigningKeyRevoked {
            connector: name("signed"),
            key_id: KeyId::from_random([seed; 6]),
        })
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
fn a_signing_key_is_revoked_while_another_one_counts() {
    let mut world = World::new();
    let counting = |world: &World| {
        let connector = world.registry.connector("signed").unwrap();
        connector.signing_keys(Timestamp(0)).count()
    };
    let last = RegistryError::LastSigningKey(KeyId::from_random([4; 6]));
    assert_eq!(world.revoke_signing_key(4), Err(last));
    // What has expired is none that is left, and may go itself.
    world.add_signing_key(5, Timestamp(0));
    assert_eq!((counting(&world), world.revoke_signing_key(4)), (1, Ok(())));
    world.add_signing_key(6, Timestamp(0));
    let last = RegistryError::LastSigningKey(KeyId::from_random([6; 6]));
    assert_eq!(world.revoke_signing_key(6), Err(last));
    // One that still counts for a while is enough.
    world.add_signing_key(7, Timestamp::from_seconds(1));
    assert_eq!((counting(&world), world.revoke_signing_key(7)), (2, Ok(())));
    assert_eq!(counting(&world), 1);
    let unknown = world.revoke_signing_key(7);
    assert!(matches!(unknown, Err(RegistryError::Unknown(_))));
    assert!(world.registry.connector("signed").unwrap().is_signed());
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
