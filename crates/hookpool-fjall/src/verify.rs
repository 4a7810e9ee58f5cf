//! Reads a whole log that nobody has open, and says what is in it.

use std::path::Path;

use hookpool_core::{
    codec::{Block, Digest},
    position::{Epoch, Position},
};

use crate::{
    error::{OpenError, Refusal},
    folder,
    log::{Opened, Options, Purpose},
    requests::Missed,
    tables::Finding,
    tail::{View, check_block, index_of},
    witness::Witness,
};

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The last position read.
    pub position: Position,
    /// Of the block that ends there.
    pub digest: Digest,
    /// The last position of the log.
    pub head: Position,
}

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Everything up to here is intact.
    pub after: Position,
    /// What was found.
    pub what: String,
}

/// What a log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Intact events.
    pub events: u64,
    /// Intact blocks.
    pub blocks: u64,
    /// Those of them that lost events.
    pub thinned: u64,
    /// Events that were dropped from them.
    pub dropped: u64,
    /// Bytes of intact blocks.
    pub bytes: u64,
    /// Where the intact log ends.
    pub head: Position,
    /// Identity of the log.
    pub epoch: Epoch,
    /// Of the block that ends at the head.
    pub digest: Digest,
    /// The first thing that is wrong.
    pub problem: Option<Problem>,
    /// What to write into the file `accept` in the log's folder to go on with the log as it is, if that is possible.
    pub accept: Option<String>,
}

/// Reads all of the log in a folder.
///
/// # Errors
/// [`OpenError`] if there is nothing to read. What is found while reading is in the report.
pub fn verify(dir: &Path, progress: impl FnMut(Progress)) -> Result<Report, OpenError> {
    let exists = folder::db(dir).try_exists();
    if !exists.map_err(|error| OpenError::unusable(dir, error))? {
        return Err(OpenError::Missing { dir: dir.into() });
    }
    let options = Options {
        // Not used: the log exists.
        epoch_if_new: Epoch(0),
        verify_bytes: u64::MAX,
    };
    match Opened::open(dir, options, Purpose::Verify) {
        Ok(opened) => Ok(Verification::of(&opened).run(progress)),
        Err(refusal) => unopened(dir, refusal),
    }
}

/// What can be said of a log whose database must not be opened.
fn unopened(dir: &Path, refusal: Refusal) -> Result<Report, OpenError> {
    let Refusal { error, after, keep } = refusal;
    let found = matches!(
        error,
        OpenError::Damaged { .. } | OpenError::Shorter { .. } | OpenError::Witness { .. }
    );
    if !found {
        return Err(error);
    }
    let head = keep.as_ref().map_or(Position::ZERO, |end| end.head);
    Ok(Report {
        events: 0,
        blocks: 0,
        thinned: 0,
        dropped: 0,
        bytes: 0,
        head,
        epoch: folder::read_format(dir).map_or(Epoch(0), |(_, epoch)| epoch),
        digest: keep.as_ref().map_or_else(Digest::default, |end| end.digest),
        problem: Some(Problem {
            after,
            what: error.to_string(),
        }),
        accept: keep.as_deref().map(folder::accept_line),
    })
}

/// One pass over all blocks, oldest first.
struct Verification<'a> {
    opened: &'a Opened,
    view: View,
    report: Report,
    /// What the next block must name as the one before it; unknown behind a damaged block.
    previous: Option<Digest>,
    index_rows: u64,
    /// Rows of the index of requests that name an event.
    requests_named: u64,
    missed: Missed,
}

impl<'a> Verification<'a> {
    fn of(opened: &'a Opened) -> Self {
        let report = Report {
            events: 0,
            blocks: 0,
            thinned: 0,
            dropped: 0,
            bytes: 0,
            head: Position::ZERO,
            epoch: opened.epoch,
            digest: Digest::default(),
            problem: None,
            accept: None,
        };
        Self {
            opened,
            view: opened.view(),
            report,
            previous: Some(Digest::default()),
            index_rows: 0,
            requests_named: 0,
            missed: Missed::default(),
        }
    }

    fn run(mut self, mut progress: impl FnMut(Progress)) -> Report {
        let head = self.last().unwrap_or_default();
        for block in self.view.blocks(Position::ZERO..=Position(u64::MAX)) {
            if let Err(what) = block.and_then(|block| self.take(&block)) {
                self.found(what);
                self.previous = None;
            }
            progress(Progress {
                position: self.report.head,
                digest: self.report.digest,
                head,
            });
        }
        if let Err(what) = self
            .check_index_rows()
            .and_then(|()| self.check_request_rows())
        {
            self.found(what);
        }
        self.check_witness();
        self.report
    }

    fn last(&self) -> Option<Position> {
        let last = self.view.block_at(Position(u64::MAX)).ok()??;
        Some(last.header().last())
    }

    /// Checks a block against the one before it.
    fn take(&mut self, block: &Block) -> Result<(), Finding> {
        let header = block.header();
        let events = check_block(block, self.report.epoch)?;
        if let Some(previous) = self.previous {
            if self.report.head.plus(1) != header.first {
                self.found(format!(
                    "events are missing before position {}",
                    header.first
                ));
            } else if header.previous != previous {
                self.found(format!(
                    "the block at position {} does not follow the one before it",
                    header.first
                ));
            }
        }
        self.index_rows += index_of(block, &events).len() as u64;
        self.view.check_index(block, &events)?;
        let (missed, named) = self.view.check_requests(&events)?;
        self.requests_named += named;
        self.missed.append(missed);
        if let Some(newest) = events.iter().map(|event| event.event.time).max() {
            self.missed.expire(newest);
        }
        self.report.events += events.len() as u64;
        self.report.blocks += 1;
        self.report.thinned += u64::from(header.thinned.is_some());
        self.report.dropped += u64::from(header.count - block.events_kept());
        self.report.bytes += block.len_bytes() as u64;
        self.report.head = header.last();
        self.report.digest = block.digest();
        self.previous = Some(self.report.digest);
        Ok(())
    }

    /// Every row of the index belongs to a block that was seen.
    fn check_index_rows(&self) -> Result<(), Finding> {
        let rows = self.view.index_rows()?;
        if self.report.problem.is_none() && rows != self.index_rows {
            return Err(format!(
                "the index has {rows} rows, but the blocks need {}",
                self.index_rows
            ));
        }
        Ok(())
    }

    /// Every request that counts has a row, and every row is of a request that was seen, or was dropped.
    fn check_request_rows(&self) -> Result<(), Finding> {
        if self.report.problem.is_some() {
            return Ok(());
        }
        self.missed.finish()?;
        let rows = self.view.request_rows()?;
        if self.report.dropped == 0 && rows != self.requests_named {
            return Err(format!(
                "the index of requests has {rows} rows, but {} requests need one",
                self.requests_named
            ));
        }
        Ok(())
    }

    fn check_witness(&mut self) {
        let end = Witness {
            epoch: self.report.epoch,
            head: self.report.head,
            digest: self.report.digest,
        };
        if let Err(error) = self.opened.vouch(&self.view, &end) {
            let whole = self.report.problem.is_none();
            self.report.accept = whole.then(|| folder::accept_line(&end));
            self.found(error.to_string());
        }
    }

    /// The first finding is the one to report.
    fn found(&mut self, what: Finding) {
        let after = self.report.head;
        self.report.problem.get_or_insert(Problem { after, what });
    }
}
