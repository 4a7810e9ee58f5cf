//! An item of the pool and its history: format byte, CRC-32 of the rest, then bincode. Each event that set a field is written once.
//! An item that was deleted has a format of its own, which says when.

use std::{collections::BTreeMap, sync::Arc};

use thiserror::Error;

use crate::{
    event::RequestId,
    fold::{Field, History, Item, Positions, Source},
    json::Kind,
    name::ConnectorName,
    position::Position,
    projection::Order,
    time::Timestamp,
};

/// Bytes that are not an item. The pool is derived: deleting its folder rebuilds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("read an item of the pool: its bytes are damaged")]
pub struct ItemError;

const VERSION: u8 = 2;
/// The same with a [`StoredDeletion`] behind it.
const DELETED_VERSION: u8 = 3;
/// An item holds the fields of many bodies; this bounds what a damaged length can ask for.
const ITEM_CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<0x4000_0000>,
> = bincode::config::standard().with_limit::<0x4000_0000>();

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct StoredItem<'a> {
    position: u64,
    order: Option<String>,
    /// Each as its distance from the one before: small numbers take one byte.
    recent: Vec<u64>,
    sources: Vec<StoredSource<'a>>,
    fields: Vec<StoredField<'a>>,
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct StoredSource<'a> {
    position: u64,
    time: u64,
    connector: &'a str,
    request_id: [u8; 16],
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct StoredField<'a> {
    name: &'a str,
    nested: bool,
    text: &'a str,
    /// Index into the sources.
    source: u32,
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct StoredHistory<'a> {
    positions: Vec<u64>,
    after: StoredItem<'a>,
}

/// Of an item that was deleted.
#[derive(bincode::Encode, bincode::BorrowDecode)]
struct StoredDeletion {
    position: u64,
    /// Whether something brought the item back.
    there: bool,
}

/// Encodes an item.
#[must_use]
pub fn encode_item(item: &Item) -> Vec<u8> {
    sealed(StoredItem::of(item), StoredDeletion::of(item))
}

/// Encodes a stretch of an item's past.
#[must_use]
pub fn encode_history(history: &History) -> Vec<u8> {
    let stored = StoredHistory {
        positions: history.positions.steps().collect(),
        after: StoredItem::of(&history.after),
    };
    sealed(stored, StoredDeletion::of(&history.after))
}

/// Decodes what [`encode_item`] made.
///
/// # Errors
/// [`ItemError`] for anything else.
pub fn decode_item(bytes: &[u8]) -> Result<Item, ItemError> {
    let (stored, deletion) = opened::<StoredItem<'_>>(bytes)?;
    stored.into_item(deletion).ok_or(ItemError)
}

