//! `hookpool restore`: makes the logs of a data folder out of a backup, and proves them on the way.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use hookpool_core::position::{Epoch, Position};
use hookpool_fjall::{FjallLog, Options};
use hookpool_store::EventLog as _;
use serde::Serialize;

use crate::{
    cli::RestoreArgs,
    config::Settings,
    exit::Exit,
    files::{self, NewFolder},
    output,
    progress::Progress,
    proof::{History, Kept},
};

/// In a backup, beside `log/` and `control/`: the signed head that it was checked against.
pub(crate) const HEAD_FILE: &str = "head.json";
/// Bytes of blocks that are copied at once.
const COPY_BYTES: usize = 4 << 20;

pub(crate) async fn run(args: RestoreArgs, settings: Settings) -> anyhow::Result<Exit> {
    let dir = settings.data_dir;
    files::must_be_free(&dir, &["log", "control", "pool"])?;
    let kept = Kept::read(&args.dir.join(HEAD_FILE), None).with_context(|| {
        let dir = args.dir.display();
        format!("{dir} is no finished backup; `hookpool backup` makes and finishes one")
    })?;
    let log = Restored::of("log", &args.dir, &dir).await?;
    let history = History::of(&log.log, kept.head.position).await?;
    if let Some(problem) = kept.problem(history) {
        bail!("{} can't be restored: {problem}", args.dir.display());
    }
    let control = Restored::of("control", &args.dir, &dir).await?;
    let heads = [log.log.head(), control.log.head()];
    // IMPORTANT: `log` last. A server does not start on a folder that has `control` without it.
    control.finish()?;
    log.finish()?;
    print(&args, &dir, &kept, heads)?;
    Ok(Exit::Ok)
}

fn print(args: &RestoreArgs, dir: &Path, kept: &Kept, heads: [Position; 2]) -> anyhow::Result<()> {
    let [log, control] = heads.map(|head| head.0);
    let epoch = kept.head.epoch.to_string();
    if args.output.is_json() {
        output::json(&RestoredLogs {
            epoch,
            log,
            control,
        })?;
    } else {
        output::facts([
            ("epoch", epoch),
            ("log", log.to_string()),
            ("control", control.to_string()),
        ])?;
    }
    output::say(&format!(
        "before the start put master.key into {0}, or set HOOKPOOL_MASTER_KEY; and operator.key, which no server makes twice",
        dir.display()
    ));
    Ok(())
}

#[derive(Serialize)]
struct RestoredLogs {
    epoch: String,
    log: u64,
    control: u64,
}

/// A log that was made again out of the blocks of a backup, beside its place.
struct Restored {
    // Closed before its folder goes.
    log: FjallLog,
    folder: NewFolder,
}

impl Restored {
    /// Every block is checked, with every event and the chain, as it is taken over.
    async fn of(name: &'static str, backup: &Path, data_dir: &Path) -> anyhow::Result<Self> {
        let from = backup.join(name);
        ensure!(
            from.join("db").try_exists()?,
            "{} is no backup: it holds no {name}; `hookpool backup` makes one",
            backup.display()
        );
        let folder = NewFolder::create(&data_dir.join(name))?;
        // The epoch is not used: the log exists.
        let from = FjallLog::open(&from, Options::new(Epoch(0)))?;
        let log = FjallLog::open(folder.path(), Options::new(from.epoch()))?;
        let mut progress = Progress::new(name);
        while log.head() < from.head() {
            for block in from.blocks(log.head(), COPY_BYTES).await? {
                tokio::task::block_in_place(|| log.append_block(&block))?;
                progress.at(log.head().0, from.head().0);
            }
        }
        ensure!(
            log.end() == from.end(),
            "the copy of {name} is not the same"
        );
        Ok(Self { log, folder })
    }

    fn finish(self) -> anyhow::Result<()> {
        drop(self.log);
        self.folder.finish()
    }
}
