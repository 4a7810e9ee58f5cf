//! What consumers use: the live stream, the items, and who follows what.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use hookpool_client::Start;
use hookpool_core::{cursor::Cursor, name::StreamName, time::Timestamp};

use super::{JsonArgs, OutputArgs, duration};

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
  hookpool tail sales --from 5f8d4c2a91be0c37.1.42         after the frame with this id
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
    /// snapshot, now, earliest, an RFC 3339 time, or the id of a frame to resume after
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
        time if time.parse::<Timestamp>().is_ok() => Start::Time(time.to_owned()),
        id if is_id(id) => Start::Cursor(id.to_owned()),
        _ => {
            return Err("is none of snapshot, now, earliest, an RFC 3339 time, and the id of a frame: \
                        <16 hex digits>.<generation>.<position>, or of several streams STREAM:ID,..."
                .to_owned());
        }
    })
}

/// Of a frame of one stream or of several. Taken for what it is not, it would start over with a snapshot.
fn is_id(text: &str) -> bool {
    let is_cursor = |text: &str| text.parse::<Cursor>().is_ok();
    let of_one = |part: &str| {
        part.split_once(':')
            .is_some_and(|(stream, cursor)| StreamName::new(stream).is_ok() && is_cursor(cursor))
    };
    is_cursor(text) || text.split(',').all(of_one)
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
    #[command(flatten)]
    pub(crate) output: JsonArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ItemsListArgs {
    /// Stream to read
    pub(crate) stream: String,
    /// How many items at most [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
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
