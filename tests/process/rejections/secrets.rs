//! Nothing that is kept, logged or counted of a refused delivery has a secret in it, wherever its sender put it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{BODY, hook_of, refused, webhook};
use crate::common::http::Request;
use crate::common::now_s;
use crate::common::server::{Data, Server, signed};

/// The names and contents of all files of a folder, and of those in it.
fn bytes_of(folder: &Path, into: &mut Vec<u8>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        into.extend_from_slice(path.to_string_lossy().as_bytes());
        match path.is_dir() {
            true => bytes_of(&path, into),
            false => into.extend(fs::read(&path).unwrap()),
        }
    }
}

#[test]
fn no_secret_gets_into_rejections_logs_or_metrics() {
    let data = Data::new();
    let debug = ("RUST_LOG", "trace");
    let server = Server::try_start_with(data.path(), &[debug]).unwrap();
    let settings =
        json!({"stream": "sales", "scheme": "hookpool", "signed": true, "keepRejected": true});
    let made: Value = server
        .admin("POST", "connectors", &settings)
        .expect(201)
        .json();
    let secrets: Vec<String> = ["ingestKey", "signingKey", "hookUrl"]
        .iter()
        .map(|member| {
            made[member]
                .as_str()
                .unwrap()
                .rsplit('_')
                .next()
                .unwrap()
                .to_owned()
        })
        .chain([
            "canaryone".to_owned(),
            "canarytwo".to_owned(),
            "canarythree".to_owned(),
            "canaryfour".to_owned(),
            server.operator_key.rsplit('_').next().unwrap().to_owned(),
        ])
        .collect();
    let (key, signing_key) = (
        made["ingestKey"].as_str().unwrap(),
        made["signingKey"].as_str().unwrap(),
    );
    let hook = hook_of(&made);
    let now = now_s().to_string();
    let requests = [
        // A good key with a bad signature, by both ways.
        signed(webhook(key), "whsk_another_signing_key", &now, BODY)
            .header("Cookie", "s=canaryone")
            .body(BODY),
        signed(Request::post(&hook), "whsk_another_signing_key", &now, BODY).body(BODY),
        // Secrets where they do not belong.
        webhook("ik_canarytwo_canarythree").body("{}"),
        webhook(&format!("{key}x")).body("{}"),
        Request::post(&format!("/api/webhook/{key}"))
            .bearer(signing_key)
            .body("{}"),
        Request::post(&format!("{hook}x?key=canaryfour")).body("{}"),
        Request::post(&format!("/api/hooks/{}", server.operator_key))
            .header("X-Key", "canaryone")
            .body("{}"),
        Request::post(&format!("/api/webhook/sales?key={signing_key}"))
            .header("Authorization", format!("Basic {key}"))
            .body("{}"),
    ];
    for request in &requests {
        refused(&server, request, 401);
    }
    let mut found = server.get("/metrics").text().as_bytes().to_vec();
    found.extend(server.get("/api/admin/rejections").body);
    let folder = data.path().join("rejections");
    assert!(fs::read_dir(&folder).unwrap().count() >= requests.len());
    found.extend(server.kill9_heard().into_bytes());
    bytes_of(&folder, &mut found);
    assert!(found.len() > 5_000);
    for secret in &secrets {
        assert!(
            memchr::memmem::find(&found, secret.as_bytes()).is_none(),
            "{secret}"
        );
    }
}
