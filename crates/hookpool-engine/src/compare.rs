//! Two generations of a stream side by side, item by item, at one checkpoint.

use std::{cmp::Ordering, collections::VecDeque, sync::Arc};

use hookpool_core::{
    fold::Item,
    name::{ItemId, StreamName},
    position::Generation,
};
use hookpool_store::{PoolError, PoolSnapshot};

/// An item in both generations, or in one.
#[derive(Debug)]
pub struct Pair {
    /// Its id.
    pub id: ItemId,
    /// In the old generation.
    pub old: Option<Item>,
    /// In the new one.
    pub new: Option<Item>,
}

/// Reads two generations in byte order of their ids, some items at a time. Calls may block for the time of a disk access.
#[derive(Debug)]
pub struct Comparison<S> {
    pool: Arc<S>,
    stream: StreamName,
    old: Side,
    new: Side,
}

/// Items that are read of one generation.
#[derive(Debug)]
struct Side {
    generation: Generation,
    read: VecDeque<(ItemId, Item)>,
    after: Option<ItemId>,
    more: bool,
}

/// Items read at once, and bytes of their text.
const ITEMS: usize = 1_024;
const BYTES: usize = 1 << 20;

impl<S: PoolSnapshot> Comparison<S> {
    /// From the first item on.
    pub fn new(pool: Arc<S>, stream: StreamName, old: Generation, new: Generation) -> Self {
        let side = |generation| Side {
            generation,
            read: VecDeque::new(),
            after: None,
            more: true,
        };
        Self {
            pool,
            stream,
            old: side(old),
            new: side(new),
        }
    }

    /// The next items; `None` at the end.
    ///
    /// # Errors
    /// [`PoolError`]
    pub fn pairs(&mut self) -> Result<Option<Vec<Pair>>, PoolError> {
        self.old.fill(&*self.pool, &self.stream)?;
        self.new.fill(&*self.pool, &self.stream)?;
        let mut pairs = Vec::new();
        // Only as far as both sides are known.
        while !(self.old.must_read() || self.new.must_read()) {
            let order = match (self.old.read.front(), self.new.read.front()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((old, _)), Some((new, _))) => old.cmp(new),
            };
            let old = self.old.read.pop_front_if(|_| order.is_le());
            let new = self.new.read.pop_front_if(|_| order.is_ge());
            let (old_id, old) = old.unzip();
            let (new_id, new) = new.unzip();
            if let Some(id) = old_id.or(new_id) {
                pairs.push(Pair { id, old, new });
            }
        }
        Ok((!pairs.is_empty()).then_some(pairs))
    }
}

impl Side {
    fn must_read(&self) -> bool {
        self.read.is_empty() && self.more
    }

    fn fill(&mut self, pool: &impl PoolSnapshot, stream: &StreamName) -> Result<(), PoolError> {
        if self.must_read() {
            let page = pool.items(stream, self.generation, self.after.as_ref(), ITEMS, BYTES)?;
            self.more = page.more;
            self.after = page.items.last().map(|(id, _)| id.clone());
            self.read = page.items.into();
        }
        Ok(())
    }
}
