//! What senders ask for, some of it more than once, and what they were told.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hookpool_core::{
    bulk,
    event::RequestId,
    idempotency::IdempotencyKey,
    name::ItemId,
    position::Position,
    sign::signature,
    verify::{Header, Proof},
};
use hookpool_engine::{AcceptError, Asked, BulkAsked};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{NOW, Pipeline, STREAM};

const DELIVERIES: u64 = 12;

/// Both ways into the stream.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) plain: String,
    pub(super) signed: String,
    pub(super) signing: String,
}

/// What a request asks for.
#[derive(Debug, Clone)]
pub(super) enum Asks {
    Body(String),
    /// Each is one event, and all of them are there or none.
    Lines(Vec<String>),
    /// Of this item.
    Deletion(String),
}

impl Asks {
    /// Item and body of each event that it makes.
    pub(super) fn events(&self) -> Vec<(String, &str)> {
        match self {
            Self::Body(body) => vec![(item_of(body), body)],
            Self::Lines(bodies) => bodies.iter().map(|body| (item_of(body), &**body)).collect(),
            Self::Deletion(item) => vec![(item.clone(), "")],
        }
    }
}

/// What makes a repetition known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Not,
    /// By its signature, of this second.
    Signed(u64),
    /// By this key.
    Keyed(String),
}

/// A request, and what its sender was told.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) asks: Asks,
    /// Each time it was sent.
    pub(super) attempts: Vec<RequestId>,
    /// Where its last event is, as often as that was told.
    pub(super) acknowledged: Vec<Position>,
}

/// All that was sent, of which each sender adds what is its own.
pub(super) type Ledger = Arc<Mutex<Vec<Sent>>>;

/// Sends requests; those that are known again until they are acknowledged, since that is safe.
pub(super) async fn send(
    engine: Arc<Pipeline>,
    keys: Keys,
    sender: u64,
    seed: u64,
    ledger: Ledger,
) {
    let mut random = StdRng::seed_from_u64(seed);
    for n in 0..DELIVERIES {
        let asks = asks(&mut random, sender, n);
        let known = match random.random_range(0..4) {
            0 | 1 => Known::Not,
            // In one second all deletions of an item have the same signature.
            2 => Known::Signed(NOW - (sender * DELIVERIES + n)),
            _ => Known::Keyed(format!("{sender}-{n}")),
        };
        let mut sent = Sent {
            asks,
            attempts: Vec::new(),
            acknowledged: Vec::new(),
        };
        for _ in 0..if known == Known::Not { 1 } else { 20 } {
            let id = engine.request_id();
            sent.attempts.push(id);
            if let Some(position) = deliver(&engine, &keys, &sent.asks, &known, id).await {
                sent.acknowledged.push(position);
                // Once more sometimes, as senders do.
                if !random.random_bool(0.3) {
                    break;
                }
            }
        }
        ledger.lock().unwrap().push(sent);
    }
}

fn asks(random: &mut StdRng, sender: u64, n: u64) -> Asks {
    let body = |part: u64, random: &mut StdRng| {
        let (item, field) = (random.random_range(0..6), random.random_range(0..4));
        format!(r#"{{"id":"item-{item}","nonce":"{sender}-{n}-{part}","f{field}":{n}}}"#)
    };
    match random.random_range(0..10) {
        0 | 1 => Asks::Deletion(format!("item-{}", random.random_range(0..6))),
        2 | 3 => {
            let parts = random.random_range(2..6);
            Asks::Lines((0..parts).map(|part| body(part, random)).collect())
        }
        _ => Asks::Body(body(0, random)),
    }
}

fn item_of(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["id"].as_str().unwrap().to_owned()
}

/// Sends once; where the last event is, if that is told.
async fn deliver(
    engine: &Arc<Pipeline>,
    keys: &Keys,
    asks: &Asks,
    known: &Known,
    id: RequestId,
) -> Option<Position> {
    let bytes = Bytes::from(match asks {
        Asks::Body(body) => body.clone(),
        Asks::Lines(bodies) => bodies.join("\n"),
        Asks::Deletion(_) => String::new(),
    });
    let (mut headers, mut key) = (Vec::new(), &keys.plain);
    if let Known::Signed(second) = known {
        let signature = signature(&keys.signing, *second, &bytes);
        headers.push(("X-Webhook-Signature", signature));
        headers.push(("X-Webhook-Timestamp", second.to_string()));
        key = &keys.signed;
    }
    let idempotency = match known {
        Known::Keyed(key) => Some(IdempotencyKey::parse(key.as_bytes()).unwrap()),
        Known::Not | Known::Signed(_) => None,
    };
    let authorization = format!("Bearer {key}");
    let proof = Proof {
        authorization: Header::One(authorization.as_bytes()),
        headers: &headers,
    };
    let admitted = engine.admit(STREAM, proof).unwrap();
    let told = match asks {
        Asks::Body(_) => {
            let asked = Asked {
                key: idempotency.as_ref(),
                ..Asked::default()
            };
            let accepted = engine.accept(admitted, bytes, asked, id).await;
            accepted.map(|receipt| receipt.position)
        }
        Asks::Lines(_) => {
            let asked = BulkAsked {
                form: bulk::Form::Lines { id_field: None },
                key: idempotency,
                body_bytes_max: 1 << 10,
            };
            let bulk = engine.prepare_bulk(admitted, bytes, asked, id).await;
            let recorded = engine.record_bulk(bulk.unwrap()).await;
            recorded.map(|receipt| receipt.last)
        }
        Asks::Deletion(item) => {
            let verified = engine.verify(admitted, bytes).unwrap();
            let item = ItemId::new(item.as_str()).unwrap();
            let recorded = engine.record_deletion(verified, item, idempotency.as_ref(), id);
            recorded.await.map(|receipt| receipt.position)
        }
    };
    match told {
        Ok(position) => Some(position),
        Err(AcceptError::Queue(_) | AcceptError::Read(_)) => None,
        Err(error) => panic!("{error}, of {asks:?}, {known:?}"),
    }
}
