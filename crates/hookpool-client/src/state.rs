//! What the frames of a follower add up to: the items of its streams as of a cursor. Knows no connection.

use std::collections::BTreeMap;

use crate::{
    frame::{Change, Frame, Op},
    value::Fields,
};

/// The items of one stream, or of several, put together from frames.
///
/// It is right if it is fed every frame of a follower that starts with a snapshot or the earliest change (with a follower that starts
/// elsewhere, only what was told since is in it). Under conditions and fields it holds what those select.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    streams: BTreeMap<String, Items>,
    /// Of the last frame that had one.
    cursor: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Items {
    items: BTreeMap<String, Fields>,
    /// Whether they are those of one position: not inside a snapshot, between two generations, or in the middle of merged changes.
    whole: bool,
}

impl State {
    /// The empty state of these streams; [`Follower::state`](crate::Follower::state) is that of its own.
    #[must_use]
    pub fn new<T: Into<String>>(streams: impl IntoIterator<Item = T>) -> Self {
        let empty = |name: T| (name.into(), Items::default());
        Self {
            streams: streams.into_iter().map(empty).collect(),
            cursor: None,
        }
    }

    /// Takes the next frame.
    pub fn feed(&mut self, frame: &Frame) {
        match frame {
            Frame::Item(row) => {
                let of = self.named(Some(&row.stream));
                of.whole = false;
                of.items.insert(row.item_id.clone(), row.fields.clone());
            }
            Frame::Change(change) => self.named(Some(&change.stream)).change(change),
            Frame::SnapshotEnd(end) => self.named(end.stream.as_deref()).whole = true,
            Frame::Bookmark(bookmark) => self.named(bookmark.stream.as_deref()).whole = true,
            Frame::Generation(now) => self.named(now.stream.as_deref()).whole = false,
            Frame::Reset(reset) => *self.named(reset.stream.as_deref()) = Items::default(),
            Frame::Goodbye(_) => {}
        }
        if let Some(cursor) = frame.cursor() {
            self.cursor = Some(cursor.to_owned());
        }
    }

    /// The items of a stream by id; none of a stream that is not followed.
    #[must_use]
    pub fn items(&self, stream: &str) -> &BTreeMap<String, Fields> {
        static NONE: BTreeMap<String, Fields> = BTreeMap::new();
        self.streams.get(stream).map_or(&NONE, |of| &of.items)
    }

    /// What to resume from with exactly these items; `None` while they are not those of one position of each stream: inside a snapshot,
    /// between two generations, in the middle of merged changes.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        let whole = self.streams.values().all(|of| of.whole);
        self.cursor.as_deref().filter(|_| whole)
    }

    /// A frame that names no stream is of the only one.
    fn named(&mut self, stream: Option<&str>) -> &mut Items {
        let only = self.streams.keys().next();
        let name = stream
            .or_else(|| only.map(String::as_str))
            .unwrap_or_default();
        self.streams.entry(name.to_owned()).or_default()
    }
}

