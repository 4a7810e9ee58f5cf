//! Opening a log: its files are checked, its end is proved by the witness, and only then is it used.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use arc_swap::ArcSwap;
use fjall::{Database, Keyspace};
use hookpool_core::{
    codec::Digest,
    position::{Epoch, Position},
};
use tokio::sync::watch;

use super::{FjallLog, KEYSPACES, NAMES, Options, Published, Writer, thin::Thinner};
use crate::{
    database,
    error::{OpenError, Refusal},
    folder::{self, Layout},
    journal,
    keys::REQUESTS,
    requests::Expiry,
    tables,
    tail::{Tail, View},
    witness::{Found, Keeper, Witness},
};

/// What a log is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Use,
    /// Nothing is accepted on the way.
    Verify,
}

/// A log whose files are checked and whose database is open, but whose end is not proved.
pub(crate) struct Opened {
    pub(crate) dir: PathBuf,
    pub(crate) epoch: Epoch,
    layout: Layout,
    witness: Found,
    accepted: Option<Witness>,
    database: Database,
    blocks: Keyspace,
    streams: Keyspace,
    requests: Keyspace,
    expiry: Expiry,
    lock: File,
}

impl Opened {
    /// IMPORTANT: everything is checked before fjall opens, since opening cuts and deletes.
    pub(crate) fn open(dir: &Path, options: Options, purpose: Purpose) -> Result<Self, Refusal> {
        let unusable = |error| OpenError::unusable(dir, error);
        let lock = folder::lock(dir)?;
        let witness = Witness::read(dir).map_err(unusable)?;
        if !folder::db(dir).try_exists().map_err(unusable)? {
            create(dir, options.epoch_if_new, witness)?;
            let format = (Layout::Whole, options.epoch_if_new);
            return Ok(Self::open_database(dir, format, None, lock)?);
        }
        let (layout, epoch) = folder::read_format(dir)?;
        let accepted =
            folder::read_accept(dir).filter(|end| end.epoch == epoch && purpose == Purpose::Use);
        let durable = match (accepted, witness) {
            (Some(end), _) | (None, Found::Intact(end)) => end.head,
            (None, Found::Damaged | Found::Missing) => Position::ZERO,
        };
        tables::check(&folder::db(dir), KEYSPACES, options.verify_bytes)
            .map_err(|what| OpenError::damaged(dir, what))?;
        journal::check(dir, epoch, durable, accepted.as_ref())
            .map_err(|error| Refusal::of_journals(dir, epoch, error))?;
        Ok(Self::open_database(dir, (layout, epoch), accepted, lock)?)
    }

    fn open_database(
        dir: &Path,
        (layout, epoch): (Layout, Epoch),
        accepted: Option<Witness>,
        lock: File,
    ) -> Result<Self, OpenError> {
        let witness = Witness::read(dir).map_err(|error| OpenError::unusable(dir, error))?;
        let expiry = Expiry::default();
        let settings = database::Settings {
            filter: Some((REQUESTS, Arc::new(expiry.clone()))),
            ..database::Settings::default()
        };
        let opened = database::open(&folder::db(dir), NAMES, settings);
        let (database, [blocks, streams, requests]) =
            opened.map_err(|error| OpenError::damaged(dir, error.to_string()))?;
        Ok(Self {
            dir: dir.into(),
            epoch,
            layout,
            witness,
            accepted,
            database,
            blocks,
            streams,
            requests,
            expiry,
            lock,
        })
    }

    pub(crate) fn view(&self) -> View {
        View {
            blocks: self.blocks.clone(),
            streams: self.streams.clone(),
            requests: self.requests.clone(),
            snapshot: self.database.snapshot(),
        }
    }

