//! `hookpool log`: what was recorded, byte for byte if need be.

use hookpool_client::{Consumer, Event, EventPage, Operator};

use crate::{
    cli::{Globals, LogCommand, LogListArgs, LogShowArgs, OutputArgs},
    exit::Exit,
    output,
    sought::Seek as _,
};

/// The most that the server gives at once.
const PAGE: u64 = 1000;

pub(crate) async fn run(command: LogCommand, globals: &Globals) -> anyhow::Result<Exit> {
    match command {
        LogCommand::List(args) => list(&args, &globals.consumer()?).await?,
        LogCommand::Show(args) => show(&args, &globals.consumer()?).await?,
        LogCommand::Head(args) => head(&args, &globals.operator()?).await?,
    }
    Ok(Exit::Ok)
}

async fn head(args: &OutputArgs, operator: &Operator) -> anyhow::Result<()> {
    let head = operator.head().await?;
    if args.is_json() {
        return output::json(&head);
    }
    output::facts([
        ("epoch", head.epoch.to_string()),
        ("position", head.position.to_string()),
        ("digest", head.digest.to_string()),
        ("time", head.time.to_string()),
        ("public key", head.public_key.to_string()),
    ])?;
    output::say("to keep it, with its signature: --output json");
    Ok(())
}

async fn list(args: &LogListArgs, consumer: &Consumer) -> anyhow::Result<()> {
    let EventPage { events, next } = chain(args, consumer).await?;
    if args.output.is_json() {
        return output::json(&EventPage { events, next });
    }
    let facts = |event: Event| {
        let Event {
            position,
            time,
            op,
            item_id,
            connector,
            bytes,
            body,
            ..
        } = event;
        (
            [
                position.to_string(),
                time,
                op,
                item_id,
                connector,
                bytes.to_string(),
            ],
            body.unwrap_or_default(),
        )
    };
    let rows = events.into_iter().map(facts);
    if args.body {
        let rows = rows.map(|([position, time, op, item, connector, bytes], body)| {
            [position, time, op, item, connector, bytes, body]
        });
        output::table(
            [
                "position",
                "time",
                "op",
                "item",
                "connector",
                "bytes",
                "body",
            ],
            rows,
        )?;
    } else {
        let rows = rows.map(|(facts, _)| facts);
        output::table(
            ["position", "time", "op", "item", "connector", "bytes"],
            rows,
        )?;
    }
    if let Some(next) = next {
        output::say(&format!("there is more: --after {next}"));
    }
    Ok(())
}

/// As many pages as the limit asks for, as one page.
async fn chain(args: &LogListArgs, consumer: &Consumer) -> anyhow::Result<EventPage> {
    let mut all = EventPage {
        events: Vec::new(),
        next: None,
    };
    let mut after = args.after;
    loop {
        let left = args.limit.saturating_sub(all.events.len() as u64);
        if left == 0 {
            break;
        }
        let page = consumer
            .log(&args.stream, after, left.min(PAGE), args.body)
            .await?;
        all.events.extend(page.events);
        (all.next, after) = (page.next, page.next);
        if all.next.is_none() {
            break;
        }
    }
    Ok(all)
}

async fn show(args: &LogShowArgs, consumer: &Consumer) -> anyhow::Result<()> {
    let LogShowArgs {
        stream, position, ..
    } = args;
    let what = format!("position {position} of {stream}");
    let hint = format!("`hookpool log list {stream}` shows the positions of its events");
    if args.raw {
        let posted = consumer.posted(stream, *position).await;
        return output::raw(&posted.sought(what, hint)?);
    }
    let event = consumer.event(stream, *position).await;
    let event = event.sought(what, hint)?;
    if args.output.is_json() {
        return output::json(&event);
    }
    output::facts([
        ("position", event.position.to_string()),
        ("time", event.time),
        ("stream", event.stream),
        ("op", event.op),
        ("item", event.item_id),
        ("connector", event.connector),
        ("request", event.request_id),
        ("bytes", event.bytes.to_string()),
    ])?;
    output::line(&format!(
        "\n{}",
        output::printable(&event.body.unwrap_or_default())
    ))
}
