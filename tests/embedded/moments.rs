//! Moments of the past of a stream most of which came later.

use serde_json::Value;

use crate::node::{Node, Shape, event, run};

const STREAM: &str = "grown";
/// More than one page looks at.
const LATER: u64 = 10_500;

#[test]
fn a_page_of_a_moment_looks_at_a_bounded_part_of_what_came_later() {
    run(async {
        let node = Node::start(Shape::PROMPT, &[STREAM]).await;
        let body = |n: u64| format!(r#"{{"n":{n}}}"#);
        let first = ["a", "z"].into_iter().zip(1..);
        node.append(first.map(|(id, n)| event(STREAM, id, n, body(n))))
            .await;
        let later = (3..3 + LATER).map(|n| event(STREAM, &format!("later-{n}"), n, body(n)));
        node.append(later).await;
        let (begin, next) = page(&node, "");
        assert_eq!(begin, ["a"]);
        let next = next.expect("it looked at all of the stream");
        let (end, next) = page(&node, &format!("&after={next}"));
        assert_eq!(end, ["z"]);
        assert_eq!(next, None);
        node.stop().await;
    });
}

/// The ids of a page, and its token for the next one.
fn page(node: &Node, query: &str) -> (Vec<String>, Option<String>) {
    let target = format!("/api/streams/{STREAM}/items?at=2{query}");
    let page: Value = serde_json::from_str(&node.client.get(&target)).unwrap();
    let items = page["items"].as_array().unwrap().iter();
    let ids = items.map(|item| item["itemId"].as_str().unwrap().to_owned());
    (ids.collect(), page["next"].as_str().map(str::to_owned))
}
