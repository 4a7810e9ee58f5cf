//! Hostile texts through the real server: what was posted comes back in every framing, from the log and from the pool.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::Value;

use crate::common::follower::{Framing, Reader};
use crate::common::hostile::{Delivery, text};
use crate::common::http::{Connection, Request};
use crate::common::seeded;
use crate::common::server::{percent, position};
use crate::common::shared::shared;
use crate::common::sse::Frame;

const DELIVERIES: usize = 400;

type Texts = BTreeMap<String, String>;

#[test]
fn hostile_texts_come_back_in_every_framing() {
    let mut random = seeded("hostile_texts_come_back_in_every_framing");
    let shared = shared();
    let server = &shared.server;
    let connector = server.add_connector("hostile", false);
    let mut connection = server.connect();
    let (mut last, mut texts) = (0, 0);
    let (mut posted, mut items) = (Vec::new(), BTreeMap::<String, Texts>::new());
    for _ in 0..DELIVERIES {
        let delivery = Delivery::random(&mut random);
        let request = connector.delivery(delivery.body.as_bytes());
        last = position(&connection.call(&request).unwrap().expect(202));
        texts += delivery.texts();
        let item = items.entry(delivery.id.clone()).or_default();
        item.extend(delivery.fields.clone());
        posted.push((delivery.id, delivery.fields));
    }
    server.items("hostile", last);
    let of_rows = |frames: &[Frame]| -> BTreeMap<String, Texts> {
        let rows = frames.iter().filter(|frame| frame.event == "item");
        rows.map(|frame| row(&frame.json(), "fields")).collect()
    };
    for (framing, media_type) in [
        (Framing::Sse, "text/event-stream"),
        (Framing::Ndjson, "application/x-ndjson"),
    ] {
        let target = format!("/api/streams/hostile/changes?after=earliest&until={last}");
        let request = Request::get(&target).bearer(&server.operator_key);
        let frames = frames(&request.header("Accept", media_type), framing);
        let changes = frames.iter().filter(|frame| frame.event == "change");
        let changes: Vec<_> = changes.map(|frame| row(&frame.json(), "set")).collect();
        assert_eq!(changes, posted, "{framing:?}");

        let target = "/api/streams/hostile/changes?until=0";
        let request = Request::get(target).bearer(&server.operator_key);
        let frames = self::frames(&request.header("Accept", media_type), framing);
        assert_eq!(of_rows(&frames), items, "{framing:?}");
    }
    eprintln!("{texts} texts in {DELIVERIES} deliveries came back in 4 ways");
}

#[test]
fn a_hostile_cursor_is_echoed_as_data() {
    let mut random = seeded("a_hostile_cursor_is_echoed_as_data");
    let shared = shared();
    let server = &shared.server;
    let connector = server.add_connector("hostile-cursors", false);
    let last = position(&server.post(&connector, r#"{"id":"a"}"#).expect(202));
    server.items("hostile-cursors", last);
    for _ in 0..200 {
        // Of control characters a query holds all; of the rest, what the server shows of it.
        let cursor: String = text(&mut random).chars().take(64).collect();
        let cursor = format!("{cursor}\n\ndata: x");
        let target = format!(
            "/api/streams/hostile-cursors/changes?until=0&last_event_id={}",
            percent(&cursor)
        );
        let request = Request::get(&target).bearer(&server.operator_key);
        let frames = frames(&request, Framing::Sse);
        let events: Vec<_> = frames.iter().map(|frame| &*frame.event).collect();
        assert_eq!(events, ["reset", "item", "snapshot-end", "goodbye"]);
        let shown: String = cursor.chars().take(64).collect();
        assert_eq!(frames[0].json()["requested"], shown);
    }
}

/// All frames of an answer that ends.
fn frames(request: &Request, framing: Framing) -> Vec<Frame> {
    let mut connection = Connection::open(shared().server.addr).unwrap();
    let (head, mut body) = connection.follow(request).unwrap();
    assert_eq!(head.status, 200);
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes).unwrap();
    Reader::new(framing).push(&bytes)
}

/// Item id and fields, which are all strings.
fn row(data: &Value, member: &str) -> (String, Texts) {
    let fields = data[member].as_object().unwrap().iter();
    let texts = fields.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
    (data["itemId"].as_str().unwrap().to_owned(), texts.collect())
}
