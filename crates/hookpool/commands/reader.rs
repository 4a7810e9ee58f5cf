//! `hookpool reader`: who may read.

use serde_json::json;

use super::connector::shown_once;
use crate::{
    cli::{Globals, ReaderCommand},
    exit::Exit,
    output,
    sought::Seek as _,
};

pub(crate) async fn run(command: ReaderCommand, globals: &Globals) -> anyhow::Result<Exit> {
    let operator = globals.operator()?;
    match command {
        ReaderCommand::Add(args) => {
            let created = operator.add_reader(&args.name, &args.streams).await?;
            if args.output.is_json() {
                output::json(&created)?;
            } else {
                output::facts([
                    ("reader", created.name.clone()),
                    ("streams", created.streams.join(", ")),
                    ("key id", created.key_id.clone()),
                    ("read key", created.read_key.expose().to_owned()),
                ])?;
                shown_once();
            }
        }
        ReaderCommand::List(args) => {
            let readers = operator.readers().await?;
            if args.is_json() {
                output::json(&json!({ "readers": readers }))?;
            } else {
                let rows = readers.into_iter().map(|reader| {
                    [
                        reader.name,
                        reader.streams.join(", "),
                        reader.key_id,
                        reader.created_at,
                    ]
                });
                output::table(["reader", "streams", "key id", "created"], rows)?;
            }
        }
        ReaderCommand::Revoke(args) => {
            let revoked = operator.revoke_reader(&args.name).await;
            let hint = "names are case-sensitive; `hookpool reader list` shows what there is";
            revoked.sought(format!("reader {}", args.name), hint)?;
            if args.output.is_json() {
                output::json(&json!({"name": args.name, "revoked": true}))?;
            } else {
                output::line(&format!("reader {} is revoked", args.name))?;
            }
        }
    }
    Ok(Exit::Ok)
}
