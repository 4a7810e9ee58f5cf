//! `hookpool verify --export`: reads an export, proves that it is whole, and compares it with a signed head.

use std::path::Path;

use anyhow::Context;
use hookpool_core::{
    codec::Digest,
    export::{ExportError, Header, Piece, Reader, Scope},
    position::Position,
};
use serde::Serialize;

use crate::{
    exit::Exit,
    files::Lines,
    output::{self, Output},
    progress::Progress,
    proof::{History, Kept, Verdict},
};

/// What reading an export came to.
struct Read {
    header: Option<Header>,
    events: u64,
    thinned: u64,
    dropped: u64,
    last: Position,
    /// Everything up to here is intact.
    reached: Position,
    /// Of the last intact block.
    digest: Option<Digest>,
    /// Of the block that ends where the head is.
    at_head: Option<Digest>,
    /// Why it is no whole export.
    error: Option<ExportError>,
}

pub(crate) fn run(file: &Path, kept: Option<&Kept>, output: Output) -> anyhow::Result<Exit> {
    let position = kept.map(|kept| kept.head.position);
    let read = Read::of(file, position)?;
    let problem = kept.and_then(|kept| read.problem_of(kept));
    match output {
        Output::Pretty => read.print(kept, problem.as_deref())?,
        Output::Json => output::json(&Verified {
            export: (&read).into(),
            head: kept.map(|kept| Verdict::new(kept, problem.clone())),
        })?,
    }
    let whole = read.error.is_none() && problem.is_none();
    Ok(if whole { Exit::Ok } else { Exit::Problems })
}

impl Read {
    fn of(file: &Path, head: Option<Position>) -> anyhow::Result<Self> {
        let mut read = Self {
            header: None,
            events: 0,
            thinned: 0,
            dropped: 0,
            last: Position::ZERO,
            reached: Position::ZERO,
            digest: None,
            at_head: None,
            error: None,
        };
        let mut lines = Lines::open(file)?;
        let mut reader = Reader::default();
        let mut progress = Progress::new("export");
        while let Some(line) = lines.next().context("the export can't be read")? {
            match reader.line(line) {
                Ok(piece) => read.take(piece, head),
                Err(error) => {
                    read.error = Some(error);
                    return Ok(read);
                }
            }
            lines.report(&mut progress);
        }
        read.error = reader.finish().err();
        Ok(read)
    }

    fn take(&mut self, piece: Piece, head: Option<Position>) {
        match piece {
            Piece::Header(header) => {
                if let Scope::Chained { previous } = header.scope {
                    self.ends(header.range.after, previous, head);
                }
                (self.last, self.reached) = (header.range.after, header.range.after);
                self.header = Some(header);
            }
            Piece::Thinned(dropped) => {
                self.thinned += 1;
                self.dropped += u64::from(dropped);
            }
            Piece::Event(position) => {
                self.events += 1;
                (self.last, self.reached) = (position, position);
            }
            Piece::Block(block) => self.ends(block.last, block.digest, head),
            Piece::Trailer => {}
        }
    }

    fn ends(&mut self, position: Position, digest: Digest, head: Option<Position>) {
        self.digest = Some(digest);
        self.reached = position;
        if head == Some(position) {
            self.at_head = Some(digest);
        }
    }

    fn problem_of(&self, kept: &Kept) -> Option<String> {
        let Some(header) = &self.header else {
            return Some("the export can't be compared with the head".to_owned());
        };
        let Header { epoch, range, .. } = header;
        if matches!(header.scope, Scope::Stream(_)) {
            return Some("an export of one stream can't be proved against a head".to_owned());
        }
        if kept.head.position < range.after {
            return Some(format!(
                "the export begins after position {}, and the head was signed before that",
                range.after
            ));
        }
        kept.problem(History {
            epoch: *epoch,
            end: self.reached,
            digest: self.at_head,
        })
    }

    fn print(&self, kept: Option<&Kept>, problem: Option<&str>) -> anyhow::Result<()> {
        if let Some(header) = &self.header {
            let stream = match &header.scope {
                Scope::Chained { .. } => "all".to_owned(),
                Scope::Stream(stream) => stream.to_string(),
            };
            output::facts([
                ("epoch", header.epoch.to_string()),
                ("streams", stream),
                ("after", header.range.after.to_string()),
                ("until", header.range.until.to_string()),
                ("events", self.events.to_string()),
                ("dropped", self.dropped.to_string()),
                ("thinned blocks", self.thinned.to_string()),
                ("digest", output::or_dash(self.digest)),
            ])?;
        }
        match &self.error {
            Some(error) => output::line(&format!(
                "\nexport: intact up to position {}, then: {error}",
                self.reached
            ))?,
            None => output::line("\nexport: whole, every event intact")?,
        }
        kept.map_or(Ok(()), |kept| kept.explain(problem))
    }
}

#[derive(Serialize)]
struct Verified {
    export: VerifiedExport,
    head: Option<Verdict>,
}

#[derive(Serialize)]
struct VerifiedExport {
    epoch: Option<String>,
    after: Option<u64>,
    until: Option<u64>,
    chained: bool,
    events: u64,
    thinned: u64,
    dropped: u64,
    last: u64,
    digest: Option<String>,
    ok: bool,
    line: Option<u64>,
    problem: Option<String>,
}

impl From<&Read> for VerifiedExport {
    fn from(read: &Read) -> Self {
        let header = read.header.as_ref();
        Self {
            epoch: header.map(|header| header.epoch.to_string()),
            after: header.map(|header| header.range.after.0),
            until: header.map(|header| header.range.until.0),
            chained: read.digest.is_some(),
            events: read.events,
            thinned: read.thinned,
            dropped: read.dropped,
            last: read.last.0,
            digest: read.digest.map(|digest| digest.to_string()),
            ok: read.error.is_none(),
            line: read.error.as_ref().map(|error| error.line),
            problem: read.error.as_ref().map(ToString::to_string),
        }
    }
}
