//! `hookpool connector`: who may write.

use hookpool_client::{Connector, ConnectorKey, CreatedConnector, NewConnector, Replay, Secret};
use serde_json::json;

use super::snippet;
use crate::{
    cli::{ConnectorAddArgs, ConnectorCommand, Globals, OutputArgs},
    exit::Exit,
    output,
};

pub(crate) async fn run(command: ConnectorCommand, globals: &Globals) -> anyhow::Result<Exit> {
    let operator = globals.operator()?;
    match command {
        ConnectorCommand::Add(args) => {
            let created = operator.add_connector(&new(&args)).await?;
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
            let rotated = operator
                .rotate_signing_key(&args.name, args.overlap)
                .await?;
            let secret = ("signing key", &rotated.signing_key);
            let facts = [
                ("connector", &rotated.name),
                ("stream", &rotated.stream),
                ("key id", &rotated.key_id),
            ];
            print_rotated(&rotated, facts, secret, &args.output)?;
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

fn new(args: &ConnectorAddArgs) -> NewConnector {
    NewConnector {
        stream: args.stream.clone(),
        name: args.name.clone(),
        signed: args.signed,
        id_field: args.id_field.clone(),
        replay: args.replay.into(),
    }
}

fn print_created(created: &CreatedConnector, args: &OutputArgs) -> anyhow::Result<()> {
    if args.is_json() {
        return output::json(created);
    }
    let signing_key = created
        .signing_key
        .as_ref()
        .map_or("none: deliveries need no signature", Secret::expose);
    output::facts([
        ("connector", created.name.clone()),
        ("stream", created.stream.clone()),
        ("url", created.url.clone()),
        ("key id", created.key_id.clone()),
        ("ingest key", created.ingest_key.expose().to_owned()),
        ("signing key", signing_key.to_owned()),
    ])?;
    shown_once();
    output::line(&format!(
        "\nSend a first event:\n\n{}",
        snippet::curl(created)
    ))
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
    output::facts(facts.into_iter().chain(keys).chain(signing_keys))
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
