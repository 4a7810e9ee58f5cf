//! Rules and bodies at random: whatever an operator writes and senders send, the page says what comes of it.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::histories::check_bodies;
use super::operate;
use crate::common::http::Request;
use crate::common::seeded;
use crate::common::shared::shared;

const SETS: usize = 16;
const EVENTS: usize = 60;

#[test]
fn any_rules_make_what_the_page_says() {
    let mut rng = seeded("any_rules_make_what_the_page_says");
    let shared = shared();
    shared.server.add_connector("any-rules", false);
    let mut sets = 0;
    while sets < SETS {
        let rules = rules(&mut rng);
        if !can_be_followed(&rules) {
            continue;
        }
        eprintln!("{rules}");
        let bodies: Vec<String> = (0..EVENTS).map(|_| body(&mut rng)).collect();
        check_bodies(&format!("any-{sets}"), &rules, &bodies);
        sets += 1;
    }
}

fn can_be_followed(rules: &Value) -> bool {
    let shared = shared();
    let stream = operate(&shared.server, "any-rules");
    let target = format!("/api/admin/streams/{}/projection?check=true", stream.name);
    let request = Request::new("PUT", &target).bearer(&shared.server.operator_key);
    let answer = shared.server.call(&request.body(rules.to_string()));
    if answer.status != 200 {
        answer.expect_problem(400, "INVALID_PAYLOAD");
    }
    answer.status == 200
}

const SCALARS: &[&str] = &[
    "1",
    "2.0",
    "-0",
    "1e2",
    "\"1\"",
    "\"1.50\"",
    "\"true\"",
    "true",
    "false",
    "null",
    "null",
    "\"\"",
    "\"x\"",
    "\"\\u0041\\n\"",
    "\"2024-01-01T00:00:00Z\"",
    "\"2024-01-01T00:00:00.5+01:00\"",
    "\"9999-12-31T23:59:59Z\"",
    "\"2024-01-01\"",
    "1700000000",
    "1700000000123",
    "170000000000000",
    "\"[1, {}]\"",
    "\"{\\\"a\\\": 1}\"",
    "\"null\"",
    "0.10",
    "\"-5\"",
    "1E+3",
    "123456789012345678901234567890",
    "\"\u{fc}\"",
];

const NAMES: &[&str] = &["a", "b", "c", "a.b", "a/b", "~x", "0"];

const SOURCES: &[&str] = &[
    "a", "/a", "/b", "/a/b", "/a/0", "/a~1b", "/~0x/a", "c", "/c/a/b", "a.b", "/a.b/c", "/a/a",
];

const DEFAULTS: &[&str] = &[
    "1",
    "\"1\"",
    "true",
    "\"2024-01-01T00:00:00+02:00\"",
    "{\"x\":[1]}",
    "\"{}\"",
];

fn one<'a>(rng: &mut StdRng, of: &[&'a str]) -> &'a str {
    of[rng.random_range(0..of.len())]
}

fn value(rng: &mut StdRng, depth: u32) -> String {
    match rng.random_range(0..5) {
        3 if depth > 0 => {
            let elements: Vec<String> = (0..rng.random_range(0..3))
                .map(|_| value(rng, depth - 1))
                .collect();
            format!("[{}]", elements.join(", "))
        }
        4 if depth > 0 => object(rng, depth - 1, 3),
        _ => one(rng, SCALARS).to_owned(),
    }
}

fn body(rng: &mut StdRng) -> String {
    let mut members = members(rng, 3, 6);
    members.insert(0, format!(r#""id":"i{}""#, rng.random_range(0..4)));
    format!("{{{}}}", members.join(","))
}

fn object(rng: &mut StdRng, depth: u32, most: usize) -> String {
    format!("{{{}}}", members(rng, depth, most).join(","))
}

fn members(rng: &mut StdRng, depth: u32, most: usize) -> Vec<String> {
    (0..rng.random_range(0..=most))
        .map(|_| format!("\"{}\" :{}", one(rng, NAMES), value(rng, depth)))
        .collect()
}

fn rules(rng: &mut StdRng) -> Value {
    let mut rules = json!({});
    for (key, words) in [
        ("id", SOURCES),
        ("order-by", SOURCES),
        ("merge", &["replace"]),
        ("nulls", &["delete"]),
        ("unknown", &["drop"]),
    ] {
        if rng.random_bool(0.4) {
            rules[key] = one(rng, words).into();
        }
    }
    for _ in 0..rng.random_range(0..4) {
        rules["fields"][one(rng, &["a", "b", "c", "d", "a.b", "e"])] = rule(rng);
    }
    rules
}

fn rule(rng: &mut StdRng) -> Value {
    let mut rule = json!({});
    for (key, words, likely) in [
        ("from", SOURCES, 0.6),
        (
            "type",
            &["string", "number", "boolean", "time", "json"][..],
            0.5,
        ),
        ("flatten", &[".", "_", ""], 0.2),
    ] {
        if rng.random_bool(likely) {
            rule[key] = one(rng, words).into();
        }
    }
    if rng.random_bool(0.3) {
        rule["default"] = serde_json::from_str(one(rng, DEFAULTS)).unwrap();
    }
    if rng.random_bool(0.1) {
        rule["drop"] = true.into();
    }
    rule
}
