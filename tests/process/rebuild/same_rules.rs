//! A rebuild under the rules that are served changes nothing, whatever happens while it runs.

use std::time::Duration;

use serde_json::{Value, json};

use super::writers::Writers;
use super::{Operated, counts_of, deliver, operate};
use crate::common::fold::fold;
use crate::common::server::Data;

const STREAM: &str = "ledger";

/// Deliveries with merges, nested values, generated ids and odd numbers.
pub(super) fn bodies(count: usize) -> Vec<String> {
    let body = |n: usize| match n % 5 {
        0 => format!(
            r#"{{"id":"item-{}","a":{n}.0,"b":{{ "n" : [{n}, null] }}}}"#,
            n % 37
        ),
        1 => format!(r#"{{"id":"item-{}","c":"\u00e9\n{n}","a":null}}"#, n % 41),
        2 => format!(r#"{{"id":{},"d":1.50e+{}}}"#, n % 23, n % 9),
        3 => format!(r#"{{"id":"item-{}"}}"#, n % 37),
        _ => format!(r#"{{"no":{n}}}"#),
    };
    (0..count).map(body).collect()
}

#[test]
fn the_hash_of_a_state_can_be_made_by_hand() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector(STREAM, false);
    let stream = operate(&server, STREAM);
    let mut all = bodies(60);
    all.extend(["a/b", "ü %", "..", "Z", "a\\u2028"].map(|id| format!(r#"{{"id":"{id}"}}"#)));
    let last = deliver(&server, &connector, &all);
    assert_eq!(stream.hash_by_hand(last), stream.hash());
    stream.put_in_force(&json!({"merge": "replace", "fields": {"e": {"default": {"x": [1]}}}}));
    assert_eq!(stream.hash_by_hand(last), stream.hash());
}

#[test]
fn the_same_rules_make_the_same_state() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector(STREAM, false);
    let stream = operate(&server, STREAM);
    let last = deliver(&server, &connector, &bodies(200));
    server.items(STREAM, last);
    let before = stream.hash();
    stream.start(&json!({}));
    let digest = stream.digest();
    assert_eq!(counts_of(&stream.status()), json!([0, 0, 0]));
    assert_eq!(stream.diff(), (digest.clone(), Vec::new()));
    stream.promote(Some(&format!("\"{digest}\""))).expect(200);
    assert_eq!(stream.hash(), before);
    stream.post(":rollback", &Value::Null).expect(200);
    assert_eq!(stream.hash(), before);
}

#[test]
fn the_same_rules_make_the_same_state_while_writers_go_on() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector(STREAM, false);
    let stream = operate(&server, STREAM);
    deliver(&server, &connector, &bodies(400));
    let writers = Writers::start(&server, &connector, &bodies(100), Duration::from_millis(1));
    stream.start(&json!({}));
    let digest = stream.digest();
    assert_eq!(counts_of(&stream.status()), json!([0, 0, 0]));
    // Nothing differs, so the digest stands still on the busiest stream.
    stream.promote(Some(&format!("\"{digest}\""))).expect(200);
    let written = writers.finish();
    assert_eq!(written.cut, 0);
    check_both_generations(stream);
    eprintln!("{} events meanwhile", written.accepted);
}

/// Both generations are the fold of the log, byte for byte.
pub(super) fn check_both_generations(stream: Operated<'_>) {
    let log = stream.server.log(STREAM);
    let last = log.last().unwrap().position;
    let (_, items) = stream.server.items(STREAM, last);
    assert_eq!(items, fold(&log));
    let promoted = stream.hash();
    let served: Value = stream.post(":rollback", &Value::Null).expect(200).json();
    assert!(served["generation"].as_u64() < served["previous"].as_u64());
    assert_eq!(stream.hash(), promoted);
    stream.post(":rollback", &Value::Null).expect(200);
    assert_eq!(stream.hash(), promoted);
}
