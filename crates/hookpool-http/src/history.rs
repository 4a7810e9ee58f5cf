//! The history as it is stored: signed heads, whole blocks and exports, for operators.
//!
//! Answers stream page by page as the client takes them. One that can't go on is cut off without the end that its format has, and
//! never ended as if it were whole.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use hookpool_core::{
    codec::{Block, BlockError},
    event::Event,
    export::{CloudEventError, Header, Range, Requested, Scope, Writer, cloud_event},
    key::KeyId,
    name::StreamName,
    position::Position,
};
use hookpool_engine::LogName;
use hookpool_store::{EventLog, PageRequest, PoolStore, ReadError};
use thiserror::Error;
use warp::{
    http::{HeaderName, header},
    reply::{Reply, Response},
};

use crate::{
    app::{App, set},
    problem::{Code, Problem},
    query::Query,
    render::json_response,
};

/// Bytes that are read and sent at once; the last block or event may go over.
const PAGE_BYTES: usize = 256 << 10;

/// Why an answer was cut off.
#[derive(Debug, Error)]
enum Cut {
    #[error("the server is stopping")]
    Stopping,
    #[error("the operator key is revoked")]
    Revoked,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error(transparent)]
    CloudEvent(#[from] CloudEventError),
}

/// `GET /api/admin/head`
pub(crate) fn head<L: EventLog, P: PoolStore>(app: &App<L, P>) -> Result<Response, Problem> {
    let head = serde_json::to_string(&app.engine.signed_head()).map_err(|error| {
        tracing::error!(%error, "a head can't be written");
        Problem::from(Code::Internal)
    })?;
    let mut response = json_response(head);
    set(&mut response, header::CACHE_CONTROL, "no-store");
    Ok(response)
}

/// `GET /api/admin/blocks`
pub(crate) fn blocks<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    author: KeyId,
    query: &Query<'_>,
) -> Result<Response, Problem> {
    let log = match query.text("log")?.as_deref() {
        None | Some("events") => LogName::Events,
        Some("control") => LogName::Control,
        Some(_) => return Err(invalid("log is events or control")),
    };
    let after = Position(query.number("after", 0..=u64::MAX)?.unwrap_or(0));
    let until = app.engine.log_end(log).head;
    let read = Arc::clone(app);
    let bytes = stream::try_unfold(after, move |after| {
        let app = Arc::clone(&read);
        async move {
            if after >= until {
                return Ok(None);
            }
            let blocks = app.whole_blocks(log, Range { after, until }).await?;
            let bytes: Vec<&[u8]> = blocks.iter().map(|block| &block.bytes()[..]).collect();
            let last = blocks.last().map_or(until, |block| block.header().last());
            Ok(Some((Bytes::from(bytes.concat()), last)))
        }
    });
    let mut response = streamed(app, author, bytes, "application/octet-stream");
    describe(app, &mut response, log, until);
    Ok(response)
}

/// `GET /api/admin/export`
pub(crate) async fn export<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    author: KeyId,
    query: &Query<'_>,
) -> Result<Response, Problem> {
    let stream = query.text("stream")?;
    let stream = stream.map(|name| StreamName::new(&name)).transpose();
    let stream = stream.map_err(|error| invalid(error.to_string()))?;
    let after = Position(query.number("after", 0..=u64::MAX)?.unwrap_or(0));
    let until = query.number("until", after.0..=u64::MAX)?.map(Position);
    let requested = Requested { after, until };
    let head = app.engine.log_end(LogName::Events).head;
    let until = until.unwrap_or(head).min(head).max(after);
    let range = Range { after, until };
    let (media_type, range, form) = match query.text("format")?.as_deref() {
        None | Some("ndjson") => {
            let header = app.export_header(requested, range, stream.clone()).await?;
            let writer = Writer::new(&header);
            let form = match header.scope {
                Scope::Chained { .. } => Form::Blocks(writer),
                Scope::Stream(_) => Form::Events(writer),
            };
            ("application/x-ndjson", header.range, form)
        }
        Some("cloudevents") => ("application/x-ndjson", range, Form::CloudEvents),
        Some(_) => return Err(invalid("format is ndjson or cloudevents")),
    };
    let export = Export {
        app: Arc::clone(app),
        range,
        stream,
        form,
    };
    let mut response = streamed(app, author, export.lines(), media_type);
    describe(app, &mut response, LogName::Events, range.until);
    Ok(response)
}

impl<L: EventLog, P: PoolStore> App<L, P> {
    /// The next blocks of a range that ends between blocks, of which there is one.
    async fn whole_blocks(&self, log: LogName, range: Range) -> Result<Vec<Block>, Cut> {
        if !self.engine.status().is_ready() {
            return Err(Cut::Stopping);
        }
        let mut blocks = self.engine.log_blocks(log, range.after, PAGE_BYTES).await?;
        blocks.retain(|block| block.header().last() <= range.until);
        if blocks.is_empty() {
            return Err(missing(range.after).into());
        }
        Ok(blocks)
    }

    /// Says what will be exported: of all streams, whole blocks.
    async fn export_header(
        &self,
        requested: Requested,
        range: Range,
        stream: Option<StreamName>,
    ) -> Result<Header, Problem> {
        let (range, scope) = match stream {
            Some(stream) => (range, Scope::Stream(stream)),
            None => self.widened(range).await?,
        };
        Ok(Header {
            epoch: self.engine.log_epoch(LogName::Events),
            range,
            requested,
            scope,
            server: env!("CARGO_PKG_VERSION").to_owned(),
            time: self.engine.now(),
        })
    }

