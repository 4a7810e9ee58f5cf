//! Items as they were, and what made them so.

use std::sync::Arc;

use hookpool_core::{fold::Item, name::ItemId, position::Position};
use hookpool_store::{EventLog, PoolSnapshot, PoolStore};

use super::Engine;
use crate::{
    follow::{FollowError, READ_HERE_BYTES_MAX, blocking, blocking_if, follows_checkpoint},
    past::{Folded, Known, Observer, Past, PastPage, Stretch, Touch, View},
};

impl<L: EventLog, P: PoolStore> Engine<L, P> {
    /// An item as it was at a position, under the rules of a generation; `None` if it was not there.
    ///
    /// # Errors
    /// [`FollowError`]
    pub async fn item_at(
        &self,
        view: View<P::Snapshot>,
        id: ItemId,
        at: Position,
    ) -> Result<Option<Item>, FollowError> {
        let touched = self.touched_at(view, id, at).await?;
        Ok(touched.filter(Item::is_there))
    }

    /// The same, there or deleted; `None` before its first event.
    ///
    /// # Errors
    /// [`FollowError`]
    pub async fn touched_at(
        &self,
        view: View<P::Snapshot>,
        id: ItemId,
        at: Position,
    ) -> Result<Option<Item>, FollowError> {
        let (stream, mut past) = (view.stream.clone(), self.past(view));
        let item = blocking(move || past.touched_at(&id, at)).await;
        self.must_reach(&stream, at)?;
        item
    }

    /// Items as they were at a position, in byte order of their ids, after one of them; at most `limit`, and no further one once they have
    /// `bytes_max` bytes of text or `looked_at_max` were looked at: all of a stream may have come after the position.
    ///
    /// # Errors
    /// [`FollowError`]
    pub async fn items_at(
        &self,
        view: View<P::Snapshot>,
        at: Position,
        after: Option<ItemId>,
        limit: usize,
        bytes_max: usize,
        looked_at_max: usize,
    ) -> Result<PastPage, FollowError> {
        let (stream, mut past) = (view.stream.clone(), self.past(view.clone()));
        let read = blocking(move || -> Result<_, FollowError> {
            let (mut page, mut bytes) = (PastPage::default(), 0);
            page.after = after;
            let checkpoint = view.pool.checkpoint();
            let is_now = checkpoint.is_none_or(|checkpoint| checkpoint.position <= at);
            loop {
                let now = match is_now {
                    true => view.items(page.after.as_ref(), limit, bytes_max)?,
                    false => view.touched_items(page.after.as_ref(), limit, bytes_max)?,
                };
                for (id, item) in now.items {
                    let full = page.items.len() >= limit || bytes >= bytes_max;
                    if full || page.looked_at >= looked_at_max {
                        page.more = true;
                        return Ok(page);
                    }
                    let then = match item.position <= at {
                        true => Some(item).filter(Item::is_there),
                        false => past.item_at(&id, at)?,
                    };
                    page.looked_at += 1;
                    page.after = Some(id.clone());
                    if let Some(then) = then {
                        bytes += then.text_bytes();
                        page.items.push((id, then));
                    }
                }
                if !now.more {
                    return Ok(page);
                }
            }
        })
        .await;
        self.must_reach(&stream, at)?;
        read
    }

    /// The events after a position that touched an item, oldest first, and what they did to it; and whether more follow. Without a position, from
    /// the earliest one that is kept. At most `limit`, and fewer of an item so large that they would take much memory, but one if there is one.
    ///
    /// # Errors
    /// [`FollowError`]
    pub async fn history(
        &self,
        view: View<P::Snapshot>,
        id: ItemId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<(Vec<Touch>, bool), FollowError> {
        let stream = view.stream.clone();
        loop {
            let (id, mut past) = (id.clone(), self.past(view.clone()));
            let from = after.unwrap_or_else(|| self.earliest(&stream));
            let touches = blocking(move || past.touches(&id, from, limit)).await;
            match self.must_reach(&stream, from) {
                Ok(()) => return touches,
                // The floor rose meanwhile.
                Err(FollowError::BeforeRetention(_)) if after.is_none() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Applies the events of a stretch to their items, in order, as long as the observer has room; the view must have them. `None` if an item has
    /// to be looked up and the view does not have the generation any more.
    ///
    /// # Errors
    /// [`FollowError`]
    pub async fn fold<O: Observer>(
        &self,
        view: View<P::Snapshot>,
        known: Known,
        stretch: Stretch,
        observer: O,
    ) -> Result<Option<Folded<O>>, FollowError> {
        let (stream, after) = (view.stream.clone(), stretch.after);
        let mut past = self.past(view);
        // Who has the items at hand needs no pool.
        let at_hand = stretch.events.iter().all(|(id, _)| known.get(id).is_some());
        let long = !at_hand || stretch.bytes(&known) > READ_HERE_BYTES_MAX;
        let fold = move || {
            let View {
                pool,
                stream,
                ruled,
            } = &past.view;
            if !at_hand && !follows_checkpoint(&**pool, stream, ruled.generation)? {
                return Ok(None);
            }
            past.fold(known, stretch, observer).map(Some)
        };
        let folded = blocking_if(long, fold).await;
        self.must_reach(&stream, after)?;
        folded
    }

    fn past(&self, view: View<P::Snapshot>) -> Past<L, P> {
        Past {
            log: Arc::clone(&self.log),
            pool: Arc::clone(&self.pool),
            view,
            runtime: tokio::runtime::Handle::current(),
        }
    }
}
