//! What the commands say and how they end where somebody is wrong: names, servers, keys, folders that are not whole.

mod arguments;
mod dots;
mod hints;
mod lines;
mod several;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::http::Request;
use crate::common::program::{both, hookpool, output_within, succeed};
use crate::common::server::{Data, Server};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a command that has to end with this code, and gives its stdout and stderr.
#[track_caller]
fn ends(code: i32, command: &mut Command) -> (String, String) {
    let output = output_within(LIMIT, command);
    assert_eq!(output.status.code(), Some(code), "{}", both(&output));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

fn words(line: &str) -> Command {
    let mut command = hookpool();
    command.args(line.split_whitespace());
    command
}

fn at(server: &Server, line: &str) -> Command {
    let mut command = words(line);
    command.env("HOOKPOOL_SERVER", server.url());
    command.env("HOOKPOOL_OPERATOR_KEY", &server.operator_key);
    command
}

fn verify(folder: &Path) -> Command {
    let mut command = words("verify --output json --data-dir");
    command.arg(folder);
    command
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn what_is_malformed_is_wrong_usage_and_says_how_it_should_be() {
    let (_, said) = ends(2, &mut words("connector add bad/name"));
    assert!(said.contains("1 to 64 characters"), "{said}");
    let (_, said) = ends(
        2,
        hookpool().args(["reader", "add", "a b", "--stream", "*"]),
    );
    assert!(said.contains("1 to 64 characters"), "{said}");
    let (_, said) = ends(2, &mut words("health --server localhost:8080"));
    assert!(said.contains("http:// or https://"), "{said}");
}

#[test]
fn what_does_not_look_like_a_key_is_not_sent_anywhere() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("master.key");
    let read_key = format!("rk_0123456789ab_{}", "x".repeat(40));
    for (text, line) in [
        ("0123abcd".repeat(8), "connector list"),
        ("0123abcd".repeat(8), "items list sales"),
        (read_key, "connector list"),
    ] {
        fs::write(&file, &text).unwrap();
        let mut command = words(line);
        command.args(["--server", &url, "--operator-key-file"]);
        let (_, said) = ends(4, command.arg(&file));
        assert!(said.contains("which begins with ok_"), "{said}");
        assert!(!said.contains(&text), "{said}");
        let (_, said) = ends(
            4,
            words(line)
                .args(["--server", &url])
                .env("HOOKPOOL_OPERATOR_KEY", "ik_0_geheim"),
        );
        assert!(said.contains("HOOKPOOL_OPERATOR_KEY"), "{said}");
    }
    listener.accept().unwrap_err();
}

#[test]
fn a_folder_that_lacks_a_log_is_a_problem_and_an_import_is_none() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    server.post(&sales, r#"{"id":"a"}"#).expect(202);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("history.ndjson");
    succeed(at(&server, "export").arg(&file));
    server.stop();

    let imported = folder.path().join("imported");
    succeed(words("import --data-dir").arg(&imported).arg(&file));
    let (report, said) = ends(0, &mut verify(&imported));
    assert_eq!(parsed(&report)["log"]["ok"], true);
    assert_eq!(parsed(&report)["control"], Value::Null);
    assert_eq!(said, "");

    let aside = folder.path().join("control");
    fs::rename(data.path().join("control"), &aside).unwrap();
    let report = parsed(&ends(6, &mut verify(data.path())).0);
    assert_eq!(
        (&report["log"]["ok"], &report["control"]["ok"]),
        (&json!(true), &json!(false))
    );
    assert!(
        report["control"]["problem"]
            .as_str()
            .unwrap()
            .contains("restore both")
    );

    fs::rename(&aside, data.path().join("control")).unwrap();
    fs::remove_dir_all(data.path().join("log")).unwrap();
    let report = parsed(&ends(6, &mut verify(data.path())).0);
    assert_eq!(
        (&report["log"]["ok"], &report["control"]["ok"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(report["log"]["intactUpTo"], 0);

    let (_, said) = ends(1, &mut verify(&folder.path().join("nowhere")));
    assert!(said.contains("there is no log here"), "{said}");
}

#[test]
fn a_rebuild_that_ended_is_a_conflict_and_not_a_stranger() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    server.post(&sales, r#"{"id":"a"}"#).expect(202);
    succeed(&mut at(&server, "rebuild start sales --wait"));
    succeed(&mut at(&server, "rebuild promote sales --any"));
    for again in [
        "promote sales --any",
        "cancel sales",
        "pause sales",
        "resume sales",
    ] {
        let (_, said) = ends(5, &mut at(&server, &format!("rebuild {again}")));
        assert!(said.contains("rebuild 2 is promoted already"), "{said}");
    }
    let of = "/api/admin/streams/sales/rebuilds";
    let unknown = Request::new("POST", &format!("{of}/9:promote")).bearer(&server.operator_key);
    server.call(&unknown.header("If-Match", "*")).expect(404);
}

#[test]
fn any_version_of_rules_is_taken_where_the_client_says_any() {
    let data = Data::new();
    let server = data.serve();
    server.add_connector("sales", false);
    let put = |if_match: &str| {
        let request = Request::new("PUT", "/api/admin/streams/sales/projection");
        let request = request.bearer(&server.operator_key).body(r#"{"id":"/a"}"#);
        server.call(&request.header("If-Match", if_match))
    };
    put("\"0\"").expect(201);
    put("*").expect(201);
    put("\"0\"").expect(412);
}

#[test]
fn of_many_that_replace_one_version_of_rules_one_does() {
    let data = Data::new();
    let server = data.serve();
    server.add_connector("sales", false);
    let put = |n: usize| {
        let body = format!(r#"{{"id":"/{n}"}}"#);
        let request = Request::new("PUT", "/api/admin/streams/sales/projection");
        let request = request.bearer(&server.operator_key).body(body);
        server.call(&request.header("If-Match", "\"0\"")).status
    };
    let mut statuses: Vec<_> = std::thread::scope(|scope| {
        let puts: Vec<_> = (0..8).map(|n| scope.spawn(move || put(n))).collect();
        puts.into_iter().map(|put| put.join().unwrap()).collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 412, 412, 412, 412, 412, 412, 412]);
}

#[test]
fn a_command_that_prints_a_fact_prints_it_as_json() {
    let data = Data::new();
    let server = data.serve();
    let line = "connector add pay --scheme stripe --output json";
    let made = parsed(&succeed(&mut at(&server, line)));
    let hook = made["hookUrl"].as_str().unwrap();
    let id = hook.split_once("hk_").unwrap().1.split('_').next().unwrap();
    let line = format!("connector revoke-hook pay {id} --output json");
    let revoked = parsed(&succeed(&mut at(&server, &line)));
    assert_eq!(
        revoked,
        json!({"name": "pay", "keyId": id, "revoked": true})
    );
    let schema = parsed(&succeed(&mut words("projection schema --output json")));
    assert_eq!(schema["type"], "object");
}

#[test]
fn what_connector_add_prints_names_the_connector() {
    let data = Data::new();
    let server = data.serve();
    for scheme in ["standard-webhooks", "stripe", "slack", "shopify"] {
        let line = format!("connector add {scheme} --scheme {scheme}");
        let steps =
            format!("  hookpool connector rotate-signing-key {scheme} --signing-key-file -");
        let (printed, _) = ends(0, &mut at(&server, &line));
        assert!(printed.lines().any(|line| line == steps), "{printed}");
        let (shown, _) = ends(0, &mut at(&server, &format!("connector show {scheme}")));
        assert!(shown.lines().any(|line| line == steps), "{shown}");
    }
}

#[test]
fn a_missing_ingest_key_is_asked_for_by_its_variable() {
    for line in ["ingest sales f", "send sales f", "delete sales North"] {
        let (_, said) = ends(2, &mut words(line));
        assert!(said.contains("--ingest-key <KEY>"), "{said}");
        assert!(
            said.contains("set HOOKPOOL_INGEST_KEY to the key"),
            "{said}"
        );
    }
    let (_, said) = ends(2, &mut words("ingest --ingest-key ik_x"));
    assert!(!said.contains("HOOKPOOL_INGEST_KEY"), "{said}");
}
