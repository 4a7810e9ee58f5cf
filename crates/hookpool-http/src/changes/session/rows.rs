//! The rows of a snapshot, some at a time.

use std::sync::Arc;

use hookpool_core::{
    name::{ItemId, StreamName},
    position::Generation,
};
use hookpool_engine::follow::blocking;
use hookpool_store::{EventLog, ItemPage, PoolError, PoolSnapshot, PoolStore};

use super::{Phase, Session, checkpoint};
use crate::{changes::wire::Out, render::push_some_of_item, sse::Frame};

/// Rows that are written at once.
const ROWS: usize = 256;
/// Bytes of item text in them; the last row may go over.
const ROWS_BYTES: usize = 256 << 10;

impl<L: EventLog, P: PoolStore> Session<L, P> {
    /// Some rows of the snapshot, or its end.
    pub(super) async fn snapshot_rows(&mut self) -> Result<(), PoolError> {
        let Phase::Snapshot { pool, after, .. } = &self.phase else {
            return Ok(());
        };
        let rows = rows_after(
            Arc::clone(pool),
            self.ask.stream.clone(),
            self.ruled.generation,
            self.ask.wanted.item.clone(),
            after.clone(),
        );
        let page = blocking(rows).await?;
        self.push_rows(&page);
        Ok(())
    }

    fn push_rows(&mut self, page: &ItemPage) {
        let Phase::Snapshot { pool, after, rows } = &mut self.phase else {
            return;
        };
        let (stream, wanted) = (&self.ask.stream, &self.ask.wanted);
        let row = |(id, item): &(ItemId, _)| {
            let item = wanted.seen(Some(item))?;
            let mut data = format!(r#"{{"stream":"{stream}","#);
            push_some_of_item(
                &mut data,
                id.as_str(),
                item,
                &wanted.selection,
                wanted.nested,
            );
            data.push_str(&format!(r#","position":{}}}"#, item.position));
            Some(Frame {
                event: "item",
                cursor: None,
                data,
            })
        };
        let frames: Vec<_> = page.items.iter().filter_map(row).collect();
        *rows += frames.len() as u64;
        self.ready.push_back(Out::Frames(frames));
        if page.more {
            *after = page.items.last().map(|(id, _)| id.clone());
            return;
        }
        let position = checkpoint(&**pool);
        let data = format!(r#"{{"position":{position},"items":{rows}}}"#);
        self.push("snapshot-end", Some(position), data);
        self.go_live(position);
    }
}

pub(super) fn snapshot<L, P: PoolStore>(pool: Arc<P::Snapshot>) -> Phase<L, P> {
    Phase::Snapshot {
        pool,
        after: None,
        rows: 0,
    }
}

/// The next rows of a snapshot, all of them or those of one item.
fn rows_after<S: PoolSnapshot>(
    pool: Arc<S>,
    stream: StreamName,
    generation: Generation,
    item: Option<ItemId>,
    after: Option<ItemId>,
) -> impl FnOnce() -> Result<ItemPage, PoolError> {
    move || match item {
        Some(id) => {
            let item = pool.item(&stream, generation, &id)?;
            Ok(ItemPage {
                items: item.map(|item| (id, item)).into_iter().collect(),
                more: false,
            })
        }
        None => pool.items(&stream, generation, after.as_ref(), ROWS, ROWS_BYTES),
    }
}
