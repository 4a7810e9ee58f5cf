//! One signing key of several is taken away, and no other one.

use serde_json::{Value, json};

use super::{Made, add, to_hook};
use crate::common::http::Request;
use crate::common::now_s;
use crate::common::program::{both, hookpool, output_within};
use crate::common::server::{Data, Server};
use crate::common::signer::headers;

use std::process::Output;
use std::time::Duration;

const FIRST: &str = "whsec_of-the-sender-1";
const SECOND: &str = "whsec_of-the-sender-2";

fn rotate(server: &Server, key: &str, overlap: u64) -> String {
    let body = json!({"signingKey": key, "overlapSeconds": overlap});
    let answer = server.admin("POST", "connectors/pay/signing-keys:rotate", &body);
    let rotated: Value = answer.expect(200).json();
    rotated["keyId"].as_str().unwrap().to_owned()
}

/// Ids of the signing keys, and whether each expires.
fn listed(server: &Server) -> Vec<(String, bool)> {
    let answer = server.get("/api/admin/connectors/pay").expect(200);
    assert!(!answer.text().contains("whsec"), "{answer:?}");
    let connector: Value = answer.json();
    let one = |key: &Value| {
        assert!(key["createdAt"].is_string());
        let id = key["keyId"].as_str().unwrap().to_owned();
        (id, key["expiresAt"].is_string())
    };
    connector["signingKeys"]
        .as_array()
        .unwrap()
        .iter()
        .map(one)
        .collect()
}

fn revoke(server: &Server, id: &str) -> crate::common::http::Response {
    server.admin(
        "DELETE",
        &format!("connectors/pay/signing-keys/{id}"),
        &Value::Null,
    )
}

fn pay(server: &Server) -> Made {
    add(
        server,
        &json!({"stream": "pay", "scheme": "stripe", "signingKey": FIRST}),
    )
}

fn send(server: &Server, made: &Made, key: &str, n: u32) -> u16 {
    let body = format!(r#"{{"id":"evt_{n}"}}"#);
    let signed = headers("stripe", key, "", now_s(), body.as_bytes());
    server.call(&to_hook(made, &signed, &body)).status
}

#[test]
fn a_revoked_signing_key_stops_at_once_and_the_others_go_on() {
    let data = Data::new();
    let server = data.serve();
    let made = pay(&server);
    let first = listed(&server)[0].0.clone();
    let second = rotate(&server, SECOND, 600);
    assert_eq!(
        listed(&server),
        [(first.clone(), true), (second.clone(), false)]
    );
    assert_eq!(
        (
            send(&server, &made, FIRST, 1),
            send(&server, &made, SECOND, 2)
        ),
        (202, 202)
    );
    revoke(&server, &first).expect(204);
    assert_eq!(
        (
            send(&server, &made, FIRST, 3),
            send(&server, &made, SECOND, 4)
        ),
        (401, 202)
    );
    revoke(&server, &first).expect_problem(404, "NOT_FOUND");
    revoke(&server, "000000000000").expect_problem(404, "NOT_FOUND");
    let foreign = add(&server, &json!({"stream": "other", "scheme": "stripe"}));
    let of_other: Value = server.get("/api/admin/connectors/other").expect(200).json();
    let id = of_other["signingKeys"][0]["keyId"].as_str().unwrap();
    revoke(&server, id).expect_problem(404, "NOT_FOUND");
    assert_eq!(send(&server, &foreign, foreign.key(), 5), 202);

    let server = server.restart();
    assert_eq!(
        (
            send(&server, &made, FIRST, 6),
            send(&server, &made, SECOND, 7)
        ),
        (401, 202)
    );
    assert_eq!(listed(&server), [(second, false)]);
}

#[test]
fn the_last_signing_key_that_counts_is_not_revoked() {
    let data = Data::new();
    let server = data.serve();
    let made = pay(&server);
    let only = listed(&server)[0].0.clone();
    let refused = revoke(&server, &only);
    refused.expect_problem(409, "CONFLICT");
    assert!(refused.text().contains("last signing key"), "{refused:?}");
    // What was rotated away without an overlap counts no more, so it is not another one.
    let second = rotate(&server, SECOND, 0);
    revoke(&server, &second).expect_problem(409, "CONFLICT");
    assert_eq!(
        (
            send(&server, &made, FIRST, 1),
            send(&server, &made, SECOND, 2)
        ),
        (401, 202)
    );
    revoke(&server, &only).expect(204);
    revoke(&server, &second).expect_problem(409, "CONFLICT");
    assert_eq!(send(&server, &made, SECOND, 3), 202);
}

/// What was signed with a key that is taken away while the body comes is as good as forged.
#[test]
fn a_key_that_is_revoked_while_the_body_is_on_its_way_does_not_count() {
    let data = Data::new();
    let server = data.serve();
    let made = pay(&server);
    let first = listed(&server)[0].0.clone();
    rotate(&server, SECOND, 600);
    let body = br#"{"id":"evt_1"}"#;
    let signed = headers("stripe", FIRST, "", now_s(), body);
    let request = signed
        .iter()
        .fold(Request::post(made.hook()), |request, (name, value)| {
            request.header(name, value)
        });
    let request = request.body(body);
    let mut connection = server.connect();
    connection.begin(&request);
    revoke(&server, &first).expect(204);
    let refused = connection.finish(&request);
    refused.expect_problem(401, "SIGNATURE_INVALID");
    assert!(server.log("pay").is_empty());
}

fn connector(server: &Server, data: &Data, args: &[&str]) -> Output {
    let mut command = hookpool();
    command
        .arg("connector")
        .args(args)
        .args(["--server", &server.url()]);
    command
        .arg("--operator-key-file")
        .arg(data.path().join("operator.key"));
    output_within(Duration::from_secs(60), &mut command)
}

#[test]
fn the_command_line_lists_signing_keys_and_revokes_one() {
    let data = Data::new();
    let server = data.serve();
    pay(&server);
    let first = listed(&server)[0].0.clone();
    let refused = connector(&server, &data, &["revoke-signing-key", "pay", &first]);
    assert!(!refused.status.success());
    assert!(
        both(&refused).contains("last signing key"),
        "{}",
        both(&refused)
    );
    let second = rotate(&server, SECOND, 0);
    let third = rotate(&server, "whsec_of-the-sender-3", 600);
    let shown = both(&connector(&server, &data, &["show", "pay"]));
    let line = |id: &str| {
        let mut lines = shown.lines();
        lines
            .find(|line| line.starts_with("signing key") && line.contains(id))
            .unwrap()
            .to_owned()
    };
    assert!(line(&first).contains(", expired "), "{shown}");
    assert!(line(&second).contains(", expires "), "{shown}");
    assert!(!line(&third).contains("expire"), "{shown}");
    assert!(!shown.contains("whsec_of-the-sender"), "{shown}");
    let revoked = connector(&server, &data, &["revoke-signing-key", "pay", &third]);
    assert!(revoked.status.success(), "{}", both(&revoked));
    let said = both(&revoked);
    assert!(said.contains(&second) && !said.contains(&third), "{said}");
    assert!(
        said.contains("note: every signing key that is left expires"),
        "{said}"
    );
}
