//! `hookpool retention`: how much history of a stream is kept.

use hookpool_client::{Expiring, Floor, Limits, Operator, Retention};

use crate::{
    cli::{Globals, OutputArgs, RetentionCommand, RetentionSetArgs},
    exit::Exit,
    output,
};

pub(crate) async fn run(command: RetentionCommand, globals: &Globals) -> anyhow::Result<Exit> {
    let operator = globals.operator()?;
    match command {
        RetentionCommand::Show(args) => {
            print(&operator.retention(&args.stream).await?, &args.output)?;
        }
        RetentionCommand::Set(args) => return set(&args, &operator).await,
        RetentionCommand::Clear(args) => {
            print(&operator.clear_retention(&args.stream).await?, &args.output)?;
            output::say("nothing more is dropped; what is gone does not come back");
        }
    }
    Ok(Exit::Ok)
}

async fn set(args: &RetentionSetArgs, operator: &Operator) -> anyhow::Result<Exit> {
    let limits = Limits {
        max_age_seconds: args.max_age,
        max_positions: args.max_positions,
    };
    let expiring = operator.check_retention(&args.stream, limits).await?;
    if let Expiring {
        earliest: Some(Floor { position, time }),
        events,
        ..
    } = &expiring
    {
        let events = output::count(*events, "event");
        output::say(&format!(
            "at once {events} up to position {position} of {time} can't be read any more; items stay as they are"
        ));
        if !args.yes {
            output::say("nothing was changed: this is final; --yes does it");
            return Ok(Exit::Conflict);
        }
    }
    print(
        &operator.set_retention(&args.stream, limits).await?,
        &args.output,
    )?;
    Ok(Exit::Ok)
}

fn print(retention: &Retention, form: &OutputArgs) -> anyhow::Result<()> {
    if form.is_json() {
        return output::json(retention);
    }
    let limit = |limit: Option<u64>, unit: &str| match limit {
        Some(limit) => output::count(limit, unit),
        None => "no limit".to_owned(),
    };
    let earliest = retention.earliest.as_ref();
    let earliest =
        earliest.map(|Floor { position, time }| format!("position {position} of {time}"));
    let done = match (&retention.waiting, &retention.earliest, retention.dropped) {
        (Some(waiting), ..) => format!("waits: {waiting}"),
        (None, None, _) => "nothing has expired".to_owned(),
        (None, Some(_), true) => "dropped".to_owned(),
        (None, Some(_), false) => "being dropped".to_owned(),
    };
    output::facts([
        ("stream", retention.stream.clone()),
        ("max age", limit(retention.max_age_seconds, "second")),
        ("max positions", limit(retention.max_positions, "position")),
        (
            "earliest",
            earliest.unwrap_or_else(|| "the first event".to_owned()),
        ),
        ("expired", done),
        ("kept for items", output::or_dash(retention.kept)),
        ("items kept whole", retention.whole_items.to_string()),
        ("error", output::or_dash(retention.error.as_ref())),
    ])
}
