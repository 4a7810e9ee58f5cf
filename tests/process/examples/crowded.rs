//! What the examples do where a server has as many followers as it may have: they come back when they were told to, and are served then.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Copy, STREAM, browser, node, python};
use crate::common::eventually;
use crate::common::http::Request;
use crate::common::program::{lines, signal};
use crate::common::server::{Data, Server, position};

/// Shorter than what the server asks for, 15 s.
const REST: Duration = Duration::from_secs(12);

/// Passes connections on and counts those that are turned away.
struct Door {
    addr: SocketAddr,
    turned_away: Arc<AtomicUsize>,
}

impl Door {
    fn of(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let turned_away = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&turned_away);
        // Ends with the process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let counter = Arc::clone(&counter);
                std::thread::spawn(move || pass(client, server, &counter));
            }
        });
        Self { addr, turned_away }
    }

    fn turned_away(&self) -> usize {
        self.turned_away.load(Ordering::Relaxed)
    }
}

fn pass(mut client: TcpStream, server: SocketAddr, turned_away: &AtomicUsize) -> io::Result<()> {
    let mut upstream = TcpStream::connect(server)?;
    let (mut requests, mut to_server) = (client.try_clone()?, upstream.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut requests, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut answer, mut buffer) = (Vec::new(), [0; 512]);
    let mut is_known = false;
    while let Ok(read @ 1..) = upstream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..read]);
        if !is_known && memchr::memmem::find(&answer, b"\"overloaded\"").is_some() {
            is_known = true;
            turned_away.fetch_add(1, Ordering::Relaxed);
        }
        client.write_all(&buffer[..read])?;
    }
    client.shutdown(Shutdown::Both)
}

/// Ends by a signal that it can hear, also where the test fails: one of them has to end a browser first.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        signal("TERM", self.0.id());
        let ended = || self.0.try_wait().unwrap();
        eventually("the example ends", Duration::from_secs(30), ended);
    }
}

fn comes_back_when_it_was_told_to(mut example: Command, settings: &[(&str, &str)]) {
    let data = Data::new();
    let settings = [&[("HOOKPOOL_LIMITS_FOLLOWERS", "1")], settings].concat();
    let server = Server::try_start_with(data.path(), &settings).unwrap();
    let connector = server.add_connector(STREAM, false);
    let last = position(&server.post(&connector, r#"{"id":"a"}"#).expect(202));
    let changes = format!("/api/streams/{STREAM}/changes");
    let changes = Request::get(&changes).bearer(&server.operator_key);
    let mut only = server.connect();
    let (answer, _) = only.follow(&changes).unwrap();
    assert_eq!(answer.status, 200);

    let door = Door::of(server.addr);
    example
        .env("HOOKPOOL_SERVER", format!("http://{}", door.addr))
        .env("HOOKPOOL_READ_KEY", server.add_reader("example", &[STREAM]));
    let child = example.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut example = Example(child.unwrap());
    let printed = lines(example.0.stdout.take().unwrap());
    eventually("it is turned away", Duration::from_secs(60), || {
        (door.turned_away() > 0).then_some(())
    });
    std::thread::sleep(REST);
    assert_eq!(door.turned_away(), 1);

    drop(only);
    let copy = printed.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(Copy::parse(&copy).position, last);
    drop(example);
    server.stop();
}

#[test]
#[ignore = "needs node with eventsource: tests/run"]
fn the_node_follower_comes_back_when_it_was_told_to() {
    let folder = tempfile::tempdir().unwrap();
    comes_back_when_it_was_told_to(node(folder.path()), &[]);
}

#[test]
#[ignore = "needs python with httpx-sse: tests/run"]
fn the_python_follower_comes_back_when_it_was_told_to() {
    comes_back_when_it_was_told_to(python(), &[]);
}

#[test]
#[ignore = "needs chromium and node: tests/run"]
fn the_page_in_a_browser_comes_back_when_it_was_told_to() {
    let (page, origin) = browser();
    comes_back_when_it_was_told_to(page, &[("HOOKPOOL_CORS_ORIGINS", &origin)]);
}
