//! A backup holds what was acknowledged before it, goes on where it stood, and is restored whole or not at all.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rand::Rng;
use serde_json::Value;

use super::{Desk, backup, blocks, bring_keys, fails, fill, head, offline, write_while};
use crate::common::fold::assert_same;
use crate::common::http::Request;
use crate::common::program::succeed;
use crate::common::seeded;
use crate::common::server::{Data, Server, position};
use crate::common::sse::Parser;

#[test]
fn a_backup_made_under_load_holds_what_was_acknowledged_before_and_is_served_again() {
    let (data, desk) = (Data::new(), Desk::new());
    let server = data.serve();
    let connector = server.add_connector("ledger", true);
    let dir = desk.file("backup");
    let (before, copied) = write_while(&server, &connector, || {
        std::thread::sleep(Duration::from_millis(300));
        let before = position(&server.post(&connector, r#"{"id":"before"}"#).expect(202));
        let copied: Value =
            serde_json::from_str(&succeed(&mut backup(&server, &data, &dir))).unwrap();
        (before, copied)
    });
    let at = copied["log"]["head"].as_u64().unwrap();
    assert!(at >= before, "{at} {before}");
    succeed(
        offline(&dir, &["verify"])
            .arg("--head")
            .arg(dir.join("head.json")),
    );
    // Nothing new but what came meanwhile, then nothing.
    succeed(&mut backup(&server, &data, &dir));
    let again: Value = serde_json::from_str(&succeed(&mut backup(&server, &data, &dir))).unwrap();
    assert_eq!(again["log"]["blocks"], 0);
    let last = again["log"]["head"].as_u64().unwrap();
    assert!(last > at, "the writers wrote on");
    let (log, items) = (server.log("ledger"), server.items("ledger", last));
    let cursor = format!("{}.1.{}", again["log"]["epoch"].as_str().unwrap(), last - 5);
    let stored = blocks(&server);
    server.stop();

    let restored = Data::new();
    succeed(offline(restored.path(), &["restore"]).arg(&dir));
    let refused = Server::try_start(restored.path()).err().unwrap();
    assert!(refused.contains("master.key"), "{refused}");
    bring_keys(&data, &restored);
    let server = restored.serve();
    assert_eq!(blocks(&server), stored);
    assert_same(&server.log("ledger"), &log, "after a restore");
    assert_eq!(server.items("ledger", last), items);
    let target = format!("/api/streams/ledger/changes?after={cursor}");
    let mut connection = server.connect();
    let request = Request::get(&target).bearer(&server.operator_key);
    let (_, mut frames) = connection.follow(&request).unwrap();
    let mut parser = Parser::default();
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while seen.len() < 5 {
        let read = frames.read(&mut buffer).unwrap();
        seen.extend(parser.push(&buffer[..read]));
    }
    let positions: Vec<u64> = seen.iter().map(|frame| frame.position()).collect();
    assert_eq!(positions, (last - 4..=last).collect::<Vec<_>>());
    // The old connector and its keys still work.
    let next = position(&server.post(&connector, "{}").expect(202));
    assert_eq!(next, last + 1);
}

#[test]
fn a_killed_backup_goes_on_where_it_stood() {
    let mut rng = seeded("a_killed_backup_goes_on_where_it_stood");
    let (data, desk) = (Data::new(), Desk::new());
    let server = data.serve();
    let connector = server.add_connector("ledger", false);
    let dir = desk.file("backup");
    let mut killed = 0;
    write_while(&server, &connector, || {
        for _ in 0..12 {
            let mut command = backup(&server, &data, &dir);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(rng.random_range(5..250)));
            killed += u32::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
    });
    assert!(killed > 0, "every one was done before it was killed");
    let copied: Value = serde_json::from_str(&succeed(&mut backup(&server, &data, &dir))).unwrap();
    let head = head(&server, &data);
    assert_eq!(copied["log"]["digest"], head["digest"]);
    succeed(
        offline(&dir, &["verify"])
            .arg("--head")
            .arg(dir.join("head.json")),
    );
    eprintln!(
        "{killed} of 12 backups killed under way; whole at {}",
        head["position"]
    );
}

#[test]
fn a_backup_of_another_log_or_with_damage_is_refused_and_leaves_nothing_behind() {
    let (data, other, desk) = (Data::new(), Data::new(), Desk::new());
    let [server, stranger] = [&data, &other].map(Data::serve);
    fill(&server);
    fill(&stranger);
    let dir = desk.file("backup");
    succeed(&mut backup(&server, &data, &dir));
    let said = fails(1, &mut backup(&stranger, &other, &dir));
    assert!(said.contains("begin another folder"), "{said}");

    let restored = Data::new();
    succeed(offline(restored.path(), &["restore"]).arg(&dir));
    let said = fails(1, offline(restored.path(), &["restore"]).arg(&dir));
    assert!(said.contains("is there already"), "{said}");
    fs::remove_dir_all(restored.path().join("log")).unwrap();
    bring_keys(&data, &restored);
    let refused = Server::try_start(restored.path()).err().unwrap();
    assert!(refused.contains("`control` but no `log`"), "{refused}");

    let stale = Data::new();
    fs::create_dir(stale.path().join("pool")).unwrap();
    let said = fails(1, offline(stale.path(), &["restore"]).arg(&dir));
    assert!(said.contains("pool is there already"), "{said}");

    let clean = Data::new();
    let kept = fs::read_to_string(dir.join("head.json")).unwrap();
    let foreign = head(&stranger, &other).to_string();
    for (head, expected) in [(foreign, "of log"), (kept.replace("60", "61"), "signature")] {
        fs::write(dir.join("head.json"), head).unwrap();
        let said = fails(1, offline(clean.path(), &["restore"]).arg(&dir));
        assert!(said.contains(expected), "{said}");
        assert_eq!(fs::read_dir(clean.path()).unwrap().count(), 0);
    }
    fs::write(dir.join("head.json"), kept).unwrap();
    flip_in_journal(&dir.join("log").join("db"));
    let said = fails(1, offline(clean.path(), &["restore"]).arg(&dir));
    assert!(said.contains("damaged"), "{said}");
    assert_eq!(fs::read_dir(clean.path()).unwrap().count(), 0);
}

/// Flips a bit of a recorded body.
fn flip_in_journal(db: &Path) {
    let journals = fs::read_dir(db).unwrap().map(|entry| entry.unwrap().path());
    for path in journals.filter(|path| path.extension().is_some_and(|it| it == "jnl")) {
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(5).position(|window| window == b"item-") {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("no journal holds a body");
}
