//! curl and, where deliveries are signed, OpenSSL.

use hookpool_client::CreatedConnector;
use hookpool_core::scheme::{Encoding, KeyForm};

use super::{Piece, Plan, Signing};

pub(super) fn program(connector: &CreatedConnector) -> String {
    let plan = Plan::new(connector, "bash");
    let mut program = String::new();
    let data = match &plan.signing {
        None => quoted(&plan.body),
        Some(signing) => {
            program = format!("BODY={}\n", quoted(&plan.body));
            if signing.has_id {
                program.push_str("ID=msg_$(openssl rand -hex 12)\n");
            }
            if signing.has_timestamp {
                program.push_str("TIMESTAMP=$(date +%s)\n");
            }
            program.push_str(&sign(signing));
            "\"$BODY\"".to_owned()
        }
    };
    program.push_str(&format!("curl -X POST {} \\\n", quoted(plan.url)));
    for (name, value) in &plan.headers {
        let text = Piece::Text(format!("{name}: "));
        let value = word(std::iter::once(&text).chain(value));
        program.push_str(&format!("  -H {value} \\\n"));
    }
    program.push_str(&format!("  -d {data}"));
    program
}

fn sign(signing: &Signing<'_>) -> String {
    let key = match signing.form {
        KeyForm::Text(_) => format!("-hmac {}", quoted(signing.key.expose())),
        KeyForm::Base64(prefix) => {
            let key = signing.key.expose();
            let base64 = quoted(key.strip_prefix(prefix).unwrap_or(key));
            format!(
                "-mac HMAC -macopt hexkey:$(printf '%s' {base64} | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \\n')"
            )
        }
    };
    let written = match signing.encoding {
        Encoding::Hex => "| awk '{print $NF}'",
        Encoding::Base64 => "-binary | openssl base64 -A",
    };
    let signed = word(signing.signed.iter());
    format!("SIGNATURE=$(printf '%s' {signed} | openssl dgst -sha256 {key} {written})\n")
}

/// One word of the shell: texts in single quotes, variables in double ones.
fn word<'a>(pieces: impl Iterator<Item = &'a Piece>) -> String {
    let mut word = String::new();
    let mut text = String::new();
    for piece in pieces {
        let variable = match piece {
            Piece::Text(more) => {
                text.push_str(more);
                continue;
            }
            Piece::Timestamp => "\"$TIMESTAMP\"",
            Piece::Id => "\"$ID\"",
            Piece::Body => "\"$BODY\"",
            Piece::Signature => "\"$SIGNATURE\"",
        };
        if !text.is_empty() {
            word.push_str(&quoted(&std::mem::take(&mut text)));
        }
        word.push_str(variable);
    }
    if !text.is_empty() {
        word.push_str(&quoted(&text));
    }
    word
}

/// One word of a POSIX shell, whatever is in it.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
