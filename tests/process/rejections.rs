//! What operators see of refused deliveries, what they can do about them, and what nobody may see.

mod another_try;
mod not_kept;
mod once;
mod reasons;
mod secrets;

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::eventually;
use crate::common::http::Request;
use crate::common::program::{hookpool, output_within};
use crate::common::server::{Connector, Server};

const BODY: &[u8] = br#"{"region": "North","sales": 1}"#;
const LINES: &str = "application/x-ndjson";

/// The rejection of a request, once it is kept.
fn rejection(server: &Server, id: &str) -> Value {
    let target = format!("/api/admin/rejections/{id}");
    eventually("the rejection is kept", Duration::from_secs(10), || {
        let answer = server.get(&target);
        (answer.status == 200).then(|| answer.json())
    })
}

/// Sends what is to be refused; the rejection.
#[track_caller]
fn refused(server: &Server, request: &Request, status: u16) -> Value {
    let answer = server.call(request).expect(status);
    rejection(server, answer.header("X-Request-Id").unwrap())
}

fn webhook(key: &str) -> Request {
    Request::post("/api/webhook/sales").bearer(key)
}

fn hook_of(made: &Value) -> String {
    let url = made["hookUrl"].as_str().unwrap();
    url.split_at(url.find("/api/").unwrap()).1.to_owned()
}

fn many(connector: &Connector, query: &str, media_type: &str, body: &str) -> Request {
    let target = format!("/api/ingest{query}");
    let request = connector.delivery_to(&target, body.as_bytes());
    request.header("Content-Type", media_type)
}

fn retry(server: &Server, id: &str) -> Value {
    let answer = server.admin("POST", &format!("rejections/{id}:retry"), &json!({}));
    answer.expect(200).json()
}

/// Runs the program as its operator.
fn run(server: &Server, args: &[&str]) -> Output {
    let mut command = hookpool();
    command
        .env("HOOKPOOL_SERVER", server.url())
        .env("HOOKPOOL_OPERATOR_KEY", &server.operator_key)
        .args(args);
    output_within(Duration::from_secs(60), &mut command)
}
