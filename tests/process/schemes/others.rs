//! Deliveries that other people's code signs, and the programs that `connector add` prints, run as they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Made, add, of_scheme};
use crate::common::http::Request;
use crate::common::program::{command, hookpool, repository, succeed, tool};
use crate::common::server::{Data, Server};
use crate::common::signer::{SCHEMES, written};

type Headers = BTreeMap<String, String>;

/// What signs with a package from outside, given key, id and body behind its own arguments.
fn node(folder: &Path, package: &str) -> Command {
    // Beside its packages, as `npm install` leaves it.
    let modules = folder.join("node_modules");
    if !modules.exists() {
        std::os::unix::fs::symlink(tool("HOOKPOOL_NODE_MODULES"), modules).unwrap();
        fs::copy(
            repository("tests/senders/sign.mjs"),
            folder.join("sign.mjs"),
        )
        .unwrap();
    }
    let mut node = command(tool("HOOKPOOL_NODE"));
    node.arg(folder.join("sign.mjs")).arg(package);
    node
}

fn python(sender: &str) -> Command {
    let mut python = command(tool("HOOKPOOL_PYTHON"));
    python.arg(repository("tests/senders/sign.py")).arg(sender);
    python
}

fn post(server: &Server, made: &Made, headers: &Headers, body: &str) -> (u16, String) {
    let request = headers
        .iter()
        .fold(Request::post(made.hook()), |request, (name, value)| {
            request.header(name, value)
        });
    let answer = server.call(&request.body(body));
    let code = if answer.status == 202 {
        String::new()
    } else {
        answer.problem()
    };
    (answer.status, code)
}

/// The value with its last digit or letter before any padding turned into another.
fn turned(value: &str) -> String {
    let at = value.rfind(|c: char| c.is_ascii_alphanumeric()).unwrap();
    // Not the last one: in base64 some of its bits are padding.
    let at = at - 1;
    let other = if value[at..].starts_with('0') {
        "1"
    } else {
        "0"
    };
    format!("{}{other}{}", &value[..at], &value[at + 1..])
}

/// The sender's delivery is taken; with anything changed that is signed, it is not.
fn hold(server: &Server, scheme: &str, mut sender: Command) {
    let name = format!("{scheme}-{}", server.log_names());
    let settings = json!({"stream": name, "scheme": scheme});
    let made = add(server, &settings);
    let body = r#"{"id":"evt_1","event_id":"Ev1","text":"ü ☃ \" \\","n":1.50}"#;
    sender.args([made.key(), "msg_2b5e", body]);
    let headers: Headers = serde_json::from_str(&succeed(&mut sender)).unwrap();
    let refused = (401, "SIGNATURE_INVALID".to_owned());
    let other = body.replace("1.50", "1.51");
    assert_eq!(
        post(server, &made, &headers, &other),
        refused,
        "{scheme}: the body"
    );
    assert_eq!(post(server, &made, &headers, &format!("{body}\n")), refused);
    for (header, value) in &headers {
        let trusted = ["X-GitHub-Delivery", "X-Shopify-Event-Id"];
        if trusted.contains(&header.as_str()) {
            continue;
        }
        let mut changed = headers.clone();
        changed.insert(header.clone(), turned(value));
        assert_eq!(
            post(server, &made, &changed, body),
            refused,
            "{scheme}: {header}"
        );
        changed.remove(header);
        assert_eq!(
            post(server, &made, &changed, body),
            refused,
            "{scheme}: no {header}"
        );
    }
    assert!(server.log(&name).is_empty());
    assert_eq!(
        post(server, &made, &headers, body).0,
        202,
        "{scheme}: {headers:?}"
    );
    let log = server.log(&name);
    assert_eq!((log.len(), log[0].body.as_str()), (1, body));
}

impl Server {
    /// How many connectors there are, for a new name.
    fn log_names(&self) -> usize {
        let connectors: Value = self.get("/api/admin/connectors").expect(200).json();
        connectors["connectors"].as_array().unwrap().len()
    }
}

#[test]
#[ignore = "needs node with packages of senders: tests/run"]
fn deliveries_that_npm_packages_sign_are_taken_and_changed_ones_are_not() {
    let data = Data::new();
    let server = data.serve();
    let folder = tempfile::tempdir().unwrap();
    for (package, scheme) in [
        ("@octokit/webhooks-methods", "github"),
        ("standardwebhooks", "standard-webhooks"),
        ("svix", "standard-webhooks"),
        ("stripe", "stripe"),
    ] {
        hold(&server, scheme, node(folder.path(), package));
    }
}

#[test]
#[ignore = "needs python with standardwebhooks: tests/run"]
fn deliveries_that_python_signs_are_taken_and_changed_ones_are_not() {
    let data = Data::new();
    let server = data.serve();
    for (sender, scheme) in [
        ("standardwebhooks", "standard-webhooks"),
        ("slack", "slack"),
        ("shopify", "shopify"),
    ] {
        hold(&server, scheme, python(sender));
    }
}

/// `hookpool` with the server and the operator's key.
fn operator(data: &Data, server: &Server) -> Command {
    let mut command = hookpool();
    command.args(["--server", &server.url(), "--operator-key-file"]);
    command.arg(data.path().join("operator.key"));
    command
}

fn as_argument(scheme: &str) -> String {
    match written(scheme) {
        Value::String(name) => name,
        described => described.to_string(),
    }
}

/// The programs of a text, by language.
fn programs(text: &str) -> BTreeMap<String, String> {
    let sections = text.split("\n--- ").skip(1);
    let program = |section: &str| {
        let (language, program) = section.split_once('\n').unwrap();
        (language.to_owned(), program.to_owned())
    };
    sections.map(program).collect()
}

