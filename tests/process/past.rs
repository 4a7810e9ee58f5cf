//! The past as `docs/protocol.md` promises it: `at=`, history and differences, against a fold of the log up to that moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::common::fold::{Event, Fields, Object, Pool, as_served, fold};
use crate::common::http::{Request, Response};
use crate::common::seeded;
use crate::common::server::{Connector, percent, position};
use crate::common::shared::{Shared, shared};
use crate::common::terminal::Terminal;

/// More events for each item than the pool keeps in one stretch of its past.
const EVENTS: usize = 400;
const ITEMS: [&str; 3] = ["North", "South/1", "ü"];

struct Stream {
    shared: Arc<Shared>,
    connector: Connector,
    log: Vec<Event>,
}

impl Stream {
    /// Random changes of three items.
    fn filled(name: &str) -> Self {
        let mut random = seeded(name);
        let shared = shared();
        let connector = shared.server.add_connector(name, false);
        let mut connection = shared.server.connect();
        let mut last = 0;
        for n in 0..EVENTS {
            // In the end all of them are there.
            let ends = n + ITEMS.len() >= EVENTS;
            let item = match ends {
                true => ITEMS[n % ITEMS.len()],
                false => ITEMS[random.random_range(0..ITEMS.len())],
            };
            let field = random.random_range(0..4);
            let body = json!({ "id": item, "n": n, format!("f{field}"): [n] }).to_string();
            let delivery = match !ends && random.random_bool(0.1) {
                true => connector.deletion(item),
                false => connector.delivery(body.as_bytes()),
            };
            last = position(&connection.call(&delivery).unwrap().expect(202));
        }
        shared.server.items(name, last);
        let log = shared.server.log(name);
        Self {
            shared,
            connector,
            log,
        }
    }

    fn get(&self, target: &str) -> Response {
        let target = format!("/api/streams/{}/{target}", self.connector.stream);
        let key = &self.shared.server.operator_key;
        self.shared.server.call(&Request::get(&target).bearer(key))
    }

    /// The items of a moment, in pages of two.
    fn items_at(&self, at: &str) -> Pool {
        let mut pool = Pool::new();
        let mut target = format!("items?limit=2&at={at}");
        loop {
            let page: Page = self.get(&target).expect(200).json();
            for item in page.items {
                let fields = item.fields.iter();
                let fields = fields.map(|(name, value)| (name.clone(), as_served(value)));
                pool.insert(item.item_id, fields.collect());
            }
            match page.next {
                Some(next) => target = format!("items?limit=2&at={at}&after={next}"),
                None => return pool,
            }
        }
    }

    fn until(&self, position: u64) -> Vec<Event> {
        let log = self.log.iter().filter(|event| event.position <= position);
        log.cloned().collect()
    }
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Item>,
    next: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    item_id: String,
    fields: Object,
}

#[test]
fn items_at_a_position_are_the_fold_of_the_log_up_to_it() {
    let stream = Stream::filled("past-items");
    let mut random = seeded("past-items-at");
    let (first, last) = (stream.log[0].position, stream.log[EVENTS - 1].position);
    let mut moments = vec![0, first - 1, first, last - 1, last];
    moments.extend((0..40).map(|_| random.random_range(first..=last)));
    for at in moments {
        let expected = fold(&stream.until(at));
        assert_eq!(stream.items_at(&at.to_string()), expected, "at {at}");
        for id in ITEMS {
            let answer = stream.get(&format!("items/{}?at={at}", percent(id)));
            match expected.get(id) {
                Some(fields) => {
                    let item: Item = answer.expect(200).json();
                    let shown = item.fields.iter();
                    let shown = shown.map(|(name, value)| (name.clone(), as_served(value)));
                    assert_eq!(shown.collect::<Fields>(), *fields, "{id} at {at}");
                }
                None => drop(answer.expect(404)),
            }
        }
    }
}

