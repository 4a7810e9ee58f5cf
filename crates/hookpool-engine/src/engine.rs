//! The engine: opens the pipeline, takes deliveries, hands out views and followers, ends in order.

mod bulk;
mod history;
mod in_flight;
mod unfit;

use std::{sync::Arc, thread::JoinHandle, time::Duration};

pub use bulk::{Bulk, BulkAsked, BulkReceipt};
use bytes::Bytes;
pub use history::LogName;
use hookpool_core::{
    bulk::BulkError,
    control::ControlChange,
    cursor::Cursor,
    event::{Event, Idempotency, NewEvent, RequestId},
    fold::Item,
    idempotency::{Call, IdempotencyKey},
    key::{KeyId, PresentedKey},
    name::{ItemId, StreamName},
    plan::Ruled,
    position::{Generation, Position},
    projection::Projection,
    proof::HeadKey,
    registry::{Access, Connector},
    rejection::{Credential, Shown},
    retention::Retention,
    seal::MasterKey,
    shape::{ShapeError, Stamp, deletion, shape},
    source::Source,
    time::Timestamp,
    verify::{self, Admitted, Headers, Proof, Verified, VerifyError},
};
use hookpool_store::{
    AppendError, Appended, EventLog, ItemPage, Page, PageRequest, PoolError, PoolSnapshot,
    PoolStore, ReadError,
};
use in_flight::InFlight;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle as TaskHandle,
};

use crate::{
    appender::{Appender, AppenderStats, Limits, QueueError},
    clock::Clock,
    control::{Control, ControlError, ControlReadError},
    entropy::Entropy,
    follow::{
        EncodeChange, FollowError, Follower, Form, Rings, Told, blocking, follows_checkpoint,
        must_reach, read_page, told,
    },
    pace::{Pace, Paces, TooFast},
    past::{Past, Stretch, Touch, View, position_at},
    projector::{Command, Projector, PromoteError, ask},
    rebuild::{Rebuilder, Rebuilds},
    rejections::{Keeping, Rejections},
    retention::{Expiring, Floors, Retainer, Retentions},
    status::StatusCell,
};

/// What an engine is started with, beside its stores.
#[derive(Debug)]
pub struct Options {
    /// Opens the signing keys of the control log.
    pub master: MasterKey,
    /// How changes look to followers.
    pub encode: EncodeChange,
    /// How much may wait.
    pub limits: Limits,
    /// Where the time comes from.
    pub clock: Clock,
    /// Where random bytes come from.
    pub entropy: Entropy,
    /// What is kept of refused deliveries.
    pub rejections: Keeping,
}

