//! A chain of pages holds no view of the pool for long, however often it is asked for its next page, and every page shows the position of the first
//! one, whatever was written meanwhile; unless that moment can't be read any more, which is said.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hookpool_core::{
    event::NewEvent, key::KeyId, name::StreamName, position::Position, retention::Retention,
};
use hookpool_store::EventLog;
use serde_json::Value;

use crate::node::{Client, Node, Shape, deletion, event, is_let_go, run};

const STREAM: &str = "paged";
const OTHER: &str = "other";
const ITEMS: u64 = 60;
/// Of a page.
const LIMIT: usize = 4;
const SHAPE: Shape = Shape {
    memtable_bytes: 64 << 10,
    ..Shape::PROMPT
};
/// Rules under which no item has a stamp.
const UNSTAMPED: &str = r#"{"fields":{"stamp":{"drop":true}}}"#;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_chain_that_outlives_its_view_shows_one_position_while_writers_go_on() {
    run(async {
        let node = Node::start(SHAPE, &[STREAM]).await;
        node.append(stamped(0..ITEMS, 0)).await;
        let earlier = node.log.head();
        node.append(stamped(0..ITEMS, 1)).await;
        let at = node.log.head();
        let view = Arc::downgrade(&node.engine.pool());
        // Both of one view; one shows what was before it.
        let mut chains = [
            (Chain::begin(&node.client, ""), at, 1),
            (
                Chain::begin(&node.client, &format!("&at={earlier}")),
                earlier,
                0,
            ),
        ];
        let done = AtomicBool::new(false);
        let (mut rounds, mut unheld) = (0, 0);
        let read = async {
            while !chains.iter().all(|(chain, ..)| chain.is_whole()) {
                tokio::time::sleep(SHAPE.view_lifetime / 4).await;
                rounds += 1;
                if rounds == 4 {
                    chains[0].0.outlive(&view, &node.client).await;
                }
                let held = view.strong_count() > 0;
                for (chain, ..) in &mut chains {
                    chain.go_on(&node.client).unwrap();
                    unheld += u32::from(!held);
                }
            }
            done.store(true, Ordering::Relaxed);
        };
        tokio::join!(read, rewrite(&node, &done));
        assert!(unheld >= 4, "pages after the view was let go: {unheld}");
        for (chain, at, stamp) in chains {
            assert_eq!(chain.position, at);
            let expected: BTreeMap<_, _> = (0..ITEMS).map(|n| (id(n), stamp)).collect();
            assert_eq!(chain.seen, expected);
        }
        node.stop().await;
    });
}

#[test]
fn a_chain_goes_on_in_its_generation_until_that_is_released() {
    run(async {
        let node = Node::start(SHAPE, &[STREAM]).await;
        node.append(stamped(0..ITEMS, 0)).await;
        let (mut chain, at) = (Chain::begin(&node.client, ""), node.log.head());
        let view = Arc::downgrade(&node.engine.pool());
        let made = node.rebuild(STREAM, UNSTAMPED).await;
        let next = chain.next.clone().unwrap();
        let ahead = node.log.head().0 + 1;
        let forged = [
            // What is rebuilt is not promoted yet; there is no such position; it is another log's.
            with_part(&next, 1, "2"),
            with_part(&next, 2, &ahead.to_string()),
            with_part(&next, 0, "00000000000000ff"),
        ];
        for token in forged {
            assert_eq!(page(&node.client, "", Some(&token)), Err(expired()));
        }
        node.promote(STREAM, made).await;
        node.append(stamped(0..ITEMS, 1)).await;
        is_let_go(&view).await;
        // No item of the generation that is served now has a stamp.
        for _ in 0..5 {
            chain.go_on(&node.client).unwrap();
        }
        assert_eq!(chain.position, at);
        let expected: BTreeMap<_, _> = (0..6 * LIMIT as u64).map(|n| (id(n), 0)).collect();
        assert_eq!(chain.seen, expected);
        node.release(STREAM).await;
        assert_eq!(chain.go_on(&node.client), Err(expired()));
        node.stop().await;
    });
}

