//! Clients that are slow, silent or gone hold nothing for long.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::http::Request;
use crate::common::server::{Data, Server, position};

/// The server's own end of a connection: nothing more comes, or a reset. A read that waits longer than a minute fails.
fn is_closed(stream: &mut impl Read) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_head_that_does_not_end_is_cut_off_and_an_idle_connection_is_not() {
    let data = Data::new();
    let limits = [("HOOKPOOL_LIMITS_HEADER_TIMEOUT_SECONDS", "1")];
    let server = Server::try_start_with(data.path(), &limits).unwrap();
    let request = Request::get("/healthz");
    let mut idle = server.connect();
    idle.call(&request).unwrap().expect(200);
    let address = server.url().trim_start_matches("http://").to_owned();
    let begun = Instant::now();
    for answered_before in [false, true] {
        let mut slow = TcpStream::connect(&address).unwrap();
        slow.set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let whole = request.encode();
        if answered_before {
            std::io::Write::write_all(&mut slow, &whole).unwrap();
            let read = slow.read(&mut [0; 4_096]).unwrap();
            assert!(read > 0, "the first request is answered");
        }
        std::io::Write::write_all(&mut slow, &whole[..20]).unwrap();
        assert!(is_closed(&mut slow), "half a head is answered by the end");
    }
    assert!(begun.elapsed() > Duration::from_secs(2), "a second each");
    idle.call(&request)
        .expect("an idle connection is kept")
        .expect(200);
    server.stop();
}

#[test]
fn a_follower_that_reads_nothing_is_let_go() {
    let data = Data::new();
    let limits = [("HOOKPOOL_LIMITS_WRITE_TIMEOUT_SECONDS", "1")];
    let server = Server::try_start_with(data.path(), &limits).unwrap();
    let connector = server.add_connector("wide", false);
    let fill = "x".repeat(500_000);
    let mut last = 0;
    for n in 0..60 {
        let body = format!(r#"{{"id":"{n}","fill":"{fill}"}}"#);
        last = position(&server.post(&connector, body).expect(202));
    }
    server.items("wide", last);
    let followers = || {
        let metrics = server.get("/metrics").expect(200);
        let line = metrics
            .text()
            .lines()
            .find(|line| line.starts_with("hookpool_followers "));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    let follow = Request::get("/api/streams/wide/changes").bearer(&server.operator_key);
    let mut reader = server.connect();
    reader.send(&follow.encode()).unwrap();
    let begun = Instant::now();
    let waits_for = |count: &str| {
        while followers() != count {
            assert!(begun.elapsed() < Duration::from_secs(30), "{}", followers());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    waits_for("1");
    waits_for("0");
    server.stop();
}