/// Why an engine does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The pool was made from a log that is not this one.
    #[error(
        "start: the pool belongs to log {pool}, and this is log {log}; restore the log it belongs to, or delete the pool folder to rebuild it from this one"
    )]
    ForeignPool {
        /// Epoch in the pool.
        pool: hookpool_core::position::Epoch,
        /// Epoch of the log.
        log: hookpool_core::position::Epoch,
    },
    /// The pool has what the log has not: the log lost events.
    #[error(
        "start: the pool has applied position {applied}, and the log ends at {head}: the log came back shorter; restore it from a backup"
    )]
    ShorterLog {
        /// Checkpoint of the pool.
        applied: Position,
        /// Head of the log.
        head: Position,
    },
    /// The control log.
    #[error(transparent)]
    Control(#[from] ControlReadError),
    /// The pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Why a delivery is not accepted.
#[derive(Debug, Error)]
pub enum AcceptError {
    /// Who sent it is not known, or the bytes are not what they sent.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The key of another request.
    #[error("use an idempotency key again: another request had it")]
    Mismatch,
    /// A request with the key is not done yet.
    #[error("use an idempotency key again: a request that has it is still in flight")]
    InFlight,
    /// It is not an event.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// They are no events.
    #[error(transparent)]
    Bulk(#[from] BulkError),
    /// It was not, or perhaps not, appended.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// It came before, but what came before can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What a delivery asks beside its body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The property that holds the item id.
    pub id_field: Option<&'a Source>,
    /// What the sender calls the request by.
    pub key: Option<&'a IdempotencyKey>,
}

/// What became of an accepted delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Where its event is.
    pub position: Position,
    /// Whether the event is that of an earlier delivery of the same request.
    pub replayed: bool,
    /// The item it touched.
    pub item_id: ItemId,
    /// Distinct top-level properties.
    pub field_count: u32,
    /// Whether the id was generated.
    pub generated_id: bool,
    /// Whether a property came twice.
    pub duplicate_keys: bool,
}

impl Receipt {
    fn new(event: &NewEvent) -> Self {
        Self {
            position: Position::ZERO,
            replayed: false,
            item_id: event.item_id.clone(),
            field_count: event.field_count,
            generated_id: event.generated_id,
            duplicate_keys: event.duplicate_keys,
        }
    }
}

/// The running pipeline over a log and a pool. Dropping it without waiting for [`Running::join`] is a kill: nothing acknowledged is lost.
#[derive(Debug)]
pub struct Engine<L, P: PoolStore> {
    log: Arc<L>,
    pool: Arc<P>,
    rings: Arc<Rings>,
    control: Arc<Control<L>>,
    appender: Appender,
    in_flight: InFlight,
    applied: watch::Receiver<Position>,
    planned: watch::Receiver<Position>,
    projector: mpsc::UnboundedSender<Command<P::Snapshot>>,
    rebuilds: Arc<Rebuilds>,
    retentions: Arc<Retentions>,
    rejections: Arc<Rejections>,
    paces: Paces,
    status: StatusCell,
    clock: Clock,
    entropy: Entropy,
    heads: HeadKey,
}

/// The threads and tasks of an engine.
#[derive(Debug)]
pub struct Running {
    projector: Projector,
    writers: Vec<JoinHandle<()>>,
    registry: TaskHandle<()>,
    rebuilder: TaskHandle<()>,
    retainer: TaskHandle<()>,
    runtime: tokio::runtime::Handle,
}

impl Running {
    /// Waits until all have ended; every handle of the engine must be dropped, and its status changed. May block.
    pub fn join(self) {
        // Its panic has been reported as a failure of the engine.
        let _panicked = self.runtime.block_on(self.rebuilder);
        let _panicked = self.runtime.block_on(self.retainer);
        self.registry.abort();
        self.projector.join();
        for writer in self.writers {
            // A panic of a writer has been reported on its thread.
            let _panicked = writer.join();
        }
    }
}

impl<L: EventLog, P: PoolStore> Engine<L, P> {
    /// Starts the pipeline: reads the control log, checks that pool and log belong together, starts the writers and the projector.
    ///
    /// # Errors
    /// [`StartError`], each with the way out.
    pub async fn start(
        log: L,
        control: L,
        pool: P,
        options: Options,
    ) -> Result<(Arc<Self>, Running), StartError> {
        let Options {
            master,
            encode,
            limits,
            clock,
            entropy,
            rejections,
        } = options;
        let heads = master.head_key().clone();
        let (log, pool, status) = (Arc::new(log), Arc::new(pool), StatusCell::default());
        let applied = check_pool(&*log, &*pool)?;
        let control = Arc::new(control);
        let (control_appender, control_writer) =
            Appender::start(Arc::clone(&control), limits, status.clone());
        let control = Control::open(
            control,
            control_appender,
            master,
            clock.clone(),
            entropy.clone(),
        )
        .await?;
        let control = Arc::new(control);
        let (appender, writer) = Appender::start(Arc::clone(&log), limits, status.clone());
        let served = pool.snapshot().streams()?.into_iter().collect();
        let rings = Arc::new(Rings::new(encode, log.epoch(), applied, served));
        let (command, commands) = mpsc::unbounded_channel();
        let projector = Projector::start(
            Arc::clone(&log),
            Arc::clone(&pool),
            Arc::clone(&rings),
            Arc::clone(&control),
            commands,
            status.clone(),
        );
        let rebuilds = Arc::new(Rebuilds::default());
        let retentions = Arc::new(Retentions::default());
        let rebuilder = Rebuilder {
            log: Arc::clone(&log),
            pool: Arc::clone(&pool),
            control: Arc::clone(&control),
            projector: command.clone(),
            planned: projector.planned(),
            rebuilds: Arc::clone(&rebuilds),
            retentions: Arc::clone(&retentions),
            status: status.clone(),
        };
        let rebuilder = tokio::spawn(rebuilder.run());
        let retainer = Retainer {
            log: Arc::clone(&log),
            pool: Arc::clone(&pool),
            control: Arc::clone(&control),
            projector: command.clone(),
            retentions: Arc::clone(&retentions),
            clock: clock.clone(),
            status: status.clone(),
        };
        let retainer = tokio::spawn(retainer.run());
        let (rejections, keeper) = {
            let control = Arc::clone(&control);
            Rejections::start(rejections, move || Arc::clone(&control.registry()))
        };
        let registry = {
            let (control, status) = (Arc::clone(&control), status.clone());
            tokio::spawn(async move { control.follow(&status).await })
        };
        let engine = Self {
            log,
            pool,
            rings,
            control,
            appender,
            in_flight: InFlight::default(),
            applied: projector.applied(),
            planned: projector.planned(),
            projector: command,
            rebuilds,
            retentions,
            rejections: Arc::new(rejections),
            paces: Paces::default(),
            status,
            clock,
            entropy,
            heads,
        };
        Ok((
            Arc::new(engine),
            Running {
                projector,
                writers: vec![keeper, writer, control_writer],
                registry,
                rebuilder,
                retainer,
                runtime: tokio::runtime::Handle::current(),
            },
        ))
    }

    /// Decides by the headers alone whether a body may be read.
    ///
    /// # Errors
    /// [`VerifyError`]
    pub fn admit(&self, stream: &str, proof: Proof<'_>) -> Result<Admitted, VerifyError> {
        verify::admit(&self.control.registry(), stream, proof, self.clock.now())
    }

    /// The same for a sender that has a hook.
    ///
    /// # Errors
    /// [`VerifyError`]
    pub fn admit_hook(&self, hook: &str, headers: &dyn Headers) -> Result<Admitted, VerifyError> {
        verify::admit_hook(&self.control.registry(), hook, headers, self.clock.now())
    }

    /// Whether there is such a hook.
    ///
    /// # Errors
    /// [`VerifyError::Unauthorized`]
    pub fn must_be_hook(&self, hook: &str) -> Result<(), VerifyError> {
        verify::must_be_hook(&self.control.registry(), hook, self.clock.now())
    }

    /// Takes a delivery: verify, shape, append. Returns when its event is durable.
    ///
    /// # Errors
    /// [`AcceptError`]. Dropping the future loses only the answer.
    pub async fn accept(
        &self,
        admitted: Admitted,
        body: Bytes,
        asked: Asked<'_>,
        request_id: RequestId,
    ) -> Result<Receipt, AcceptError> {
        let verified = self.verify(admitted, body)?;
        self.record(verified, asked, request_id).await
    }

    /// The first half of [`Self::accept`]: whether these bytes are what the sender sent.
    ///
    /// # Errors
    /// [`VerifyError`]
    pub fn verify(&self, admitted: Admitted, body: Bytes) -> Result<Verified, VerifyError> {
        let now = self.clock.now();
        if !admitted.still_stands(&self.control.registry(), now) {
            return Err(VerifyError::Unauthorized);
        }
        admitted.verify(body, now)
    }

    /// Lets so many events of a connector in; what is left where it is limited.
    ///
    /// # Errors
    /// [`TooFast`]
    pub fn pace(&self, connector: &Connector, events: u64) -> Result<Option<Pace>, TooFast> {
        self.paces.take(connector, events, self.clock.now())
    }

    /// What the credential of a refused delivery is worth.
    #[must_use]
    pub fn shown(&self, credential: Credential<'_>, stream: Option<&str>) -> Shown {
        Shown::of(
            &self.control.registry(),
            credential,
            stream,
            self.clock.now(),
        )
    }

    /// What was refused.
    #[must_use]
    pub fn rejections(&self) -> &Arc<Rejections> {
        &self.rejections
    }

    /// The second half: shape and append.
    ///
    /// # Errors
    /// As for [`Self::accept`].
    pub async fn record(
        &self,
        verified: Verified,
        Asked { id_field, key }: Asked<'_>,
        request_id: RequestId,
    ) -> Result<Receipt, AcceptError> {
        let identity = key.map(|key| verified.identity(key, Call::Webhook, id_field));
        let known_by = unfit::known_by(identity, &verified);
        let mut event = match shape(verified, id_field, self.stamp(request_id)) {
            Ok(event) => event,
            Err(error) => return self.unfit(known_by, error).await,
        };
        // What the sender says itself comes before what its scheme names the delivery by.
        event.idempotency = identity.or(event.idempotency);
        let _in_flight = self.in_flight.reserve(event.idempotency.as_ref())?;
        self.append(event).await
    }

    /// The same for a deletion.
    ///
    /// # Errors
    /// As for [`Self::accept`].
    pub async fn record_deletion(
        &self,
        verified: Verified,
        item_id: ItemId,
        key: Option<&IdempotencyKey>,
        request_id: RequestId,
    ) -> Result<Receipt, AcceptError> {
        let identity = key.map(|key| verified.deletion_identity(key, &item_id));
        let mut event = match deletion(verified, item_id, self.stamp(request_id)) {
            Ok(event) => event,
            Err(error) => return self.unfit(identity, error).await,
        };
        event.idempotency = identity.or(event.idempotency);
        let _in_flight = self.in_flight.reserve(event.idempotency.as_ref())?;
        self.append(event).await
    }

    /// What [`Self::record`] would append, and the rules by which it would be read. Nothing is written.
    ///
    /// # Errors
    /// [`ShapeError`]
    pub fn rehearse(
        &self,
        verified: Verified,
        id_field: Option<&Source>,
        request_id: RequestId,
    ) -> Result<(NewEvent, Arc<Projection>), ShapeError> {
        let event = shape(verified, id_field, self.stamp(request_id))?;
        let plan = self.control.registry().plan(event.stream.as_str());
        Ok((event, Arc::clone(&plan.live.projection)))
    }

    fn stamp(&self, request_id: RequestId) -> Stamp {
        Stamp {
            now: self.clock.now(),
            request_id,
            random: self.entropy.bytes(),
        }
    }

    async fn append(&self, event: NewEvent) -> Result<Receipt, AcceptError> {
        if !self.status.is_ready() {
            return Err(QueueError::Refused("the engine is stopping").into());
        }
        let (receipt, identity) = (Receipt::new(&event), event.idempotency);
        match self.appender.append(event.into()).await? {
            Appended::New(position) => Ok(Receipt {
                position,
                ..receipt
            }),
            Appended::Duplicate(position) => self.first_answer(position, identity).await,
        }
    }

    /// The answer that the delivery at this position got.
    pub(crate) async fn first_answer(
        &self,
        position: Position,
        identity: Option<Idempotency>,
    ) -> Result<Receipt, AcceptError> {
        let first = self.first_event(position, identity, 1).await?;
        Ok(Receipt {
            position,
            replayed: true,
            ..Receipt::new(&first.event)
        })
    }

    /// The first event of the request of which this one of so many events is a repetition; fails if only the key is the same.
    async fn first_event(
        &self,
        position: Position,
        identity: Option<Idempotency>,
        events: u32,
    ) -> Result<Event, AcceptError> {
        let request = PageRequest {
            until: position,
            events_max: 1,
            ..PageRequest::after(Position(position.0 - 1))
        };
        let page = self.log_page(request).await?;
        let gone = || {
            QueueError::Append(AppendError::Unknown(Arc::from(Box::from(
                "the first delivery is no longer in the log",
            ))))
        };
        let first = page.events.into_iter().next().ok_or_else(gone)?;
        let same = match (identity, first.event.idempotency) {
            (Some(asked), Some(had)) if asked.key == had.key => asked.request == had.request,
            // The same signature, whatever the request is called. Bytes that were signed for one call may be shown to another, where they
            // would be other events.
            (_, had) => had.map_or(1, |had| had.events) == events,
        };
        if same {
            Ok(first)
        } else {
            Err(AcceptError::Mismatch)
        }
    }

    /// A new identity for a request.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        RequestId::new(self.clock.now(), &self.entropy.bytes())
    }

    /// Random bytes, fit for keys.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        self.entropy.bytes()
    }

    /// What a read or operator key may do.
    #[must_use]
    pub fn access(&self, key: &PresentedKey<'_>) -> Option<Access> {
        self.control.registry().access_of(key)
    }

    /// The registry and the way to change it.
    #[must_use]
    pub fn control(&self) -> &Control<L> {
        &self.control
    }

    /// The pool at its last checkpoint.
    #[must_use]
    pub fn pool(&self) -> Arc<P::Snapshot> {
        self.pool.snapshot()
    }

    /// Reads the pool at its last checkpoint, on a thread that may block.
    pub async fn read_pool<T: Send + 'static>(
        &self,
        read: impl FnOnce(&P::Snapshot) -> T + Send + 'static,
    ) -> T {
        let snapshot = self.pool();
        blocking(move || read(&snapshot)).await
    }

    /// A page of the log.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn log_page(&self, request: PageRequest) -> Result<Page, ReadError> {
        read_page(&self.log, request).await
    }

    /// The last durable position.
    #[must_use]
    pub fn head(&self) -> Position {
        self.log.head()
    }

    /// The last position that is in the pool.
    #[must_use]
    pub fn applied(&self) -> Position {
        *self.applied.borrow()
    }

    /// Waits until a position is in the pool, at most for `patience`; whether it is.
    pub async fn wait_applied(&self, position: Position, patience: Duration) -> bool {
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| *applied >= position);
        tokio::time::timeout(patience, reached)
            .await
            .is_ok_and(|reached| reached.is_ok())
    }

    /// The cursor of a position in a generation of a stream of this log.
    #[must_use]
    pub fn cursor(&self, generation: Generation, position: Position) -> Cursor {
        Cursor {
            epoch: self.log.epoch(),
            generation,
            position,
        }
    }

    /// What of a stream is served in a view of the pool, and its rules.
    ///
    /// # Errors
    /// [`PoolError`]
    pub fn served(&self, pool: &P::Snapshot, stream: &StreamName) -> Result<Ruled, PoolError> {
        let plan = self.control.registry().plan(stream.as_str());
        let served = pool.served(stream)?;
        // A generation that was promoted a moment ago may still be served for a moment as the next one or the previous one.
        let ruled = served.and_then(|served| plan.ruled(served));
        Ok(ruled.unwrap_or(&plan.live).clone())
    }

    /// Follows a generation of a stream after a position.
    #[must_use]
    pub fn follow(
        &self,
        stream: StreamName,
        ruled: Ruled,
        form: Form,
        after: Position,
    ) -> Follower<L, P> {
        Follower::new(
            (
                Arc::clone(&self.log),
                Arc::clone(&self.pool),
                Arc::clone(&self.control),
            ),
            &self.rings,
            stream,
            ruled,
            form,
            after,
        )
    }

    /// Some events of a stream after a position, with what became of them in a generation, no further than a view of the pool is; and up
    /// to where that is all. `None` if the view does not have the generation.
    ///
    /// # Errors
    /// [`FollowError`]
    pub async fn told(
        &self,
        pool: Arc<P::Snapshot>,
        stream: StreamName,
        generation: Generation,
        after: Position,
    ) -> Result<Option<(Vec<Told>, Position)>, FollowError> {
        let page = told(&self.log, pool, stream.clone(), generation, after).await;
        self.must_reach(&stream, after)?;
        page
    }

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
        let (stream, mut past) = (view.stream.clone(), self.past(view));
        let item = blocking(move || past.item_at(&id, at)).await;
        self.must_reach(&stream, at)?;
        item
    }

    /// Items as they were at a position, in byte order of their ids, after one of them; at most `limit`, and no further one once they have
    /// `bytes_max` bytes of text.
    ///
    /// # Errors
    /// [`FollowError`]
    pub async fn items_at(
        &self,
        view: View<P::Snapshot>,
        at: Position,
        mut after: Option<ItemId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<ItemPage, FollowError> {
        let (stream, mut past) = (view.stream.clone(), self.past(view.clone()));
        let read = blocking(move || -> Result<_, FollowError> {
            let (mut page, mut bytes) = (ItemPage::default(), 0);
            let checkpoint = view.pool.checkpoint();
            let is_now = checkpoint.is_none_or(|checkpoint| checkpoint.position <= at);
            loop {
                let now = match is_now {
                    true => view.items(after.as_ref(), limit, bytes_max)?,
                    false => view.touched_items(after.as_ref(), limit, bytes_max)?,
                };
                for (id, item) in now.items {
                    if page.items.len() >= limit || bytes >= bytes_max {
                        page.more = true;
                        return Ok(page);
                    }
                    let then = match item.position <= at {
                        true => Some(item).filter(Item::is_there),
                        false => past.item_at(&id, at)?,
                    };
                    after = Some(id.clone());
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
    /// the earliest one that is kept.
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

    /// A page of a stream; without `after`, from the earliest event that is kept.
    ///
    /// # Errors
    /// [`FollowError`]
    pub async fn stream_page(
        &self,
        stream: &StreamName,
        after: Option<Position>,
        request: impl Fn(PageRequest) -> PageRequest,
    ) -> Result<Page, FollowError> {
        loop {
            let from = after.unwrap_or_else(|| self.earliest(stream));
            let page = request(PageRequest::of_stream(stream.clone(), from));
            let page = self.log_page(page).await;
            match self.must_reach(stream, from) {
                Ok(()) => return Ok(page?),
                Err(FollowError::BeforeRetention(_)) if after.is_none() => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn past(&self, view: View<P::Snapshot>) -> Past<L, P> {
        Past {
            log: Arc::clone(&self.log),
            pool: Arc::clone(&self.pool),
            view,
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// The earliest moment of a stream that can be read: its last expired event.
    #[must_use]
    pub fn earliest(&self, stream: &StreamName) -> Position {
        self.control.registry().plan(stream.as_str()).earliest()
    }

    /// That all of a stream after a position can be read.
    ///
    /// # Errors
    /// [`FollowError::BeforeRetention`]
    pub fn must_reach(&self, stream: &StreamName, after: Position) -> Result<(), FollowError> {
        must_reach(&self.control, stream, after)
    }

    /// What the events after a position and up to another, which the view has, did to some items. `None` if the view does not have the
    /// generation any more.
    ///
    /// # Errors
    /// [`FollowError`]
    pub async fn touches(
        &self,
        view: View<P::Snapshot>,
        mut stretches: Vec<Stretch>,
        after: Position,
        until: Position,
    ) -> Result<Option<Vec<Stretch>>, FollowError> {
        let (stream, mut past) = (view.stream.clone(), self.past(view.clone()));
        let filled = blocking(move || {
            if !follows_checkpoint(&*view.pool, &view.stream, view.ruled.generation)? {
                return Ok(None);
            }
            past.fill(&mut stretches, after, until)?;
            Ok(Some(stretches))
        })
        .await;
        self.must_reach(&stream, after)?;
        filled
    }

    /// The position of the last event before the first one that is later than a time; the log's times are those of the server's clock, and
    /// where that was set back, the earlier events decide. What was dropped at the floor of the stream still counts there.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn position_at(
        &self,
        stream: &StreamName,
        time: Timestamp,
    ) -> Result<Position, ReadError> {
        let position = position_at(&self.log, time).await?;
        let floor = self.control.registry().plan(stream.as_str()).floor;
        let floor = floor.filter(|floor| floor.time <= time);
        Ok(floor.map_or(position, |floor| floor.position.max(position)))
    }

    /// Serves a rebuilt generation, if its difference to the served one is as expected; `None` takes whatever it is. Returns when readers
    /// see it.
    ///
    /// # Errors
    /// [`PromoteError`]
    pub async fn promote(
        &self,
        author: &KeyId,
        stream: StreamName,
        generation: Generation,
        expected: Option<String>,
    ) -> Result<(), PromoteError> {
        let (answer, promoted) = oneshot::channel();
        let command = Command::Promote {
            stream,
            generation,
            author: author.clone(),
            expected,
            answer,
        };
        let promoted = ask(&self.projector, command, promoted).await;
        promoted.ok_or(PromoteError::Stopped)?
    }

    /// Waits until the projector follows every plan that is recorded, at most for `patience`; whether it does.
    pub async fn wait_planned(&self, patience: Duration) -> bool {
        let recorded = *self.control.changes().borrow();
        let mut planned = self.planned.clone();
        let reached = planned.wait_for(|planned| *planned >= recorded);
        tokio::time::timeout(patience, reached)
            .await
            .is_ok_and(|reached| reached.is_ok())
    }

    /// How far the rebuilds are.
    #[must_use]
    pub fn rebuilds(&self) -> &Rebuilds {
        &self.rebuilds
    }

    /// Sets how much history of a stream is kept; what expires by that is dropped from then on.
    ///
    /// # Errors
    /// [`ControlError`]
    pub async fn set_retention(
        &self,
        author: &KeyId,
        stream: StreamName,
        limits: Retention,
    ) -> Result<(), ControlError> {
        let subject = stream.to_string();
        let change = ControlChange::RetentionSet {
            stream,
            max_age_seconds: limits.max_age_seconds,
            max_positions: limits.max_positions,
        };
        self.control.change(author, &subject, change).await?;
        self.retentions.look();
        Ok(())
    }

    /// What these limits would make unreadable now.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn expiring(
        &self,
        stream: &StreamName,
        limits: Retention,
    ) -> Result<Expiring, ReadError> {
        let plan = self.control.registry().plan(stream.as_str());
        let floors = Floors {
            log: Arc::clone(&self.log),
            pool: Arc::clone(&self.pool),
            clock: self.clock.clone(),
        };
        floors.expiring(stream, &plan, limits).await
    }

    /// How far retention is.
    #[must_use]
    pub fn retentions(&self) -> &Retentions {
        &self.retentions
    }

    /// Whether it takes deliveries.
    #[must_use]
    pub fn status(&self) -> &StatusCell {
        &self.status
    }

    /// What the writer of the log has done.
    #[must_use]
    pub fn appender_stats(&self) -> &AppenderStats {
        self.appender.stats()
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Whether the pool was made from this log; where it goes on.
fn check_pool(log: &impl EventLog, pool: &impl PoolStore) -> Result<Position, StartError> {
    let Some(checkpoint) = pool.snapshot().checkpoint() else {
        return Ok(Position::ZERO);
    };
    if checkpoint.epoch != log.epoch() {
        return Err(StartError::ForeignPool {
            pool: checkpoint.epoch,
            log: log.epoch(),
        });
    }
    if checkpoint.position > log.head() {
        return Err(StartError::ShorterLog {
            applied: checkpoint.position,
            head: log.head(),
        });
    }
    Ok(checkpoint.position)
}
