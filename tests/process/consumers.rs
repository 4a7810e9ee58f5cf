//! Our own client library against the real server, through a proxy that cuts: what it puts together is what the log says.

use std::collections::BTreeMap;
use std::sync::{Barrier, OnceLock};
use std::time::Duration;

use hookpool_client::{
    Backoff, Consumer, Dice, Follower, ItemQuery, Secret, Server as Target, Start, State,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::common::fold::{Event, Field, Fields, Pool, as_served};
use crate::common::http::Request;
use crate::common::seeded;
use crate::common::server::{Connector, Data, Server, position};
use crate::selected::expected;
use crate::sse_readers::CuttingProxy;

/// A stream that is written to at random.
struct Source<'a> {
    server: &'a Server,
    connector: Connector,
}

impl<'a> Source<'a> {
    fn new(server: &'a Server, stream: &str) -> Self {
        let connector = server.add_connector(stream, false);
        Self { server, connector }
    }

    fn post(&self, random: &mut StdRng) -> u64 {
        let mut body = json!({ "id": format!("i{}", random.random_range(0..9)) });
        for (name, chance) in [("n", 0.8), ("kind", 0.5), ("extra", 0.3)] {
            if random.random_bool(chance) {
                body[name] = random.random_range(0..10).into();
            }
        }
        position(
            &self
                .server
                .post(&self.connector, body.to_string())
                .expect(202),
        )
    }
}

fn consumer(url: &str, key: &str) -> Consumer {
    Consumer::new(Target::new(url).unwrap(), Secret::new(key.to_owned()))
}

fn impatient(follower: Follower) -> Follower {
    let wait = Duration::from_millis(2);
    follower.heartbeat(Duration::from_secs(1)).backoff(Backoff {
        first: wait,
        longest: wait,
    })
}

/// The items of a state, as the tests compare them.
fn pool(state: &State, stream: &str) -> Pool {
    let field = |value: &hookpool_client::Value| {
        let raw = RawValue::from_string(value.json().to_owned()).unwrap();
        as_served(&raw)
    };
    let items = state.items(stream).iter().map(|(id, fields)| {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.clone(), field(value)));
        (id.clone(), fields.collect::<Fields>())
    });
    items.collect()
}

/// Position by stream, out of an id of one stream or of several.
fn places<'a>(cursor: &'a str, only: &'a str) -> BTreeMap<&'a str, u64> {
    let place = |part: &'a str| {
        let (stream, cursor) = part.split_once(':').unwrap_or((only, part));
        (stream, cursor.rsplit('.').next().unwrap().parse().unwrap())
    };
    cursor.split(',').map(place).collect()
}

fn wanted(item: &Fields) -> bool {
    let number = |name: &str| match item.get(name)? {
        Field::Verbatim(text) => text.parse::<i64>().ok(),
        Field::String(_) => None,
    };
    number("n").is_some_and(|n| n >= 4)
}

/// What a follower put together at one of its places.
type Place = (String, BTreeMap<String, Pool>);

/// Follows until all streams are past positions that become known on the way, once it has begun; gives every place that could be resumed from.
async fn follow(
    mut follower: Follower,
    streams: &[&str],
    begun: &Barrier,
    last: &OnceLock<[u64; 2]>,
) -> Vec<Place> {
    let mut state = follower.state();
    let mut seen: Vec<Place> = Vec::new();
    loop {
        let frame = timeout(Duration::from_secs(60), follower.next()).await;
        state.feed(&frame.expect("the stream goes on").unwrap().unwrap());
        let Some(cursor) = state.cursor() else {
            continue;
        };
        if seen.is_empty() {
            begun.wait();
        }
        let pools = streams
            .iter()
            .map(|name| ((*name).to_owned(), pool(&state, name)));
        seen.push((cursor.to_owned(), pools.collect()));
        let places = places(cursor, streams[0]);
        let there = |(name, last): (&&str, &u64)| places.get(*name).is_some_and(|at| at >= last);
        if last
            .get()
            .is_some_and(|last| streams.iter().zip(last).all(there))
        {
            return seen;
        }
    }
}