    /// Proves by the witness that the log did not come back shorter; returns what the file `witness` says afterwards.
    pub(crate) fn prove(&self, view: &View, tail: &Tail) -> Result<Witness, OpenError> {
        let end = Witness {
            epoch: self.epoch,
            head: tail.head,
            digest: tail.digest,
        };
        match self.vouch(view, &end) {
            Ok(witness) => Ok(witness),
            Err(_) if self.accepted == Some(end) => self.accept(end),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn vouch(&self, view: &View, end: &Witness) -> Result<Witness, OpenError> {
        let doubt = |what: &str| OpenError::Witness {
            dir: self.dir.clone(),
            what: what.into(),
            epoch: end.epoch,
            head: end.head,
        };
        let witness = match self.witness {
            Found::Intact(witness) => witness,
            Found::Damaged => return Err(doubt("the file `witness` is damaged")),
            Found::Missing => return Err(doubt("the file `witness` is missing")),
        };
        if witness.epoch != end.epoch {
            return Err(doubt("the file `witness` is of another log"));
        }
        if witness.head > end.head {
            return Err(OpenError::Shorter {
                dir: self.dir.clone(),
                head: end.head,
                durable: witness.head,
            });
        }
        let witnessed = if witness.head == Position::ZERO {
            Digest::default()
        } else {
            view.block_at(witness.head)
                .map_err(|what| OpenError::damaged(&self.dir, what))?
                .filter(|block| block.header().last() == witness.head)
                .ok_or_else(|| doubt("no block ends where the file `witness` says"))?
                .digest()
        };
        if witnessed == witness.digest {
            Ok(witness)
        } else {
            Err(doubt("the file `witness` is of another history"))
        }
    }

    /// An operator takes the log as it is.
    fn accept(&self, end: Witness) -> Result<Witness, OpenError> {
        let unusable = |error| OpenError::unusable(&self.dir, error);
        end.write(&self.dir).map_err(unusable)?;
        folder::remove_accept(&self.dir).map_err(unusable)?;
        Ok(end)
    }

    pub(super) fn finish(
        self,
        view: View,
        tail: Tail,
        witnessed: Witness,
    ) -> Result<FjallLog, OpenError> {
        let end = Witness {
            epoch: self.epoch,
            head: tail.head,
            digest: tail.digest,
        };
        self.expiry.set(tail.time);
        let keeper = Keeper::start(&self.dir, end, witnessed)
            .map_err(|error| OpenError::unusable(&self.dir, error))?;
        let writer = Writer {
            head: tail.head,
            digest: tail.digest,
            dedupe: tail.dedupe,
            failed: None,
        };
        Ok(FjallLog {
            epoch: self.epoch,
            writer: Mutex::new(writer),
            thinner: Mutex::new(Thinner::of(&self.dir)),
            dir: self.dir,
            layout: Mutex::new(self.layout),
            published: ArcSwap::from_pointee(Published {
                view,
                end: end.log_end(),
            }),
            head: watch::Sender::new(tail.head),
            keeper,
            blocks_read: AtomicU64::new(0),
            database: self.database,
            blocks: self.blocks,
            streams: self.streams,
            requests: self.requests,
            expiry: self.expiry,
            _lock: self.lock,
        })
    }
}

/// IMPORTANT: `db` takes its name last; where it is, the log is whole and has a format and a witness.
fn create(dir: &Path, epoch: Epoch, witness: Found) -> Result<(), OpenError> {
    let unusable = |error| OpenError::unusable(dir, error);
    match witness {
        Found::Missing => {}
        // A creation that was killed.
        Found::Intact(witness) if witness.head == Position::ZERO => {}
        Found::Intact(_) | Found::Damaged => {
            return Err(OpenError::damaged(dir, "the folder `db` is missing"));
        }
    }
    let unfinished = folder::unfinished_db(dir);
    if unfinished.try_exists().map_err(unusable)? {
        std::fs::remove_dir_all(&unfinished).map_err(unusable)?;
    }
    database::create(&unfinished, NAMES).map_err(|error| OpenError::Unusable {
        dir: dir.into(),
        cause: Arc::new(error),
    })?;
    let empty = Witness {
        epoch,
        head: Position::ZERO,
        digest: Digest::default(),
    };
    empty.write(dir).map_err(unusable)?;
    folder::write_format(dir, Layout::Whole, epoch).map_err(unusable)?;
    std::fs::rename(&unfinished, folder::db(dir)).map_err(unusable)?;
    folder::sync(dir).map_err(unusable)?;
    // The folder's own name.
    dir.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .map_or(Ok(()), folder::sync)
        .map_err(unusable)
}
