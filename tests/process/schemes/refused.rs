//! Who is not let in hears the same, and no hook is told to anybody.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Made, add, delivery, of_scheme};
use crate::common::http::{Request, Response};
use crate::common::program::{both, hookpool};
use crate::common::server::{Data, Server};
use crate::common::signer::SCHEMES;

/// Status, headers and body but for what names the request and the moment.
fn told(answer: &Response) -> (u16, Vec<(String, String)>, String) {
    let id = answer.header("X-Request-Id").unwrap().to_owned();
    let mut headers = answer.headers.clone();
    headers.retain(|(name, _)| {
        !name.eq_ignore_ascii_case("x-request-id") && !name.eq_ignore_ascii_case("date")
    });
    (answer.status, headers, answer.text().replace(&id, "<id>"))
}

fn rotate(server: &Server, name: &str, overlap: u64) -> String {
    let body = json!({"overlapSeconds": overlap});
    let target = format!("connectors/{name}/hooks:rotate");
    let answer: Value = server.admin("POST", &target, &body).expect(200).json();
    answer["hookUrl"].as_str().unwrap().to_owned()
}

#[test]
fn every_bad_hook_gets_the_same_401_as_every_bad_key_byte_for_byte() {
    let data = Data::new();
    let server = data.serve();
    let made = add(&server, &json!({"stream": "plain", "scheme": "hookpool"}));
    let [revoked, disabled, rotated] = ["revoked", "disabled", "rotated"]
        .map(|stream| add(&server, &json!({"stream": stream, "scheme": "hookpool"})));
    let signed = of_scheme(&server, "github");
    let id = |made: &Made| made.hook().split('_').nth(1).unwrap().to_owned();
    let target = format!("connectors/revoked/hooks/{}", id(&revoked));
    server.admin("DELETE", &target, &json!({})).expect(204);
    server.admin("DELETE", &target, &json!({})).expect(404);
    server
        .admin("POST", "connectors/disabled:disable", &json!({}))
        .expect(200);
    let new = rotate(&server, "rotated", 0);

    let hook = made.hook();
    let (_, secret) = hook.rsplit_once('_').unwrap();
    // One hook in 62 ends with an x.
    let other = if hook.ends_with('x') { 'y' } else { 'x' };
    let post = |target: &str| Request::post(target).body("{}");
    let at = |text: &str| post(&format!("/api/hooks/{text}"));
    let bearer = |key: &str| Request::post("/api/webhook/plain").bearer(key).body("{}");
    let read = server.add_reader("reader", &["*"]);
    let cases = [
        ("unknown id", at(&format!("hk_000000000000_{secret}"))),
        (
            "wrong secret",
            post(&format!("{}{other}", &hook[..hook.len() - 1])),
        ),
        ("longer", post(&format!("{hook}x"))),
        ("no secret", at(&format!("hk_{}_", id(&made)))),
        ("no hook at all", at("x")),
        ("another's id", at(&format!("hk_{}_{secret}", id(&signed)))),
        ("revoked", post(revoked.hook())),
        ("disabled", post(disabled.hook())),
        ("rotated", post(rotated.hook())),
        ("an ingest key as a hook", at(&made.ingest_key)),
        ("a read key as a hook", at(&read)),
        ("an operator key as a hook", at(&server.operator_key)),
        ("percent-encoded", post(&hook.replacen("hk_", "%68k_", 1))),
        ("a hook as a key", bearer(hook.rsplit('/').next().unwrap())),
        ("unknown key", bearer(&format!("ik_000000000000_{secret}"))),
        ("key of another stream", bearer(&signed.ingest_key)),
        (
            "unknown stream",
            Request::post("/api/webhook/nowhere")
                .bearer(&made.ingest_key)
                .body("{}"),
        ),
    ];
    let mut first = None;
    for (case, request) in &cases {
        let answer = server.call(request);
        answer.expect_problem(401, "UNAUTHORIZED");
        let answer = told(&answer);
        assert_eq!(
            first.get_or_insert_with(|| answer.clone()),
            &answer,
            "{case}"
        );
    }
    let path = &new[new.find("/api/").unwrap()..];
    server.call(&post(path)).expect(202);
    server.call(&post(hook)).expect(202);
    assert_eq!(server.log("plain").len(), 1);
    assert!(server.log("revoked").is_empty() && server.log("github").is_empty());
    print_timing(&server, &cases);
}

