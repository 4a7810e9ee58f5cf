//! What became of an event that the event alone does not say. The checksum is the row's.

use crate::{
    fold::Note,
    projection::{Type, Unfit},
};

/// Names of fields, as many as a body has.
const NOTE_CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<0x4000_0000>,
> = bincode::config::standard().with_limit::<0x4000_0000>();

/// Never change what is there: a new shape is a new format of the pool, and what is added comes last.
#[derive(bincode::Encode, bincode::Decode)]
enum StoredNote {
    Superseded,
    Adjusted {
        defaulted: Vec<Box<str>>,
        unset: Vec<Box<str>>,
    },
    ItemId,
    Type(Box<str>, StoredType),
    Order,
    Flattened(Box<str>),
    TooLarge,
    Absent,
}

#[derive(bincode::Encode, bincode::Decode)]
enum StoredType {
    String,
    Number,
    Boolean,
    Time,
    Json,
}

/// Encodes a note.
///
/// # Panics
/// Never: encoding into memory has nothing to fail at.
#[must_use]
pub fn encode_note(note: &Note) -> Vec<u8> {
    let stored = match note.clone() {
        Note::Superseded => StoredNote::Superseded,
        Note::Absent => StoredNote::Absent,
        Note::Adjusted { defaulted, unset } => StoredNote::Adjusted { defaulted, unset },
        Note::Quarantined(unfit) => match unfit {
            Unfit::ItemId => StoredNote::ItemId,
            Unfit::Type(field, into) => StoredNote::Type(field, store(into)),
            Unfit::Order => StoredNote::Order,
            Unfit::Flattened(field) => StoredNote::Flattened(field),
            Unfit::TooLarge => StoredNote::TooLarge,
        },
    };
    bincode::encode_to_vec(stored, NOTE_CONFIG).expect("writing into memory")
}

/// Decodes what [`encode_note`] made; `None` for anything else.
#[must_use]
pub fn decode_note(bytes: &[u8]) -> Option<Note> {
    let (stored, read) = bincode::decode_from_slice(bytes, NOTE_CONFIG).ok()?;
    let note = match stored {
        StoredNote::Superseded => Note::Superseded,
        StoredNote::Absent => Note::Absent,
        StoredNote::Adjusted { defaulted, unset } => Note::Adjusted { defaulted, unset },
        StoredNote::ItemId => Note::Quarantined(Unfit::ItemId),
        StoredNote::Type(field, into) => Note::Quarantined(Unfit::Type(field, load(&into))),
        StoredNote::Order => Note::Quarantined(Unfit::Order),
        StoredNote::Flattened(field) => Note::Quarantined(Unfit::Flattened(field)),
        StoredNote::TooLarge => Note::Quarantined(Unfit::TooLarge),
    };
    (read == bytes.len()).then_some(note)
}

fn store(into: Type) -> StoredType {
    match into {
        Type::String => StoredType::String,
        Type::Number => StoredType::Number,
        Type::Boolean => StoredType::Boolean,
        Type::Time => StoredType::Time,
        Type::Json => StoredType::Json,
    }
}

fn load(stored: &StoredType) -> Type {
    match stored {
        StoredType::String => Type::String,
        StoredType::Number => Type::Number,
        StoredType::Boolean => Type::Boolean,
        StoredType::Time => Type::Time,
        StoredType::Json => Type::Json,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let unfit = [
            Unfit::ItemId,
            Unfit::Type("a".into(), Type::Time),
            Unfit::Order,
            Unfit::Flattened("b".into()),
            Unfit::TooLarge,
        ];
        let adjusted = Note::Adjusted {
            defaulted: vec!["a".into()],
            unset: vec!["b".into(), "ü".into()],
        };
        for note in unfit.map(Note::Quarantined).into_iter().chain([
            Note::Superseded,
            Note::Absent,
            adjusted,
        ]) {
            let bytes = encode_note(&note);
            assert_eq!(decode_note(&bytes), Some(note));
            assert_eq!(decode_note(&bytes[..bytes.len() - 1]), None);
        }
    }
}
