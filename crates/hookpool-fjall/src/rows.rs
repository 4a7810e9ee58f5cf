//! Values that are not blocks or items: fixed layouts, little endian. What a checksum covers begins with the key.

use std::ops::Range;

use hookpool_core::{
    codec::{decode_note, encode_note},
    difference::DifferenceSum,
    fold::Note,
    position::{Epoch, Generation, Position},
    time::Timestamp,
};
use hookpool_store::{Checkpoint, DifferenceState, GenerationState};

/// Which events of a block belong to a stream: their ordinals within it, 4 bytes each, strictly increasing; none means all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ordinals {
    /// The whole block.
    All,
    /// These, counted from 0.
    Some(Vec<u32>),
}

impl Ordinals {
    /// Of the ordinals of one stream in a block that was committed with `count` events.
    pub(crate) fn of(ordinals: Vec<u32>, count: u32) -> Self {
        if u32::try_from(ordinals.len()) == Ok(count) {
            Self::All
        } else {
            Self::Some(ordinals)
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::All => Vec::new(),
            Self::Some(ordinals) => ordinals.iter().flat_map(|n| n.to_le_bytes()).collect(),
        }
    }

    /// Of a block of `count` events; `None` if the bytes fit no such block.
    pub(crate) fn decode(bytes: &[u8], count: u32) -> Option<Self> {
        let (chunks, rest) = bytes.as_chunks::<4>();
        let ordinals: Vec<u32> = chunks
            .iter()
            .map(|bytes| u32::from_le_bytes(*bytes))
            .collect();
        let fits = rest.is_empty()
            && ordinals.is_sorted_by(|a, b| a < b)
            && ordinals.last().is_none_or(|last| *last < count);
        fits.then_some(if ordinals.is_empty() {
            Self::All
        } else {
            Self::Some(ordinals)
        })
    }

    /// How many of them are in a range.
    pub(crate) fn count_in(&self, range: Range<u32>) -> usize {
        match self {
            Self::All => range.len(),
            Self::Some(ordinals) => {
                let before = |end| ordinals.partition_point(|ordinal| *ordinal < end);
                before(range.end) - before(range.start)
            }
        }
    }

    /// Whether this event of the block is one of them.
    pub(crate) fn hold(&self, ordinal: u32) -> bool {
        match self {
            Self::All => true,
            Self::Some(ordinals) => ordinals.binary_search(&ordinal).is_ok(),
        }
    }

    /// Stretches of a block to read for these events, as (first, length): a stretch for each run of them, or, where they lie
    /// scattered, one for all, since each stretch is looked for from the start of the block.
    pub(crate) fn stretches(&self, count: u32) -> Vec<(u32, u32)> {
        let runs = self.runs(count);
        match (runs.first(), runs.last()) {
            (Some((first, _)), Some((last, length))) if runs.len() > RUNS_MAX => {
                vec![(*first, last + length - first)]
            }
            _ => runs,
        }
    }

    /// Ranges of ordinals without holes, as (first, length).
    fn runs(&self, count: u32) -> Vec<(u32, u32)> {
        let ordinals = match self {
            Self::All => return vec![(0, count)],
            Self::Some(ordinals) => ordinals,
        };
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for ordinal in ordinals {
            match runs.last_mut() {
                Some((first, length)) if *first + *length == *ordinal => *length += 1,
                _ => runs.push((*ordinal, 1)),
            }
        }
        runs
    }
}

/// From here on decoding what lies between is cheaper than looking for each run.
const RUNS_MAX: usize = 24;

const VERSION: u8 = 2;

/// Version, fields, CRC-32 over the key and all of these.
fn seal(key: &[u8], fields: &[&[u8]]) -> Vec<u8> {
    let mut row = vec![VERSION];
    for field in fields {
        row.extend_from_slice(field);
    }
    let crc = crc(key, &row);
    row.extend_from_slice(&crc.to_le_bytes());
    row
}

