//! The command line as clap sees it. What the commands do is in `commands/`, `serve.rs`, `demo.rs` and `verify.rs`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use hookpool_client::{Replay, Start};
use hookpool_core::{proof::PublicKey, time::Timestamp};

use crate::{config::Flags, output::Output};

const EXAMPLES: &str = "\
Try it:
  hookpool demo                                    a server with sample events

Run it:
  hookpool serve                                   in one terminal
  hookpool connector add sales --id-field region   in another: a key and a curl command
  hookpool tail sales                              and watch

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 unauthorized, 5 conflict,
6 verification found problems, 7 unreachable.";

/// Webhooks in, a live DataPool out, and the history kept.
#[derive(Debug, Parser)]
#[command(name = "hookpool", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How the server, its keys and its settings are found.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where")]
pub(crate) struct Globals {
    /// Server that client commands ask
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "HOOKPOOL_SERVER",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) server: String,
    /// File with an operator key [default: $HOOKPOOL_OPERATOR_KEY, else operator.key in the data folder]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) operator_key_file: Option<PathBuf>,
    /// File with a read key, for commands that only read [default: $HOOKPOOL_READ_KEY, else the operator key]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) read_key_file: Option<PathBuf>,
    /// Folder of log, pool and keys [default: hookpool-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Settings in TOML; HOOKPOOL_* variables and flags win over it
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "HOOKPOOL_CONFIG",
        hide_env_values = true
    )]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(ServeArgs),
    /// Run a server on a scratch folder, with sample events flowing in
    Demo(DemoArgs),
    /// Say who may write: connectors and their keys
    #[command(subcommand)]
    Connector(ConnectorCommand),
    /// Say who may read: read keys
    #[command(subcommand)]
    Reader(ReaderCommand),
    /// Make an operator key where the last one was lost
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Send events, as a producer does
    Send(SendArgs),
    /// Follow streams live
    Tail(TailArgs),
    /// Watch streams and their followers: rates, positions, lags
    Top(TopArgs),
    /// Read the items of a stream, as they are or were
    #[command(subcommand)]
    Items(ItemsCommand),
    /// Read the recorded events of a stream
    #[command(subcommand)]
    Log(LogCommand),
    /// Say how history becomes items: the rules of a stream
    #[command(subcommand)]
    Projection(ProjectionCommand),
    /// Apply other rules to all of history, look at the difference, then serve it
    #[command(subcommand)]
    Rebuild(RebuildCommand),
    /// Say how much history of a stream is kept
    #[command(subcommand)]
    Retention(RetentionCommand),
    /// Look at events that fit the rules not at all
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Prove that a data folder is complete and unchanged
    Verify(VerifyArgs),
    /// Write the history to a file that proves itself
    Export(ExportArgs),
    /// Make the log of a data folder out of an export
    Import(ImportArgs),
    /// Copy the logs of a running server into a folder; again to bring it up to date
    Backup(BackupArgs),
    /// Make the logs of a data folder out of a backup
    Restore(RestoreArgs),
    /// Ask whether the server is ready
    Health(HealthArgs),
    /// Look at the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print completions for a shell
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Settings come from defaults, then the file, then HOOKPOOL_* variables, then flags;
`hookpool config show --origin` lists them all. On the first start the operator key
is written to operator.key in the data folder. SIGTERM drains and exits 0.

Examples:
  hookpool serve
  hookpool serve --config hookpool.toml --listen 0.0.0.0:8080
  HOOKPOOL_LIMITS_BODY_BYTES=65536 hookpool serve --log-format json")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) flags: Flags,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectorCommand {
    /// Make a connector for a stream; prints its keys, this once
    #[command(after_help = "\
Examples:
  hookpool connector add sales --id-field region
  hookpool connector add sales --name shop --signed
  hookpool connector add sales --output json | jq -r .ingestKey")]
    Add(ConnectorAddArgs),
    /// List all connectors
    List(OutputArgs),
    /// Show one connector and its keys
    Show(ConnectorArgs),
    /// Make a new ingest key; the old ones expire
    #[command(after_help = "\
