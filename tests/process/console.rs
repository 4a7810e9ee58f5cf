//! The page at `/`: open to everybody, with no rights and no sources but this server.

use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

use crate::common::http::Request;
use crate::common::program::{command, lines, repository, signal, tool};
use crate::common::server::Data;

#[test]
fn the_page_is_there_without_a_key_and_runs_nothing_but_its_own_script() {
    let data = Data::new();
    let server = data.serve();
    let page = server.call(&Request::get("/")).expect(200);
    assert_eq!(
        page.header("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    let policy = page.header("Content-Security-Policy").unwrap();
    for tag in ["script", "style"] {
        let text = page.text().split_once(&format!("<{tag}>")).unwrap().1;
        let text = text.split_once(&format!("</{tag}>")).unwrap().0;
        let hash = BASE64_STANDARD.encode(Sha256::digest(text));
        let rule = format!("{tag}-src 'sha256-{hash}';");
        assert!(policy.contains(&rule), "{rule} in {policy}");
    }
    for rule in [
        "default-src 'none'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    let mut connection = server.connect();
    connection
        .send(&Request::new("HEAD", "/").encode())
        .unwrap();
    let head = connection.response_to_head().unwrap().expect(200);
    assert_eq!(head.header("Content-Security-Policy"), Some(policy));
    server.call(&Request::get("/?key=x")).expect(400);
    server.call(&Request::new("POST", "/")).expect(405);
}

#[test]
#[ignore = "needs chromium and node: tests/run"]
fn the_page_in_a_browser_shows_streams_items_histories_and_changes() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    server
        .post(&sales, r#"{"id":"<b>North</b>","n":1}"#)
        .expect(202);
    // Its history is more than one page.
    let large = "x".repeat(500 << 10);
    for m in 1..=10 {
        let body = format!(r#"{{"id":"<b>North</b>","m":{m},"text":"{large}"}}"#);
        server.post(&sales, &body).expect(202);
    }
    let mut node = command(tool("HOOKPOOL_NODE"));
    node.arg(repository("tests/readers/console.mjs"))
        .arg(tool("HOOKPOOL_CHROMIUM"))
        .env("HOOKPOOL_SERVER", server.url())
        .env("HOOKPOOL_OPERATOR_KEY", &server.operator_key)
        .stdout(Stdio::piped());
    let mut node = node.spawn().unwrap();
    let seen = lines(node.stdout.take().unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut wanted = vec![
        "sales",
        "<b>North</b>",
        "\"n\":2",
        "m: 9 -> 10",
        "connectors",
    ];
    while !wanted.is_empty() && Instant::now() < deadline {
        server.post(&sales, r#"{"id":"South","n":2}"#).expect(202);
        if let Ok(text) = seen.recv_timeout(Duration::from_secs(1)) {
            wanted.retain(|word| !text.contains(word));
        }
    }
    signal("TERM", node.id());
    node.wait().unwrap();
    assert!(wanted.is_empty(), "the page never showed {wanted:?}");
}
