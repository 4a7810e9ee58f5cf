//! Every key that is stored. Nothing else knows one.

use hookpool_core::{
    event::DedupeKey,
    name::{ItemId, StreamName},
    position::{Generation, Position},
};

/// Keyspace of the log: its blocks.
pub(crate) const BLOCKS: &str = "blocks";
/// Keyspace of the log: which blocks hold events of a stream.
pub(crate) const STREAMS: &str = "streams";
/// Keyspace of the log: which request was the last to use an idempotency key.
pub(crate) const REQUESTS: &str = "requests";
/// The one keyspace of the pool: one table file is then one moment of all of it.
pub(crate) const POOL: &str = "pool";

/// Ends a stream name in a key; no name holds it.
const END: u8 = 0;

/// A key, its value and its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    /// In `blocks`: `position(8, BE)` of the block's first event.
    ///
    /// Value: the block, as `hookpool_core::codec` writes it. Written by the commit, again when it loses events, never removed.
    Block(Position),
    /// In `streams`: `name 00 position(8, BE)` of the first event of a block that holds events of this stream.
    ///
    /// Value: [`crate::rows::Ordinals`]. Written with its block, each time; removed when the block has no event of the stream any more.
    Stream(&'a StreamName, Position),
    /// In `requests`: `idempotency key(16)`.
    ///
    /// Value: [`crate::rows::request`]. Written with the block of the request; overwritten by a later one when it has expired, or removed some time after.
    Request(&'a DedupeKey),
    /// In `pool`: `c`.
    ///
    /// Value: [`crate::rows::checkpoint`]. Overwritten by every commit, in the same batch as its items.
    Checkpoint,
    /// In `pool`: `s name`.
    ///
    /// Value: [`crate::rows::served`]. Overwritten when another generation is served, never removed.
    Served(&'a StreamName),
    /// In `pool`: `g name 00 generation(4, BE)`.
    ///
    /// Value: [`crate::rows::generation_state`]. Overwritten by every commit of the generation; removed last of it.
    Generation(&'a StreamName, Generation),
    /// In `pool`: `i name 00 generation(4, BE) item-id`.
    ///
    /// Value: the item, as `hookpool_core::codec` writes it. Overwritten when the item changes; removed when it is deleted and with its
    /// generation.
    Item(&'a StreamName, Generation, &'a ItemId),
    /// In `pool`: `t name 00 generation(4, BE) item-id`.
    ///
    /// Value: the item, deleted. Overwritten when it is touched without coming back, and when it is deleted again; what comes back leaves it
    /// where it is, and it counts no more. Removed with its generation.
    Tombstone(&'a StreamName, Generation, &'a ItemId),
    /// In `pool`: `h name 00 generation(4, BE) item-id 00 position(8, BE)` of the last event of the history.
    ///
    /// Value: the history, as `hookpool_core::codec` writes it. Written once, and once more where history is dropped, which removes those before it;
    /// removed with its generation.
    History(&'a StreamName, Generation, &'a ItemId, Position),
    /// In `pool`: `n name 00 generation(4, BE) position(8, BE)`.
    ///
    /// Value: [`crate::rows::note`]. Written once; removed with its event or its generation.
    Note(&'a StreamName, Generation, Position),
    /// In `pool`: `q name 00 generation(4, BE) position(8, BE)`: the same for events that fit the projection not at all.
    Quarantined(&'a StreamName, Generation, Position),
}

/// What the keys of a generation begin with, but for its state.
pub(crate) const OF_GENERATION: [u8; 5] = *b"hinqt";

impl Key<'_> {
    pub(crate) fn encode(self) -> Vec<u8> {
        match self {
            Self::Block(first) => first.0.to_be_bytes().into(),
            Self::Stream(name, first) => {
                let mut key = stream_prefix(name);
                key.extend_from_slice(&first.0.to_be_bytes());
                key
            }
            Self::Request(key) => key.0.into(),
            Self::Checkpoint => vec![b'c'],
            Self::Served(name) => [b"s", name.as_str().as_bytes()].concat(),
            Self::Generation(name, generation) => generation_prefix(b'g', name, generation),
            Self::Item(name, generation, id) => item_key(b'i', name, generation, id),
            Self::Tombstone(name, generation, id) => item_key(b't', name, generation, id),
            Self::History(name, generation, id, last) => {
                let mut key = generation_prefix(b'h', name, generation);
                key.extend_from_slice(id.as_str().as_bytes());
                key.push(END);
                key.extend_from_slice(&last.0.to_be_bytes());
                key
            }
            Self::Note(name, generation, position) => {
                let mut key = generation_prefix(b'n', name, generation);
                key.extend_from_slice(&position.0.to_be_bytes());
                key
            }
            Self::Quarantined(name, generation, position) => {
                let mut key = generation_prefix(b'q', name, generation);
                key.extend_from_slice(&position.0.to_be_bytes());
                key
            }
        }
    }
}

/// What all keys of a stream in `streams` begin with.
pub(crate) fn stream_prefix(name: &StreamName) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.as_str().len() + 9);
    key.extend_from_slice(name.as_str().as_bytes());
    key.push(END);
    key
}

/// What the keys of one sort of a generation begin with.
pub(crate) fn generation_prefix(sort: u8, name: &StreamName, generation: Generation) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.as_str().len() + 64);
    key.push(sort);
    key.extend_from_slice(name.as_str().as_bytes());
    key.push(END);
    key.extend_from_slice(&generation.0.to_be_bytes());
    key
}

