//! A sender with its connector.

use bytes::Bytes;
use hookpool_core::{
    control::{ControlChange, KeyRecord, SigningKeyRecord},
    key::{self, KeyId, KeyKind, Secret},
    name::{ConnectorName, StreamName},
    registry::{Registry, RegistryError, Replay},
    scheme::Scheme,
    seal::MasterKey,
    time::Timestamp,
    verify::{Headers, Verified, VerifyError, admit_hook},
};

pub(crate) const NOW: u64 = 1_700_000_000;

/// Name and value, as a request has them.
pub(crate) type Sent = Vec<(String, Vec<u8>)>;

pub(crate) struct Sender {
    pub(crate) scheme: Scheme,
    pub(crate) registry: Registry,
    pub(crate) hook: String,
    key: String,
}

fn name() -> ConnectorName {
    ConnectorName::new("sender").unwrap()
}

fn record(kind: KeyKind, seed: u8) -> (Secret, KeyRecord) {
    let key_id = KeyId::from_random([seed; 6]);
    let (secret, secret_sha256) = key::generate(kind, &key_id, &[seed; 64]).unwrap();
    let record = KeyRecord {
        key_id,
        secret_sha256,
    };
    (secret, record)
}

fn master() -> MasterKey {
    MasterKey::new(&[5; 32])
}

fn sealed(key: &str, seed: u8) -> SigningKeyRecord {
    SigningKeyRecord {
        key_id: KeyId::from_random([seed; 6]),
        sealed: master().seal(&Secret::new(key.to_owned()), &name(), [seed; 12]),
    }
}

impl Sender {
    pub(crate) fn new(scheme: Scheme) -> Self {
        let key = scheme.generate_key(&[7; 64]).unwrap();
        Self::with_key(scheme, key.expose()).unwrap()
    }

    pub(crate) fn with_key(scheme: Scheme, key: &str) -> Result<Self, RegistryError> {
        let (hook, hook_record) = record(KeyKind::Hook, 2);
        let added = ControlChange::ConnectorAdded {
            connector: name(),
            stream: StreamName::new("stream").unwrap(),
            id_field: None,
            replay: Replay::Collapse,
            key: record(KeyKind::Ingest, 1).1,
            signing_key: Some(sealed(key, 3)),
            scheme: Some(scheme.clone()),
            hook: Some(hook_record),
            limits: Default::default(),
            keep_rejected: false,
        };
        let mut registry = Registry::default();
        registry.apply(added, Timestamp::from_seconds(NOW), &master())?;
        Ok(Self {
            scheme,
            registry,
            hook: hook.expose().to_owned(),
            key: key.to_owned(),
        })
    }

    /// Another key; the ones before it count until then.
    pub(crate) fn rotate(&mut self, key: &str, others_expire_at: u64) {
        let change = ControlChange::SigningKeyAdded {
            connector: name(),
            signing_key: sealed(key, 9),
            others_expire_at: Timestamp::from_seconds(others_expire_at),
        };
        self.registry
            .apply(change, Timestamp::from_seconds(NOW), &master())
            .unwrap();
    }

    pub(crate) fn signed(&self, timestamp: u64, body: &[u8]) -> Sent {
        self.signed_with(&self.key, timestamp, body)
    }

    pub(crate) fn signed_with(&self, key: &str, timestamp: u64, body: &[u8]) -> Sent {
        let key = self.scheme.key(key).unwrap();
        let headers = self.scheme.sign(&key, timestamp, "msg_1", body);
        let bytes = |(name, value): (String, String)| (name, value.into_bytes());
        headers.into_iter().map(bytes).collect()
    }

    pub(crate) fn deliver(
        &self,
        headers: &dyn Headers,
        body: &[u8],
    ) -> Result<Verified, VerifyError> {
        self.deliver_at(NOW, headers, body)
    }

    pub(crate) fn deliver_at(
        &self,
        now: u64,
        headers: &dyn Headers,
        body: &[u8],
    ) -> Result<Verified, VerifyError> {
        let now = Timestamp::from_seconds(now);
        let admitted = admit_hook(&self.registry, &self.hook, headers, now)?;
        admitted.verify(Bytes::copy_from_slice(body), now)
    }
}

/// One of an operator's own, with everything that can be said.
pub(crate) fn custom() -> Scheme {
    let written = serde_json::json!({
        "header": "X-Acme-Signature",
        "prefix": "sig:",
        "encoding": "base64",
        "template": "acme:{id}:{body}/{timestamp}",
        "timestampHeader": "X-Acme-Time",
        "tolerance": 60,
        "deliveryHeader": "X-Acme-Delivery",
    });
    Scheme::try_from(written).unwrap()
}

/// One that names its deliveries in the body.
fn custom_with_field() -> Scheme {
    let written = serde_json::json!({
        "header": "X-Acme-Signature",
        "prefix": "sha256=",
        "template": "{body}:{timestamp}",
        "timestampHeader": "X-Acme-Time",
        "tolerance": 60,
        "deliveryField": "/event_id",
    });
    Scheme::try_from(written).unwrap()
}

/// One of each.
pub(crate) fn schemes() -> Vec<Scheme> {
    let customs = [custom(), custom_with_field()];
    Scheme::NAMED.into_iter().chain(customs).collect()
}
