//! `hookpool quarantine`: events that fit the served projection not at all.

use crate::{
    cli::{Globals, QuarantineCommand},
    exit::Exit,
    output,
};

pub(crate) async fn run(command: QuarantineCommand, globals: &Globals) -> anyhow::Result<Exit> {
    let QuarantineCommand::List(args) = command;
    let operator = globals.operator()?;
    let found = operator
        .quarantine(&args.stream, args.after, args.limit)
        .await?;
    if args.output.is_json() {
        output::json(&found)?;
        return Ok(Exit::Ok);
    }
    let rows = found.events.iter();
    let rows = rows.map(|event| [event.position.to_string(), event.reason.clone()]);
    output::table(["position", "reason"], rows)?;
    let more = match found.next {
        Some(next) => format!("; there are more: --after {next}"),
        None => String::new(),
    };
    output::say(&format!(
        "{} in generation {}{more}",
        output::count(found.total, "event"),
        found.generation
    ));
    Ok(Exit::Ok)
}
