//! The accept loop that warp's own server is not: limits, deadlines, TLS, and an end.

mod gate;
mod strict;
mod timed;

use std::{io, path::Path, sync::Arc, time::Duration};

use futures_util::future::Either;
use gate::gated;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use socket2::{SockRef, TcpKeepalive};
use timed::{Patience, timed};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
pub use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{
    self, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use warp::{Filter, Rejection, reply::Response};

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
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    routes: impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static,
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
    let graceful = GracefulShutdown::new();
    let (cut, cutting) = watch::channel(());
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accept(&listener, &free) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let (server, watcher, mut cutting) =
                    (Arc::clone(&server), graceful.watcher(), cutting.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = server.connection(stream, peer, watcher) => {}
                        _ = cutting.changed() => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some requests did not end in time and were cut");
    }
    // Ends the tasks that are left, and with them their handles of the engine; waits until they are gone.
    drop(cutting);
    cut.send_replace(());
    cut.closed().await;
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

struct Server<F> {
    routes: F,
    tls: Option<TlsAcceptor>,
    http: http1::Builder,
    patience: Patience,
}

impl<F> Server<F>
where
    F: Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static,
{
    async fn connection(&self, stream: TcpStream, peer: Peer, watcher: Watcher) {
        let begun = async {
            end_if_vanished(&stream, self.patience.write)?;
            stream.readable().await?;
            match &self.tls {
                None => Ok::<_, io::Error>(Either::Left(stream)),
                Some(tls) => Ok(Either::Right(tls.accept(stream).await?)),
            }
        };
        match tokio::time::timeout(self.patience.head, begun).await {
            Ok(Ok(Either::Left(stream))) => self.http(stream, peer, watcher).await,
            Ok(Ok(Either::Right(stream))) => self.http(stream, peer, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, "a connection could not begin"),
            Err(_) => tracing::debug!("a connection did not begin in time"),
        }
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        watcher: Watcher,
    ) {
        let service = TowerToHyperService::new(warp::service(self.routes.clone()));
        let service = WithPeer { service, peer };
        let (stream, service) = timed(stream, service, self.patience);
        let (stream, service) = gated(stream, service);
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        // Clients that leave, are slow or talk nonsense are everyday.
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}
