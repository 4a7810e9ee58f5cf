//! `hookpool demo` shows commands that work.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::common::eventually;
use crate::common::program::{hookpool, lines, signal, succeed};

/// The first printed command line that starts with `curl` and posts, its continuation lines included.
fn curl_command(lines: &mpsc::Receiver<String>) -> String {
    let mut command = String::new();
    loop {
        let line = lines
            .recv_timeout(Duration::from_secs(60))
            .expect("a curl command is printed");
        let line = line.trim().trim_start_matches("$ ");
        if command.is_empty() && !line.starts_with("curl ") {
            continue;
        }
        command.push_str(line.strip_suffix('\\').unwrap_or(line));
        if !line.ends_with('\\') {
            if command.contains("/api/webhook/") {
                return command;
            }
            command.clear();
        }
    }
}

#[test]
#[ignore = "needs curl: tests/run"]
fn the_printed_curl_command_delivers_and_ctrl_c_ends_the_demo() {
    let mut command = hookpool();
    command
        .args(["demo", "--listen", "127.0.0.1:0"])
        .env("NO_COLOR", "1");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut demo = command.spawn().unwrap();
    let lines = lines(demo.stdout.take().unwrap());

    let printed = curl_command(&lines);
    let answer = succeed(Command::new("bash").args(["-c", &printed]));
    assert!(
        answer.contains(r#"{"status":"accepted","itemId":""#),
        "{printed}\n{answer}"
    );

    signal("INT", demo.id());
    let limit = Duration::from_secs(20);
    let status = eventually("the demo ends", limit, || demo.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}
