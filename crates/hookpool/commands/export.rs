//! `hookpool export`: the history as a file that proves itself.

use std::path::Path;

use anyhow::Context;
use hookpool_client::ExportQuery;
use hookpool_core::export::{Piece, Reader, Summary};

use crate::{
    cli::{ExportArgs, ExportFormat, Globals},
    exit::Exit,
    files::NewFile,
    output,
    progress::Progress,
};

pub(crate) async fn run(args: ExportArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let query = ExportQuery {
        after: Some(args.after),
        until: args.until,
        stream: args.stream,
        format: args.format.name().to_owned(),
    };
    let mut download = globals.operator()?.export(&query).await?;
    let mut check = Check::new(args.format);
    let mut sink = Sink::open(&args.file)?;
    let mut progress = Progress::new("export");
    while let Some(bytes) = download.next().await? {
        check.take(&bytes)?;
        sink.write(&bytes)?;
        let done = check.last.saturating_sub(args.after);
        progress.at(done, download.until.saturating_sub(args.after));
    }
    drop(progress);
    let summary = check.finish().context("the export is not whole")?;
    sink.finish()?;
    output::say(&summary);
    Ok(Exit::Ok)
}

/// Reads along, so that no broken export is ever taken for a whole one.
struct Check {
    reader: Option<Reader>,
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
    lines: u64,
    /// The last position that was read.
    last: u64,
}

impl Check {
    fn new(format: ExportFormat) -> Self {
        Self {
            reader: (format == ExportFormat::Ndjson).then(Reader::default),
            rest: Vec::new(),
            lines: 0,
            last: 0,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(part);
            if self.rest.ends_with(b"\n") {
                self.line()?;
            }
        }
        Ok(())
    }

    fn line(&mut self) -> anyhow::Result<()> {
        self.lines += 1;
        if let Some(reader) = &mut self.reader
            && let Piece::Event(position) = reader.line(&self.rest)?
        {
            self.last = position.0;
        }
        self.rest.clear();
        Ok(())
    }

    /// What it was, in a sentence.
    fn finish(self) -> anyhow::Result<String> {
        let Some(reader) = self.reader else {
            return Ok(output::count(self.lines, "event"));
        };
        let Summary {
            header,
            events,
            digest,
            ..
        } = reader.finish()?;
        let (after, until) = (header.range.after, header.range.until);
        let chain = digest.map_or_else(
            || "one stream only, so that none is missing can't be proved".to_owned(),
            |digest| format!("digest {digest}"),
        );
        Ok(format!(
            "{} after position {after} up to {until}; {chain}",
            output::count(events, "event")
        ))
    }
}

enum Sink {
    Stdout,
    File(NewFile),
}

impl Sink {
    fn open(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        NewFile::create(path).map(Self::File)
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Stdout => output::raw(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Stdout => Ok(()),
            Self::File(file) => file.finish(),
        }
    }
}
