//! The promises of [`RejectionStore`].

use hookpool_core::event::RequestId;

use crate::rejections::RejectionStore;

/// Makes stores to be tested.
pub trait RejectionsFixture {
    /// The store.
    type Rejections: RejectionStore;

    /// A new, empty one.
    fn create(&mut self) -> Self::Rejections;

    /// Closes one and opens it again. One that lives in memory is given back.
    fn reopen(&mut self, rejections: Self::Rejections) -> Self::Rejections;
}

/// A test for each promise of [`RejectionStore`], over a [`RejectionsFixture`] made by the expression.
#[macro_export]
macro_rules! rejections_conformance {
    ($fixture:expr) => {
        $crate::rejections_conformance!($fixture,
            a_rejection_is_read_back_also_after_the_end
            a_rejection_is_replaced_and_removed);
    };
    ($fixture:expr, $($promise:ident)*) => {
        $(
            #[test]
            fn $promise() {
                $crate::conformance::$promise(&mut $fixture);
            }
        )*
    };
}

const IDS: [RequestId; 3] = [
    RequestId([1; 16]),
    RequestId([2; 16]),
    RequestId([0xff; 16]),
];

fn put(store: &impl RejectionStore, id: RequestId, bytes: &[u8]) {
    store.put(id, bytes).expect("put");
}

fn get(store: &impl RejectionStore, id: RequestId) -> Option<Vec<u8>> {
    store.get(id).expect("get")
}

fn ids(store: &impl RejectionStore) -> Vec<RequestId> {
    let mut ids = store.ids().expect("ids");
    ids.sort_unstable();
    ids
}

/// What was put is there, byte for byte.
pub fn a_rejection_is_read_back_also_after_the_end<F: RejectionsFixture>(fixture: &mut F) {
    let store = fixture.create();
    assert!(ids(&store).is_empty() && get(&store, IDS[0]).is_none());
    for (n, id) in IDS.into_iter().enumerate() {
        put(&store, id, &vec![0xc3; n * 100_000]);
    }
    let store = fixture.reopen(store);
    assert_eq!(ids(&store), IDS);
    for (n, id) in IDS.into_iter().enumerate() {
        assert_eq!(get(&store, id), Some(vec![0xc3; n * 100_000]));
    }
}

/// The last bytes count, and what was removed stays away.
pub fn a_rejection_is_replaced_and_removed<F: RejectionsFixture>(fixture: &mut F) {
    let store = fixture.create();
    put(&store, IDS[0], b"longer than the other");
    put(&store, IDS[0], b"other");
    put(&store, IDS[1], b"removed");
    store.remove(IDS[1]).expect("remove");
    store.remove(IDS[2]).expect("one that is not there");
    let store = fixture.reopen(store);
    assert_eq!(ids(&store), [IDS[0]]);
    assert_eq!(get(&store, IDS[0]).as_deref(), Some(&b"other"[..]));
    assert_eq!(get(&store, IDS[1]), None);
}