/// What a clock outside sees; for people, since machines differ.
fn print_timing(server: &Server, cases: &[(&str, Request)]) {
    const ROUNDS: usize = 300;
    let mut connection = server.connect();
    let mut spent = vec![Vec::with_capacity(ROUNDS); cases.len()];
    for _ in 0..ROUNDS {
        for ((_, request), spent) in cases.iter().zip(&mut spent) {
            let begun = Instant::now();
            connection.call(request).unwrap();
            spent.push(begun.elapsed());
        }
    }
    let median = |spent: &mut Vec<Duration>| {
        spent.sort_unstable();
        spent[ROUNDS / 2]
    };
    for ((case, _), spent) in cases.iter().zip(&mut spent) {
        eprintln!("refused: {case}, median of {ROUNDS} {:?}", median(spent));
    }
}

#[test]
fn a_rotated_hook_works_until_its_overlap_ends_and_the_new_one_at_once() {
    let data = Data::new();
    let server = data.serve();
    let made = add(&server, &json!({"stream": "plain", "scheme": "hookpool"}));
    let status = |url: &str| {
        let path = &url[url.find("/api/").unwrap()..];
        server.call(&Request::post(path).body("{}")).status
    };
    let first = made.hook_url.as_deref().unwrap();
    let second = rotate(&server, "plain", 600);
    assert_eq!((status(first), status(&second)), (202, 202));
    let third = rotate(&server, "plain", 0);
    assert_eq!(
        (status(first), status(&second), status(&third)),
        (401, 401, 202)
    );
}

/// At the most talkative setting, after every kind of request: what is secret in a URL, a header or a body is nowhere.
#[test]
fn no_secret_is_in_logs_metrics_or_answers() {
    let data = Data::new();
    let server = Server::try_start_with(data.path(), &[("RUST_LOG", "trace")]).unwrap();
    let mut secrets = Vec::new();
    let mut answers = String::new();
    let mut call = |request: &Request| {
        let answer = server.call(request);
        answers.push_str(&format!("{answer:?}"));
    };
    for scheme in SCHEMES {
        let made = of_scheme(&server, scheme);
        let hook = made.hook();
        call(&delivery(
            &made,
            scheme,
            "d1",
            r#"{"id":"a","event_id":"Ev"}"#,
        ));
        call(&delivery(&made, scheme, "d2", "no JSON"));
        call(&Request::post(hook).body(r#"{"id":"unsigned"}"#));
        call(&Request::post(&format!("{hook}x")).body("{}"));
        call(&Request::post(&format!("{hook}?idField=%zz")).body("{}"));
        call(&Request::get(hook));
        call(&Request::get(&format!("{hook}/more")));
        call(&Request::new("OPTIONS", hook).header("WebHook-Request-Origin", "a.example.com"));
        call(
            &Request::post(hook)
                .header("Content-Encoding", "gzip")
                .body("x"),
        );
        call(&Request::post(hook).header("Content-Length", "99999999"));
        secrets.push(hook.rsplit('_').next().unwrap().to_owned());
        secrets.push(made.ingest_key.rsplit('_').next().unwrap().to_owned());
        secrets.push(made.key().to_owned());
    }
    answers.push_str(server.get("/api/admin/connectors").expect(200).text());
    answers.push_str(server.get("/metrics").expect(200).text());
    let mut show = hookpool();
    show.args([
        "connector",
        "show",
        "github",
        "--server",
        &server.url(),
        "--operator-key-file",
    ]);
    let shown = show.arg(data.path().join("operator.key")).output().unwrap();
    assert!(shown.status.success(), "{}", both(&shown));
    answers.push_str(&both(&shown));
    let said = server.kill9_heard();
    assert!(said.len() > 1000, "nothing is traced: {said}");
    for secret in secrets {
        assert!(!said.contains(&secret), "{secret} in the log");
        assert!(!answers.contains(&secret), "{secret} in an answer");
    }
}
