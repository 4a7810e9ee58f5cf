//! Stages that touch the disk: synced appends by concurrent writers, and reading the log back.

#![expect(clippy::unwrap_used, reason = "a bench")]

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hookpool_core::{
    event::{NewEvent, Op, Request, RequestId},
    name::{ConnectorName, ItemId, StreamName},
    position::{Epoch, Position},
    time::Timestamp,
};
use hookpool_engine::{
    appender::{Appender, Limits},
    status::StatusCell,
};
use hookpool_fjall::{FjallLog, Options, VERIFY_BYTES};
use hookpool_store::{EventLog, PageRequest};
use tokio::{runtime::Runtime, task::JoinSet};

const BODY: &[u8] =
    br#"{"region":"North","sales":142000,"target":130000,"updated":"2026-04-09T10:30:00Z"}"#;

fn event() -> NewEvent {
    NewEvent {
        time: Timestamp(1),
        stream: StreamName::new("bench").unwrap(),
        op: Op::Upsert,
        item_id: ItemId::new("North").unwrap(),
        generated_id: false,
        duplicate_keys: false,
        field_count: 4,
        connector: ConnectorName::new("bench").unwrap(),
        request_id: RequestId([1; 16]),
        dedupe: None,
        idempotency: None,
        body: Bytes::from_static(BODY),
    }
}

fn open(dir: &Path) -> Arc<FjallLog> {
    Arc::new(
        FjallLog::open(
            dir,
            Options {
                epoch_if_new: Epoch(1),
                verify_bytes: VERIFY_BYTES,
            },
        )
        .unwrap(),
    )
}

/// Writers that each wait for their event to be durable before they send the next.
fn append(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("append_synced");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(3));
    for writers in [1, 16, 64, 256] {
        let folder = tempfile::tempdir().unwrap();
        let log = open(&folder.path().join("log"));
        let (appender, thread) = {
            let _inside = runtime.enter();
            Appender::start(log, Limits::default(), StatusCell::default())
        };
        let appender = Arc::new(appender);
        const EACH: u64 = 20;
        group.throughput(Throughput::Elements(writers * EACH));
        group.bench_function(BenchmarkId::from_parameter(writers), |bencher| {
            bencher.to_async(&runtime).iter(|| {
                let appender = Arc::clone(&appender);
                async move {
                    let mut tasks = JoinSet::new();
                    for _ in 0..writers {
                        let appender = Arc::clone(&appender);
                        tasks.spawn(async move {
                            for _ in 0..EACH {
                                appender.append(event().into()).await.unwrap();
                            }
                        });
                    }
                    while let Some(done) = tasks.join_next().await {
                        done.unwrap();
                    }
                }
            });
        });
        drop(appender);
        thread.join().unwrap();
    }
    group.finish();
}

/// Every event of a log, decoded and checked.
fn replay(criterion: &mut Criterion) {
    const EVENTS: usize = 100_000;
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder.path().join("log"));
    for _ in 0..EVENTS / 100 {
        runtime
            .block_on(log.append(Request::each(vec![event(); 100])))
            .unwrap();
    }
    let mut group = criterion.benchmark_group("replay");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("pages_of_1024", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let (mut at, mut events) = (Position::ZERO, 0);
                while at < log.head() {
                    let page = log.page(PageRequest::after(at)).await.unwrap();
                    events += page.events.len();
                    at = page.through;
                }
                assert_eq!(events, EVENTS);
            });
        });
    });
    group.finish();
}

criterion_group!(io, append, replay);
criterion_main!(io);
