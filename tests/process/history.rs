//! The history leaves and comes back: exports, imports, signed heads, backups, restores.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hookpool_core::position::{Epoch, Position};
use hookpool_fjall::{FjallLog, Options};
use hookpool_store::EventLog as _;
use rand::Rng;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::fold::assert_same;
use crate::common::http::Request;
use crate::common::program::{both, hookpool, output_within, succeed};
use crate::common::seeded;
use crate::common::server::{Connector, Data, Server, position};
use crate::common::sse::Parser;

const LIMIT: Duration = Duration::from_secs(60);

/// A command of ours that asks this server.
fn ask(server: &Server, data: &Data) -> Command {
    let mut command = hookpool();
    command.args(["--server", &server.url(), "--data-dir"]);
    command.arg(data.path());
    command
}

/// A command of ours on a folder that nobody serves.
fn offline(data: &Path, words: &[&str]) -> Command {
    let mut command = hookpool();
    command.args(words).arg("--data-dir").arg(data);
    command
}

#[track_caller]
fn fails(code: i32, command: &mut Command) -> String {
    let output = output_within(LIMIT, command);
    assert_eq!(output.status.code(), Some(code), "{}", both(&output));
    both(&output)
}

/// Deliveries to two streams, with bodies of all kinds; the position of the last.
fn fill(server: &Server) -> u64 {
    let connectors = [
        server.add_connector("sales", false),
        server.add_connector("builds", true),
    ];
    let mut last = 0;
    for n in 0..60 {
        let body = match n % 3 {
            0 => format!("{{\n  \"id\": \"item-{}\",\r\n \"n\": {n}.00 }}", n % 7),
            1 => format!(r#"{{"id":"item-{}","text":"\u0000 ü \" {n}"}}"#, n % 7),
            _ => format!(r#"{{"deep":{{"n":[{n},null]}},"deep":{n}}}"#),
        };
        last = position(&server.post(&connectors[n % 2], body).expect(202));
    }
    last
}

fn head(server: &Server, data: &Data) -> Value {
    let text = succeed(ask(server, data).args(["log", "head", "--output", "json"]));
    serde_json::from_str(&text).unwrap()
}

/// The stored bytes of a log.
fn blocks(server: &Server) -> Vec<u8> {
    server.get("/api/admin/blocks").expect(200).body
}

/// A folder for what the commands write.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(TempDir::with_prefix("hookpool-desk-").unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

#[test]
fn an_export_is_proved_and_comes_back_as_the_same_log() {
    let (data, desk) = (Data::new(), Desk::new());
    let server = data.serve();
    let last = fill(&server);
    let head = head(&server, &data);
    assert_eq!(head["position"], last);
    let kept = desk.write("head.json", head.to_string());
    let file = desk.file("history.ndjson");
    succeed(ask(&server, &data).arg("export").arg(&file));
    assert!(!desk.file("history.ndjson.partial").exists());
    let stored = blocks(&server);
    let log = server.log("sales");
    server.stop();

    let verify = |file: &Path| {
        let mut command = hookpool();
        command.arg("verify").arg("--export").arg(file);
        command
    };
    let key = head["publicKey"].as_str().unwrap();
    let text = succeed(verify(&file).arg("--head").arg(&kept).args([
        "--public-key",
        key,
        "--output",
        "json",
    ]));
    let verdict: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(verdict["export"]["digest"], head["digest"]);
    assert_eq!(verdict["head"]["pinned"], true);
    let other = "7c2ba2c409bf3708bc8cd6047baebd59a471fe13c5c993dcad1578f0a44cc259";
    let said = fails(
        6,
        verify(&file)
            .arg("--head")
            .arg(&kept)
            .args(["--public-key", other]),
    );
    assert!(said.contains("not the expected one"), "{said}");
    let said = succeed_and_talk(verify(&file).arg("--head").arg(&kept));
    assert!(said.contains("compare that key"), "{said}");

    let copy = Data::new();
    succeed(offline(copy.path(), &["import"]).arg(&file));
    fails(1, offline(copy.path(), &["import"]).arg(&file));
    let again = copy.serve();
    assert_eq!(blocks(&again), stored);
    let same = self::head(&again, &copy);
    for member in ["epoch", "position", "digest"] {
        assert_eq!(same[member], head[member]);
    }
    again.add_connector("sales", false);
    assert_same(&again.log("sales"), &log, "after an import");
    again.stop();
    succeed(offline(copy.path(), &["verify"]).arg("--head").arg(&kept));
}

/// Standard error of a command that succeeds.
#[track_caller]
fn succeed_and_talk(command: &mut Command) -> String {
    let output = output_within(LIMIT, command);
    assert!(output.status.success(), "{}", both(&output));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_damaged_broken_or_partial_export_is_named_and_leaves_no_log_behind() {
    let (data, desk) = (Data::new(), Desk::new());
    let server = data.serve();
    fill(&server);
    let head = desk.write("head.json", head(&server, &data).to_string());
    let export = |words: &[&str]| succeed(ask(&server, &data).arg("export").args(words));
    let whole = export(&[]);
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let line = lines
        .iter()
        .position(|line| line.starts_with(r#"{"position":31,"#))
        .unwrap();
    let flipped = lines[line]
        .replacen("item-", "iten-", 1)
        .replacen("deep", "deeq", 1);
    assert_ne!(flipped, lines[line]);
    let damaged = [&lines[..line], &[&flipped], &lines[line + 1..]].concat();
    let place = format!("line {} of the export, the event at position 31", line + 1);
    for (name, text, expected) in [
        ("damaged", damaged.concat(), &*place),
        ("cut", lines[..50].concat(), "breaks off"),
        (
            "stream",
            export(&["--stream", "sales"]),
            "stream sales only",
        ),
        ("later", export(&["--after", "9"]), "begins after position"),
    ] {
        let file = desk.write(name, text);
        let copy = Data::new();
        let said = fails(1, offline(copy.path(), &["import"]).arg(&file));
        assert!(said.contains(expected), "{name}: {said}");
        assert_eq!(fs::read_dir(copy.path()).unwrap().count(), 0, "{name}");
        let mut verify = hookpool();
        verify.arg("verify").arg("--export").arg(&file);
        if matches!(name, "damaged" | "cut") {
            let said = fails(6, &mut verify);
            assert!(said.contains(expected), "{name}: {said}");
        } else {
            succeed(&mut verify);
        }
        let against = output_within(LIMIT, verify.arg("--head").arg(&head));
        let code = if name == "later" { 0 } else { 6 };
        assert_eq!(against.status.code(), Some(code), "{}", both(&against));
    }
}

#[test]
fn another_history_is_not_the_one_that_was_signed() {
    let (data, other, desk) = (Data::new(), Data::new(), Desk::new());
    let [server, stranger] = [&data, &other].map(Data::serve);
    fill(&server);
    fill(&stranger);
    let early = desk.write("early.json", head(&server, &data).to_string());
    let foreign = desk.write("foreign.json", head(&stranger, &other).to_string());
    let connector = server.add_connector("more", false);
    server.post(&connector, "{}").expect(202);
    let late = desk.write("late.json", head(&server, &data).to_string());
    let file = desk.file("until.ndjson");
    succeed(
        ask(&server, &data)
            .args(["export", "--until", "60"])
            .arg(&file),
    );
    server.stop();
    let against = |kept: &Path| {
        let output = output_within(
            LIMIT,
            offline(data.path(), &["verify"]).arg("--head").arg(kept),
        );
        (output.status.code(), both(&output))
    };
    assert_eq!(against(&early).0, Some(0));
    assert_eq!(against(&late).0, Some(0));
    let (code, said) = against(&foreign);
    assert!(code == Some(6) && said.contains("of log"), "{said}");
    let mut verify = hookpool();
    verify.arg("verify").arg("--export").arg(&file);
    let said = fails(6, verify.arg("--head").arg(&late));
    assert!(said.contains("events are missing"), "{said}");
    let text = fs::read_to_string(&late).unwrap();
    let forged = desk.write(
        "forged.json",
        text.replace(r#""position":61"#, r#""position":60"#),
    );
    let (code, said) = against(&forged);
    assert!(code == Some(6) && said.contains("signature"), "{said}");
}

#[test]
fn cloud_events_have_their_shape() {
    let data = Data::new();
    let server = data.serve();
    fill(&server);
    let format = ["export", "--format", "cloudevents"];
    let text = succeed(ask(&server, &data).args(format));
    let epoch = head(&server, &data)["epoch"].as_str().unwrap().to_owned();
    assert_eq!(text.lines().count(), 60);
    for (at, line) in (1..).zip(text.lines()) {
        let event: Value = serde_json::from_str(line).unwrap();
        let event = event.as_object().unwrap();
        let text = |name: &str| {
            event[name]
                .as_str()
                .unwrap_or_else(|| panic!("{name}: {line}"))
        };
        assert_eq!(text("specversion"), "1.0");
        assert_eq!(text("id"), format!("{epoch}.{at}"));
        assert_eq!(text("position"), at.to_string());
        assert_eq!(text("type"), "hookpool.upsert");
        assert_eq!(text("datacontenttype"), "application/json");
        assert!(text("source").starts_with(&format!("{}/api/streams/", server.url())));
        assert!(!text("subject").is_empty() && text("time").ends_with('Z'));
        assert!(event["data"].is_object());
        assert_eq!(event.len(), 9);
    }
    let one = [
        &format[..],
        &["--stream", "builds", "--after", "10", "--until", "20"],
    ]
    .concat();
    let text = succeed(ask(&server, &data).args(one));
    assert_eq!(text.lines().count(), 5);
}

#[test]
fn an_export_that_breaks_off_is_never_taken_for_a_whole_one() {
    let data = Data::new();
    let server = data.serve();
    let connector = server.add_connector("big", false);
    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(900_000));
    for _ in 0..24 {
        server.post(&connector, &body).expect(202);
    }
    let mut connection = server.connect();
    let request = Request::get("/api/admin/export").bearer(&server.operator_key);
    let (answer, mut lines) = connection.follow(&request).unwrap();
    assert_eq!(answer.status, 200);
    let mut begun = [0; 1000];
    lines.read_exact(&mut begun).unwrap();
    // The stop has begun when a follower is told so.
    let mut follower = server.connect();
    let follow = Request::get("/api/streams/big/changes?after=now").bearer(&server.operator_key);
    let (_, mut frames) = follower.follow(&follow).unwrap();
    server.terminate();
    let mut told = String::new();
    frames.read_to_string(&mut told).unwrap();
    assert!(told.contains("event: goodbye"), "{told}");
    let mut rest = Vec::new();
    assert!(lines.read_to_end(&mut rest).is_err(), "cut inside the body");
    assert!(!String::from_utf8_lossy(&rest).contains(r#"{"end":"#));
    assert_eq!(server.wait().code(), Some(0));
}

/// Posts on connections of their own until told to stop; the acknowledged positions.
fn write_while<T>(server: &Server, connector: &Connector, run: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let stop = &stop;
            scope.spawn(move || {
                let mut connection = server.connect();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let body = format!(r#"{{"id":"{writer}-{}","n":{n}}}"#, n % 50);
                    let request = connector.delivery(body.as_bytes());
                    connection.call(&request).unwrap().expect(202);
                }
            });
        }
        // Dropped also where `run` panics, so that the writers end.
        let _stopping = Stopping(&stop);
        run()
    })
}

struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn backup(server: &Server, data: &Data, dir: &Path) -> Command {
    let mut command = ask(server, data);
    command.args(["backup", "--output", "json"]).arg(dir);
    command
}

/// Puts the keys of a data folder where a restored one needs them.
fn bring_keys(from: &Data, to: &Data) {
    for key in ["master.key", "operator.key"] {
        fs::copy(from.path().join(key), to.path().join(key)).unwrap();
    }
}

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

/// Drops two of three events of a folder that nobody serves, but for the last ones; how many.
fn drop_most(data: &Data) -> u64 {
    let log = FjallLog::open(&data.path().join("log"), Options::new(Epoch(0))).unwrap();
    let dropped = (1..log.head().0 - 5).filter(|position| position % 3 > 0);
    let dropped = log.drop_events(dropped.map(Position).collect());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().unwrap().block_on(dropped).unwrap().events
}

#[test]
fn a_history_that_lost_events_leaves_and_comes_back_as_it_is() {
    let (data, desk) = (Data::new(), Desk::new());
    let server = data.serve();
    fill(&server);
    let connector = server.add_connector("ledger", true);
    let whole = desk.file("whole");
    let early = write_while(&server, &connector, || {
        std::thread::sleep(Duration::from_millis(300));
        succeed(&mut backup(&server, &data, &whole));
        desk.write("early.json", head(&server, &data).to_string())
    });
    let late = desk.write("late.json", head(&server, &data).to_string());
    server.stop();
    let dropped = drop_most(&data);
    assert!(dropped > 100, "{dropped}");
    // What was signed before holds, and what was dropped is counted.
    let verify = |folder: &Path, head: &Path| -> u64 {
        let mut command = offline(folder, &["verify", "--output", "json"]);
        let verified: Value =
            serde_json::from_str(&succeed(command.arg("--head").arg(head))).unwrap();
        verified["log"]["dropped"].as_u64().unwrap()
    };
    for head in [&early, &late] {
        assert_eq!(verify(data.path(), head), dropped);
    }
    let said = succeed(&mut offline(data.path(), &["verify"]));
    assert!(
        said.contains("DROPPED") && said.contains(&dropped.to_string()),
        "{said}"
    );

    let server = data.serve();
    server.post(&connector, "{}").expect(202);
    let (stored, log) = (blocks(&server), server.log("ledger"));
    let file = desk.file("history.ndjson");
    succeed(ask(&server, &data).arg("export").arg(&file));
    // A backup from before goes on, and keeps what it has; a new one has what the server has.
    succeed(&mut backup(&server, &data, &whole));
    let thinned = desk.file("thinned");
    succeed(&mut backup(&server, &data, &thinned));
    server.stop();
    for head in [&early, &late] {
        assert!(verify(&whole, head) < dropped);
        assert_eq!(verify(&thinned, head), dropped);
        let mut command = hookpool();
        command
            .args(["verify", "--output", "json", "--export"])
            .arg(&file);
        let verified: Value =
            serde_json::from_str(&succeed(command.arg("--head").arg(head))).unwrap();
        assert_eq!(verified["export"]["dropped"], dropped);
    }
    let [imported, restored] = [Data::new(), Data::new()];
    succeed(offline(imported.path(), &["import"]).arg(&file));
    succeed(offline(restored.path(), &["restore"]).arg(&thinned));
    bring_keys(&data, &restored);
    for copy in [&imported, &restored] {
        let again = copy.serve();
        assert_eq!(blocks(&again), stored);
        again.stop();
        assert_eq!(verify(copy.path(), &late), dropped);
    }
    let again = restored.serve();
    assert_same(&again.log("ledger"), &log, "after a restore");
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

#[test]
fn every_new_command_shows_examples() {
    for words in [
        &["log", "head"][..],
        &["verify"],
        &["export"],
        &["import"],
        &["backup"],
        &["restore"],
    ] {
        let help = succeed(hookpool().args(words).arg("--help"));
        assert!(help.contains("Example"), "{words:?}: {help}");
    }
    let unknown = Request::get("/api/admin/export?format=xml");
    let data = Data::new();
    let server = data.serve();
    server.call(&unknown).expect_problem(401, "UNAUTHORIZED");
    for target in [
        "export?format=xml",
        "export?stream=..",
        "export?after=5&until=4",
        "export?limit=1",
        "blocks?log=pool",
        "head?x=1",
    ] {
        let answer = server.get(&format!("/api/admin/{target}"));
        answer.expect_problem(400, "INVALID_PARAMETER");
    }
    let reader = server.add_reader("r", &["*"]);
    for call in ["head", "export", "blocks"] {
        let request = Request::get(&format!("/api/admin/{call}")).bearer(&reader);
        server.call(&request).expect_problem(401, "UNAUTHORIZED");
    }
}
