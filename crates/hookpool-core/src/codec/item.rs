//! An item of the pool: format byte, CRC-32 of the rest, then bincode. Each event that set a field is written once.

use std::{collections::BTreeMap, sync::Arc};

use thiserror::Error;

use crate::{
    fold::{Field, Item, Source},
    json::Kind,
    name::ConnectorName,
    position::Position,
    time::Timestamp,
};

/// Bytes that are not an item. The pool is derived: deleting its folder rebuilds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("read an item of the pool: its bytes are damaged")]
pub struct ItemError;

const VERSION: u8 = 1;
/// An item holds the fields of many bodies; this bounds what a damaged length can ask for.
const ITEM_CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<0x4000_0000>,
> = bincode::config::standard().with_limit::<0x4000_0000>();

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct StoredItem<'a> {
    position: u64,
    sources: Vec<StoredSource<'a>>,
    fields: Vec<StoredField<'a>>,
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct StoredSource<'a> {
    position: u64,
    time: u64,
    connector: &'a str,
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct StoredField<'a> {
    name: &'a str,
    nested: bool,
    text: &'a str,
    /// Index into the sources.
    source: u32,
}

/// Encodes an item.
///
/// # Panics
/// Never: encoding into memory has nothing to fail at.
#[must_use]
pub fn encode_item(item: &Item) -> Vec<u8> {
    let mut sources = BTreeMap::new();
    for field in item.fields.values() {
        sources.insert(field.source.position, &field.source);
    }
    let index_of: BTreeMap<Position, u32> = sources.keys().copied().zip(0..).collect();
    let stored = StoredItem {
        position: item.position.0,
        sources: sources
            .values()
            .map(|source| StoredSource {
                position: source.position.0,
                time: source.time.0,
                connector: source.connector.as_str(),
            })
            .collect(),
        fields: item
            .fields
            .iter()
            .map(|(name, field)| StoredField {
                name,
                nested: field.kind == Kind::Nested,
                text: &field.text,
                source: index_of
                    .get(&field.source.position)
                    .copied()
                    .unwrap_or_default(),
            })
            .collect(),
    };
    let mut bytes = vec![VERSION, 0, 0, 0, 0];
    bincode::encode_into_std_write(stored, &mut bytes, ITEM_CONFIG).expect("writing into memory");
    let crc = crc32fast::hash(bytes.get(5..).unwrap_or_default()).to_le_bytes();
    bytes
        .iter_mut()
        .skip(1)
        .zip(crc)
        .for_each(|(to, from)| *to = from);
    bytes
}

/// Decodes what [`encode_item`] made.
///
/// # Errors
/// [`ItemError`] for anything else.
pub fn decode_item(bytes: &[u8]) -> Result<Item, ItemError> {
    let ([version, crc @ ..], stored) = bytes.split_first_chunk::<5>().ok_or(ItemError)?;
    if *version != VERSION || u32::from_le_bytes(*crc) != crc32fast::hash(stored) {
        return Err(ItemError);
    }
    let (item, read): (StoredItem<'_>, usize) =
        bincode::borrow_decode_from_slice(stored, ITEM_CONFIG).map_err(|_| ItemError)?;
    if read != stored.len() {
        return Err(ItemError);
    }
    item.into_item().ok_or(ItemError)
}

impl StoredItem<'_> {
    fn into_item(self) -> Option<Item> {
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
        let fields: Option<BTreeMap<_, _>> = self.fields.into_iter().map(field).collect();
        Some(Item {
            position: Position(self.position),
            fields: fields?,
        })
    }
}

impl StoredSource<'_> {
    fn to_source(&self) -> Option<Arc<Source>> {
        let connector = ConnectorName::new(self.connector).ok()?;
        Some(Arc::new(Source {
            position: Position(self.position),
            time: Timestamp(self.time),
            connector,
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
    fn every_flipped_bit_is_found() {
        let good = encode_item(&folded(&[
            r#"{"a":1,"b":{"x":[1]}}"#,
            r#"{"b":"\n","c":null}"#,
        ]));
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_item(&bytes).is_err(), "bit {bit}");
        }
    }
}
