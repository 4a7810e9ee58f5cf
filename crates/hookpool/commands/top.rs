//! `hookpool top`: how fast streams grow, and how far behind their followers are.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
};

use hookpool_client::{Consumer, Error, Following, Operator, Stream};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    cli::{Globals, TopArgs},
    exit::Exit,
    output,
};

/// Followers on a screen that is drawn again and again; the others are counted.
const FOLLOWERS_SHOWN: usize = 20;
/// From the top of the screen on, which is cleared.
const CLEAR: &[u8] = b"\x1b[H\x1b[J";

pub(crate) async fn run(args: TopArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let asked = Asked::new(globals.operator()?);
    let refreshes = !args.once && !args.output.is_json() && io::stdout().is_terminal();
    let mut before = asked.sample().await?;
    let mut top = Top::of(&before, None);
    if refreshes {
        screen(&top)?;
    }
    loop {
        let next = async {
            sleep(args.interval).await;
            asked.sample().await
        };
        let next = tokio::select! {
            next = next => next,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                return Ok(Exit::Ok);
            }
        };
        let now = match next {
            Err(error) if refreshes && is_temporary(&error) => {
                screen(&top)?;
                let line = format!("\nas it was; trying again: {error:#}");
                output::line(&output::printable(&line))?;
                continue;
            }
            next => next?,
        };
        top = Top::of(&now, Some(&before));
        if args.output.is_json() {
            output::json(&top)?;
        } else if refreshes {
            screen(&top)?;
        } else {
            print(&top, usize::MAX)?;
        }
        if !refreshes {
            return Ok(Exit::Ok);
        }
        before = now;
    }
}

/// What a server that is started again or overloaded gives; it was there before.
fn is_temporary(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(Error::Unreachable { .. }) => true,
        Some(Error::Problem(problem)) => problem.status >= 500,
        _ => false,
    }
}

/// Who is asked.
struct Asked {
    operator: Operator,
    consumer: Consumer,
}

/// What the server said, and when.
struct Sample {
    at: Instant,
    streams: Vec<Stream>,
    followers: Vec<Following>,
}

impl Asked {
    fn new(operator: Operator) -> Self {
        let consumer = operator.consumer();
        Self { operator, consumer }
    }

    async fn sample(&self) -> anyhow::Result<Sample> {
        let at = Instant::now();
        let streams = self.consumer.streams().await?;
        let followers = self.operator.followers().await?;
        Ok(Sample {
            at,
            streams,
            followers,
        })
    }
}

#[derive(Debug, Serialize)]
struct Top {
    streams: Vec<Row>,
    /// Those who are the most behind first.
    followers: Vec<Following>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    stream: String,
    events_per_second: Option<f64>,
    events: u64,
    items: u64,
    position: u64,
    lag: u64,
    followers: usize,
    /// Of the one that is the most behind; none where nobody follows, or all are in a snapshot.
    follower_lag: Option<u64>,
}

impl Top {
    fn of(now: &Sample, before: Option<&Sample>) -> Self {
        let mut following = BTreeMap::<&str, Vec<&Following>>::new();
        for follower in &now.followers {
            let of_stream = following.entry(&follower.stream).or_default();
            of_stream.push(follower);
        }
        let row = |stream: &Stream| {
            let of_stream = following.get(stream.stream.as_str());
            let of_stream = of_stream.map_or(&[][..], Vec::as_slice);
            Row {
                stream: stream.stream.clone(),
                events_per_second: before.and_then(|before| now.rate(before, stream)),
                events: stream.events,
                items: stream.items,
                position: stream.position,
                lag: stream.lag,
                followers: of_stream.len(),
                follower_lag: of_stream.iter().filter_map(|follower| follower.lag).max(),
            }
        };
        let streams = now.streams.iter().map(row).collect();
        let mut followers = now.followers.clone();
        // In a snapshot one is as far behind as can be.
        followers.sort_by_key(|follower| std::cmp::Reverse(follower.lag.unwrap_or(u64::MAX)));
        Self { streams, followers }
    }
}

impl Sample {
    /// Events of a stream per second since a sample before; `None` if it was not there then.
    fn rate(&self, before: &Self, stream: &Stream) -> Option<f64> {
        let then = before.streams.iter().find(|it| it.stream == stream.stream);
        let events = stream.events.saturating_sub(then?.events);
        #[expect(clippy::cast_precision_loss, reason = "a rate is shown with one digit")]
        let rate = events as f64 / (self.at - before.at).as_secs_f64();
        Some((rate * 10.0).round() / 10.0).filter(|rate| rate.is_finite())
    }
}

fn screen(top: &Top) -> anyhow::Result<()> {
    output::raw(CLEAR)?;
    print(top, FOLLOWERS_SHOWN)
}

fn print(top: &Top, followers_max: usize) -> anyhow::Result<()> {
    let rows = top.streams.iter().map(|row| {
        [
            row.stream.clone(),
            output::or_dash(row.events_per_second.map(|rate| format!("{rate:.1}"))),
            row.events.to_string(),
            row.items.to_string(),
            row.position.to_string(),
            row.lag.to_string(),
            row.followers.to_string(),
            output::or_dash(row.follower_lag),
        ]
    });
    let header = [
        "stream",
        "events/s",
        "events",
        "items",
        "position",
        "lag",
        "followers",
        "their lag",
    ];
    output::table(header, rows)?;
    if top.followers.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let rows = top.followers.iter().take(followers_max).map(|follower| {
        let reader = follower.reader.clone();
        [
            reader.unwrap_or_else(|| "(operator)".to_owned()),
            follower.stream.clone(),
            output::or_dash(follower.position),
            output::or_dash(follower.lag),
            follower.opened_at.clone(),
        ]
    });
    output::table(["follower", "stream", "position", "lag", "since"], rows)?;
    match top.followers.len().saturating_sub(followers_max) {
        0 => Ok(()),
        more => output::line(&format!("and {more} more")),
    }
}
