//! One server for many tests, so that each of them costs a stream and not a process.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::server::{Connector, Data, Server, position};

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

/// A stream of the shared server, with a connector that signs nothing. Tests add what they ask of it.
pub(crate) struct Stream {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connector: Connector,
}

impl Stream {
    pub(crate) fn new(name: &str) -> Self {
        let shared = shared();
        let connector = shared.server.add_connector(name, false);
        Self { shared, connector }
    }

    /// Delivers, and returns the position of the event.
    pub(crate) fn post(&self, body: &str) -> u64 {
        position(&self.shared.server.post(&self.connector, body).expect(202))
    }
}
