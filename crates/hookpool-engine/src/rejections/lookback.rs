//! Whether a refused delivery is in the log by now, because its sender came again: by what names it, or else by what is in it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use hookpool_core::{
    event::Event,
    name::{ConnectorName, StreamName},
    position::Position,
    rejection::Marks,
    time::Timestamp,
};
use hookpool_store::{EventLog, PageRequest, ReadError};

use crate::{follow::read_page, past::position_at};

/// Of the stream, events and bytes of bodies that are looked through at most.
const EVENTS_MAX: usize = 1_000_000;
const BYTES_MAX: usize = 1 << 30;
/// A sender that had no answer comes again after it was taken: so also what came a while before counts.
const BEFORE_SECONDS: u64 = 600;

/// What the log took of a connector from a time on, as far as it is like what is looked for.
#[derive(Debug)]
pub(super) struct Lookback {
    connector: ConnectorName,
    stream: StreamName,
    /// Marks of any sort: they are hashes, and differ by sort too.
    wanted: HashSet<[u8; 16]>,
    found: HashMap<[u8; 16], Place>,
    through: Position,
    events_left: usize,
    bytes_left: usize,
}

/// A request in the log.
#[derive(Debug, Clone, Copy)]
struct Place {
    first: Position,
    time: Timestamp,
}

/// What is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likeness {
    /// The very same request begins here.
    Same(Position),
    /// Nothing names it, and one with the same content begins here.
    Alike(Position),
    /// Too much came since to be looked through.
    Unknown,
    /// Nothing like it.
    Nothing,
}

impl Lookback {
    /// From a while before a time on; nothing is read yet.
    pub(super) async fn since<L: EventLog>(
        log: &Arc<L>,
        (connector, stream): (ConnectorName, StreamName),
        time: Timestamp,
        wanted: &[Marks],
    ) -> Result<Self, ReadError> {
        let through = position_at(log, before(time)).await?;
        Ok(Self {
            connector,
            stream,
            wanted: wanted.iter().flat_map(hashes).collect(),
            found: HashMap::new(),
            through,
            events_left: EVENTS_MAX,
            bytes_left: BYTES_MAX,
        })
    }

    /// Reads what came meanwhile.
    pub(super) async fn read<L: EventLog>(&mut self, log: &Arc<L>) -> Result<(), ReadError> {
        let head = log.head();
        while self.through < head && !self.is_spent() {
            let request = PageRequest {
                until: head,
                // So that no request is divided.
                whole_blocks: true,
                ..PageRequest::of_stream(self.stream.clone(), self.through)
            };
            let page = read_page(log, request).await?;
            self.take(&page.events);
            self.through = page.through;
        }
        Ok(())
    }

    fn is_spent(&self) -> bool {
        self.events_left == 0 || self.bytes_left == 0
    }

    fn take(&mut self, events: &[Event]) {
        self.events_left = self.events_left.saturating_sub(events.len());
        let bytes: usize = events.iter().map(|event| event.event.body.len()).sum();
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        for request in events.chunk_by(|a, b| a.event.request_id == b.event.request_id) {
            let Some(first) = request.first() else {
                continue;
            };
            if first.event.connector != self.connector {
                continue;
            }
            let place = Place {
                first: first.position,
                time: first.event.time,
            };
            let marks = Marks::of_recorded(request);
            let wanted = marks.iter().flat_map(hashes);
            let wanted: Vec<_> = wanted.filter(|mark| self.wanted.contains(mark)).collect();
            self.found
                .extend(wanted.into_iter().map(|mark| (mark, place)));
        }
    }

    /// What is there of a request that was refused at a time.
    pub(super) fn likeness(&self, marks: &Marks, refused: Timestamp) -> Likeness {
        let sure = [
            Some(marks.id.0),
            marks.key.map(|key| key.0),
            marks.dedupe.map(|key| key.0),
        ];
        let mut same = sure.iter().flatten();
        if let Some(place) = same.find_map(|mark| self.found.get(mark)) {
            return Likeness::Same(place.first);
        }
        let alike = self.found.get(&marks.content);
        match alike.filter(|place| !marks.is_named() && place.time >= before(refused)) {
            Some(place) => Likeness::Alike(place.first),
            None if self.is_spent() => Likeness::Unknown,
            None => Likeness::Nothing,
        }
    }
}

fn hashes(marks: &Marks) -> impl Iterator<Item = [u8; 16]> + use<> {
    let keys = [marks.key, marks.dedupe].into_iter().flatten();
    [marks.id.0, marks.content]
        .into_iter()
        .chain(keys.map(|key| key.0))
}

fn before(time: Timestamp) -> Timestamp {
    Timestamp(time.0.saturating_sub(BEFORE_SECONDS * 1_000_000))
}
