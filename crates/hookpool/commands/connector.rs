//! `hookpool connector`: who may write.

use std::{env, fs, io, num::NonZeroU32, path::Path};

use anyhow::Context as _;
use hookpool_client::{
    Connector, ConnectorChange, ConnectorKey, ConnectorLimits, CreatedConnector, Error,
    NewConnector, Replay, Secret,
};
use hookpool_engine::clock::Clock;
use serde_json::json;

use super::snippet;
use crate::{
    cli::{
        ConnectorAddArgs, ConnectorCommand, ConnectorSetArgs, Globals, LimitArgs, OutputArgs,
        RevokeHookArgs, SigningKeyArgs,
    },
    exit::Exit,
    output,
    sought::Seek as _,
};

pub(crate) async fn run(command: ConnectorCommand, globals: &Globals) -> anyhow::Result<Exit> {
    let operator = globals.operator()?;
    match command {
        ConnectorCommand::Add(args) => {
            let output = args.output.clone();
            let created = operator.add_connector(&new(args)?).await?;
            print_created(&created, &output)?;
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
            let revoked = operator.revoke_hook(&args.name, &args.key_id).await;
            let what = format!("hook {} of {}", args.key_id, args.name);
            revoked.sought(what, ids_of(&args.name))?;
            print_revoked(&args)?;
        }
        ConnectorCommand::RevokeSigningKey(args) => {
            let revoked = operator.revoke_signing_key(&args.name, &args.key_id).await;
            let what = format!("signing key {} of {}", args.key_id, args.name);
            revoked.sought(what, ids_of(&args.name))?;
            let left = operator.connector(&args.name).await?;
            print(&left, &args.output)?;
            if left.signing_keys.iter().all(|key| key.expires_at.is_some()) {
                output::say(
                    "note: every signing key that is left expires; make another one with rotate-signing-key",
                );
            }
        }
        ConnectorCommand::Set(args) => {
            let (name, output) = (args.name.clone(), args.output.clone());
            let now = match is_about_limits(&args) {
                true => Some(operator.connector(&name).await?.limits),
                false => None,
            };
            let changed = operator
                .change_connector(&name, &change(args, now)?)
                .await?;
            print(&changed, &output)?;
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

/// Where to look for a key id that is not there.
fn ids_of(connector: &str) -> String {
    format!("`hookpool connector show {connector}` shows its hooks and keys with their ids")
}

fn new(args: ConnectorAddArgs) -> anyhow::Result<NewConnector> {
    Ok(NewConnector {
        signing_key: given_key(&args.signing_key)?,
        stream: args.stream,
        name: args.name,
        signed: args.signed,
        id_field: args.id_field,
        replay: args.replay.into(),
        scheme: args.scheme,
        limits: args.limits.into(),
        keep_rejected: args.keep_rejected,
    })
}

fn is_about_limits(args: &ConnectorSetArgs) -> bool {
    let LimitArgs {
        events_per_second,
        burst,
        body_bytes,
        max_fields,
    } = &args.limits;
    let numbers = [events_per_second, burst, max_fields];
    args.no_limits || body_bytes.is_some() || numbers.into_iter().any(Option::is_some)
}

/// The server takes all limits at once; here those that are not named stay.
fn change(args: ConnectorSetArgs, now: Option<ConnectorLimits>) -> anyhow::Result<ConnectorChange> {
    let empty_is_none = |path: String| Some(path).filter(|path| !path.is_empty());
    let given = ConnectorLimits::from(args.limits);
    let limits = now.map(|now| {
        let now = if args.no_limits {
            ConnectorLimits::default()
        } else {
            now
        };
        ConnectorLimits {
            // A burst belongs to its rate.
            burst: match given.events_per_second {
                Some(_) => given.burst,
                None => now.burst,
            },
            events_per_second: given.events_per_second.or(now.events_per_second),
            body_bytes: given.body_bytes.or(now.body_bytes),
            fields: given.fields.or(now.fields),
        }
    });
    let change = ConnectorChange {
        id_field: args.id_field.map(empty_is_none),
        replay: args.replay.map(Into::into),
        limits,
        keep_rejected: args.keep_rejected,
    };
    let nothing = change.id_field.is_none()
        && change.replay.is_none()
        && change.limits.is_none()
        && change.keep_rejected.is_none();
    if nothing {
        let what = "nothing was said that is to change; see --help";
        return Err(Error::Invalid(what.to_owned()).into());
    }
    Ok(change)
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
    if created.replay == Replay::Collapse && !created.scheme.knows_repetitions() {
        output::say(
            "note: a delivery that comes again counts again: the scheme has neither a timestamp nor a delivery id",
        );
    }
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

fn print_revoked(
    RevokeHookArgs {
        name,
        key_id,
        output,
    }: &RevokeHookArgs,
) -> anyhow::Result<()> {
    if output.is_json() {
        return output::json(&json!({ "name": name, "keyId": key_id, "revoked": true }));
    }
    output::say(&format!("{key_id} is refused from now on"));
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
        Replay::Collapse if !connector.scheme.knows_repetitions() => {
            "each delivery counts: the scheme has neither a timestamp nor a delivery id"
        }
        Replay::Collapse => "collapse",
        Replay::Allow => "allow",
    };
    let kept = if connector.keep_rejected {
        "kept with bodies"
    } else {
        "kept without bodies"
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
        ("limits", limits(&connector.limits)),
        ("rejected", kept.to_owned()),
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
        let steps = snippet::steps(&connector.name, &connector.scheme);
        output::line(&format!("\n{steps}"))?;
    }
    Ok(())
}

fn limits(limits: &ConnectorLimits) -> String {
    let of = |limit: Option<NonZeroU32>, unit: &str| {
        limit.map(|limit| output::count(limit.get().into(), unit))
    };
    let all = [
        of(limits.events_per_second, "event").map(|events| format!("{events} a second")),
        of(limits.burst, "event").map(|events| format!("{events} at once")),
        limits
            .body_bytes
            .map(|bytes| format!("{} of body", output::count(bytes.get() as u64, "byte"))),
        of(limits.fields, "field").map(|fields| format!("{fields} of an event")),
    ];
    let all: Vec<_> = all.into_iter().flatten().collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    }
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
    let now = Clock::System.now().to_string();
    match expires_at {
        Some(expires_at) if *expires_at <= now => {
            format!("{key_id}, made {created_at}, expired {expires_at}")
        }
        Some(expires_at) => format!("{key_id}, made {created_at}, expires {expires_at}"),
        None => format!("{key_id}, made {created_at}"),
    }
}
