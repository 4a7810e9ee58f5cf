//! The bytes of stored things: blocks of events in the log, items in the pool. `docs/storage.md` has the layout as a table.
//!
//! Nothing else knows these bytes. bincode is used here and nowhere else, for metadata only, under a limit, behind a checksum,
//! and never for a payload (`docs/adr/0001`).

mod block;
mod item;
mod note;

pub use block::{
    Block, BlockError, BlockHeader, Digest, EncodedBlock, FORMAT_VERSION, HEADER_BYTES, MAGIC,
    THINNED_HEADER_BYTES, THINNED_VERSION, Thinned, Thinning, encode_block, encode_thinned,
    event_crc, find_blocks, find_damage, thinned_crc,
};
pub use item::{ItemError, decode_history, decode_item, encode_history, encode_item};
pub use note::{decode_note, encode_note};

/// Metadata of an event: names, ids and numbers, at most some 500 bytes.
const META_CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<4096>,
> = bincode::config::standard().with_limit::<4096>();
