//! Readers who want the same of a stream share what it costs; and what could not be read for all of them, each of them reads alone.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    thread::JoinHandle,
    time::Duration,
};

use hookpool_core::event::Request;
use hookpool_store::EventLog;
use serde_json::Value;

use crate::node::{Client, Node, Shape, event, run};

const STREAM: &str = "some";
const WANTED: &str = "fields=n&where=n%3E=0";
const NOT_WANTED: &str = "fields=n&where=n%3C0";

/// A change stream, line by line.
struct Reader {
    lines: BufReader<TcpStream>,
}

impl Reader {
    fn open(client: &Client, after: &str, wanted: &str) -> Self {
        let target = format!("/api/streams/{STREAM}/changes?after={after}&heartbeat=60&{wanted}");
        let mut lines = BufReader::new(client.ask(&target, 64 << 10));
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0);
        }
        Self { lines }
    }

    /// The next frame; `None` at the end.
    fn next(&mut self) -> Option<Value> {
        let mut line = "\n".to_owned();
        while line == "\n" {
            line.clear();
            self.lines.read_line(&mut line).unwrap();
        }
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    /// Reads on to the bookmark of a position; nothing else may come.
    fn bookmark_at(&mut self, position: u64) {
        loop {
            let frame = self.next().unwrap();
            assert_eq!(frame["event"], "bookmark");
            if frame["data"]["position"] == position {
                return;
            }
        }
    }

    /// The next change.
    fn change(&mut self) -> Value {
        loop {
            let frame = self.next().unwrap();
            if frame["event"] == "change" {
                return frame;
            }
        }
    }
}

fn number_of(change: &Value) -> u64 {
    change["data"]["set"]["n"].as_u64().unwrap()
}

async fn append(node: &Node, n: u64) {
    let (item, body) = (format!("i{}", n % 3), format!(r#"{{"n":{n},"more":{n}}}"#));
    let outcome = node
        .log
        .append(Request::each([event(STREAM, &item, n, body)]))
        .await;
    outcome.unwrap();
}

#[test]
fn readers_who_want_the_same_cost_what_one_of_them_does() {
    const EVENTS: u64 = 50;
    let [one, many] = [1, 20].map(|readers| run(cost(readers, EVENTS)));
    eprintln!("{one} blocks are read for one reader, {many} for twenty");
    // Some may read alone until they are where the others are.
    assert!(many < one + EVENTS, "{many} blocks, {one} for one");
}

/// How many blocks of the log are read while so many readers are told of events one by one.
async fn cost(readers: usize, events: u64) -> u64 {
    let node = Node::start(Shape::PROMPT, &[STREAM]).await;
    append(&node, 0).await;
    let client = node.client.clone();
    let open = move || {
        (0..readers)
            .map(|_| Reader::open(&client, "now", WANTED))
            .collect()
    };
    let mut readers: Vec<Reader> = tokio::task::spawn_blocking(open).await.unwrap();
    let before = node.log.blocks_read();
    let mut told = Vec::new();
    for n in 1..=events {
        append(&node, n).await;
        let read = move || {
            let changes: Vec<_> = readers.iter_mut().map(Reader::change).collect();
            (readers, changes)
        };
        let (back, changes) = tokio::task::spawn_blocking(read).await.unwrap();
        readers = back;
        assert!(changes.iter().all(|change| *change == changes[0]));
        told.push(number_of(&changes[0]));
    }
    assert_eq!(told, (1..=events).collect::<Vec<_>>());
    let blocks = node.log.blocks_read() - before;
    drop(readers);
    node.stop().await;
    blocks
}

#[test]
fn who_is_shown_nothing_is_told_how_far_the_stream_is() {
    run(async {
        let node = Node::start(Shape::PROMPT, &[STREAM]).await;
        append(&node, 0).await;
        let client = node.client.clone();
        let open = move || [(); 2].map(|()| Reader::open(&client, "now", NOT_WANTED));
        let readers = tokio::task::spawn_blocking(open).await.unwrap();
        for n in 1..=20 {
            append(&node, n).await;
        }
        let head = node.log.head().0;
        let read = move || readers.map(|mut reader| reader.bookmark_at(head));
        // Long before a heartbeat is due.
        let read = tokio::time::timeout(Duration::from_secs(20), tokio::task::spawn_blocking(read));
        read.await.expect("there are bookmarks").unwrap();
        node.stop().await;
    });
}

#[test]
fn what_could_not_be_read_for_all_each_reads_alone() {
    const EVENTS: u64 = 60;
    run(async {
        let shape = Shape {
            read_one_in: 20,
            ..Shape::PROMPT
        };
        let node = Node::start(shape, &[STREAM]).await;
        append(&node, 0).await;
        let readers: Vec<JoinHandle<_>> = (0..5)
            .map(|_| {
                let client = node.client.clone();
                std::thread::spawn(move || read_all(&client, EVENTS))
            })
            .collect();
        for n in 1..=EVENTS {
            append(&node, n).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let joined = tokio::task::spawn_blocking(|| {
            let readers = readers.into_iter().map(JoinHandle::join);
            readers.map(Result::unwrap).collect::<Vec<_>>()
        });
        for told in joined.await.unwrap() {
            assert_eq!(told, (0..=EVENTS).collect::<Vec<_>>());
        }
        node.stop().await;
    });
}

/// The numbers of all events up to the last, by a client that comes back wherever it was cut off.
fn read_all(client: &Client, last: u64) -> Vec<u64> {
    let (mut after, mut told) = ("earliest".to_owned(), Vec::new());
    loop {
        let mut reader = Reader::open(client, &after, WANTED);
        while let Some(frame) = reader.next() {
            if let Some(id) = frame["id"].as_str() {
                after = id.to_owned();
            }
            if frame["event"] == "change" {
                told.push(number_of(&frame));
            }
            if told.last() == Some(&last) {
                return told;
            }
        }
    }
}
