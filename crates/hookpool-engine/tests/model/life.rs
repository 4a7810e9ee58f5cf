//! An engine that is started, stopped and started again on what outlives it.

use std::sync::{Arc, atomic::AtomicU64};

use bytes::Bytes;
use hookpool_core::{
    control::ControlChange,
    cursor::Cursor,
    event::Event,
    key::KeyId,
    name::{ConnectorName, ItemId, StreamName},
    plan::Plan,
    position::Position,
    projection::Change,
    seal::MasterKey,
    verify::{Header, Proof},
};
use hookpool_engine::{
    Asked, Engine, Options,
    appender::Limits,
    clock::Clock,
    control::{ConnectorSpec, ControlError},
    engine::Running,
    entropy::Entropy,
};
use hookpool_store::memory::{MemoryLog, MemoryPool};

use super::posted::Sent;

pub(super) type Pipeline = Engine<Arc<MemoryLog>, Arc<MemoryPool>>;

pub(super) const STREAM: &str = "model";

/// What outlives a kill.
pub(super) struct Disk {
    pub(super) log: Arc<MemoryLog>,
    pub(super) control: Arc<MemoryLog>,
    pub(super) pool: Arc<MemoryPool>,
    pub(super) key: String,
    pub(super) clock: Arc<AtomicU64>,
}

pub(super) struct Life {
    pub(super) engine: Arc<Pipeline>,
    pub(super) running: Running,
}

pub(super) fn stream() -> StreamName {
    StreamName::new(STREAM).unwrap()
}

pub(super) fn author() -> KeyId {
    KeyId::from_random([1; 6])
}

pub(super) async fn start(disk: &Disk, seed: u64) -> Life {
    let options = Options {
        master: MasterKey::new(&[7; 32]),
        encode: |_: &mut Vec<u8>, _: &Cursor, _: &Event, _: &Change<'_>| {},
        limits: Limits::default(),
        clock: Clock::Manual(Arc::clone(&disk.clock)),
        entropy: Entropy::seeded(seed),
        rejections: Default::default(),
    };
    let (log, control, pool) = (&disk.log, &disk.control, &disk.pool);
    let started = Engine::start(
        Arc::clone(log),
        Arc::clone(control),
        Arc::clone(pool),
        options,
    );
    let (engine, running) = started.await.unwrap();
    Life { engine, running }
}

/// Ends wherever the threads are; what they were about to do is not done.
pub(super) async fn stop(Life { engine, running }: Life) {
    engine.status().stop();
    drop(engine);
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap();
}

pub(super) async fn connector(engine: &Pipeline) -> String {
    let spec = ConnectorSpec::new(ConnectorName::new(STREAM).unwrap(), stream());
    let made = engine
        .control()
        .add_connector(&author(), spec)
        .await
        .unwrap();
    made.ingest_key.secret.expose().to_owned()
}

pub(super) async fn post(engine: &Pipeline, key: &str, sent: &Sent) -> Position {
    let authorization = format!("Bearer {key}");
    let proof = Proof {
        authorization: Header::One(authorization.as_bytes()),
        headers: &Vec::<(&str, &str)>::new(),
    };
    let admitted = engine.admit(STREAM, proof).unwrap();
    let id = engine.request_id();
    let accepted = match sent {
        Sent::Body(body) => {
            let body = Bytes::copy_from_slice(body.as_bytes());
            engine.accept(admitted, body, Asked::default(), id).await
        }
        Sent::Deletion(item) => {
            let verified = engine.verify(admitted, Bytes::new()).unwrap();
            let item = ItemId::new(item.as_str()).unwrap();
            engine.record_deletion(verified, item, None, id).await
        }
    };
    match accepted {
        Ok(receipt) => receipt.position,
        Err(error) => panic!("{error}: {:?}", engine.status().get()),
    }
}

pub(super) async fn control(engine: &Pipeline, change: ControlChange) -> Result<(), ControlError> {
    engine.control().change(&author(), STREAM, change).await
}

pub(super) fn plan(engine: &Pipeline) -> Arc<Plan> {
    engine.control().registry().plan(STREAM)
}
