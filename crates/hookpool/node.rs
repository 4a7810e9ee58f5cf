//! Where a backend meets the engine: opens a data folder and starts the pipeline over it. The only place that names both.

use std::{
    fs::DirBuilder, future::Future, net::SocketAddr, os::unix::fs::DirBuilderExt, path::Path,
    sync::Arc, time::Duration,
};

use anyhow::Context;
use hookpool_core::{
    control::ControlChange,
    key::{KeyId, Secret},
    position::Epoch,
    registry::Operator,
};
use hookpool_engine::{
    Engine, appender, clock::Clock, engine::Running, entropy::Entropy, rejections::Keeping,
    status::Status,
};
use hookpool_fjall::{FjallLog, FjallPool, Options as LogOptions, RejectionFolder, VERIFY_BYTES};
use hookpool_http::server::{self, Limits, TlsAcceptor};
use hookpool_store::{RejectionStore, memory::MemoryRejections};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{config::Settings, keys, threads::Followers};

/// Longer than a reader that keeps up needs for a large snapshot.
const VIEW_LIFETIME: Duration = Duration::from_secs(60);

/// A data folder with its engine running.
pub(crate) struct Node {
    pub(crate) engine: Arc<Engine<FjallLog, FjallPool>>,
    running: Running,
    /// Made by this start, if it was the first.
    pub(crate) new_operator_key: Option<Secret>,
}

impl Node {
    /// Opens the folder, or makes it.
    pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let dir = &settings.data_dir;
        let new_folder = make_folder(dir)?;
        // The first start makes the log before it makes `control`, so this is a restore that was cut off, or a lost log.
        anyhow::ensure!(
            new_folder || dir.join("log").exists(),
            "{} holds `control` but no `log`: restore both from a backup taken together",
            dir.display()
        );
        let log = |name: &str| {
            let epoch_if_new = Epoch(u64::from_le_bytes(Entropy::System.bytes()));
            FjallLog::open(
                &dir.join(name),
                LogOptions {
                    epoch_if_new,
                    verify_bytes: VERIFY_BYTES,
                },
            )
        };
        // The lock of the log guards the whole folder: taken before anything else is touched.
        let events = log("log")?;
        let master = keys::master_key(dir, new_folder)?;
        let control = log("control")?;
        let pool = FjallPool::open(&dir.join("pool"))?;
        let options = hookpool_engine::Options {
            master,
            encode: hookpool_http::encode_change,
            limits: appender::Limits {
                queue_bytes: settings.queue_bytes,
                ..appender::Limits::default()
            },
            clock: Clock::System,
            entropy: Entropy::System,
            rejections: Keeping {
                store: rejections(dir),
                count: settings.rejections,
                bytes: settings.rejection_bytes as u64,
            },
        };
        let (engine, running) = Engine::start(events, control, pool, options).await?;
        let new_operator_key = first_operator(&engine, dir).await?;
        Ok(Self {
            engine,
            running,
            new_operator_key,
        })
    }

    /// Makes another operator key; the ones before it work on, or are revoked.
    pub(crate) async fn add_operator(&self, dir: &Path, revoke_others: bool) -> anyhow::Result<()> {
        let (key_id, _) = add_operator(&self.engine, dir).await?;
        let control = self.engine.control();
        let ids = |all: Vec<&Arc<Operator>>| -> Vec<KeyId> {
            all.iter().map(|one| one.key.key_id.clone()).collect()
        };
        let all = ids(control.registry().operators());
        for other in all.into_iter().filter(|id| revoke_others && *id != key_id) {
            let subject = other.to_string();
            let change = ControlChange::OperatorRevoked { key_id: other };
            control.change(&key_id, &subject, change).await?;
        }
        Ok(())
    }

    /// Ends in order without having served.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        self.engine.status().stop();
        drop(self.engine);
        join(self.running).await
    }

    /// Serves until `stop` is done or the engine fails, then ends in order. Says how it ended.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        settings: &Settings,
        public_url: String,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<Status> {
        let Self {
            engine, running, ..
        } = self;
        let edge = hookpool_http::Settings {
            body_bytes: settings.body_bytes,
            body_timeout: settings.body_timeout,
            bulk_bytes: settings.ingest_body_bytes,
            bulk_timeout: settings.ingest_body_timeout,
            public_url,
            cors_origins: settings.cors_origins.0.clone(),
            trusted_proxies: settings.trusted_proxies.0.clone(),
            failures_per_minute: settings.auth_failures,
            followers_max: settings.followers,
            view_lifetime: VIEW_LIFETIME,
        };
        let limits = Limits {
            connections: settings.connections,
            head: settings.header_timeout,
            keep_alive: settings.keep_alive,
            write: settings.write_timeout,
            drain: settings.drain,
        };
        let status = engine.status().clone();
        let stopped = async {
            tokio::select! {
                () = stop => status.stop(),
                _ = status.ended() => {}
            }
        };
        let followers = Followers::start()?;
        server::serve(
            listener,
            followers.handle(),
            tls,
            hookpool_http::routes(engine, edge),
            limits,
            stopped,
        )
        .await;
        // The last handle of the engine is gone with the connections: what was queued is being written.
        join(running).await?;
        Ok(status.get())
    }
}