    /// The blocks that hold a range, of which there is at least one unless it begins at the end of the log.
    async fn widened(&self, range: Range) -> Result<(Range, Scope), ReadError> {
        let end = self.engine.log_end(LogName::Events);
        if range.after >= end.head {
            let (after, previous) = (end.head, end.digest);
            let range = Range {
                after,
                until: after,
            };
            return Ok((range, Scope::Chained { previous }));
        }
        let first = self.block_of(range.after.plus(1)).await?;
        let last = self.block_of(range.until.max(range.after.plus(1))).await?;
        let range = Range {
            after: Position(first.header().first.0 - 1),
            until: last.header().last(),
        };
        let previous = first.header().previous;
        Ok((range, Scope::Chained { previous }))
    }

    /// The block that holds a position, which is in the log.
    async fn block_of(&self, position: Position) -> Result<Block, ReadError> {
        let before = Position(position.0 - 1);
        let blocks = self.engine.log_blocks(LogName::Events, before, 0).await?;
        blocks.into_iter().next().ok_or_else(|| missing(before))
    }
}

fn missing(after: Position) -> ReadError {
    ReadError::Damaged {
        after,
        cause: Arc::from(Box::from("the next block is missing")),
    }
}

/// An export that is under way: what is left of the range.
struct Export<L, P: PoolStore> {
    app: Arc<App<L, P>>,
    range: Range,
    stream: Option<StreamName>,
    form: Form,
}

/// What lines are made of, and how.
enum Form {
    Blocks(Writer),
    Events(Writer),
    CloudEvents,
}

impl<L: EventLog, P: PoolStore> Export<L, P> {
    fn lines(self) -> impl Stream<Item = Result<Bytes, Cut>> {
        stream::try_unfold(Some(self), async |export| match export {
            Some(export) => export.step().await,
            None => Ok(None),
        })
    }

    /// The next lines, and what is left then.
    async fn step(mut self) -> Result<Option<(Bytes, Option<Self>)>, Cut> {
        while self.range.after < self.range.until {
            let lines = self.page().await?;
            // A page of a stream may hold nothing, and an empty piece may end an answer.
            if !lines.is_empty() {
                return Ok(Some((lines.into(), Some(self))));
            }
        }
        Ok(match self.form {
            Form::Blocks(writer) | Form::Events(writer) => Some((writer.finish().into(), None)),
            Form::CloudEvents => None,
        })
    }

    async fn page(&mut self) -> Result<String, Cut> {
        match &mut self.form {
            Form::Blocks(writer) => {
                let blocks = self.app.whole_blocks(LogName::Events, self.range).await?;
                for block in &blocks {
                    writer.block(block)?;
                    self.range.after = block.header().last();
                }
                Ok(writer.take())
            }
            Form::Events(writer) => {
                let events = events(&self.app, &mut self.range, self.stream.clone()).await?;
                events.iter().for_each(|event| writer.event(event));
                Ok(writer.take())
            }
            Form::CloudEvents => {
                let events = events(&self.app, &mut self.range, self.stream.clone()).await?;
                let epoch = self.app.engine.log_epoch(LogName::Events);
                let url = &self.app.settings.public_url;
                let lines = events.iter().map(|event| cloud_event(url, epoch, event));
                Ok(lines.collect::<Result<String, _>>()?)
            }
        }
    }
}

/// The next events of a range, which then begins behind them.
async fn events<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    range: &mut Range,
    stream: Option<StreamName>,
) -> Result<Vec<Event>, Cut> {
    if !app.engine.status().is_ready() {
        return Err(Cut::Stopping);
    }
    let request = PageRequest {
        until: range.until,
        stream,
        bytes_max: PAGE_BYTES,
        ..PageRequest::after(range.after)
    };
    let page = app.engine.log_page(request).await?;
    range.after = page.through;
    Ok(page.events)
}

/// An answer whose length nobody knows yet, for as long as its reader may operate.
fn streamed<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    author: KeyId,
    pieces: impl Stream<Item = Result<Bytes, Cut>> + Send + Sync + 'static,
    media_type: &str,
) -> Response {
    let app = Arc::clone(app);
    let pieces = pieces.map(move |piece| match app.may_operate(&author) {
        true => piece,
        false => Err(Cut::Revoked),
    });
    // What a client sees of it is that the answer breaks off.
    let pieces = pieces.inspect_err(|cut| tracing::warn!(%cut, "an export or backup was cut off"));
    let mut response = warp::reply::stream(pieces).into_response();
    set(&mut response, header::CONTENT_TYPE, media_type);
    set(
        &mut response,
        header::CACHE_CONTROL,
        "no-store, no-transform",
    );
    response
}

/// Of which log an answer is, and up to where.
fn describe<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    response: &mut Response,
    log: LogName,
    until: Position,
) {
    const EPOCH: HeaderName = HeaderName::from_static("datapool-epoch");
    const POSITION: HeaderName = HeaderName::from_static("datapool-position");
    set(response, EPOCH, &app.engine.log_epoch(log).to_string());
    set(response, POSITION, &until.to_string());
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::with(Code::InvalidParameter, detail)
}