#[test]
#[ignore = "needs curl, openssl, node and python: tests/run"]
fn the_printed_programs_run_as_they_are_and_are_taken() {
    let data = Data::new();
    let server = data.serve();
    let folder = tempfile::tempdir().unwrap();
    for scheme in SCHEMES {
        for signed in [true, false] {
            if !signed && scheme != "hookpool" {
                continue;
            }
            let stream = format!("{scheme}-{signed}");
            let mut add = operator(&data, &server);
            add.args([
                "connector",
                "add",
                &stream,
                "--scheme",
                &as_argument(scheme),
            ]);
            add.args(["--id-field", "/a~1b/it's"]);
            if signed {
                add.arg("--signed");
            }
            let printed = programs(&succeed(&mut add));
            assert_eq!(
                printed.keys().collect::<Vec<_>>(),
                ["bash", "node", "python"]
            );
            for (language, program) in printed {
                let file = folder.path().join(match &*language {
                    "node" => "program.mjs",
                    "python" => "program.py",
                    _ => "program.sh",
                });
                fs::write(&file, &program).unwrap();
                let interpreter = match &*language {
                    "node" => tool("HOOKPOOL_NODE"),
                    "python" => tool("HOOKPOOL_PYTHON"),
                    bash => bash.into(),
                };
                let said = succeed(command(interpreter).arg(&file));
                let accepted = r#""status":"accepted","itemId":"first""#;
                assert!(
                    said.contains(accepted),
                    "{scheme} {language}: {said}\n{program}"
                );
            }
            let bodies: Vec<Value> = server
                .log(&stream)
                .iter()
                .map(|event| serde_json::from_str::<Value>(&event.body).unwrap()["hello"].clone())
                .collect();
            assert_eq!(bodies, ["bash", "node", "python"], "{stream}");
        }
    }
}

#[test]
fn send_speaks_every_scheme() {
    let data = Data::new();
    let server = data.serve();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body.json");
    fs::write(&file, r#"{"id":"evt_1","event_id":"Ev1"}"#).unwrap();
    for scheme in SCHEMES {
        let made = of_scheme(&server, scheme);
        let send = |key: &str| {
            let mut send = hookpool();
            send.args([
                "send",
                scheme,
                "--scheme",
                &as_argument(scheme),
                "--server",
                &server.url(),
            ])
            .arg(&file)
            .env("HOOKPOOL_INGEST_KEY", &made.ingest_key)
            .env("HOOKPOOL_SIGNING_KEY", key);
            send
        };
        let said = succeed(&mut send(made.key()));
        assert!(said.starts_with("accepted  position "), "{scheme}: {said}");
        let other: Made = add(
            &server,
            &json!({"stream": format!("{scheme}-other"), "scheme": written(scheme), "signed": true}),
        );
        let refused = send(other.key()).output().unwrap();
        assert_eq!(refused.status.code(), Some(4), "{scheme}");
        assert_eq!(server.log(scheme).len(), 1);
    }
}

#[test]
fn the_command_line_takes_a_senders_key_from_a_file_standard_input_or_a_variable() {
    use std::io::Write;
    use std::process::Stdio;

    let data = Data::new();
    let server = data.serve();
    let key = "whsec_of-the-sender";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stripe.key");
    fs::write(&file, format!("{key}\n")).unwrap();
    let mut add = operator(&data, &server);
    add.args([
        "connector",
        "add",
        "pay",
        "--scheme",
        "stripe",
        "--output",
        "json",
        "--signing-key-file",
    ]);
    let made: Value = serde_json::from_str(&succeed(add.arg(&file))).unwrap();
    for member in [
        "stream",
        "keyId",
        "ingestKey",
        "signingKey",
        "url",
        "hookUrl",
    ] {
        assert!(made[member].is_string(), "{member} of {made}");
    }
    assert_eq!(made["signingKey"], key);

    let rotate = || {
        let mut rotate = operator(&data, &server);
        rotate.args(["connector", "rotate-signing-key", "pay", "--output", "json"]);
        rotate
    };
    let mut from_variable = rotate();
    from_variable
        .args(["--signing-key-env", "STRIPE"])
        .env("STRIPE", key);
    let rotated: Value = serde_json::from_str(&succeed(&mut from_variable)).unwrap();
    assert_eq!(rotated["signingKey"], key);

    let mut piped = rotate();
    piped
        .args(["--signing-key-file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"whsec_of-the-sender-2\r\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let rotated: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rotated["signingKey"], "whsec_of-the-sender-2");

    fs::write(&file, "\n").unwrap();
    let empty = rotate()
        .arg("--signing-key-file")
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(empty.status.code(), Some(1));
    let said = String::from_utf8_lossy(&empty.stderr);
    assert!(said.contains("at least 16 characters"), "{said}");
    let as_argument = rotate().args(["--signing-key", key]).output().unwrap();
    assert_eq!(as_argument.status.code(), Some(2), "a key is no argument");
    let mut set = operator(&data, &server);
    set.args([
        "connector",
        "set",
        "pay",
        "--id-field",
        "/data/object/id",
        "--output",
        "json",
    ]);
    let changed: Value = serde_json::from_str(&succeed(&mut set)).unwrap();
    assert_eq!(changed["idField"], "/data/object/id");
    let mut show = operator(&data, &server);
    let shown = succeed(show.args(["connector", "show", "pay"]));
    assert!(
        shown.contains("stripe") && shown.contains("At Stripe, "),
        "{shown}"
    );
    assert!(!shown.contains("whsec_of"), "{shown}");
}
