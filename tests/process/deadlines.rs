//! Clients that are slow, silent or gone hold nothing for long.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::eventually;
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
fn one_follower_too_many_is_told_to_come_back_later() {
    let data = Data::new();
    let limits = [("HOOKPOOL_LIMITS_FOLLOWERS", "2")];
    let server = Server::try_start_with(data.path(), &limits).unwrap();
    let connector = server.add_connector("full", false);
    let follow = |accept: &str| {
        let request = Request::get("/api/streams/full/changes?after=now");
        let request = request.bearer(&server.operator_key);
        request.header("Accept", accept)
    };
    let mut inside = [server.connect(), server.connect()];
    for connection in &mut inside {
        let (head, mut frames) = connection.follow(&follow("text/event-stream")).unwrap();
        assert_eq!(head.status, 200);
        assert!(frames.read(&mut [0; 1_024]).unwrap() > 0);
    }
    let goodbye = r#"{"event":"goodbye","data":{"reason":"overloaded"}}"#;
    for (accept, said) in [
        (
            "text/event-stream",
            "retry: 15000\nevent: goodbye\ndata: {\"reason\":\"overloaded\"}\n\n".to_owned(),
        ),
        ("application/x-ndjson", format!("{goodbye}\n")),
        (
            "application/json",
            format!(r#"{{"frames":[{goodbye}],"cursor":"now"}}"#),
        ),
    ] {
        let answer = server.call(&follow(accept)).expect(200);
        assert_eq!(answer.text(), said);
    }
    // Nobody else is kept out, and who leaves makes room.
    server.post(&connector, "{}").expect(202);
    drop(inside);
    eventually("there is room again", Duration::from_secs(10), || {
        let mut connection = server.connect();
        let (_, mut frames) = connection.follow(&follow("text/event-stream")).unwrap();
        let mut said = [0; 1_024];
        let read = frames.read(&mut said).unwrap();
        String::from_utf8_lossy(&said[..read])
            .contains("bookmark")
            .then_some(())
    });
    server.stop();
}

#[test]
fn a_follower_that_reads_nothing_is_let_go() {
    let data = Data::new();
    let limits = [("HOOKPOOL_LIMITS_WRITE_TIMEOUT_SECONDS", "1")];
    let mut server = Server::try_start_with(data.path(), &limits).unwrap();
    let connector = server.add_connector("wide", false);
    let fill = "x".repeat(500_000);
    for n in 0..60 {
        let body = format!(r#"{{"id":"{n}","fill":"{fill}"}}"#);
        server.post(&connector, body).expect(202);
    }
    // Not by its items: a test that stalled while it read them would be let go itself.
    assert!(server.settles());
    let follow = Request::get("/api/streams/wide/changes").bearer(&server.operator_key);
    let mut reader = server.connect();
    let (head, body) = reader.follow(&follow).unwrap();
    // It is counted before it is answered.
    assert_eq!(head.status, 200);
    eventually("it is let go", Duration::from_secs(30), || {
        let metrics = server.get("/metrics").expect(200);
        let mut lines = metrics.text().lines();
        lines
            .any(|line| line == "hookpool_followers 0")
            .then_some(())
    });
    // In the midst of it: more than the kernel held never comes.
    let (mut taken, whole) = (Vec::new(), 60 * fill.len());
    let end = body.take(whole as u64).read_to_end(&mut taken);
    assert!(taken.len() < whole, "{end:?}");
    let taken = String::from_utf8_lossy(&taken);
    assert!(taken.contains("event: item") && !taken.contains("event: goodbye"));
    server.stop();
}

/// What the kernel keeps of what a server sent and a peer has not acknowledged.
#[cfg(target_os = "linux")]
fn unacknowledged_bytes(server: u16, peer: u16) -> u64 {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let queue = sockets.lines().skip(1).find_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [_, local, remote, _, queues, ..] = *columns else {
            panic!("{line}");
        };
        let is_it = port(local) == Some(server) && port(remote) == Some(peer);
        is_it.then(|| u64::from_str_radix(queues.split(':').next().unwrap(), 16).unwrap())
    });
    queue.expect("the connection is open")
}

#[cfg(target_os = "linux")]
#[test]
fn the_kernel_holds_little_of_what_a_follower_does_not_take() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("wide", false);
    let mut follower = TcpStream::connect(server.addr).unwrap();
    let follow = Request::get("/api/streams/wide/changes?after=now").bearer(&server.operator_key);
    std::io::Write::write_all(&mut follower, &follow.encode()).unwrap();
    let read = follower.read(&mut [0; 1_024]).unwrap();
    assert!(read > 0, "the head, and nothing more");
    let fill = "x".repeat(300_000);
    let mut last = 0;
    for n in 0..40 {
        let body = format!(r#"{{"id":"{n}","fill":"{fill}"}}"#);
        last = position(&server.post(&connector, body).expect(202));
    }
    server.items("wide", last);
    let peer = follower.local_addr().unwrap().port();
    let held = || unacknowledged_bytes(server.addr.port(), peer);
    // Twelve megabytes wait for it; what it has not taken is more than its own buffer.
    eventually("the connection is full", Duration::from_secs(20), || {
        (held() > 0).then_some(())
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(held() < 512 << 10, "{} bytes", held());
    drop(follower);
    server.stop();
}
