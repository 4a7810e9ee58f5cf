//! Only a key that is good now delivers, signed where its connector signs; all others get one 401.

use serde_json::{Value, json};

use super::Stream;
use crate::common::http::{Request, Response};
use crate::common::server::Connector;

/// The whole answer but for what may differ between two of them.
fn without_identity(response: &Response) -> (u16, Vec<(String, String)>, String) {
    let id = response.header("X-Request-Id").unwrap().to_owned();
    let varying = |name: &str| ["date", "x-request-id"].contains(&name.to_lowercase().as_str());
    let headers = response
        .headers
        .iter()
        .filter(|(name, _)| !varying(name))
        .cloned()
        .collect();
    (
        response.status,
        headers,
        response.text().replace(&id, "<id>"),
    )
}

#[test]
fn every_bad_credential_gets_the_same_401_byte_for_byte() {
    let stream = Stream::new("credentials");
    let other = Stream::signed("credentials-other");
    let revoked = Stream::new("credentials-revoked");
    let Connector { name, key_id, .. } = &revoked.connector;
    let target = format!("connectors/{name}/keys/{key_id}");
    stream
        .server()
        .admin("DELETE", &target, &json!({}))
        .expect(204);

    let key = &*stream.connector.ingest_key;
    let (id, secret) = key.strip_prefix("ik_").unwrap().split_once('_').unwrap();
    let reader = stream.server().add_reader("credentials", &["*"]);
    let to = |name: &str, authorization: &str| {
        Request::post(&format!("/api/webhook/{name}"))
            .header("Authorization", authorization)
            .body("{}")
    };
    let here = |authorization: &str| to("credentials", authorization);
    let flipped = if secret.ends_with('A') { "B" } else { "A" };
    let cases = [
        (
            "no header",
            Request::post("/api/webhook/credentials").body("{}"),
        ),
        (
            "unknown stream",
            to("credentials-nowhere", &format!("Bearer {key}")),
        ),
        (
            "key of another stream",
            here(&format!("Bearer {}", other.connector.ingest_key)),
        ),
        (
            "signed stream, other key",
            to("credentials-other", &format!("Bearer {key}")),
        ),
        (
            "revoked",
            to(name, &format!("Bearer {}", revoked.connector.ingest_key)),
        ),
        (
            "unknown id",
            here(&format!("Bearer ik_000000000000_{secret}")),
        ),
        (
            "wrong secret",
            here(&format!(
                "Bearer ik_{id}_{}{flipped}",
                &secret[..secret.len() - 1]
            )),
        ),
        ("longer secret", here(&format!("Bearer {key}A"))),
        ("no secret", here(&format!("Bearer ik_{id}_"))),
        ("other case", here(&format!("Bearer IK_{id}_{secret}"))),
        ("read key", here(&format!("Bearer {reader}"))),
        (
            "operator key",
            here(&format!("Bearer {}", stream.server().operator_key)),
        ),
        (
            "signing key",
            here(&format!(
                "Bearer {}",
                other.connector.signing_key.as_ref().unwrap()
            )),
        ),
        ("Basic", here(&format!("Basic {key}"))),
        ("no scheme", here(key)),
        ("scheme only", here("Bearer")),
        ("two keys", here(&format!("Bearer {key}, Bearer {key}"))),
        (
            "repeated",
            here(&format!("Bearer {key}\r\nAuthorization: Bearer {key}")),
        ),
        (
            "good then bad",
            here(&format!("Bearer {key}\r\nAuthorization: Bearer x")),
        ),
        (
            "key in the query",
            Request::post(&format!("/api/webhook/credentials?key={key}")).body("{}"),
        ),
        (
            "broken body too",
            to("credentials-nowhere", "Bearer x").header("X-Webhook-Signature", "x"),
        ),
    ];
    let mut first = None;
    for (case, request) in &cases {
        let answer = stream.call(request);
        assert_eq!(answer.status, 401, "{case}");
        answer.expect_problem(401, "UNAUTHORIZED");
        assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"), "{case}");
        let answer = without_identity(&answer);
        assert_eq!(
            first.get_or_insert_with(|| answer.clone()),
            &answer,
            "{case}"
        );
    }
    let mut bytes = b"Bearer ".to_vec();
    bytes.extend_from_slice(&[0xe9, 0xff]);
    let odd = Request::post("/api/webhook/credentials")
        .header("Authorization", bytes)
        .body("{}");
    assert_eq!(Some(without_identity(&stream.call(&odd))), first);
    assert!(stream.log().is_empty() && other.log().is_empty() && revoked.log().is_empty());
}

#[test]
fn a_rotated_key_works_until_its_overlap_ends_and_the_new_one_at_once() {
    let stream = Stream::new("rotation");
    let rotate = |overlap: u64| {
        let body = json!({"overlapSeconds": overlap});
        let answer = stream
            .server()
            .admin("POST", "connectors/rotation/keys:rotate", &body);
        let key = answer.expect(200).json::<Value>()["ingestKey"]
            .as_str()
            .unwrap()
            .to_owned();
        Connector {
            ingest_key: key,
            ..stream.connector.clone()
        }
    };
    let second = rotate(3600);
    stream.post("{}").expect(202);
    stream.server().post(&second, "{}").expect(202);
    let third = rotate(0);
    stream.post("{}").expect_problem(401, "UNAUTHORIZED");
    stream
        .server()
        .post(&second, "{}")
        .expect_problem(401, "UNAUTHORIZED");
    stream.server().post(&third, "{}").expect(202);
}

#[test]
fn a_disabled_connector_is_refused_until_it_is_enabled() {
    let stream = Stream::new("disabled");
    stream
        .server()
        .admin("POST", "connectors/disabled:disable", &json!({}))
        .expect(200);
    stream.post("{}").expect_problem(401, "UNAUTHORIZED");
    stream
        .server()
        .admin("POST", "connectors/disabled:enable", &json!({}))
        .expect(200);
    stream.post("{}").expect(202);
}

#[test]
fn turning_signing_on_refuses_unsigned_deliveries() {
    let stream = Stream::new("signing-on");
    stream.post("{}").expect(202);
    let target = "connectors/signing-on/signing-keys:rotate";
    let answer = stream
        .server()
        .admin("POST", target, &json!({}))
        .expect(200)
        .json::<Value>();
    let key = answer["signingKey"].as_str().unwrap().to_owned();
    assert!(key.starts_with("whsk_"));
    stream.post("{}").expect_problem(401, "SIGNATURE_INVALID");
    let with_key = Connector {
        signing_key: Some(key),
        ..stream.connector.clone()
    };
    stream.server().post(&with_key, "{}").expect(202);
}