/// The fields of an intact row.
fn unseal<'a>(key: &[u8], row: &'a [u8]) -> Option<&'a [u8]> {
    let (checked, stored) = row.split_last_chunk()?;
    let (version, fields) = checked.split_first()?;
    (*version == VERSION && crc(key, checked) == u32::from_le_bytes(*stored)).then_some(fields)
}

fn crc(key: &[u8], row: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(row);
    crc.finalize()
}

/// Where the last request with an idempotency key begins, and the time of its first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestRow {
    pub(crate) position: Position,
    pub(crate) time: Timestamp,
}

/// `version(1) position(8) time(8) crc(4)`, the time in microseconds.
pub(crate) fn request(key: &[u8], RequestRow { position, time }: RequestRow) -> Vec<u8> {
    seal(key, &[&position.0.to_le_bytes(), &time.0.to_le_bytes()])
}

/// Reads a [`request`].
pub(crate) fn to_request(key: &[u8], row: &[u8]) -> Option<RequestRow> {
    let (position, time) = unseal(key, row)?.split_first_chunk()?;
    Some(RequestRow {
        position: Position(u64::from_le_bytes(*position)),
        time: Timestamp(u64::from_le_bytes(time.try_into().ok()?)),
    })
}

/// `version(1) epoch(8) position(8) crc(4)`.
pub(crate) fn checkpoint(key: &[u8], checkpoint: Checkpoint) -> Vec<u8> {
    seal(
        key,
        &[
            &checkpoint.epoch.0.to_le_bytes(),
            &checkpoint.position.0.to_le_bytes(),
        ],
    )
}

/// Reads a [`checkpoint`].
pub(crate) fn to_checkpoint(key: &[u8], row: &[u8]) -> Option<Checkpoint> {
    let (epoch, position) = unseal(key, row)?.split_first_chunk()?;
    Some(Checkpoint {
        epoch: Epoch(u64::from_le_bytes(*epoch)),
        position: Position(u64::from_le_bytes(position.try_into().ok()?)),
    })
}

/// `version(1) generation(4) crc(4)`.
pub(crate) fn served(key: &[u8], generation: Generation) -> Vec<u8> {
    seal(key, &[&generation.0.to_le_bytes()])
}

/// Reads a [`served`].
pub(crate) fn to_served(key: &[u8], row: &[u8]) -> Option<Generation> {
    let generation = unseal(key, row)?.try_into().ok()?;
    Some(Generation(u32::from_le_bytes(generation)))
}

/// `version(1) note crc(4)`, the note as `hookpool_core::codec` writes it.
pub(crate) fn note(key: &[u8], note: &Note) -> Vec<u8> {
    seal(key, &[&encode_note(note)])
}

/// Reads a [`note`].
pub(crate) fn to_note(key: &[u8], row: &[u8]) -> Option<Note> {
    decode_note(unseal(key, row)?)
}

/// `version(1) numbers crc(4)`, each number of 8 bytes: projection, 1 if it is being built, up to where, last event, events, items,
/// quarantined, superseded; then 0 without a difference, 1 with a part of it, 2 with all; and then added, removed, changed and
/// the four words of the sum.
pub(crate) fn generation_state(key: &[u8], state: GenerationState) -> Vec<u8> {
    let difference = state.difference.unwrap_or_default();
    let kept = match state.difference {
        None => 0,
        Some(DifferenceState { whole: false, .. }) => 1,
        Some(DifferenceState { whole: true, .. }) => 2,
    };
    let [a, b, c, d] = difference.sum.words;
    let numbers = [
        state.projection.into(),
        state.built.is_some().into(),
        state.built.unwrap_or_default().0,
        state.position.0,
        state.events,
        state.items,
        state.quarantined,
        state.superseded,
        kept,
        difference.sum.added,
        difference.sum.removed,
        difference.sum.changed,
        a,
        b,
        c,
        d,
    ];
    seal(key, &[numbers.map(u64::to_le_bytes).as_flattened()])
}

