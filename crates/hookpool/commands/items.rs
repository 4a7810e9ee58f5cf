//! `hookpool items`: the pool as it is now.

use hookpool_client::{Consumer, Fields, Item, ItemPage};

use crate::{
    cli::{Globals, ItemsCommand, ItemsGetArgs, ItemsListArgs},
    exit::Exit,
    output,
};

/// The most that the server gives at once.
const PAGE: u64 = 1000;

pub(crate) async fn run(command: ItemsCommand, globals: &Globals) -> anyhow::Result<Exit> {
    let consumer = globals.consumer()?;
    match command {
        ItemsCommand::List(args) => list(&args, &consumer).await?,
        ItemsCommand::Get(args) => get(&args, &consumer).await?,
    }
    Ok(Exit::Ok)
}

async fn list(args: &ItemsListArgs, consumer: &Consumer) -> anyhow::Result<()> {
    let page = chain(consumer, &args.stream, args.limit.unwrap_or(u64::MAX)).await?;
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
async fn chain(consumer: &Consumer, stream: &str, limit: u64) -> anyhow::Result<ItemPage> {
    let mut all = consumer.items(stream, None, limit.clamp(1, PAGE)).await?;
    loop {
        let left = limit.saturating_sub(all.items.len() as u64);
        if left == 0 {
            return Ok(all);
        }
        let Some(after) = all.next.take() else {
            return Ok(all);
        };
        let page = consumer.items(stream, Some(&after), left.min(PAGE)).await?;
        all.items.extend(page.items);
        all.next = page.next;
    }
}

async fn get(args: &ItemsGetArgs, consumer: &Consumer) -> anyhow::Result<()> {
    let item = consumer.item(&args.stream, &args.id, args.meta).await?;
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
        ]
    });
    output::table(["field", "value", "position", "time", "connector"], rows)
}

/// `name=value` pairs, values as JSON.
pub(crate) fn one_line(fields: &Fields) -> String {
    let pairs: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", value.json()))
        .collect();
    pairs.join(" ")
}
