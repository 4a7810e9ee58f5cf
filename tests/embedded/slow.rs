//! A follower of the wide stream that reads only when it is told to, and what its frames say.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};

use crate::{node::Node, wide::STREAM};

const PATIENCE: Duration = Duration::from_secs(60);

/// It blocks: a test runs on a thread of its own.
pub(crate) struct Slow {
    lines: BufReader<TcpStream>,
    after: String,
    read: usize,
    pub(crate) frames: Vec<Value>,
}

impl Slow {
    /// Asks for changes as lines; the query goes on behind `after`.
    pub(crate) fn ask(node: &Node, after: &str) -> Self {
        let target = format!("/api/streams/{STREAM}/changes?after={after}");
        let stream = node.client.ask(&target, 16 << 10);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut slow = Self {
            lines: BufReader::new(stream),
            after: after.to_owned(),
            read: 0,
            frames: Vec::new(),
        };
        assert!(slow.line().contains(" 200 "));
        while !slow.line().is_empty() {}
        slow
    }

    /// The id that it would send to go on: the last that came, or what it asked with.
    pub(crate) fn place(&self) -> &str {
        let mut ids = self.frames.iter().filter_map(|frame| frame["id"].as_str());
        ids.next_back().unwrap_or(&self.after)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).unwrap();
        assert_ne!(read, 0, "it ended after {:?}", self.frames.last());
        self.read += read;
        line.trim_end().to_owned()
    }

    fn frame(&mut self) -> &Value {
        let line = self.line();
        if !line.is_empty() {
            self.frames.push(serde_json::from_str(&line).unwrap());
        }
        self.frames.last().unwrap_or(&Value::Null)
    }

    /// So many bytes more.
    pub(crate) fn read_bytes(&mut self, bytes: usize) {
        let end = self.read + bytes;
        while self.read < end {
            self.frame();
        }
    }

    /// All frames up to the first that is the last.
    pub(crate) fn read_until(&mut self, is_last: impl Fn(&Value) -> bool) -> &[Value] {
        let begun = Instant::now();
        while !is_last(self.frame()) {
            assert!(begun.elapsed() < PATIENCE, "{:?}", self.frames.last());
        }
        &self.frames
    }
}

/// Generation and position of a frame with an id.
pub(crate) fn cursor(frame: &Value) -> Option<(u64, u64)> {
    let mut parts = frame["id"].as_str()?.split('.').skip(1);
    let mut part = || parts.next().unwrap().parse().unwrap();
    Some((part(), part()))
}

pub(crate) fn index_of(frames: &[Value], event: &str) -> usize {
    let found = frames.iter().position(|frame| frame["event"] == event);
    found.unwrap_or_else(|| panic!("no {event} in {} frames", frames.len()))
}

pub(crate) fn count(frames: &[Value], event: &str) -> usize {
    frames
        .iter()
        .filter(|frame| frame["event"] == event)
        .count()
}

pub(crate) type Items = BTreeMap<String, Map<String, Value>>;

/// What a client has after these frames.
pub(crate) fn folded(frames: &[Value]) -> Items {
    let mut items = Items::new();
    for frame in frames {
        let data = &frame["data"];
        let id = || data["itemId"].as_str().unwrap().to_owned();
        match frame["event"].as_str().unwrap() {
            "item" => {
                let fields = data["fields"].as_object().unwrap().clone();
                assert_eq!(items.insert(id(), fields), None, "twice");
            }
            "change" => {
                assert_eq!(data["op"], "upsert");
                let item = items.entry(id()).or_default();
                for name in data["unset"].as_array().into_iter().flatten() {
                    item.remove(name.as_str().unwrap());
                }
                item.extend(data["set"].as_object().unwrap().clone());
            }
            "reset" => items.clear(),
            _ => {}
        }
    }
    items
}

/// What is served.
pub(crate) fn items(node: &Node) -> Items {
    let (mut items, mut after) = (Items::new(), String::new());
    loop {
        let target = format!("/api/streams/{STREAM}/items?limit=1000{after}");
        let page: Value = serde_json::from_str(&node.client.get(&target)).unwrap();
        let rows = page["items"].as_array().unwrap().iter();
        items.extend(rows.map(|row| {
            let id = row["itemId"].as_str().unwrap().to_owned();
            (id, row["fields"].as_object().unwrap().clone())
        }));
        let Some(next) = page["next"].as_str() else {
            return items;
        };
        after = format!("&after={next}");
    }
}
