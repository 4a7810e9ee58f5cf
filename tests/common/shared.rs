//! One server for many tests, so that each of them costs a stream and not a process.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::server::{Data, Server};

/// Lives as long as any test uses it. The fields drop in this order.
pub(crate) struct Shared {
    pub(crate) server: Server,
    _data: Data,
}

pub(crate) fn shared() -> Arc<Shared> {
    static SHARED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let data = Data::new();
        let server = data.serve();
        let fresh = Arc::new(Shared {
            server,
            _data: data,
        });
        *shared = Arc::downgrade(&fresh);
        fresh
    })
}
