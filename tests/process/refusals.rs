//! What cannot work is refused at the start: non-zero exit, one clear sentence, and the way out.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::http::Request;
use crate::common::program::{both, hookpool, output_within, serve};
use crate::common::server::Data;

/// Asserts a refusal that a person can act on: `names` are what it has to mention.
#[track_caller]
fn refused(command: &mut Command, names: &[&str]) {
    let output = output_within(Duration::from_secs(20), command);
    let shown = both(&output);
    assert!(
        output.status.code().is_some_and(|code| code != 0),
        "{shown}"
    );
    assert!(
        output.stdout.is_empty(),
        "data goes to stdout, talk to stderr: {shown}"
    );
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{shown}");
    for name in names {
        assert!(stderr.contains(name), "{name:?} is not mentioned: {shown}");
    }
}

#[test]
fn an_unknown_setting_is_refused_by_name_and_line() {
    let data = Data::new();
    let config = data.path().join("hookpool.toml");
    fs::write(
        &config,
        "listen = \"127.0.0.1:0\"\n\nlissten = \"127.0.0.1:0\"\n",
    )
    .unwrap();
    refused(
        hookpool().arg("serve").arg("--config").arg(&config),
        &["hookpool.toml", "lissten", "3"],
    );
}

#[test]
fn a_malformed_config_is_refused_with_its_line() {
    let data = Data::new();
    let config = data.path().join("hookpool.toml");
    fs::write(&config, "listen = [unfinished\n").unwrap();
    refused(
        hookpool().arg("serve").arg("--config").arg(&config),
        &["hookpool.toml", "1"],
    );
}

#[test]
fn a_missing_config_file_is_refused_by_name() {
    let data = Data::new();
    let config = data.path().join("absent.toml");
    refused(
        hookpool().arg("serve").arg("--config").arg(&config),
        &["absent.toml"],
    );
}

#[test]
fn an_unknown_variable_is_refused_by_name() {
    let data = Data::new();
    refused(
        serve(data.path()).env("HOOKPOOL_LISSTEN", "x"),
        &["HOOKPOOL_LISSTEN"],
    );
}

#[test]
fn a_data_folder_that_cannot_be_made_is_refused_by_name() {
    let data = Data::new();
    let file = data.path().join("occupied");
    fs::write(&file, "").unwrap();
    refused(&mut serve(&file.join("data")), &["occupied"]);
}

#[test]
fn a_second_server_on_one_data_folder_is_refused_and_the_first_serves_on() {
    let data = Data::new();
    let first = data.serve();
    let connector = first.add_connector("sales", false);
    refused(&mut serve(data.path()), &[data.path().to_str().unwrap()]);
    first.post(&connector, "{}").expect(202);
    first.stop();
}

#[test]
fn a_data_folder_of_a_newer_format_is_refused_by_both_numbers() {
    let data = Data::new();
    data.serve().stop();
    let file = data.path().join("log/format");
    let text = fs::read_to_string(&file).unwrap();
    let newer = text.replace("hookpool-log 1\n", "hookpool-log 907\n");
    assert_ne!(newer, text);
    fs::write(&file, newer).unwrap();
    refused(&mut serve(data.path()), &["907", "knows format 2", "newer"]);
}

#[test]
fn a_port_in_use_is_refused_by_its_address() {
    let data = Data::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = hookpool();
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(data.path())
        .args(["--listen", &address]);
    refused(&mut command, &[&address]);
}

#[test]
fn only_the_owner_may_read_the_operator_key() {
    let data = Data::new();
    let _server = data.serve();
    let mode = fs::metadata(data.path().join("operator.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_operator_key_is_recovered_in_a_stopped_folder_without_one_and_nowhere_else() {
    let recover = |folder: &Path| {
        let mut command = hookpool();
        command
            .args(["operator", "recover", "--data-dir"])
            .arg(folder);
        command
    };
    let data = Data::new();
    refused(
        &mut recover(&data.path().join("nothing")),
        &["no data folder"],
    );
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
    let server = data.serve();
    let connector = server.add_connector("sales", false);
    let file = data.path().join("operator.key");
    refused(
        &mut recover(data.path()),
        &["operator.key is there already"],
    );
    fs::remove_file(&file).unwrap();
    refused(&mut recover(data.path()), &["another process has it open"]);
    assert!(!file.exists());
    let old = server.operator_key.clone();
    server.stop();

    let output = output_within(Duration::from_secs(20), &mut recover(data.path()));
    assert!(output.status.success(), "{}", both(&output));
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let server = data.serve();
    assert_ne!(server.operator_key, old);
    server.get("/api/admin/connectors").expect(200);
    server.post(&connector, "{}").expect(202);
    let before = Request::get("/api/admin/connectors").bearer(&old);
    server.call(&before).expect(200);
}
