//! `hookpool backup`: copies the logs of a running server into a folder, and goes on where the last run stood.

use std::path::Path;

use anyhow::{bail, ensure};
use bytes::BytesMut;
use hookpool_client::{Download, Operator};
use hookpool_core::{codec::Block, position::Position};
use hookpool_fjall::{FjallLog, Options};
use hookpool_store::EventLog as _;
use serde::Serialize;

use crate::{
    cli::{BackupArgs, Globals},
    exit::Exit,
    files::{self, NewFile},
    output,
    progress::Progress,
    proof::{History, Kept},
    restore::HEAD_FILE,
};

pub(crate) async fn run(args: BackupArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let operator = globals.operator()?;
    let dir = &args.dir;
    files::make_folder(dir)?;
    // IMPORTANT: the head first, then deliveries, then what operators changed: the copy holds the head, and every stream's connector.
    let head = operator.head().await?;
    let log = LogCopy::new("events", dir.join("log").as_path(), &operator).await?;
    let log = log.catch_up(&operator).await?;
    let kept = Kept { head, key: None };
    if let Some(problem) = kept.problem(History::of(&log.log, head.position).await?) {
        bail!("the backup is not what the server has: {problem}; begin another folder");
    }
    let control = LogCopy::new("control", dir.join("control").as_path(), &operator).await?;
    let control = control.catch_up(&operator).await?;
    let mut file = NewFile::create(&dir.join(HEAD_FILE))?;
    file.write(format!("{}\n", serde_json::to_string(&head)?).as_bytes())?;
    file.finish()?;
    print(&args, &log, &control)?;
    output::say(
        "not in the backup, since keys are never sent: keep master.key and operator.key of the data folder in another safe place",
    );
    Ok(Exit::Ok)
}

fn print(args: &BackupArgs, log: &LogCopy, control: &LogCopy) -> anyhow::Result<()> {
    let copies = [log, control];
    if args.output.is_json() {
        let [log, control] = copies.map(Copied::from);
        return output::json(&BackedUp { log, control });
    }
    let row = |copy: &LogCopy| {
        let copied = Copied::from(copy);
        [
            copy.name.to_owned(),
            copied.blocks.to_string(),
            copied.bytes.to_string(),
            copied.head.to_string(),
            copied.epoch,
        ]
    };
    output::table(
        ["LOG", "NEW BLOCKS", "BYTES", "HEAD", "EPOCH"],
        copies.map(row),
    )
}

/// The copy of one log.
struct LogCopy {
    name: &'static str,
    log: FjallLog,
    blocks: u64,
    bytes: u64,
}

impl LogCopy {
    /// Opens the copy, or begins it.
    async fn new(name: &'static str, dir: &Path, operator: &Operator) -> anyhow::Result<Self> {
        // After the end of any log: nothing but which log it is.
        let epoch = operator.blocks(name, u64::MAX).await?.epoch;
        let log = FjallLog::open(dir, Options::new(epoch))?;
        ensure!(
            log.epoch() == epoch,
            "{} holds a backup of log {}, and the server has log {epoch}; begin another folder",
            dir.display(),
            log.epoch()
        );
        Ok(Self {
            name,
            log,
            blocks: 0,
            bytes: 0,
        })
    }

    /// Copies what the server has and this has not.
    async fn catch_up(mut self, operator: &Operator) -> anyhow::Result<Self> {
        let last = self.last_block().await?;
        // The last block once more, to see that both logs are still the same one.
        let after = last
            .as_ref()
            .map_or(0, |block| block.header().first.0.saturating_sub(1));
        let mut download = operator.blocks(self.name, after).await?;
        let mut progress = Progress::new(self.name);
        let mut stream = BytesMut::new();
        let mut seen = last.is_none();
        while let Some(bytes) = download.next().await? {
            stream.extend_from_slice(&bytes);
            while let Some(block) = Block::split_off(&mut stream)? {
                if seen {
                    self.append(&block)?;
                } else {
                    // The server's may have lost events since.
                    let same = last.as_ref().map(Block::digest) == Some(block.digest());
                    ensure!(same, "{}", self.diverged());
                    seen = true;
                }
                let done = self.log.head().0.saturating_sub(after);
                progress.at(done, download.until.saturating_sub(after));
            }
        }
        ensure!(seen, "{}", self.diverged());
        self.whole(&download)?;
        Ok(self)
    }

    async fn last_block(&self) -> anyhow::Result<Option<Block>> {
        let Some(before) = self.log.head().0.checked_sub(1) else {
            return Ok(None);
        };
        Ok(self.log.blocks(Position(before), 0).await?.pop())
    }

    fn append(&mut self, block: &Block) -> anyhow::Result<()> {
        tokio::task::block_in_place(|| self.log.append_block(block))?;
        self.blocks += 1;
        self.bytes += block.len_bytes() as u64;
        Ok(())
    }

    fn whole(&self, download: &Download) -> anyhow::Result<()> {
        let head = self.log.head().0;
        ensure!(
            head == download.until,
            "the server's log {} goes to position {}, but what it sent ends at {head}; run the command again",
            self.name,
            download.until
        );
        Ok(())
    }

    fn diverged(&self) -> String {
        format!(
            "the server's log {} is not the one in this backup any more: it was restored, or is another server's; begin another folder",
            self.name
        )
    }
}

#[derive(Serialize)]
struct BackedUp {
    log: Copied,
    control: Copied,
}

#[derive(Serialize)]
struct Copied {
    epoch: String,
    head: u64,
    digest: String,
    /// New in this run.
    blocks: u64,
    /// Of these blocks.
    bytes: u64,
}

impl From<&LogCopy> for Copied {
    fn from(copy: &LogCopy) -> Self {
        let end = copy.log.end();
        Self {
            epoch: copy.log.epoch().to_string(),
            head: end.head.0,
            digest: end.digest.to_string(),
            blocks: copy.blocks,
            bytes: copy.bytes,
        }
    }
}
