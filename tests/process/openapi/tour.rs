//! Everything that the document has is asked for once, and each operation gives every answer of success that it may give.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::path_of_hook;
use crate::common::http::Request;
use crate::common::openapi::DOCUMENT;
use crate::common::server::{Data, Server, signed};
use crate::common::{eventually, now_s, signer};

#[test]
fn each_operation_gives_every_answer_of_success_that_the_document_has() {
    let data = Data::new();
    let mut server = data.serve();
    tour(&mut server);
    let mut missing = Vec::new();
    for operation in &DOCUMENT.operations {
        let seen = DOCUMENT.seen(operation);
        let documented: BTreeSet<u16> = operation.responses.keys().copied().collect();
        let good = documented.into_iter().filter(|status| *status < 400);
        missing.extend(
            good.filter(|status| !seen.contains(status))
                .map(|status| format!("{status} of {}", operation.id)),
        );
    }
    assert!(missing.is_empty(), "never answered here: {missing:?}");
}

/// Asks for everything once.
fn tour(server: &mut Server) {
    let settings = json!({"stream": "sales", "signed": true, "idField": "region"});
    let connector = server.add_connector_with(&settings);
    let name = &connector.name;
    let delivery =
        connector.delivery(br#"{"region":"North","sales":1,"sales":142000,"tags":["a"]}"#);
    server.call(&delivery).expect(202);
    let again = server.call(&delivery).expect(202);
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    server.post(&connector, r#"{"sales":7}"#).expect(202);
    let many = br#"{"region":"South"}"#;
    let many = connector.delivery_to("/api/ingest", many);
    let many = many.header("Content-Type", "application/x-ndjson");
    server.call(&many).expect(202);
    assert!(server.settles());
    hooks(server);
    read(server);
    follow(server);
    operate(server, name);
    rebuild(server);
    limit(server);
    refuse(server);
    for open in ["/healthz", "/readyz", "/metrics", "/api/openapi.json"] {
        let etag = server.call(&Request::get(open)).expect(200);
        if let Some(etag) = etag.header("ETag") {
            server
                .call(&Request::get(open).header("If-None-Match", etag))
                .expect(304);
        }
    }
}

fn hooks(server: &Server) {
    let settings = json!({"stream": "chat", "scheme": "slack"});
    let made: Value = server
        .admin("POST", "connectors", &settings)
        .expect(201)
        .json();
    let (hook, key) = (path_of_hook(&made), made["signingKey"].as_str().unwrap());
    let ingest_key = made["ingestKey"].as_str().unwrap();
    let post = |target: &str, body: &str| {
        let headers = signer::headers("slack", key, "", now_s(), body.as_bytes());
        let request = Request::post(target).bearer(ingest_key);
        server.call(&signer::with(request, &headers).body(body))
    };
    let challenge = r#"{"type":"url_verification","challenge":"c"}"#;
    post(&hook, challenge).expect(200);
    post("/api/webhook/chat", challenge).expect(200);
    post(&hook, r#"{"event_id":"Ev1"}"#).expect(202);
    let handshake = Request::new("OPTIONS", &hook);
    server
        .call(
            &handshake
                .clone()
                .header("WebHook-Request-Origin", "example.com"),
        )
        .expect(200);
    server.call(&handshake).expect(405);
    let rotated = server.admin("POST", "connectors/chat/hooks:rotate", &json!({}));
    let rotated: Value = rotated.expect(200).json();
    let id = rotated["keyId"].as_str().unwrap();
    server
        .admin(
            "DELETE",
            &format!("connectors/chat/hooks/{id}"),
            &Value::Null,
        )
        .expect(204);
    server
        .admin("PATCH", "connectors/chat", &json!({"idField": "/event/id"}))
        .expect(200);
}

/// Refusals of every sort, and another try for some of them.
fn refuse(server: &Server) {
    let settings =
        json!({"stream": "shop", "signed": true, "keepRejected": true, "limits": {"fields": 1}});
    let shop = server.add_connector_with(&settings);
    let forged = Request::post("/api/webhook/shop").bearer(&shop.ingest_key);
    let forged = signed(forged, "whsk_another_signing_key", "1", b"{}").body("{}");
    let unsigned = Request::post("/api/webhook/shop").bearer(&shop.ingest_key);
    server.call(&forged).expect(401);
    server.call(&unsigned.body("{}")).expect(401);
    server.post(&shop, r#"{"id":"a","b":1}"#).expect(422);
    server.post(&shop, r#"{"id":"a"}"#).expect(202);
    let limits = json!({"limits": {"fields": 1, "eventsPerSecond": 1}});
    server
        .admin("PATCH", "connectors/shop", &limits)
        .expect(200);
    // Many at once are taken when nothing is missing, and are made up for before the next one.
    let many = "{}\n".repeat(1_000);
    let many = shop.delivery_to("/api/ingest", many.as_bytes());
    let many = many.header("Content-Type", "application/x-ndjson");
    server.call(&many).expect(202);
    let fast = server.post(&shop, r#"{"id":"b"}"#).expect(429);
    let id = fast.header("X-Request-Id").unwrap();
    let target = format!("/api/admin/rejections/{id}");
    let limit = Duration::from_secs(10);
    eventually("the last one is kept", limit, || {
        (server.get(&target).status == 200).then_some(())
    });
    server
        .get("/api/admin/rejections?connector=shop&limit=3")
        .expect(200);
    server
        .get("/api/admin/rejections?reason=signature")
        .expect(200);
    let retry = format!("rejections/{id}:retry");
    server.admin("POST", &retry, &Value::Null).expect(200);
    server
        .admin("POST", "rejections:retry?connector=shop", &Value::Null)
        .expect(200);
    let free = json!({"limits": {}, "keepRejected": false});
    server.admin("PATCH", "connectors/shop", &free).expect(200);
    // A limited connector is told of its limit on deletions too.
    let till = json!({"stream": "till", "limits": {"eventsPerSecond": 1}});
    let till = server.add_connector_with(&till);
    let delete = Request::new("DELETE", "/api/streams/till/items/a").bearer(&till.ingest_key);
    let deleted = server.call(&delete).expect(202);
    assert_eq!(deleted.header("RateLimit"), Some(r#""connector";r=0;t=1"#));
    let lines = Request::post("/api/ingest").bearer(&till.ingest_key);
    let lines = lines.header("Content-Type", "application/x-ndjson");
    let lines = lines.body("{}\n".repeat(1_000));
    eventually("a second went by", Duration::from_secs(10), || {
        (server.call(&lines).status == 202).then_some(())
    });
    let fast = server.call(&delete).expect(429);
    fast.expect_problem(429, "RATE_LIMITED");
}

fn read(server: &Server) {
    for target in [
        "/",
        "/api/streams?minPosition=1",
        "/api/streams/sales?hash=true",
        "/api/streams/sales/items?limit=1&where=sales&fields=sales",
        "/api/streams/sales/items?expand=json&at=2",
        "/api/streams/sales/items/North?meta=true",
        "/api/streams/sales/items/North?expand=json",
        "/api/streams/sales/items/North/history?at=2&expand=json",
        "/api/streams/sales/diff?from=0&to=2&expand=json",
        "/api/streams/sales/log?body=true&at=2",
        "/api/streams/sales/log/1?at=2&minPosition=1",
        "/api/admin/head",
        "/api/admin/export",
        "/api/admin/export?stream=sales",
        "/api/admin/export?format=cloudevents",
        "/api/admin/blocks",
    ] {
        let answer = server.get(target).expect(200);
        if let Some(etag) = answer
            .header("ETag")
            .filter(|_| target.starts_with("/api/streams"))
        {
            let request = Request::get(target).bearer(&server.operator_key);
            server
                .call(&request.header("If-None-Match", etag))
                .expect(304);
        }
    }
    for (target, accept) in [
        ("/api/streams/sales/log", "application/x-ndjson"),
        ("/api/streams/sales/log/1", "application/octet-stream"),
    ] {
        let request = Request::get(target).bearer(&server.operator_key);
        server.call(&request.header("Accept", accept)).expect(200);
    }
}

fn follow(server: &Server) {
    let all = [
        "after=snapshot",
        "after=now",
        "after=earliest",
        "after=nonsense",
        "conflate=1",
        "where=sales",
        "expand=json",
    ];
    for query in all {
        for target in ["/api/streams/sales/changes?", "/api/changes?stream=sales&"] {
            for accept in [
                "text/event-stream",
                "application/x-ndjson",
                "application/json",
            ] {
                let request = Request::get(&format!("{target}{query}&until=2"));
                let request = request
                    .bearer(&server.operator_key)
                    .header("Accept", accept);
                server.call(&request.header("Prefer", "wait=1")).expect(200);
            }
        }
    }
    let ticket = Request::post("/api/tickets").bearer(&server.operator_key);
    let ticket = server.call(&ticket.body(json!({"streams": ["sales"]}).to_string()));
    let ticket: Value = ticket.expect(201).json();
    let target = format!(
        "/api/streams/sales/changes?until=2&ticket={}",
        ticket["ticket"].as_str().unwrap()
    );
    server.call(&Request::get(&target)).expect(200);
}

fn operate(server: &Server, connector: &str) {
    let none = Value::Null;
    server.get("/api/admin/connectors").expect(200);
    server
        .get(&format!("/api/admin/connectors/{connector}"))
        .expect(200);
    for act in [":disable", ":enable"] {
        server
            .admin("POST", &format!("connectors/{connector}{act}"), &none)
            .expect(200);
    }
    let overlap = json!({"overlapSeconds": 3600});
    let rotated = server.admin(
        "POST",
        &format!("connectors/{connector}/keys:rotate"),
        &overlap,
    );
    let rotated: Value = rotated.expect(200).json();
    let signing = server.admin(
        "POST",
        &format!("connectors/{connector}/signing-keys:rotate"),
        &overlap,
    );
    let signing: Value = signing.expect(200).json();
    let signing = format!(
        "connectors/{connector}/signing-keys/{}",
        signing["keyId"].as_str().unwrap()
    );
    server.admin("DELETE", &signing, &none).expect(204);
    server
        .get(&format!("/api/admin/connectors/{connector}"))
        .expect(200);
    let key = format!(
        "connectors/{connector}/keys/{}",
        rotated["keyId"].as_str().unwrap()
    );
    server.admin("DELETE", &key, &none).expect(204);
    let operator = server.admin("POST", "operators", &json!({"name": "alice"}));
    let operator: Value = operator.expect(201).json();
    server.get("/api/admin/operators").expect(200);
    let key = format!("operators/{}", operator["keyId"].as_str().unwrap());
    server.admin("DELETE", &key, &none).expect(204);
    server.add_reader("dashboard", &["sales"]);
    server.get("/api/admin/readers").expect(200);
    let mut connection = server.connect();
    let followed = Request::get("/api/streams/sales/changes").bearer(&server.operator_key);
    let _open = connection.follow(&followed).unwrap();
    let followers: Value = server.get("/api/admin/followers").expect(200).json();
    assert_eq!(followers["followers"].as_array().map(Vec::len), Some(1));
    server
        .admin("DELETE", "readers/dashboard", &none)
        .expect(204);
}

fn rebuild(server: &Server) {
    let (none, rules) = (
        Value::Null,
        json!({"fields": {"amount": {"from": "sales", "type": "string"}}}),
    );
    let of = |rest: &str| format!("streams/sales/{rest}");
    server
        .get("/api/admin/streams/sales/projection")
        .expect(200);
    for check in ["true", "history", "item&item=North"] {
        server
            .admin("PUT", &of(&format!("projection?check={check}")), &rules)
            .expect(200);
    }
    server.admin("PUT", &of("projection"), &rules).expect(201);
    let start = || {
        server
            .admin("POST", &of("rebuilds"), &json!({"eventsPerSecond": 1000}))
            .expect(201)
    };
    start();
    for act in ["pause", "resume", "cancel"] {
        server
            .admin("POST", &of(&format!("rebuilds/current:{act}")), &none)
            .expect(200);
    }
    start();
    eventually("the rebuild is ready", Duration::from_secs(30), || {
        let shown: Value = server
            .get("/api/admin/streams/sales/rebuilds/current")
            .expect(200)
            .json();
        (shown["state"] == "ready").then_some(())
    });
    server
        .get("/api/admin/streams/sales/rebuilds/current/diff")
        .expect(200);
    let promote = Request::post("/api/admin/streams/sales/rebuilds/current:promote");
    let promote = promote.bearer(&server.operator_key).header("If-Match", "*");
    server.call(&promote).expect(200);
    server.get("/api/admin/streams/sales/rebuilds").expect(200);
    let progress =
        Request::get("/api/admin/streams/sales/rebuilds/current").bearer(&server.operator_key);
    server
        .call(&progress.header("Accept", "text/event-stream"))
        .expect(200);
    server
        .get("/api/admin/streams/sales/quarantine")
        .expect(200);
    server
        .admin("POST", "streams/sales:rollback", &none)
        .expect(200);
    server
        .admin("POST", "streams/sales:release", &none)
        .expect(200);
}

fn limit(server: &Server) {
    let limits = json!({"maxPositions": 1_000_000});
    server
        .admin("PUT", "streams/sales/retention?check=true", &limits)
        .expect(200);
    server
        .admin("PUT", "streams/sales/retention", &limits)
        .expect(200);
    server.get("/api/admin/streams/sales/retention").expect(200);
    server
        .admin("DELETE", "streams/sales/retention", &Value::Null)
        .expect(200);
}
