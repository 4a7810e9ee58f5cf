//! Answers that go on for long: once their head is sent, hyper goes with its buffers, and the rest is written here.
//!
//! Of a follower that waits, its socket and what it follows are left. Knows chunks, not what is in them.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    iter,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use hyper::{
    Method, Request, Response, Version,
    body::{Body, Frame, SizeHint},
    header::{CONNECTION, HeaderValue},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What an answer of this kind carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endless;

/// Where the body of such an answer waits until hyper is done with its head.
#[derive(Debug)]
pub(super) struct Rest<B>(Arc<Mutex<Kept<B>>>);

#[derive(Debug)]
struct Kept<B> {
    body: Option<B>,
    /// hyper has come to the body: the head is in its buffer or sent.
    reached: bool,
}

impl<B> Clone for Rest<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> Default for Rest<B> {
    fn default() -> Self {
        let kept = Kept {
            body: None,
            reached: false,
        };
        Self(Arc::new(Mutex::new(kept)))
    }
}

impl<B> Rest<B> {
    /// Keeps the body of an answer that goes on, and leaves hyper one that never says anything; the connection ends with the answer.
    pub(super) fn keep(&self, mut answer: Response<B>, may_keep: bool) -> Response<Part<B>> {
        let endless = answer.extensions_mut().remove::<Endless>().is_some();
        if !(endless && may_keep) {
            return answer.map(Part::Whole);
        }
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(CONNECTION, close);
        answer.map(|body| {
            self.kept().body = Some(body);
            Part::Head(self.clone())
        })
    }

    /// The body, once its head is in hyper's buffer or sent.
    pub(super) fn take(&self) -> Option<B> {
        let mut kept = self.kept();
        if kept.reached { kept.body.take() } else { None }
    }

    fn kept(&self) -> MutexGuard<'_, Kept<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the answer to a request is one that hyper sends in chunks.
pub(super) fn is_chunked<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11 && request.method() != Method::HEAD
}

/// What hyper gets of an answer.
#[derive(Debug)]
pub(super) enum Part<B> {
    /// All of it.
    Whole(B),
    /// Nothing behind the head.
    Head(Rest<B>),
}

impl<B: Body + Unpin> Body for Part<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match &mut *self {
            Self::Whole(body) => Pin::new(body).poll_frame(context),
            Self::Head(rest) => {
                rest.kept().reached = true;
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Head(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Head(_) => SizeHint::default(),
        }
    }
}

/// Writes a body in chunks until it ends or the peer leaves.
pub(super) async fn write_rest<B>(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut body: B,
) -> io::Result<()>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut ended = None;
    while ended.is_none() {
        let mut chunk = Chunk::default();
        ended = tokio::select! {
            biased;
            left = leaves(&mut stream) => return left,
            ended = poll_fn(|context| chunk.gather(&mut body, context)) => ended,
        };
        chunk.write(&mut stream).await?;
    }
    // Without a last chunk the peer knows that it has not all.
    if ended == Some(End::Whole) {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    stream.shutdown().await
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

/// What is written at once.
#[derive(Debug, Default)]
struct Chunk {
    parts: Vec<Bytes>,
    bytes: usize,
}

/// Parts and bytes of a chunk after which nothing more is added to it.
const PARTS_MAX: usize = 16;
const BYTES_MAX: usize = 256 << 10;

impl Chunk {
    /// Takes what is ready of a body, once there is something; and whether that was its end.
    fn gather<B>(&mut self, body: &mut B, context: &mut Context<'_>) -> Poll<Option<End>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        while self.parts.len() < PARTS_MAX && self.bytes < BYTES_MAX {
            match Pin::new(&mut *body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => self.push(frame),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(End::Broken)),
                Poll::Ready(None) => return Poll::Ready(Some(End::Whole)),
                Poll::Pending if self.parts.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(None)
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        if let Ok(data) = frame.into_data() {
            self.bytes += data.len();
            self.parts.push(data);
        }
    }

    async fn write(self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        // An empty chunk would be the last.
        if self.bytes == 0 {
            return Ok(());
        }
        let size = Bytes::from(format!("{:x}\r\n", self.bytes));
        let end = Bytes::from_static(b"\r\n");
        let mut parts: Parts = iter::once(size).chain(self.parts).chain([end]).collect();
        stream.write_all_buf(&mut parts).await?;
        stream.flush().await
    }
}

/// Bytes that follow each other.
#[derive(Debug)]
struct Parts(VecDeque<Bytes>);

impl FromIterator<Bytes> for Parts {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        Self(parts.into_iter().filter(|part| !part.is_empty()).collect())
    }
}

