//! A tour of everything that takes or makes a secret, logged at the finest level. The fixtures search what is left of it.

use std::io::Read;

use serde_json::{Value, json};

use crate::common::canary;
use crate::common::http::Request;
use crate::common::server::{Data, Server, position};
use crate::common::{now_s, sign};

/// In what is refused, wherever it stands.
const CANARY: &str = "canary0d6f1c4e9b82a753";

#[test]
fn a_tour_under_trace_logs_leaves_no_secret_behind() {
    let data = Data::new();
    let server = Server::try_start_with(data.path(), &[("RUST_LOG", "trace")]).unwrap();
    canary::plant(data.path(), CANARY);
    let settings = json!({"stream": "sales", "signed": true});
    let connector = server.add_connector_with(&settings);
    let key = connector.signing_key.clone().unwrap();
    let (now, body) = (now_s().to_string(), br#"{"id":"a","n":1}"#);
    let signature = sign(&key, &now, body);
    canary::plant(data.path(), signature.trim_start_matches("sha256="));
    let last = position(&server.call(&connector.delivery(body)).expect(202));
    server.post(&connector, r#"{"id":"a","n":2}"#).expect(202);

    let target = connector.target();
    let post = || Request::post(&target).bearer(&connector.ingest_key);
    for request in [
        connector.delivery(format!(r#"{{"{CANARY}":}}"#).as_bytes()),
        connector.delivery(format!(r#"{{"id":"{CANARY}\u0000"}}"#).as_bytes()),
        connector.delivery(CANARY.repeat(60_000).as_bytes()),
        connector.delivery_to(&format!("{target}?idField=%zz{CANARY}"), b"{}"),
        connector.delivery_to(&format!("/api/webhook/%{CANARY}"), b"{}"),
        connector.delivery_to(&format!("{target}#{CANARY}"), b"{}"),
        post().body(format!(r#"{{"id":"{CANARY}"}}"#)),
        post().header("X-Webhook-Signature", CANARY).body("{}"),
        post().header("Bad Name", CANARY).body("{}"),
        post().header("Content-Encoding", CANARY).body("{}"),
        post().header("Expect", CANARY).body("{}"),
        Request::post(&target).bearer(CANARY).body("{}"),
        Request::post(&target)
            .bearer(&format!("ik_{}_{CANARY}", connector.key_id))
            .body("{}"),
        Request::get(&format!("/api/streams/sales/items?{CANARY}=1")).bearer(&server.operator_key),
        Request::get(&format!("/api/streams/sales/changes?ticket=tk_{CANARY}")),
    ] {
        let answer = server.call(&request);
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }

    for rotation in ["keys:rotate", "signing-keys:rotate"] {
        let target = format!("connectors/sales/{rotation}");
        server
            .admin("POST", &target, &json!({"overlapSeconds": 60}))
            .expect(200);
    }
    server.add_connector("other", false);
    let reader = server.add_reader("tour", &["sales"]);
    server.items("sales", last);
    let ticket = Request::post("/api/tickets")
        .bearer(&reader)
        .body(r#"{"streams":["sales"]}"#);
    let ticket: Value = server.call(&ticket).expect(201).json();
    let ticket = ticket["ticket"].as_str().unwrap();
    let follow = Request::get(&format!(
        "/api/streams/sales/changes?until=0&ticket={ticket}"
    ));
    let mut connection = server.connect();
    let (head, mut frames) = connection.follow(&follow).unwrap();
    assert_eq!(head.status, 200);
    frames.read_to_string(&mut String::new()).unwrap();
    for target in ["connectors", "readers", "head", "export", "followers"] {
        server.get(&format!("/api/admin/{target}")).expect(200);
    }
    let server = server.restart_with(&[("RUST_LOG", "trace")]);
    server.post(&connector, r#"{"id":"a","n":3}"#).expect(202);
    assert!(server.said().contains("TRACE"), "no trace logs");
    server.kill9();
}