/// Runs a follower while streams are written and connections are cut; holds each of its places to the log.
fn hold_to_the_log(
    test: &str,
    ask: impl FnOnce(Follower) -> Follower,
    takes: fn(&Fields) -> bool,
    shown: Option<&[&str]>,
) {
    let mut random = seeded(test);
    let data = Data::new();
    let server = data.serve();
    let streams = ["alpha", "beta"];
    let sources = streams.map(|name| Source::new(&server, name));
    for source in &sources {
        source.post(&mut random);
    }
    let proxy = CuttingProxy::start(server.addr, 5, StdRng::from_rng(&mut random));
    let follower = consumer(&proxy.url(), &server.operator_key).follow_several(streams);
    // The server's own word on when to come back is a second and more.
    let follower = ask(impatient(follower)).dice(Dice::new(|| 0.0));
    let (begun, last) = (Barrier::new(2), OnceLock::new());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let places = std::thread::scope(|scope| {
        scope.spawn(|| {
            begun.wait();
            let mut positions = [0; 2];
            for n in 0..400 {
                positions[n % 2] = sources[n % 2].post(&mut random);
                std::thread::sleep(Duration::from_millis(5));
            }
            last.set(positions).unwrap();
            // For a follower who had seen all before it was known to be all.
            for source in &sources {
                source.post(&mut random);
            }
        });
        runtime.block_on(follow(follower, &streams, &begun, &last))
    });
    let logs: BTreeMap<&str, Vec<Event>> = streams
        .map(|name| (name, server.log(name)))
        .into_iter()
        .collect();
    assert!(places.len() > 2, "{}", places.len());
    for (cursor, pools) in places {
        for (stream, at) in self::places(&cursor, "") {
            let expected = expected(&logs[stream], at, takes, shown);
            assert_eq!(pools[stream], expected, "{stream} at {cursor}");
        }
    }
    proxy.has_cut();
    server.stop();
}

#[test]
fn the_state_of_several_streams_is_what_the_log_says_at_every_cursor() {
    hold_to_the_log("client-several", |it| it, |_| true, None);
}

#[test]
fn the_state_from_the_earliest_change_on_is_what_the_log_says() {
    hold_to_the_log(
        "client-earliest",
        |it| it.start(Start::Earliest),
        |_| true,
        None,
    );
}

#[test]
fn the_state_under_conditions_and_fields_is_what_they_select() {
    let ask = |it: Follower| it.condition("n>=4").fields(["n", "kind"]);
    hold_to_the_log("client-selected", ask, wanted, Some(&["n", "kind"]));
}

#[test]
fn the_state_of_merged_changes_is_what_the_log_says() {
    let ask = |it: Follower| it.conflate(Duration::from_millis(5));
    hold_to_the_log("client-merged", ask, |_| true, None);
}

#[test]
fn pages_show_what_is_asked_for_and_a_ticket_opens_one_stream_once() {
    let mut random = seeded("client-pages");
    let data = Data::new();
    let server = data.serve();
    let source = Source::new(&server, "alpha");
    let mut last = 0;
    for _ in 0..40 {
        last = source.post(&mut random);
    }
    let at = server.log("alpha")[19].position;
    let (_, all) = server.items("alpha", last);
    let consumer = consumer(&server.url(), &server.add_reader("reader", &["alpha"]));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ids = |at: Option<u64>| {
        let mut query = ItemQuery {
            limit: Some(2),
            at: at.map(|at| at.to_string()),
            conditions: vec!["n>=4".to_owned()],
            fields: vec!["n".to_owned()],
            ..ItemQuery::default()
        };
        let mut ids = Vec::new();
        loop {
            let page = runtime.block_on(consumer.items("alpha", &query)).unwrap();
            assert!(page.items.len() <= 2 && page.items.iter().all(|item| item.fields.len() == 1));
            ids.extend(page.items.into_iter().map(|item| item.item_id));
            query.after = page.next;
            if query.after.is_none() {
                return ids;
            }
        }
    };
    let selected = all.iter().filter(|(_, item)| wanted(item));
    assert_eq!(
        ids(None),
        selected.map(|(id, _)| id.clone()).collect::<Vec<_>>()
    );
    let then = expected(&server.log("alpha"), at, wanted, Some(&["n"]));
    assert_eq!(ids(Some(at)), then.into_keys().collect::<Vec<_>>());

    let ticket = consumer.ticket(&["alpha"], Duration::from_secs(60));
    let ticket = runtime.block_on(ticket).unwrap().ticket;
    let target = format!(
        "/api/streams/alpha/changes?after=earliest&until={last}&ticket={}",
        ticket.expose()
    );
    let request = Request::get(&target);
    assert!(server.call(&request).expect(200).text().contains("until"));
    server.call(&request).expect(401);
    let other = runtime.block_on(consumer.ticket(&["beta"], Duration::from_secs(60)));
    assert_eq!(other.unwrap_err().problem().unwrap().status, 404);
    server.stop();
}
