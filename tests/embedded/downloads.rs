//! A download that the server stops or whose operator key is revoked breaks off, without the end that its body has when it is whole.

use std::{io::Read, net::TcpStream, time::Duration};

use hookpool_store::EventLog;

use crate::{
    node::{Client, Node, Shape, run},
    wide::{STREAM, item},
};

/// Of two kilobytes each: more than the buffers between the two sides hold.
const ITEMS: u64 = 4_000;

#[test]
fn a_download_that_a_stop_cuts_short_does_not_look_whole() {
    run(async {
        let (node, targets) = node().await;
        let begun: Vec<_> = begin(&node.client, &targets);
        node.engine.status().stop();
        for (target, stream) in begun {
            assert!(!ends_whole(stream), "{target}");
        }
        node.stop().await;
    });
}

#[test]
fn a_download_ends_with_its_operator_key() {
    run(async {
        let (node, targets) = node().await;
        let (key_id, client) = node.operator("second").await;
        let (others, begun) = (begin(&node.client, &targets), begin(&client, &targets));
        node.revoke_operator(key_id).await;
        for (target, stream) in begun {
            assert!(!ends_whole(stream), "{target}");
        }
        for (target, stream) in others {
            assert!(ends_whole(stream), "{target} of another key");
        }
        node.stop().await;
    });
}

/// A server, and what can be downloaded from it.
async fn node() -> (Node, Vec<String>) {
    let shape = Shape {
        view_lifetime: Duration::from_secs(60),
        ..Shape::PROMPT
    };
    let node = Node::start(shape, &[STREAM]).await;
    node.append((0..ITEMS).map(|n| item(n, 0))).await;
    let made = node
        .rebuild(STREAM, r#"{"fields":{"padding":{"drop":true}}}"#)
        .await;
    let to = node.log.head();
    let targets = vec![
        format!("/api/streams/{STREAM}/diff?from=0&to={to}"),
        format!("/api/admin/streams/{STREAM}/rebuilds/{made}/diff"),
        "/api/admin/export".to_owned(),
        format!("/api/admin/export?stream={STREAM}"),
        "/api/admin/export?format=cloudevents".to_owned(),
        "/api/admin/blocks".to_owned(),
    ];
    (node, targets)
}

/// Reads the beginning of each.
fn begin<'a>(client: &Client, targets: &'a [String]) -> Vec<(&'a str, TcpStream)> {
    let ask = |target: &'a String| {
        let mut stream = client.ask_in("1.1", target, 16 << 10);
        stream.read_exact(&mut vec![0; 64 << 10]).unwrap();
        (target.as_str(), stream)
    };
    targets.iter().map(ask).collect()
}

/// Whether the last chunk of an answer came.
fn ends_whole(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    read.is_ok() && rest.ends_with(b"0\r\n\r\n")
}
