//! `hookpool operator`: who may operate.

use serde_json::json;

use super::connector::shown_once;
use crate::{
    cli::{Globals, OperatorCommand},
    config::Flags,
    exit::Exit,
    operator::recover,
    output,
    sought::Seek as _,
};

pub(crate) async fn run(command: OperatorCommand, globals: &Globals) -> anyhow::Result<Exit> {
    match command {
        OperatorCommand::Add(args) => {
            let created = globals.operator()?.add_operator(&args.name).await?;
            if args.output.is_json() {
                output::json(&created)?;
            } else {
                output::facts([
                    ("operator", created.name.clone()),
                    ("key id", created.key_id.clone()),
                    ("operator key", created.operator_key.expose().to_owned()),
                ])?;
                shown_once();
            }
        }
        OperatorCommand::List(args) => {
            let operators = globals.operator()?.operators().await?;
            if args.is_json() {
                output::json(&json!({ "operators": operators }))?;
            } else {
                let rows = operators.into_iter().map(|operator| {
                    let name = operator.name.unwrap_or_else(|| "(none)".to_owned());
                    [name, operator.key_id, operator.created_at]
                });
                output::table(["operator", "key id", "created"], rows)?;
            }
        }
        OperatorCommand::Revoke(args) => {
            let revoked = globals.operator()?.revoke_operator(&args.key_id).await;
            let hint = "`hookpool operator list` shows the key ids, which are the part of a key between ok_ and the next _";
            revoked.sought(format!("operator key {}", args.key_id), hint)?;
            if args.output.is_json() {
                output::json(&json!({"keyId": args.key_id, "revoked": true}))?;
            } else {
                output::line(&format!("operator key {} is revoked", args.key_id))?;
            }
        }
        OperatorCommand::Recover(args) => {
            return recover(&args, globals.settings(&Flags::default())?).await;
        }
    }
    Ok(Exit::Ok)
}
