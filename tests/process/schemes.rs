//! Senders that sign in their own way, and hooks: keys that stand in the URL.

mod forgeries;
mod others;
mod refused;
mod revoked;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::common::http::{Request, Response};
use crate::common::now_s;
use crate::common::program::{both, hookpool};
use crate::common::server::{Data, Server, percent, position};
use crate::common::signer::{Headers, SCHEMES, headers, with, written};

/// A connector of a scheme, as it was answered.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    ingest_key: String,
    signing_key: Option<String>,
    url: String,
    hook_url: Option<String>,
    scheme: Value,
}

impl Made {
    fn hook(&self) -> &str {
        let url = self.hook_url.as_deref().unwrap();
        &url[url.find("/api/hooks/").unwrap()..]
    }

    fn key(&self) -> &str {
        self.signing_key.as_deref().unwrap()
    }
}

fn add(server: &Server, settings: &Value) -> Made {
    let answer = server.admin("POST", "connectors", settings);
    answer.expect(201).json()
}

fn of_scheme(server: &Server, scheme: &str) -> Made {
    let settings = json!({"stream": scheme, "scheme": written(scheme), "signed": true});
    add(server, &settings)
}

fn to_hook(made: &Made, headers: &Headers, body: &str) -> Request {
    with(Request::post(made.hook()), headers).body(body)
}

/// A good delivery to a hook.
fn delivery(made: &Made, scheme: &str, id: &str, body: &str) -> Request {
    to_hook(
        made,
        &headers(scheme, made.key(), id, now_s(), body.as_bytes()),
        body,
    )
}