Example:
  hookpool connector rotate-key sales --overlap 3600     both keys work for an hour")]
    RotateKey(RotateArgs),
    /// Make a new signing key; the old ones expire. Turns signing on where it was off
    RotateSigningKey(RotateArgs),
    /// Refuse all deliveries of a connector
    Disable(ConnectorArgs),
    /// Take its deliveries again
    Enable(ConnectorArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConnectorAddArgs {
    /// Stream that the connector writes to
    pub(crate) stream: String,
    /// Name of the connector [default: the stream's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Take only deliveries signed with a key of this connector
    #[arg(long)]
    pub(crate) signed: bool,
    /// Property that holds the item id, where a request names none [default: id]
    #[arg(long, value_name = "NAME")]
    pub(crate) id_field: Option<String>,
    /// What a signed delivery that comes again gets: the first answer, or recorded again
    #[arg(long, default_value = "collapse")]
    pub(crate) replay: ReplayArg,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ReplayArg {
    Collapse,
    Allow,
}

impl From<ReplayArg> for Replay {
    fn from(arg: ReplayArg) -> Self {
        match arg {
            ReplayArg::Collapse => Self::Collapse,
            ReplayArg::Allow => Self::Allow,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ConnectorArgs {
    /// Name of the connector
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// Name of the connector
    pub(crate) name: String,
    /// How long the old keys still work
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) overlap: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReaderCommand {
    /// Make a read key; prints it, this once
    #[command(after_help = "\
Examples:
  hookpool reader add dashboard --stream sales --stream orders
  hookpool reader add backup --stream '*'")]
    Add(ReaderAddArgs),
    /// List all read keys
    List(OutputArgs),
    /// Refuse a read key from now on; its change streams end
    Revoke(ReaderArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ReaderAddArgs {
    /// Name of the read key
    pub(crate) name: String,
    /// Stream that it may read; '*' is every stream
    #[arg(long = "stream", value_name = "STREAM", required = true, num_args = 1..)]
    pub(crate) streams: Vec<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReaderArgs {
    /// Name of the read key
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// Make another operator key on a stopped data folder and write it to operator.key there
    #[command(after_help = "\
Who may write to the data folder may do this: it is the second way in. The server must be stopped, and operator.key must
not be there: a key is never overwritten. Keys that were made before work on.

Examples:
  hookpool operator add
  hookpool operator add --data-dir /var/lib/hookpool")]
    Add,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Bodies are posted byte for byte. A file that ends in .ndjson is one body a line.
Keys in variables stay out of the list of processes.

Examples:
  export HOOKPOOL_INGEST_KEY=ik_...
  echo '{\"region\":\"North\",\"sales\":142000}' | hookpool send sales --id-field region
  hookpool send sales body.json --count 100 --rate 10
  HOOKPOOL_SIGNING_KEY=whsk_... hookpool send sales events.ndjson --output json")]
pub(crate) struct SendArgs {
    /// Stream to send to
    pub(crate) stream: String,
    /// File with the body, or - for standard input
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// Property that holds the item id
    #[arg(long, value_name = "NAME")]
    pub(crate) id_field: Option<String>,
    /// How often to send the whole file
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) count: u64,
    /// Events per second at most [default: one after the other]
    #[arg(long, value_name = "R", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Key of the connector
    #[arg(
        long,
        value_name = "KEY",
        env = "HOOKPOOL_INGEST_KEY",
        hide_env_values = true
    )]
    pub(crate) ingest_key: SecretArg,
    /// Key to sign with
    #[arg(
        long,
        value_name = "KEY",
        env = "HOOKPOOL_SIGNING_KEY",
        hide_env_values = true
    )]
    pub(crate) signing_key: Option<SecretArg>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// A secret from the command line or the environment.
#[derive(Debug, Clone)]
pub(crate) struct SecretArg(pub(crate) hookpool_client::Secret);

impl From<&str> for SecretArg {
    fn from(text: &str) -> Self {
        Self(hookpool_client::Secret::new(text.to_owned()))
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (1e-6..=1e6).contains(&rate) => Ok(rate),
        _ => Err("not a number of events per second, up to a million".to_owned()),
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
It connects again by itself and misses nothing. Ctrl-C ends it. Colours are for
terminals; NO_COLOR turns them off.

A condition is NAME, !NAME, or NAME, one of = != < <= > >=, and a value.

Examples:
  hookpool tail sales orders                               two streams at once
  hookpool tail sales --item North --from now
  hookpool tail sales --since 10m                          what came since, and what comes
  hookpool tail orders --where status=open --where 'total>=100' --fields status,total
  hookpool tail app-metrics --conflate 1s                  each item once a second at most
  hookpool tail sales --from earliest --until 42           and no further
  hookpool tail sales --output ndjson | jq -c 'select(.event == \"change\") | .data'")]
pub(crate) struct TailArgs {
    /// Streams to follow
    #[arg(value_name = "STREAM", required = true, num_args = 1..)]
    pub(crate) streams: Vec<String>,
    /// Only this item
    #[arg(long, value_name = "ID")]
    pub(crate) item: Option<String>,
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    /// snapshot, now, earliest, or the id of a frame to resume after
    #[arg(long, value_name = "WHERE", default_value = "snapshot", value_parser = start)]
    pub(crate) from: Start,
    /// From so long ago (10m, 2h, 1d), or from an RFC 3339 time
    #[arg(long, value_name = "MOMENT", value_parser = since, conflicts_with = "from")]
    pub(crate) since: Option<Start>,
    /// End after this position
    #[arg(long, value_name = "POSITION")]
    pub(crate) until: Option<u64>,
    /// One line for an item in this time at most (250ms, 2s), with all that happened to it
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) conflate: Option<Duration>,
    /// How frames are printed: for people, or as lines of JSON {"event","id","data"}
    #[arg(long, value_name = "FORMAT", default_value = "pretty")]
    pub(crate) output: TailOutput,
}

/// Some items, and some of their fields.
#[derive(Debug, Args)]
pub(crate) struct SelectionArgs {
    /// Only items that meet this condition; all of them if it is given several times
    #[arg(long = "where", value_name = "CONDITION")]
    pub(crate) conditions: Vec<String>,
    /// Only these fields
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) fields: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TailOutput {
    Pretty,
    #[value(alias = "json")]
    Ndjson,
}

fn start(text: &str) -> Result<Start, String> {
    Ok(match text {
        "snapshot" => Start::Snapshot,
        "now" => Start::Now,
        "earliest" => Start::Earliest,
        cursor => Start::Cursor(cursor.to_owned()),
    })
}

/// From so long ago, or from a time.
fn since(text: &str) -> Result<Start, String> {
    match (duration(text), text.parse::<Timestamp>()) {
        (Ok(ago), _) => Ok(Start::ago(ago)),
        (Err(_), Ok(_)) => Ok(Start::Time(text.to_owned())),
        (Err(_), Err(_)) => {
            Err("is neither a duration such as 10m nor an RFC 3339 time".to_owned())
        }
    }
}

/// A whole number and its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let millis = match text.strip_prefix(digits) {
        Some("ms") => 1,
        Some("s") => 1_000,
        Some("m") => 60_000,
        Some("h") => 3_600_000,
        Some("d") => 86_400_000,
        _ => 0_u64,
    };
    let number = digits.parse().ok().filter(|number: &u64| *number > 0);
    let millis = number.and_then(|number| number.checked_mul(millis));
    let duration = millis
        .filter(|millis| *millis > 0)
        .map(Duration::from_millis);
    duration.ok_or_else(|| "is not a duration such as 250ms, 10s, 5m, 2h or 1d".to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = "\
Draws again and again on a terminal until Ctrl-C; elsewhere it prints one table. lag is
how many positions of the log the pool has not applied; that of followers is how far the
one that is the most behind is from the end of its stream.

Examples:
  hookpool top
  hookpool top --once --interval 10s                   rates over ten seconds
  hookpool top --output json | jq '.followers[] | select(.lag > 1000)'")]
pub(crate) struct TopArgs {
    /// Print one table and end
    #[arg(long)]
    pub(crate) once: bool,
    /// Over which time rates are taken
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(crate) interval: Duration,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ItemsCommand {
    /// List items, all at one position
    #[command(after_help = "\
Examples:
  hookpool items list sales
  hookpool items list orders --where status=open --where 'total>=100' --fields status,total
  hookpool items list sales --at 2026-04-09T10:30:00Z
  hookpool items list sales --output json | jq '.items[].fields'")]
    List(ItemsListArgs),
    /// Show one item
    #[command(after_help = "\
Examples:
  hookpool items get sales North
  hookpool items get sales North --meta     and where each field came from
  hookpool items get sales North --at 2026-04-09T10:30:00Z")]
    Get(ItemsGetArgs),
    /// Show what each event did to one item, oldest first
    #[command(after_help = "\
Example:
  hookpool items history sales North --limit 5")]
    History(ItemsHistoryArgs),
    /// Print how items differ between two moments, a line of JSON each
    #[command(after_help = "\
Examples:
  hookpool items diff sales --from 42 --to 99
  hookpool items diff sales --from 2026-04-09T00:00:00Z --to 2026-04-10T00:00:00Z | jq -r .itemId")]
    Diff(ItemsDiffArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ItemsHistoryArgs {
    /// Stream to read
    pub(crate) stream: String,
    /// Id of the item
    pub(crate) id: String,
    /// Only events after this position [default: all that are kept]
    #[arg(long, value_name = "POSITION")]
    pub(crate) after: Option<u64>,
    /// How many events at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) limit: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ItemsDiffArgs {
    /// Stream to read
    pub(crate) stream: String,
    /// Position or RFC 3339 time
    #[arg(long, value_name = "MOMENT")]
    pub(crate) from: String,
    /// Position or RFC 3339 time
    #[arg(long, value_name = "MOMENT")]
    pub(crate) to: String,
}

#[derive(Debug, Args)]
pub(crate) struct ItemsListArgs {
    /// Stream to read
    pub(crate) stream: String,
    /// How many items at most [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// As they were: position or RFC 3339 time
    #[arg(long, value_name = "MOMENT")]
    pub(crate) at: Option<String>,
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ItemsGetArgs {
    /// Stream to read
    pub(crate) stream: String,
    /// Id of the item
    pub(crate) id: String,
    /// Also the position, time, connector and request of each field
    #[arg(long)]
    pub(crate) meta: bool,
    /// As it was: position or RFC 3339 time
    #[arg(long, value_name = "MOMENT")]
    pub(crate) at: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

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
    #[arg(long, value_name = "N", default_value_t = 100)]
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
    Schema,
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
Examples:
  hookpool rebuild start sales --from-file sales.toml --wait
  hookpool rebuild start sales --events-per-second 50000
  hookpool rebuild start --all                              every stream, under its newest rules")]
    Start(RebuildStartArgs),
    /// Say how far it is
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
    Rollback(StreamArgs),
    /// Give up the generation before; it can't be gone back to any more
    Release(StreamArgs),
    /// Throw it away
    Cancel(StreamArgs),
    /// Let it rest
    Pause(StreamArgs),
    /// Let it go on
    Resume(StreamArgs),
    /// List the rebuilds of a stream
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
    let units = [
        ('s', 1),
        ('m', 60),
        ('h', 3_600),
        ('d', 86_400),
        ('w', 604_800),
    ];
    let seconds = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(*unit)?.parse().ok()?;
        number.checked_mul(*seconds)
    });
    seconds
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| "a time is a number and s, m, h, d or w, like 30d".to_owned())
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

#[derive(Debug, Args)]
#[command(after_help = "Exits 0 if it is ready, 1 if it is not, 7 if nothing answers.")]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show the settings in force
    Show(ConfigShowArgs),
    /// Say what is wrong with the settings, and exit 1 if something is
    Check(ConfigCheckArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    /// Also where each value came from
    #[arg(long)]
    pub(crate) origin: bool,
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigCheckArgs {
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  hookpool completions bash > /etc/bash_completion.d/hookpool")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// How facts are printed
    #[arg(long, value_name = "FORMAT", default_value = "pretty")]
    pub(crate) output: Output,
}

impl OutputArgs {
    pub(crate) fn is_json(&self) -> bool {
        self.output == Output::Json
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn documented_lines_parse() {
        for line in [
            "hookpool serve --config f.toml --data-dir d --listen 127.0.0.1:0 --tls-cert c --tls-key k",
            "hookpool demo --listen 127.0.0.1:0",
            "hookpool connector add sales --name n --signed --id-field f --replay allow --output json",
            "hookpool --server http://h --operator-key-file f connector list",
            "hookpool connector rotate-key n --overlap 60 --server http://h",
            "hookpool connector rotate-signing-key n",
            "hookpool connector disable n",
            "hookpool connector enable n",
            "hookpool reader add n --stream a --stream b",
            "hookpool reader add n --stream a b --output json",
            "hookpool reader revoke n",
            "hookpool send sales - --ingest-key k --count 3 --rate 0.5",
            "hookpool tail sales --item i --from earliest --output ndjson",
            "hookpool tail sales orders --where status=open --where total>=5 --fields status,total",
            "hookpool tail sales --since 10m --conflate 250ms --until 42",
            "hookpool tail sales --since 2026-04-09T10:30:00+02:00",
            "hookpool top --once --interval 2s --output json",
            "hookpool items list sales --where !gone --fields a,b --at 7",
            "hookpool items list sales --limit 3 --read-key-file f",
            "hookpool items get sales x --meta --at 7",
            "hookpool items list sales --at 2026-04-09T10:30:00Z",
            "hookpool items history sales x --after 3 --limit 2",
            "hookpool items diff sales --from 1 --to 2",
            "hookpool log list sales --after 1 --limit 2 --body",
            "hookpool log show sales 7 --raw",
            "hookpool projection show sales --version 2",
            "hookpool projection set sales f.toml --check-history",
            "hookpool projection schema",
            "hookpool rebuild start sales --from-file f.toml --events-per-second 5 --wait",
            "hookpool rebuild start --all",
            "hookpool rebuild status sales --output json",
            "hookpool rebuild diff sales --limit 3",
            "hookpool rebuild promote sales --digest d",
            "hookpool rebuild promote sales --any",
            "hookpool rebuild rollback sales",
            "hookpool rebuild release sales",
            "hookpool rebuild pause sales",
            "hookpool quarantine list sales --after 3 --limit 2",
            "hookpool log head --output json",
            "hookpool verify --data-dir d --output json",
            "hookpool verify --export f --head h --public-key 7c2ba2c409bf3708bc8cd6047baebd59a471fe13c5c993dcad1578f0a44cc259",
            "hookpool export",
            "hookpool export f --after 1 --until 2 --stream s --format cloudevents",
            "hookpool import - --data-dir d",
            "hookpool backup b --output json",
            "hookpool restore b --data-dir d",
            "hookpool health",
            "hookpool config show --origin --listen 1.1.1.1:1",
            "hookpool config check --config f",
            "hookpool completions bash",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, seconds) in [
            ("250ms", 0.25),
            ("10s", 10.0),
            ("5m", 300.0),
            ("1d", 86_400.0),
        ] {
            assert_eq!(duration(text).unwrap().as_secs_f64(), seconds, "{text}");
        }
        for bad in [
            "",
            "5",
            "s",
            "0s",
            "-1s",
            "1.5s",
            "1 s",
            "1w",
            "1ms2",
            "99999999999999999d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_usage_exits_with_two() {
        for line in [
            "hookpool nonsense",
            "hookpool serve --listen nonsense",
            "hookpool log show sales 7 --raw --output json",
            "hookpool log show sales seven",
            "hookpool verify --public-key 7c2ba2c409bf3708bc8cd6047baebd59a471fe13c5c993dcad1578f0a44cc259",
            "hookpool export --format xml",
            "hookpool reader add n",
            "hookpool rebuild start",
            "hookpool rebuild promote sales",
            "hookpool tail",
            "hookpool tail sales --since yesterday",
            "hookpool tail sales --since 10m --from now",
            "hookpool tail sales --conflate 0s",
            "hookpool top --interval 1",
            "hookpool rebuild start sales --events-per-second 0",
            "hookpool send s - --ingest-key k --rate 0",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn secrets_of_the_command_line_are_not_printed() {
        let cli =
            parse("hookpool send s - --ingest-key ik_a_geheim --signing-key whsk_geheim").unwrap();
        assert!(!format!("{cli:?}").contains("geheim"));
    }
}
