//! The history itself: listed, proved, exported, copied and taken back.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use hookpool_core::proof::PublicKey;

use super::OutputArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// List events, oldest first
    #[command(after_help = "\
Examples:
  hookpool log list sales
  hookpool log list sales --after 42 --limit 10 --body")]
    List(LogListArgs),
    /// Show one event with its body
    #[command(after_help = "\
Examples:
  hookpool log show sales 42
  hookpool log show sales 42 --raw | sha256sum     exactly the bytes that were posted")]
    Show(LogShowArgs),
    /// Print where the log ends, signed: keep it elsewhere, and verify against it
    #[command(after_help = "\
It commits to every event up to its position. Example:
  hookpool log head --output json > head-$(date +%F).json
  hookpool verify --data-dir COPY --head head-2026-11-23.json")]
    Head(OutputArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LogListArgs {
    /// Stream to read
    pub(crate) stream: String,
    /// Only events after this position [default: all that are kept]
    #[arg(long, value_name = "POSITION")]
    pub(crate) after: Option<u64>,
    /// How many events at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
    /// Also their bodies
    #[arg(long)]
    pub(crate) body: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LogShowArgs {
    /// Stream to read
    pub(crate) stream: String,
    /// Position of the event
    pub(crate) position: u64,
    /// Write the posted bytes and nothing else
    #[arg(long, conflicts_with = "output")]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Reads only, and needs no server; the folder must not be in use. A backup is a data
folder too. With a head that was kept elsewhere it proves that the history up to
there is the one that was signed. Exits 6 if something is missing or changed.

Examples:
  hookpool verify --data-dir hookpool-data
  hookpool verify --data-dir hookpool-data --head head.json --public-key 7c2b...
  hookpool verify --export sales.ndjson --head head.json")]
pub(crate) struct VerifyArgs {
    /// Signed head to compare with, as `hookpool log head --output json` prints it
    #[arg(long, value_name = "FILE")]
    pub(crate) head: Option<PathBuf>,
    /// Key that the head must be signed with [default: the one in its own file]
    #[arg(long, value_name = "HEX", requires = "head")]
    pub(crate) public_key: Option<PublicKey>,
    /// An export in place of the data folder
    #[arg(long, value_name = "FILE")]
    pub(crate) export: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
As ndjson it is whole blocks, and can be verified and imported. With --stream each event
can be verified, but not that none is missing. As cloudevents it is for other programs.
FILE is written as FILE.partial, and takes its name when it is whole.

Examples:
  hookpool export history.ndjson
  hookpool export --after 1000000 newer.ndjson
  hookpool export --stream sales --format cloudevents | head")]
pub(crate) struct ExportArgs {
    /// Where to write, or - for standard output
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// Only events after this position
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    pub(crate) after: u64,
    /// Only events up to this position [default: all]
    #[arg(long, value_name = "POSITION")]
    pub(crate) until: Option<u64>,
    /// Only events of this stream
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Option<String>,
    /// What each line is
    #[arg(long, value_name = "FORMAT", default_value = "ndjson")]
    pub(crate) format: ExportFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    Ndjson,
    Cloudevents,
}

impl ExportFormat {
    /// As the server calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Cloudevents => "cloudevents",
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Needs no server, and a data folder that has no log. The log is the same as the one that
was exported, byte for byte: epoch, positions, times and digests. All or nothing: a
damaged or incomplete export leaves no log behind.

Examples:
  hookpool import history.ndjson --data-dir new-data
  zcat history.ndjson.gz | hookpool import - --data-dir new-data")]
pub(crate) struct ImportArgs {
    /// The export, or - for standard input
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Only what is new is copied, each block synced: a run that was killed is gone on with.
The folder then holds everything that was acknowledged before the command was started.
Keys are not in it.

Examples:
  hookpool backup /backup/hookpool
  hookpool verify --data-dir /backup/hookpool --head /backup/hookpool/head.json")]
pub(crate) struct BackupArgs {
    /// Folder of the backup; made if need be
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Needs no server, and a data folder that has no logs. Every event is checked on the way,
and the history is compared with the backup's head.json. Then put master.key and
operator.key into the data folder.

Example:
  hookpool restore /backup/hookpool --data-dir hookpool-data")]
pub(crate) struct RestoreArgs {
    /// Folder of the backup
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
