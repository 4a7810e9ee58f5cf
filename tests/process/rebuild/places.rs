//! The same log gives the same state in every place: after the loss of the pool, under other settings of the machine.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{deliver, operate};
use crate::common::eventually;
use crate::common::program::succeed;
use crate::common::server::{Data, Server};

const STREAM: &str = "places";

fn rules() -> Value {
    json!({"id": "/key", "order-by": "/at", "nulls": "delete", "fields": {
        "at": {"type": "time"},
        "n": {"type": "number", "default": 0},
        "text": {"from": "/n", "type": "string"},
        "o": {"flatten": "."},
    }})
}

fn bodies() -> Vec<String> {
    let body = |n: usize| {
        let at = match n % 4 {
            0 => format!("\"2024-03-31T0{}:30:00+0{}:00\"", n % 6, n % 9),
            1 => format!("{}", 1_711_846_800 + n % 50),
            2 => "null".to_owned(),
            _ => "\"2024-10-27T01:59:59.9Z\"".to_owned(),
        };
        let number = ["1,5", "1.50", "15e-1", "null"][n % 4];
        let number = if n.is_multiple_of(4) {
            format!("\"{number}\"")
        } else {
            number.to_owned()
        };
        format!(
            r#"{{"key":"İ-{}","at":{at},"n":{number},"o":{{"ß":{n},"b":{{"c":null}}}},"x":"{n}"}}"#,
            n % 17
        )
    };
    (0..200).map(body).collect()
}

/// The hash of what is served, and of what could be gone back to.
fn hashes(server: &Server, last: u64) -> [String; 2] {
    let stream = operate(server, STREAM);
    server.items(STREAM, last);
    let hash_and_roll_back = |_| {
        let hash = stream.hash();
        stream.post(":rollback", &Value::Null).expect(200);
        hash
    };
    // Back and forth: in the end what was served is served again.
    ["served", "previous"].map(hash_and_roll_back)
}

/// A folder with rules in force, and more events after them; stopped.
fn filled(data: &Data) -> (u64, [String; 2]) {
    let server = data.serve();
    let connector = server.add_connector(STREAM, false);
    let bodies = bodies();
    deliver(&server, &connector, &bodies[..150]);
    operate(&server, STREAM).put_in_force(&rules());
    let last = deliver(&server, &connector, &bodies[150..]);
    let hashes = hashes(&server, last);
    assert_ne!(hashes[0], hashes[1]);
    assert_ne!(operate(&server, STREAM).row()["quarantined"], 0);
    server.stop();
    (last, hashes)
}

#[test]
fn without_its_pool_a_server_makes_again_what_is_served_and_what_it_could_go_back_to() {
    let data = Data::new();
    let (last, before) = filled(&data);
    let server = data.serve();
    let stream = operate(&server, STREAM);
    stream.start(&json!({"projection": {"merge": "replace"}}));
    let (digest, row) = (stream.digest(), stream.row());
    server.stop();
    fs::remove_dir_all(data.path().join("pool")).unwrap();
    let server = data.serve();
    server.items(STREAM, last);
    let stream = operate(&server, STREAM);
    assert_eq!(stream.row(), row);
    // The rebuild that was not promoted starts again and finds the same.
    assert_eq!(stream.digest(), digest);
    stream.act("cancel").expect(200);
    assert_eq!(hashes(&server, last), before);
}

/// Its events are counted in the pool, which has nothing of it yet.
#[test]
fn a_kept_generation_that_is_not_in_the_pool_yet_has_no_events() {
    let data = Data::new();
    let server = data.serve();
    server.add_connector(STREAM, false);
    operate(&server, STREAM).put_in_force(&rules());
    server.stop();
    fs::remove_dir_all(data.path().join("pool")).unwrap();
    let server = data.serve();
    let ended = operate(&server, STREAM).status();
    assert_eq!(ended["state"], "promoted");
    for count in ["done", "total", "quarantined", "superseded"] {
        assert_eq!(ended[count], 0, "{count}: {ended}");
    }
}

/// The one kind of pool that could be folded on in and would leave something out: a generation was promoted that was only begun in it.
#[test]
fn a_pool_from_the_middle_of_a_rebuild_that_was_promoted_is_refused() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector(STREAM, false);
    let bodies = bodies();
    deliver(&server, &connector, &bodies[..150]);
    let stream = operate(&server, STREAM);
    stream.start(&json!({"projection": rules(), "eventsPerSecond": 25}));
    eventually("it folds", Duration::from_secs(20), || {
        (stream.status()["done"].as_u64() > Some(5)).then_some(())
    });
    stream.act("pause").expect(200);
    server.stop();
    let (pool, old) = (data.path().join("pool"), data.path().join("old"));
    succeed(Command::new("cp").arg("-a").args([&pool, &old]));

    let server = data.serve();
    let stream = operate(&server, STREAM);
    let done = stream.status()["done"].as_u64().unwrap();
    assert!((6..150).contains(&done), "{done}");
    stream.act("resume").expect(200);
    stream.ready();
    stream.promote(Some("*")).expect(200);
    let last = deliver(&server, &connector, &bodies[150..]);
    let items = server.items(STREAM, last);
    server.stop();
    fs::remove_dir_all(&pool).unwrap();
    fs::rename(&old, &pool).unwrap();
    let refused = Server::try_start(data.path()).err().unwrap();
    assert!(
        refused.contains("generation 2 is not there as a whole")
            && refused.contains("delete the pool folder"),
        "{refused}"
    );
    fs::remove_dir_all(&pool).unwrap();
    assert_eq!(data.serve().items(STREAM, last), items);
}

/// All that a backup needs.
fn copied(data: &Data) -> TempDir {
    let copy = TempDir::with_prefix("hookpool-place-").unwrap();
    let parts = fs::read_dir(data.path())
        .unwrap()
        .map(|part| part.unwrap().path());
    let parts = parts.filter(|part| !part.ends_with("pool"));
    succeed(Command::new("cp").arg("-a").args(parts).arg(copy.path()));
    copy
}

/// Three processes; each draws its own seeds for its hash maps too.
#[test]
fn time_zone_and_language_of_the_machine_change_nothing() {
    let data = Data::new();
    let (last, before) = filled(&data);
    for (zone, language) in [
        ("Pacific/Chatham", "tr_TR.UTF-8"),
        ("America/St_Johns", "C"),
    ] {
        let copy = copied(&data);
        assert!(!copy.path().join("pool").exists());
        let settings = [("TZ", zone), ("LANG", language), ("LC_ALL", language)];
        let server = Server::try_start_with(copy.path(), &settings).unwrap();
        assert_eq!(hashes(&server, last), before, "{zone} {language}");
    }
}
