//! A rebuild under the rules that are served changes nothing, whatever happens while it runs.

use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::{Value, json};

use super::writers::Writers;
use super::{Operated, counts_of, deliver, operate};
use crate::common::fold::fold;
use crate::common::server::{Data, position};
use crate::common::{number_from_env, seeded};

const STREAM: &str = "ledger";

/// Deliveries with merges, nested values, generated ids and odd numbers.
fn bodies(count: usize) -> Vec<String> {
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
fn check_both_generations(stream: Operated<'_>) {
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

#[test]
fn a_rebuild_survives_a_few_kills() {
    kills("a_rebuild_survives_a_few_kills", 3);
}

#[test]
#[ignore = "needs half a minute: tests/run"]
fn a_rebuild_survives_many_kills() {
    let rounds = number_from_env("HOOKPOOL_ROUNDS").unwrap_or(50);
    kills("a_rebuild_survives_many_kills", (rounds * 3).div_ceil(10));
}

/// Fast enough to end within a few rounds, slow enough for most kills to land in its middle.
const EVENTS_PER_SECOND: u32 = 600;

fn kills(test: &str, rounds: u64) {
    let (started, mut rng, data) = (Instant::now(), seeded(test), Data::new());
    let mut server = data.serve();
    let connector = server.add_connector(STREAM, false);
    deliver(&server, &connector, &bodies(1_200));
    operate(&server, STREAM).start(&json!({"eventsPerSecond": EVENTS_PER_SECOND}));
    let writers = Writers::start(
        &server,
        &connector,
        &bodies(100),
        Duration::from_millis(150),
    );
    let mut kills = Kills::default();
    for round in 0..rounds {
        // A rebuild commits every two seconds: some rounds are too short for that, some are not.
        // The first one is sure to hit it.
        let within = if round == 0 { 500..1_500 } else { 20..2_600 };
        std::thread::sleep(Duration::from_millis(rng.random_range(within)));
        kills.note(&operate(&server, STREAM).status());
        server.kill9();
        server = data.serve();
        writers.meet(server.addr);
        let hasty = rng.random_bool(0.3);
        kills.promoted += u64::from(promote_if_ready(operate(&server, STREAM), hasty));
        if hasty {
            std::thread::sleep(Duration::from_millis(rng.random_range(0..150)));
            kills.note(&operate(&server, STREAM).status());
            server.kill9();
            server = data.serve();
            writers.meet(server.addr);
        }
    }
    let stream = operate(&server, STREAM);
    let status = stream.ready();
    assert_eq!(counts_of(&status), json!([0, 0, 0]));
    stream
        .promote(Some(&format!("\"{}\"", stream.digest())))
        .expect(200);
    let written = writers.finish();
    let last = server.post(&connector, r#"{"id":"last"}"#).expect(202);
    server.items(STREAM, position(&last));
    check_both_generations(stream);
    assert!(kills.in_the_middle > 0, "no kill hit a rebuild");
    eprintln!(
        "{rounds} kills in {:.0?}: {kills:?}, {written:?}",
        started.elapsed()
    );
}

#[derive(Debug, Default)]
struct Kills {
    before_it_began: u64,
    in_the_middle: u64,
    when_ready: u64,
    promoted: u64,
}

impl Kills {
    fn note(&mut self, status: &Value) {
        let done = status["done"].as_u64();
        match status["state"].as_str().unwrap() {
            "running" if done == Some(0) => self.before_it_began += 1,
            "running" => self.in_the_middle += 1,
            "ready" => self.when_ready += 1,
            state => panic!("a kill left the rebuild {state}: {status}"),
        }
    }
}

/// Puts one that was ready before the kill in force, and starts another: a hasty one is hit where it is handed over and compared.
fn promote_if_ready(stream: Operated<'_>, hasty: bool) -> bool {
    let status = stream.status();
    if status["state"] != "ready" {
        return false;
    }
    assert_eq!(counts_of(&status), json!([0, 0, 0]));
    stream.promote(Some("*")).expect(200);
    let pace = (!hasty).then_some(EVENTS_PER_SECOND);
    stream.start(&json!({"eventsPerSecond": pace}));
    true
}
