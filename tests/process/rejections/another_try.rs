//! What was refused and kept is taken, whole and in its order, once what refused it was put right.

use serde_json::{Value, json};

use super::{BODY, LINES, many, refused, rejection, retry, webhook};
use crate::common::program::hookpool;
use crate::common::server::{Connector, Data, Server};

/// A connector whose sender has a signing key of its own, which the server does not know yet.
fn mistaken(server: &Server) -> (Connector, Connector) {
    let settings =
        json!({"stream": "sales", "signed": true, "idField": "region", "keepRejected": true});
    let sales = server.add_connector_with(&settings);
    let theirs = Connector {
        signing_key: Some("whsk_the_senders_own_signing_key".to_owned()),
        ..sales.clone()
    };
    (sales, theirs)
}

#[test]
fn what_was_kept_is_tried_again_after_the_connector_was_put_right() {
    let data = Data::new();
    let server = data.serve();
    let (_, theirs) = mistaken(&server);
    let found = refused(&server, &theirs.delivery(BODY), 401);
    let id = found["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&found["kept"], &found["bodyBytes"]),
        (&json!(true), &json!(BODY.len()))
    );
    let unkept = server.call(&webhook("ik_0_x").body("{}")).expect(401);
    let unkept = unkept.header("X-Request-Id").unwrap().to_owned();
    // An operator sees it hours later.
    let server = server.restart();
    let retry = |id: &str| server.admin("POST", &format!("rejections/{id}:retry"), &json!({}));
    let still: Value = retry(&id).expect(200).json();
    assert_eq!(
        (&still["outcome"], &still["code"]),
        (&json!("refused"), &json!("SIGNATURE_INVALID"))
    );
    let key = json!({"signingKey": theirs.signing_key});
    server
        .admin("POST", "connectors/sales/signing-keys:rotate", &key)
        .expect(200);
    let first: Value = retry(&id).expect(200).json();
    assert_eq!(
        (&first["outcome"], &first["itemId"]),
        (&json!("accepted"), &json!("North"))
    );
    let again: Value = retry(&id).expect(200).json();
    assert_eq!(
        (&again["position"], &again["replayed"]),
        (&first["position"], &json!(true))
    );
    let log = server.log("sales");
    assert_eq!(log.len(), 1);
    assert_eq!(
        rejection(&server, &id)["retried"]["position"],
        first["position"]
    );
    retry(&unkept).expect_problem(409, "CONFLICT");
    retry("00000000-0000-7000-8000-000000000000").expect_problem(404, "NOT_FOUND");
    // Also after another restart it is known.
    let server = server.restart();
    let again = server.admin("POST", &format!("rejections/{id}:retry"), &json!({}));
    assert_eq!(again.expect(200).json::<Value>()["replayed"], true);
    assert_eq!(server.log("sales").len(), 1);
}

