//! An export is proved against a signed head and comes back as the same log, or what is wrong with it is named.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Desk, LIMIT, ask, blocks, fails, fill, head, offline};
use crate::common::fold::assert_same;
use crate::common::http::Request;
use crate::common::program::{both, hookpool, output_within, succeed};
use crate::common::server::Data;

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
