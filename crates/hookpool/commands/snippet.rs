//! Shell commands to copy: how a producer posts to a new connector.

use hookpool_client::CreatedConnector;
use serde_json::json;

/// A curl command for the connector, with signing by OpenSSL if it is signed.
pub(super) fn curl(connector: &CreatedConnector) -> String {
    let id_field = connector.id_field.as_deref().unwrap_or("id");
    let body = quoted(&json!({id_field: "first", "hello": "world"}).to_string());
    let url = quoted(&connector.url);
    let authorization = quoted(&format!(
        "Authorization: Bearer {}",
        connector.ingest_key.expose()
    ));
    let Some(signing_key) = &connector.signing_key else {
        return format!(
            "curl -X POST {url} \\\n  -H {authorization} \\\n  -H 'Content-Type: application/json' \\\n  -d {body}"
        );
    };
    let signing_key = quoted(signing_key.expose());
    format!(
        r#"BODY={body}
TIMESTAMP=$(date +%s)
SIGNATURE=$(printf '%s.%s' "$TIMESTAMP" "$BODY" | openssl dgst -sha256 -hmac {signing_key} | awk '{{print $NF}}')
curl -X POST {url} \
  -H {authorization} \
  -H 'Content-Type: application/json' \
  -H "X-Webhook-Timestamp: $TIMESTAMP" \
  -H "X-Webhook-Signature: sha256=$SIGNATURE" \
  -d "$BODY""#
    )
}

/// One word of a POSIX shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use hookpool_client::{Replay, Secret};
    use hookpool_core::sign;

    use super::*;

    fn connector(signing_key: Option<&str>) -> CreatedConnector {
        CreatedConnector {
            name: "sales".to_owned(),
            stream: "sales".to_owned(),
            key_id: "a".to_owned(),
            ingest_key: Secret::new("ik_a_b".to_owned()),
            signing_key: signing_key.map(|key| Secret::new(key.to_owned())),
            url: "http://h/api/webhook/sales".to_owned(),
            id_field: Some("it's".to_owned()),
            replay: Replay::Collapse,
            created_at: String::new(),
        }
    }

    #[test]
    fn words_are_safe_for_a_shell() {
        let curl = curl(&connector(None));
        assert!(
            curl.ends_with(r#"-d '{"hello":"world","it'\''s":"first"}'"#),
            "{curl}"
        );
        assert!(!curl.contains("openssl"));
    }

    /// The shell computes what a producer computes.
    #[test]
    #[ignore = "needs bash, openssl and awk: tests/run"]
    fn the_signed_command_signs_as_the_client_does() {
        let script = curl(&connector(Some("whsk_x"))).replace("curl -X POST", "printf '%s\\n'");
        let run = Command::new("bash").args(["-c", &script]).output().unwrap();
        let words = String::from_utf8(run.stdout).unwrap();
        let header = |name| {
            words
                .lines()
                .find_map(|word| word.strip_prefix(name))
                .unwrap()
        };
        let timestamp = header("X-Webhook-Timestamp: ").parse().unwrap();
        let body = words.lines().last().unwrap();
        assert_eq!(
            header("X-Webhook-Signature: "),
            sign::signature("whsk_x", timestamp, body.as_bytes())
        );
    }
}
