//! What sessions hand out, as the bytes of one connection.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use bytes::Bytes;
use hookpool_core::{cursor::Cursor, name::StreamName, position::Generation, time::Timestamp};

use super::session::OVERLOADED;
use super::session::Start;
use crate::sse::{Frame, Framing, RETRY, RETRY_LATER};

/// What comes next of one stream.
#[derive(Debug)]
pub(super) enum Out {
    /// Frames in the framing of the connection with ids of this one stream, shared with others who follow it.
    Shared(Bytes),
    /// Frames for this connection.
    Frames(Vec<Frame>),
    /// Everything that could be read was handed out: what comes next is waited for. Only for who asks for it.
    AtRest,
    /// The last word on the stream, and why.
    Goodbye(&'static str),
}

/// Where a client is that has everything so far: what it sends to go on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Places {
    /// A cursor of the one stream; `None` before the first.
    One(Option<String>),
    /// Cursors by stream. As an id: `<stream>:<cursor>`, with commas in between; a stream that is not in it begins with a snapshot.
    Several {
        cursors: BTreeMap<StreamName, String>,
        /// How many there are in all.
        streams: usize,
    },
}

impl Places {
    /// Of a client of one stream that sent this.
    pub(super) fn of_one(place: Option<String>) -> Self {
        Self::One(place)
    }

    /// Of a client of several streams that sent this, which may be one cursor for all. Whether the cursors are good is answered on the streams.
    pub(super) fn of_several(asked: &Asked, streams: &BTreeSet<StreamName>) -> Self {
        let sent = streams
            .iter()
            .filter_map(|stream| match asked.start(stream) {
                // Another text would be no part of an id, and is answered with `reset`.
                Start::Cursor(text) if text.parse::<Cursor>().is_ok() => {
                    Some((stream.clone(), text))
                }
                _ => None,
            });
        Self::Several {
            cursors: sent.collect(),
            streams: streams.len(),
        }
    }

    /// A stream has moved on; the id of all.
    fn move_to(&mut self, stream: &StreamName, cursor: &Cursor) -> String {
        match self {
            Self::One(place) => place.insert(cursor.to_string()).clone(),
            Self::Several { cursors, .. } => {
                cursors.insert(stream.clone(), cursor.to_string());
                joined(cursors)
            }
        }
    }

    /// The data of a frame, which of several streams names its own.
    fn named<'a>(&self, stream: &StreamName, frame: &'a Frame) -> Cow<'a, str> {
        let names_it = matches!(frame.event, "item" | "change" | "goodbye");
        match (self, frame.data.strip_prefix('{')) {
            (Self::Several { .. }, Some(rest)) if !names_it => {
                format!(r#"{{"stream":"{stream}",{rest}"#).into()
            }
            _ => frame.data.as_str().into(),
        }
    }

    /// As a client sends it; `None` as long as it does not say where all streams are.
    fn text(&self) -> Option<String> {
        match self {
            Self::One(place) => place.clone(),
            Self::Several { cursors, streams } => {
                (cursors.len() == *streams).then(|| joined(cursors))
            }
        }
    }
}

/// Where a client wants to begin, as it sent it.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// What it had seen, of a client that was cut off.
    pub(super) resumed: Option<String>,
    /// Where it begins what is not in that.
    pub(super) after: Option<String>,
}

impl Asked {
    /// Of a client of one stream.
    pub(super) fn one(self) -> Option<String> {
        self.resumed.or(self.after)
    }

    /// Where one of several streams begins.
    pub(super) fn start(&self, stream: &StreamName) -> Start {
        for place in self.in_order() {
            let Some(cursors) = vector(place) else {
                return Start::parse(Some(place.to_owned()));
            };
            if let Some(cursor) = cursors.get(stream) {
                return Start::Cursor(cursor.clone());
            }
        }
        Start::Snapshot
    }

    fn in_order(&self) -> impl Iterator<Item = &str> {
        [&self.resumed, &self.after]
            .into_iter()
            .filter_map(Option::as_deref)
    }
}

