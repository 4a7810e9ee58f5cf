//! The history of an item that is large.

use serde_json::Value;

use crate::node::{Node, Shape, event, run};

const STREAM: &str = "large";
const PATCHES: u64 = 20;

#[test]
fn a_page_of_the_history_of_a_large_item_is_short_and_none_is_left_out() {
    run(async {
        let node = Node::start(Shape::PROMPT, &[STREAM]).await;
        let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(1 << 20));
        let patch = |n: u64| event(STREAM, "i", n, format!(r#"{{"n":{n}}}"#));
        node.append([event(STREAM, "i", 1, large)].into_iter())
            .await;
        node.append((2..2 + PATCHES).map(patch)).await;
        let (mut positions, mut query) = (Vec::new(), String::new());
        loop {
            let target = format!("/api/streams/{STREAM}/items/i/history?limit=1000{query}");
            let page: Value = serde_json::from_str(&node.client.get(&target)).unwrap();
            let events = page["events"].as_array().unwrap();
            assert!((1..=4).contains(&events.len()), "{}", events.len());
            for told in events {
                let position = told["position"].as_u64().unwrap();
                let changed = told["fields"].as_object().unwrap();
                match position {
                    1 => assert!(changed["text"]["new"].is_string()),
                    _ => assert_eq!(changed["n"]["new"], position),
                }
                assert_eq!(changed.len(), 1);
                positions.push(position);
            }
            let Some(next) = page["next"].as_u64() else {
                break;
            };
            query = format!("&after={next}");
        }
        let all: Vec<_> = (1..=1 + PATCHES).collect();
        assert_eq!(positions, all);
        node.stop().await;
    });
}
