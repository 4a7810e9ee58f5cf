//! The OpenAPI document is served as it is written, and every operation in it answers as it says. What other tests ask is held against it
//! too, answer by answer: see `common::openapi`.

mod others;
mod tour;

use serde_json::{Value, json};

use crate::common::http::{Request, Response};
use crate::common::openapi::{DOCUMENT, Operation};
use crate::common::server::{Connector, Data, Server};

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
