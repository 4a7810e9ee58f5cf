//! Bodies under a limit and a deadline, counted while they are read: a chunked body declares no length.

use std::{pin::pin, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use hookpool_core::verify::Header;
use warp::http::header;

use crate::{
    app::Request,
    problem::{Code, Problem},
};

/// Reads a whole body.
pub(crate) async fn capped(
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, Problem> {
    tokio::time::timeout(patience, read(body, limit))
        .await
        .map_err(|_| Code::BodyTimeout)?
}

/// Refuses a body whose declared length is over the limit, before a byte of it is read.
pub(crate) fn must_fit(request: &Request, limit: usize) -> Result<(), Problem> {
    let too_large = declared(request).is_some_and(|length| length > limit as u64);
    if too_large {
        Err(Code::PayloadTooLarge.into())
    } else {
        Ok(())
    }
}

/// How long a refused body is waited for.
const DISCARD: Duration = Duration::from_secs(1);

/// Reads what is left of a refused body, within reason: a connection that is closed on unread bytes is reset, and the client
/// would lose the answer that says what was wrong. A client that waits for `100 Continue` has not sent its body and is spared it. Gives what was read if
/// it is `wanted` and came to its end.
pub(crate) async fn discard(
    request: &Request,
    mut body: impl Stream<Item = Result<impl Buf, warp::Error>> + Unpin,
    bytes_max: usize,
    wanted: bool,
) -> Option<Bytes> {
    if request.headers.contains_key(header::EXPECT) {
        return None;
    }
    let mut left = bytes_max;
    let mut whole = BytesMut::new();
    let discarded = async {
        while let Some(part) = body.next().await {
            let part = part.ok()?;
            left = left.checked_sub(part.remaining())?;
            if wanted {
                whole.put(part);
            }
        }
        Some(())
    };
    match tokio::time::timeout(DISCARD, discarded).await {
        Ok(Some(())) if wanted => Some(whole.freeze()),
        Ok(_) => None,
        Err(_) => {
            tracing::debug!("a refused body came too slowly to be read to its end");
            None
        }
    }
}

fn declared(request: &Request) -> Option<u64> {
    match request.header(header::CONTENT_LENGTH) {
        Header::One(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        Header::Absent | Header::Repeated => None,
    }
}

async fn read(
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
    limit: usize,
) -> Result<Bytes, Problem> {
    let mut body = pin!(body);
    let mut whole = Bytes::new();
    let mut parts = BytesMut::new();
    while let Some(part) = body.next().await {
        let mut part = part.map_err(|error| {
            tracing::debug!(%error, "a body broke off");
            Problem::with(Code::InvalidPayload, "the body broke off")
        })?;
        if whole.len() + parts.len() + part.remaining() > limit {
            return Err(Code::PayloadTooLarge.into());
        }
        let part = part.copy_to_bytes(part.remaining());
        // Nearly every body is one part: it is taken as it is.
        if whole.is_empty() && parts.is_empty() {
            whole = part;
        } else {
            parts.extend_from_slice(&std::mem::take(&mut whole));
            parts.extend_from_slice(&part);
        }
    }
    Ok(if parts.is_empty() {
        whole
    } else {
        parts.freeze()
    })
}