#[test]
fn a_time_names_the_last_event_before_it() {
    let stream = Stream::filled("past-time");
    let middle = stream.log[EVENTS / 2].position;
    let event: Value = stream.get(&format!("log/{middle}")).expect(200).json();
    let time = event["time"].as_str().unwrap();
    // Events of one microsecond are one moment.
    let rows: Value = stream
        .get(&format!("log?after={}&limit=100", middle - 1))
        .expect(200)
        .json();
    let rows = rows["events"].as_array().unwrap();
    let same = rows
        .iter()
        .take_while(|row| row["time"] == time)
        .last()
        .unwrap();
    let expected = fold(&stream.until(same["position"].as_u64().unwrap()));
    assert_eq!(stream.items_at(&percent(time)), expected);
    assert!(stream.items_at("1970-01-01T00:00:00Z").is_empty());
}

#[test]
fn a_moment_that_is_not_there_is_an_error() {
    let stream = Stream::filled("past-errors");
    for at in ["18446744073709551615", "-1", "yesterday", "1.5"] {
        let answer = stream.get(&format!("items?at={at}")).expect(400);
        assert_eq!(answer.json::<Value>()["code"], "INVALID_PARAMETER", "{at}");
    }
    stream.get("items/North/history?after=x").expect(400);
    stream.get("items/nobody/history").expect(404);
    stream.get("diff?from=1").expect(400);
}

#[test]
fn events_at_a_moment_are_those_up_to_it() {
    let stream = Stream::filled("past-events");
    let middle = stream.log[EVENTS / 2].position;
    let positions = |target: &str| -> Vec<u64> {
        let page: Value = stream.get(target).expect(200).json();
        assert_eq!(page["next"], Value::Null, "{target}");
        let events = page["events"].as_array().unwrap().iter();
        events
            .map(|event| event["position"].as_u64().unwrap())
            .collect()
    };
    let until = stream.until(middle);
    let all: Vec<_> = until.iter().map(|event| event.position).collect();
    assert_eq!(positions(&format!("log?limit=1000&at={middle}")), all);
    for id in ITEMS {
        let of_item = until.iter().filter(|event| event.item_id == id);
        let of_item: Vec<_> = of_item.map(|event| event.position).collect();
        let target = format!("items/{}/history?limit=1000&at={middle}", percent(id));
        assert_eq!(positions(&target), of_item, "{id}");
        let first = of_item[0];
        stream
            .get(&format!("items/{}/history?at={}", percent(id), first - 1))
            .expect(404);
        stream.get(&format!("log/{first}?at={first}")).expect(200);
        stream
            .get(&format!("log/{first}?at={}", first - 1))
            .expect(404);
    }
    for target in ["log?", "log/1?", "items/North/history?"] {
        stream
            .get(&format!("{target}at=18446744073709551615"))
            .expect(400);
    }
}

#[test]
fn history_tells_every_event_of_an_item_with_what_it_changed() {
    let stream = Stream::filled("past-history");
    for id in ITEMS {
        let mut told = Vec::new();
        let mut after = json!(0);
        while !after.is_null() {
            let target = format!("items/{}/history?limit=70&after={after}", percent(id));
            let mut page: Value = stream.get(&target).expect(200).json();
            after = page["next"].take();
            told.extend(page["events"].as_array().unwrap().clone());
        }
        let of_item: Vec<_> = stream
            .log
            .iter()
            .filter(|event| event.item_id == id)
            .collect();
        assert_eq!(told.len(), of_item.len());
        let mut before: BTreeMap<String, Value> = BTreeMap::new();
        for (told, event) in told.iter().zip(of_item) {
            assert_eq!(told["position"], event.position);
            assert_eq!(told["superseded"], false);
            assert!(told["requestId"].as_str().unwrap().len() == 36);
            assert_eq!(told["op"], event.op);
            let mut expected = serde_json::Map::new();
            if event.op == "delete" {
                let gone = std::mem::take(&mut before).into_iter();
                let gone = gone.map(|(name, old)| (name, json!({ "old": old })));
                expected.extend(gone);
                assert_eq!(told["fields"], Value::Object(expected));
                continue;
            }
            let body: BTreeMap<String, Value> = serde_json::from_str(&event.body).unwrap();
            for (name, value) in body {
                let new = if value.is_array() {
                    json!(value.to_string())
                } else {
                    value
                };
                let old = before.insert(name.clone(), new.clone());
                if old.as_ref() != Some(&new) {
                    let old = old.map(|old| ("old".to_owned(), old));
                    let sides = old.into_iter().chain([("new".to_owned(), new)]);
                    expected.insert(name, Value::Object(sides.collect()));
                }
            }
            assert_eq!(
                told["fields"],
                Value::Object(expected),
                "{}",
                event.position
            );
        }
    }
}