fn joined(cursors: &BTreeMap<StreamName, String>) -> String {
    let one = |(stream, cursor)| format!("{stream}:{cursor}");
    cursors.iter().map(one).collect::<Vec<_>>().join(",")
}

/// Reads an id of several streams.
fn vector(text: &str) -> Option<BTreeMap<StreamName, String>> {
    // The hour of a time could name a stream.
    if text.parse::<Timestamp>().is_ok() {
        return None;
    }
    let place = |part: &str| {
        let (stream, cursor) = part.split_once(':')?;
        Some((StreamName::new(stream).ok()?, cursor.to_owned()))
    };
    text.split(',').map(place).collect()
}

/// Writes the frames of one connection.
#[derive(Debug)]
pub(super) struct Wire {
    framing: Framing,
    greeted: bool,
    /// What a client is told of when to come back.
    retry: &'static [u8],
    places: Places,
    moved: bool,
    /// Streams from whose place there is no way on, as long as that is so.
    lost: BTreeSet<StreamName>,
}

impl Wire {
    pub(super) fn new(framing: Framing, places: Places) -> Self {
        Self {
            framing,
            greeted: false,
            retry: RETRY,
            places,
            moved: false,
            lost: BTreeSet::new(),
        }
    }

    /// Whether an id was written from which all streams go on.
    pub(super) fn moved(&self) -> bool {
        self.moved && self.lost.is_empty() && self.places.text().is_some()
    }

    /// What a client sends that wants to go on from here.
    pub(super) fn place(&self) -> Option<String> {
        self.places.text()
    }

    /// A sign of life.
    pub(super) fn heartbeat(&self) -> Bytes {
        Bytes::from_static(self.framing.heartbeat())
    }

    /// The bytes of what a stream hands out; none where there is nothing to say.
    pub(super) fn write(&mut self, stream: &StreamName, out: Out) -> Bytes {
        match out {
            Out::Shared(bytes) if self.must_greet() => self.greet(bytes.into()).into(),
            Out::Shared(bytes) => bytes,
            Out::Frames(frames) => self.frames(stream, &frames),
            Out::AtRest => Bytes::new(),
            Out::Goodbye(reason) => {
                if reason == OVERLOADED {
                    self.retry = RETRY_LATER;
                }
                self.frames(
                    stream,
                    &[Frame {
                        event: "goodbye",
                        cursor: None,
                        data: format!(r#"{{"reason":"{reason}"}}"#),
                    }],
                )
            }
        }
    }

    fn frames(&mut self, stream: &StreamName, frames: &[Frame]) -> Bytes {
        let mut bytes = Vec::new();
        for frame in frames {
            let id = frame.cursor.as_ref().map(|cursor| {
                if cursor.generation == Generation::NONE {
                    self.lost.insert(stream.clone());
                } else {
                    self.lost.remove(stream);
                }
                self.places.move_to(stream, cursor)
            });
            let shown = id.as_ref().map(|id| id as &dyn Display);
            let data = self.places.named(stream, frame);
            self.framing.push(&mut bytes, frame.event, shown, &data);
            self.moved |= id.is_some();
        }
        if bytes.is_empty() {
            return Bytes::new();
        }
        self.greet(bytes).into()
    }

    /// The first frame with data carries the retry time; alone it would be an empty event to some clients.
    fn greet(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        if !self.must_greet() {
            return bytes;
        }
        self.greeted = true;
        [self.retry, &bytes].concat()
    }

    fn must_greet(&self) -> bool {
        self.framing == Framing::Sse && !self.greeted
    }
}

#[cfg(test)]
mod tests {
    use hookpool_core::{
        cursor::Cursor,
        position::{Epoch, Generation, Position},
    };

    use super::*;

    fn name(text: &str) -> StreamName {
        StreamName::new(text).unwrap()
    }

    fn bookmark(position: u64) -> Out {
        let cursor = Cursor {
            epoch: Epoch(1),
            generation: Generation::FIRST,
            position: Position(position),
        };
        Out::Frames(vec![Frame {
            event: "bookmark",
            cursor: Some(cursor),
            data: r#"{"position":1}"#.into(),
        }])
    }

