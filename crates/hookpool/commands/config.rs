//! `hookpool config`: what is set, and whether it makes sense.

use serde_json::{Value, json};

use crate::{
    cli::{ConfigCheckArgs, ConfigCommand, ConfigShowArgs, Globals},
    config::{Invalid, KEYS},
    exit::Exit,
    output,
};

pub(crate) fn run(command: ConfigCommand, globals: &Globals) -> anyhow::Result<Exit> {
    match command {
        ConfigCommand::Show(args) => show(&args, globals),
        ConfigCommand::Check(args) => check(&args, globals),
    }
}

fn show(args: &ConfigShowArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let layers = globals.layers(&args.flags)?;
    let values = || {
        KEYS.iter().map(|key| match layers.get(key) {
            Some((value, origin)) => (key, Some(value), origin.to_string()),
            None => (key, None, "not set".to_owned()),
        })
    };
    if args.output.is_json() {
        let settings: Vec<_> = values()
            .map(|(key, value, origin)| match args.origin {
                true => json!({"key": key.name, "value": typed(value), "origin": origin}),
                false => json!({"key": key.name, "value": typed(value)}),
            })
            .collect();
        output::json(&json!({ "settings": settings }))?;
    } else if args.origin {
        let rows = values()
            .map(|(key, value, origin)| [key.name.to_owned(), output::or_dash(value), origin]);
        output::table(["setting", "value", "origin"], rows)?;
    } else {
        let rows = values().map(|(key, value, _)| {
            [
                key.name.to_owned(),
                output::or_dash(value),
                key.doc.to_owned(),
            ]
        });
        output::table(["setting", "value", "meaning"], rows)?;
    }
    Ok(Exit::Ok)
}

/// Numbers as numbers, as they stand in the file.
fn typed(value: Option<&String>) -> Value {
    match value {
        Some(text) => text
            .parse::<u64>()
            .map_or_else(|_| json!(text), Value::from),
        None => Value::Null,
    }
}

fn check(args: &ConfigCheckArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let checked = globals
        .layers(&args.flags)
        .and_then(|layers| layers.settings());
    let wrong = checked.err().map_or_else(Vec::new, |Invalid(wrong)| wrong);
    let valid = wrong.is_empty();
    if args.output.is_json() {
        output::json(&json!({"valid": valid, "problems": wrong}))?;
    } else if valid {
        output::line("the configuration is valid")?;
    } else {
        wrong
            .iter()
            .try_for_each(|sentence| output::line(sentence))?;
    }
    Ok(if valid { Exit::Ok } else { Exit::Failure })
}
