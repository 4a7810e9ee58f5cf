//! What `/metrics` shows: counted here, or read from the engine when asked.

use std::sync::atomic::Ordering;

use hookpool_engine::Engine;
use hookpool_store::{EventLog, PoolStore};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: u16,
}

/// Both from small sets: the reasons of the documentation, and the connectors that there are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    reason: &'static str,
    /// Empty where it is not known.
    connector: String,
}

/// The metrics and their names.
pub(crate) struct Metrics {
    registry: Registry,
    responses: Family<Status, Counter>,
    followers: Gauge,
    events: Counter,
    duplicates: Counter,
    commits: Counter,
    commit_micros: Counter,
    queue_bytes: Gauge,
    head: Gauge,
    applied: Gauge,
    quarantined: Gauge,
    dropped_events: Counter,
    dropped_bytes: Counter,
    retention_failures: Counter,
    rejections: Family<Rejected, Counter>,
    rejections_dropped: Counter,
    rejections_kept: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("hookpool"),
            responses: Family::default(),
            followers: Gauge::default(),
            events: Counter::default(),
            duplicates: Counter::default(),
            commits: Counter::default(),
            commit_micros: Counter::default(),
            queue_bytes: Gauge::default(),
            head: Gauge::default(),
            applied: Gauge::default(),
            quarantined: Gauge::default(),
            dropped_events: Counter::default(),
            dropped_bytes: Counter::default(),
            retention_failures: Counter::default(),
            rejections: Family::default(),
            rejections_dropped: Counter::default(),
            rejections_kept: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "http_responses",
            "Answers by status",
            metrics.responses.clone(),
        );
        registry.register(
            "followers",
            "Open change streams",
            metrics.followers.clone(),
        );
        registry.register(
            "log_events",
            "Events appended since the start",
            metrics.events.clone(),
        );
        registry.register(
            "log_duplicates",
            "Repeated requests collapsed since the start",
            metrics.duplicates.clone(),
        );
        registry.register(
            "log_commits",
            "Batches appended since the start",
            metrics.commits.clone(),
        );
        registry.register(
            "log_commit_microseconds",
            "Time spent appending since the start",
            metrics.commit_micros.clone(),
        );
        registry.register(
            "queue_bytes",
            "Bytes that wait to be written",
            metrics.queue_bytes.clone(),
        );
        registry.register(
            "log_head_position",
            "Last durable position",
            metrics.head.clone(),
        );
        registry.register(
            "pool_applied_position",
            "Last position in the pool",
            metrics.applied.clone(),
        );
        registry.register(
            "pool_quarantined_events",
            "Events that do not fit the rules that are served, of all streams",
            metrics.quarantined.clone(),
        );
        registry.register(
            "retention_dropped_events",
            "Expired events dropped since the start",
            metrics.dropped_events.clone(),
        );
        registry.register(
            "retention_dropped_bytes",
            "Bytes of these events",
            metrics.dropped_bytes.clone(),
        );
        registry.register(
            "retention_failures",
            "Attempts to drop history that failed since the start",
            metrics.retention_failures.clone(),
        );
        registry.register(
            "rejections",
            "Refused deliveries since the start",
            metrics.rejections.clone(),
        );
        registry.register(
            "rejections_dropped",
            "Refused deliveries that were counted and not kept since the start",
            metrics.rejections_dropped.clone(),
        );
        registry.register(
            "rejections_kept",
            "Refused deliveries that can be listed",
            metrics.rejections_kept.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// Counts an answer.
    pub(crate) fn count(&self, status: u16) {
        self.responses.get_or_create(&Status { status }).inc();
    }

    /// Counts a follower until the value is dropped.
    pub(crate) fn follower(&self) -> FollowerGauge {
        self.followers.inc();
        FollowerGauge(self.followers.clone())
    }

    /// Says how many events do not fit the rules that are served.
    pub(crate) fn quarantined(&self, events: u64) {
        self.quarantined.set(gauge(events));
    }

    /// The text for a scrape, with the engine's figures as of now.
    pub(crate) fn render<L: EventLog, P: PoolStore>(
        &self,
        engine: &Engine<L, P>,
    ) -> Result<String, std::fmt::Error> {
        let stats = engine.appender_stats();
        let copy = |counter: &Counter, value: &std::sync::atomic::AtomicU64| {
            counter
                .inner()
                .store(value.load(Ordering::Relaxed), Ordering::Relaxed);
        };
        copy(&self.events, &stats.events);
        copy(&self.duplicates, &stats.duplicates);
        copy(&self.commits, &stats.commits);
        copy(&self.commit_micros, &stats.commit_micros);
        let dropped = engine.retentions().stats();
        copy(&self.dropped_events, &dropped.events);
        copy(&self.dropped_bytes, &dropped.bytes);
        copy(&self.retention_failures, &dropped.failures);
        let rejections = engine.rejections();
        for (reason, connector, count) in rejections.counts() {
            let label = Rejected {
                reason: reason.as_str(),
                connector: connector.map(|name| name.to_string()).unwrap_or_default(),
            };
            let counter = self.rejections.get_or_create(&label);
            counter.inner().store(count, Ordering::Relaxed);
        }
        let dropped = rejections.dropped();
        self.rejections_dropped
            .inner()
            .store(dropped, Ordering::Relaxed);
        self.rejections_kept.set(gauge(rejections.len() as u64));
        self.queue_bytes
            .set(gauge(stats.queued_bytes.load(Ordering::Relaxed) as u64));
        self.head.set(gauge(engine.head().0));
        self.applied.set(gauge(engine.applied().0));
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// An open change stream.
pub(crate) struct FollowerGauge(Gauge);

impl Drop for FollowerGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}
