//! The one writer of a log: takes what is ready, appends it as one batch, answers everyone in it.
//!
//! It has a thread of its own, since an append blocks for the time of a sync. While one batch is synced the next one gathers
//! in the queue: that is the whole of group commit, and no timer is needed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use hookpool_core::event::Request;
use hookpool_store::{AppendError, Appended, EventLog};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::status::{FailOnPanic, StatusCell};

/// Why a request was not, or perhaps not, appended.
#[derive(Debug, Clone, Error)]
pub enum QueueError {
    /// It was not: the queue is full, or the engine is stopping.
    #[error("queue the request: {0}")]
    Refused(&'static str),
    /// Perhaps it was.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// How much waits and how much goes into one batch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all events that wait or are being written.
    pub queue_bytes: usize,
    /// Bytes after which a batch takes no more requests.
    pub batch_bytes: usize,
    /// Events after which a batch takes no more requests.
    pub batch_events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_bytes: 64 << 20,
            batch_bytes: 1 << 20,
            batch_events: 1_024,
        }
    }
}

/// What the appender has done so far.
#[derive(Debug, Default)]
pub struct AppenderStats {
    /// Batches appended.
    pub commits: AtomicU64,
    /// Events appended, duplicates not counted.
    pub events: AtomicU64,
    /// Requests that were there before.
    pub duplicates: AtomicU64,
    /// Bytes that wait or are being written.
    pub queued_bytes: AtomicUsize,
    /// Microseconds spent appending.
    pub commit_micros: AtomicU64,
}

/// Hands requests to the one writer.
#[derive(Debug)]
pub struct Appender {
    jobs: mpsc::Sender<Job>,
    stats: Arc<AppenderStats>,
    queue_bytes: usize,
}

#[derive(Debug)]
struct Job {
    request: Request,
    answer: oneshot::Sender<Result<Appended, AppendError>>,
    room: Room,
}

/// The bytes that a request takes in the queue, given back when it is answered or dropped.
#[derive(Debug)]
struct Room {
    bytes: usize,
    stats: Arc<AppenderStats>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.stats
            .queued_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Appender {
    /// Starts the writer of a log. The thread ends, with everything queued written, when the appender is dropped.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if the machine has no thread left.
    #[must_use]
    pub fn start<L: EventLog>(
        log: Arc<L>,
        limits: Limits,
        status: StatusCell,
    ) -> (Self, JoinHandle<()>) {
        let (jobs, queue) = mpsc::channel();
        let stats = Arc::new(AppenderStats::default());
        let writer = Writer {
            log,
            limits,
            status,
            stats: Arc::clone(&stats),
            runtime: tokio::runtime::Handle::current(),
        };
        let thread = std::thread::Builder::new()
            .name("appender".into())
            .spawn(move || writer.run(&queue))
            .expect("a thread for the appender");
        (
            Self {
                jobs,
                stats,
                queue_bytes: limits.queue_bytes,
            },
            thread,
        )
    }

    /// Appends one request and returns when it is durable. Dropping the future loses only the answer.
    ///
    /// # Errors
    /// [`QueueError`]
    pub async fn append(&self, request: Request) -> Result<Appended, QueueError> {
        let room = self.room_for(&request)?;
        let (answer, answered) = oneshot::channel();
        self.jobs
            .send(Job {
                request,
                answer,
                room,
            })
            .map_err(|_| QueueError::Refused("the writer has stopped"))?;
        // Handed over and not answered: the writer broke off, perhaps after the batch was durable.
        let outcome = answered
            .await
            .map_err(|_| AppendError::Unknown(Arc::from(Box::from("the writer broke off"))))?;
        Ok(outcome?)
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> &AppenderStats {
        &self.stats
    }

    fn room_for(&self, request: &Request) -> Result<Room, QueueError> {
        let bytes = body_bytes(request) + request.count() * EVENT_BYTES;
        let before = self.stats.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = Room {
            bytes,
            stats: Arc::clone(&self.stats),
        };
        // A request larger than the whole queue may still go alone.
        if before > 0 && before + bytes > self.queue_bytes {
            return Err(QueueError::Refused("too much is waiting to be written"));
        }
        Ok(room)
    }
}

/// About what an event needs beside its body.
const EVENT_BYTES: usize = 512;

fn body_bytes(request: &Request) -> usize {
    request.events().map(|event| event.body.len()).sum()
}

struct Writer<L> {
    log: Arc<L>,
    limits: Limits,
    status: StatusCell,
    stats: Arc<AppenderStats>,
    runtime: tokio::runtime::Handle,
}

impl<L: EventLog> Writer<L> {
    fn run(&self, queue: &mpsc::Receiver<Job>) {
        let _failing = FailOnPanic::new("the writer of a log", &self.status);
        while let Ok(first) = queue.recv() {
            let batch = Batch::gather(first, queue, self.limits);
            self.append(batch);
        }
    }

    fn append(&self, batch: Batch) {
        let Batch {
            requests, waiting, ..
        } = batch;
        let started = tokio::time::Instant::now();
        let outcome = self.runtime.block_on(self.log.append(requests));
        self.count(&outcome, &waiting, started.elapsed());
        if let Err(AppendError::Final(cause)) = &outcome {
            self.status.fail(format!(
                "the log can't be written: {cause}; look at the disk and its space"
            ));
        }
        // IMPORTANT: only now, after the batch is durable. A waiter that has gone away is no error: its events are in the log.
        match outcome {
            Ok(outcomes) => {
                debug_assert_eq!(outcomes.len(), waiting.len(), "one outcome per request");
                for (waiter, outcome) in waiting.into_iter().zip(outcomes) {
                    let _gone = waiter.answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                for waiter in waiting {
                    let _gone = waiter.answer.send(Err(error.clone()));
                }
            }
        }
    }

    fn count(
        &self,
        outcome: &Result<Vec<Appended>, AppendError>,
        waiting: &[Waiter],
        took: Duration,
    ) {
        let Ok(outcomes) = outcome else { return };
        let (mut new, mut duplicates) = (0, 0);
        for (outcome, waiter) in outcomes.iter().zip(waiting) {
            match outcome {
                Appended::New(_) => new += waiter.events,
                Appended::Duplicate(_) => duplicates += 1,
            }
        }
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        self.stats.events.fetch_add(new, Ordering::Relaxed);
        self.stats
            .duplicates
            .fetch_add(duplicates, Ordering::Relaxed);
        self.stats.commit_micros.fetch_add(
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }
}

/// What is appended at once, and who waits for it, in the same order.
struct Batch {
    requests: Vec<Request>,
    waiting: Vec<Waiter>,
    events: usize,
}

struct Waiter {
    answer: oneshot::Sender<Result<Appended, AppendError>>,
    /// How many it waits for.
    events: u64,
    _room: Room,
}

impl Batch {
    /// The first job and whatever else is ready now, up to the limits.
    fn gather(first: Job, queue: &mpsc::Receiver<Job>, limits: Limits) -> Self {
        let mut batch = Self {
            requests: Vec::new(),
            waiting: Vec::new(),
            events: 0,
        };
        let mut bytes = batch.push(first);
        while bytes < limits.batch_bytes && batch.events < limits.batch_events {
            let Ok(job) = queue.try_recv() else { break };
            bytes += batch.push(job);
        }
        batch
    }

    fn push(&mut self, job: Job) -> usize {
        let (bytes, count) = (body_bytes(&job.request), job.request.count());
        self.requests.push(job.request);
        self.waiting.push(Waiter {
            answer: job.answer,
            events: count as u64,
            _room: job.room,
        });
        self.events += count;
        bytes
    }
}
