//! A crash must not write signing keys to disk: a server may leave no core dump unless its operator wants one.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::program::{command, hookpool, lines, signal};
use crate::common::{eventually, server::Data};

/// The program in a shell that lets it dump whatever the machine does.
fn may_dump(args: &[&str]) -> Command {
    let mut shell = command("sh");
    shell.args(["-c", "ulimit -c \"$(ulimit -H -c)\" && exec \"$0\" \"$@\""]);
    shell.arg(hookpool().get_program()).args(args);
    shell
        .args(["--listen", "127.0.0.1:0"])
        .env("RUST_LOG", "warn");
    shell
}

/// Until it serves.
fn started(mut command: Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let stdout = lines(child.stdout.take().unwrap());
    let line = stdout.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(line.starts_with("listening on "), "{line}");
    child
}

/// Soft and hard.
fn limits(child: &Child) -> Vec<String> {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let name = "Max core file size";
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    line.split_whitespace().take(2).map(str::to_owned).collect()
}

fn limits_of(command: Command) -> Vec<String> {
    let mut child = started(command);
    let found = limits(&child);
    signal("TERM", child.id());
    let status = eventually("the server ends", Duration::from_secs(20), || {
        child.try_wait().unwrap()
    });
    assert!(status.success(), "{status}");
    found
}

#[test]
fn a_server_may_leave_no_core_dump_unless_its_operator_wants_one() {
    let data = Data::new();
    let serve = || {
        let mut command = may_dump(&["serve"]);
        command.arg("--data-dir").arg(data.path());
        command
    };
    assert_eq!(limits_of(serve()), ["0", "0"]);
    let mut by_flag = serve();
    by_flag.args(["--core-dumps", "on"]);
    let allowed = limits_of(by_flag);
    assert_ne!(
        allowed,
        ["0", "0"],
        "this machine lets nothing dump, so that nothing can be seen here"
    );
    let mut by_variable = serve();
    by_variable.env("HOOKPOOL_CORE_DUMPS", "on");
    assert_eq!(limits_of(by_variable), allowed);
    let mut last_wins = serve();
    last_wins
        .env("HOOKPOOL_CORE_DUMPS", "on")
        .args(["--core-dumps", "off"]);
    assert_eq!(limits_of(last_wins), ["0", "0"]);
}

#[test]
fn a_demo_leaves_no_core_dump() {
    assert_eq!(limits_of(may_dump(&["demo"])), ["0", "0"]);
}