fn item_key(sort: u8, name: &StreamName, generation: Generation, id: &ItemId) -> Vec<u8> {
    let mut key = generation_prefix(sort, name, generation);
    key.extend_from_slice(id.as_str().as_bytes());
    key
}

/// What the keys of all streams begin with that say what is served.
pub(crate) const SERVED_PREFIX: &[u8] = b"s";
/// What the states of all generations begin with.
pub(crate) const GENERATION_PREFIX: &[u8] = b"g";

/// Reads a key of `blocks`.
pub(crate) fn block_of(key: &[u8]) -> Option<Position> {
    key.try_into().ok().map(u64::from_be_bytes).map(Position)
}

/// Reads a key of `streams`.
pub(crate) fn stream_of(key: &[u8]) -> Option<(StreamName, Position)> {
    let (rest, first) = key.split_last_chunk()?;
    let (end, name) = rest.split_last()?;
    let name = StreamName::new(str::from_utf8(name).ok()?).ok()?;
    (*end == END).then_some((name, Position(u64::from_be_bytes(*first))))
}

/// Reads a [`Key::Served`].
pub(crate) fn served_of(key: &[u8]) -> Option<StreamName> {
    let name = key.strip_prefix(SERVED_PREFIX)?;
    StreamName::new(str::from_utf8(name).ok()?).ok()
}

/// Reads a [`Key::Generation`].
pub(crate) fn generation_of(key: &[u8]) -> Option<(StreamName, Generation)> {
    let (rest, generation) = key.strip_prefix(GENERATION_PREFIX)?.split_last_chunk()?;
    let (end, name) = rest.split_last()?;
    let name = StreamName::new(str::from_utf8(name).ok()?).ok()?;
    (*end == END).then_some((name, Generation(u32::from_be_bytes(*generation))))
}

/// Reads the position off the end of a [`Key::Note`] or [`Key::Quarantined`].
pub(crate) fn position_of(key: &[u8]) -> Option<Position> {
    let (_, position) = key.split_last_chunk()?;
    Some(Position(u64::from_be_bytes(*position)))
}

/// Reads the id off a [`Key::Item`] or [`Key::Tombstone`] that begins with this prefix.
pub(crate) fn item_of(key: &[u8], prefix: &[u8]) -> Option<ItemId> {
    ItemId::new(str::from_utf8(key.strip_prefix(prefix)?).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> StreamName {
        StreamName::new(text).unwrap()
    }

    #[test]
    fn every_key_is_read_back() {
        let sales = name("sales");
        let id = ItemId::new("a/b ü").unwrap();
        assert_eq!(
            block_of(&Key::Block(Position(7)).encode()),
            Some(Position(7))
        );
        assert_eq!(
            stream_of(&Key::Stream(&sales, Position(7)).encode()),
            Some((sales.clone(), Position(7)))
        );
        assert_eq!(
            served_of(&Key::Served(&sales).encode()),
            Some(sales.clone())
        );
        assert_eq!(
            generation_of(&Key::Generation(&sales, Generation(256)).encode()),
            Some((sales.clone(), Generation(256)))
        );
        let note = Key::Note(&sales, Generation(3), Position(7)).encode();
        assert_eq!(position_of(&note), Some(Position(7)));
        let prefix = generation_prefix(b'i', &sales, Generation(3));
        let key = Key::Item(&sales, Generation(3), &id).encode();
        assert_eq!(item_of(&key, &prefix), Some(id));
    }

    #[test]
    fn keys_sort_as_what_they_name() {
        let sorted = [
            Key::Stream(&name("a"), Position(2)).encode(),
            Key::Stream(&name("a"), Position(256)).encode(),
            Key::Stream(&name("a-b"), Position(1)).encode(),
            Key::Stream(&name("b"), Position(1)).encode(),
        ];
        assert!(sorted.is_sorted());
        assert!(Key::Block(Position(255)).encode() < Key::Block(Position(256)).encode());
    }

    #[test]
    fn no_prefix_of_a_stream_holds_keys_of_another() {
        let key = Key::Stream(&name("a-b"), Position(1)).encode();
        assert!(!key.starts_with(&stream_prefix(&name("a"))));
        let id = ItemId::new("x").unwrap();
        let key = Key::Item(&name("a-b"), Generation(1), &id).encode();
        assert!(!key.starts_with(&generation_prefix(b'i', &name("a"), Generation(1))));
    }

    #[test]
    fn other_bytes_are_no_key() {
        assert_eq!(block_of(b"1234567"), None);
        assert_eq!(stream_of(b"sales-12345678"), None);
        assert_eq!(stream_of(b"\x0012345678"), None);
        assert_eq!(served_of(b"s\xff"), None);
        assert_eq!(generation_of(b"gsales-1234"), None);
        assert_eq!(item_of(b"isales", b"iother"), None);
    }
}
