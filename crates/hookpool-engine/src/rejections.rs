//! What becomes of refused deliveries: counted at once, then diagnosed and kept by a thread of its own, behind a bounded queue.
//!
//! The sender has its answer before any of this: neither a full queue nor a failing store refuses or delays anything.

mod retry;
mod shelf;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use hookpool_core::{
    diagnosis::{self, Evidence, Finding},
    event::RequestId,
    name::ConnectorName,
    rate::{Bucket, Rate},
    registry::{Connector, Registry},
    rejection::{self, Kept, KeptHeader, Reason, Rejection, Retried},
    time::Timestamp,
};
use hookpool_store::{Cause, RejectionStore, memory::MemoryRejections};
pub use retry::RetryError;
use shelf::Shelf;

/// Deliveries and bytes of them that wait to be looked at; more is counted and not kept.
const QUEUE: usize = 1_024;
const QUEUE_BYTES: usize = 16 << 20;
/// Kilobytes of bodies that are diagnosed in a second, and at once: each costs some dozens of MACs.
const DIAGNOSED: u32 = 1_000;
const DIAGNOSED_AT_ONCE: u32 = 4_000;

/// What a sender calls its request by.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Where refused deliveries are kept, and how many.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// Where.
    pub store: Arc<dyn RejectionStore>,
    /// The most.
    pub count: usize,
    /// The most bytes of all of them.
    pub bytes: u64,
}

impl Default for Keeping {
    /// In memory.
    fn default() -> Self {
        Self {
            store: Arc::new(MemoryRejections::default()),
            count: 10_000,
            bytes: 64 << 20,
        }
    }
}

/// A delivery that was just refused.
#[derive(Debug)]
pub struct Refused {
    /// What is known of it; no findings yet.
    pub rejection: Rejection,
    /// What is needed to find out more; only of who showed a good credential.
    pub delivery: Option<Delivery>,
}

/// The parts of a refused delivery that may prove something.
#[derive(Debug)]
pub struct Delivery {
    /// Without those that hold credentials.
    pub headers: Vec<(String, Bytes)>,
    /// Where the request said that the item id is.
    pub id_field: Option<String>,
    /// All of it, if it came.
    pub body: Option<Bytes>,
    /// Whether it asked for an event, so that it may be tried again.
    pub is_whole: bool,
}

impl Delivery {
    fn bytes(&self) -> usize {
        let headers = self.headers.iter();
        let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
        headers + self.body.as_ref().map_or(0, Bytes::len)
    }

    fn evidence(&self, at: Timestamp) -> Evidence<'_> {
        Evidence {
            headers: &self.headers,
            body: self.body.as_deref(),
            at,
        }
    }

    /// What is enough to verify it again.
    fn kept(&self, connector: &Connector) -> Option<Kept> {
        let scheme = connector.scheme.description();
        let proves = |name: &str| {
            let headers = scheme.headers().chain([IDEMPOTENCY_KEY]);
            headers.into_iter().any(|it| it.eq_ignore_ascii_case(name))
        };
        let headers = self.headers.iter().filter(|(name, _)| proves(name));
        let headers = headers.map(|(name, value)| KeptHeader {
            name: name.clone(),
            value: value.clone(),
        });
        Some(Kept {
            headers: headers.collect(),
            id_field: self.id_field.clone(),
            body: self.body.clone()?,
        })
    }
}

/// Which rejections are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only of this connector.
    pub connector: Option<String>,
    /// Only for this reason.
    pub reason: Option<Reason>,
    /// Only those that can still be tried again.
    pub waiting: bool,
}

impl Filter {
    fn takes(&self, rejection: &Rejection) -> bool {
        let connector = rejection.connector.as_ref().map(ConnectorName::as_str);
        self.connector
            .as_deref()
            .is_none_or(|name| connector == Some(name))
            && self.reason.is_none_or(|reason| rejection.reason == reason)
            && (!self.waiting || rejection.kept && rejection.retried.is_none())
    }
}

/// How often each thing happened since the start.
type Counts = BTreeMap<(Reason, Option<ConnectorName>), u64>;

/// Refused deliveries: the newest of them, and how many there were.
#[derive(Debug)]
pub struct Rejections {
    queue: SyncSender<Refused>,
    shared: Arc<Shared>,
    counts: Mutex<Counts>,
    /// One is tried at a time.
    retrying: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    keeping: Keeping,
    shelf: Mutex<Shelf>,
    /// The store has one writer at a time.
    writing: Mutex<()>,
    queued_bytes: AtomicUsize,
    dropped: AtomicU64,
}

