//! Another schema for a history of GitHub deliveries: the difference is what an independent fold says, and nobody who reads or follows
//! sees anything but the old state, the new state, and one passage between them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use serde::Deserialize;
use serde_json::{Value, json};

use super::writers::{Writers, Written};
use super::{Operated, counts, counts_of, deliver, operate};
use crate::common::fold::{Object, Pool};
use crate::common::follower::{Follower, Framing, From, named, state};
use crate::common::http::{Connection, Request};
use crate::common::program::{both, tool};
use crate::common::projection::{Projected, difference};
use crate::common::server::{Connector, Data, Server, percent, position};
use crate::common::sse::Frame;
use crate::common::{number_from_env, seeded};

/// How often the real bodies are delivered, each time with other repositories; `HOOKPOOL_REPEATS` says another number: 3,040 are a
/// million events and 10 GB.
const REPEATS: usize = 6;

const STREAM: &str = "github";

fn rules() -> Value {
    json!({
        "id": "/repository/id",
        "unknown": "drop",
        "fields": {
            "name": {"from": "/repository/full_name", "type": "string"},
            "owner": {"from": "/repository/owner", "flatten": "."},
            "pushed": {"from": "/repository/pushed_at", "type": "time"},
            "stars": {"from": "/repository/stargazers_count", "type": "number", "default": 0},
            "private": {"from": "/repository/private", "type": "boolean"},
            "by-whom": {"from": "/sender/login", "type": "string", "default": "nobody"},
        },
    })
}

#[test]
fn another_schema_is_looked_at_served_and_taken_back() {
    let mut rng = seeded("another_schema_is_looked_at_served_and_taken_back");
    let bodies: Vec<String> = (0..300).map(|_| delivery(&mut rng)).collect();
    Change::new(bodies, 1, false).run();
}

#[test]
fn a_rollback_restores_the_hash_from_before_another_schema() {
    let mut rng = seeded("a_rollback_restores_the_hash_from_before_another_schema");
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector(STREAM, false);
    let stream = operate(&server, STREAM);
    let bodies: Vec<String> = (0..300).map(|_| delivery(&mut rng)).collect();
    server.items(STREAM, deliver(&server, &connector, &bodies));
    let before = stream.hash();
    stream.put_in_force(&rules());
    assert_ne!(stream.hash(), before);
    stream.post(":rollback", &Value::Null).expect(200);
    assert_eq!(stream.hash(), before);
}

#[test]
#[ignore = "needs the payloads: tests/run"]
fn another_schema_for_real_deliveries_is_looked_at_served_and_taken_back() {
    let text = std::fs::read_to_string(tool("HOOKPOOL_GITHUB_PAYLOADS")).unwrap();
    let bodies = text.lines().map(str::to_owned).collect();
    let repeats = number_from_env("HOOKPOOL_REPEATS");
    let count = repeats.map_or(REPEATS, |repeats| usize::try_from(repeats).unwrap());
    // Almost none has an id: with many of them, the state before the change would be as large as the log.
    Change::new(bodies, count, repeats.is_some()).run();
}

