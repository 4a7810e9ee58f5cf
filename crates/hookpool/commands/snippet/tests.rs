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
        hook_url: None,
        scheme: Scheme::default(),
        id_field: Some("it's".to_owned()),
        replay: Replay::Collapse,
        created_at: String::new(),
    }
}

#[test]
fn words_are_safe_for_a_shell() {
    let curl = bash::program(&connector(None));
    assert!(
        curl.ends_with(r#"-d '{"hello":"bash","it'\''s":"first"}'"#),
        "{curl}"
    );
    assert!(!curl.contains("openssl"));
}

#[test]
fn the_body_has_its_ids_where_they_are_looked_for() {
    let body = |scheme, id_field: Option<&str>| {
        let connector = CreatedConnector {
            scheme,
            id_field: id_field.map(ToOwned::to_owned),
            ..connector(None)
        };
        body(&connector, "x")
    };
    assert_eq!(body(Scheme::Github, None), r#"{"hello":"x","id":"first"}"#);
    assert_eq!(
        body(Scheme::Github, Some("/repository/a~1b")),
        r#"{"hello":"x","repository":{"a/b":"first"}}"#
    );
    assert_eq!(
        body(Scheme::Stripe, None),
        r#"{"hello":"x","id":"evt_first_x"}"#
    );
    assert_eq!(
        body(Scheme::Slack, Some("/event/channel")),
        r#"{"event":{"channel":"first"},"event_id":"evt_first_x","hello":"x"}"#
    );
    let custom =
        serde_json::json!({"header": "X-Sig", "template": "{body}", "deliveryField": "/meta/id"});
    assert_eq!(
        body(Scheme::try_from(custom).unwrap(), Some("/meta/item")),
        r#"{"hello":"x","meta":{"id":"evt_first_x","item":"first"}}"#
    );
}

/// The shell computes what a producer computes.
#[test]
#[ignore = "needs bash, openssl and awk: tests/run"]
fn the_signed_command_signs_as_the_client_does() {
    let script =
        bash::program(&connector(Some("whsk_x"))).replace("curl -X POST", "printf '%s\\n'");
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
