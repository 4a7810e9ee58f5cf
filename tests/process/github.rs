//! Real GitHub deliveries go in signed and come out byte for byte.
//!
//! `HOOKPOOL_GITHUB_PAYLOADS` names a file with one body a line, which `tests/run` makes from an npm package.

use std::fs;

use serde_json::json;

use crate::common::fold::{Event, fold};
use crate::common::http::Request;
use crate::common::program::{both, command, hookpool, repository, succeed, tool};
use crate::common::server::{Data, Server, percent, position};

/// The bodies; every second one with blanks around it, which have to survive too.
fn bodies() -> Vec<String> {
    let text = fs::read_to_string(tool("HOOKPOOL_GITHUB_PAYLOADS")).unwrap();
    let pad = |(n, line): (usize, &str)| {
        if n % 2 == 0 {
            line.to_owned()
        } else {
            format!("\t \r\n{line}\n ")
        }
    };
    text.lines().enumerate().map(pad).collect()
}

/// Delivers all of them in order on one connection and gives the positions.
fn deliver(server: &Server, stream: &str, bodies: &[String]) -> Vec<u64> {
    // Some of the bodies are equal, and within a second their signatures are too.
    let settings = json!({"stream": stream, "signed": true, "replay": "allow"});
    let connector = server.add_connector_with(&settings);
    let target = format!("{}?idField=action", connector.target());
    let mut connection = server.connect();
    let mut post = |body: &String| {
        let request = connector.delivery_to(&target, body.as_bytes());
        position(&connection.call(&request).unwrap().expect(202))
    };
    bodies.iter().map(&mut post).collect()
}

fn raw(server: &Server, stream: &str, position: u64) -> Vec<u8> {
    let target = format!("/api/streams/{stream}/log/{position}");
    let request = Request::get(&target).bearer(&server.operator_key);
    server
        .call(&request.header("Accept", "application/octet-stream"))
        .expect(200)
        .body
}

#[test]
#[ignore = "needs the payloads and python: tests/run"]
fn github_deliveries_come_back_byte_for_byte_and_fold_alike() {
    let bodies = bodies();
    assert!(bodies.len() >= 300, "only {} payloads", bodies.len());
    let data = Data::new();
    let server = data.serve();
    let positions = deliver(&server, "github", &bodies);

    let log: Vec<Event> = server.log("github");
    assert_eq!(
        log.iter().map(|event| event.position).collect::<Vec<_>>(),
        positions
    );
    for (event, body) in log.iter().zip(&bodies) {
        assert_eq!(&event.body, body);
        assert_eq!(raw(&server, "github", event.position), body.as_bytes());
    }

    let (_, items) = server.items("github", *positions.last().unwrap());
    assert_eq!(items, fold(&log));
    assert!(
        items.contains_key("created") && items.len() < bodies.len(),
        "nothing was merged"
    );
    for id in items.keys().filter(|id| !id.contains('-')) {
        let target = format!("/api/streams/github/items/{}", percent(id));
        server.get(&target).expect(200);
    }

    let mut python = command(tool("HOOKPOOL_PYTHON"));
    python
        .arg(repository("tests/fold.py"))
        .args([&server.url(), &server.operator_key, "github"]);
    let said = succeed(&mut python);
    assert!(
        said.starts_with(&format!("{} events, ", bodies.len())),
        "{said}"
    );
    assert!(said.ends_with(", 0 differ\n"), "{said}");
}

#[test]
#[ignore = "needs the payloads: tests/run"]
fn the_command_line_shows_an_events_exact_bytes() {
    let bodies: Vec<String> = bodies();
    let data = Data::new();
    let server = data.serve();
    let positions = deliver(&server, "github", &bodies);
    for (position, body) in positions.iter().zip(&bodies) {
        let mut show = hookpool();
        show.args(["log", "show", "github", &position.to_string(), "--raw"]);
        show.args(["--server", &server.url(), "--operator-key-file"]);
        show.arg(data.path().join("operator.key"));
        let output = show.output().unwrap();
        assert!(output.status.success(), "{}", both(&output));
        assert_eq!(output.stdout, body.as_bytes());
    }
}
