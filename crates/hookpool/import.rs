//! `hookpool import`: makes the log of a data folder out of an export; byte for byte the log that it was exported from.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use hookpool_core::{
    codec::{Block, EncodedBlock},
    export::{Header, Piece, Reader, Scope, Summary},
};
use hookpool_fjall::{FjallLog, Options};
use hookpool_store::EventLog as _;
use serde::Serialize;

use crate::{
    cli::ImportArgs,
    config::Settings,
    exit::Exit,
    files::{self, Lines, NewFolder},
    output,
    progress::Progress,
};

pub(crate) async fn run(args: ImportArgs, settings: Settings) -> anyhow::Result<Exit> {
    files::must_be_free(&settings.data_dir, &["log", "pool"])?;
    let log = settings.data_dir.join("log");
    let json = args.output.is_json();
    let summary = tokio::task::spawn_blocking(move || import(&args.file, &log))
        .await
        .context("importing")??;
    let imported = Imported {
        epoch: summary.header.epoch.to_string(),
        events: summary.events,
        dropped: summary.dropped,
        // It is chained, so all of the range is there.
        head: summary.header.range.until.0,
        digest: output::or_dash(summary.digest),
    };
    if json {
        output::json(&imported)?;
    } else {
        output::facts([
            ("epoch", imported.epoch),
            ("events", imported.events.to_string()),
            ("dropped", imported.dropped.to_string()),
            ("head", imported.head.to_string()),
            ("digest", imported.digest),
        ])?;
    }
    output::say(
        "connectors and keys are not in an export: a stream is seen again when it has a connector",
    );
    Ok(Exit::Ok)
}

/// All of it or nothing: the log takes its place when the whole export was read.
fn import(file: &Path, log: &Path) -> anyhow::Result<Summary> {
    let mut lines = Lines::open(file)?;
    let mut import = Import {
        folder: NewFolder::create(log)?,
        log: None,
    };
    let mut reader = Reader::default();
    let mut progress = Progress::new("import");
    while let Some(line) = lines.next().context("the export can't be read")? {
        match reader.line(line)? {
            Piece::Header(header) => import.begin(&header)?,
            Piece::Block(block) => import.block(block)?,
            Piece::Thinned(_) | Piece::Event(_) | Piece::Trailer => {}
        }
        lines.report(&mut progress);
    }
    let summary = reader.finish()?;
    import.finish(&summary)?;
    Ok(summary)
}

/// A log that is being made beside its place.
struct Import {
    // Closed before its folder goes.
    log: Option<FjallLog>,
    folder: NewFolder,
}

impl Import {
    fn begin(&mut self, header: &Header) -> anyhow::Result<()> {
        if let Scope::Stream(stream) = &header.scope {
            bail!(
                "the export holds stream {stream} only, and a log can't be made of that; export again without --stream"
            );
        }
        ensure!(
            header.is_from_the_start(),
            "the export begins after position {}, and a log begins at its start; export again without --after",
            header.range.after
        );
        let log = FjallLog::open(self.folder.path(), Options::new(header.epoch))?;
        self.log = Some(log);
        Ok(())
    }

    fn block(&mut self, block: EncodedBlock) -> anyhow::Result<()> {
        let log = self.log.as_ref().context("the export has no header")?;
        Ok(log.append_block(&Block::parse(block.bytes.into())?)?)
    }

    fn finish(self, summary: &Summary) -> anyhow::Result<()> {
        let log = self.log.context("the export has no header")?;
        ensure!(
            Some(log.end().digest) == summary.digest,
            "the log that was made is not the one that was exported"
        );
        drop(log);
        self.folder.finish()
    }
}

#[derive(Serialize)]
struct Imported {
    epoch: String,
    events: u64,
    dropped: u64,
    head: u64,
    digest: String,
}
