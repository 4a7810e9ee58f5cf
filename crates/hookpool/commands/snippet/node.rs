//! Node 18 and newer, without packages.

use hookpool_client::CreatedConnector;
use hookpool_core::scheme::{Encoding, KeyForm};
use serde_json::json;

use super::{Piece, Plan, joined};

pub(super) fn program(connector: &CreatedConnector) -> String {
    let plan = Plan::new(connector, "node");
    let mut program = format!("const body = {}\n", json!(plan.body));
    if let Some(signing) = &plan.signing {
        let mut lines = vec!["import { createHmac, randomUUID } from 'node:crypto'\n".to_owned()];
        let key = signing.key.expose();
        lines.push(match signing.form {
            KeyForm::Text(_) => format!("const key = {}\n", json!(key)),
            KeyForm::Base64(prefix) => format!(
                "const key = Buffer.from({}, 'base64')\n",
                json!(key.strip_prefix(prefix).unwrap_or(key))
            ),
        });
        if signing.has_id {
            lines.push("const id = 'msg_' + randomUUID()\n".to_owned());
        }
        if signing.has_timestamp {
            lines.push("const timestamp = String(Math.floor(Date.now() / 1000))\n".to_owned());
        }
        let encoding = match signing.encoding {
            Encoding::Hex => "hex",
            Encoding::Base64 => "base64",
        };
        let signed = joined(&signing.signed, variable);
        let signature = format!(
            "const signature = createHmac('sha256', key).update({signed}).digest('{encoding}')\n"
        );
        program = format!("{}{program}{signature}", lines.concat());
    }
    let header = |(name, value): &(String, Vec<Piece>)| {
        format!("    {}: {},\n", json!(name), joined(value, variable))
    };
    let headers: String = plan.headers.iter().map(header).collect();
    let url = json!(plan.url);
    program.push_str(&format!(
        "const response = await fetch({url}, {{\n  method: 'POST',\n  headers: {{\n{headers}  }},\n  body,\n}})\n\
         console.log(response.status, await response.text())"
    ));
    program
}

fn variable(piece: &Piece) -> &'static str {
    match piece {
        Piece::Timestamp => "timestamp",
        Piece::Id => "id",
        Piece::Body => "body",
        Piece::Signature | Piece::Text(_) => "signature",
    }
}