#[test]
fn a_chain_that_the_floor_overtook_is_over() {
    run(async {
        let node = Node::start(SHAPE, &[STREAM]).await;
        node.append(stamped(0..ITEMS, 0)).await;
        let mut chains = [(); 2].map(|()| Chain::begin(&node.client, ""));
        let view = Arc::downgrade(&node.engine.pool());
        node.append(stamped(0..ITEMS, 1)).await;
        is_let_go(&view).await;
        chains[0].go_on(&node.client).unwrap();
        let limits = Retention {
            max_age_seconds: None,
            max_positions: Some(1),
        };
        let author = KeyId::from("test");
        let set = node.engine.set_retention(&author, stream(), limits);
        set.await.unwrap();
        let begun = Instant::now();
        while node.engine.earliest(&stream()) == Position::ZERO {
            assert!(begun.elapsed() < PATIENCE, "nothing expires");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for chain in &mut chains {
            assert_eq!(chain.go_on(&node.client), Err(expired()));
        }
        let mut chain = Chain::begin(&node.client, "");
        while !chain.is_whole() {
            chain.go_on(&node.client).unwrap();
        }
        assert_eq!(chain.position, node.log.head());
        assert_eq!(chain.seen.len() as u64, ITEMS);
        node.stop().await;
    });
}

/// Generations of streams have the same numbers, and a position is of all of them.
#[test]
fn a_chain_is_not_read_in_the_view_of_another_stream() {
    let shape = Shape {
        view_lifetime: PATIENCE,
        ..SHAPE
    };
    let others = r#"{"fields":{"other":{"drop":true}}}"#;
    run(async move {
        let node = Node::start(shape, &[STREAM, OTHER]).await;
        node.append(stamped(0..ITEMS, 0)).await;
        let events = (0..ITEMS).map(|n| event(OTHER, &id(n), n, format!(r#"{{"stamp":{n}}}"#)));
        node.append(events).await;
        let made = node.rebuild(OTHER, others).await;
        node.promote(OTHER, made).await;
        // Holds a view in which the other stream has a generation 2, and this one has none.
        let target = format!("/api/streams/{OTHER}/items?limit={LIMIT}");
        node.client.get(&target);
        let made = node.rebuild(STREAM, others).await;
        node.promote(STREAM, made).await;
        let mut chain = Chain::begin(&node.client, "");
        while !chain.is_whole() {
            chain.go_on(&node.client).unwrap();
        }
        assert_eq!(chain.position, node.log.head());
        assert_eq!(chain.seen.len() as u64, ITEMS);
        node.stop().await;
    });
}

/// What the pages of a chain showed until now.
struct Chain {
    query: String,
    position: Position,
    seen: BTreeMap<String, u64>,
    next: Option<String>,
}

impl Chain {
    fn begin(client: &Client, query: &str) -> Self {
        let mut chain = Self {
            query: query.to_owned(),
            position: Position::ZERO,
            seen: BTreeMap::new(),
            next: None,
        };
        let first = page(client, query, None).unwrap();
        chain.position = Position(first["position"].as_u64().unwrap());
        chain.take(&first);
        chain
    }

    /// The next page, if there is one.
    fn go_on(&mut self, client: &Client) -> Result<(), (u16, String)> {
        if let Some(next) = &self.next {
            let page = page(client, &self.query, Some(next))?;
            self.take(&page);
        }
        Ok(())
    }

    /// Asks for the next page until the view is let go, however often that is.
    async fn outlive<T>(&self, view: &Weak<T>, client: &Client) {
        let begun = Instant::now();
        while view.strong_count() > 0 {
            assert!(begun.elapsed() < PATIENCE, "it is held");
            page(client, &self.query, self.next.as_deref()).unwrap();
            tokio::time::sleep(SHAPE.view_lifetime / 10).await;
        }
    }

    fn take(&mut self, page: &Value) {
        assert_eq!(page["position"], self.position.0);
        for item in page["items"].as_array().unwrap() {
            let id = item["itemId"].as_str().unwrap().to_owned();
            let stamp = item["fields"]["stamp"].as_u64().unwrap();
            assert_eq!(self.seen.insert(id, stamp), None, "twice: {item}");
        }
        self.next = page["next"].as_str().map(str::to_owned);
    }

    fn is_whole(&self) -> bool {
        self.next.is_none()
    }
}

/// A page, or the status and the code of its refusal.
fn page(client: &Client, query: &str, after: Option<&str>) -> Result<Value, (u16, String)> {
    let after = after.map_or_else(String::new, |after| format!("&after={after}"));
    let target = format!("/api/streams/{STREAM}/items?limit={LIMIT}{query}{after}");
    let (status, body) = client.answer(&target);
    let body: Value = serde_json::from_str(&body).unwrap();
    match status {
        200 => Ok(body),
        _ => Err((status, body["code"].as_str().unwrap().to_owned())),
    }
}

fn expired() -> (u16, String) {
    (410, "PAGE_EXPIRED".to_owned())
}

/// A token with one of its parts replaced.
fn with_part(token: &str, n: usize, part: &str) -> String {
    let mut parts: Vec<_> = token.split('.').collect();
    parts[n] = part;
    parts.join(".")
}

/// Changes items, deletes some, and makes new ones, before and behind where readers are.
async fn rewrite(node: &Node, done: &AtomicBool) {
    let mut stamp = 2;
    while !done.load(Ordering::Relaxed) {
        node.append(stamped(0..ITEMS + stamp, stamp)).await;
        let first = stamp * 7 % ITEMS;
        let deleted = first..(first + 10).min(ITEMS);
        node.append(deleted.map(|n| deletion(STREAM, &id(n), stamp)))
            .await;
        stamp += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn stream() -> StreamName {
    StreamName::new(STREAM).unwrap()
}

fn stamped(items: Range<u64>, stamp: u64) -> impl Iterator<Item = NewEvent> {
    items.map(move |n| {
        let body = format!(r#"{{"id":"{}","stamp":{stamp}}}"#, id(n));
        event(STREAM, &id(n), stamp, body)
    })
}

/// Every second one of those that are made later is before the others.
fn id(n: u64) -> String {
    match n >= ITEMS && n.is_multiple_of(2) {
        true => format!("early-{n:03}"),
        false => format!("item-{n:03}"),
    }
}
