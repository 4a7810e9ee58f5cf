//! Compares a history with a signed head that was kept elsewhere.

use std::{fs, path::Path};

use anyhow::Context;
use hookpool_core::{
    codec::{Block, Digest},
    position::{Epoch, Position},
    proof::{PublicKey, SignedHead},
};
use hookpool_store::{EventLog, ReadError};
use serde::Serialize;

use crate::output;

/// A head to compare with, and who is believed to have signed it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) head: SignedHead,
    pub(crate) key: Option<PublicKey>,
}

/// What a history is up to the position of a head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History {
    pub(crate) epoch: Epoch,
    /// Where it ends.
    pub(crate) end: Position,
    /// Of the block that ends at the head's position, if one does.
    pub(crate) digest: Option<Digest>,
}

impl History {
    /// Of a log, up to the position of a head.
    pub(crate) async fn of(log: &impl EventLog, head: Position) -> Result<Self, ReadError> {
        let digest = match head.0.checked_sub(1) {
            None => Some(Digest::default()),
            Some(before) => log
                .blocks(Position(before), 0)
                .await?
                .first()
                .filter(|block| block.header().last() == head)
                .map(Block::digest),
        };
        Ok(Self {
            epoch: log.epoch(),
            end: log.head(),
            digest,
        })
    }
}

impl Kept {
    pub(crate) fn read(file: &Path, key: Option<PublicKey>) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("the signed head {} can't be read", file.display()))?;
        let head = text
            .parse()
            .with_context(|| format!("the signed head {} can't be used", file.display()))?;
        Ok(Self { head, key })
    }

    /// Why the history is not the one that was signed, if it is not.
    pub(crate) fn problem(&self, history: History) -> Option<String> {
        let SignedHead {
            epoch,
            position,
            digest,
            ..
        } = self.head;
        if let Err(error) = self.head.verify(self.key) {
            Some(error.to_string())
        } else if history.epoch != epoch {
            let found = history.epoch;
            Some(format!(
                "the head is of log {epoch}, and this is log {found}"
            ))
        } else if position > history.end {
            let end = history.end;
            Some(format!(
                "the head was signed at position {position}, but the history ends at {end}: events are missing"
            ))
        } else if history.digest.is_none() {
            Some(format!(
                "no block ends at position {position}, where one was signed"
            ))
        } else if history.digest != Some(digest) {
            Some(format!(
                "the history up to position {position} is not the one that was signed"
            ))
        } else {
            None
        }
    }

    /// For people; says aloud what a head without an expected key does not prove.
    pub(crate) fn explain(&self, problem: Option<&str>) -> anyhow::Result<()> {
        let SignedHead {
            position,
            time,
            public_key,
            ..
        } = self.head;
        match problem {
            Some(problem) => output::line(&format!("\nhead: {}", output::printable(problem)))?,
            None => output::line(&format!(
                "\nhead: exactly the history that was signed at position {position}, {time}"
            ))?,
        }
        if self.key.is_none() {
            output::say(&format!(
                "the head was checked with the key in its own file, {public_key}: compare that key with one that you trust, or name it with --public-key"
            ));
        }
        Ok(())
    }
}

/// A head that was compared, as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verdict {
    position: u64,
    time: String,
    public_key: String,
    /// Whether the key was given, and not taken from the head itself.
    pinned: bool,
    ok: bool,
    problem: Option<String>,
}

impl Verdict {
    pub(crate) fn new(kept: &Kept, problem: Option<String>) -> Self {
        Self {
            position: kept.head.position.0,
            time: kept.head.time.to_string(),
            public_key: kept.head.public_key.to_string(),
            pinned: kept.key.is_some(),
            ok: problem.is_none(),
            problem,
        }
    }
}
