//! A server on a history that no sender had to send.

use std::{net::SocketAddr, path::Path, process::Child};

use bytes::Bytes;
use hookpool_core::{
    event::{NewEvent, Op, Request, RequestId},
    name::{ConnectorName, ItemId, StreamName},
    position::Epoch,
    time::Timestamp,
};
use hookpool_fjall::{FjallLog, Options};
use hookpool_store::EventLog as _;

use crate::{client::Keys, servers};

/// Of this build, with so many events of the stream `load` in its log; its pool may still have to take them.
pub(crate) fn serve(data: &Path, events: u64) -> (Child, SocketAddr, Keys) {
    let program = env!("CARGO_BIN_EXE_hookpool");
    let (mut child, address) = servers::serve(program, data);
    let keys = servers::connector(address, servers::operator_key(data));
    servers::stop(&mut child);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(fill(&data.join("log"), events));
    let (child, address) = servers::serve(program, data);
    (child, address, keys)
}

async fn fill(log: &Path, events: u64) {
    let log = FjallLog::open(log, Options::new(Epoch(1))).unwrap();
    let mut n = 0;
    while n < events {
        let batch: Vec<_> = (n..events.min(n + 1_024)).map(event).collect();
        n += batch.len() as u64;
        log.append(Request::each(batch)).await.unwrap();
    }
}

/// About 90 bytes, of 10,000 items.
fn event(n: u64) -> NewEvent {
    let item = n.wrapping_mul(2_654_435_761) % 10_000;
    let body = format!(
        r#"{{"region":"r{item}","sales":{n},"target":130000,"updated":"2026-04-09T10:30:00Z"}}"#
    );
    NewEvent {
        time: Timestamp(1_700_000_000_000_000 + n),
        stream: StreamName::new("load").unwrap(),
        op: Op::Upsert,
        item_id: ItemId::new(format!("r{item}")).unwrap(),
        generated_id: false,
        duplicate_keys: false,
        field_count: 4,
        connector: ConnectorName::new("past").unwrap(),
        request_id: RequestId(u128::from(n).to_le_bytes()),
        dedupe: None,
        idempotency: None,
        body: Bytes::from(body),
    }
}
