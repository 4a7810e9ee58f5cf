//! A connection's bytes under two deadlines that hyper does not have: a head that has begun must end, and what is sent must be taken.
//!
//! hyper has one timer for a slow head and an idle connection, and none for a peer that stops reading.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    service::Service,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::endless::{Part, Rest, is_chunked};

/// How long a peer may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the first byte of a head to its last.
    pub(super) head: Duration,
    /// Without taking anything of what is sent.
    pub(super) write: Duration,
}

/// Requests of one connection: what [`Turns`] sees of them and [`Timed`] wants to know.
#[derive(Debug, Default)]
struct Seen {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Something was written and not flushed since.
    unsent: AtomicBool,
}

impl Seen {
    /// Requests whose head is complete; `None` while one is being answered.
    fn between(&self) -> Option<u64> {
        let ended = self.ended.load(Ordering::Acquire);
        (self.begun.load(Ordering::Acquire) == ended).then_some(ended)
    }
}

/// A stream and a service that belong together, both watched.
pub(super) fn timed<S, B, I>(stream: I, service: S, patience: Patience) -> (Timed<I>, Turns<S, B>) {
    let seen = Arc::new(Seen::default());
    let stream = Timed {
        stream,
        seen: Arc::clone(&seen),
        patience,
        head: None,
        head_ends: None,
        write_ends: None,
    };
    let turns = Turns {
        service,
        seen,
        rest: Rest::default(),
    };
    (stream, turns)
}

/// A service that says when a request begins and when its answer has been sent.
#[derive(Debug)]
pub(super) struct Turns<S, B> {
    service: S,
    seen: Arc<Seen>,
    rest: Rest<Answer<B>>,
}

impl<S, B> Turns<S, B> {
    /// What says when an answer that goes on can be handed over.
    pub(super) fn handover(&self) -> Handover<B> {
        Handover {
            seen: Arc::clone(&self.seen),
            rest: self.rest.clone(),
        }
    }
}

/// Where an answer that goes on waits to be taken over from hyper.
#[derive(Debug)]
pub(super) struct Handover<B> {
    seen: Arc<Seen>,
    rest: Rest<Answer<B>>,
}

impl<B> Handover<B> {
    /// The body whose head has been sent, if there is one. To be asked when hyper has nothing to do.
    pub(super) fn take(&self) -> Option<Answer<B>> {
        // hyper comes to a body before it flushes the head, so that nothing is flushed yet that is not all.
        let sent = !self.seen.unsent.load(Ordering::Acquire);
        if sent { self.rest.take() } else { None }
    }
}

impl<S, B> Service<Request<Incoming>> for Turns<S, B>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<Part<Answer<B>>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let turn = Turn::begin(&self.seen);
        let (rest, may_keep) = (self.rest.clone(), is_chunked(&request));
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = answer.await?.map(|body| Answer { body, _turn: turn });
            Ok(rest.keep(answer, may_keep))
        })
    }
}

/// A request that is being answered.
#[derive(Debug)]
struct Turn(Arc<Seen>);

impl Turn {
    fn begin(seen: &Arc<Seen>) -> Self {
        seen.begun.fetch_add(1, Ordering::Release);
        Self(Arc::clone(seen))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

/// The body of an answer; dropped when it is sent.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: B,
    _turn: Turn,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that fails when its peer takes too long.
#[derive(Debug)]
pub(super) struct Timed<I> {
    stream: I,
    seen: Arc<Seen>,
    patience: Patience,
    /// Requests before the one whose head has begun.
    head: Option<u64>,
    /// Set only while waiting, since most heads come whole.
    head_ends: Option<Pin<Box<Sleep>>>,
    write_ends: Option<Pin<Box<Sleep>>>,
}

impl<I> Timed<I> {
    /// Whether a head has begun and not ended.
    fn in_head(&mut self) -> bool {
        let begun = self.head.is_some() && self.head == self.seen.between();
        if !begun {
            (self.head, self.head_ends) = (None, None);
        }
        begun
    }

    /// Fails if the peer has taken nothing for too long.
    fn writing<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.write_ends = None;
            return outcome;
        }
        let patience = self.patience.write;
        let ends = self
            .write_ends
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(ends.as_mut().poll(context));
        Poll::Ready(Err(timed_out("the peer takes nothing")))
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<I: AsyncRead + Unpin> AsyncRead for Timed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let in_head = self.in_head();
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if !in_head && buffer.filled().len() > before {
            self.head = self.seen.between();
        }
        if in_head {
            // Also where bytes keep coming: a head that trickles is a slow one.
            let patience = self.patience.head;
            let ends = self
                .head_ends
                .get_or_insert_with(|| Box::pin(sleep(patience)));
            if ends.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(timed_out("a head does not end")));
            }
        }
        outcome
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Timed<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.seen.unsent.store(true, Ordering::Release);
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.writing(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.seen.unsent.store(true, Ordering::Release);
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.writing(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(outcome, Poll::Ready(Ok(()))) {
            self.seen.unsent.store(false, Ordering::Release);
        }
        self.writing(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.writing(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(5),
        write: Duration::from_secs(30),
    };

    fn pair() -> (DuplexStream, Timed<DuplexStream>, Arc<Seen>) {
        let (peer, ours) = duplex(8);
        let (stream, turns) = timed::<_, (), _>(ours, (), PATIENCE);
        (peer, stream, turns.seen)
    }

    /// Reads four bytes; how long it took until an error, if there was one.
    async fn read(stream: &mut Timed<DuplexStream>) -> Result<(), Duration> {
        let begun = tokio::time::Instant::now();
        let outcome = stream.read_exact(&mut [0; 4]).await;
        outcome.map(drop).map_err(|error| {
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            begun.elapsed()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_fails_also_if_it_trickles() {
        let (mut peer, mut stream, _seen) = pair();
        tokio::spawn(async move {
            for _ in 0..100 {
                sleep(Duration::from_secs(2)).await;
                peer.write_all(b"G").await.unwrap();
            }
        });
        let waited = read(&mut stream).await.unwrap_err();
        // The first byte came after two seconds, and begins the head.
        assert_eq!(waited.as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_and_a_long_answer_are_not_slow_heads() {
        let (mut peer, mut stream, seen) = pair();
        peer.write_all(b"head").await.unwrap();
        read(&mut stream).await.unwrap();
        let turn = Turn::begin(&seen);
        let patient = tokio::time::timeout(Duration::from_secs(60), read(&mut stream)).await;
        patient.expect_err("a peer that waits for its answer owes nothing");
        drop(turn);
        let patient = tokio::time::timeout(Duration::from_secs(60), read(&mut stream)).await;
        patient.expect_err("a peer between two requests owes nothing");
        peer.write_all(b"h").await.unwrap();
        assert_eq!(read(&mut stream).await.unwrap_err().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_fails_the_write_and_one_that_takes_a_little_does_not() {
        let (mut peer, mut stream, _seen) = pair();
        let slow = tokio::spawn(async move {
            for _ in 0..8 {
                sleep(Duration::from_secs(20)).await;
                peer.read_exact(&mut [0; 1]).await.unwrap();
            }
            peer
        });
        stream.write_all(&[0; 16]).await.unwrap();
        let _peer = slow.await.unwrap();
        let begun = tokio::time::Instant::now();
        let error = stream.write_all(&[0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 30);
    }
}
