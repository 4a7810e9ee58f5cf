//! Why a log or pool is not opened: one sentence, and what to do next.

use std::path::{Path, PathBuf};

use hookpool_core::position::{Epoch, Position};
use hookpool_store::{Cause, LogEnd};
use thiserror::Error;

use crate::{journal::JournalError, witness::Witness};

/// Why a folder was not opened. Nothing was deleted, and nothing is served from it.
#[derive(Debug, Clone, Error)]
pub enum OpenError {
    /// Another process, or another handle of this one, has it open.
    #[error(
        "open {}: another process has it open; stop that process, or choose another data folder",
        dir.display()
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// There is nothing to verify.
    #[error("open {}: there is no log here; check the data folder's path", dir.display())]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder can't be used: rights, space, or the disk.
    #[error(
        "open {}: {cause}; check that the folder is writable by this user and that its disk is healthy and has space",
        dir.display()
    )]
    Unusable {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        cause: Cause,
    },
    /// A newer Hookpool wrote it.
    #[error(
        "open {}: it was written by a newer version (format {found}, this program knows format {known}); start that version",
        dir.display()
    )]
    NewerFormat {
        /// The folder.
        dir: PathBuf,
        /// As the folder says.
        found: u64,
        /// The newest that this program reads.
        known: u64,
    },
    /// Bytes of the log are not what was written.
    #[error(
        "open {}: {what}; restore this folder from a backup, or run `hookpool verify` to see what is left",
        dir.display()
    )]
    Damaged {
        /// The folder.
        dir: PathBuf,
        /// What was found.
        what: String,
    },
    /// Events that were durable are not there.
    #[error(
        "open {}: the log came back shorter: it ends at position {head}, but {durable} was durable; restore this folder from a backup, \
         or run `hookpool verify`, which says how to accept the loss",
        dir.display()
    )]
    Shorter {
        /// The folder.
        dir: PathBuf,
        /// Where the log ends now.
        head: Position,
        /// What the witness, or a block found in a journal, proves.
        durable: Position,
    },
    /// The witness file does not vouch for this log.
    #[error(
        "open {}: {what}, so it can't be proved that the log (epoch {epoch}, head {head}) is whole; restore the file `witness` from a \
         backup, or run `hookpool verify`, which says how to accept the log as it is",
        dir.display()
    )]
    Witness {
        /// The folder.
        dir: PathBuf,
        /// What is wrong with it.
        what: String,
        /// Of the log.
        epoch: Epoch,
        /// Where the log ends.
        head: Position,
    },
    /// The pool can't be used; it is derived.
    #[error("open {}: {what}; delete this folder: it is rebuilt from the log", dir.display())]
    Pool {
        /// The folder.
        dir: PathBuf,
        /// What was found.
        what: String,
    },
}

impl OpenError {
    pub(crate) fn unusable(dir: &Path, error: std::io::Error) -> Self {
        Self::Unusable {
            dir: dir.into(),
            cause: std::sync::Arc::new(error),
        }
    }

    pub(crate) fn damaged(dir: &Path, what: impl Into<String>) -> Self {
        Self::Damaged {
            dir: dir.into(),
            what: what.into(),
        }
    }
}

/// A refusal, up to where everything is intact, and the end of what can be kept if the rest is given up.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: OpenError,
    pub(crate) after: Position,
    pub(crate) keep: Option<Box<Witness>>,
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        Self {
            error,
            after: Position::ZERO,
            keep: None,
        }
    }
}

impl Refusal {
    pub(crate) fn of_journals(dir: &Path, epoch: Epoch, error: JournalError) -> Self {
        let end = |LogEnd { head, digest }| {
            Box::new(Witness {
                epoch,
                head,
                digest,
            })
        };
        match error {
            JournalError::Damaged {
                what,
                after,
                readable,
            } => Self {
                error: OpenError::damaged(dir, what),
                after,
                keep: readable.map(end),
            },
            JournalError::Shorter { end: last, durable } => Self {
                error: OpenError::Shorter {
                    dir: dir.into(),
                    head: last.head,
                    durable,
                },
                after: last.head,
                keep: Some(end(last)),
            },
            JournalError::Io(error) => OpenError::unusable(dir, error).into(),
        }
    }
}
