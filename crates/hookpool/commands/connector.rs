//! `hookpool connector`: who may write.

use std::{env, fs, io, path::Path};

use anyhow::Context as _;
use hookpool_client::{
    Connector, ConnectorChange, ConnectorKey, CreatedConnector, NewConnector, Replay, Secret,
};
use serde_json::json;

use super::snippet;
use crate::{
    cli::{ConnectorAddArgs, ConnectorCommand, Globals, OutputArgs, SigningKeyArgs},
    exit::Exit,
    output,
};

pub(crate) async fn run(command: ConnectorCommand, globals: &Globals) -> anyhow::Result<Exit> {
    let operator = globals.operator()?;
    match command {
        ConnectorCommand::Add(args) => {
            let created = operator.add_connector(&new(&args)?).await?;
            print_created(&created, &args.output)?;
        }
        ConnectorCommand::List(args) => print_list(&operator.connectors().await?, &args)?,
        ConnectorCommand::Show(args) => {
            print(&operator.connector(&args.name).await?, &args.output)?;
        }
        ConnectorCommand::RotateKey(args) => {
            let rotated = operator.rotate_key(&args.name, args.overlap).await?;
            let secret = ("ingest key", &rotated.ingest_key);
            let facts = [
                ("connector", &rotated.name),
                ("stream", &rotated.stream),
                ("key id", &rotated.key_id),
            ];
            print_rotated(&rotated, facts, secret, &args.output)?;
        }
        ConnectorCommand::RotateSigningKey(args) => {
            let given = given_key(&args.signing_key)?;
            let args = args.rotate;
            let rotated = operator
                .rotate_signing_key(&args.name, given.as_ref(), args.overlap)
                .await?;
            let secret = ("signing key", &rotated.signing_key);
            let facts = [
                ("connector", &rotated.name),
                ("stream", &rotated.stream),
                ("key id", &rotated.key_id),
            ];
            print_rotated(&rotated, facts, secret, &args.output)?;
        }
        ConnectorCommand::RotateHook(args) => {
            let rotated = operator.rotate_hook(&args.name, args.overlap).await?;
            let secret = ("hook url", &rotated.hook_url);
            let facts = [
                ("connector", &rotated.name),
                ("stream", &rotated.stream),
                ("key id", &rotated.key_id),
            ];
            print_rotated(&rotated, facts, secret, &args.output)?;
        }
        ConnectorCommand::RevokeHook(args) => {
            operator.revoke_hook(&args.name, &args.key_id).await?;
        }
        ConnectorCommand::Set(args) => {
            let empty_is_none = |path: String| Some(path).filter(|path| !path.is_empty());
            let change = ConnectorChange {
                id_field: args.id_field.map(empty_is_none),
                replay: args.replay.map(Into::into),
            };
            let changed = operator.change_connector(&args.name, &change).await?;
            print(&changed, &args.output)?;
        }
        ConnectorCommand::Disable(args) => {
            print(&operator.disable_connector(&args.name).await?, &args.output)?;
        }
        ConnectorCommand::Enable(args) => {
            print(&operator.enable_connector(&args.name).await?, &args.output)?;
        }
    }
    Ok(Exit::Ok)
}

fn new(args: &ConnectorAddArgs) -> anyhow::Result<NewConnector> {
    Ok(NewConnector {
        stream: args.stream.clone(),
        name: args.name.clone(),
        signed: args.signed,
        id_field: args.id_field.clone(),
        replay: args.replay.into(),
        scheme: args.scheme.clone(),
        signing_key: given_key(&args.signing_key)?,
    })
}

/// The sender's own signing key, without the line end that editors and pipes put behind it.
fn given_key(args: &SigningKeyArgs) -> anyhow::Result<Option<Secret>> {
    let text = match (&args.signing_key_file, &args.signing_key_env) {
        (Some(file), _) if file == Path::new("-") => {
            io::read_to_string(io::stdin()).context("reading standard input")?
        }
        (Some(file), _) => {
            fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?
        }
        (None, Some(name)) => {
            env::var(name).with_context(|| format!("reading the variable {name}"))?
        }
        (None, None) => return Ok(None),
    };
    let key = text.trim_end_matches(['\r', '\n']);
    Ok(Some(Secret::new(key.to_owned())))
}

