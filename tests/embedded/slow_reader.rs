//! A reader that stops in the middle of a snapshot holds no view of the pool for long, and what it reads when it goes on is the snapshot that it
//! began with, whatever was written meanwhile.

use std::{collections::BTreeMap, io::Read, sync::Arc};

use hookpool_store::EventLog;
use serde_json::Value;

use crate::{
    node::{Node, Shape, deletion, is_let_go, run},
    wide::{STREAM, id, item},
};

/// Of two kilobytes each: more than the buffers between the two sides hold.
const ITEMS: u64 = 4_000;

#[test]
fn a_reader_that_stops_in_a_snapshot_pins_no_view_and_reads_on_in_what_it_began() {
    run(async {
        let node = Node::start(Shape::PROMPT, &[STREAM]).await;
        node.append((0..ITEMS).map(|n| item(n, 0))).await;
        let (at, view) = (node.log.head(), Arc::downgrade(&node.engine.pool()));
        let client = node.client.clone();
        let target = format!("/api/streams/{STREAM}/changes?until=0");
        let begun = tokio::task::spawn_blocking(move || {
            let mut stream = client.ask(&target, 16 << 10);
            let mut begin = vec![0; 64 << 10];
            stream.read_exact(&mut begin).unwrap();
            (stream, begin)
        });
        let (mut stream, mut answer) = begun.await.unwrap();
        change_everything(&node).await;
        is_let_go(&view).await;
        let rest = tokio::task::spawn_blocking(move || {
            stream.read_to_end(&mut answer).unwrap();
            String::from_utf8(answer).unwrap()
        });
        let answer = rest.await.unwrap();
        let (head, frames) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{head}");
        let (mut seen, mut end) = (BTreeMap::new(), None);
        for line in frames.lines().filter(|line| !line.is_empty()) {
            let frame: Value = serde_json::from_str(line).unwrap();
            let data = &frame["data"];
            match frame["event"].as_str().unwrap() {
                "item" => {
                    let id = data["itemId"].as_str().unwrap().to_owned();
                    let twice = seen.insert(id, data["fields"]["n"].as_u64().unwrap());
                    assert_eq!(twice, None, "{line}");
                }
                "snapshot-end" => end = data["position"].as_u64(),
                "goodbye" => {}
                other => panic!("{other}: {line}"),
            }
        }
        let expected: BTreeMap<_, _> = (0..ITEMS).map(|n| (id(n), 0)).collect();
        assert_eq!(seen, expected);
        assert_eq!(end, Some(at.0));
        node.stop().await;
    });
}

/// Items are changed, are deleted, and are new, before and behind where a reader is; so many of them in a row that whole reads find nothing else.
async fn change_everything(node: &Node) {
    node.append((0..ITEMS).map(|n| item(n, 1))).await;
    node.append((0..ITEMS).step_by(7).map(|n| deletion(STREAM, &id(n), n)))
        .await;
    node.append((0..2_500).map(|n| item(n + ITEMS * 10, 1)))
        .await;
}
