//! What is not kept can't be tried again, and why is said; what can't be written refuses nothing.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::{BODY, LINES, many, refused, rejection, run, webhook};
use crate::common::eventually;
use crate::common::program::both;
use crate::common::server::{Connector, Data, Server};

#[test]
fn what_was_read_in_part_is_not_kept_and_what_was_not_kept_can_not_be_tried_again() {
    let data = Data::new();
    let server = data.serve();
    let small = json!({"stream": "sales", "keepRejected": true, "limits": {"bodyBytes": 40}});
    let sales = server.add_connector_with(&small);
    let body = r#"{"id":"a","text":"more than forty bytes, by far"}"#;
    let chunked = webhook(&sales.ingest_key).chunked(body.as_bytes(), 30);
    let part = refused(&server, &chunked, 413);
    assert_eq!(part["kept"], json!(false), "{part:#}");
    let whole = refused(&server, &sales.delivery(body.as_bytes()), 413);
    assert_eq!(
        (&whole["reason"], &whole["kept"]),
        (&json!("payload-too-large"), &json!(true))
    );
    let larger = json!({"limits": {"bodyBytes": 400}, "keepRejected": false});
    server
        .admin("PATCH", "connectors/sales", &larger)
        .expect(200);
    let all = server.admin("POST", "rejections:retry?connector=sales", &json!({}));
    assert_eq!(all.expect(200).json::<Value>()["accepted"], 1);
    assert_eq!(server.log("sales")[0].body, body);
    let unkept = refused(&server, &sales.delivery(b"[]"), 400);
    assert_eq!(
        (&unkept["reason"], &unkept["kept"]),
        (&json!("invalid-payload"), &json!(false))
    );
}

#[test]
fn why_a_delivery_can_not_be_tried_again_is_said() {
    let data = Data::new();
    let room = ("HOOKPOOL_LIMITS_REJECTION_BYTES", "20000");
    let server = Server::try_start_with(data.path(), &[room]).unwrap();
    let settings = json!({"stream": "sales", "keepRejected": true, "limits": {"bodyBytes": 4_000}});
    let sales = server.add_connector_with(&settings);
    let off = server.add_connector("off", false);
    let of_lines = |connector: &Connector, bytes: usize| {
        many(
            connector,
            "",
            LINES,
            &format!("{{}}{}[", "\n".repeat(bytes)),
        )
    };
    let unread = webhook(&sales.ingest_key).chunked(&[b' '; 5_000], 700);
    let dry = sales.delivery_to("/api/webhook/sales?dryRun=true", b"[]");
    let deletion = sales.deletion("a").body("{}");
    let cases = [
        (webhook("ik_000000000000_x").body("{}"), 401, "credential"),
        (of_lines(&off, 10), 400, "off"),
        (off.delivery(b"[]"), 400, "off"),
        (dry, 400, "no-delivery"),
        (deletion, 400, "no-delivery"),
        (many(&sales, "?x=1", LINES, "{}"), 400, "form"),
        (unread, 413, "partial"),
        (of_lines(&sales, 10_001), 400, "too-large"),
    ];
    for (request, status, reason) in &cases {
        let found = refused(&server, request, *status);
        assert_eq!(found["notKept"]["reason"], *reason, "{found:#}");
        assert_eq!(found["kept"], false);
        let target = format!("rejections/{}:retry", found["id"].as_str().unwrap());
        let answer = server.admin("POST", &target, &json!({}));
        answer.expect_problem(409, "CONFLICT");
        let problem: Value = answer.json();
        assert_eq!(problem["detail"], found["notKept"]["detail"], "{reason}");
    }
    // Each takes the room of the one before it.
    let ids = [9_000, 9_000, 9_000].map(|bytes| {
        let found = refused(&server, &of_lines(&sales, bytes), 400);
        assert_eq!(
            (&found["kept"], &found["notKept"]),
            (&json!(true), &Value::Null)
        );
        found["id"].as_str().unwrap().to_owned()
    });
    let gone = eventually("the first gave room", Duration::from_secs(10), || {
        let gone = rejection(&server, &ids[0]);
        (gone["kept"] == false).then_some(gone)
    });
    assert_eq!(gone["notKept"]["reason"], "room");
    // The program says the same.
    let why = gone["notKept"]["detail"].as_str().unwrap();
    let shown = run(&server, &["rejections", "show", &ids[0]]);
    assert!(
        shown.status.success() && both(&shown).contains(why),
        "{}",
        both(&shown)
    );
    let retried = run(&server, &["rejections", "retry", &ids[0]]);
    assert_eq!(retried.status.code(), Some(5), "{}", both(&retried));
    assert!(both(&retried).contains(why), "{}", both(&retried));
    let all = run(&server, &["rejections", "list", "--connector", "sales"]);
    assert!(both(&all).contains("too-large"), "{}", both(&all));
}

#[test]
fn a_folder_that_can_not_be_written_refuses_nothing() {
    let data = Data::new();
    data.serve().stop();
    fs::remove_dir_all(data.path().join("rejections")).unwrap();
    fs::write(data.path().join("rejections"), "in the way").unwrap();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    refused(&server, &webhook("ik_0_x").body("{}"), 401);
    server.post(&sales, BODY).expect(202);
}