/// Nobody needs them to be taken deliveries from: where there is no folder for them, they last as long as the process.
fn rejections(dir: &Path) -> Arc<dyn RejectionStore> {
    match RejectionFolder::open(&dir.join("rejections")) {
        Ok(folder) => Arc::new(folder),
        Err(error) => {
            tracing::warn!(%error, "the folder of rejections can't be made; they are kept in memory");
            Arc::new(MemoryRejections::default())
        }
    }
}

async fn join(running: Running) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || running.join())
        .await
        .context("the writers did not end in order")
}

/// Binds before anything is opened, so that a taken port costs nothing.
pub(crate) async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    let hint =
        "is another server running there? --listen takes another address, and port 0 any free port";
    TcpListener::bind(listen)
        .await
        .with_context(|| format!("{listen} can't be listened on; {hint}"))
}

/// What HTTPS needs, read before anything is opened.
pub(crate) fn tls(settings: &Settings) -> anyhow::Result<Option<TlsAcceptor>> {
    let hint = "tls.cert and tls.key name PEM files that this user may read";
    match (&settings.tls_cert, &settings.tls_key) {
        (Some(certificates), Some(key)) => Ok(Some(server::tls(certificates, key).context(hint)?)),
        _ => Ok(None),
    }
}

/// Waits for SIGTERM or Ctrl-C. Both are caught from the call on, not from the first poll: a stop that comes while the folder is
/// being opened counts too.
pub(crate) fn interrupted() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("Ctrl-C can't be handled")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn make_folder(dir: &Path) -> anyhow::Result<bool> {
    // The control log is what the master key is for: a start that was cut before it was made is still a first start.
    let new = !dir.join("control").exists();
    let hint = "choose another with --data-dir, or give this user the right to write there";
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("the data folder {} can't be made; {hint}", dir.display()))?;
    Ok(new)
}

/// The first start makes the key that everything else is made with.
async fn first_operator(
    engine: &Engine<FjallLog, FjallPool>,
    dir: &Path,
) -> anyhow::Result<Option<Secret>> {
    if !engine.control().registry().operators().is_empty() {
        return Ok(None);
    }
    let (_, key) = add_operator(engine, dir).await?;
    Ok(Some(key))
}

async fn add_operator(
    engine: &Engine<FjallLog, FjallPool>,
    dir: &Path,
) -> anyhow::Result<(KeyId, Secret)> {
    let (key, change) = engine.control().draw_operator();
    // IMPORTANT: the file first. A crash in between leaves a key that does not work yet, and another is made next time.
    keys::write_operator_key(dir, &key.secret)?;
    engine
        .control()
        .change(&key.key_id, "operator", change)
        .await?;
    Ok((key.key_id, key.secret))
}