impl Buf for Parts {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.0);
        filled
            .map(|(slice, part)| *slice = IoSlice::new(part))
            .count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(part) = self.0.front_mut().filter(|_| count > 0) {
            let taken = count.min(part.len());
            part.advance(taken);
            count -= taken;
            if part.is_empty() {
                self.0.pop_front();
            }
        }
    }
}

/// Returns when the peer has closed its side. There is no next request: what else it sends is not read.
async fn leaves(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut unread = [0; 64];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt as _, stream};
    use http_body_util::StreamBody;
    use tokio::io::duplex;

    use super::*;

    /// What a peer gets of a body, and how many bytes at a time the connection takes.
    async fn sent(parts: Vec<Option<&'static str>>, at_a_time: usize) -> String {
        let (mut peer, ours) = duplex(at_a_time);
        // `None` is a moment in which nothing is ready.
        let frames = stream::iter(parts).filter_map(|part| async move {
            if part.is_none() {
                tokio::task::yield_now().await;
            }
            let frame = Frame::data(Bytes::from_static(part?.as_bytes()));
            Some(Ok::<_, Infallible>(frame))
        });
        let body = Box::pin(StreamBody::new(frames));
        let written = tokio::spawn(write_rest(ours, body));
        let mut got = String::new();
        peer.read_to_string(&mut got).await.unwrap();
        written.await.unwrap().unwrap();
        got
    }

    #[tokio::test]
    async fn what_is_ready_at_once_is_one_chunk_and_nothing_is_the_last_but_the_last() {
        let parts = [
            Some("ab"),
            Some(""),
            Some("cde"),
            None,
            Some(""),
            None,
            Some("f"),
        ];
        let expected = "5\r\nabcde\r\n1\r\nf\r\n0\r\n\r\n";
        for at_a_time in [1, 2, 1_024] {
            assert_eq!(sent(parts.to_vec(), at_a_time).await, expected);
        }
        assert_eq!(sent(vec![], 8).await, "0\r\n\r\n");
    }

    #[tokio::test]
    async fn a_peer_that_leaves_ends_a_body_that_has_nothing_to_say() {
        let (peer, ours) = duplex(8);
        let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let written = tokio::spawn(write_rest(ours, body));
        drop(peer);
        written.await.unwrap().unwrap();
    }

    #[test]
    fn only_an_answer_that_goes_on_is_kept() {
        let answer = |endless| {
            let mut answer = Response::new(http_body_util::Empty::<Bytes>::new());
            if endless {
                answer.extensions_mut().insert(Endless);
            }
            answer
        };
        for (endless, may_keep) in [(false, true), (true, false), (true, true)] {
            let rest = Rest::default();
            let mut kept = rest.keep(answer(endless), may_keep);
            assert_eq!(kept.headers().contains_key(CONNECTION), endless && may_keep);
            assert!(rest.take().is_none(), "hyper has not come to it");
            let mut context = Context::from_waker(std::task::Waker::noop());
            let _polled = Pin::new(kept.body_mut()).poll_frame(&mut context);
            assert_eq!(rest.take().is_some(), endless && may_keep);
        }
    }
}
