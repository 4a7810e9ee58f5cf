//! The rows of a snapshot, some at a time.

use std::sync::Arc;

use hookpool_core::{name::ItemId, position::Position};
use hookpool_engine::{
    follow::{FollowError, blocking, follows_checkpoint},
    past::{PastPage, View},
};
use hookpool_store::{EventLog, PoolStore};

use super::{Phase, Session, checkpoint};
use crate::{changes::wire::Out, render::push_some_of_item, sse::Frame};

/// Rows that are written at once.
const ROWS: usize = 256;
/// Bytes of item text in them; the last row may go over.
const ROWS_BYTES: usize = 256 << 10;
/// Items that are looked at for them: of those that came after the snapshot nothing is to be seen.
const LOOKED_AT: usize = 1_024;

impl<L: EventLog, P: PoolStore> Session<L, P> {
    /// A snapshot of a view.
    pub(super) fn snapshot(&self, pool: Arc<P::Snapshot>) -> Phase<L, P> {
        Phase::Snapshot {
            at: checkpoint(&*pool),
            pool: self.lease(pool),
            after: None,
            rows: 0,
        }
    }

    /// Some rows of the snapshot, or its end.
    pub(super) async fn snapshot_rows(&mut self) -> Result<(), FollowError> {
        let Phase::Snapshot {
            pool, at, after, ..
        } = &self.phase
        else {
            return Ok(());
        };
        let (at, after) = (*at, after.clone());
        let Some(view) = pool.take() else {
            return self.renew_view(at).await;
        };
        let page = self.rows_after(Arc::clone(&view), at, after).await?;
        if let Phase::Snapshot { pool, .. } = &self.phase {
            pool.put_back(view);
        }
        self.push_rows(&page);
        Ok(())
    }

    /// Goes on in the newest view, where the view of a slow reader was let go: the pool says what items were, as long as it has the generation.
    async fn renew_view(&mut self, at: Position) -> Result<(), FollowError> {
        let view = self.app.engine.pool();
        let (pool, stream) = (Arc::clone(&view), self.ask.stream.clone());
        let generation = self.ruled.generation;
        if blocking(move || follows_checkpoint(&*pool, &stream, generation)).await? {
            let lease = self.lease(view);
            if let Phase::Snapshot { pool, .. } = &mut self.phase {
                *pool = lease;
            }
            return Ok(());
        }
        self.start_over(at).await
    }

    /// The next rows of the snapshot, all of them or those of one item.
    async fn rows_after(
        &self,
        pool: Arc<P::Snapshot>,
        at: Position,
        after: Option<ItemId>,
    ) -> Result<PastPage, FollowError> {
        let view = View {
            pool,
            stream: self.ask.stream.clone(),
            ruled: self.ruled.clone(),
        };
        let (engine, item) = (&self.app.engine, self.ask.wanted.item.clone());
        let is_now = checkpoint(&*view.pool) == at;
        let item = match item {
            Some(id) if is_now => blocking(move || view.item(&id).map(|item| (id, item))).await?,
            Some(id) => (id.clone(), engine.item_at(view, id, at).await?),
            None if is_now => {
                let rows = move || view.items(after.as_ref(), ROWS, ROWS_BYTES);
                return Ok(blocking(rows).await?.into());
            }
            None => {
                let rows = engine.items_at(view, at, after, ROWS, ROWS_BYTES, LOOKED_AT);
                return rows.await;
            }
        };
        let (id, item) = item;
        Ok(PastPage {
            items: item.map(|item| (id, item)).into_iter().collect(),
            ..PastPage::default()
        })
    }

    fn push_rows(&mut self, page: &PastPage) {
        let Phase::Snapshot {
            at, after, rows, ..
        } = &mut self.phase
        else {
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
            *after = page.after.clone();
            return;
        }
        let position = *at;
        let data = format!(r#"{{"position":{position},"items":{rows}}}"#);
        self.push("snapshot-end", position, data);
        self.go_live(position);
    }
}
