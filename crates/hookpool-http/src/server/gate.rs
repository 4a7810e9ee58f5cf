//! Holds every head back until it is whole and [`strict`](super::strict) has read it; what is refused is answered in its turn.
//!
//! In place of a refused head hyper gets one of ours, so that it answers what came before first; [`Marked`] tells the routes which it is.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use hyper::{Request, body::Incoming, service::Service};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::strict::{Fault, Messages};
use crate::refusal::Refusal;

/// Stands for the refused head.
const IN_ITS_PLACE: &[u8] = b"GET / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n";

/// How long the rest of a refused request is thrown away: a connection that is closed on unread bytes is reset, and the answer lost.
const LINGER: Duration = Duration::from_secs(1);

/// The request that is refused, counted from zero, and why.
type Refused = Arc<OnceLock<(u64, Refusal)>>;

/// A stream and a service that belong together: what the one refuses, the other marks.
pub(super) fn gated<I, S>(stream: I, service: S) -> (Gate<I>, Marked<S>) {
    let refused = Refused::default();
    let gate = Gate {
        stream,
        messages: Messages::default(),
        held: BytesMut::new(),
        free: BytesMut::new(),
        fault: None,
        refused: Arc::clone(&refused),
        linger_ends: None,
    };
    let marked = Marked {
        service,
        refused,
        begun: AtomicU64::new(0),
    };
    (gate, marked)
}

/// A service that gives a refused request its [`Refusal`] along.
#[derive(Debug)]
pub(super) struct Marked<S> {
    service: S,
    refused: Refused,
    begun: AtomicU64,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for Marked<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let this = self.begun.fetch_add(1, Ordering::Relaxed);
        if let Some((refused, refusal)) = self.refused.get()
            && *refused == this
        {
            request.extensions_mut().insert(*refusal);
        }
        self.service.call(request)
    }
}

/// A stream of which only what was read strictly comes through.
#[derive(Debug)]
pub(super) struct Gate<I> {
    stream: I,
    messages: Messages,
    /// A head that has not ended. Most come whole and are never copied.
    held: BytesMut,
    /// What may pass and had no room yet.
    free: BytesMut,
    fault: Option<Fault>,
    refused: Refused,
    linger_ends: Option<Pin<Box<Sleep>>>,
}

impl<I> Gate<I> {
    /// The stream alone, for who reads no more requests from it.
    pub(super) fn into_inner(self) -> I {
        self.stream
    }

    /// Takes the bytes of `buffer` from `before` on, and leaves in it what may pass.
    fn take(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        if self.held.is_empty() {
            let (passed, fault) = self.messages.pass(fresh);
            self.held
                .extend_from_slice(fresh.get(passed..).unwrap_or_default());
            buffer.set_filled(before + passed);
            self.fault = fault;
        } else {
            self.held.extend_from_slice(fresh);
            buffer.set_filled(before);
            let (passed, fault) = self.messages.pass(&self.held);
            self.free = self.held.split_to(passed);
            self.fault = fault;
        }
        if let Some(Fault::Head(refusal)) = self.fault {
            tracing::debug!(%refusal, "a head was refused");
            let _ = self.refused.set((self.messages.heads(), refusal));
            self.free.extend_from_slice(IN_ITS_PLACE);
        }
    }

    /// Gives out what has been waiting for room.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = self.free.len().min(buffer.remaining());
        buffer.put_slice(self.free.get(..length).unwrap_or_default());
        self.free.advance(length);
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Gate<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        loop {
            self.give(buffer);
            if buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            match self.fault {
                None => {}
                // Nothing more comes, and hyper was told that nothing more will.
                Some(Fault::Head(_)) => return Poll::Pending,
                Some(Fault::Chunk) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "a chunk is malformed");
                    return Poll::Ready(Err(error));
                }
            }
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
            if buffer.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            self.take(buffer, before);
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Gate<I> {
    /// Throws away what still comes, until the peer has closed its side or has taken too long.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let ends = self
            .linger_ends
            .get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut scratch = [0; 4 << 10];
        while ends.as_mut().poll(context).is_pending() {
            let mut scratch = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut scratch));
            if read.is_err() || scratch.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        if self.fault.is_some() {
            ready!(self.poll_linger(context));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const GOOD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";

    fn pair() -> (DuplexStream, Gate<DuplexStream>, Refused) {
        let (peer, ours) = duplex(1 << 10);
        let (gate, marked) = gated(ours, ());
        (peer, gate, marked.refused)
    }

    /// What comes through until the gate stays shut.
    async fn through(gate: &mut Gate<DuplexStream>, at_once: usize) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; at_once]);
        let patience = Duration::from_secs(1);
        while let Ok(read) = tokio::time::timeout(patience, gate.read(&mut buffer)).await {
            match read {
                Ok(0) | Err(_) => break,
                Ok(read) => all.extend_from_slice(&buffer[..read]),
            }
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_comes_through_when_it_is_whole() {
        let (mut peer, mut gate, _refused) = pair();
        let (first, rest) = GOOD.split_at(20);
        peer.write_all(first).await.unwrap();
        assert_eq!(through(&mut gate, 64).await, b"");
        peer.write_all(rest).await.unwrap();
        assert_eq!(
            through(&mut gate, 7).await,
            GOOD,
            "also where there is little room"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_head_is_replaced_and_known_by_its_number() {
        let (mut peer, mut gate, refused) = pair();
        peer.write_all(GOOD).await.unwrap();
        peer.write_all(b"GET / HTTP/1.1\nHost: a\n\n")
            .await
            .unwrap();
        peer.write_all(GOOD).await.unwrap();
        let expected = [GOOD, IN_ITS_PLACE].concat();
        assert_eq!(through(&mut gate, 1 << 10).await, expected);
        assert_eq!(refused.get(), Some(&(1, Refusal::LineEnd)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_stands_for_a_refused_head_is_not_refused() {
        assert_eq!(
            Messages::default().pass(IN_ITS_PLACE),
            (IN_ITS_PLACE.len(), None)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_a_refused_request_is_read_for_a_while() {
        let (mut peer, mut gate, _refused) = pair();
        peer.write_all(b"\n").await.unwrap();
        through(&mut gate, 64).await;
        let begun = tokio::time::Instant::now();
        let sender = tokio::spawn(async move {
            let mut sent = 0;
            while peer.write_all(&[b'x'; 512]).await.is_ok() {
                sent += 512;
                sleep(Duration::from_millis(1)).await;
            }
            sent
        });
        gate.shutdown().await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 1);
        drop(gate);
        assert!(sender.await.unwrap() > 100 << 10);
    }
}
