//! What becomes of refused deliveries: counted at once, then diagnosed and kept by a thread of its own, behind a bounded queue.
//!
//! The sender has its answer before any of this: neither a full queue nor a failing store refuses or delays anything.

mod lookback;
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
    idempotency::{Call, IDEMPOTENCY_KEY},
    name::ConnectorName,
    rate::{Bucket, Rate},
    registry::{Connector, Registry},
    rejection::{self, Kept, KeptHeader, Reason, Rejection, Retried, Unkept},
    time::Timestamp,
};
use hookpool_store::{Cause, RejectionStore, memory::MemoryRejections};
pub use retry::{Retaken, Retrials, RetryError, RetryTerms};
use shelf::{Over, Shelf};

/// Deliveries that wait to be looked at, of which more are counted and not kept; and bytes of them, of which more are not kept with the rest.
const QUEUE: usize = 1_024;
const QUEUE_BYTES: usize = 32 << 20;
/// Kilobytes of bodies that are diagnosed in a second, and at once: each costs some dozens of MACs.
const DIAGNOSED: u32 = 1_000;
const DIAGNOSED_AT_ONCE: u32 = 4_000;

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
    /// What it asked for, if that may be tried again: how its events are written down, and where the request said that the item id is.
    pub asked: Result<(Call, Option<String>), Unkept>,
    /// All of it, if it came.
    pub body: Option<Bytes>,
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
    fn kept(&self, connector: &Connector) -> Result<Kept, Unkept> {
        let (call, id_field) = self.asked.clone()?;
        if !connector.keep_rejected {
            return Err(Unkept::Off);
        }
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
        Ok(Kept {
            call,
            headers: headers.collect(),
            id_field,
            body: self.body.clone().ok_or(Unkept::Partial)?,
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
    /// The store has one writer at a time, who also brings the shelf up to date.
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
    pub fn refuse(&self, mut refused: Refused) {
        let Rejection {
            reason, connector, ..
        } = &refused.rejection;
        self.count(*reason, connector.as_ref());
        let queued_bytes = &self.shared.queued_bytes;
        let mut bytes = size(&refused);
        let queued = queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if queued + bytes > QUEUE_BYTES {
            queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let is_alone = bytes > QUEUE_BYTES;
            refused.rejection.unkept = Some(if is_alone {
                Unkept::TooLarge
            } else {
                Unkept::Busy
            });
            refused.delivery = None;
            bytes = 0;
        }
        match self.queue.try_send(refused) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
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

    /// Notes what became of one, whose body is needed no more. May block.
    fn note(&self, id: RequestId, retried: Retried) {
        self.shared.note(id, retried);
    }
}

impl Shared {
    /// What an earlier run has kept; what can't be read is removed.
    fn read(&self) {
        let _writing = lock(&self.writing);
        let store = &self.keeping.store;
        let ids = store.ids().unwrap_or_else(|error| {
            tracing::warn!(%error, "the kept rejections can't be read");
            Vec::new()
        });
        for id in ids {
            let bytes = store.get(id).ok().flatten().unwrap_or_default();
            match rejection::decode(&bytes) {
                Ok((mut rejection, kept)) if rejection.id == id => {
                    rejection.kept = kept.is_some();
                    lock(&self.shelf).insert(rejection, bytes.len() as u64);
                }
                _ => self.remove(id),
            }
        }
        self.make_room();
    }

    /// Keeps one; without its body if that takes too much of the room.
    fn put(&self, rejection: Rejection, kept: Result<Kept, Unkept>) {
        let _writing = lock(&self.writing);
        let too_large = |kept: &Kept| kept.body.len() as u64 > self.keeping.bytes / 2;
        let kept = match kept {
            Ok(kept) if too_large(&kept) => Err(Unkept::TooLarge),
            kept => kept,
        };
        self.write(rejection, kept);
        self.make_room();
    }

    fn note(&self, id: RequestId, retried: Retried) {
        let _writing = lock(&self.writing);
        let found = lock(&self.shelf).get(id);
        if let Some(found) = found {
            let noted = Rejection {
                retried: Some(retried),
                ..(*found).clone()
            };
            self.write(noted, Err(Unkept::Taken));
        }
    }

    /// By the one who holds `writing`.
    fn write(&self, mut rejection: Rejection, kept: Result<Kept, Unkept>) {
        rejection.kept = kept.is_ok();
        rejection.unkept = kept.as_ref().err().copied();
        rejection.known_by = rejection.known_by.filter(|_| kept.is_ok());
        let id = rejection.id;
        let stored = match rejection::encode(&rejection, kept.as_ref().ok()) {
            Ok(bytes) => {
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
                // What the disk still has of it, if anything, is not what is known now.
                lock(&self.shelf).remove(id);
                self.remove(id);
            }
        }
    }

    fn make_room(&self) {
        loop {
            let Keeping { count, bytes, .. } = self.keeping;
            let over = lock(&self.shelf).over(count, bytes);
            match over {
                None => return,
                Some(Over::Body(rejection)) => {
                    self.write((*rejection).clone(), Err(Unkept::Room));
                }
                Some(Over::All(id)) => {
                    lock(&self.shelf).remove(id);
                    self.remove(id);
                }
            }
        }
    }

    fn remove(&self, id: RequestId) {
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
        let mut kept = Err(rejection.unkept.unwrap_or(Unkept::Credential));
        if let (Some(connector), Some(delivery)) = (connector, &delivery) {
            rejection.findings = self.diagnose(&registry, connector, &rejection, delivery);
            kept = delivery.kept(connector);
            rejection.known_by = kept.as_ref().ok().map(|kept| kept.known_by(connector));
        }
        self.shared.put(rejection, kept);
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
            unkept: None,
            known_by: None,
            retried: None,
        }
    }

    fn refused(n: u8) -> Refused {
        let delivery = Delivery {
            headers: Vec::new(),
            asked: Ok((Call::Webhook, None)),
            body: Some(Bytes::from(vec![0; 1 << 20])),
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
    fn a_full_queue_of_bodies_keeps_the_facts_and_says_so() {
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
        assert_eq!(rejections.counts(), [(Reason::Signature, None, 40)]);
        drop(guard);
        let shared = Arc::clone(&rejections.shared);
        drop(rejections);
        thread.join().unwrap();
        let shelf = lock(&shared.shelf);
        let (all, _) = shelf.list(|_| true, None, 40);
        let busy = all.iter().filter(|it| it.unkept == Some(Unkept::Busy));
        assert_eq!((all.len(), busy.count()), (40, 8), "32 MiB wait");
        assert_eq!(shared.dropped.load(Ordering::Relaxed), 0);
        assert_eq!(shared.queued_bytes.load(Ordering::Relaxed), 0);
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
        for _ in 0..QUEUE + 10 {
            let rejection = rejection(1, None);
            rejections.refuse(Refused {
                rejection,
                delivery: None,
            });
        }
        // The thread may have taken one already.
        assert!((9..=10).contains(&rejections.dropped()));
        drop((guard, rejections));
        thread.join().unwrap();
    }

    fn kept(body: usize) -> Result<Kept, Unkept> {
        Ok(Kept {
            call: Call::Webhook,
            headers: Vec::new(),
            id_field: None,
            body: Bytes::from(vec![b'x'; body]),
        })
    }

    fn facts(n: u8, connector: &str, body: usize) -> Rejection {
        Rejection {
            body_bytes: body as u64,
            ..rejection(n, Some(connector))
        }
    }

    #[test]
    fn where_room_is_short_the_oldest_bodies_go_and_their_facts_stay() {
        let keeping = Keeping {
            bytes: 10_000,
            ..Keeping::default()
        };
        let rejections = after(keeping.clone(), |rejections| {
            let put =
                |n, connector, body| rejections.shared.put(facts(n, connector, body), kept(body));
            put(1, "small", 100);
            put(2, "sales", 5_001);
            for n in 3..7 {
                put(n, "sales", 3_000);
            }
        });
        let of = |n| {
            let found = rejections.get(RequestId([n; 16])).unwrap();
            (found.kept, found.unkept)
        };
        assert_eq!(of(1), (true, None), "it is another's");
        assert_eq!(of(2), (false, Some(Unkept::TooLarge)));
        assert_eq!(of(3), (false, Some(Unkept::Room)));
        assert_eq!(of(4), (false, Some(Unkept::Room)));
        assert_eq!((of(5), of(6)), ((true, None), (true, None)));
        let body = rejections.kept(RequestId([6; 16])).unwrap().unwrap().body;
        assert_eq!(body.len(), 3_000);
        // Also after a restart, and where even the facts need more room.
        let rejections = after(
            Keeping {
                bytes: 1_200,
                ..keeping
            },
            |_| {},
        );
        assert!(rejections.get(RequestId([1; 16])).unwrap().kept);
        assert!(rejections.get(RequestId([2; 16])).is_none());
        let last = rejections.get(RequestId([6; 16])).unwrap();
        assert_eq!(last.unkept, Some(Unkept::Room));
    }

    #[test]
    fn what_was_taken_leaves_its_body() {
        let rejections = after(Keeping::default(), |rejections| {
            rejections.shared.put(facts(1, "sales", 10), kept(10));
        });
        let id = RequestId([1; 16]);
        let retried = Retried {
            at: Timestamp(1),
            position: hookpool_core::position::Position(7),
            events: 1,
        };
        rejections.note(id, retried.clone());
        let found = rejections.get(id).unwrap();
        assert_eq!((found.kept, found.unkept), (false, Some(Unkept::Taken)));
        assert_eq!(found.retried, Some(retried));
        assert_eq!(rejections.kept(id).unwrap(), None);
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
