//! What comes over a change stream, as types.

use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned, ser::SerializeStruct};

use crate::{error::Error, sse, value::Fields};

/// One step of a change stream. Serialized it is a line of the stream's NDJSON form: `event`, `id` where it has one, `data`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// A row of a snapshot.
    Item(Row),
    /// The snapshot is complete; changes follow.
    SnapshotEnd(SnapshotEnd),
    /// An event of the log, applied.
    Change(Change),
    /// Nothing to show, but the cursor moved.
    Bookmark(Bookmark),
    /// Another generation is served. What it differs by follows as changes without a cursor, then a bookmark.
    Generation(Generation),
    /// What was seen so far is void; a snapshot follows.
    Reset(Reset),
    /// The server is about to close the stream.
    Goodbye(Goodbye),
}

/// An item as a snapshot shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Of the item.
    pub stream: String,
    /// The item.
    pub item_id: String,
    /// All its fields.
    pub fields: Fields,
    /// The event that changed it last.
    pub position: u64,
}

/// Where a snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEnd {
    /// To resume from.
    #[serde(skip)]
    pub cursor: String,
    /// Its stream, on a connection of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The last event that the snapshot shows.
    pub position: u64,
    /// How many rows it had.
    pub items: u64,
}

/// What an event did to its item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// To resume from; empty where the change is part of the difference to another generation, or of merged changes and not the last.
    #[serde(skip)]
    pub cursor: String,
    /// Written or gone.
    pub op: Op,
    /// Of the item.
    pub stream: String,
    /// The item.
    pub item_id: String,
    /// The fields that changed; none where the item is gone.
    #[serde(default)]
    pub set: Fields,
    /// The fields that went away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
    /// The event.
    pub position: u64,
    /// When it was recorded, RFC 3339.
    pub time: String,
    /// How many events it tells of, where changes are merged; `position` and `time` are those of the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<u64>,
}

/// What happened to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Fields were set.
    Upsert,
    /// The item is gone.
    Delete,
}

/// A cursor without a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bookmark {
    /// To resume from.
    #[serde(skip)]
    pub cursor: String,
    /// Its stream, on a connection of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Everything up to here was seen or hidden.
    pub position: u64,
}

/// The generation that is served from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Nothing can be resumed from it, and whoever tries gets a snapshot: until the bookmark that follows, items are of both generations.
    #[serde(skip)]
    pub cursor: String,
    /// Its stream, on a connection of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Its number.
    pub generation: u32,
    /// Version of the projection that it follows.
    pub projection: u32,
    /// The last event that both show.
    pub position: u64,
}

/// Why a stream starts over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// Nothing can be resumed from it, and whoever tries gets a snapshot, as before its end; empty with [`Reset::CUT`].
    #[serde(skip)]
    pub cursor: String,
    /// Its stream, on a connection of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The server's `malformed`, `other-epoch`, `other-generation`, `ahead-of-head`, `before-retention`; or [`Reset::CUT`].
    pub reason: String,
    /// The cursor that can't be honoured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// The earliest cursor that could be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest: Option<String>,
}

impl Reset {
    /// The reason that the follower itself gives: the connection was cut inside a snapshot, which now starts again.
    pub const CUT: &str = "cut-inside-snapshot";
}

/// Why a server closes a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// `shutdown`, `revoked`, `unreadable`, `overloaded`; or [`Goodbye::UNTIL`].
    pub reason: String,
}

impl Goodbye {
    /// The reason where all was said that was asked for.
    pub const UNTIL: &str = "until";
}

