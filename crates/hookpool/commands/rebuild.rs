//! `hookpool rebuild`: other rules for all of history, looked at before anybody else sees them.

use std::{io::IsTerminal as _, time::Duration};

use anyhow::bail;
use hookpool_client::{Error, Operator, Rebuild, Served};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::projection;
use crate::{
    cli::{
        Globals, OutputArgs, RebuildCommand, RebuildDiffArgs, RebuildPromoteArgs, RebuildStartArgs,
        RebuildStatusArgs, StreamArgs,
    },
    exit::{self, Exit},
    output,
    sought::Seek as _,
};

/// How often a rebuild is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

pub(crate) async fn run(command: RebuildCommand, globals: &Globals) -> anyhow::Result<Exit> {
    let operator = globals.operator()?;
    match command {
        RebuildCommand::Start(args) => return start(&args, &operator).await,
        RebuildCommand::Status(args) => status(&args, &operator).await?,
        RebuildCommand::Diff(args) => diff(&args, &operator).await?,
        RebuildCommand::Promote(args) => promote(&args, &operator).await?,
        RebuildCommand::Rollback(args) => {
            print_served(&args, &operator.roll_back(&args.stream).await?)?;
        }
        RebuildCommand::Release(args) => {
            print_served(&args, &operator.release(&args.stream).await?)?;
        }
        RebuildCommand::Cancel(args) => {
            let rebuild = operator.cancel_rebuild(&args.stream).await;
            print(&of(&args.stream, rebuild)?, &args.output)?;
        }
        RebuildCommand::Pause(args) => {
            let rebuild = operator.pause_rebuild(&args.stream).await;
            print(&of(&args.stream, rebuild)?, &args.output)?;
        }
        RebuildCommand::Resume(args) => {
            let rebuild = operator.resume_rebuild(&args.stream).await;
            print(&of(&args.stream, rebuild)?, &args.output)?;
        }
        RebuildCommand::List(args) => list(&args, &operator).await?,
    }
    Ok(Exit::Ok)
}

/// What is asked of the rebuild of a stream, which may have none.
fn of<T>(stream: &str, answer: Result<T, Error>) -> anyhow::Result<T> {
    let hint = format!(
        "`hookpool rebuild list {stream}` shows those that it had, `hookpool rebuild start {stream}` starts one"
    );
    answer.sought(format!("rebuild of {stream}"), hint)
}

async fn start(args: &RebuildStartArgs, operator: &Operator) -> anyhow::Result<Exit> {
    let rules = args
        .from_file
        .as_deref()
        .map(projection::read)
        .transpose()?;
    let streams = match args.all {
        true => {
            let streams = operator.consumer().streams().await?;
            streams.into_iter().map(|stream| stream.stream).collect()
        }
        false => args.streams.clone(),
    };
    // One that is refused is no reason to leave out the others.
    let (mut started, mut failed) = (Vec::new(), Failures::default());
    for stream in &streams {
        let rebuild = operator.start_rebuild(stream, rules.as_ref(), args.events_per_second);
        let rebuild = rebuild.await.sought(
            format!("starting a rebuild of {stream}"),
            "names are case-sensitive; `hookpool connector list` shows what there is",
        );
        let Some(rebuild) = failed.go_on(rebuild)? else {
            continue;
        };
        match args.wait {
            true => output::say(&format!("rebuild {} of {stream} is started", rebuild.id)),
            false => output::unless_closed(print(&rebuild, &args.output))?,
        }
        started.push(rebuild);
    }
    for rebuild in started.iter().filter(|_| args.wait) {
        let rebuild = ready(operator, rebuild).await;
        if let Some(rebuild) = failed.go_on(rebuild)? {
            output::unless_closed(print(&rebuild, &args.output))?;
        }
    }
    if !args.output.is_json() && !args.wait && !started.is_empty() {
        output::say("hookpool rebuild status STREAM --wait says when it is ready");
    }
    Ok(failed.exit(streams.len()))
}

/// What went wrong with one stream of several; each is told where it happens.
#[derive(Default)]
struct Failures {
    count: usize,
    first: Option<Exit>,
}

