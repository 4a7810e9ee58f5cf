//! Who follows which stream, and how far they are: for operators. Knows what was handed to a connection, not what arrived.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hookpool_core::{name::StreamName, position::Position, time::Timestamp};
use hookpool_engine::follow::blocking;
use hookpool_store::{EventLog, PoolError, PoolSnapshot, PoolStore};
use serde_json::{Value, json};
use warp::reply::Response;

use crate::{app::App, problem::Problem, render::json_response};

/// All change streams that are open, in the order in which they were opened.
#[derive(Debug, Default)]
pub(crate) struct Followers(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    opened: u64,
    places: BTreeMap<u64, Arc<Place>>,
}

#[derive(Debug)]
struct Place {
    stream: StreamName,
    reader: Option<String>,
    opened_at: Timestamp,
    position: AtomicU64,
}

/// In a snapshot, and so at no position.
const NOWHERE: u64 = u64::MAX;

/// One change stream, listed until this is dropped.
#[derive(Debug)]
pub(crate) struct Listed {
    all: Arc<Followers>,
    number: u64,
    place: Arc<Place>,
}

impl Followers {
    /// Lists a change stream. `reader` is the name of its read key; none for an operator's.
    pub(crate) fn list(
        self: &Arc<Self>,
        stream: StreamName,
        reader: Option<String>,
        opened_at: Timestamp,
    ) -> Listed {
        let place = Arc::new(Place {
            stream,
            reader,
            opened_at,
            position: AtomicU64::new(NOWHERE),
        });
        let mut open = self.open();
        let number = open.opened;
        open.opened += 1;
        open.places.insert(number, Arc::clone(&place));
        Listed {
            all: Arc::clone(self),
            number,
            place,
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.open().places.len()
    }

    fn places(&self) -> Vec<Arc<Place>> {
        self.open().places.values().cloned().collect()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    /// Everything up to here was handed to the connection.
    pub(crate) fn is_at(&self, position: Position) {
        self.place.position.store(position.0, Ordering::Relaxed);
    }

    /// It begins again, with a snapshot.
    pub(crate) fn is_nowhere(&self) {
        self.is_at(Position(NOWHERE));
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.all.open().places.remove(&self.number);
    }
}

/// `GET /api/admin/followers`
pub(crate) async fn answer<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
) -> Result<Response, Problem> {
    let app = Arc::clone(app);
    let rows = blocking(move || rows(&app)).await?;
    Ok(json_response(json!({ "followers": rows }).to_string()))
}

fn rows<L: EventLog, P: PoolStore>(app: &App<L, P>) -> Result<Vec<Value>, PoolError> {
    let pool = app.engine.pool();
    let mut ends = BTreeMap::new();
    let mut rows = Vec::new();
    // The places after the view: nobody is ahead of it who was handed what it shows.
    for place in app.followers.places() {
        let end = match ends.get(&place.stream) {
            Some(end) => *end,
            None => {
                let end = last_position(app, &pool, &place.stream)?;
                ends.insert(place.stream.clone(), end);
                end
            }
        };
        rows.push(place.row(end));
    }
    Ok(rows)
}

/// The last event of a stream that its followers can have.
fn last_position<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    pool: &P::Snapshot,
    stream: &StreamName,
) -> Result<Position, PoolError> {
    let served = app.engine.served(pool, stream)?;
    let state = pool.generation(stream, served.generation)?;
    Ok(state.unwrap_or_default().position)
}

impl Place {
    fn row(&self, end: Position) -> Value {
        let position = self.position.load(Ordering::Relaxed);
        let position = Some(position).filter(|position| *position != NOWHERE);
        json!({
            "stream": self.stream.as_str(),
            "reader": self.reader,
            "position": position,
            "lag": position.map(|position| end.0.saturating_sub(position)),
            "openedAt": self.opened_at.to_string(),
        })
    }
}
