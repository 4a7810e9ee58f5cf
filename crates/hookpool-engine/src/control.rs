//! The registry, followed live from the control log, and the operators' changes to it.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use hookpool_core::{
    control::{CONTROL_STREAM, ControlChange, KeyRecord, SigningKeyRecord, Streams},
    event::{Event, NewEvent, Op, RequestId},
    key::{self, KeyId, KeyKind, Secret},
    limits::Limits,
    name::{ConnectorName, ItemId, NameError, StreamName},
    position::Position,
    registry::{Registry, RegistryError, Replay},
    scheme::Scheme,
    seal::MasterKey,
    time::Timestamp,
};
use hookpool_store::{EventLog, PageRequest, ReadError};
use thiserror::Error;
use tokio::sync::{Mutex, watch};

use crate::{
    appender::{Appender, QueueError},
    clock::Clock,
    entropy::Entropy,
    status::{FailOnPanic, StatusCell},
};

/// Why a change of the registry was refused.
#[derive(Debug, Error)]
pub enum ControlError {
    /// It does not fit what is there.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It could not be recorded.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// Why the control log can't be folded.
#[derive(Debug, Error)]
pub enum ControlReadError {
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An event is not one that this program knows.
    #[error("read the control event at position {0}: {1}; was it written by a newer version?")]
    Event(Position, serde_json::Error),
    /// The master key is another one.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// How long a log that does not answer is left alone.
const RETRY: Duration = Duration::from_millis(100);

/// The registry and the way to change it.
#[derive(Debug)]
pub struct Control<L> {
    log: Arc<L>,
    appender: Appender,
    master: MasterKey,
    clock: Clock,
    entropy: Entropy,
    registry: ArcSwap<Registry>,
    applied: watch::Sender<Position>,
    /// One change at a time: what is checked is what is recorded.
    changing: Mutex<()>,
}

/// A new connector, with its secrets.
#[derive(Debug)]
pub struct NewConnector {
    /// The first ingest key.
    pub ingest_key: NewKey,
    /// The first signing key, if it is signed.
    pub signing_key: Option<NewKey>,
    /// The first hook, if its scheme was named.
    pub hook: Option<NewKey>,
}

/// A new key, shown once.
#[derive(Debug)]
pub struct NewKey {
    /// Public.
    pub key_id: KeyId,
    /// The whole key.
    pub secret: Secret,
}

/// What a connector is made of.
#[derive(Debug, Clone)]
pub struct ConnectorSpec {
    /// Its name.
    pub name: ConnectorName,
    /// The stream it writes to.
    pub stream: StreamName,
    /// Whether deliveries must be signed.
    pub signed: bool,
    /// Where the item id is.
    pub id_field: Option<String>,
    /// For signed requests.
    pub replay: Replay,
    /// How its sender signs, if that was said; then it has a hook too.
    pub scheme: Option<Scheme>,
    /// The sender's own signing key; left out, one is made.
    pub signing_key: Option<Secret>,
    /// What it may send.
    pub limits: Limits,
    /// Whether bodies of refused deliveries are kept.
    pub keep_rejected: bool,
}

impl ConnectorSpec {
    /// An unsigned one without anything that was asked for.
    #[must_use]
    pub fn new(name: ConnectorName, stream: StreamName) -> Self {
        Self {
            name,
            stream,
            signed: false,
            id_field: None,
            replay: Replay::Collapse,
            scheme: None,
            signing_key: None,
            limits: Limits::default(),
            keep_rejected: false,
        }
    }
}

impl<L: EventLog> Control<L> {
    /// Reads the control log from its start.
    pub(crate) async fn open(
        log: Arc<L>,
        appender: Appender,
        master: MasterKey,
        clock: Clock,
        entropy: Entropy,
    ) -> Result<Self, ControlReadError> {
        let control = Self {
            log,
            appender,
            master,
            clock,
            entropy,
            registry: ArcSwap::default(),
            applied: watch::Sender::new(Position::ZERO),
            changing: Mutex::new(()),
        };
        control.catch_up().await?;
        Ok(control)
    }

    /// Where the changes are recorded.
    pub(crate) fn log(&self) -> &Arc<L> {
        &self.log
    }

    /// Who may do what, as of now.
    #[must_use]
    pub fn registry(&self) -> arc_swap::Guard<Arc<Registry>> {
        self.registry.load()
    }

    /// Moves whenever the registry changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Position> {
        self.applied.subscribe()
    }

