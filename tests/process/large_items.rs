//! Items of nearly a megabyte and more: what followers are told of them is made change by change and in parts, and takes little memory.

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::follower::{Framing, Reader};
use crate::common::http::Request;
use crate::common::server::{Connector, Data, Server, position};
use crate::common::sse::Frame;

const FILL: usize = 900_000;
/// A page of the log may have as many.
const FLIPS: usize = 128;
/// Megabytes: with the item before and after each of its events a page would take 230, and the feed of one 360.
const GROWN_MAX: u64 = 100;
/// A stream that leaves something out goes on with heartbeats.
const PATIENCE: Duration = Duration::from_secs(60);

struct Big {
    server: Server,
    connector: Connector,
    _data: Data,
}

impl Big {
    /// Large items without a field `on`.
    fn new(items: usize) -> Self {
        let data = Data::new();
        let server = data.serve();
        let connector = server.add_connector("big", false);
        let fill = "x".repeat(FILL);
        for n in 0..items {
            let body = format!(r#"{{"id":"big{n}","fill":"{fill}"}}"#);
            server.post(&connector, body).expect(202);
        }
        Self {
            server,
            connector,
            _data: data,
        }
    }

    /// Sets the field of the first one on and off again and again.
    fn flip(&self) -> u64 {
        self.set((0..FLIPS).map(|n| (0, (n + 1) % 2)))
    }

    /// Sets the field `on` of items, all in one request, which are one page; the position of the last.
    fn set(&self, values: impl Iterator<Item = (usize, usize)>) -> u64 {
        let line = |(n, on)| format!("{{\"id\":\"big{n}\",\"on\":{on}}}\n");
        let body: String = values.map(line).collect();
        let request = self.connector.delivery_to("/api/ingest", body.as_bytes());
        let request = request.header("Content-Type", "application/x-ndjson");
        position(&self.server.call(&request).expect(202))
    }

    /// All frames up to the one that says that a position is reached, and by how many megabytes the server grew at most meanwhile; `begun` is
    /// called once the answer has begun.
    fn follow(&self, query: &str, begun: impl FnOnce() -> u64) -> (Vec<Frame>, u64) {
        let target = format!("/api/streams/big/changes?heartbeat=1&{query}");
        let request = Request::get(&target).bearer(&self.server.operator_key);
        let request = request.header("Accept", "application/x-ndjson");
        let mut connection = self.server.connect();
        // The most that it had begins anew with what it has.
        std::fs::write(format!("/proc/{}/clear_refs", self.server.pid()), "5").unwrap();
        let before = self.peak();
        let (_, mut body) = connection.follow(&request).unwrap();
        let last = begun();
        let (mut reader, mut frames) = (Reader::new(Framing::Ndjson), Vec::new());
        let mut buffer = vec![0; 1 << 20];
        let reached = |frame: &Frame| frame.id.is_some() && frame.position() >= last;
        let begun = Instant::now();
        while !frames.iter().any(reached) {
            assert!(begun.elapsed() < PATIENCE, "{} frames", frames.len());
            let read = body.read(&mut buffer).unwrap();
            assert_ne!(read, 0, "the stream ended");
            frames.extend(reader.push(&buffer[..read]));
        }
        (frames, self.peak().saturating_sub(before))
    }

    /// Megabytes that the server had in memory at most since it was asked to begin anew.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.pid()));
        let status = status.unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = line.unwrap().trim_end_matches("kB").trim().parse().unwrap();
        kib >> 10
    }
}

fn changes(frames: &[Frame]) -> Vec<Value> {
    let changes = frames.iter().filter(|frame| frame.event == "change");
    changes.map(Frame::json).collect()
}

/// The item comes whole and goes with every second event.
#[track_caller]
fn assert_comes_and_goes(frames: &[Frame], last: u64) {
    let changes = changes(frames);
    assert_eq!(changes.len(), FLIPS);
    for (change, position) in changes.iter().rev().zip((0..=last).rev()) {
        assert_eq!(change["position"], position);
        let fill = change["set"]["fill"].as_str().map_or(0, str::len);
        let expected = match (last - position) % 2 {
            0 => ("delete", 0),
            _ => ("upsert", FILL),
        };
        assert_eq!((change["op"].as_str().unwrap(), fill), expected);
    }
}

#[test]
fn who_is_behind_is_told_of_a_large_item_with_little_memory() {
    let big = Big::new(1);
    let last = big.flip();
    let from_earliest = |query: &str| {
        let query = format!("after=earliest&until={last}&{query}");
        let (frames, grown) = big.follow(&query, || last);
        assert!(grown < GROWN_MAX, "{query}: {grown} MB");
        frames
    };
    let frames = from_earliest("fields=on");
    let told = changes(&frames).into_iter();
    let told: Vec<_> = told
        .filter_map(|change| change["set"]["on"].as_i64())
        .collect();
    assert_eq!(told, [1, 0].repeat(FLIPS / 2));
    assert_comes_and_goes(&from_earliest("where=on=1"), last);
    let merged = changes(&from_earliest("conflate=50"));
    let events = merged
        .iter()
        .map(|change| change["merged"].as_u64().unwrap());
    assert_eq!(events.sum::<u64>(), FLIPS as u64 + 1);
    assert_eq!(merged.last().unwrap()["set"]["on"], 0);
}

#[test]
fn a_feed_of_a_large_item_takes_little_memory() {
    let big = Big::new(1);
    let mut last = 0;
    let (frames, grown) = big.follow("after=now&where=on=1", || {
        last = big.flip();
        last
    });
    assert_comes_and_goes(&frames, last);
    assert!(grown < GROWN_MAX, "{grown} MB");
}

#[test]
fn more_large_items_than_are_merged_at_once_are_told_in_parts() {
    const ITEMS: usize = 24;
    let big = Big::new(ITEMS);
    let begun = || big.set((0..ITEMS).map(|n| (n, 1)));
    let (frames, _) = big.follow("after=now&conflate=50", begun);
    let once = |change: &Value| (change["itemId"].clone(), change["merged"].clone());
    let told: Vec<_> = changes(&frames).iter().map(once).collect();
    let expected = (0..ITEMS).map(|n| (json!(format!("big{n}")), json!(1)));
    let expected: Vec<_> = expected.collect();
    assert_eq!(told, expected);
    // Each part is a place to go on from.
    let mut ends = frames
        .iter()
        .filter(|frame| frame.event == "change" && frame.id.is_some());
    let first = ends.next().unwrap();
    let (id, last) = (
        first.id.as_ref().unwrap(),
        frames.last().unwrap().position(),
    );
    let (rest, _) = big.follow(&format!("after={id}&conflate=50"), || last);
    let told: Vec<_> = changes(&rest).iter().map(once).collect();
    let (before, after) = expected.split_at(expected.len() - told.len());
    assert_eq!(told, after);
    let first: Value = first.json();
    assert!(!told.is_empty() && before.last().unwrap().0 == first["itemId"]);
}

#[test]
fn an_item_larger_than_most_is_merged_like_any_other() {
    let big = Big::new(1);
    let fill = "x".repeat(FILL);
    for n in 0..10 {
        let body = format!(r#"{{"id":"big0","fill{n}":"{fill}"}}"#);
        big.server.post(&big.connector, body).expect(202);
    }
    let (frames, _) = big.follow("after=now&conflate=50", || big.flip());
    let merged: Vec<_> = changes(&frames)
        .iter()
        .map(|change| (change["merged"].clone(), change["set"].clone()))
        .collect();
    assert_eq!(merged, [(FLIPS.into(), json!({ "on": 0 }))]);
}
