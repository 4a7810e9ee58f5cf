//! The servers that are measured, each as a process of its own on a scratch folder, on loopback only.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use hookpool_client::{Consumer, NewConnector, Operator, Secret, Server as Client};
use tokio::time::Instant;

use crate::{
    bare,
    client::{Keys, Speaks},
    history,
};

/// What is measured.
pub(crate) enum Target {
    /// warp's own server.
    Bare,
    Hookpool,
    /// The same, asked with a fresh `Idempotency-Key` each time.
    Keyed,
    /// The same with so many events in its log.
    History(u64),
    /// Another build of it, by the path of its program.
    Before(String),
    /// The crate `durable-streams`, by the path of its server.
    DurableStreams(String),
    /// Redis, by the path of its server.
    Redis(String),
}

impl Target {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Bare => "bare route",
            Self::Hookpool => "hookpool",
            Self::Keyed => "with keys",
            Self::History(_) => "long history",
            Self::Before(_) => "hookpool before",
            Self::DurableStreams(_) => "durable-streams",
            Self::Redis(_) => "redis",
        }
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) speaks: Speaks,
    child: Child,
    folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(target: &Target) -> Self {
        let folder = tempfile::tempdir().unwrap();
        match target {
            Target::Bare => bare_route(folder),
            Target::Hookpool => hookpool(HOOKPOOL, folder, Speaks::Hookpool),
            Target::Keyed => hookpool(HOOKPOOL, folder, Speaks::Keyed),
            Target::History(events) => history(*events, folder),
            Target::Before(program) => hookpool(program, folder, Speaks::Hookpool),
            Target::DurableStreams(program) => durable_streams(program, folder),
            Target::Redis(program) => redis(program, folder),
        }
    }

    /// Every answer was an event, and the pool has taken them all.
    pub(crate) fn check(&self, answers: u64) {
        let data = self.folder.path().join("data");
        if !data.exists() {
            return;
        }
        let key = operator_key(&data);
        let consumer = Consumer::new(client(self.address), key);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            wait_applied(self.address, answers).await;
            assert_eq!(consumer.streams().await.unwrap().len(), 1);
        });
    }

    /// Kills it with SIGKILL, starts it again on what is there, and says how long that took, once all events are there and applied.
    pub(crate) fn kill_and_start(&mut self, events: u64) -> Start {
        stop(&mut self.child);
        let begun = Instant::now();
        let data = self.folder.path().join("data");
        (self.child, self.address) = serve(HOOKPOOL, &data);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            while client(self.address).ready().await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let ready = begun.elapsed();
            wait_applied(self.address, events).await;
            let applied = begun.elapsed();
            Start { ready, applied }
        })
    }

    /// Processor time that it has taken so far, of programs and kernel; the kernel counts in hundredths of a second.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // After the name, which may hold anything.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }
}

/// How long a server took from its start.
pub(crate) struct Start {
    pub(crate) ready: Duration,
    pub(crate) applied: Duration,
}

impl Drop for Server {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

const HOOKPOOL: &str = env!("CARGO_BIN_EXE_hookpool");

fn hookpool(program: &str, folder: tempfile::TempDir, speaks: fn(Keys) -> Speaks) -> Server {
    let data = folder.path().join("data");
    let (child, address) = serve(program, &data);
    Server {
        address,
        speaks: speaks(connector(address, operator_key(&data))),
        child,
        folder,
    }
}

fn history(events: u64, folder: tempfile::TempDir) -> Server {
    let (child, address, keys) = history::serve(&folder.path().join("data"), events);
    let server = Server {
        address,
        speaks: Speaks::Hookpool(keys),
        child,
        folder,
    };
    server.check(events);
    server
}

fn bare_route(folder: tempfile::TempDir) -> Server {
    let (child, address) =
        listening(Command::new(std::env::current_exe().unwrap()).arg(bare::ARGUMENT));
    // It looks at no key, but its requests are as long as the others.
    let keys = Keys {
        ingest: format!("ik_{:012}_{:043}", 0, 0),
        signing: "whsk".into(),
    };
    Server {
        address,
        speaks: Speaks::Hookpool(keys),
        child,
        folder,
    }
}

fn durable_streams(program: &str, folder: tempfile::TempDir) -> Server {
    let address = free_address();
    let mut serve = Command::new(program);
    serve
        .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
        .arg("--data-dir")
        .arg(folder.path());
    let child = quiet(&mut serve);
    wait_for(address);
    let made = Command::new("curl")
        .args(["-sfX", "PUT", "-H", "Content-Type: application/json"])
        .arg(format!("http://{address}/load"))
        .status();
    assert!(made.unwrap().success(), "a stream is made with curl");
    Server {
        address,
        speaks: Speaks::DurableStreams,
        child,
        folder,
    }
}

fn redis(program: &str, folder: tempfile::TempDir) -> Server {
    let address = free_address();
    let mut serve = Command::new(program);
    serve
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
        .args(["--appendonly", "yes", "--appendfsync", "always"])
        .args(["--save", "", "--dir"])
        .arg(folder.path());
    let child = quiet(&mut serve);
    wait_for(address);
    Server {
        address,
        speaks: Speaks::Redis,
        child,
        folder,
    }
}

fn quiet(command: &mut Command) -> Child {
    let silent = command.stdout(Stdio::null()).stderr(Stdio::null());
    silent.spawn().unwrap()
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn wait_for(address: SocketAddr) {
    let listens = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        TcpStream::connect(address).is_ok()
    });
    assert!(listens, "nothing listens on {address} after ten seconds");
}

/// Hookpool on a folder.
pub(crate) fn serve(program: &str, data: &Path) -> (Child, SocketAddr) {
    let mut serve = Command::new(program);
    serve
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data)
        .env("RUST_LOG", "warn")
        .stderr(Stdio::null());
    listening(&mut serve)
}

pub(crate) fn stop(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

pub(crate) fn operator_key(data: &Path) -> Secret {
    let key = std::fs::read_to_string(data.join("operator.key")).unwrap();
    Secret::new(key.trim().to_owned())
}

/// Waits until the pool has all of a log that has at least so many events.
pub(crate) async fn wait_applied(address: SocketAddr, events: u64) {
    for _ in 0..6_000 {
        let ready = client(address).ready().await.unwrap();
        assert!(
            ready.position >= events,
            "{} events of {events}",
            ready.position
        );
        if ready.applied == ready.position {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the pool did not catch up within a minute");
}

fn listening(command: &mut Command) -> (Child, SocketAddr) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line
        .trim()
        .strip_prefix("listening on http://")
        .unwrap()
        .parse()
        .unwrap();
    (child, address)
}

pub(crate) fn client(address: SocketAddr) -> Client {
    Client::new(&format!("http://{address}")).unwrap()
}

pub(crate) fn connector(address: SocketAddr, operator_key: Secret) -> Keys {
    let operator = Operator::new(client(address), operator_key);
    let new = NewConnector {
        stream: "load".into(),
        signed: true,
        id_field: Some("region".into()),
        ..NewConnector::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let made = runtime.block_on(operator.add_connector(&new)).unwrap();
    Keys {
        ingest: made.ingest_key.expose().to_owned(),
        signing: made.signing_key.unwrap().expose().to_owned(),
    }
}