/// Something like a delivery of GitHub's, with values of the wrong type now and then.
fn delivery(rng: &mut StdRng) -> String {
    let id = rng.random_range(1000..1060);
    let pushed = [
        "1700000000",
        "\"2023-11-14T22:13:20.5-04:00\"",
        "null",
        "\"2019-05-15T15:20:33Z\"",
    ];
    let stars = ["0", "17.0", "\"12\"", "\"many\""];
    let private = ["true", "\"false\"", "false", "null"];
    let mut one = |of: [&'static str; 4]| of[rng.random_range(0..40) % 13 % 4];
    let (pushed, stars, private) = (one(pushed), one(stars), one(private));
    if rng.random_bool(0.2) {
        return format!(
            r#"{{"id":"no-repository-{}","zen":"Keep it \u006cogically awesome.","sender":null}}"#,
            id % 9
        );
    }
    format!(
        r#"{{"id":"d-{}","repository":{{"id":{id},"full_name":"o\/r{id}","owner":{{"login":"o","plan":{{"n":1.50,"of":[1, 2]}}}},"pushed_at":{pushed},"stargazers_count":{stars},"private":{private}}},"sender":{{"login":"s{}"}}}}"#,
        rng.random_range(0..100),
        id % 7,
    )
}

/// The same with another repository, and otherwise byte for byte.
fn relabelled(body: &str, repeat: usize) -> String {
    let object: Value = serde_json::from_str(body).unwrap();
    match object["repository"]["id"].as_u64() {
        Some(id) if repeat > 0 => {
            let (old, new) = (format!(r#""id":{id},"#), format!(r#""id":{id}{repeat},"#));
            body.replace(&old, &new)
        }
        _ => body.to_owned(),
    }
}

struct Change {
    /// Real or made up, once.
    bodies: Vec<String>,
    repeats: usize,
    /// Each body gets an id of its own in front.
    with_ids: bool,
    rules: Value,
    data: Data,
}

/// What an independent fold makes of the log so far, under the rules before and after.
struct Folded {
    old: Projected,
    new: Projected,
    events: usize,
    last: u64,
}

impl Folded {
    fn new() -> Self {
        Self {
            old: Projected::default(),
            new: Projected::default(),
            events: 0,
            last: 0,
        }
    }

    /// Takes the events that came since.
    fn catch_up(&mut self, server: &Server, rules: &Value) {
        let none = json!({});
        server.each_event(STREAM, self.last, |event| {
            self.old.take(&none, &event);
            self.new.take(rules, &event);
            self.events += 1;
            self.last = event.position;
        });
    }
}

impl Change {
    fn new(bodies: Vec<String>, repeats: usize, with_ids: bool) -> Self {
        Self {
            bodies,
            repeats,
            with_ids,
            rules: rules(),
            data: Data::new(),
        }
    }

    fn count(&self) -> usize {
        self.bodies.len() * self.repeats
    }

    fn body(&self, n: usize) -> String {
        let which = n % self.bodies.len();
        let body = relabelled(&self.bodies[which], n / self.bodies.len());
        if self.with_ids {
            return body.replacen('{', &format!(r#"{{"id":"body-{which}","#), 1);
        }
        body
    }

    /// In parts that fit into memory.
    fn deliver(&self, server: &Server, connector: &Connector) {
        let all: Vec<usize> = (0..self.count()).collect();
        for part in all.chunks(10_000) {
            let bodies: Vec<String> = part.iter().map(|n| self.body(*n)).collect();
            deliver(server, connector, &bodies);
        }
    }

    fn run(self) {
        let started = Instant::now();
        let server = self.data.serve();
        let connector = server.add_connector(STREAM, false);
        let stream = operate(&server, STREAM);
        self.deliver(&server, &connector);
        eprintln!(
            "{} events delivered, {:.1?}",
            self.count(),
            started.elapsed()
        );
        stream.start(&json!({"projection": self.rules}));
        let mut folded = Folded::new();
        let lines = self.check_difference(stream, &mut folded);
        eprintln!(
            "{lines} lines of difference are right, {:.1?}",
            started.elapsed()
        );

        let away = cursor_now(&server);
        let followers = [Framing::Sse, Framing::Ndjson]
            .map(|framing| Follower::start(&server, STREAM, framing, &From::default()));
        let (written, pages) = self.promote_under_load(stream, &connector);
        let last = position(&server.post(&connector, r#"{"id":"last"}"#).expect(202));
        folded.catch_up(&server, &self.rules);
        let Folded { old, new, .. } = folded;
        let (_, items) = server.items(STREAM, last);
        assert_eq!(items, new.served());
        for follower in followers {
            check_passage(&follower.finish_in(2, last), &items);
        }
        check_return(&server, away, last, &items);
        check_way_back(stream, &old, &new, last);
        eprintln!(
            "{} events, {lines} lines of difference; {} more and {pages} pages read around the promotion, {:.1?}",
            self.count(),
            written.accepted,
            started.elapsed()
        );
    }

    /// Each line, all counts and the digest, over HTTP and at the command line.
    fn check_difference(&self, stream: Operated<'_>, folded: &mut Folded) -> usize {
        let begun = Instant::now();
        let status = stream.ready_within(Duration::from_secs(900));
        eprintln!("ready after {:.1?}", begun.elapsed());
        folded.catch_up(stream.server, &self.rules);
        let Folded {
            old, new, events, ..
        } = folded;
        let expected = difference(old, new);
        let (digest, lines) = stream.diff();
        for (line, expected) in lines.iter().zip(&expected) {
            assert_eq!(line, expected);
        }
        assert_eq!(lines.len(), expected.len());
        assert_eq!(counts_of(&status), counts(&expected));
        assert_eq!(status["diff"]["digest"], digest);
        assert_eq!(status["quarantined"], new.quarantined.len());
        assert_eq!(
            (&status["done"], &status["total"]),
            (&json!(events), &json!(events))
        );
        for kind in ["added", "removed"] {
            assert_ne!(status["diff"][kind], 0, "the bodies show nothing: {status}");
        }
        check_cli_difference(stream, &digest, lines.len());
        lines.len()
    }

    fn promote_under_load(&self, stream: Operated<'_>, connector: &Connector) -> (Written, u64) {
        let bodies: Vec<String> = (0..self.count().min(2_000)).map(|n| self.body(n)).collect();
        let writers = Writers::start(stream.server, connector, &bodies, Duration::from_millis(2));
        let stop = Arc::new(AtomicBool::new(false));
        let reader = |_| {
            let (addr, key, stop) = (
                stream.server.addr,
                stream.server.operator_key.clone(),
                Arc::clone(&stop),
            );
            std::thread::spawn(move || read_until(addr, &key, &stop))
        };
        let readers: Vec<_> = (0..4).map(reader).collect();
        std::thread::sleep(Duration::from_millis(300));
        let promoted: Value = stream.promote(Some("*")).expect(200).json();
        assert_eq!(
            (&promoted["state"], &promoted["id"]),
            (&json!("promoted"), &json!("2"))
        );
        assert_eq!(
            stream.row()["generation"],
            2,
            "a promotion that was answered is served"
        );
        std::thread::sleep(Duration::from_millis(300));
        let written = writers.finish();
        stop.store(true, Ordering::Relaxed);
        let pages = readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum();
        assert!(written.accepted > 0 && written.cut == 0, "{written:?}");
        (written, pages)
    }
}

fn check_cli_difference(stream: Operated<'_>, digest: &str, lines: usize) {
    let status = stream.cli(&["rebuild", "status", STREAM]);
    assert!(both(&status).contains(digest), "{}", both(&status));
    let all = stream.cli(&["rebuild", "diff", STREAM]);
    assert_eq!(
        String::from_utf8_lossy(&all.stderr),
        format!("digest {digest}\n")
    );
    assert_eq!(all.stdout, stream.get("/rebuilds/current/diff").body);
    let some = stream.cli(&["rebuild", "diff", STREAM, "--limit", "3"]);
    assert_eq!(
        some.stdout.split(|byte| *byte == b'\n').count(),
        lines.min(3) + 1
    );
}

fn cursor_now(server: &Server) -> String {
    let from = From {
        after: Some("now"),
        ..From::default()
    };
    let frames = Follower::start(server, STREAM, Framing::Sse, &from).finish(0);
    frames[0].id.clone().unwrap()
}

/// Reads the beginning of the stream again and again: each chain of pages is of one generation, and generations never go back.
fn read_until(addr: SocketAddr, key: &str, stop: &AtomicBool) -> u64 {
    let (mut connection, mut newest, mut pages) = (Connection::open(addr).unwrap(), 0, 0);
    while !stop.load(Ordering::Relaxed) {
        let mut get = |target: &str| {
            let answer = connection.call(&Request::get(target).bearer(key)).unwrap();
            assert!(answer.status < 500, "{answer:?}");
            answer
        };
        let row: Value = get(&format!("/api/streams/{STREAM}")).expect(200).json();
        let generation = row["generation"].as_u64().unwrap();
        assert!(generation >= newest, "back from {newest} to {generation}");
        newest = generation;
        pages += read_chain(&mut get);
    }
    pages
}

fn read_chain(get: &mut impl FnMut(&str) -> crate::common::http::Response) -> u64 {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Item {
        item_id: String,
        fields: Object,
    }
    #[derive(Deserialize)]
    struct Page {
        items: Vec<Item>,
        next: Option<String>,
    }
    let (mut target, mut of_new) = (format!("/api/streams/{STREAM}/items?limit=15"), None);
    for pages in 1..=4 {
        let page: Page = get(&target).expect(200).json();
        for item in &page.items {
            // By its default every item of the new generation has it, and none of the old.
            let is_new = item.fields.contains_key("by-whom");
            assert_eq!(
                *of_new.get_or_insert(is_new),
                is_new,
                "a mix: {}",
                item.item_id
            );
        }
        if let Some(item) = page.items.first() {
            get(&format!(
                "/api/streams/{STREAM}/items/{}",
                percent(&item.item_id)
            ));
        }
        let Some(next) = page.next else { return pages };
        target = format!(
            "/api/streams/{STREAM}/items?limit=15&after={}",
            percent(&next)
        );
    }
    4
}

/// One snapshot, one passage, and in the end what `items` shows.
fn check_passage(frames: &[Frame], items: &Pool) {
    assert_eq!(named(frames, "reset").len(), 0);
    assert_eq!(named(frames, "snapshot-end").len(), 1);
    let data: Value = match named(frames, "generation")[..] {
        [frame] => frame.json(),
        ref others => panic!("{} frames of a generation", others.len()),
    };
    assert_eq!(
        (&data["generation"], &data["projection"]),
        (&json!(2), &json!(1))
    );
    let begin = frames
        .iter()
        .position(|frame| frame.event == "generation")
        .unwrap();
    let crossing = &frames[begin + 1..];
    let end = crossing
        .iter()
        .position(|frame| frame.event == "bookmark")
        .unwrap();
    assert!(
        crossing[..end]
            .iter()
            .all(|frame| frame.event == "change" && frame.id.is_none())
    );
    assert!(crossing[end..].iter().all(|frame| frame.id.is_some()));
    assert_eq!(crossing[end].position(), data["position"].as_u64().unwrap());
    let rows = named(frames, "item").len();
    assert!(frames[..rows].iter().all(|frame| frame.event == "item"));
    let state = state(frames);
    let different = state.iter().zip(items).find(|(a, b)| a != b);
    assert_eq!(different, None);
    assert_eq!(state.len(), items.len());
}

/// Who was away during the promotion starts again.
fn check_return(server: &Server, cursor: String, last: u64, items: &Pool) {
    for framing in [Framing::Sse, Framing::Ndjson] {
        let from = From {
            cursor: Some(cursor.clone()),
            ..From::default()
        };
        let frames = Follower::start(server, STREAM, framing, &from).finish(last);
        assert_eq!(frames[0].event, "reset");
        assert_eq!(frames[0].json()["reason"], "other-generation");
        assert_eq!(frames[0].json()["requested"], cursor);
        assert_eq!(named(&frames, "item").len(), items.len());
        assert_eq!(named(&frames, "reset").len(), 1);
        assert_eq!(&state(&frames), items);
    }
}

/// Back, forth, back; then for good.
fn check_way_back(stream: Operated<'_>, old: &Projected, new: &Projected, last: u64) {
    let items = || stream.server.items(STREAM, last).1;
    let roll_back = || -> Value { stream.post(":rollback", &Value::Null).expect(200).json() };
    let promoted = stream.hash();
    let served = roll_back();
    assert_eq!(
        served,
        json!({"stream": STREAM, "generation": 1, "projection": 0, "previous": 2})
    );
    let before = stream.hash();
    assert_ne!(before, promoted);
    assert_eq!(items(), old.served());
    roll_back();
    assert_eq!(stream.hash(), promoted);
    assert_eq!(items(), new.served());
    roll_back();
    assert_eq!(stream.hash(), before);
    roll_back();

    let served: Value = stream.post(":release", &Value::Null).expect(200).json();
    assert_eq!(served["previous"], Value::Null);
    for act in [":rollback", ":release"] {
        stream
            .post(act, &Value::Null)
            .expect_problem(409, "CONFLICT");
    }
    assert_eq!(stream.hash(), promoted);
    assert_eq!(items(), new.served());
}
