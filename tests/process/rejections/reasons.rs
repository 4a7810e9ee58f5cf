//! Each reason of a refusal is told to operators, and nothing of it to senders.

use serde_json::{Value, json};

use super::{BODY, hook_of, refused, rejection, webhook};
use crate::common::http::Request;
use crate::common::server::{Data, Server};
use crate::common::{now_s, sign};

fn listed(server: &Server, query: &str) -> Vec<Value> {
    let page: Value = server
        .get(&format!("/api/admin/rejections?{query}"))
        .expect(200)
        .json();
    page["rejections"].as_array().unwrap().clone()
}

#[test]
fn a_refused_credential_is_told_to_operators_and_one_answer_to_senders() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    let other = server.add_connector("other", false);
    let off = server.add_connector("off", false);
    let hooked = json!({"stream": "hooked", "scheme": "hookpool"});
    let hooked: Value = server
        .admin("POST", "connectors", &hooked)
        .expect(201)
        .json();
    let old = sales.ingest_key;
    let new: Value = server
        .admin("POST", "connectors/sales/keys:rotate", &json!({}))
        .expect(200)
        .json();
    let new = new["ingestKey"].as_str().unwrap().to_owned();
    let gone = format!("connectors/other/keys/{}", other.key_id);
    server.admin("DELETE", &gone, &json!({})).expect(204);
    server
        .admin("POST", "connectors/off:disable", &json!({}))
        .expect(200);
    let reader = server.add_reader("reader", &["sales"]);
    let hook = hook_of(&hooked);
    let cases = [
        (
            Request::post("/api/webhook/sales").body("{}"),
            "missing-key",
            None,
        ),
        (webhook("sesame").body("{}"), "malformed-key", None),
        (
            webhook("ik_000000000000_nothing").body("{}"),
            "unknown-key",
            None,
        ),
        (
            webhook(&format!("{new}x")).body("{}"),
            "wrong-secret",
            Some("sales"),
        ),
        (webhook(&reader).body("{}"), "other-kind", None),
        (webhook(&old).body("{}"), "expired-key", Some("sales")),
        (
            webhook(&other.ingest_key).body("{}"),
            "revoked-key",
            Some("other"),
        ),
        (
            Request::post("/api/webhook/hooked").bearer(&new).body("{}"),
            "other-stream",
            Some("sales"),
        ),
        (
            Request::post("/api/webhook/off")
                .bearer(&off.ingest_key)
                .body("{}"),
            "disabled",
            Some("off"),
        ),
        (
            Request::post("/api/hooks/hk_000000000000_x").body("{}"),
            "unknown-key",
            None,
        ),
        (
            Request::post(&format!("{hook}x")).body("{}"),
            "wrong-secret",
            Some("hooked"),
        ),
        (
            Request::post(&format!("/api/hooks/{new}")).body("{}"),
            "other-kind",
            None,
        ),
        (
            Request::new("DELETE", "/api/streams/sales/items/a").bearer("ik_000000000000_x"),
            "unknown-key",
            None,
        ),
    ];
    let mut told = Vec::new();
    for (request, reason, connector) in &cases {
        let answer = server.call(request).expect(401);
        let found = rejection(&server, answer.header("X-Request-Id").unwrap());
        assert_eq!(found["reason"], *reason, "{found:#}");
        assert_eq!(found["connector"].as_str(), *connector, "{found:#}");
        assert_eq!(
            (&found["status"], &found["address"]),
            (&json!(401), &json!("127.0.0.1"))
        );
        let mut document: Value = answer.json();
        document.as_object_mut().unwrap().remove("requestId");
        let mut headers = answer.headers.clone();
        headers
            .retain(|(name, _)| !["x-request-id", "date"].contains(&&*name.to_ascii_lowercase()));
        told.push((headers, document));
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:#?}");
    assert_eq!(listed(&server, "limit=1")[0]["way"], "delete");
    assert_eq!(listed(&server, "reason=wrong-secret").len(), 2);
    assert_eq!(listed(&server, "connector=sales&limit=1").len(), 1);
    let metrics = server.get("/metrics").text().to_owned();
    for line in [
        r#"hookpool_rejections_total{reason="unknown-key",connector=""} 3"#,
        r#"hookpool_rejections_total{reason="expired-key",connector="sales"} 1"#,
        "hookpool_rejections_kept 13",
        "hookpool_rejections_dropped_total 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

/// Where it says which stream it is for differs, what is told does not.
#[test]
fn many_events_for_another_stream_are_told_as_one_is() {
    let data = Data::new();
    let server = data.serve();
    let settings = json!({"stream": "sales", "keepRejected": true});
    let sales = server.add_connector_with(&settings);
    server.add_connector("other", false);
    let one = |stream: &str| {
        let target = format!("/api/webhook/{stream}");
        Request::post(&target).bearer(&sales.ingest_key).body("{}")
    };
    let many = |query: &str, media_type: &str, body: &str| {
        let target = format!("/api/ingest{query}");
        let request = Request::post(&target).bearer(&sales.ingest_key);
        request.header("Content-Type", media_type).body(body)
    };
    let lines = |stream: &str| many(&format!("?stream={stream}"), "application/x-ndjson", "{}");
    let items = |stream: &str| {
        let body = json!({"stream": stream, "items": [{"fields": {}}]});
        many("", "application/json", &body.to_string())
    };
    let told = |request: &Request| {
        let mut found = refused(&server, request, 401);
        let members = found.as_object_mut().unwrap();
        for own in ["id", "time", "way", "headers", "bodyBytes"] {
            members.remove(own);
        }
        found
    };
    for stream in ["other", "nowhere"] {
        let expected = told(&one(stream));
        assert_eq!(expected["reason"], "other-stream");
        assert_eq!(expected["connector"], "sales");
        assert_eq!(expected["stream"].as_str().unwrap_or("nowhere"), stream);
        assert_eq!(expected["kept"], false);
        assert_eq!(told(&lines(stream)), expected);
        assert_eq!(told(&items(stream)), expected);
    }
    let unnamed = told(&items("no name"));
    assert_eq!(
        (&unnamed["reason"], &unnamed["stream"]),
        (&json!("other-stream"), &Value::Null)
    );
    let counted = r#"hookpool_rejections_total{reason="other-stream",connector="sales"} 7"#;
    let metrics = server.get("/metrics").text().to_owned();
    assert!(metrics.contains(counted), "{metrics}");
    assert!(!metrics.contains(r#"reason="other","#), "{metrics}");
}

#[test]
fn a_wrong_signature_is_diagnosed() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", true);
    let another = server.add_connector("another", true);
    let key = sales.signing_key.clone().unwrap();
    let now = now_s().to_string();
    let late = (now_s() - 3_612).to_string();
    let request = |signature: &str, timestamp: &str| {
        webhook(&sales.ingest_key)
            .header("X-Webhook-Signature", signature)
            .header("X-Webhook-Timestamp", timestamp)
            .body(BODY)
    };
    let good = sign(&key, &now, BODY);
    let cases = [
        (
            request(&sign(&key, &late, BODY), &late),
            "TIMESTAMP_OUT_OF_RANGE",
            "s behind the server's clock",
        ),
        (
            request(&good, &format!("{now}000")),
            "SIGNATURE_INVALID",
            "milliseconds",
        ),
        (
            request(&good.to_uppercase(), &now),
            "SIGNATURE_INVALID",
            "does not begin with \"sha256=\"",
        ),
        (
            request(&sign(&key, &now, br#"{"region":"North","sales":1}"#), &now),
            "SIGNATURE_INVALID",
            "after JSON re-serialisation",
        ),
        (
            request(&sign(&key, &now, &[BODY, b"\n"].concat()), &now),
            "SIGNATURE_INVALID",
            "with a line feed behind it",
        ),
        (
            request(&sign(key.strip_prefix("whsk_").unwrap(), &now, BODY), &now),
            "SIGNATURE_INVALID",
            "without its prefix",
        ),
        (
            request(
                &sign(another.signing_key.as_deref().unwrap(), &now, BODY),
                &now,
            ),
            "SIGNATURE_INVALID",
            "of the connector another",
        ),
        (
            request("sha256=00", &now),
            "SIGNATURE_INVALID",
            "64 hex digits",
        ),
        (
            webhook(&sales.ingest_key)
                .header("X-Hub-Signature-256", &good)
                .body(BODY),
            "SIGNATURE_INVALID",
            "scheme github",
        ),
    ];
    for (request, code, said) in &cases {
        let answer = server.call(request);
        answer.expect_problem(401, code);
        let found = rejection(&server, answer.header("X-Request-Id").unwrap());
        let diagnosis = found["diagnosis"].as_str().unwrap_or_default();
        assert!(diagnosis.contains(said), "{said} in {found:#}");
        assert_eq!(
            (&found["connector"], &found["kept"]),
            (&json!("sales"), &json!(false))
        );
        assert_eq!(found["keyId"], sales.key_id);
    }
    assert!(server.log("sales").is_empty());
}
