//! Rebuilds over HTTP and the command line: `docs/projections.md`, from the first event to the release, on the real binary.

mod any_rules;
mod guards;
mod histories;
mod kills;
mod one_item;
mod operating;
mod passages;
mod places;
mod same_rules;
mod schema_change;
mod writers;

use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::fold::{Field, as_served};
use crate::common::http::{Request, Response};
use crate::common::program::hookpool;
use crate::common::projection::Difference;
use crate::common::server::{Connector, Server, percent, position};
use crate::common::{eventually, hex};

/// A stream of a server, as an operator sees it.
#[derive(Clone, Copy)]
struct Operated<'a> {
    server: &'a Server,
    name: &'a str,
}

fn operate<'a>(server: &'a Server, name: &'a str) -> Operated<'a> {
    Operated { server, name }
}

impl Operated<'_> {
    fn post(&self, path: &str, body: &Value) -> Response {
        let target = format!("streams/{}{path}", self.name);
        self.server.admin("POST", &target, body)
    }

    fn get(&self, path: &str) -> Response {
        let target = format!("/api/admin/streams/{}{path}", self.name);
        self.server.get(&target)
    }

    fn start(&self, body: &Value) -> Value {
        self.post("/rebuilds", body).expect(201).json()
    }

    fn act(&self, act: &str) -> Response {
        self.post(&format!("/rebuilds/current:{act}"), &Value::Null)
    }

    fn status(&self) -> Value {
        self.get("/rebuilds/current").expect(200).json()
    }

    /// Waits for the end of the comparison.
    fn ready(&self) -> Value {
        self.ready_within(Duration::from_secs(60))
    }

    fn ready_within(&self, limit: Duration) -> Value {
        eventually("the rebuild is ready", limit, || {
            let status = self.status();
            assert_ne!(status["state"], "failed", "{status}");
            (status["state"] == "ready").then_some(status)
        })
    }

    fn digest(&self) -> String {
        self.ready()["diff"]["digest"].as_str().unwrap().to_owned()
    }

    fn promote(&self, if_match: Option<&str>) -> Response {
        let target = format!("/api/admin/streams/{}/rebuilds/current:promote", self.name);
        let mut request = Request::post(&target).bearer(&self.server.operator_key);
        if let Some(value) = if_match {
            request = request.header("If-Match", value);
        }
        self.server.call(&request.body(""))
    }

    /// The rules in force before anything else happens.
    fn put_in_force(&self, rules: &Value) {
        self.start(&json!({"projection": rules}));
        self.promote(Some(&format!("\"{}\"", self.digest())))
            .expect(200);
    }

    /// The whole difference and its digest.
    fn diff(&self) -> (String, Vec<Difference>) {
        let answer = self.get("/rebuilds/current/diff").expect(200);
        assert_eq!(answer.header("Content-Type"), Some("application/x-ndjson"));
        let digest = answer.header("ETag").unwrap().trim_matches('"').to_owned();
        (digest, answer.text().lines().map(difference).collect())
    }

    fn row(&self) -> Value {
        let target = format!("/api/streams/{}", self.name);
        self.server.get(&target).expect(200).json()
    }

    fn hash(&self) -> String {
        let target = format!("/api/streams/{}?hash=true", self.name);
        let row: Value = self.server.get(&target).expect(200).json();
        row["stateHash"].as_str().unwrap().to_owned()
    }

    /// The same from the items, one by one.
    fn hash_by_hand(&self, min_position: u64) -> String {
        let (_, items) = self.server.items(self.name, min_position);
        let (mut hash, mut connection) = (Sha256::new(), self.server.connect());
        for id in items.keys() {
            let target = format!("/api/streams/{}/items/{}?meta=true", self.name, percent(id));
            let request = Request::get(&target).bearer(&self.server.operator_key);
            hash.update(connection.call(&request).unwrap().expect(200).body);
            hash.update("\n");
        }
        hex(&hash.finalize())
    }

    /// `hookpool` with a key, as an operator at a terminal.
    fn cli(&self, args: &[&str]) -> Output {
        let mut command = hookpool();
        command
            .env("HOOKPOOL_SERVER", self.server.url())
            .env("HOOKPOOL_OPERATOR_KEY", &self.server.operator_key)
            .args(args);
        command.output().unwrap()
    }
}

fn difference(line: &str) -> Difference {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Line {
        kind: String,
        item_id: String,
        fields: BTreeMap<String, BTreeMap<String, Box<RawValue>>>,
    }
    let Line {
        kind,
        item_id,
        fields,
    } = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    let sides = |sides: BTreeMap<String, Box<RawValue>>| -> (Option<Field>, Option<Field>) {
        let side = |name: &str| sides.get(name).map(|value| as_served(value));
        (side("old"), side("new"))
    };
    Difference {
        kind,
        item_id,
        fields: fields
            .into_iter()
            .map(|(name, values)| (name, sides(values)))
            .collect(),
    }
}

fn counts(lines: &[Difference]) -> Value {
    let of = |kind: &str| lines.iter().filter(|line| line.kind == kind).count();
    json!([of("added"), of("removed"), of("changed")])
}

fn counts_of(status: &Value) -> Value {
    let diff = &status["diff"];
    json!([diff["added"], diff["removed"], diff["changed"]])
}

/// Posts all of them over a few connections and gives the last position.
fn deliver(server: &Server, connector: &Connector, bodies: &[String]) -> u64 {
    let share = |part: &[String]| {
        let mut connection = server.connect();
        let post = |body: &String| {
            let answer = connection
                .call(&connector.delivery(body.as_bytes()))
                .unwrap();
            position(&answer.expect(202))
        };
        part.iter().map(post).max()
    };
    std::thread::scope(|scope| {
        let parts = bodies.chunks(bodies.len().div_ceil(8).max(1));
        let posting: Vec<_> = parts.map(|part| scope.spawn(move || share(part))).collect();
        posting
            .into_iter()
            .filter_map(|part| part.join().unwrap())
            .max()
            .unwrap()
    })
}
