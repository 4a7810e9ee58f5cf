//! The accept loop that warp's own server is not: limits, deadlines, TLS, and an end.

mod endless;
mod gate;
mod strict;
mod timed;

use std::{future::poll_fn, io, path::Path, pin::Pin, sync::Arc, task::Poll, time::Duration};

use endless::Part;
use futures_util::future::{BoxFuture, Either, FutureExt as _};
use gate::gated;
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::HttpService,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::{SockRef, TcpKeepalive};
use timed::{Answer, Handover, Patience, timed};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{Semaphore, watch},
};
pub use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{
    self, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use warp::{Filter, Rejection, reply::Response};

pub(crate) use endless::Endless;

use crate::peer::{Peer, WithPeer};

/// What one server may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections; more wait to be accepted.
    pub connections: usize,
    /// Until the first byte of a fresh connection, TLS handshake included; and from the first byte of a request's head to its last.
    pub head: Duration,
    /// Between two requests.
    pub keep_alive: Duration,
    /// How long a peer may take nothing of what is sent to it, and how long it may leave packets unanswered.
    pub write: Duration,
    /// For open requests after the stop.
    pub drain: Duration,
}

/// Bytes that the head of a request may have, its first line included; a little less than what hyper reads at once.
pub(crate) const HEAD_BYTES_MAX: usize = 31 << 10;
pub(crate) const HEADERS_MAX: usize = 64;
/// As much as everybody should take (RFC 9110, 4.1).
pub(crate) const TARGET_BYTES_MAX: usize = 8_000;
const READ_BYTES_MAX: usize = 32 << 10;
/// What a connection has to say and can't send yet, in the kernel; more waits here, where frames are shared.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 128 << 10;
/// After a failed accept, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or not PEM.
    #[error("read {path}: {cause}")]
    Pem {
        /// Which file.
        path: String,
        /// What is wrong with it.
        cause: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not go together.
    #[error("use the certificate and key: {0}")]
    Pair(#[from] rustls::Error),
}

/// TLS from PEM files: the certificate chain and its key.
///
/// # Errors
/// [`TlsError`]
pub fn tls(certificates: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let pem = |path: &Path| {
        let path = path.display().to_string();
        move |cause| TlsError::Pem { path, cause }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificates)
        .map_err(pem(certificates))?
        .collect();
    let chain = chain.map_err(pem(certificates))?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(pem(key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until `stop` is done, then lets open requests end, at most for the drain time. Change streams must end by themselves.
///
/// They run on `followers`: however many are woken at once, with threads of their own they take no more than their share from requests.
pub async fn serve(
    listener: TcpListener,
    followers: &Handle,
    tls: Option<TlsAcceptor>,
    routes: impl Filter<Extract = (Response,), Error = Rejection>
    + Clone
    + Send
    + Sync
    + Unpin
    + 'static,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let server = Arc::new(Server {
        routes,
        tls,
        http: http(&limits),
        patience: Patience {
            head: limits.head,
            write: limits.write,
        },
    });
    let free = Arc::new(Semaphore::new(limits.connections));
    let (course, _) = watch::channel(Course::Serving);
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accept(&listener, &free) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let (server, course, mut cut) =
                    (Arc::clone(&server), course.subscribe(), course.subscribe());
                let followers = followers.clone();
                tokio::spawn(async move {
                    let rest = tokio::select! {
                        rest = server.connection(stream, peer, course) => rest,
                        _ = cut.wait_for(|course| *course == Course::Cutting) => None,
                    };
                    if let Some(rest) = rest {
                        followers.spawn(async move {
                            tokio::select! {
                                written = rest => said(written.map_err(Ended::Stream)),
                                _ = cut.wait_for(|course| *course == Course::Cutting) => {}
                            }
                            drop(place);
                        });
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    course.send_replace(Course::Draining);
    if tokio::time::timeout(limits.drain, course.closed())
        .await
        .is_err()
    {
        tracing::warn!("some requests did not end in time and were cut");
    }
    // Ends the tasks that are left, and with them their handles of the engine; waits until they are gone.
    course.send_replace(Course::Cutting);
    course.closed().await;
}

/// What connections are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Serving,
    /// What is being answered is the last.
    Draining,
    Cutting,
}

fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.keep_alive)
        .max_headers(HEADERS_MAX)
        .max_buf_size(READ_BYTES_MAX);
    http
}

async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Peer, tokio::sync::OwnedSemaphorePermit)> {
    // A place first: what can't be served is left in the kernel's queue.
    let place = Arc::clone(free)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, Peer(address.ip()), place))
}

