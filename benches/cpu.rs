//! Stages of the pipeline that touch no disk: verify, shape, codec, fold. Events and bytes per second.

#![expect(clippy::unwrap_used, reason = "a bench")]

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hookpool_core::{
    codec::{Block, Digest, decode_item, encode_block, encode_item},
    control::{ControlChange, KeyRecord, SigningKeyRecord},
    event::{Event, NewEvent, RequestId},
    fold::Item,
    json,
    key::{self, KeyId, KeyKind},
    name::{ConnectorName, StreamName},
    position::{Epoch, Position},
    projection::Projection,
    registry::{Registry, Replay},
    scheme::Scheme,
    seal::MasterKey,
    shape::{Stamp, shape},
    sign::signature,
    time::Timestamp,
    verify::{Header, Proof, Verified, admit},
};

const NOW: u64 = 1_700_000_000;
const SMALL: &str =
    r#"{"region":"North","sales":142000,"target":130000,"updated":"2026-04-09T10:30:00Z"}"#;

/// A body of some 8 KB, the median of GitHub's webhooks: many short fields and a few nested ones.
fn large() -> String {
    let nested = r#"{"id":1296269,"full_name":"octocat/Hello-World","private":false,"topics":["a","b","c"]}"#;
    let fields: Vec<String> = (0..80)
        .map(|n| format!(r#""field_{n}":{nested}"#))
        .collect();
    format!(r#"{{"id":"large",{}}}"#, fields.join(","))
}

struct World {
    registry: Registry,
    key: String,
    signing: String,
}

impl World {
    fn new() -> Self {
        let master = MasterKey::new(&[1; 32]);
        let (connector, key_id) = (
            ConnectorName::new("bench").unwrap(),
            KeyId::from_random([2; 6]),
        );
        let (key, secret_sha256) = key::generate(KeyKind::Ingest, &key_id, &[3; 64]).unwrap();
        let signing = Scheme::Hookpool.generate_key(&[4; 64]).unwrap();
        let sealed = master.seal(&signing, &connector, [5; 12]);
        let change = ControlChange::ConnectorAdded {
            stream: StreamName::new("bench").unwrap(),
            connector,
            id_field: Some("region".to_owned()),
            replay: Replay::Collapse,
            key: KeyRecord {
                key_id: key_id.clone(),
                secret_sha256,
            },
            signing_key: Some(SigningKeyRecord { key_id, sealed }),
            scheme: None,
            hook: None,
            limits: Default::default(),
            keep_rejected: false,
        };
        let mut registry = Registry::default();
        registry
            .apply(change, Timestamp::from_seconds(NOW), &master)
            .unwrap();
        Self {
            registry,
            key: key.expose().to_owned(),
            signing: signing.expose().to_owned(),
        }
    }

    fn verified(&self, body: &Bytes) -> Verified {
        let signature = signature(&self.signing, NOW, body);
        self.verify(body, &signature)
    }

    fn verify(&self, body: &Bytes, signature: &str) -> Verified {
        let authorization = format!("Bearer {}", self.key);
        let headers = [
            ("X-Webhook-Signature", signature),
            ("X-Webhook-Timestamp", "1700000000"),
        ];
        let proof = Proof {
            authorization: Header::One(authorization.as_bytes()),
            headers: &headers,
        };
        let now = Timestamp::from_seconds(NOW);
        admit(&self.registry, "bench", proof, now)
            .unwrap()
            .verify(body.clone(), now)
            .unwrap()
    }

    fn event(&self, body: &Bytes) -> NewEvent {
        shape(self.verified(body), None, STAMP).unwrap()
    }
}

const STAMP: Stamp = Stamp {
    now: Timestamp(NOW * 1_000_000),
    request_id: RequestId([6; 16]),
    random: [7; 10],
};

/// Under the page's behaviour.
fn fold(item: &mut Item, event: &Event) {
    let projection = Projection::default();
    let fields = json::object(&event.event.body).unwrap().fields;
    let change = projection.read(event, fields).unwrap();
    item.apply(event, &change, &projection);
}

fn stages(criterion: &mut Criterion) {
    let world = World::new();
    for (size, body) in [("82B", SMALL.to_owned()), ("8KB", large())] {
        let body = Bytes::from(body);
        let bytes = Throughput::Bytes(body.len() as u64);
        let signature = signature(&world.signing, NOW, &body);

        let mut group = criterion.benchmark_group("verify");
        group
            .throughput(bytes.clone())
            .bench_function(size, |bencher| {
                bencher.iter(|| world.verify(&body, &signature))
            });
        group.finish();

        let mut group = criterion.benchmark_group("shape");
        group
            .throughput(bytes.clone())
            .bench_function(size, |bencher| {
                bencher.iter_batched(
                    || world.verified(&body),
                    |verified| shape(verified, None, STAMP),
                    BatchSize::SmallInput,
                );
            });
        group.finish();

        let mut group = criterion.benchmark_group("fold");
        let event = Event {
            position: Position(1),
            event: world.event(&body),
        };
        group.throughput(bytes).bench_function(size, |bencher| {
            bencher.iter(|| {
                let mut item = Item::default();
                fold(&mut item, &event);
                item
            });
        });
        let mut item = Item::default();
        fold(&mut item, &event);
        let stored = encode_item(&item);
        group.bench_function(format!("item_encode/{size}"), |bencher| {
            bencher.iter(|| encode_item(&item))
        });
        group.bench_function(format!("item_decode/{size}"), |bencher| {
            bencher.iter(|| decode_item(&stored).unwrap())
        });
        group.finish();
    }
}

/// Blocks of 64 events, about what 256 connections make.
fn codec(criterion: &mut Criterion) {
    let world = World::new();
    let events = vec![world.event(&Bytes::from_static(SMALL.as_bytes())); 64];
    let encode = || encode_block(Epoch(1), Position(1), Digest::default(), events.iter());
    let stored = Bytes::from(encode().bytes);
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(events.len() as u64));
    group.bench_function("block_encode/64x82B", |bencher| bencher.iter(encode));
    group.bench_function("block_decode/64x82B", |bencher| {
        bencher.iter(|| {
            Block::parse(stored.clone())
                .unwrap()
                .events()
                .map(|event| event.unwrap().position.0)
                .sum::<u64>()
        });
    });
    group.finish();
}

criterion_group!(cpu, stages, codec);
criterion_main!(cpu);
