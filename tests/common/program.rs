//! Programs from outside, run as a person would run them.

use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The binary under test: the one that cargo built for this test, or `HOOKPOOL_BIN`.
pub(crate) fn hookpool() -> Command {
    let binary = std::env::var_os("HOOKPOOL_BIN");
    command(binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_hookpool").into()))
}

/// `hookpool serve` on a folder, at a free port of the folder's own address.
pub(crate) fn serve(data: &Path) -> Command {
    let mut command = hookpool();
    command
        .env("RUST_LOG", "warn")
        .arg("serve")
        .arg("--data-dir")
        .arg(data)
        .args(["--listen", &format!("{}:0", address(data))]);
    command
}

/// A loopback address for the servers of one folder: a client that still knocks where a killed one was can't meet that of another test. Only
/// Linux has more than one of them without being told.
fn address(data: &Path) -> Ipv4Addr {
    if !cfg!(target_os = "linux") {
        return Ipv4Addr::LOCALHOST;
    }
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    let [a, b, c, ..] = hasher.finish().to_be_bytes();
    Ipv4Addr::new(127, a.clamp(1, 254), b, c)
}

/// A command without our own variables, since to the server every `HOOKPOOL_*` is a setting, and without proxies, since all of ours is on this machine.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_ascii_uppercase();
        if upper.starts_with("HOOKPOOL_") || upper.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command
}

/// A tool whose path `tests/run` puts into the environment.
pub(crate) fn tool(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable);
    path.unwrap_or_else(|| panic!("{variable} is not set: run tests/run"))
        .into()
}

/// A file of this repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs to the end and gives what it wrote; a failure shows all of it.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", both(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Standard output and standard error, for people.
pub(crate) fn both(output: &Output) -> String {
    format!(
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Sends a signal by name. The shell's own `kill`, since a bare Debian has no other.
pub(crate) fn signal(name: &str, pid: u32) {
    succeed(
        Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{name} {pid}")),
    );
}

/// The lines of a program as they come. All are read, also when nobody takes them, so that the program never blocks.
pub(crate) fn lines(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

/// Waits for an end that has to come by itself; kills and fails when it doesn't.
#[track_caller]
pub(crate) fn output_within(limit: Duration, command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!(
                "still running after {limit:?}: {command:?}\n{}",
                both(&child.wait_with_output().unwrap())
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}