fn print_created(created: &CreatedConnector, args: &OutputArgs) -> anyhow::Result<()> {
    if args.is_json() {
        return output::json(created);
    }
    let signing_key = created
        .signing_key
        .as_ref()
        .map_or("none: deliveries need no signature", Secret::expose);
    let hook = created.hook_url.as_ref().map(Secret::expose);
    let facts = [
        ("connector", created.name.clone()),
        ("stream", created.stream.clone()),
        ("url", created.url.clone()),
        ("key id", created.key_id.clone()),
        ("ingest key", created.ingest_key.expose().to_owned()),
        ("signing key", signing_key.to_owned()),
    ];
    let of_scheme = hook.map(|hook| {
        [
            ("scheme", created.scheme.to_string()),
            ("hook url", hook.to_owned()),
        ]
    });
    output::facts(facts.into_iter().chain(of_scheme.into_iter().flatten()))?;
    shown_once();
    output::line(&snippet::first_event(created))
}

fn print_rotated(
    rotated: &impl serde::Serialize,
    facts: [(&str, &String); 3],
    (name, secret): (&str, &Secret),
    args: &OutputArgs,
) -> anyhow::Result<()> {
    if args.is_json() {
        return output::json(rotated);
    }
    let facts = facts.map(|(name, value)| (name, value.clone()));
    output::facts(
        facts
            .into_iter()
            .chain([(name, secret.expose().to_owned())]),
    )?;
    shown_once();
    Ok(())
}

pub(super) fn shown_once() {
    output::say("Secrets are shown this once: keep them now.");
}

fn print_list(connectors: &[Connector], args: &OutputArgs) -> anyhow::Result<()> {
    if args.is_json() {
        return output::json(&json!({ "connectors": connectors }));
    }
    let rows = connectors.iter().map(|connector| {
        [
            connector.name.clone(),
            connector.stream.clone(),
            state(connector).to_owned(),
            signing(connector).to_owned(),
            connector.keys.len().to_string(),
            connector.created_at.clone(),
        ]
    });
    output::table(
        ["connector", "stream", "state", "signing", "keys", "created"],
        rows,
    )
}

fn print(connector: &Connector, args: &OutputArgs) -> anyhow::Result<()> {
    if args.is_json() {
        return output::json(connector);
    }
    let replay = match connector.replay {
        Replay::Collapse => "collapse",
        Replay::Allow => "allow",
    };
    let facts = [
        ("connector", connector.name.clone()),
        ("stream", connector.stream.clone()),
        ("state", state(connector).to_owned()),
        ("signing", signing(connector).to_owned()),
        ("scheme", connector.scheme.to_string()),
        (
            "id field",
            connector
                .id_field
                .clone()
                .unwrap_or_else(|| "id".to_owned()),
        ),
        ("replay", replay.to_owned()),
        ("created", connector.created_at.clone()),
    ];
    let keys = connector.keys.iter().map(|key| ("ingest key", told(key)));
    let signing_keys = connector
        .signing_keys
        .iter()
        .map(|key| ("signing key", told(key)));
    let hooks = connector.hooks.iter().map(|hook| ("hook", told(hook)));
    let facts = facts.into_iter().chain(keys).chain(hooks);
    output::facts(facts.chain(signing_keys))?;
    if !connector.hooks.is_empty() {
        output::line(&format!("\n{}", snippet::steps(&connector.scheme)))?;
    }
    Ok(())
}

fn state(connector: &Connector) -> &'static str {
    if connector.enabled {
        "enabled"
    } else {
        "disabled"
    }
}

fn signing(connector: &Connector) -> &'static str {
    if connector.signing_keys.is_empty() {
        "unsigned"
    } else {
        "signed"
    }
}

fn told(
    ConnectorKey {
        key_id,
        created_at,
        expires_at,
    }: &ConnectorKey,
) -> String {
    match expires_at {
        Some(expires_at) => format!("{key_id}, made {created_at}, expires {expires_at}"),
        None => format!("{key_id}, made {created_at}"),
    }
}
