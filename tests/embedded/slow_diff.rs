//! A reader that stops in the middle of a difference holds no view of the pool for long. One of two moments goes on, as long as its key may read and
//! its generation is kept; one of two generations, which are compared in one view, is broken off.

use std::{
    io::{ErrorKind, Read},
    net::TcpStream,
    sync::Arc,
};

use hookpool_store::EventLog;
use serde_json::Value;

use crate::{
    node::{Client, Node, Shape, is_let_go, run},
    wide::{STREAM, id, item},
};

/// Of two kilobytes each: more than the buffers between the two sides hold.
const ITEMS: u64 = 4_000;
/// Rules under which no item has its padding.
const NARROW: &str = r#"{"fields":{"padding":{"drop":true}}}"#;

#[test]
fn a_reader_that_stops_between_two_moments_pins_no_view_and_misses_nothing() {
    run(async {
        let (node, begun) = Begun::moments().await;
        let view = Arc::downgrade(&node.engine.pool());
        node.append((0..ITEMS).map(|n| item(n, 1))).await;
        is_let_go(&view).await;
        let expected: Vec<_> = (0..ITEMS).map(id).collect();
        assert_eq!(begun.ids().await, expected);
        node.stop().await;
    });
}

#[test]
fn a_difference_between_two_moments_ends_with_its_key() {
    run(async {
        let (node, begun) = Begun::moments().await;
        node.revoke("reader").await;
        let read = begun.ids().await.len() as u64;
        assert!((1..ITEMS).contains(&read), "{read}");
        node.stop().await;
    });
}

#[test]
fn a_difference_between_two_moments_ends_with_its_generation() {
    run(async {
        let (node, begun) = Begun::moments().await;
        node.put_in_force(STREAM, NARROW).await;
        node.release(STREAM).await;
        let read = begun.ids().await.len() as u64;
        assert!((1..ITEMS).contains(&read), "{read}");
        node.stop().await;
    });
}

#[test]
fn a_reader_that_stops_between_two_generations_pins_no_view_and_is_broken_off() {
    run(async {
        let node = Node::start(Shape::PROMPT, &[STREAM]).await;
        node.append((0..ITEMS).map(|n| item(n, 0))).await;
        let made = node.rebuild(STREAM, NARROW).await;
        let view = Arc::downgrade(&node.engine.pool());
        let target = format!("/api/admin/streams/{STREAM}/rebuilds/{made}/diff");
        let whole = node.client.get(&target);
        assert_eq!(whole.lines().count() as u64, ITEMS);
        let begun = Begun::ask(node.client.clone(), target).await;
        node.append((0..ITEMS).map(|n| item(n, 1))).await;
        is_let_go(&view).await;
        let read = begun.ids().await.len() as u64;
        assert!((1..ITEMS).contains(&read), "{read}");
        node.stop().await;
    });
}

/// An answer of which some was read.
struct Begun {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Begun {
    /// The difference between nothing and all items, asked for with a read key.
    async fn moments() -> (Node, Self) {
        let node = Node::start(Shape::PROMPT, &[STREAM]).await;
        node.append((0..ITEMS).map(|n| item(n, 0))).await;
        let to = node.log.head();
        let target = format!("/api/streams/{STREAM}/diff?from=0&to={to}");
        let reader = node.reader("reader").await;
        let begun = Self::ask(reader, target).await;
        (node, begun)
    }

    async fn ask(client: Client, target: String) -> Self {
        let begun = tokio::task::spawn_blocking(move || {
            let mut stream = client.ask(&target, 16 << 10);
            let mut answer = vec![0; 64 << 10];
            stream.read_exact(&mut answer).unwrap();
            Self { stream, answer }
        });
        begun.await.unwrap()
    }

    /// Reads on to the end, or to where it is broken off; the ids of its whole lines.
    async fn ids(mut self) -> Vec<String> {
        let rest =
            tokio::task::spawn_blocking(move || match self.stream.read_to_end(&mut self.answer) {
                Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
                Ok(_) | Err(_) => String::from_utf8(self.answer).unwrap(),
            });
        let answer = rest.await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{head}");
        let lines = body.split_inclusive('\n');
        let lines = lines.filter(|line| line.ends_with('\n'));
        let id = |line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["itemId"].as_str().unwrap().to_owned()
        };
        lines.map(id).collect()
    }
}