/// Has the kernel notice a peer that vanished without a word: one that owes an acknowledgement, or that has nothing to say.
fn end_if_vanished(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    // The kernel counts in seconds.
    let interval = (patience / 3).max(Duration::from_secs(1));
    let probes = TcpKeepalive::new()
        .with_time(patience)
        .with_interval(interval);
    socket.set_tcp_keepalive(&probes)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(patience))?;
    Ok(())
}

/// Has the kernel hold little of what a peer does not take: it would keep megabytes for each, and filling them costs those who send.
fn wait_for_slow(stream: &TcpStream) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    Ok(())
}

struct Server<F> {
    routes: F,
    tls: Option<TlsAcceptor>,
    http: http1::Builder,
    patience: Patience,
}

impl<F> Server<F>
where
    F: Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + Unpin + 'static,
{
    /// Serves a connection; what is left of it, if it ends in an answer that goes on.
    async fn connection(
        &self,
        stream: TcpStream,
        peer: Peer,
        course: watch::Receiver<Course>,
    ) -> Option<Rest> {
        let begun = async {
            end_if_vanished(&stream, self.patience.write)?;
            wait_for_slow(&stream)?;
            stream.readable().await?;
            match &self.tls {
                None => Ok::<_, io::Error>(Either::Left(stream)),
                Some(tls) => Ok(Either::Right(Box::new(tls.accept(stream).await?))),
            }
        };
        let ended = match tokio::time::timeout(self.patience.head, begun).await {
            Ok(Ok(Either::Left(stream))) => self.http(stream, peer, course).await,
            Ok(Ok(Either::Right(stream))) => self.http(stream, peer, course).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection could not begin");
                return None;
            }
            Err(_) => {
                tracing::debug!("a connection did not begin in time");
                return None;
            }
        };
        ended.unwrap_or_else(|error| {
            said(Err(error));
            None
        })
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        course: watch::Receiver<Course>,
    ) -> Result<Option<Rest>, Ended> {
        let service = TowerToHyperService::new(warp::service(self.routes.clone()));
        let service = WithPeer { service, peer };
        let (stream, service) = timed(stream, service, self.patience);
        let handover = service.handover();
        let (stream, service) = gated(stream, service);
        // In a box, of which nothing is left when hyper is gone.
        let connection = Box::new(self.http.serve_connection(TokioIo::new(stream), service));
        let left = until_handed_over(connection, handover, course).await?;
        Ok(left.map(|(gate, body)| endless::write_rest(gate.into_inner(), body).boxed()))
    }
}

/// Writes what is left of an answer.
type Rest = BoxFuture<'static, io::Result<()>>;

/// Clients that leave, are slow or talk nonsense are everyday.
fn said(ended: Result<(), Ended>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Stream(#[from] io::Error),
}

/// As hyper wants it of services and bodies.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Has hyper serve a connection until it ends, or until the head of an answer is sent that goes on: then what is left of both.
async fn until_handed_over<I, S, B>(
    mut connection: Box<http1::Connection<TokioIo<I>, S>>,
    handover: Handover<B>,
    mut course: watch::Receiver<Course>,
) -> Result<Option<(I, Answer<B>)>, hyper::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = Part<Answer<B>>> + Unpin,
    S::Error: Into<Failure>,
    B: Body<Error: Into<Failure>> + Unpin + 'static,
{
    let mut draining = false;
    let body = loop {
        let served = poll_fn(|context| match Pin::new(&mut *connection).poll(context) {
            Poll::Ready(ended) => Poll::Ready(ended.map(|()| None)),
            Poll::Pending => match handover.take() {
                Some(body) => Poll::Ready(Ok(Some(body))),
                None => Poll::Pending,
            },
        });
        tokio::select! {
            biased;
            _ = course.wait_for(|course| *course != Course::Serving), if !draining => {}
            served = served => break served?,
        }
        draining = true;
        Pin::new(&mut *connection).graceful_shutdown();
    };
    Ok(body.map(|body| (connection.into_parts().io.into_inner(), body)))
}