    #[test]
    fn an_id_of_several_streams_says_where_each_is() {
        let streams = BTreeSet::from([name("a"), name("b")]);
        let places = Places::of_several(&Asked::default(), &streams);
        let mut wire = Wire::new(Framing::Ndjson, places);
        wire.write(&name("b"), bookmark(7));
        assert!(!wire.moved(), "the other stream has no place yet");
        let line = wire.write(&name("a"), bookmark(9));
        let id = "a:0000000000000001.1.9,b:0000000000000001.1.7";
        assert!(wire.moved());
        assert_eq!(wire.place().as_deref(), Some(id));
        assert_eq!(
            line,
            format!(
                r#"{{"event":"bookmark","id":"{id}","data":{{"stream":"a","position":1}}}}{}"#,
                '\n'
            )
        );
    }

    #[test]
    fn one_cursor_for_several_streams_is_the_place_of_each() {
        let place = |resumed: Option<&str>, after: &str| {
            let asked = Asked {
                resumed: resumed.map(str::to_owned),
                after: Some(after.to_owned()),
            };
            Places::of_several(&asked, &BTreeSet::from([name("a"), name("b")])).text()
        };
        let (one, other) = ("0000000000000001.1.9", "0000000000000001.1.7");
        let both = format!("a:{one},b:{one}");
        assert_eq!(place(None, one), Some(both.clone()));
        let id = format!("a:{other}");
        let rest = format!("{id},b:{one}");
        assert_eq!(place(Some(&id), one), Some(rest));
        assert_eq!(place(Some(one), &id), Some(both), "as they start");
        for nowhere in [
            "now",
            "earliest",
            "snapshot",
            "2026-04-09T10:30:00Z",
            "a,b",
            "a:x",
        ] {
            assert_eq!(place(None, nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn each_of_several_streams_goes_on_from_its_own_place() {
        let start = |resumed: Option<&str>, after: Option<&str>, stream| {
            let [resumed, after] = [resumed, after].map(|text| text.map(str::to_owned));
            Asked { resumed, after }.start(&name(stream))
        };
        let id = Some("a:0000000000000001.1.9,c:x");
        let cursor = |text: &str| Start::Cursor(text.to_owned());
        assert_eq!(start(id, None, "a"), cursor("0000000000000001.1.9"));
        assert_eq!(start(id, None, "b"), Start::Snapshot);
        assert_eq!(start(None, None, "a"), Start::Snapshot);
        assert_eq!(start(None, id, "a"), cursor("0000000000000001.1.9"));
        assert_eq!(start(None, Some("now"), "a"), Start::Now);
        assert_eq!(start(id, Some("earliest"), "b"), Start::Earliest);
        assert_eq!(start(Some("a:2"), id, "a"), cursor("2"));
        assert_eq!(start(Some("a:2"), id, "c"), cursor("x"));
        for other in ["0000000000000001.1.9", "a:1,", "a/b:1"] {
            assert_eq!(start(Some(other), None, "b"), cursor(other), "{other}");
        }
    }

    #[test]
    fn a_time_is_no_id_of_a_stream_that_is_named_like_its_hour() {
        let asked = Asked {
            after: Some("2026-04-09T10:30:00Z".to_owned()),
            ..Asked::default()
        };
        let start = asked.start(&name("2026-04-09T10"));
        assert!(matches!(start, Start::Time(_)), "{start:?}");
    }

    #[test]
    fn the_first_frame_says_when_to_come_back() {
        let mut wire = Wire::new(Framing::Sse, Places::of_one(None));
        let stream = name("a");
        assert_eq!(wire.heartbeat(), ": hb\n");
        assert!(
            wire.write(&stream, bookmark(1))
                .starts_with(b"retry: 2000\nevent: bookmark\n")
        );
        assert!(
            wire.write(&stream, bookmark(2))
                .starts_with(b"event: bookmark\n")
        );
    }
}