/// Decodes what [`encode_history`] made.
///
/// # Errors
/// [`ItemError`] for anything else.
pub fn decode_history(bytes: &[u8]) -> Result<History, ItemError> {
    let (stored, deletion): (StoredHistory<'_>, _) = opened(bytes)?;
    let history = || {
        Some(History {
            positions: Positions::from_steps(&stored.positions)?,
            after: stored.after.into_item(deletion)?,
        })
    };
    history().ok_or(ItemError)
}

fn sealed(stored: impl bincode::Encode, deletion: Option<StoredDeletion>) -> Vec<u8> {
    let version = match deletion {
        None => VERSION,
        Some(_) => DELETED_VERSION,
    };
    let mut bytes = vec![version, 0, 0, 0, 0];
    let written = "writing into memory";
    bincode::encode_into_std_write(stored, &mut bytes, ITEM_CONFIG).expect(written);
    if let Some(deletion) = deletion {
        bincode::encode_into_std_write(deletion, &mut bytes, ITEM_CONFIG).expect(written);
    }
    let crc = crc32fast::hash(bytes.get(5..).unwrap_or_default()).to_le_bytes();
    bytes
        .iter_mut()
        .skip(1)
        .zip(crc)
        .for_each(|(to, from)| *to = from);
    bytes
}

fn opened<'a, T: bincode::BorrowDecode<'a, ()>>(
    bytes: &'a [u8],
) -> Result<(T, Option<StoredDeletion>), ItemError> {
    let ([version, crc @ ..], stored) = bytes.split_first_chunk::<5>().ok_or(ItemError)?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(stored) {
        return Err(ItemError);
    }
    let (value, rest) = decoded(stored)?;
    match (*version, rest) {
        (VERSION, []) => Ok((value, None)),
        (DELETED_VERSION, rest) => match decoded(rest)? {
            (deletion, []) => Ok((value, Some(deletion))),
            _ => Err(ItemError),
        },
        _ => Err(ItemError),
    }
}

/// A value, and the bytes behind it.
fn decoded<'a, T: bincode::BorrowDecode<'a, ()>>(
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), ItemError> {
    let (value, read) =
        bincode::borrow_decode_from_slice(bytes, ITEM_CONFIG).map_err(|_| ItemError)?;
    Ok((value, bytes.get(read..).unwrap_or_default()))
}

impl<'a> StoredItem<'a> {
    fn of(item: &'a Item) -> Self {
        let mut sources = BTreeMap::new();
        for (_, field) in item.fields() {
            sources.insert(field.source.position, &field.source);
        }
        let index_of: BTreeMap<Position, u32> = sources.keys().copied().zip(0..).collect();
        let fields = item.fields().iter().map(|(name, field)| StoredField {
            name,
            nested: field.kind == Kind::Nested,
            text: &field.text,
            source: index_of
                .get(&field.source.position)
                .copied()
                .unwrap_or_default(),
        });
        Self {
            position: item.position.0,
            order: item.order.as_ref().map(Order::to_stored),
            recent: item.recent.steps().collect(),
            sources: sources
                .values()
                .map(|source| StoredSource::of(source))
                .collect(),
            fields: fields.collect(),
        }
    }
}

impl StoredDeletion {
    fn of(item: &Item) -> Option<Self> {
        item.deleted.map(|position| Self {
            position: position.0,
            there: item.is_there(),
        })
    }
}

impl StoredItem<'_> {
    fn into_item(self, deletion: Option<StoredDeletion>) -> Option<Item> {
        let sources: Option<Vec<_>> = self.sources.iter().map(StoredSource::to_source).collect();
        let sources = sources?;
        let field = |stored: StoredField<'_>| {
            let kind = if stored.nested {
                Kind::Nested
            } else {
                Kind::Scalar
            };
            let source = Arc::clone(sources.get(usize::try_from(stored.source).ok()?)?);
            Some((
                stored.name.into(),
                Field {
                    kind,
                    text: stored.text.into(),
                    source,
                },
            ))
        };
        let fields: Vec<_> = self.fields.into_iter().map(field).collect::<Option<_>>()?;
        if !fields.is_sorted_by(|(one, _), (next, _)| one < next) {
            return None;
        }
        let order = match &self.order {
            Some(text) => Some(Order::from_stored(text)?),
            None => None,
        };
        let recent = Positions::from_steps(&self.recent)?;
        let item = Item::new(Position(self.position), order, recent, fields);
        Some(match deletion {
            None => item,
            Some(StoredDeletion { position, there }) => item.deleted_at(Position(position), there),
        })
    }
}

impl<'a> StoredSource<'a> {
    fn of(source: &'a Source) -> Self {
        Self {
            position: source.position.0,
            time: source.time.0,
            connector: source.connector.as_str(),
            request_id: source.request_id.0,
        }
    }

    fn to_source(&self) -> Option<Arc<Source>> {
        let connector = ConnectorName::new(self.connector).ok()?;
        Some(Arc::new(Source {
            position: Position(self.position),
            time: Timestamp(self.time),
            connector,
            request_id: RequestId(self.request_id),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::tests::folded;

    #[test]
    fn what_is_written_is_read_back() {
        for bodies in [
            &[][..],
            &["{}"],
            &[r#"{"a":1,"b":{"x":[1]}}"#, r#"{"b":"\n","c":null}"#],
        ] {
            let item = folded(bodies);
            assert_eq!(decode_item(&encode_item(&item)), Ok(item));
        }
    }

    #[test]
    fn a_deleted_item_and_one_that_came_back_are_read_back() {
        let there = folded(&[r#"{"a":1}"#, "{}"]);
        for item in [
            Item::new(
                Position(2),
                None,
                Positions::from_iter([Position(2)]),
                Vec::new(),
            )
            .deleted_at(Position(2), false),
            there.clone().deleted_at(Position(1), true),
        ] {
            assert_eq!(decode_item(&encode_item(&item)), Ok(item.clone()));
            let history = History {
                positions: Positions::from_iter([Position(1)]),
                after: item,
            };
            assert_eq!(decode_history(&encode_history(&history)), Ok(history));
        }
        assert_eq!(encode_item(&there)[0], VERSION);
    }

    #[test]
    fn a_history_is_read_back() {
        let mut after = folded(&[r#"{"a":1}"#]);
        after.order = Some(Order::Text("v1".into()));
        after.recent.clear();
        let history = History {
            positions: [1, 300, u64::MAX].map(Position).into_iter().collect(),
            after,
        };
        assert_eq!(decode_history(&encode_history(&history)), Ok(history));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let item = folded(&[r#"{"a":1,"b":{"x":[1]}}"#, r#"{"b":"\n","c":null}"#]);
        let deleted = item.clone().deleted_at(Position(1), true);
        for good in [item, deleted].iter().map(encode_item) {
            for bit in 0..good.len() * 8 {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(decode_item(&bytes).is_err(), "bit {bit}");
            }
        }
    }
}
