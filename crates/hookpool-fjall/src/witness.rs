//! The witness: how far the log was durable, kept outside the database that it vouches for.
//!
//! Written a few times a second while the log moves, and when it is closed. A log that ends before its witness does not open.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use hookpool_core::{
    codec::Digest,
    position::{Epoch, Position},
};
use hookpool_store::{Cause, LogEnd};

use crate::folder;

const FILE: &str = "witness";
const MAGIC: [u8; 4] = *b"HKPW";
const VERSION: u8 = 1;
const BYTES: usize = 60;
/// While dirty, how long a moved head waits to be witnessed.
const INTERVAL: Duration = Duration::from_millis(100);

/// An end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Witness {
    /// Of the log.
    pub(crate) epoch: Epoch,
    /// The last durable position.
    pub(crate) head: Position,
    /// Of the block that ends there; zeros in an empty log.
    pub(crate) digest: Digest,
}

/// What is in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Intact(Witness),
    Damaged,
    Missing,
}

impl Witness {
    pub(crate) fn log_end(&self) -> LogEnd {
        LogEnd {
            head: self.head,
            digest: self.digest,
        }
    }

    /// `magic(4) version(1) 00 00 00 epoch(8) head(8) digest(32) crc(4)`, little endian.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = [
            &MAGIC[..],
            &[VERSION, 0, 0, 0],
            &self.epoch.0.to_le_bytes(),
            &self.head.0.to_le_bytes(),
            &self.digest.0,
        ]
        .concat();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let (checked, crc) = bytes.split_last_chunk()?;
        let (start, rest) = checked.split_first_chunk::<8>()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (head, digest) = rest.split_first_chunk()?;
        let intact = crc32fast::hash(checked) == u32::from_le_bytes(*crc);
        let known = start.starts_with(&MAGIC) && start.get(4) == Some(&VERSION);
        (intact && known).then_some(Self {
            epoch: Epoch(u64::from_le_bytes(*epoch)),
            head: Position(u64::from_le_bytes(*head)),
            digest: Digest(digest.try_into().ok()?),
        })
    }

    pub(crate) fn read(dir: &Path) -> std::io::Result<Found> {
        match std::fs::read(dir.join(FILE)) {
            Ok(bytes) => Ok(Self::decode(&bytes).map_or(Found::Damaged, Found::Intact)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Found::Missing),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn write(&self, dir: &Path) -> std::io::Result<()> {
        folder::write_atomic(dir, FILE, &self.encode())
    }
}

/// The thread that keeps the witness of an open log.
#[derive(Debug)]
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    failed: OnceLock<Cause>,
}

#[derive(Debug)]
struct State {
    latest: Witness,
    written: Witness,
    closing: bool,
}

impl Keeper {
    /// Keeps the witness of a log that ends at `latest`, while the file says `written`.
    pub(crate) fn start(dir: &Path, latest: Witness, written: Witness) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            dir: dir.into(),
            state: Mutex::new(State {
                latest,
                written,
                closing: false,
            }),
            changed: Condvar::new(),
            failed: OnceLock::new(),
        });
        let thread = std::thread::Builder::new().name("witness".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The log is durable up to here.
    pub(crate) fn moved(&self, latest: Witness) {
        let mut state = self.shared.lock();
        let was_clean = state.latest == state.written;
        state.latest = latest;
        drop(state);
        if was_clean {
            self.shared.changed.notify_one();
        }
    }

    /// Why the witness could not be written, which is as final as a failed commit.
    pub(crate) fn failed(&self) -> Option<Cause> {
        self.shared.failed.get().cloned()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say that `failed` does not say.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one move.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(witness) = self.next() {
            if let Err(error) = witness.write(&self.dir) {
                let _ = self.failed.set(Arc::new(error));
                return;
            }
            self.lock().written = witness;
        }
    }

    /// What to write next, one interval after the last; at once when closing, `None` when that is done.
    fn next(&self) -> Option<Witness> {
        let idle = |state: &mut State| state.latest == state.written && !state.closing;
        let state = self
            .changed
            .wait_while(self.lock(), idle)
            .unwrap_or_else(PoisonError::into_inner);
        let open = |state: &mut State| !state.closing;
        let (state, _) = self
            .changed
            .wait_timeout_while(state, INTERVAL, open)
            .unwrap_or_else(PoisonError::into_inner);
        (state.latest != state.written).then_some(state.latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITNESS: Witness = Witness {
        epoch: Epoch(1),
        head: Position(2),
        digest: Digest([3; 32]),
    };

    #[test]
    fn what_is_written_is_read_back_and_every_flipped_bit_is_found() {
        let good = WITNESS.encode();
        assert_eq!((Witness::decode(&good), good.len()), (Some(WITNESS), BYTES));
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Witness::decode(&bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn the_last_head_is_in_the_file_when_the_keeper_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        WITNESS.write(dir.path()).unwrap();
        let keeper = Keeper::start(dir.path(), WITNESS, WITNESS).unwrap();
        let last = Witness {
            head: Position(9),
            ..WITNESS
        };
        keeper.moved(last);
        drop(keeper);
        assert_eq!(Witness::read(dir.path()).unwrap(), Found::Intact(last));
    }

    #[test]
    fn a_moved_head_is_in_the_file_soon() {
        let dir = tempfile::tempdir().unwrap();
        WITNESS.write(dir.path()).unwrap();
        let keeper = Keeper::start(dir.path(), WITNESS, WITNESS).unwrap();
        let last = Witness {
            head: Position(9),
            ..WITNESS
        };
        keeper.moved(last);
        let written = || Witness::read(dir.path()).unwrap() == Found::Intact(last);
        for _ in 0..200 {
            if written() {
                return;
            }
            std::thread::sleep(INTERVAL);
        }
        panic!("not written");
    }
}
