//! The OpenAPI document is served as it is written, and every operation in it answers as it says. What other tests ask is held against it
//! too, answer by answer: see `common::openapi`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rand::Rng;
use serde_json::{Value, json};

use crate::common::http::{Request, Response};
use crate::common::openapi::{DOCUMENT, Operation};
use crate::common::program::{both, command, repository, tool};
use crate::common::server::{Connector, Data, Server, signed};
use crate::common::{eventually, now_s, seeded, signer};

#[test]
fn the_document_is_served_to_the_letter_without_a_key() {
    let data = Data::new();
    let server = data.serve();
    let document = server.call(&Request::get("/api/openapi.json")).expect(200);
    let written = include_str!("../../crates/hookpool-http/src/openapi.json");
    assert_eq!(document.text(), written);
    assert_eq!(document.header("Cache-Control"), Some("no-cache"));
    let etag = document.header("ETag").unwrap();
    let again = Request::get("/api/openapi.json").header("If-None-Match", etag);
    assert_eq!(server.call(&again).expect(304).header("ETag"), Some(etag));
    let other = Request::get("/api/openapi.json").header("If-None-Match", "\"other\"");
    server.call(&other).expect(200);
}

#[test]
fn the_examples_of_the_document_are_as_its_schemas_say() {
    let mut examples = 0;
    let mut check = |of: &Value| {
        if let Some(example) = of.get("example") {
            let valid = DOCUMENT.valid(&of["schema"], example);
            valid.unwrap_or_else(|error| panic!("{error}: {example}"));
            examples += 1;
        }
    };
    for operation in &DOCUMENT.operations {
        operation.parameters.iter().for_each(&mut check);
        let responses = operation.responses.values().chain(&operation.body);
        let contents = responses.filter_map(|it| it["content"].as_object());
        contents.flat_map(|it| it.values()).for_each(&mut check);
    }
    assert!(examples > 100, "only {examples} examples were found");
}

/// Sends what may be sent to a path, with its example as body, and with more in the query.
fn ask(server: &Server, operation: &Operation, query: &str) -> Response {
    let request = request_of(server, operation, query);
    let body = operation
        .body
        .as_ref()
        .map(|body| &body["content"]["application/json"]["example"]);
    server.call(
        &body
            .iter()
            .fold(request, |request, body| request.body(body.to_string())),
    )
}