#[test]
fn blame_names_the_request_of_each_field() {
    let stream = Stream::filled("past-blame");
    let item: Value = stream.get("items/North?meta=true").expect(200).json();
    for (name, origin) in item["meta"].as_object().unwrap() {
        let event: Value = stream
            .get(&format!("log/{}", origin["position"]))
            .expect(200)
            .json();
        assert_eq!(event["requestId"], origin["requestId"], "{name}");
        assert_eq!(event["time"], origin["time"], "{name}");
        assert!(
            event["body"]
                .as_str()
                .unwrap()
                .contains(&format!("\"{name}\""))
        );
    }
}

#[test]
fn the_command_line_shows_the_past_and_who_set_what() {
    let stream = Stream::filled("past-commands");
    let terminal = Terminal::at(&stream.shared.server);
    let item: Value = stream.get("items/North?meta=true").expect(200).json();
    let (blame, _) = terminal.expect("hookpool items get past-commands North --meta", 0);
    let history = "hookpool items history past-commands North --limit 1000";
    let (history, _) = terminal.expect(history, 0);
    let touched = stream.log.iter().filter(|event| event.item_id == "North");
    let touched: Vec<&Event> = touched.collect();
    // The same id comes with every event, and changes with the first and with one that follows a deletion.
    let id_changes = |position: &Value| {
        let at = touched.iter().position(|event| event.position == *position);
        let before = at.unwrap().checked_sub(1).map(|at| touched[at]);
        before.is_none_or(|event| event.op == "delete")
    };
    for (name, origin) in item["meta"].as_object().unwrap() {
        let named = ["position", "time", "connector", "requestId"].map(|fact| text(&origin[fact]));
        let has_all = |line: &&str| named.iter().all(|fact| line.contains(fact));
        let line = blame.lines().find(|line| line.starts_with(name));
        assert!(line.filter(has_all).is_some(), "{name} {origin} in {blame}");
        let line = history.lines().find(has_all);
        let changed = line.unwrap().contains(&format!("{name}="));
        let expected = name != "id" || id_changes(&origin["position"]);
        assert_eq!(changed, expected, "{history}");
    }
    assert_eq!(history.lines().count(), touched.len() + 1);

    let mut later = touched[touched.len() / 2..].iter();
    let at = later.find(|event| event.op == "upsert").unwrap().position;
    let command = format!("hookpool items get past-commands North --at {at} --output json");
    let shown: Value = serde_json::from_str(&terminal.expect(&command, 0).0).unwrap();
    let then: Value = stream
        .get(&format!("items/North?at={at}"))
        .expect(200)
        .json();
    assert_eq!(shown["fields"], then["fields"]);
    assert_ne!(shown["fields"], item["fields"]);
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn a_difference_between_two_moments_is_that_of_their_folds() {
    let stream = Stream::filled("past-diff");
    let mut random = seeded("past-diff-moments");
    let (first, last) = (stream.log[0].position, stream.log[EVENTS - 1].position);
    for _ in 0..20 {
        let (from, to) = (
            random.random_range(first - 1..=last),
            random.random_range(first - 1..=last),
        );
        let answer = stream.get(&format!("diff?from={from}&to={to}")).expect(200);
        let lines = String::from_utf8(answer.body.clone()).unwrap();
        let told: BTreeMap<String, Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .map(|line: Value| (line["itemId"].as_str().unwrap().to_owned(), line))
            .collect();
        let (old, new) = (fold(&stream.until(from)), fold(&stream.until(to)));
        for id in ITEMS {
            let kind = match (old.get(id), new.get(id)) {
                (None, Some(_)) => Some("added"),
                (Some(_), None) => Some("removed"),
                (Some(old), Some(new)) if old != new => Some("changed"),
                _ => None,
            };
            assert_eq!(
                told.get(id).map(|line| line["kind"].as_str().unwrap()),
                kind,
                "{id} {from} {to}"
            );
        }
    }
}