impl Rejections {
    /// Reads what there is and starts the thread, which ends when the value is dropped.
    pub(crate) fn start(
        keeping: Keeping,
        registry: impl Fn() -> Arc<Registry> + Send + 'static,
    ) -> (Self, JoinHandle<()>) {
        let (queue, refused) = sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            keeping,
            shelf: Mutex::default(),
            writing: Mutex::default(),
            queued_bytes: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
        });
        shared.read();
        let worker = Worker {
            shared: Arc::clone(&shared),
            registry,
            budget: Bucket::default(),
        };
        let rejections = Self {
            queue,
            shared,
            counts: Mutex::default(),
            retrying: tokio::sync::Mutex::default(),
        };
        let run = move || worker.run(&refused);
        (rejections, std::thread::spawn(run))
    }

    /// Counts one that is not kept.
    pub fn count(&self, reason: Reason, connector: Option<&ConnectorName>) {
        *lock(&self.counts)
            .entry((reason, connector.cloned()))
            .or_default() += 1;
    }

    /// Counts one, and keeps what there is room for. Never waits.
    pub fn refuse(&self, refused: Refused) {
        let Rejection {
            reason, connector, ..
        } = &refused.rejection;
        self.count(*reason, connector.as_ref());
        let bytes = size(&refused);
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if queued + bytes <= QUEUE_BYTES {
            match self.queue.try_send(refused) {
                Ok(()) => return,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        }
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.shared.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were since the start.
    #[must_use]
    pub fn counts(&self) -> Vec<(Reason, Option<ConnectorName>, u64)> {
        let counts = lock(&self.counts);
        let row = |((reason, connector), count): (&(Reason, Option<ConnectorName>), &u64)| {
            (*reason, connector.clone(), *count)
        };
        counts.iter().map(row).collect()
    }

    /// How many were only counted since the start, because the queue was full or the store failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.shared.shelf).len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some that were asked for, the newest first, before one of them; and whether more follow.
    #[must_use]
    pub fn list(
        &self,
        filter: &Filter,
        before: Option<RequestId>,
        limit: usize,
    ) -> (Vec<Arc<Rejection>>, bool) {
        lock(&self.shared.shelf).list(|rejection| filter.takes(rejection), before, limit)
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: RequestId) -> Option<Arc<Rejection>> {
        lock(&self.shared.shelf).get(id)
    }

    /// What is kept of one beside its facts. May block.
    fn kept(&self, id: RequestId) -> Result<Option<Kept>, Cause> {
        self.shared.kept(id)
    }

    /// Notes what became of one. May block.
    fn note(&self, rejection: &Rejection, kept: &Kept, retried: Retried) {
        let noted = Rejection {
            retried: Some(retried),
            ..rejection.clone()
        };
        self.shared.put(noted, Some(kept));
    }
}

impl Shared {
    /// What an earlier run has kept; what can't be read is removed.
    fn read(&self) {
        let store = &self.keeping.store;
        let ids = store.ids().unwrap_or_else(|error| {
            tracing::warn!(%error, "the kept rejections can't be read");
            Vec::new()
        });
        for id in ids {
            let bytes = store.get(id).ok().flatten().unwrap_or_default();
            match rejection::decode(&bytes) {
                Ok((rejection, _)) if rejection.id == id => {
                    lock(&self.shelf).insert(rejection, bytes.len() as u64);
                }
                _ => self.remove(id),
            }
        }
        self.make_room();
    }

    fn put(&self, mut rejection: Rejection, kept: Option<&Kept>) {
        rejection.kept = kept.is_some();
        let id = rejection.id;
        let stored = match rejection::encode(&rejection, kept) {
            Ok(bytes) => {
                let _writing = lock(&self.writing);
                let put = self.keeping.store.put(id, &bytes);
                put.map(|()| bytes.len() as u64)
                    .map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match stored {
            Ok(bytes) => lock(&self.shelf).insert(rejection, bytes),
            Err(error) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(request = %id, error, "a rejection could not be kept");
            }
        }
        self.make_room();
    }

    fn make_room(&self) {
        loop {
            let Keeping { count, bytes, .. } = self.keeping;
            let Some(id) = lock(&self.shelf).take_over(count, bytes) else {
                return;
            };
            self.remove(id);
        }
    }

    fn remove(&self, id: RequestId) {
        let _writing = lock(&self.writing);
        if let Err(error) = self.keeping.store.remove(id) {
            tracing::warn!(request = %id, %error, "a rejection could not be removed");
        }
    }

    fn kept(&self, id: RequestId) -> Result<Option<Kept>, Cause> {
        let Some(bytes) = self.keeping.store.get(id)? else {
            return Ok(None);
        };
        match rejection::decode(&bytes) {
            Ok((_, kept)) => Ok(kept),
            Err(error) => Err(Arc::new(error)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn size(refused: &Refused) -> usize {
    let delivery = refused.delivery.as_ref();
    delivery.map_or(0, Delivery::bytes)
}

/// The thread: one refused delivery after the other.
struct Worker<R> {
    shared: Arc<Shared>,
    registry: R,
    budget: Bucket,
}

impl<R: Fn() -> Arc<Registry>> Worker<R> {
    fn run(mut self, queue: &Receiver<Refused>) {
        while let Ok(refused) = queue.recv() {
            let bytes = size(&refused);
            self.keep(refused);
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn keep(&mut self, refused: Refused) {
        let Refused {
            mut rejection,
            delivery,
        } = refused;
        let registry = (self.registry)();
        let name = rejection.connector.as_ref().map(ConnectorName::as_str);
        let connector = name.and_then(|name| registry.connector(name));
        let mut kept = None;
        if let (Some(connector), Some(delivery)) = (connector, &delivery) {
            rejection.findings = self.diagnose(&registry, connector, &rejection, delivery);
            if connector.keep_rejected && delivery.is_whole {
                kept = delivery.kept(connector);
            }
        }
        self.shared.put(rejection, kept.as_ref());
    }

    fn diagnose(
        &mut self,
        registry: &Registry,
        connector: &Connector,
        rejection: &Rejection,
        delivery: &Delivery,
    ) -> Vec<Finding> {
        let is_about_signature = matches!(rejection.reason, Reason::Signature | Reason::Timestamp);
        if !is_about_signature || !connector.is_signed() {
            return Vec::new();
        }
        let rate = Rate::new(DIAGNOSED, Duration::from_secs(1), DIAGNOSED_AT_ONCE);
        let cost = 1 + delivery.body.as_ref().map_or(0, Bytes::len) as u64 / 1_024;
        match self.budget.take(rate, cost, rejection.time) {
            Ok(_) => diagnosis::diagnose(registry, connector, delivery.evidence(rejection.time)),
            Err(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use hookpool_core::rejection::Way;

    use super::*;

    /// A store that can't be written.
    #[derive(Debug)]
    struct Full;

    impl RejectionStore for Full {
        fn put(&self, _: RequestId, _: &[u8]) -> Result<(), Cause> {
            Err(Arc::new(std::io::Error::other("no space left")))
        }

        fn get(&self, _: RequestId) -> Result<Option<Vec<u8>>, Cause> {
            Ok(None)
        }

        fn remove(&self, _: RequestId) -> Result<(), Cause> {
            Ok(())
        }

        fn ids(&self) -> Result<Vec<RequestId>, Cause> {
            Err(Arc::new(std::io::Error::other("not a folder")))
        }
    }

    pub(super) fn rejection(n: u8, connector: Option<&str>) -> Rejection {
        Rejection {
            id: RequestId([n; 16]),
            time: Timestamp::from_seconds(n.into()),
            reason: Reason::Signature,
            status: 401,
            findings: Vec::new(),
            way: Way::Webhook,
            stream: None,
            connector: connector.map(|name| ConnectorName::new(name).unwrap()),
            key_id: None,
            address: None,
            body_bytes: 0,
            headers: Vec::new(),
            kept: false,
            retried: None,
        }
    }

    fn refused(n: u8) -> Refused {
        let delivery = Delivery {
            headers: Vec::new(),
            id_field: None,
            body: Some(Bytes::from(vec![0; 1 << 20])),
            is_whole: true,
        };
        Refused {
            rejection: rejection(n, None),
            delivery: Some(delivery),
        }
    }

    /// The rejections, after the thread has looked at all of them.
    fn after(keeping: Keeping, refuse: impl FnOnce(&Rejections)) -> Rejections {
        let (rejections, thread) = Rejections::start(keeping, Arc::default);
        refuse(&rejections);
        let (queue, _) = sync_channel(1);
        let Rejections {
            shared,
            counts,
            retrying,
            queue: open,
        } = rejections;
        drop(open);
        thread.join().unwrap();
        Rejections {
            queue,
            shared,
            counts,
            retrying,
        }
    }

    #[test]
    fn a_store_that_fails_is_counted_and_hurts_nobody() {
        let store = Arc::new(Full);
        let rejections = after(
            Keeping {
                store,
                ..Keeping::default()
            },
            |rejections| {
                rejections.refuse(refused(1));
            },
        );
        assert_eq!((rejections.dropped(), rejections.len()), (1, 0));
        assert_eq!(rejections.counts(), [(Reason::Signature, None, 1)]);
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let stopped = Arc::new(Mutex::new(()));
        let guard = lock(&stopped);
        let at_the_door = Arc::clone(&stopped);
        let registry = move || {
            drop(lock(&at_the_door));
            Arc::default()
        };
        let (rejections, thread) = Rejections::start(Keeping::default(), registry);
        for n in 0..40 {
            rejections.refuse(refused(n));
        }
        let dropped = rejections.dropped();
        assert_eq!(dropped, 24, "16 MiB wait");
        assert_eq!(rejections.counts(), [(Reason::Signature, None, 40)]);
        drop(guard);
        let shared = Arc::clone(&rejections.shared);
        drop(rejections);
        thread.join().unwrap();
        assert_eq!(lock(&shared.shelf).len(), 16);
        assert_eq!(shared.queued_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart_and_what_can_not_be_read_is_not() {
        let keeping = Keeping::default();
        drop(after(keeping.clone(), |rejections| {
            rejections.refuse(refused(1))
        }));
        keeping.store.put(RequestId([9; 16]), b"{\"torn").unwrap();
        let rejections = after(keeping.clone(), |_| {});
        assert_eq!(rejections.len(), 1);
        assert_eq!(
            rejections.get(RequestId([1; 16])).unwrap().reason,
            Reason::Signature
        );
        assert_eq!(keeping.store.ids().unwrap(), [RequestId([1; 16])]);
    }
}
