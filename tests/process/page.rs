//! The product page's own examples, run as files against the real server.

use std::process::Command;

use serde_json::{Value, json};

use crate::common::fold::{Field, fold};
use crate::common::program::{command, repository, succeed, tool};
use crate::common::server::{Connector, Data, Server};
use crate::common::sign;

/// The example, with the environment that the page's variables come from.
fn example(interpreter: Command, file: &str, server: &Server, connector: &Connector) -> Command {
    let mut command = interpreter;
    command
        .arg(repository("examples").join(file))
        .env("INSPIRE_URL", server.url())
        .env(
            "INSPIRE_WEBHOOK_URL",
            format!("{}{}", server.url(), connector.target()),
        )
        .env("INSPIRE_INGEST_KEY", &connector.ingest_key)
        .env("BUILD_NUMBER", "build-817")
        .env("BUILD_DURATION", "93.5");
    if let Some(key) = &connector.signing_key {
        command
            .env("SIGNING_KEY", key)
            .env("WEBHOOK_SIGNING_KEY", key);
    }
    command
}

fn bash() -> Command {
    command("bash")
}

fn node() -> Command {
    command(tool("HOOKPOOL_NODE"))
}

/// Asserts the answer that the page shows, and the item that has to come of it.
fn check(server: &Server, stream: &str, answer: &str, item_id: &str, item: &[(&str, Field)]) {
    let expected = json!({"status": "accepted", "itemId": item_id, "fieldsUpdated": item.len()});
    assert_eq!(serde_json::from_str::<Value>(answer).unwrap(), expected);

    let events = server.log(stream);
    assert_eq!(events.len(), 1);
    let (_, pool) = server.items(stream, events[0].position);
    assert_eq!(pool, fold(&events));
    let item = item
        .iter()
        .map(|(name, field)| ((*name).to_owned(), field.clone()))
        .collect();
    assert_eq!(pool[item_id], item);
}

fn string(text: &str) -> Field {
    Field::String(text.to_owned())
}

fn verbatim(text: &str) -> Field {
    Field::Verbatim(text.to_owned())
}

#[test]
fn our_own_signer_agrees_with_the_golden_vector() {
    let body = br#"{"region":"North","sales":142000}"#;
    assert_eq!(
        sign("whsk_your_signing_key_here", "1700000000", body),
        "sha256=65bf7c973453b208f75bc0c018c6d7afad6ac71ec5f7b3fd40c16bbfe5a4a02e"
    );
}

#[test]
#[ignore = "needs openssl: tests/run"]
fn openssl_agrees_with_the_golden_vector() {
    let line = r#"printf '%s.%s' 1700000000 '{"region":"North","sales":142000}' \
        | openssl dgst -sha256 -hmac whsk_your_signing_key_here | awk '{print $2}'"#;
    let digest = succeed(bash().args(["-o", "pipefail", "-c", line]));
    assert_eq!(
        digest.trim_end(),
        "65bf7c973453b208f75bc0c018c6d7afad6ac71ec5f7b3fd40c16bbfe5a4a02e"
    );
}

#[test]
#[ignore = "needs curl: tests/run"]
fn the_curl_example_upserts_the_item_keyed_by_region() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("sales", false);
    let answer = succeed(&mut example(bash(), "curl.sh", &server, &connector));
    let item = [("region", string("North")), ("sales", verbatim("142000"))];
    check(&server, "sales", &answer, "North", &item);
}

#[test]
#[ignore = "needs curl and openssl: tests/run"]
fn the_signed_bash_example_is_accepted() {
    let data = Data::new();
    let server = data.serve();
    let settings = json!({"stream": "sales", "signed": true, "idField": "region"});
    let connector = server.add_connector_with(&settings);
    let answer = succeed(&mut example(bash(), "signed.sh", &server, &connector));
    let item = [("region", string("North")), ("sales", verbatim("142000"))];
    check(&server, "sales", &answer, "North", &item);
}

#[test]
#[ignore = "needs node: tests/run"]
fn the_signed_node_example_is_accepted() {
    let data = Data::new();
    let server = data.serve();
    let settings = json!({"stream": "sales", "signed": true, "idField": "region"});
    let connector = server.add_connector_with(&settings);
    let answer = succeed(&mut example(node(), "signed.mjs", &server, &connector));
    let item = [("region", string("North")), ("sales", verbatim("142000"))];
    check(&server, "sales", &answer, "North", &item);
}

#[test]
#[ignore = "needs node: tests/run"]
fn the_signed_node_example_is_refused_under_another_signing_key() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("sales", true);
    let mut other = example(node(), "signed.mjs", &server, &connector);
    other.env("WEBHOOK_SIGNING_KEY", "whsk_your_signing_key_here");
    let output = other.output().unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("SIGNATURE_INVALID"),
        "{output:?}"
    );
    assert!(server.log("sales").is_empty());
}

#[test]
#[ignore = "needs curl: tests/run"]
fn the_pipeline_example_upserts_the_item_keyed_by_build() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("builds", false);
    let answer = succeed(&mut example(bash(), "ci-pipeline.sh", &server, &connector));
    let item = [
        ("build", string("build-817")),
        ("status", string("deployed")),
        ("durationSeconds", verbatim("93.5")),
    ];
    check(&server, "builds", &answer, "build-817", &item);
}

#[test]
#[ignore = "needs node: tests/run"]
fn the_metrics_example_upserts_the_item_keyed_by_service() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("app-metrics", false);
    let answer = succeed(&mut example(node(), "app-metrics.mjs", &server, &connector));
    let item = [
        ("service", string("api-gateway")),
        ("requestsPerMinute", verbatim("340")),
        ("errorRate", verbatim("0.02")),
    ];
    check(&server, "app-metrics", &answer, "api-gateway", &item);
}
