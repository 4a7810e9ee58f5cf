//! Python 3, without packages.

use hookpool_client::CreatedConnector;
use hookpool_core::scheme::{Encoding, KeyForm};
use serde_json::json;

use super::{Piece, Plan, joined};

pub(super) fn program(connector: &CreatedConnector) -> String {
    let plan = Plan::new(connector, "python");
    let mut program =
        "import base64, hashlib, hmac, time, urllib.error, urllib.request, uuid\n\n".to_owned();
    program.push_str(&format!("body = {}\n", json!(plan.body)));
    if let Some(signing) = &plan.signing {
        let key = signing.key.expose();
        program.push_str(&match signing.form {
            KeyForm::Text(_) => format!("key = {}.encode()\n", json!(key)),
            KeyForm::Base64(prefix) => format!(
                "key = base64.b64decode({})\n",
                json!(key.strip_prefix(prefix).unwrap_or(key))
            ),
        });
        if signing.has_id {
            program.push_str("id = \"msg_\" + uuid.uuid4().hex\n");
        }
        if signing.has_timestamp {
            program.push_str("timestamp = str(int(time.time()))\n");
        }
        let signed = joined(&signing.signed, variable);
        program.push_str(&format!(
            "mac = hmac.new(key, ({signed}).encode(), hashlib.sha256)\n"
        ));
        program.push_str(match signing.encoding {
            Encoding::Hex => "signature = mac.hexdigest()\n",
            Encoding::Base64 => "signature = base64.b64encode(mac.digest()).decode()\n",
        });
    }
    let header = |(name, value): &(String, Vec<Piece>)| {
        format!("    {}: {},\n", json!(name), joined(value, variable))
    };
    let headers: String = plan.headers.iter().map(header).collect();
    let url = json!(plan.url);
    program.push_str(&format!(
        "request = urllib.request.Request({url}, body.encode(), {{\n{headers}}})\n\
         try:\n    with urllib.request.urlopen(request) as response:\n        print(response.status, response.read().decode())\n\
         except urllib.error.HTTPError as error:\n    print(error.code, error.read().decode())"
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