impl Frame {
    /// The name of its event.
    #[must_use]
    pub fn event(&self) -> &'static str {
        match self {
            Self::Item(_) => "item",
            Self::SnapshotEnd(_) => "snapshot-end",
            Self::Change(_) => "change",
            Self::Bookmark(_) => "bookmark",
            Self::Generation(_) => "generation",
            Self::Reset(_) => "reset",
            Self::Goodbye(_) => "goodbye",
        }
    }

    /// What to resume from after this frame, where it says so.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        match self {
            Self::SnapshotEnd(SnapshotEnd { cursor, .. })
            | Self::Change(Change { cursor, .. })
            | Self::Bookmark(Bookmark { cursor, .. })
            | Self::Generation(Generation { cursor, .. })
            | Self::Reset(Reset { cursor, .. }) => {
                Some(cursor.as_str()).filter(|cursor| !cursor.is_empty())
            }
            Self::Item(_) | Self::Goodbye(_) => None,
        }
    }

    /// The stream that it is of, where it says so: an item and a change always do, the others on a connection of several streams.
    #[must_use]
    pub fn stream(&self) -> Option<&str> {
        match self {
            Self::Item(Row { stream, .. }) | Self::Change(Change { stream, .. }) => Some(stream),
            Self::SnapshotEnd(SnapshotEnd { stream, .. })
            | Self::Bookmark(Bookmark { stream, .. })
            | Self::Generation(Generation { stream, .. })
            | Self::Reset(Reset { stream, .. }) => stream.as_deref(),
            Self::Goodbye(_) => None,
        }
    }

    /// `None` for an event that this version does not know; the protocol may grow.
    pub(crate) fn read(event: sse::Event) -> Result<Option<Self>, Error> {
        let cursor = event.id.unwrap_or_default();
        let data = event.data.as_str();
        Ok(Some(match event.name.as_str() {
            "item" => Self::Item(json(data)?),
            "snapshot-end" => Self::SnapshotEnd(SnapshotEnd {
                cursor,
                ..json(data)?
            }),
            "change" => Self::Change(Change {
                cursor,
                ..json(data)?
            }),
            "bookmark" => Self::Bookmark(Bookmark {
                cursor,
                ..json(data)?
            }),
            "generation" => Self::Generation(Generation {
                cursor,
                ..json(data)?
            }),
            "reset" => Self::Reset(Reset {
                cursor,
                ..json(data)?
            }),
            "goodbye" => Self::Goodbye(json(data)?),
            _ => return Ok(None),
        }))
    }
}

fn json<T: DeserializeOwned>(data: &str) -> Result<T, Error> {
    serde_json::from_str(data).map_err(|error| Error::Protocol(error.to_string()))
}

impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut line = to.serialize_struct("Frame", 3)?;
        line.serialize_field("event", self.event())?;
        match self.cursor() {
            Some(cursor) => line.serialize_field("id", cursor)?,
            None => line.skip_field("id")?,
        }
        match self {
            Self::Item(data) => line.serialize_field("data", data)?,
            Self::SnapshotEnd(data) => line.serialize_field("data", data)?,
            Self::Change(data) => line.serialize_field("data", data)?,
            Self::Bookmark(data) => line.serialize_field("data", data)?,
            Self::Generation(data) => line.serialize_field("data", data)?,
            Self::Reset(data) => line.serialize_field("data", data)?,
            Self::Goodbye(data) => line.serialize_field("data", data)?,
        }
        line.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str, id: Option<&str>, data: &str) -> Result<Option<Frame>, Error> {
        Frame::read(sse::Event {
            name: name.to_owned(),
            data: data.to_owned(),
            id: id.map(ToOwned::to_owned),
            last_event_id: id.unwrap_or_default().to_owned(),
        })
    }

    #[test]
    fn frames_print_as_their_ndjson_line() {
        for (name, id, data) in [
            (
                "item",
                None,
                r#"{"stream":"s","itemId":"a","fields":{"n":1.0},"position":1}"#,
            ),
            ("snapshot-end", Some("e.1.1"), r#"{"position":1,"items":1}"#),
            (
                "change",
                Some("e.1.2"),
                r#"{"op":"upsert","stream":"s","itemId":"a","set":{"n":123456789012345678901},"position":2,"time":"t"}"#,
            ),
            (
                "change",
                None,
                r#"{"op":"upsert","stream":"s","itemId":"a","set":{"y":1},"unset":["x"],"position":2,"time":"t","merged":4}"#,
            ),
            (
                "change",
                Some("e.1.2"),
                r#"{"op":"delete","stream":"s","itemId":"a","set":{},"position":2,"time":"t"}"#,
            ),
            ("bookmark", Some("e.1.3"), r#"{"position":3}"#),
            (
                "bookmark",
                Some("s:e.1.3"),
                r#"{"stream":"s","position":3}"#,
            ),
            (
                "reset",
                Some("e.0.3"),
                r#"{"reason":"malformed","requested":"x","earliest":"e.1.0"}"#,
            ),
            ("goodbye", None, r#"{"reason":"shutdown"}"#),
        ] {
            let id_part = id.map_or_else(String::new, |id| format!(r#""id":"{id}","#));
            let line = format!(r#"{{"event":"{name}",{id_part}"data":{data}}}"#);
            let frame = frame(name, id, data).unwrap().unwrap();
            assert_eq!(serde_json::to_string(&frame).unwrap(), line);
        }
    }

    #[test]
    fn an_unknown_event_is_no_frame_and_broken_data_is_an_error() {
        assert_eq!(frame("weather", Some("e.2.1"), "{}").unwrap(), None);
        assert!(matches!(
            frame("bookmark", None, "{"),
            Err(Error::Protocol(_))
        ));
    }
}