impl Items {
    fn change(&mut self, change: &Change) {
        self.whole = !change.cursor.is_empty();
        match change.op {
            Op::Delete => drop(self.items.remove(&change.item_id)),
            Op::Upsert => {
                let fields = self.items.entry(change.item_id.clone()).or_default();
                fields.retain(|name, _| !change.unset.contains(name));
                fields.extend(change.set.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse;

    fn feed(state: &mut State, name: &str, id: &str, data: &str) {
        let frame = Frame::read(sse::Event {
            name: name.to_owned(),
            data: data.to_owned(),
            id: Some(id.to_owned()).filter(|id| !id.is_empty()),
            last_event_id: String::new(),
        });
        state.feed(&frame.unwrap().unwrap());
    }

    fn row(id: &str, fields: &str) -> String {
        format!(r#"{{"stream":"s","itemId":"{id}","fields":{fields},"position":1}}"#)
    }

    fn change(op: &str, id: &str, rest: &str) -> String {
        format!(r#"{{"op":"{op}","stream":"s","itemId":"{id}",{rest}"position":2,"time":"t"}}"#)
    }

    fn shown(state: &State) -> String {
        serde_json::to_string(state.items("s")).unwrap()
    }

    #[test]
    fn rows_changes_and_deletes_add_up() {
        let mut state = State::new(["s"]);
        feed(&mut state, "item", "", &row("a", r#"{"x":1,"y":1}"#));
        feed(&mut state, "item", "", &row("b", r#"{"x":1}"#));
        assert_eq!(
            state.cursor(),
            None,
            "a snapshot is not whole before its end"
        );
        feed(
            &mut state,
            "snapshot-end",
            "c1",
            r#"{"position":1,"items":2}"#,
        );
        assert_eq!(state.cursor(), Some("c1"));
        let set = r#""set":{"x":1.0,"z":2},"unset":["y"],"#;
        feed(&mut state, "change", "c2", &change("upsert", "a", set));
        feed(&mut state, "change", "c3", &change("delete", "b", ""));
        feed(
            &mut state,
            "change",
            "c4",
            &change("upsert", "c", r#""set":{},"#),
        );
        assert_eq!(shown(&state), r#"{"a":{"x":1.0,"z":2},"c":{}}"#);
        assert_eq!(state.cursor(), Some("c4"));
    }

    #[test]
    fn merged_changes_are_whole_with_the_last_of_them() {
        let mut state = State::new(["s"]);
        feed(&mut state, "bookmark", "c1", r#"{"position":1}"#);
        let merged = r#""set":{"x":1},"merged":2,"#;
        feed(&mut state, "change", "", &change("upsert", "a", merged));
        assert_eq!(state.cursor(), None);
        feed(&mut state, "change", "c2", &change("upsert", "b", merged));
        assert_eq!(state.cursor(), Some("c2"));
    }

    #[test]
    fn between_two_generations_nothing_is_whole() {
        let mut state = State::new(["s"]);
        feed(&mut state, "item", "", &row("a", r#"{"x":1}"#));
        feed(
            &mut state,
            "snapshot-end",
            "g1",
            r#"{"position":1,"items":1}"#,
        );
        let generation = r#"{"generation":2,"projection":1,"position":1}"#;
        feed(&mut state, "generation", "g1", generation);
        assert_eq!(state.cursor(), None);
        let other = r#""set":{"y":1},"unset":["x"],"#;
        feed(&mut state, "change", "", &change("upsert", "a", other));
        assert_eq!(state.cursor(), None);
        feed(&mut state, "bookmark", "g2", r#"{"position":1}"#);
        assert_eq!(
            (shown(&state).as_str(), state.cursor()),
            (r#"{"a":{"y":1}}"#, Some("g2"))
        );
    }

    #[test]
    fn a_reset_voids_the_stream_that_it_names_and_no_other() {
        let mut state = State::new(["s", "t"]);
        feed(&mut state, "item", "", &row("a", "{}"));
        feed(
            &mut state,
            "snapshot-end",
            "s:1",
            r#"{"stream":"s","position":1,"items":1}"#,
        );
        assert_eq!(
            state.cursor(),
            None,
            "the other stream has said nothing yet"
        );
        feed(
            &mut state,
            "bookmark",
            "s:1,t:1",
            r#"{"stream":"t","position":1}"#,
        );
        assert_eq!(state.cursor(), Some("s:1,t:1"));
        feed(
            &mut state,
            "reset",
            "",
            r#"{"stream":"t","reason":"malformed"}"#,
        );
        assert_eq!(
            (shown(&state).as_str(), state.cursor()),
            (r#"{"a":{}}"#, None)
        );
        feed(
            &mut state,
            "reset",
            "",
            r#"{"stream":"s","reason":"malformed"}"#,
        );
        assert_eq!(shown(&state), "{}");
    }

    #[test]
    fn a_frame_without_a_name_is_of_the_only_stream() {
        let mut state = State::new(["s"]);
        feed(&mut state, "item", "", &row("a", "{}"));
        feed(
            &mut state,
            "reset",
            "",
            r#"{"reason":"cut-inside-snapshot"}"#,
        );
        assert_eq!(shown(&state), "{}");
    }
}