#[test]
fn every_scheme_is_taken_at_the_hook_and_with_the_ingest_key() {
    let data = Data::new();
    let server = data.serve();
    let made: Vec<Made> = SCHEMES.map(|it| of_scheme(&server, it)).to_vec();
    let deliver = |server: &Server, n: usize| {
        for (scheme, made) in SCHEMES.into_iter().zip(&made) {
            assert_eq!(made.scheme, written(scheme));
            let body = format!(r#"{{"id":"{scheme}-{n}","event_id":"Ev{n}"}}"#);
            let answer = server.call(&delivery(made, scheme, &format!("d{n}"), &body));
            let accepted: Value = answer.expect(202).json();
            assert_eq!(accepted["itemId"], format!("{scheme}-{n}"));

            let body = format!(r#"{{"id":"{scheme}-{n}-bearer","event_id":"Ev{n}b"}}"#);
            let target = format!("/api/webhook/{scheme}");
            assert!(made.url.ends_with(&target));
            let signed = headers(
                scheme,
                made.key(),
                &format!("b{n}"),
                now_s(),
                body.as_bytes(),
            );
            let request = with(Request::post(&target).bearer(&made.ingest_key), &signed);
            server.call(&request.body(body)).expect(202);
            assert_eq!(server.log(scheme).len(), 2 * n);
        }
    };
    deliver(&server, 1);
    // Schemes, hooks and keys are in the control log.
    let server = server.restart();
    deliver(&server, 2);
}

#[test]
fn the_pages_own_senders_may_have_a_hook_without_a_signature() {
    let data = Data::new();
    let server = data.serve();
    let made = add(&server, &json!({"stream": "plain", "scheme": "hookpool"}));
    assert_eq!(made.signing_key, None);
    server
        .call(&Request::post(made.hook()).body(r#"{"id":"a"}"#))
        .expect(202);
    let unnamed: Value = server
        .admin("POST", "connectors", &json!({"stream": "unnamed"}))
        .expect(201)
        .json();
    assert_eq!(unnamed.get("hookUrl"), None);
    assert_eq!(unnamed["scheme"], "hookpool");
}

#[test]
fn slack_is_answered_its_challenge_and_nothing_is_recorded() {
    let data = Data::new();
    let server = data.serve();
    let slack = of_scheme(&server, "slack");
    let question = r#"{"token":"t","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}"#;
    let answer = server
        .call(&delivery(&slack, "slack", "", question))
        .expect(200);
    assert_eq!(
        answer.header("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(
        answer.text(),
        "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"
    );
    assert_eq!(answer.header("DataPool-Position"), None);
    // Unsigned, or signed with another key, it is no question of Slack's.
    let unsigned = Request::post(slack.hook()).body(question);
    server
        .call(&unsigned)
        .expect_problem(401, "SIGNATURE_INVALID");
    let other = headers(
        "slack",
        "another-signing-secret",
        "",
        now_s(),
        question.as_bytes(),
    );
    let refused = server.call(&to_hook(&slack, &other, question));
    refused.expect_problem(401, "SIGNATURE_INVALID");
    assert!(server.log("slack").is_empty());
    // To others it is an event like any other.
    let stripe = of_scheme(&server, "stripe");
    server
        .call(&delivery(&stripe, "stripe", "", question))
        .expect(202);
}

#[test]
fn cloudevents_may_ask_whether_they_may_come() {
    let data = Data::new();
    let server = data.serve();
    let made = add(&server, &json!({"stream": "events", "scheme": "hookpool"}));
    let ask = |target: &str| {
        Request::new("OPTIONS", target)
            .header("WebHook-Request-Origin", "eventemitter.example.com")
            .header("WebHook-Request-Rate", "120")
    };
    let answer = server.call(&ask(made.hook())).expect(200);
    assert_eq!(
        answer.header("WebHook-Allowed-Origin"),
        Some("eventemitter.example.com")
    );
    assert_eq!(answer.header("WebHook-Allowed-Rate"), Some("*"));
    assert_eq!(answer.header("Allow"), Some("OPTIONS, POST"));
    assert!(answer.body.is_empty());
    let refused = server.call(&ask("/api/hooks/hk_000000000000_nobody"));
    refused.expect_problem(401, "UNAUTHORIZED");
    // Without an origin it is another question, and not for a browser's page either.
    let other = Request::new("OPTIONS", made.hook())
        .header("Origin", "https://app.example.com")
        .header("Access-Control-Request-Method", "POST");
    let refused = server.call(&other);
    refused.expect_problem(405, "METHOD_NOT_ALLOWED");
    assert_eq!(refused.header("Allow"), Some("OPTIONS, POST"));
    assert_eq!(refused.header("Access-Control-Allow-Origin"), None);
    let get = server.call(&Request::get(made.hook()));
    get.expect_problem(405, "METHOD_NOT_ALLOWED");
    assert!(server.log("events").is_empty());
}

#[test]
fn a_senders_own_key_is_set_and_rotated_with_an_overlap() {
    let data = Data::new();
    let server = data.serve();
    let (first, second) = ("whsec_of-the-sender-1", "whsec_of-the-sender-2");
    let settings = json!({"stream": "pay", "scheme": "stripe", "signingKey": first});
    let made = add(&server, &settings);
    assert_eq!(made.key(), first);
    let send = |key: &str, n: u32| {
        let body = format!(r#"{{"id":"evt_{n}"}}"#);
        let signed = headers("stripe", key, "", now_s(), body.as_bytes());
        server.call(&to_hook(&made, &signed, &body)).status
    };
    assert_eq!((send(first, 1), send(second, 2)), (202, 401));
    let rotate = |key: &str, overlap: u64| {
        let body = json!({"signingKey": key, "overlapSeconds": overlap});
        server.admin("POST", "connectors/pay/signing-keys:rotate", &body)
    };
    let answer: Value = rotate(second, 600).expect(200).json();
    assert_eq!(answer["signingKey"], second);
    assert_eq!((send(first, 3), send(second, 4)), (202, 202));
    // Stripe signs with both for a while; one of them is enough.
    let body = r#"{"id":"evt_5"}"#;
    let mut both = headers(
        "stripe",
        "whsec_nobody-has-this",
        "",
        now_s(),
        body.as_bytes(),
    );
    let good = headers("stripe", second, "", now_s(), body.as_bytes());
    let v1 = good[0].1.split(',').nth(1).unwrap();
    both[0].1 = format!("{},{v1}", both[0].1);
    server.call(&to_hook(&made, &both, body)).expect(202);
    rotate("whsec_of-the-sender-3", 0).expect(200);
    assert_eq!((send(first, 6), send(second, 7)), (401, 401));
    assert_eq!(send("whsec_of-the-sender-3", 8), 202);
}

#[test]
fn a_key_that_is_no_secret_is_refused_and_not_echoed() {
    let data = Data::new();
    let server = data.serve();
    of_scheme(&server, "github");
    let short = "0451-short-key";
    for key in ["", "   ", "\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t", short] {
        let body = json!({"stream": "new", "scheme": "github", "signingKey": key});
        let created = server.admin("POST", "connectors", &body);
        let body = json!({"signingKey": key});
        let rotated = server.admin("POST", "connectors/github/signing-keys:rotate", &body);
        for refused in [created, rotated] {
            refused.expect_problem(400, "INVALID_PAYLOAD");
            assert!(
                refused.text().contains("at least 16 characters"),
                "{refused:?}"
            );
            assert!(!refused.text().contains("0451"), "{refused:?}");
        }
    }
    server.get("/api/admin/connectors/new").expect(404);
    let broken = json!({"stream": "new", "scheme": "standard-webhooks", "signingKey": "whsec_!0451-not-base64-at-all"});
    let refused = server.admin("POST", "connectors", &broken);
    refused.expect_problem(400, "INVALID_PAYLOAD");
    assert!(!refused.text().contains("0451"), "{refused:?}");
    for scheme in [
        json!("gitlab"),
        json!({"header": "X-Sig"}),
        json!({"header": "X-Sig", "template": "{timestamp}{body}", "timestampHeader": "X-T"}),
    ] {
        let body = json!({"stream": "new", "scheme": scheme});
        server
            .admin("POST", "connectors", &body)
            .expect_problem(400, "INVALID_PAYLOAD");
    }
}

#[test]
fn an_id_field_may_be_a_json_pointer_everywhere() {
    let data = Data::new();
    let server = data.serve();
    let settings = json!({"stream": "issues", "scheme": "github", "idField": "/issue/id"});
    let made = add(&server, &settings);
    let body = r#"{"action":"opened","issue":{"id":73464126,"labels":["bug"]},"repository":{"id":1296269,"a/b":{"m~n":"x"}}}"#;
    let item = |answer: Response| answer.expect(202).json::<Value>()["itemId"].clone();
    let mut n = 0;
    let mut send = |query: &str| {
        n += 1;
        let signed = headers(
            "github",
            made.key(),
            &format!("d{n}"),
            now_s(),
            body.as_bytes(),
        );
        let hook = Request::post(&format!("{}{query}", made.hook()));
        let at_hook = server.call(&with(hook, &signed).body(body));
        n += 1;
        let signed = headers(
            "github",
            made.key(),
            &format!("d{n}"),
            now_s(),
            body.as_bytes(),
        );
        let webhook =
            Request::post(&format!("/api/webhook/issues{query}")).bearer(&made.ingest_key);
        let at_webhook = server.call(&with(webhook, &signed).body(body));
        assert_eq!(at_hook.status, at_webhook.status, "{query}");
        at_hook
    };
    assert_eq!(item(send("")), "73464126");
    assert_eq!(item(send("?idField=/repository/id")), "1296269");
    assert_eq!(item(send("?idField=%2Frepository%2Fa~1b%2Fm~0n")), "x");
    assert_eq!(item(send("?idField=/issue/labels/0")), "bug");
    assert_eq!(item(send("?idField=action")), "opened");
    let generated = send("?idField=/sender/id").expect(202);
    assert_eq!(generated.header("DataPool-Notice"), Some("generated-id"));
    for broken in ["/~", "/a~2b", "/issue/~"] {
        let refused = send(&format!("?idField={}", percent(broken)));
        refused.expect_problem(400, "INVALID_PARAMETER");
    }
    let broken = json!({"stream": "new", "idField": "/a~2"});
    let refused = server.admin("POST", "connectors", &broken);
    refused.expect_problem(400, "INVALID_PAYLOAD");
    assert!(refused.text().contains("JSON Pointer"), "{refused:?}");
}

#[test]
fn a_connector_is_changed_in_place() {
    let data = Data::new();
    let server = data.serve();
    let made = of_scheme(&server, "slack");
    let body = r#"{"event_id":"Ev1","id":"a","event":{"channel":"C1"}}"#;
    let item = |server: &Server| {
        let answer = server.call(&delivery(&made, "slack", "", body));
        answer.expect(202).json::<Value>()["itemId"].clone()
    };
    let change = |body: &Value| server.admin("PATCH", "connectors/slack", body);
    let changed: Value = change(&json!({"idField": "/event/channel", "replay": "allow"}))
        .expect(200)
        .json();
    assert_eq!(
        (&changed["idField"], &changed["replay"]),
        (&json!("/event/channel"), &json!("allow"))
    );
    assert_eq!(changed["scheme"], "slack");
    assert_eq!(item(&server), "C1");
    let changed: Value = change(&json!({"replay": "allow"})).expect(200).json();
    assert_eq!(changed["idField"], "/event/channel");
    change(&json!({"idField": "/~"})).expect_problem(400, "INVALID_PAYLOAD");
    change(&json!({"scheme": "github"})).expect_problem(400, "INVALID_PAYLOAD");
    let changed: Value = change(&json!({"idField": null})).expect(200).json();
    assert_eq!(changed["idField"], Value::Null);
    assert_eq!(item(&server), "a");
    let unknown = server.admin("PATCH", "connectors/nobody", &json!({"replay": "allow"}));
    unknown.expect_problem(404, "NOT_FOUND");
    let server = server.restart();
    assert_eq!(item(&server), "a");
    assert_eq!(server.log("slack").len(), 3, "replay: allow");
}

#[test]
fn a_signed_request_that_comes_again_is_one_event_in_every_scheme_with_a_timestamp() {
    let data = Data::new();
    let server = data.serve();
    for scheme in [
        "hookpool",
        "standard-webhooks",
        "stripe",
        "slack",
        "custom",
        "custom-signed",
    ] {
        let made = of_scheme(&server, scheme);
        let request = delivery(&made, scheme, "d1", r#"{"n":1}"#);
        let first = server.call(&request).expect(202);
        let again = server.call(&request).expect(202);
        assert_eq!(position(&first), position(&again), "{scheme}");
        assert_eq!(
            again.header("Idempotency-Replayed"),
            Some("true"),
            "{scheme}"
        );
        assert_eq!(first.body, again.body);
    }
    // One of two signatures taken away, it is still the same request.
    let stripe = json!({"overlapSeconds": 600, "signingKey": "whsec_of-the-sender-2"});
    let made: Made = add(&server, &json!({"stream": "pay", "scheme": "stripe"}));
    server
        .admin("POST", "connectors/pay/signing-keys:rotate", &stripe)
        .expect(200);
    let body = r#"{"n":2}"#;
    let now = now_s();
    let mut both = headers("stripe", made.key(), "", now, body.as_bytes());
    let second = headers("stripe", "whsec_of-the-sender-2", "", now, body.as_bytes());
    let v1 = second[0].1.split(',').nth(1).unwrap();
    both[0].1 = format!("{},{v1}", both[0].1);
    let first = position(&server.call(&to_hook(&made, &both, body)).expect(202));
    assert_eq!(
        position(&server.call(&to_hook(&made, &second, body)).expect(202)),
        first
    );
}

/// Senders try again for days, sign anew each time, and change what they count in the body.
#[test]
fn a_delivery_that_its_sender_tries_again_is_one_event() {
    let data = Data::new();
    let mut server = data.serve();
    let named = [
        "standard-webhooks",
        "github",
        "stripe",
        "slack",
        "shopify",
        "custom-signed",
        "custom-trusted",
        "custom-field",
    ];
    let made = named.map(|scheme| of_scheme(&server, scheme));
    let send = |server: &Server, made: &Made, scheme: &str, n: u32, attempt: u64| {
        let body = format!(
            r#"{{"id":"evt_{n}","event_id":"Ev{n}","meta":{{"delivery":{n}}},"attempt":{attempt}}}"#
        );
        let at = now_s() - 20 + attempt;
        let signed = headers(scheme, made.key(), &format!("d{n}"), at, body.as_bytes());
        server.call(&to_hook(made, &signed, &body)).expect(202)
    };
    for (scheme, made) in named.into_iter().zip(&made) {
        let first = send(&server, made, scheme, 1, 1);
        assert_eq!(first.header("Idempotency-Replayed"), None);
        server = server.restart();
        let again = send(&server, made, scheme, 1, 2);
        assert_eq!(
            again.header("Idempotency-Replayed"),
            Some("true"),
            "{scheme}"
        );
        assert_eq!(
            (position(&again), &again.body),
            (position(&first), &first.body)
        );
        let other = send(&server, made, scheme, 2, 3);
        assert!(position(&other) > position(&first), "{scheme}");
        let log = server.log(scheme);
        assert_eq!(log.len(), 2, "{scheme}");
        assert!(log[0].body.contains(r#""attempt":1"#));
    }
    // An id in a header counts before the body is read.
    let (mangled, github) = ("mangled on its way", &made[1]);
    let again = server
        .call(&delivery(github, "github", "d1", mangled))
        .expect(202);
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    server
        .call(&delivery(github, "github", "d9", mangled))
        .expect(400);
    // One event that Shopify tells under two topics is two deliveries.
    let body = r#"{"id":7}"#;
    let mut told = headers("shopify", made[4].key(), "d3", now_s(), body.as_bytes());
    let first = position(&server.call(&to_hook(&made[4], &told, body)).expect(202));
    told[0].1 = "orders/paid".to_owned();
    assert!(position(&server.call(&to_hook(&made[4], &told, body)).expect(202)) > first);
}

#[test]
fn an_operator_is_told_of_a_scheme_that_knows_no_repetition() {
    let data = Data::new();
    let server = data.serve();
    let told = |args: &[&str]| {
        let mut command = hookpool();
        command.arg("connector").args(args);
        command.args(["--server", &server.url(), "--operator-key-file"]);
        let output = command
            .arg(data.path().join("operator.key"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", both(&output));
        both(&output).contains("neither a timestamp nor a delivery id")
    };
    let bare = r#"{"header":"X-Sig","template":"{body}"}"#;
    let named = r#"{"header":"X-Sig","template":"{body}","deliveryField":"id"}"#;
    for (stream, scheme, expected) in [
        ("bare", bare, true),
        ("named", named, false),
        ("gh", "github", false),
        ("own", "hookpool", false),
    ] {
        let added = told(&["add", stream, "--scheme", scheme]);
        assert_eq!(
            (added, told(&["show", stream])),
            (expected, expected),
            "{stream}"
        );
    }
    assert!(!told(&["set", "bare", "--replay", "allow"]));
}

/// Where the id is not signed it is trusted, and a delivery without one counts each time.
#[test]
fn a_custom_scheme_may_name_deliveries_or_not() {
    let data = Data::new();
    let server = data.serve();
    let trusted = of_scheme(&server, "custom-trusted");
    let body = r#"{"n":1}"#;
    let send = |made: &Made, headers: &Headers, body: &str| {
        let answer = server.call(&to_hook(made, headers, body)).expect(202);
        answer.header("Idempotency-Replayed").is_some()
    };
    let mut signed = headers("custom-trusted", trusted.key(), "d1", 0, body.as_bytes());
    assert!(!send(&trusted, &signed, body) && send(&trusted, &signed, body));
    signed[0].1 = "d2".to_owned();
    assert!(!send(&trusted, &signed, body) && send(&trusted, &signed, body));
    signed.remove(0);
    assert!(!send(&trusted, &signed, body) && !send(&trusted, &signed, body));
    let field = of_scheme(&server, "custom-field");
    let unnamed = headers("custom-field", field.key(), "", 0, body.as_bytes());
    assert!(!send(&field, &unnamed, body) && !send(&field, &unnamed, body));
    for scheme in [
        json!({"header": "X-Sig", "template": "{id}.{body}"}),
        json!({"header": "X-Sig", "template": "{id}{body}", "deliveryHeader": "X-Id"}),
        json!({"header": "X-Sig", "template": "{body}", "deliveryHeader": "X-Sig"}),
        json!({"header": "X-Sig", "template": "{body}", "deliveryField": "/~"}),
        json!({"header": "X-Sig", "template": "{body}", "deliveryHeader": "X-Id", "deliveryField": "id"}),
    ] {
        let refused = server.admin(
            "POST",
            "connectors",
            &json!({"stream": "new", "scheme": scheme}),
        );
        refused.expect_problem(400, "INVALID_PAYLOAD");
        assert!(
            refused.text().contains("delivery") || refused.text().contains("{id}"),
            "{refused:?}"
        );
    }
}