    /// Follows the control log until the engine stops: changes made elsewhere arrive here too.
    pub(crate) async fn follow(&self, status: &StatusCell) {
        let _failing = FailOnPanic::new("the registry", status);
        loop {
            let applied = *self.applied.borrow();
            tokio::select! {
                _ = status.ended() => return,
                _ = self.log.wait(applied) => {}
            }
            let changing = self.changing.lock().await;
            let caught_up = self.catch_up().await;
            drop(changing);
            match caught_up {
                Ok(()) => {}
                Err(ControlReadError::Read(error @ ReadError::Backend(_))) => {
                    tracing::warn!(%error, "the registry tries again");
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return status.fail(error.to_string()),
            }
        }
    }

    /// Creates a connector with its first keys.
    ///
    /// # Errors
    /// [`RegistryError::Taken`] if the name is.
    pub async fn add_connector(
        &self,
        author: &KeyId,
        spec: ConnectorSpec,
    ) -> Result<NewConnector, ControlError> {
        let (ingest_key, key) = self.new_key(KeyKind::Ingest);
        let scheme = spec.scheme.clone().unwrap_or_default();
        let new_signing_key = || self.new_signing_key(&spec.name, &scheme, spec.signing_key);
        let (signing_key, record) = spec.signed.then(new_signing_key).unzip();
        let new_hook = || self.new_key(KeyKind::Hook);
        let (hook, hook_record) = spec.scheme.is_some().then(new_hook).unzip();
        let change = ControlChange::ConnectorAdded {
            connector: spec.name.clone(),
            stream: spec.stream,
            id_field: spec.id_field,
            replay: spec.replay,
            key,
            signing_key: record,
            scheme: spec.scheme,
            hook: hook_record,
            limits: spec.limits,
            keep_rejected: spec.keep_rejected,
        };
        self.change(author, spec.name.as_str(), change).await?;
        Ok(NewConnector {
            ingest_key,
            signing_key,
            hook,
        })
    }

    /// Adds an ingest key; the ones before it work for `overlap_seconds` more.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such connector.
    pub async fn rotate_key(
        &self,
        author: &KeyId,
        connector: ConnectorName,
        overlap_seconds: u64,
    ) -> Result<NewKey, ControlError> {
        let (new, key) = self.new_key(KeyKind::Ingest);
        let others_expire_at = self.clock.now().plus_seconds(overlap_seconds);
        let subject = connector.to_string();
        self.change(
            author,
            &subject,
            ControlChange::IngestKeyAdded {
                connector,
                key,
                others_expire_at,
            },
        )
        .await?;
        Ok(new)
    }

    /// Adds a hook; the ones before it work for `overlap_seconds` more.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such connector.
    pub async fn rotate_hook(
        &self,
        author: &KeyId,
        connector: ConnectorName,
        overlap_seconds: u64,
    ) -> Result<NewKey, ControlError> {
        let (new, key) = self.new_key(KeyKind::Hook);
        let others_expire_at = self.clock.now().plus_seconds(overlap_seconds);
        let subject = connector.to_string();
        let change = ControlChange::HookAdded {
            connector,
            key,
            others_expire_at,
        };
        self.change(author, &subject, change).await?;
        Ok(new)
    }

    /// Adds a signing key, the sender's own or one made here; the ones before it count for `overlap_seconds` more. With the first one,
    /// signatures become required.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such connector, [`RegistryError::Secret`] if the key is none.
    pub async fn rotate_signing_key(
        &self,
        author: &KeyId,
        connector: ConnectorName,
        signing_key: Option<Secret>,
        overlap_seconds: u64,
    ) -> Result<NewKey, ControlError> {
        let scheme = self
            .registry()
            .connector(connector.as_str())
            .map(|known| known.scheme.clone())
            .unwrap_or_default();
        let (new, signing_key) = self.new_signing_key(&connector, &scheme, signing_key);
        let others_expire_at = self.clock.now().plus_seconds(overlap_seconds);
        let subject = connector.to_string();
        self.change(
            author,
            &subject,
            ControlChange::SigningKeyAdded {
                connector,
                signing_key,
                others_expire_at,
            },
        )
        .await?;
        Ok(new)
    }

    /// Adds a read key.
    ///
    /// # Errors
    /// [`RegistryError::Taken`] if the name is.
    pub async fn add_reader(
        &self,
        author: &KeyId,
        reader: ConnectorName,
        streams: Streams,
    ) -> Result<NewKey, ControlError> {
        let (new, key) = self.new_key(KeyKind::Read);
        let subject = reader.to_string();
        self.change(
            author,
            &subject,
            ControlChange::ReaderAdded {
                reader,
                key,
                streams,
            },
        )
        .await?;
        Ok(new)
    }

    /// Draws an operator key and the change that makes it work. In two steps, so that the key can be put in a safe place first: an
    /// operator key that works and that nobody has would lock everybody out.
    #[must_use]
    pub fn draw_operator(&self) -> (NewKey, ControlChange) {
        let (new, key) = self.new_key(KeyKind::Operator);
        let operator = None;
        (new, ControlChange::OperatorAdded { key, operator })
    }

    /// Adds an operator key beside that of its author.
    ///
    /// # Errors
    /// [`RegistryError::Taken`] if the name is.
    pub async fn add_operator(
        &self,
        author: &KeyId,
        name: ConnectorName,
    ) -> Result<NewKey, ControlError> {
        let (new, key) = self.new_key(KeyKind::Operator);
        let subject = name.to_string();
        let operator = Some(name);
        let change = ControlChange::OperatorAdded { key, operator };
        self.change(author, &subject, change).await?;
        Ok(new)
    }

    /// Records a change and returns when it is in force here. `subject` is what it is about.
    ///
    /// # Errors
    /// [`ControlError`]; nothing is recorded then, but for an append whose outcome is unknown.
    pub async fn change(
        &self,
        author: &KeyId,
        subject: &str,
        change: ControlChange,
    ) -> Result<(), ControlError> {
        self.change_if(author, subject, change, |_| true)
            .await
            .map(drop)
    }

    /// The same, if what it was decided by still holds when it is recorded; whether it did.
    ///
    /// # Errors
    /// [`ControlError`], as for [`Self::change`].
    pub async fn change_if(
        &self,
        author: &KeyId,
        subject: &str,
        change: ControlChange,
        holds: impl FnOnce(&Registry) -> bool + Send,
    ) -> Result<bool, ControlError> {
        let _changing = self.changing.lock().await;
        if !holds(&self.registry()) {
            return Ok(false);
        }
        let now = self.clock.now();
        self.registry()
            .as_ref()
            .clone()
            .apply(change.clone(), now, &self.master)?;
        // At the very time as of which it fits.
        let event = self.event(author, subject, &change, now)?;
        self.appender.append(event.into()).await?;
        self.catch_up().await.map_err(|error| {
            tracing::error!(%error, "a recorded change is not in force here");
            ControlError::Queue(QueueError::Refused("the control log can't be read"))
        })?;
        Ok(true)
    }

    fn event(
        &self,
        author: &KeyId,
        subject: &str,
        change: &ControlChange,
        now: Timestamp,
    ) -> Result<NewEvent, ControlError> {
        let misnamed = |_: NameError| RegistryError::Unknown(subject.to_owned());
        let body =
            serde_json::to_vec(change).map_err(|_| RegistryError::Unknown(subject.to_owned()))?;
        Ok(NewEvent {
            time: now,
            stream: StreamName::new(CONTROL_STREAM).map_err(misnamed)?,
            op: Op::Upsert,
            item_id: ItemId::new(subject).map_err(misnamed)?,
            generated_id: false,
            duplicate_keys: false,
            field_count: 0,
            connector: ConnectorName::new(author.as_str()).map_err(misnamed)?,
            request_id: RequestId::new(now, &self.entropy.bytes()),
            dedupe: None,
            idempotency: None,
            body: Bytes::from(body),
        })
    }

    /// Folds what is new in the control log; the caller holds `changing`, or is the only one yet.
    async fn catch_up(&self) -> Result<(), ControlReadError> {
        let mut at = *self.applied.borrow();
        if at == self.log.head() {
            return Ok(());
        }
        let mut registry = self.registry().as_ref().clone();
        while at < self.log.head() {
            let page = self.log.page(PageRequest::after(at)).await?;
            for event in &page.events {
                self.fold(&mut registry, event)?;
            }
            at = page.through;
        }
        self.registry.store(Arc::new(registry));
        self.applied.send_replace(at);
        Ok(())
    }

    fn fold(
        &self,
        registry: &mut Registry,
        Event { position, event }: &Event,
    ) -> Result<(), ControlReadError> {
        let change = serde_json::from_slice(&event.body)
            .map_err(|error| ControlReadError::Event(*position, error))?;
        match registry.apply(change, event.time, &self.master) {
            // Two nodes may record changes that exclude each other: the later one is void, on every node alike.
            Err(
                error @ (RegistryError::Taken(_)
                | RegistryError::Unknown(_)
                | RegistryError::LastOperator(_)
                | RegistryError::LastSigningKey(_)
                | RegistryError::Plan(_)),
            ) => {
                tracing::warn!(%position, %error, "a control event is void");
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    fn new_key(&self, kind: KeyKind) -> (NewKey, KeyRecord) {
        let key_id = KeyId::from_random(self.entropy.bytes());
        let (secret, secret_sha256) =
            self.until_enough(|random| key::generate(kind, &key_id, random));
        (
            NewKey {
                key_id: key_id.clone(),
                secret,
            },
            KeyRecord {
                key_id,
                secret_sha256,
            },
        )
    }

    fn new_signing_key(
        &self,
        connector: &ConnectorName,
        scheme: &Scheme,
        given: Option<Secret>,
    ) -> (NewKey, SigningKeyRecord) {
        let key_id = KeyId::from_random(self.entropy.bytes());
        let secret =
            given.unwrap_or_else(|| self.until_enough(|random| scheme.generate_key(random)));
        let sealed = self.master.seal(&secret, connector, self.entropy.bytes());
        (
            NewKey {
                key_id: key_id.clone(),
                secret,
            },
            SigningKeyRecord { key_id, sealed },
        )
    }

    /// Draws until the bytes suffice: the second draw is needed once in 10^17 times.
    fn until_enough<T>(&self, make: impl Fn(&[u8; 64]) -> Option<T>) -> T {
        loop {
            if let Some(made) = make(&self.entropy.bytes()) {
                return made;
            }
        }
    }
}