#[test]
fn many_events_that_were_refused_are_taken_whole_or_not_at_all_by_another_try() {
    let data = Data::new();
    let server = data.serve();
    let (sales, theirs) = mistaken(&server);
    let lines = "{\"n\":1}\n\n{\"n\":2,\"x\":1.0}\r\n{\"n\":3}";
    let lines = many(&theirs, "?idField=n", LINES, lines);
    let items = json!({"stream": "sales", "items": [{"id": "i", "fields": {}}, {"fields": {"a": 1, "b": 2}}]});
    let items = items.to_string();
    let items = many(&theirs, "", "application/json", &items);
    let ids: Vec<String> = [&lines, &items]
        .map(|request| {
            let found = refused(&server, request, 401);
            assert_eq!(
                (&found["way"], &found["kept"]),
                (&json!("ingest"), &json!(true))
            );
            assert_eq!(
                (&found["reason"], &found["notKept"]),
                (&json!("signature"), &Value::Null)
            );
            found["id"].as_str().unwrap().to_owned()
        })
        .to_vec();
    let server = server.restart();
    assert_eq!(retry(&server, &ids[0])["code"], "SIGNATURE_INVALID");
    let key = json!({"signingKey": theirs.signing_key});
    server
        .admin("POST", "connectors/sales/signing-keys:rotate", &key)
        .expect(200);
    // One that is refused refuses all, as when it came.
    let limit =
        |fields: Value| server.admin("PATCH", "connectors/sales", &json!({"limits": fields}));
    limit(json!({"fields": 1})).expect(200);
    let refused = retry(&server, &ids[0]);
    assert_eq!(
        (&refused["code"], &refused["line"]),
        (&json!("TOO_MANY_FIELDS"), &json!(3))
    );
    assert_eq!(retry(&server, &ids[1])["item"], 1);
    assert!(server.log("sales").is_empty());
    limit(json!({})).expect(200);
    let first = retry(&server, &ids[0]);
    assert_eq!(
        (&first["outcome"], &first["events"], &first["itemId"]),
        (&json!("accepted"), &json!(3), &Value::Null)
    );
    assert_eq!(
        (&first["position"], &first["replayed"]),
        (&json!(3), &json!(false))
    );
    let second = retry(&server, &ids[1]);
    assert_eq!(
        (&second["position"], &second["events"]),
        (&json!(5), &json!(2))
    );
    let log = server.log("sales");
    let found: Vec<_> = log.iter().map(|it| (&*it.item_id, &*it.body)).collect();
    assert_eq!(
        found[..4],
        [
            ("1", r#"{"n":1}"#),
            ("2", r#"{"n":2,"x":1.0}"#),
            ("3", r#"{"n":3}"#),
            ("i", "{}"),
        ]
    );
    // Again, after a restart too, and by its sender, whose request it is.
    let server = server.restart();
    let again = retry(&server, &ids[0]);
    assert_eq!(
        (&again["position"], &again["events"], &again["replayed"]),
        (&first["position"], &json!(3), &json!(true))
    );
    let sent = server.call(&items).expect(202);
    assert_eq!(sent.header("Idempotency-Replayed"), Some("true"));
    assert_eq!(sent.header("DataPool-Position"), Some("5"));
    let taken = rejection(&server, &ids[1]);
    assert_eq!(taken["retried"]["events"], 2);
    assert_eq!(taken["notKept"]["reason"], "taken");
    assert_eq!(server.log("sales").len(), 5);
    assert_eq!(sales.stream, "sales");
}

#[test]
fn a_disabled_connector_keeps_what_comes_and_takes_it_when_it_is_on_again() {
    let data = Data::new();
    let server = data.serve();
    let settings = json!({"stream": "sales", "signed": true, "keepRejected": true});
    let sales = server.add_connector_with(&settings);
    server
        .admin("POST", "connectors/sales:disable", &json!({}))
        .expect(200);
    for n in 0..3 {
        let body = format!(r#"{{"id":"one","n":{n}}}"#);
        let found = refused(&server, &sales.delivery(body.as_bytes()), 401);
        assert_eq!(
            (&found["reason"], &found["kept"]),
            (&json!("disabled"), &json!(true))
        );
    }
    // What only asked what would happen must not happen later.
    let dry = sales.delivery_to("/api/webhook/sales?dryRun=true", b"{}");
    assert_eq!(refused(&server, &dry, 401)["kept"], false);
    let all = |server: &Server| -> Value {
        server
            .admin("POST", "rejections:retry?connector=sales", &json!({}))
            .expect(200)
            .json()
    };
    assert_eq!(all(&server)["refused"], 3);
    server
        .admin("POST", "connectors/sales:enable", &json!({}))
        .expect(200);
    assert_eq!(all(&server)["accepted"], 3);
    let last = server.log("sales").last().unwrap().position;
    server.items("sales", last);
    let item = "/api/streams/sales/items/one";
    let item: Value = server.get(item).expect(200).json();
    assert_eq!(item["fields"]["n"], 2, "in the order in which they came");
}

#[test]
fn those_that_are_refused_again_hide_no_other() {
    let data = Data::new();
    let server = data.serve();
    let fields = |most: u64| json!({"limits": {"fields": most}});
    let settings = json!({"stream": "sales", "keepRejected": true, "limits": {"fields": 1}});
    let sales = server.add_connector_with(&settings);
    let mut connection = server.connect();
    // As many as one call tries.
    for n in 0..1_000 {
        let body = format!(r#"{{"id":"{n}","a":1,"b":2}}"#);
        connection
            .call(&sales.delivery(body.as_bytes()))
            .unwrap()
            .expect(422);
    }
    // They are tried in the order of their ids, which begin with the millisecond.
    std::thread::sleep(std::time::Duration::from_millis(2));
    refused(&server, &sales.delivery(br#"{"id":"last","a":1}"#), 422);
    server
        .admin("PATCH", "connectors/sales", &fields(2))
        .expect(200);
    let all: Value = server
        .admin("POST", "rejections:retry?connector=sales", &json!({}))
        .expect(200)
        .json();
    assert_eq!(
        (&all["refused"], &all["accepted"]),
        (&json!(1_000), &json!(0))
    );
    assert_eq!(all["next"], all["rejections"][999]["id"]);
    for _ in 0..2 {
        let mut command = hookpool();
        command.args([
            "rejections",
            "retry",
            "--connector",
            "sales",
            "--output",
            "json",
        ]);
        command.env("HOOKPOOL_SERVER", server.url());
        command.env("HOOKPOOL_OPERATOR_KEY", &server.operator_key);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(all["refused"], 1_000);
        assert_eq!(all["next"], Value::Null);
        let log = server.log("sales");
        assert!(
            log.len() == 1 && log[0].item_id == "last",
            "{} events",
            log.len()
        );
    }
}
