//! `hookpool retention`, and the commands of "Keep less history" in `docs/operating.md`, run as they are printed.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use super::{dropped, fill, hash, retention};
use crate::common::program::{both, command, hookpool, repository};
use crate::common::server::{Data, Server};

/// The lines of the block, comments included.
fn printed() -> Vec<String> {
    let text = fs::read_to_string(repository("docs/operating.md")).unwrap();
    let (_, section) = text.split_once("## Keep less history").unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    block.lines().map(str::to_owned).collect()
}

fn run(server: &Server, line: &str) -> Output {
    let folder = TempDir::with_prefix("hookpool-terminal-").unwrap();
    symlink(hookpool().get_program(), folder.path().join("hookpool")).unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut shell = command("sh");
    shell
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .env("HOOKPOOL_SERVER", server.url())
        .env("HOOKPOOL_OPERATOR_KEY", &server.operator_key)
        .args(["-c", line]);
    shell.output().unwrap()
}

#[track_caller]
fn expect(server: &Server, line: &str, code: i32) -> (String, String) {
    let output = run(server, line);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{line}\n{}",
        both(&output)
    );
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

#[test]
fn the_printed_steps_keep_less_history() {
    let data = Data::new();
    let server = data.serve();
    let (_, last) = fill(&server, 300);
    let lines = printed();
    let [show, aged, asked, done, shown, clear] = &lines[..] else {
        panic!("{lines:?}")
    };
    let (said, _) = expect(&server, show, 0);
    assert!(said.contains("no limit"), "{said}");
    let (_, told) = expect(&server, aged, 0);
    assert_eq!(told, "", "nothing is that old");
    let state = hash(&server);
    let (_, told) = expect(&server, asked, 5);
    let floor = last - 100;
    assert!(
        told.contains(&format!("200 events up to position {floor} of ")),
        "{told}"
    );
    assert!(told.contains("nothing was changed"), "{told}");
    assert_eq!(retention(&server)["maxPositions"], Value::Null);
    expect(&server, done, 0);
    assert_eq!(dropped(&server), floor);
    assert_eq!(hash(&server), state);
    let (said, _) = expect(&server, shown, 0);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["earliest"]["position"], floor);
    let (_, told) = expect(&server, "hookpool log list sales --after 3", 1);
    assert!(told.contains("hookpool retention show"), "{told}");
    expect(&server, "hookpool log list sales", 0);
    expect(&server, "hookpool items history sales item-1", 0);
    let (said, _) = expect(&server, clear, 0);
    assert!(said.contains("no limit"), "{said}");
}
