//! The rejections that there are, without their bodies, and which of them has to go where room is short.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hookpool_core::{event::RequestId, name::ConnectorName, rejection::Rejection};

/// By id, which is by time.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    all: BTreeMap<RequestId, (Arc<Rejection>, u64)>,
    owners: BTreeMap<Option<ConnectorName>, Share>,
    bytes: u64,
}

/// What one owner takes.
#[derive(Debug, Default)]
struct Share {
    ids: BTreeSet<RequestId>,
    /// Those of them that are kept with their bodies.
    kept: BTreeSet<RequestId>,
    bytes: u64,
}

/// What there is too much of.
#[derive(Debug, PartialEq)]
pub(super) enum Over {
    /// One with all that is known of it.
    All(RequestId),
    /// The body of one.
    Body(Arc<Rejection>),
}

impl Shelf {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, id: RequestId) -> Option<Arc<Rejection>> {
        self.all
            .get(&id)
            .map(|(rejection, _)| Arc::clone(rejection))
    }

    pub(super) fn list(
        &self,
        takes: impl Fn(&Rejection) -> bool,
        before: Option<RequestId>,
        limit: usize,
    ) -> (Vec<Arc<Rejection>>, bool) {
        let older = match before {
            Some(id) => self.all.range(..id),
            None => self.all.range(..),
        };
        let mut found = older
            .rev()
            .map(|(_, (rejection, _))| rejection)
            .filter(|it| takes(it));
        let page = found.by_ref().take(limit).cloned().collect();
        (page, found.next().is_some())
    }

    pub(super) fn insert(&mut self, rejection: Rejection, bytes: u64) {
        let id = rejection.id;
        self.remove(id);
        let share = self.owners.entry(rejection.owner().cloned()).or_default();
        share.ids.insert(id);
        if rejection.kept {
            share.kept.insert(id);
        }
        share.bytes += bytes;
        self.bytes += bytes;
        self.all.insert(id, (Arc::new(rejection), bytes));
    }

    /// The oldest of the owner who has the most, if there is more than there may be: so nobody pushes out what is another's. Bodies go before
    /// what is known of them.
    pub(super) fn over(&self, count: usize, bytes: u64) -> Option<Over> {
        let shares = self.owners.values();
        if self.all.len() > count {
            let largest = shares.max_by_key(|share| share.ids.len())?;
            return largest.ids.first().copied().map(Over::All);
        }
        if self.bytes <= bytes {
            return None;
        }
        let largest = shares.max_by_key(|share| share.bytes)?;
        let body = largest.kept.first().and_then(|id| self.get(*id));
        match body {
            Some(rejection) => Some(Over::Body(rejection)),
            None => largest.ids.first().copied().map(Over::All),
        }
    }

    pub(super) fn remove(&mut self, id: RequestId) {
        let Some((rejection, bytes)) = self.all.remove(&id) else {
            return;
        };
        self.bytes -= bytes;
        let owner = rejection.owner().cloned();
        if let Some(share) = self.owners.get_mut(&owner) {
            share.ids.remove(&id);
            share.kept.remove(&id);
            share.bytes -= bytes;
            if share.ids.is_empty() {
                self.owners.remove(&owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::rejection, *};

    fn ids(shelf: &Shelf) -> Vec<u8> {
        shelf.all.keys().map(|id| id.0[0]).collect()
    }

    #[test]
    fn who_has_the_most_loses_the_oldest() {
        let mut shelf = Shelf::default();
        shelf.insert(rejection(1, Some("sales")), 10);
        for n in 2..10 {
            shelf.insert(rejection(n, None), 10);
            while take(&mut shelf, 5, 1_000).is_some() {}
        }
        assert_eq!(ids(&shelf), [1, 6, 7, 8, 9]);
        let kept = Rejection {
            kept: true,
            ..rejection(20, Some("sales"))
        };
        shelf.insert(kept.clone(), 900);
        assert_eq!(shelf.over(9, 800), Some(Over::Body(Arc::new(kept))));
        shelf.insert(rejection(20, Some("sales")), 890);
        assert_eq!(take(&mut shelf, 9, 800), Some(RequestId([1; 16])));
        assert_eq!(take(&mut shelf, 9, 800), Some(RequestId([20; 16])));
        assert_eq!((take(&mut shelf, 9, 800), shelf.bytes), (None, 40));
    }

    fn take(shelf: &mut Shelf, count: usize, bytes: u64) -> Option<RequestId> {
        match shelf.over(count, bytes)? {
            Over::All(id) => {
                shelf.remove(id);
                Some(id)
            }
            Over::Body(rejection) => panic!("{rejection:?}"),
        }
    }

    #[test]
    fn a_page_goes_from_the_newest_to_the_oldest() {
        let mut shelf = Shelf::default();
        for n in 1..6 {
            shelf.insert(
                rejection(n, Some(if n % 2 == 0 { "even" } else { "odd" })),
                1,
            );
        }
        let odd = |rejection: &Rejection| rejection.connector.as_ref().unwrap().as_str() == "odd";
        let (page, more) = shelf.list(odd, None, 2);
        let last = page.last().unwrap().id;
        assert_eq!((page.len(), last.0[0], more), (2, 3, true));
        let (page, more) = shelf.list(odd, Some(last), 2);
        assert_eq!((page.len(), page[0].id.0[0], more), (1, 1, false));
    }
}