/// Reads a [`generation_state`].
pub(crate) fn to_generation_state(key: &[u8], row: &[u8]) -> Option<GenerationState> {
    let (numbers, rest) = unseal(key, row)?.as_chunks::<8>();
    let numbers: &[[u8; 8]; 16] = numbers.try_into().ok().filter(|_| rest.is_empty())?;
    let numbers = numbers.map(u64::from_le_bytes);
    let [
        projection,
        building,
        built,
        position,
        events,
        items,
        quarantined,
        superseded,
        kept,
        sum @ ..,
    ] = numbers;
    let [added, removed, changed, words @ ..] = sum;
    let sum = DifferenceSum {
        added,
        removed,
        changed,
        words,
    };
    let difference = match kept {
        0 => None,
        1 => Some(DifferenceState { sum, whole: false }),
        2 => Some(DifferenceState { sum, whole: true }),
        _ => return None,
    };
    Some(GenerationState {
        projection: projection.try_into().ok()?,
        built: (building == 1).then_some(Position(built)),
        position: Position(position),
        events,
        items,
        quarantined,
        superseded,
        difference,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKPOINT: Checkpoint = Checkpoint {
        epoch: Epoch(7),
        position: Position(9),
    };
    const STATE: GenerationState = GenerationState {
        projection: 2,
        built: Some(Position(7)),
        position: Position(8),
        events: 9,
        items: 5,
        quarantined: 1,
        superseded: u64::MAX,
        difference: Some(DifferenceState {
            sum: DifferenceSum {
                added: 1,
                removed: 2,
                changed: 3,
                words: [4, 5, 6, u64::MAX],
            },
            whole: true,
        }),
    };

    #[test]
    fn rows_are_read_back_under_their_own_key_only() {
        let row = checkpoint(b"c", CHECKPOINT);
        assert_eq!(to_checkpoint(b"c", &row), Some(CHECKPOINT));
        assert_eq!(to_checkpoint(b"d", &row), None);
        let row = served(b"ssales", Generation(7));
        assert_eq!(to_served(b"ssales", &row), Some(Generation(7)));
        assert_eq!(to_served(b"sother", &row), None);
        let row = note(b"n", &Note::Superseded);
        assert_eq!(to_note(b"n", &row), Some(Note::Superseded));
        for difference in [None, Some(DifferenceState::default()), STATE.difference] {
            let state = GenerationState {
                difference,
                ..STATE
            };
            let row = generation_state(b"gsales", state);
            assert_eq!(to_generation_state(b"gsales", &row), Some(state));
            assert_eq!(to_generation_state(b"gother", &row), None);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_row_is_found() {
        let good = generation_state(b"ssales", STATE);
        for bit in 0..good.len() * 8 {
            let mut row = good.clone();
            row[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(to_generation_state(b"ssales", &row), None, "bit {bit}");
        }
    }

    #[test]
    fn ordinals_are_read_back_in_runs() {
        let some = Ordinals::of(vec![0, 1, 4], 5);
        assert_eq!(Ordinals::decode(&some.encode(), 5), Some(some.clone()));
        assert_eq!(some.runs(5), [(0, 2), (4, 1)]);
        let all = Ordinals::of(vec![0, 1, 2], 3);
        assert_eq!((all.encode().len(), all.runs(3)), (0, vec![(0, 3)]));
    }

    #[test]
    fn scattered_ordinals_are_one_stretch() {
        let ordinals: Vec<u32> = (3..100).step_by(2).collect();
        let some = Ordinals::of(ordinals, 200);
        assert_eq!(some.stretches(200), [(3, 97)]);
        assert!(some.hold(99) && !some.hold(98) && !some.hold(101));
        assert_eq!((some.count_in(0..200), some.count_in(4..8)), (49, 2));
        assert_eq!(Ordinals::All.count_in(3..10), 7);
    }

    #[test]
    fn ordinals_that_fit_no_block_are_damaged() {
        let some = Ordinals::Some(vec![0, 4]).encode();
        assert_eq!(Ordinals::decode(&some, 4), None);
        assert_eq!(Ordinals::decode(some.get(..7).unwrap(), 5), None);
        assert_eq!(
            Ordinals::decode(&Ordinals::Some(vec![4, 0]).encode(), 5),
            None
        );
    }
}