/// The same without a body.
fn request_of(server: &Server, operation: &Operation, query: &str) -> Request {
    let mut path = operation.path.clone();
    for parameter in operation.parameters.iter().filter(|it| it["in"] == "path") {
        let example = match &parameter["example"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        path = path.replace(
            &format!("{{{}}}", parameter["name"].as_str().unwrap()),
            &example,
        );
    }
    let request = Request::new(&operation.method, &format!("{path}?{query}"));
    request.bearer(&server.operator_key)
}

/// Where the hook of a new connector is.
fn path_of_hook(connector: &Value) -> String {
    let url = connector["hookUrl"].as_str().unwrap();
    format!("/api/hooks/{}", url.rsplit('/').next().unwrap())
}

#[test]
fn each_query_parameter_of_the_document_is_one_that_the_server_reads() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("sales", false);
    server.post(&connector, r#"{"id":"North"}"#).expect(202);
    let described = json!({"stream": "hooked", "scheme": "hookpool"});
    let described = server.admin("POST", "connectors", &described).expect(201);
    let hook = path_of_hook(&described.json());
    let hooked: Connector = described.json();
    let mut asked = 0;
    for operation in &DOCUMENT.operations {
        for parameter in operation.parameters.iter().filter(|it| it["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            let broken = format!("{name}=%ff");
            let answer = if operation.id == "postWebhook" {
                server.call(
                    &connector.delivery_to(&format!("{}?{broken}", connector.target()), b"{}"),
                )
            } else if operation.id == "postIngest" {
                server.call(&connector.delivery_to(&format!("/api/ingest?{broken}"), b"{}"))
            } else if operation.id == "postHook" {
                server.call(&hooked.delivery_to(&format!("{hook}?{broken}"), b"{}"))
            } else {
                // What comes before it has to be there, where it is needed.
                let needed = if name == "stream" {
                    ""
                } else {
                    "stream=sales&"
                };
                let several = operation.id == "followStreams";
                let needed = if several { needed } else { "" };
                let other = if name == "to" { "from=0&" } else { "" };
                ask(&server, operation, &format!("{needed}{other}{broken}"))
            };
            answer.expect_problem(400, "INVALID_PARAMETER");
            let detail = answer.json::<Value>()["detail"]
                .as_str()
                .unwrap()
                .to_owned();
            let expected = format!("{name} is not valid percent-encoded UTF-8");
            assert_eq!(detail, expected, "{} {}", operation.method, operation.path);
            asked += 1;
        }
    }
    assert!(asked > 50, "only {asked} parameters were found");
}

/// What comes along with a question is no part of it, however large: it gets no answer that the document does not have.
#[test]
fn a_body_that_comes_with_a_question_changes_nothing() {
    let data = Data::new();
    let mut server = data.serve();
    let connector = server.add_connector("sales", false);
    server.post(&connector, r#"{"id":"North"}"#).expect(202);
    assert!(server.settles());
    let large = vec![b'x'; (64 << 10) + 1];
    let mut asked = 0;
    for operation in &DOCUMENT.operations {
        let is_question = operation.method == "GET" && operation.path.starts_with("/api/admin/");
        if !is_question || operation.path == "/api/admin/export" {
            continue;
        }
        let request = request_of(&server, operation, "");
        let bare = server.call(&request);
        let declared = server.call(&request.clone().body(large.clone()));
        let chunked = server.call(&request.chunked(&large, 1000));
        let statuses = [bare.status, declared.status, chunked.status];
        assert_eq!(statuses, [bare.status; 3], "{}", operation.path);
        assert!(bare.status < 400 || bare.status == 404, "{bare:?}");
        asked += 1;
    }
    assert!(asked > 10, "only {asked} were found");
}

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
    let settings = json!({"stream": "shop", "signed": true, "keepRejected": true, "limits": {"fields": 1, "eventsPerSecond": 1, "burst": 2}});
    let shop = server.add_connector_with(&settings);
    let forged = Request::post("/api/webhook/shop").bearer(&shop.ingest_key);
    let forged = signed(forged, "whsk_another_signing_key", "1", b"{}").body("{}");
    let unsigned = Request::post("/api/webhook/shop").bearer(&shop.ingest_key);
    server.call(&forged).expect(401);
    server.call(&unsigned.body("{}")).expect(401);
    server.post(&shop, r#"{"id":"a","b":1}"#).expect(422);
    server.post(&shop, r#"{"id":"a"}"#).expect(202);
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
    // Many at once are taken when nothing is missing, and are made up for before the next one.
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

#[test]
fn what_is_no_object_or_a_null_in_place_of_a_rule_is_refused() {
    let data = Data::new();
    let server = data.serve();
    server.add_connector("sales", false);
    for (method, target, body) in [
        ("PATCH", "connectors/sales", json!([null, null])),
        ("POST", "readers", json!(["dashboard", ["sales"]])),
        ("POST", "operators", json!(["alice"])),
        ("PUT", "streams/sales/projection", json!([null])),
        ("PUT", "streams/sales/projection", json!({"id": null})),
        (
            "POST",
            "streams/sales/rebuilds",
            json!({"projection": {"fields": {"a": {"flatten": null}}}}),
        ),
    ] {
        server
            .admin(method, target, &body)
            .expect_problem(400, "INVALID_PAYLOAD");
    }
}

/// Lints a document; whether nothing was found, and what.
fn lint(document: &Path) -> (bool, String) {
    let mut spectral = command(tool("HOOKPOOL_NODE"));
    let program = tool("HOOKPOOL_NODE_MODULES").join("@stoplight/spectral-cli/dist/index.js");
    spectral
        .arg(program)
        .arg("lint")
        .arg("--ruleset")
        .arg(repository("tests/openapi/spectral.yaml"));
    let output = spectral
        .arg("--fail-severity=hint")
        .arg(document)
        .output()
        .unwrap();
    (output.status.success(), both(&output))
}

#[test]
#[ignore = "needs spectral: tests/run"]
fn the_document_passes_the_linter_and_a_broken_one_does_not() {
    let path = repository("crates/hookpool-http/src/openapi.json");
    let (good, said) = lint(&path);
    assert!(good, "{said}");
    let text = fs::read_to_string(path).unwrap();
    let folder = Data::new();
    for (from, to) in [
        (
            "#/components/schemas/Stream\"",
            "#/components/schemas/Absent\"",
        ),
        (
            "\"operationId\": \"listItems\"",
            "\"operationId\": \"getItem\"",
        ),
        (
            "\"items\": 3, \"events\": 5",
            "\"items\": \"3\", \"events\": 5",
        ),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text, "{from} is not there");
        let file = folder.path().join("openapi.json");
        fs::write(&file, broken).unwrap();
        let (good, said) = lint(&file);
        assert!(!good, "{to} was not found: {said}");
    }
}

#[test]
#[ignore = "needs schemathesis: tests/run"]
fn schemathesis_finds_no_server_error_and_no_undocumented_answer() {
    let data = Data::new();
    // It asks without a key more often than anybody may.
    let patient = [("HOOKPOOL_LIMITS_AUTH_FAILURES_PER_MINUTE", "1000000")];
    let mut server = Server::try_start_with(data.path(), &patient).unwrap();
    let connector = server.add_connector("sales", false);
    let hook = json!({"stream": "hooked", "scheme": "github"});
    let hook = path_of_hook(&server.admin("POST", "connectors", &hook).expect(201).json());
    for n in 0..20 {
        server
            .post(&connector, format!(r#"{{"id":"North","sales":{n}}}"#))
            .expect(202);
    }
    assert!(server.settles());
    // The key stays good whatever is done to the connectors of the document's examples.
    let key = server.admin(
        "POST",
        "connectors",
        &json!({"stream": "sales", "name": "steady"}),
    );
    let key: Connector = key.expect(201).json();
    let seed: u32 = seeded("schemathesis").random_range(0..1 << 31);
    let mut schemathesis = command(tool("HOOKPOOL_SCHEMATHESIS"));
    let output = schemathesis
        .arg("--config-file")
        .arg(repository("tests/openapi/schemathesis.toml"))
        .args(["run", &format!("{}/api/openapi.json", server.url())])
        .args(["--max-time", "60", "--seed", &seed.to_string()])
        .env("OPERATOR_KEY", &server.operator_key)
        .env("INGEST_KEY", &key.ingest_key)
        .env("HOOK", hook.rsplit('/').next().unwrap())
        .current_dir(repository("."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", both(&output));
    eprintln!("{}", String::from_utf8_lossy(&output.stdout));
    server.get("/readyz").expect(200);
    server.stop();
}
