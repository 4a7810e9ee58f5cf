//! The followers in `examples/`, run as files against the real server, through a proxy that cuts and over a change of rules.

mod crowded;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::common::fold::{Object, Pool, as_served};
use crate::common::program::{command, lines, repository, signal, tool};
use crate::common::server::{Data, Server, position};
use crate::common::{eventually, seeded};
use crate::selected::expected;
use crate::sse_readers::CuttingProxy;

const STREAM: &str = "rooms";
const EVENTS: usize = 120;

/// What an example prints: `{"cursor","items"}`, or a cursor and the items.
struct Copy {
    generation: u64,
    position: u64,
    items: Pool,
}

impl Copy {
    fn parse(line: &str) -> Self {
        #[derive(Deserialize)]
        struct Line {
            cursor: String,
            items: BTreeMap<String, Object>,
        }
        let line: Line = match line.split_once(' ') {
            Some((cursor, items)) if !line.starts_with('{') => Line {
                cursor: cursor.to_owned(),
                items: serde_json::from_str(items).unwrap(),
            },
            _ => serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}")),
        };
        let mut cursor = line
            .cursor
            .rsplit('.')
            .map(|part| part.parse().unwrap_or(0));
        let (position, generation) = (cursor.next().unwrap(), cursor.next().unwrap());
        let item = |(id, fields): (String, Object)| {
            let field = |(name, value): (String, Box<_>)| (name, as_served(&value));
            (id, fields.into_iter().map(field).collect())
        };
        Self {
            generation,
            position,
            items: line.items.into_iter().map(item).collect(),
        }
    }
}

/// Other rules, served.
fn drop_a_field(server: &Server) {
    let rules = json!({"projection": {"fields": {"extra": {"drop": true}}}});
    let rebuilds = format!("streams/{STREAM}/rebuilds");
    server.admin("POST", &rebuilds, &rules).expect(201);
    eventually("the rebuild is ready", Duration::from_secs(60), || {
        let target = format!("/api/admin/{rebuilds}/current");
        let status: Value = server.get(&target).expect(200).json();
        (status["state"] == "ready").then_some(())
    });
    let target = format!("/api/admin/{rebuilds}/current:promote");
    let request = crate::common::http::Request::post(&target).bearer(&server.operator_key);
    server
        .call(&request.header("If-Match", "*").body(""))
        .expect(200);
}

/// Every copy that an example prints is what the log says; the last one, under other rules, what the server serves.
fn hold_to_the_log(test: &str, example: Command) {
    hold_to_the_log_of(test, example, &[]);
}

/// The same, of a server with these settings.
fn hold_to_the_log_of(test: &str, mut example: Command, settings: &[(&str, &str)]) {
    let mut random = seeded(test);
    let data = Data::new();
    let server = Server::try_start_with(data.path(), settings).unwrap();
    let connector = server.add_connector(STREAM, false);
    let post = |n: usize| {
        let body = format!(
            r#"{{"id":"i{}","n":{n},"text":"{n} ü","extra":"{n}"}}"#,
            n % 7
        );
        position(&server.post(&connector, body).expect(202))
    };
    post(0);
    let proxy = CuttingProxy::start(server.addr, 3, StdRng::from_rng(&mut random));
    example
        .env("HOOKPOOL_SERVER", proxy.url())
        .env("HOOKPOOL_READ_KEY", server.add_reader("example", &[STREAM]));
    let mut child = example
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let printed = lines(child.stdout.take().unwrap());
    let next = || {
        printed
            .recv_timeout(Duration::from_secs(60))
            .map(|line| Copy::parse(&line))
    };
    let mut copies = vec![next().unwrap()];
    let mut last = 0;
    for n in 1..EVENTS {
        last = post(n);
        std::thread::sleep(Duration::from_millis(40));
    }
    drop_a_field(&server);
    while copies
        .last()
        .is_none_or(|copy| copy.position < last || copy.generation == 1)
    {
        copies.push(next().unwrap());
    }
    // By a signal that it can hear: one of them has to end a browser first.
    signal("TERM", child.id());
    let ended = || child.try_wait().unwrap();
    eventually("the example ends", Duration::from_secs(30), ended);

    let log = server.log(STREAM);
    for copy in copies.iter().filter(|copy| copy.generation == 1) {
        let expected = expected(&log, copy.position, |_| true, None);
        assert_eq!(copy.items, expected, "{}", copy.position);
    }
    let (_, items) = server.items(STREAM, last);
    assert!(items.values().all(|item| !item.contains_key("extra")));
    assert_eq!(copies.last().unwrap().items, items);
    proxy.has_cut();
    server.stop();
}

/// In a folder of its own beside its package, as `npm install` leaves it.
fn node(folder: &Path) -> Command {
    let modules = tool("HOOKPOOL_NODE_MODULES");
    std::os::unix::fs::symlink(modules, folder.join("node_modules")).unwrap();
    let example = folder.join("follower.mjs");
    std::fs::copy(repository("examples/follower.mjs"), &example).unwrap();
    let mut node = command(tool("HOOKPOOL_NODE"));
    node.arg(example).arg(STREAM);
    node
}

fn python() -> Command {
    let mut python = command(tool("HOOKPOOL_PYTHON"));
    python.arg(repository("examples/follower.py")).arg(STREAM);
    python
}

/// A page, and the origin that it has.
fn browser() -> (Command, String) {
    // A server names an origin before a page of it is there: at an address where nobody else takes the port meanwhile.
    let reserved = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = reserved.local_addr().unwrap().port().to_string();
    drop(reserved);
    let mut node = command(tool("HOOKPOOL_NODE"));
    node.arg(repository("tests/readers/page.mjs"))
        .arg(tool("HOOKPOOL_CHROMIUM"))
        .arg(repository("examples/browser.html"))
        .args([&port, STREAM]);
    (node, format!("http://127.0.0.2:{port}"))
}

#[test]
#[ignore = "needs node with eventsource: tests/run"]
fn the_node_follower_keeps_an_exact_copy() {
    let folder = tempfile::tempdir().unwrap();
    hold_to_the_log("example-node", node(folder.path()));
}

#[test]
#[ignore = "needs python with httpx-sse: tests/run"]
fn the_python_follower_keeps_an_exact_copy() {
    hold_to_the_log("example-python", python());
}

#[test]
#[ignore = "needs the examples, which only a build of everything makes: tests/run"]
fn the_rust_follower_keeps_an_exact_copy() {
    let folder = Path::new(env!("CARGO_BIN_EXE_hookpool")).parent().unwrap();
    hold_to_the_log("example-rust", command(folder.join("examples/follower")));
}

#[test]
#[ignore = "needs chromium and node: tests/run"]
fn the_page_in_a_browser_keeps_an_exact_copy() {
    let (page, origin) = browser();
    let settings = [("HOOKPOOL_CORS_ORIGINS", origin.as_str())];
    hold_to_the_log_of("example-browser", page, &settings);
}
