//! The history leaves and comes back: exports, imports, signed heads, backups, restores.

mod backups;
mod exports;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hookpool_core::position::{Epoch, Position};
use hookpool_fjall::{FjallLog, Options};
use hookpool_store::EventLog as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::fold::assert_same;
use crate::common::http::Request;
use crate::common::program::{both, hookpool, output_within, succeed};
use crate::common::server::{Connector, Data, Server, position};

const LIMIT: Duration = Duration::from_secs(60);

/// A command of ours that asks this server.
fn ask(server: &Server, data: &Data) -> Command {
    let mut command = hookpool();
    command.args(["--server", &server.url(), "--data-dir"]);
    command.arg(data.path());
    command
}

/// A command of ours on a folder that nobody serves.
fn offline(data: &Path, words: &[&str]) -> Command {
    let mut command = hookpool();
    command.args(words).arg("--data-dir").arg(data);
    command
}

#[track_caller]
fn fails(code: i32, command: &mut Command) -> String {
    let output = output_within(LIMIT, command);
    assert_eq!(output.status.code(), Some(code), "{}", both(&output));
    both(&output)
}

/// Deliveries to two streams, with bodies of all kinds; the position of the last.
fn fill(server: &Server) -> u64 {
    let connectors = [
        server.add_connector("sales", false),
        server.add_connector("builds", true),
    ];
    let mut last = 0;
    for n in 0..60 {
        let body = match n % 3 {
            0 => format!("{{\n  \"id\": \"item-{}\",\r\n \"n\": {n}.00 }}", n % 7),
            1 => format!(r#"{{"id":"item-{}","text":"\u0000 ü \" {n}"}}"#, n % 7),
            _ => format!(r#"{{"deep":{{"n":[{n},null]}},"deep":{n}}}"#),
        };
        last = position(&server.post(&connectors[n % 2], body).expect(202));
    }
    last
}

fn head(server: &Server, data: &Data) -> Value {
    let text = succeed(ask(server, data).args(["log", "head", "--output", "json"]));
    serde_json::from_str(&text).unwrap()
}

/// The stored bytes of a log.
fn blocks(server: &Server) -> Vec<u8> {
    server.get("/api/admin/blocks").expect(200).body
}

/// A folder for what the commands write.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(TempDir::with_prefix("hookpool-desk-").unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// Posts on connections of their own until told to stop; the acknowledged positions.
fn write_while<T>(server: &Server, connector: &Connector, run: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let stop = &stop;
            scope.spawn(move || {
                let mut connection = server.connect();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let body = format!(r#"{{"id":"{writer}-{}","n":{n}}}"#, n % 50);
                    let request = connector.delivery(body.as_bytes());
                    connection.call(&request).unwrap().expect(202);
                }
            });
        }
        // Dropped also where `run` panics, so that the writers end.
        let _stopping = Stopping(&stop);
        run()
    })
}

struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn backup(server: &Server, data: &Data, dir: &Path) -> Command {
    let mut command = ask(server, data);
    command.args(["backup", "--output", "json"]).arg(dir);
    command
}

/// Puts the keys of a data folder where a restored one needs them.
fn bring_keys(from: &Data, to: &Data) {
    for key in ["master.key", "operator.key"] {
        fs::copy(from.path().join(key), to.path().join(key)).unwrap();
    }
}

/// Drops two of three events of a folder that nobody serves, but for the last ones; how many.
fn drop_most(data: &Data) -> u64 {
    let log = FjallLog::open(&data.path().join("log"), Options::new(Epoch(0))).unwrap();
    let dropped = (1..log.head().0 - 5).filter(|position| position % 3 > 0);
    let dropped = log.drop_events(dropped.map(Position).collect());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().unwrap().block_on(dropped).unwrap().events
}

#[test]
fn a_history_that_lost_events_leaves_and_comes_back_as_it_is() {
    let (data, desk) = (Data::new(), Desk::new());
    let server = data.serve();
    fill(&server);
    let connector = server.add_connector("ledger", true);
    let whole = desk.file("whole");
    let early = write_while(&server, &connector, || {
        std::thread::sleep(Duration::from_millis(300));
        succeed(&mut backup(&server, &data, &whole));
        desk.write("early.json", head(&server, &data).to_string())
    });
    let late = desk.write("late.json", head(&server, &data).to_string());
    server.stop();
    let dropped = drop_most(&data);
    assert!(dropped > 100, "{dropped}");
    // What was signed before holds, and what was dropped is counted.
    let verify = |folder: &Path, head: &Path| -> u64 {
        let mut command = offline(folder, &["verify", "--output", "json"]);
        let verified: Value =
            serde_json::from_str(&succeed(command.arg("--head").arg(head))).unwrap();
        verified["log"]["dropped"].as_u64().unwrap()
    };
    for head in [&early, &late] {
        assert_eq!(verify(data.path(), head), dropped);
    }
    let said = succeed(&mut offline(data.path(), &["verify"]));
    assert!(
        said.contains("DROPPED") && said.contains(&dropped.to_string()),
        "{said}"
    );

    let server = data.serve();
    server.post(&connector, "{}").expect(202);
    let (stored, log) = (blocks(&server), server.log("ledger"));
    let file = desk.file("history.ndjson");
    succeed(ask(&server, &data).arg("export").arg(&file));
    // A backup from before goes on, and keeps what it has; a new one has what the server has.
    succeed(&mut backup(&server, &data, &whole));
    let thinned = desk.file("thinned");
    succeed(&mut backup(&server, &data, &thinned));
    server.stop();
    for head in [&early, &late] {
        assert!(verify(&whole, head) < dropped);
        assert_eq!(verify(&thinned, head), dropped);
        let mut command = hookpool();
        command
            .args(["verify", "--output", "json", "--export"])
            .arg(&file);
        let verified: Value =
            serde_json::from_str(&succeed(command.arg("--head").arg(head))).unwrap();
        assert_eq!(verified["export"]["dropped"], dropped);
    }
    let [imported, restored] = [Data::new(), Data::new()];
    succeed(offline(imported.path(), &["import"]).arg(&file));
    succeed(offline(restored.path(), &["restore"]).arg(&thinned));
    bring_keys(&data, &restored);
    for copy in [&imported, &restored] {
        let again = copy.serve();
        assert_eq!(blocks(&again), stored);
        again.stop();
        assert_eq!(verify(copy.path(), &late), dropped);
    }
    let again = restored.serve();
    assert_same(&again.log("ledger"), &log, "after a restore");
}

#[test]
fn every_new_command_shows_examples() {
    for words in [
        &["log", "head"][..],
        &["verify"],
        &["export"],
        &["import"],
        &["backup"],
        &["restore"],
    ] {
        let help = succeed(hookpool().args(words).arg("--help"));
        assert!(help.contains("Example"), "{words:?}: {help}");
    }
    let unknown = Request::get("/api/admin/export?format=xml");
    let data = Data::new();
    let server = data.serve();
    server.call(&unknown).expect_problem(401, "UNAUTHORIZED");
    for target in [
        "export?format=xml",
        "export?stream=..",
        "export?after=5&until=4",
        "export?limit=1",
        "blocks?log=pool",
        "head?x=1",
    ] {
        let answer = server.get(&format!("/api/admin/{target}"));
        answer.expect_problem(400, "INVALID_PARAMETER");
    }
    let reader = server.add_reader("r", &["*"]);
    for call in ["head", "export", "blocks"] {
        let request = Request::get(&format!("/api/admin/{call}")).bearer(&reader);
        server.call(&request).expect_problem(401, "UNAUTHORIZED");
    }
}
