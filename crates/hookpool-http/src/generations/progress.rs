//! A rebuild as events of progress, for whoever follows it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use hookpool_core::{key::KeyId, name::StreamName, position::Generation};
use hookpool_store::{EventLog, PoolStore};
use warp::{Reply, http::header, reply::Response};

use super::{OfStream, status};
use crate::{
    app::{App, set},
    sse::Framing,
};

/// How often progress is told to who follows it.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

impl<L: EventLog, P: PoolStore> OfStream<'_, L, P> {
    /// Ends when the rebuild did, the key is revoked, or the server stops.
    pub(super) fn progress(&self, generation: Generation) -> Response {
        let told = Told {
            app: Arc::clone(self.app),
            author: self.author.clone(),
            stream: self.stream.clone(),
            generation,
            last: None,
            ended: false,
        };
        let frames = stream::unfold(told, |mut told| async move {
            let bytes = told.next().await?;
            Some((Ok::<_, Infallible>(bytes), told))
        });
        let mut response = warp::reply::stream(frames).into_response();
        set(&mut response, header::CONTENT_TYPE, "text/event-stream");
        set(
            &mut response,
            header::CACHE_CONTROL,
            "no-store, no-transform",
        );
        response
    }
}

/// Somebody who follows the progress of a rebuild.
struct Told<L, P: PoolStore> {
    app: Arc<App<L, P>>,
    author: KeyId,
    stream: StreamName,
    generation: Generation,
    last: Option<String>,
    ended: bool,
}

impl<L: EventLog, P: PoolStore> Told<L, P> {
    async fn next(&mut self) -> Option<Bytes> {
        while !self.ended && self.app.engine.status().is_ready() {
            if self.last.is_some() {
                tokio::time::sleep(PROGRESS_EVERY).await;
            }
            if !self.app.may_operate(&self.author) {
                return None;
            }
            let row = match status::row(&self.app, &self.stream, self.generation) {
                Ok(row) => row?,
                Err(error) => {
                    tracing::error!(%error, "progress can't be read");
                    return None;
                }
            };
            self.ended = row.get("endedAt").is_some();
            let data = row.to_string();
            if self.last.as_ref() != Some(&data) {
                let mut bytes = Vec::new();
                Framing::Sse.push(&mut bytes, "progress", None, &data);
                self.last = Some(data);
                return Some(bytes.into());
            }
        }
        None
    }
}
