//! `hookpool projection`: the rules by which history becomes items.

use std::{io::Read as _, path::Path};

use anyhow::Context as _;
use hookpool_client::{Check, Projection};
use hookpool_core::projection::{self, Rules};

use crate::{
    cli::{Globals, ProjectionCommand, ProjectionSetArgs, ProjectionShowArgs},
    exit::Exit,
    output,
    sought::Seek as _,
};

pub(crate) async fn run(command: ProjectionCommand, globals: &Globals) -> anyhow::Result<Exit> {
    match command {
        ProjectionCommand::Show(args) => show(&args, globals).await?,
        ProjectionCommand::Set(args) => set(&args, globals).await?,
        ProjectionCommand::Schema(_) => output::raw(projection::SCHEMA.as_bytes())?,
    }
    Ok(Exit::Ok)
}

async fn show(args: &ProjectionShowArgs, globals: &Globals) -> anyhow::Result<()> {
    let operator = globals.operator()?;
    let ProjectionShowArgs {
        stream, version, ..
    } = args;
    let shown = operator.projection(stream, *version).await;
    let shown = match version {
        Some(version) => shown.sought(
            format!("version {version} of the rules of {stream}"),
            format!("`hookpool projection show {stream}` shows the newest version"),
        )?,
        None => shown?,
    };
    if args.output.is_json() {
        return output::json(&shown);
    }
    let Projection {
        version,
        live,
        projection,
        ..
    } = shown;
    let rules: Rules = serde_json::from_str(projection.get())
        .context("the server's rules are of a newer version")?;
    output::line(&format!("# version {version}; version {live} is served"))?;
    output::raw(toml::to_string(&rules)?.as_bytes())
}

async fn set(args: &ProjectionSetArgs, globals: &Globals) -> anyhow::Result<()> {
    let rules = read(&args.file)?;
    let operator = globals.operator()?;
    let check = match (&args.check_item, args.check_history, args.check) {
        (Some(id), ..) => Some(Check::Item(id)),
        (None, true, _) => Some(Check::History),
        (None, false, true) => Some(Check::Rules),
        (None, false, false) => None,
    };
    if let Some(check) = check {
        let checked = operator.check_projection(&args.stream, &rules, check);
        let checked = checked.await?;
        return match check {
            _ if args.output.is_json() => output::json(&checked),
            Check::Item(id) => print_item(id, &checked),
            Check::Rules | Check::History => print_check(&checked),
        };
    }
    let stored = operator.set_projection(&args.stream, &rules).await?;
    if args.output.is_json() {
        return output::json(&stored);
    }
    output::line(&format!("version {} is stored", stored.version))?;
    output::say(&format!(
        "nothing changes for readers yet: hookpool rebuild start {}",
        args.stream
    ));
    Ok(())
}

/// The difference as `rebuild diff` prints it.
fn print_item(id: &str, checked: &serde_json::Value) -> anyhow::Result<()> {
    let events = output::or_dash(checked.get("events"));
    let difference = checked.get("difference").filter(|it| !it.is_null());
    match difference {
        Some(difference) => output::json(difference)?,
        None => output::line(&output::printable_line(&format!("{id} would not change")))?,
    }
    output::say(&format!(
        "under these rules {events} events are of this item"
    ));
    let earliest = checked.get("earliest").and_then(serde_json::Value::as_u64);
    if let Some(floor) = earliest.filter(|floor| *floor > 0) {
        output::say(&format!(
            "events up to position {floor} expired: those that were dropped do not count, as in a rebuild"
        ));
    }
    Ok(())
}

fn print_check(checked: &serde_json::Value) -> anyhow::Result<()> {
    let Some(events) = checked.get("events") else {
        return output::line("the rules can be followed");
    };
    let unfit = checked.get("quarantined").unwrap_or_default();
    output::line(&format!(
        "the rules can be followed; of {events} events {unfit} would go to quarantine"
    ))?;
    let reasons = checked.get("reasons").and_then(serde_json::Value::as_array);
    let cell = |row: &serde_json::Value, name: &str| match row.get(name) {
        Some(serde_json::Value::String(text)) => text.clone(),
        other => output::or_dash(other),
    };
    let rows = reasons.into_iter().flatten();
    let rows: Vec<_> = rows
        .map(|row| {
            [
                cell(row, "reason"),
                cell(row, "events"),
                cell(row, "firstPosition"),
            ]
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    output::table(["reason", "events", "first position"], rows)
}

/// Rules in a file, checked here, so that an error names the line.
pub(super) fn read(file: &Path) -> anyhow::Result<serde_json::Value> {
    let text = text_of(file).with_context(|| format!("reading {}", file.display()))?;
    let is_json = file
        .extension()
        .is_some_and(|extension| extension == "json");
    let in_file = || format!("the rules in {} can't be followed", file.display());
    let rules: Rules = if is_json {
        serde_json::from_str(&text).with_context(in_file)?
    } else {
        toml::from_str(&text).with_context(in_file)?
    };
    projection::Projection::new(0, rules.clone()).with_context(in_file)?;
    Ok(serde_json::to_value(rules)?)
}

fn text_of(file: &Path) -> std::io::Result<String> {
    if file.as_os_str() != "-" {
        return std::fs::read_to_string(file);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}
