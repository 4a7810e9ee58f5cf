//! The servers that are measured, each as a process of its own on a scratch folder, on loopback only.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use hookpool_client::{NewConnector, Operator, Secret};

/// What is measured.
pub(crate) enum Target {
    Hookpool,
    /// The same, followed as lines of JSON.
    Ndjson,
    /// The same, followed with this in the query.
    Selected(String),
    /// Another build of it, by the path of its program, with this in the query.
    Before(String, String),
    /// The crate `durable-streams`, by the path of its server.
    DurableStreams(String),
    /// nginx with nchan, as Debian packages them.
    Nchan,
}

impl Target {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Hookpool => "hookpool",
            Self::Ndjson => "hookpool NDJSON",
            Self::Selected(query) => query,
            Self::Before(..) => "hookpool before",
            Self::DurableStreams(_) => "durable-streams",
            Self::Nchan => "nginx+nchan",
        }
    }
}

/// A running server, and how to follow and to publish.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// A whole request; `{n}` in it is the number of the follower.
    pub(crate) follow: String,
    /// The head of a request up to its length.
    pub(crate) publish: String,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(target: &Target) -> Self {
        let folder = tempfile::tempdir().unwrap();
        match target {
            Target::Hookpool => hookpool(OURS, folder, "", EVENTS),
            Target::Ndjson => hookpool(OURS, folder, "", LINES),
            Target::Selected(query) => hookpool(OURS, folder, query, EVENTS),
            Target::Before(program, query) => hookpool(program, folder, query, EVENTS),
            Target::DurableStreams(program) => durable_streams(program, folder),
            Target::Nchan => nchan(folder),
        }
    }

    /// Resident memory of the server.
    pub(crate) fn memory_kib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn head(method: &str, target: &str, more: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{more}")
}

const JSON: &str = "Content-Type: application/json\r\n";
const EVENTS: &str = "Accept: text/event-stream\r\n\r\n";
const LINES: &str = "Accept: application/x-ndjson\r\n\r\n";
const OURS: &str = env!("CARGO_BIN_EXE_hookpool");

fn hookpool(program: &str, folder: tempfile::TempDir, query: &str, accept: &str) -> Server {
    let data = folder.path().join("data");
    let mut serve = Command::new(program);
    serve
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .env("RUST_LOG", "warn");
    let mut child = serve.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap();
    let key = std::fs::read_to_string(data.join("operator.key")).unwrap();
    let operator = Operator::new(
        hookpool_client::Server::new(url).unwrap(),
        Secret::new(key.trim().to_owned()),
    );
    let (connector, reader) = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let connector = NewConnector {
            stream: "c".into(),
            ..NewConnector::default()
        };
        (
            operator.add_connector(&connector).await.unwrap(),
            operator.add_reader("bench", &["c".into()]).await.unwrap(),
        )
    });
    let bearer = |key: &Secret| format!("Authorization: Bearer {}\r\n", key.expose());
    let (write, read) = (bearer(&connector.ingest_key), bearer(&reader.read_key));
    let and = if query.is_empty() { "" } else { "&" };
    let target = format!("/api/streams/c/changes?after=now{and}{query}");
    let follow = head("GET", &target, &format!("{read}{accept}"));
    Server {
        address: url.strip_prefix("http://").unwrap().parse().unwrap(),
        follow,
        publish: head("POST", "/api/webhook/c", &format!("{write}{JSON}")),
        child,
        _folder: folder,
    }
}

fn durable_streams(program: &str, folder: tempfile::TempDir) -> Server {
    let address = free_address();
    let child = Command::new(program)
        .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
        .arg("--data-dir")
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(address);
    let made = Command::new("curl")
        .args(["-sfX", "PUT", "-H", "Content-Type: application/json"])
        .arg(format!("http://{address}/c"))
        .status();
    assert!(made.unwrap().success(), "a stream is made with curl");
    Server {
        address,
        follow: head("GET", "/c?offset=now&live=sse", EVENTS),
        publish: head("POST", "/c", JSON),
        child,
        _folder: folder,
    }
}

fn nchan(folder: tempfile::TempDir) -> Server {
    let address = free_address();
    let configuration = folder.path().join("nginx.conf");
    std::fs::write(&configuration, nginx(address, folder.path())).unwrap();
    let child = Command::new("nginx")
        .arg("-c")
        .arg(&configuration)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(address);
    Server {
        address,
        follow: head("GET", "/sub", EVENTS),
        publish: head("POST", "/pub", JSON),
        child,
        _folder: folder,
    }
}

/// One process, and new subscribers get no old messages.
fn nginx(address: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "load_module /usr/lib/nginx/modules/ngx_nchan_module.so;\n\
         daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n\
         events {{ worker_connections 19000; }}\n\
         http {{ access_log off; client_body_temp_path {folder}/body; server {{ listen {address};\n\
         keepalive_requests 1000000000;\n\
         location = /pub {{ nchan_publisher; nchan_channel_id c; }}\n\
         location = /sub {{ nchan_subscriber eventsource; nchan_channel_id c; nchan_subscriber_first_message newest; }}\n\
         }} }}\n"
    )
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
