//! When the server can't take a delivery: it says 503 and when to come back, and what it acknowledged stays.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use crate::common::http::Response;
use crate::common::program::{command, succeed};
use crate::common::server::{Data, Server, position};

/// A body of some size that says which one it is.
fn body(n: usize, bytes: usize) -> String {
    format!(r#"{{"id":"{n}","fill":"{}"}}"#, "x".repeat(bytes))
}

#[track_caller]
fn assert_come_back(answer: &Response) {
    answer.expect_problem(503, "UNAVAILABLE");
    assert_eq!(answer.header("Retry-After"), Some("1"));
}

/// Positions and ids of everything in the log.
fn recorded(server: &Server) -> BTreeSet<(u64, String)> {
    server
        .log("full")
        .into_iter()
        .map(|event| (event.position, event.item_id))
        .collect()
}

#[test]
fn more_than_the_queue_holds_is_answered_503_and_the_rest_is_kept() {
    const SENDERS: usize = 16;
    const EACH: usize = 20;
    let data = Data::new();
    let limits = [
        ("HOOKPOOL_LIMITS_QUEUE_BYTES", "100000"),
        ("HOOKPOOL_LIMITS_BODY_BYTES", "100000"),
        ("HOOKPOOL_LIMITS_INGEST_BODY_BYTES", "100000"),
    ];
    let server = Server::try_start_with(data.path(), &limits).unwrap();
    let connector = server.add_connector("full", false);
    let (accepted, refused) = (Mutex::new(BTreeSet::new()), Mutex::new(0));
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (server, connector, accepted, refused) = (&server, &connector, &accepted, &refused);
            scope.spawn(move || {
                let mut connection = server.connect();
                for n in 0..EACH {
                    let n = sender * EACH + n;
                    let answer = connection
                        .call(&connector.delivery(body(n, 60_000).as_bytes()))
                        .unwrap();
                    if answer.status == 202 {
                        accepted
                            .lock()
                            .unwrap()
                            .insert((position(&answer), n.to_string()));
                    } else {
                        assert_come_back(&answer);
                        *refused.lock().unwrap() += 1;
                    }
                }
            });
        }
    });
    let (accepted, refused) = (
        accepted.into_inner().unwrap(),
        refused.into_inner().unwrap(),
    );
    assert!(
        !accepted.is_empty() && refused > 0,
        "{} accepted, {refused} refused",
        accepted.len()
    );
    assert_eq!(
        recorded(&server),
        accepted,
        "what was refused is not there, what was accepted is"
    );
}

#[test]
fn a_delivery_that_is_under_way_when_the_server_stops_is_told_to_come_back() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("full", false);
    let before = position(&server.post(&connector, body(0, 10)).expect(202));
    let request = connector.delivery(body(1, 100).as_bytes());
    let mut connection = server.connect();
    connection.begin(&request);
    // The stop has begun when a follower is told so.
    let mut follower = server.connect();
    let follow = crate::common::http::Request::get("/api/streams/full/changes?after=now")
        .bearer(&server.operator_key);
    let (_, mut frames) = follower.follow(&follow).unwrap();
    server.terminate();
    let mut seen = String::new();
    std::io::Read::read_to_string(&mut frames, &mut seen).unwrap();
    assert!(seen.contains("event: goodbye"), "{seen}");
    assert_come_back(&connection.finish(&request));
    assert_eq!(server.wait().code(), Some(0));
    let server = data.serve();
    assert_eq!(
        recorded(&server),
        BTreeSet::from([(before, "0".to_owned())])
    );
}

/// A small file system in memory; gone when dropped.
struct Disk(Data);

impl Disk {
    fn new() -> Self {
        let disk = Self(Data::new());
        succeed(
            command("mount")
                .args(["-t", "tmpfs", "-o", "size=40m", "tmpfs"])
                .arg(disk.path()),
        );
        disk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn grow(&self) {
        succeed(
            command("mount")
                .args(["-o", "remount,size=400m"])
                .arg(self.path()),
        );
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        succeed(command("umount").arg(self.path()));
    }
}

#[test]
#[ignore = "needs root to mount a small tmpfs: tests/run"]
fn a_full_disk_stops_the_server_and_takes_nothing_back() {
    let disk = Disk::new();
    let data = disk.path().join("data");
    let server = Server::start(&data);
    let connector = server.add_connector("full", false);
    let mut accepted = BTreeSet::new();
    let mut connection = server.connect();
    let refusal = (0..500).find_map(|n| {
        let answer = connection.call(&connector.delivery(body(n, 500_000).as_bytes()));
        if let Ok(answer) = &answer
            && answer.status == 202
        {
            accepted.insert((position(answer), n.to_string()));
            return None;
        }
        Some(answer)
    });
    // The pool may notice first, between two deliveries: then the connection is closed, perhaps under the next one (RFC 9112, 9.3.1).
    if let Ok(answer) = refusal.expect("the disk is full before 250 MB") {
        assert_come_back(&answer);
    }
    assert_eq!(server.wait().code(), Some(1), "a supervisor has to see it");
    disk.grow();
    let server = Server::start(&data);
    let recorded = recorded(&server);
    assert!(
        accepted.len() > 10 && recorded.is_superset(&accepted),
        "{} of {}",
        recorded.len(),
        accepted.len()
    );
    assert!(
        recorded.len() <= accepted.len() + 1,
        "only the one whose outcome was unknown may be there too"
    );
    server.stop();
}