impl Failures {
    /// Tells what is about one stream; anything else would be the same for all, and ends the command.
    fn go_on<T>(&mut self, outcome: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        let error = match outcome {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        let is_of_all = match error.downcast_ref() {
            Some(Error::Problem(problem)) => matches!(problem.status, 401 | 403 | 500..),
            Some(_) => true,
            // A rebuild that failed.
            None => false,
        };
        if is_of_all {
            return Err(error);
        }
        self.count += 1;
        let exit = exit::explain(&error);
        self.first.get_or_insert(exit);
        Ok(None)
    }

    fn exit(&self, streams: usize) -> Exit {
        if self.count > 0 && streams > 1 {
            output::say(&format!("{} of {streams} rebuilds failed", self.count));
        }
        self.first.unwrap_or(Exit::Ok)
    }
}

async fn status(args: &RebuildStatusArgs, operator: &Operator) -> anyhow::Result<()> {
    let mut rebuild = of(&args.stream, operator.rebuild(&args.stream).await)?;
    if args.wait {
        rebuild = ready(operator, &rebuild).await?;
    }
    print(&rebuild, &args.output)
}

/// Waits until there is nothing left to wait for: of this one, whatever is started after it.
async fn ready(operator: &Operator, begun: &Rebuild) -> anyhow::Result<Rebuild> {
    let (stream, id) = (&begun.stream, &begun.id);
    let bar = bar(stream);
    loop {
        let rebuild = of(stream, operator.rebuild_by_id(stream, id).await)?;
        bar.set_length(rebuild.total.unwrap_or(0));
        bar.set_position(rebuild.done.unwrap_or(0));
        bar.set_message(match (rebuild.paused, rebuild.compared) {
            (true, _) => "paused".to_owned(),
            (false, Some(items)) => format!("comparing, {items} items"),
            (false, None) => match rebuild.eta_seconds {
                Some(seconds) => format!("{}/s, {seconds} s left", rebuild.rate),
                None => format!("{}/s", rebuild.rate),
            },
        });
        match rebuild.state.as_str() {
            "running" => tokio::time::sleep(ASK_EVERY).await,
            "failed" => {
                bar.finish_and_clear();
                bail!(
                    "the rebuild of {stream} failed: {}; the server's log has more; `hookpool rebuild cancel {stream}` gives it up",
                    rebuild.error.unwrap_or_default()
                );
            }
            "cancelled" => {
                bar.finish_and_clear();
                bail!(
                    "rebuild {id} of {stream} is cancelled; `hookpool rebuild start {stream}` starts another"
                );
            }
            _ => {
                bar.finish_and_clear();
                return Ok(rebuild);
            }
        }
    }
}

/// On a terminal; elsewhere nothing is drawn.
fn bar(stream: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{prefix} {wide_bar} {human_pos}/{human_len} events, {msg}");
    let bar = ProgressBar::new(0).with_prefix(stream.to_owned());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn print(rebuild: &Rebuild, output: &OutputArgs) -> anyhow::Result<()> {
    if output.is_json() {
        return output::json(rebuild);
    }
    let paused = if rebuild.paused { ", paused" } else { "" };
    let mut facts = vec![
        ("rebuild", rebuild.id.clone()),
        ("stream", rebuild.stream.clone()),
        ("projection", rebuild.projection.to_string()),
        ("state", format!("{}{paused}", rebuild.state)),
    ];
    if let (Some(done), Some(total)) = (rebuild.done, rebuild.total) {
        facts.push(("events", format!("{done} of {total}")));
    }
    if let Some(quarantined) = rebuild.quarantined {
        facts.push(("quarantined", quarantined.to_string()));
    }
    if let Some(diff) = &rebuild.diff {
        facts.push(("added", diff.added.to_string()));
        facts.push(("removed", diff.removed.to_string()));
        facts.push(("changed", diff.changed.to_string()));
        facts.push(("digest", diff.digest.clone()));
    }
    facts.extend(rebuild.error.clone().map(|error| ("error", error)));
    output::facts(facts)
}

fn print_served(args: &StreamArgs, served: &Served) -> anyhow::Result<()> {
    if args.output.is_json() {
        return output::json(served);
    }
    output::facts([
        ("stream", served.stream.clone()),
        ("generation", served.generation.to_string()),
        ("projection", served.projection.to_string()),
        ("before it", output::or_dash(served.previous)),
    ])
}

async fn list(args: &StreamArgs, operator: &Operator) -> anyhow::Result<()> {
    let rebuilds = operator.rebuilds(&args.stream).await?;
    if args.output.is_json() {
        return output::json(&json!({ "rebuilds": rebuilds }));
    }
    let rows = rebuilds.into_iter().map(|rebuild| {
        let when = rebuild.ended_at.or(rebuild.started_at);
        [
            rebuild.id,
            rebuild.projection.to_string(),
            rebuild.state,
            output::or_dash(when),
        ]
    });
    output::table(["rebuild", "projection", "state", "since"], rows)
}

async fn diff(args: &RebuildDiffArgs, operator: &Operator) -> anyhow::Result<()> {
    let difference = operator.rebuild_diff(&args.stream, args.limit).await;
    let (digest, mut lines) = of(&args.stream, difference)?;
    while let Some(bytes) = lines.next().await? {
        output::raw(&bytes)?;
    }
    output::say(&format!("digest {digest}"));
    Ok(())
}

async fn promote(args: &RebuildPromoteArgs, operator: &Operator) -> anyhow::Result<()> {
    let rebuild = operator.promote(&args.stream, args.digest.as_deref()).await;
    print(&of(&args.stream, rebuild)?, &args.output)?;
    if !args.output.is_json() {
        output::say(&format!(
            "served now; hookpool rebuild rollback {} goes back",
            args.stream
        ));
    }
    Ok(())
}
