//! `hookpool items`: the pool as it is, or was.

use std::time::Duration;

use hookpool_client::{
    Consumer, Error, Fields, Item, ItemPage, ItemQuery, Ready, Server, Sides, Touch,
};
use tokio::time::{Instant, sleep};

use crate::{
    cli::{Globals, ItemsCommand, ItemsDiffArgs, ItemsGetArgs, ItemsHistoryArgs, ItemsListArgs},
    exit::Exit,
    output,
    sought::Seek as _,
};

/// The most that the server gives at once.
const PAGE: u64 = 1000;
/// How long what was recorded before is waited for, and how often it is asked for.
const PATIENCE: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_millis(20);

pub(crate) async fn run(command: ItemsCommand, globals: &Globals) -> anyhow::Result<Exit> {
    let consumer = globals.consumer()?;
    catch_up(&globals.server()?).await;
    match command {
        ItemsCommand::List(args) => list(&args, &consumer).await?,
        ItemsCommand::Get(args) => get(&args, &consumer).await?,
        ItemsCommand::History(args) => history(&args, &consumer).await?,
        ItemsCommand::Diff(args) => diff(&args, &consumer).await?,
    }
    Ok(Exit::Ok)
}

/// Waits until the pool shows what was recorded before, so that whoever sent something sees it. A server that does not tell is asked all the same.
async fn catch_up(server: &Server) {
    let Ok(Ready {
        position,
        mut applied,
        ..
    }) = server.ready().await
    else {
        return;
    };
    let begun = Instant::now();
    while applied < position {
        if begun.elapsed() > PATIENCE {
            output::say(&format!(
                "the pool is behind: it shows position {applied} of {position}; `hookpool health` tells when it has caught up"
            ));
            return;
        }
        sleep(ASK_EVERY).await;
        let Ok(ready) = server.ready().await else {
            return;
        };
        applied = ready.applied;
    }
}

async fn list(args: &ItemsListArgs, consumer: &Consumer) -> anyhow::Result<()> {
    let page = chain(consumer, args).await?;
    if args.output.is_json() {
        return output::json(&page);
    }
    let items = output::count(page.items.len() as u64, "item");
    let rows = page
        .items
        .into_iter()
        .map(|item| [item.item_id, one_line(&item.fields)]);
    output::table(["item", "fields"], rows)?;
    let more = if page.next.is_some() {
        "; there are more"
    } else {
        ""
    };
    output::say(&format!("{items} at position {}{more}", page.position));
    Ok(())
}

/// Follows the chain of pages, which all show one position, into one page.
async fn chain(consumer: &Consumer, args: &ItemsListArgs) -> anyhow::Result<ItemPage> {
    let limit = args.limit.unwrap_or(u64::MAX);
    let mut query = ItemQuery {
        after: None,
        limit: Some(limit.min(PAGE)),
        at: args.at.clone(),
        conditions: args.selection.conditions.clone(),
        fields: args.selection.fields.clone(),
    };
    let mut all = consumer.items(&args.stream, &query).await?;
    loop {
        let left = limit.saturating_sub(all.items.len() as u64);
        if left == 0 || all.next.is_none() {
            return Ok(all);
        }
        query.after = all.next.take();
        query.limit = Some(left.min(PAGE));
        let page = consumer.items(&args.stream, &query).await?;
        all.items.extend(page.items);
        all.next = page.next;
    }
}

async fn get(args: &ItemsGetArgs, consumer: &Consumer) -> anyhow::Result<()> {
    let at = args.at.as_deref();
    let item = consumer.item(&args.stream, &args.id, args.meta, at).await;
    let (what, hint) = sought(args, item.as_ref().err());
    let item = item.sought(what, hint)?;
    if args.output.is_json() {
        return output::json(&item);
    }
    let Item {
        item_id,
        fields,
        position,
        meta,
    } = item;
    let position = output::or_dash(position);
    output::facts([("item", item_id), ("position", position)])?;
    output::line("")?;
    let value = |value: &hookpool_client::Value| value.json().to_owned();
    let Some(meta) = meta else {
        return output::table(
            ["field", "value"],
            fields.iter().map(|(name, v)| [name.clone(), value(v)]),
        );
    };
    let rows = fields.iter().map(|(name, v)| {
        let origin = meta.get(name);
        [
            name.clone(),
            value(v),
            output::or_dash(origin.map(|origin| origin.position)),
            output::or_dash(origin.map(|origin| &origin.time)),
            output::or_dash(origin.map(|origin| &origin.connector)),
            output::or_dash(origin.map(|origin| &origin.request_id)),
        ]
    });
    output::table(
        ["field", "value", "position", "time", "connector", "request"],
        rows,
    )
}

/// What is asked for, and where to look if it is not there.
fn sought(args: &ItemsGetArgs, error: Option<&Error>) -> (String, String) {
    let ItemsGetArgs { stream, id, at, .. } = args;
    let was_deleted = error
        .and_then(Error::problem)
        .is_some_and(|problem| problem.detail.is_some());
    let hint = match at {
        // Only of an item that was deleted is there more to say.
        _ if was_deleted => "`hookpool items history` shows what it was before".to_owned(),
        Some(at) => format!(
            "`hookpool items list {stream} --at {at}` shows the items of then, `hookpool items history` what happened to one"
        ),
        None => those_of(stream),
    };
    (named(stream, id), hint)
}

fn named(stream: &str, id: &str) -> String {
    format!("item {id} of {stream}")
}

fn those_of(stream: &str) -> String {
    format!("ids are case-sensitive; `hookpool items list {stream}` shows the items")
}

async fn history(args: &ItemsHistoryArgs, consumer: &Consumer) -> anyhow::Result<()> {
    let history = consumer
        .history(&args.stream, &args.id, args.after, args.limit)
        .await
        .sought(named(&args.stream, &args.id), those_of(&args.stream))?;
    if args.output.is_json() {
        return output::json(&history);
    }
    let row = |touch: Touch| {
        let changed = touch
            .fields
            .iter()
            .map(|(name, sides)| changed(name, sides));
        let changed: Vec<_> = changed.collect();
        let event = touch.event;
        let what = match event.op.as_str() {
            _ if touch.superseded => "superseded".to_owned(),
            "delete" if changed.is_empty() => "was not there".to_owned(),
            _ => changed.join(" "),
        };
        [
            event.position.to_string(),
            event.time,
            event.op,
            event.connector,
            event.request_id,
            what,
        ]
    };
    let rows = history.events.into_iter().map(row);
    output::table(
        ["position", "time", "op", "connector", "request", "changed"],
        rows,
    )?;
    if let Some(next) = history.next {
        output::say(&format!("there is more: --after {next}"));
    }
    Ok(())
}

/// `name=old->new`, with nothing where there was or is nothing.
fn changed(name: &str, Sides { old, new }: &Sides) -> String {
    let side = |value: &Option<hookpool_client::Value>| {
        let json = value.as_ref().map(hookpool_client::Value::json);
        json.unwrap_or_default().to_owned()
    };
    format!("{name}={}->{}", side(old), side(new))
}

async fn diff(args: &ItemsDiffArgs, consumer: &Consumer) -> anyhow::Result<()> {
    let mut lines = consumer.diff(&args.stream, &args.from, &args.to).await?;
    while let Some(bytes) = lines.next().await? {
        output::raw(&bytes)?;
    }
    Ok(())
}

/// `name=value` pairs, values as JSON.
pub(crate) fn one_line(fields: &Fields) -> String {
    let pairs: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", value.json()))
        .collect();
    pairs.join(" ")
}
