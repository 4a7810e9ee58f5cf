//! What others wrote to judge documents, and servers by them, finds nothing.

use std::fs;
use std::path::Path;

use rand::Rng;
use serde_json::json;

use super::path_of_hook;
use crate::common::program::{both, command, repository, tool};
use crate::common::seeded;
use crate::common::server::{Connector, Data, Server};

/// Lints a document; whether nothing was found, and what.
fn lint(document: &Path) -> (bool, String) {
    let mut spectral = command(tool("HOOKPOOL_NODE"));
    let program = tool("HOOKPOOL_NODE_MODULES").join("@stoplight/spectral-cli/dist/index.js");
    spectral
        .arg(program)
        .arg("lint")
        .arg("--ruleset")
        .arg(repository("tests/openapi/spectral.yaml"));
    let output = spectral
        .arg("--fail-severity=hint")
        .arg(document)
        .output()
        .unwrap();
    (output.status.success(), both(&output))
}

#[test]
#[ignore = "needs spectral: tests/run"]
fn the_document_passes_the_linter_and_a_broken_one_does_not() {
    let path = repository("crates/hookpool-http/src/openapi.json");
    let (good, said) = lint(&path);
    assert!(good, "{said}");
    let text = fs::read_to_string(path).unwrap();
    let folder = Data::new();
    for (from, to) in [
        (
            "#/components/schemas/Stream\"",
            "#/components/schemas/Absent\"",
        ),
        (
            "\"operationId\": \"listItems\"",
            "\"operationId\": \"getItem\"",
        ),
        (
            "\"items\": 3, \"events\": 5",
            "\"items\": \"3\", \"events\": 5",
        ),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text, "{from} is not there");
        let file = folder.path().join("openapi.json");
        fs::write(&file, broken).unwrap();
        let (good, said) = lint(&file);
        assert!(!good, "{to} was not found: {said}");
    }
}

#[test]
#[ignore = "needs schemathesis: tests/run"]
fn schemathesis_finds_no_server_error_and_no_undocumented_answer() {
    let data = Data::new();
    // It asks without a key more often than anybody may.
    let patient = [("HOOKPOOL_LIMITS_AUTH_FAILURES_PER_MINUTE", "1000000")];
    let mut server = Server::try_start_with(data.path(), &patient).unwrap();
    let connector = server.add_connector("sales", false);
    let hook = json!({"stream": "hooked", "scheme": "github"});
    let hook = path_of_hook(&server.admin("POST", "connectors", &hook).expect(201).json());
    for n in 0..20 {
        server
            .post(&connector, format!(r#"{{"id":"North","sales":{n}}}"#))
            .expect(202);
    }
    assert!(server.settles());
    // The key stays good whatever is done to the connectors of the document's examples.
    let key = server.admin(
        "POST",
        "connectors",
        &json!({"stream": "sales", "name": "steady"}),
    );
    let key: Connector = key.expect(201).json();
    let seed: u32 = seeded("schemathesis").random_range(0..1 << 31);
    let mut schemathesis = command(tool("HOOKPOOL_SCHEMATHESIS"));
    let output = schemathesis
        .arg("--config-file")
        .arg(repository("tests/openapi/schemathesis.toml"))
        .args(["run", &format!("{}/api/openapi.json", server.url())])
        .args(["--max-time", "60", "--seed", &seed.to_string()])
        .env("OPERATOR_KEY", &server.operator_key)
        .env("INGEST_KEY", &key.ingest_key)
        .env("HOOK", hook.rsplit('/').next().unwrap())
        .current_dir(repository("."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", both(&output));
    eprintln!("{}", String::from_utf8_lossy(&output.stdout));
    server.get("/readyz").expect(200);
    server.stop();
}
