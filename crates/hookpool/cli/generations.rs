//! What operators change of how history is read, and how much of it is kept.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{JsonArgs, OutputArgs, duration};

#[derive(Debug, Subcommand)]
pub(crate) enum ProjectionCommand {
    /// Show the newest rules of a stream, as a file that `set` takes
    #[command(after_help = "\
Examples:
  hookpool projection show sales > sales.toml
  hookpool projection show sales --version 2 --output json")]
    Show(ProjectionShowArgs),
    /// Store rules as the newest version. Readers see nothing of it until a rebuild with it is promoted
    #[command(after_help = "\
The file is TOML, or JSON if its name ends in .json:
  id       = \"/repository/id\"      # a property, or a JSON Pointer
  merge    = \"merge\"               # or replace
  nulls    = \"store\"               # or delete
  unknown  = \"keep\"                # or drop
  order-by = \"/updated_at\"         # an older value changes nothing
  [fields.repo]
  from     = \"/repository/full_name\"
  type     = \"string\"              # or number, boolean, time, json
  default  = \"unknown\"
  [fields.sender]
  drop     = true                   # or flatten = \".\"

Examples:
  hookpool projection set sales sales.toml --check
  hookpool projection set sales sales.toml --check-history
  hookpool projection set sales sales.toml --check-item North
  hookpool projection set sales sales.toml && hookpool rebuild start sales")]
    Set(ProjectionSetArgs),
    /// Print the JSON Schema of rules, for editors
    #[command(after_help = "\
Example:
  hookpool projection schema > projection.schema.json")]
    Schema(JsonArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ProjectionShowArgs {
    /// Stream of the rules
    pub(crate) stream: String,
    /// An older version
    #[arg(long, value_name = "N")]
    pub(crate) version: Option<u32>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ProjectionSetArgs {
    /// Stream of the rules
    pub(crate) stream: String,
    /// File with the rules, or - for standard input
    pub(crate) file: PathBuf,
    /// Only say whether they can be followed
    #[arg(long)]
    pub(crate) check: bool,
    /// Only say which events of the stream would not fit
    #[arg(long, conflicts_with = "check")]
    pub(crate) check_history: bool,
    /// Only say how this item would differ from what is served
    #[arg(long, value_name = "ITEM", conflicts_with_all = ["check", "check_history"])]
    pub(crate) check_item: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RebuildCommand {
    /// Start: a new generation is made beside the one that is served
    #[command(after_help = "\
Of several streams, those that are refused are told and the others start; it ends with the code of
the first that was refused.

Examples:
  hookpool rebuild start sales --from-file sales.toml --wait
  hookpool rebuild start sales --events-per-second 50000
  hookpool rebuild start --all                              every stream, under its newest rules")]
    Start(RebuildStartArgs),
    /// Say how far it is
    #[command(after_help = "\
Examples:
  hookpool rebuild status sales --wait
  hookpool rebuild status sales --output json | jq -r .diff.digest")]
    Status(RebuildStatusArgs),
    /// Print what would change, a line of JSON for each item
    #[command(after_help = "\
The last line on stderr names the digest that `promote` takes.

Examples:
  hookpool rebuild diff sales --limit 10
  hookpool rebuild diff sales | jq -c 'select(.kind == \"removed\") | .itemId'")]
    Diff(RebuildDiffArgs),
    /// Serve it. Followers get the difference; `rollback` goes back
    #[command(after_help = "\
Examples:
  hookpool rebuild promote sales --digest 3f9a...     only if it is still what you looked at
  hookpool rebuild promote sales --any                whatever it is by now, on a busy stream")]
    Promote(RebuildPromoteArgs),
    /// Serve the generation before again
    #[command(after_help = "\
Example:
  hookpool rebuild rollback sales     again: forward to where it was")]
    Rollback(StreamArgs),
    /// Give up the generation before; it can't be gone back to any more
    #[command(after_help = "\
Example:
  hookpool rebuild release sales     gives its space back")]
    Release(StreamArgs),
    /// Throw it away
    #[command(after_help = "\
Example:
  hookpool rebuild cancel sales")]
    Cancel(StreamArgs),
    /// Let it rest
    #[command(after_help = "\
Example:
  hookpool rebuild pause sales")]
    Pause(StreamArgs),
    /// Let it go on
    #[command(after_help = "\
Example:
  hookpool rebuild resume sales")]
    Resume(StreamArgs),
    /// List the rebuilds of a stream
    #[command(after_help = "\
Example:
  hookpool rebuild list sales")]
    List(StreamArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RebuildStartArgs {
    /// Streams to rebuild
    #[arg(value_name = "STREAM", required_unless_present = "all")]
    pub(crate) streams: Vec<String>,
    /// Every stream
    #[arg(long, conflicts_with_all = ["streams", "from_file"])]
    pub(crate) all: bool,
    /// Store the rules in this file first
    #[arg(long, value_name = "FILE")]
    pub(crate) from_file: Option<PathBuf>,
    /// No faster than this
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) events_per_second: Option<u32>,
    /// Return when it is ready, with a progress bar
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RebuildStatusArgs {
    /// Stream that is rebuilt
    pub(crate) stream: String,
    /// Return when it is ready, with a progress bar
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RebuildDiffArgs {
    /// Stream that is rebuilt
    pub(crate) stream: String,
    /// How many items at most [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) output: JsonArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RebuildPromoteArgs {
    /// Stream that is rebuilt
    pub(crate) stream: String,
    /// The difference that was looked at
    #[arg(long, value_name = "DIGEST", required_unless_present = "any")]
    pub(crate) digest: Option<String>,
    /// Whatever the difference is by now
    #[arg(long, conflicts_with = "digest")]
    pub(crate) any: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    /// The stream
    pub(crate) stream: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RetentionCommand {
    /// Show the limits, the earliest moment that can be read, and what is still to be dropped
    #[command(after_help = "\
Example:
  hookpool retention show sales --output json | jq .earliest")]
    Show(StreamArgs),
    /// Keep only what is within these limits, from now on
    #[command(after_help = "\
Items keep their state, and with it the few events that it needs. Everything else
that is older is dropped for good: reading it answers 410. It says first what that
would be, and asks for --yes (exit 5) if it is anything.

Examples:
  hookpool retention set sales --max-age 30d
  hookpool retention set sales --max-age 30d --max-positions 1000000 --yes")]
    Set(RetentionSetArgs),
    /// Keep all that is there, from now on
    #[command(after_help = "\
Example:
  hookpool retention clear sales")]
    Clear(StreamArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RetentionSetArgs {
    /// The stream
    pub(crate) stream: String,
    /// Events that are at most this old: a number and s, m, h, d or w
    #[arg(long, value_name = "TIME", value_parser = seconds, required_unless_present = "max_positions")]
    pub(crate) max_age: Option<u64>,
    /// This many positions before the head
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_positions: Option<u64>,
    /// Also if that makes something unreadable at once
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `30d` as seconds.
fn seconds(text: &str) -> Result<u64, String> {
    match duration(text)?.as_secs() {
        0 => Err("is less than a second".to_owned()),
        seconds => Ok(seconds),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List them with the reasons, oldest first
    #[command(after_help = "\
Example:
  hookpool quarantine list sales && hookpool log show sales 42")]
    List(QuarantineListArgs),
}

#[derive(Debug, Args)]
pub(crate) struct QuarantineListArgs {
    /// The stream
    pub(crate) stream: String,
    /// Only events after this position
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    pub(crate) after: u64,
    /// How many events at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) limit: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
