//! One flipped byte: `hookpool verify` ends with 6 and names the position before the event that it is in, in a data folder and in an export.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::fold::Event;
use crate::common::program::{both, hookpool, output_within, succeed};
use crate::common::seeded;
use crate::common::server::{Data, Server};
use crate::mutations::copy;

const EVENTS: usize = 120;
const FLIPS: usize = 300;

/// One event a block, so that the position before a block is the one before its event.
fn filled(data: &Data) -> (Server, Vec<Event>) {
    let server = data.serve();
    let connector = server.add_connector("sales", false);
    let mut connection = server.connect();
    for n in 0..EVENTS {
        let body = format!(
            r#"{{"id":"item-{}","n":{n},"text":"{}"}}"#,
            n % 20,
            "x".repeat(n % 97)
        );
        let answer = connection.call(&connector.delivery(body.as_bytes()));
        answer.unwrap().expect(202);
    }
    let log = server.log("sales");
    (server, log)
}

fn flip(bytes: &mut [u8], at: usize, rng: &mut StdRng) {
    bytes[at] ^= rng.random_range(1..=255);
}

/// What `verify` says of something with a flipped byte, in one of its two ways to say it.
fn refused(verify: &mut Command, json: bool) -> String {
    if json {
        verify.args(["--output", "json"]);
    }
    let output = output_within(Duration::from_secs(60), verify);
    assert_eq!(output.status.code(), Some(6), "{}", both(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn journal(folder: &Path) -> PathBuf {
    let entries = fs::read_dir(folder.join("log/db")).unwrap();
    let mut journals = entries.map(|entry| entry.unwrap().path());
    let journal = journals.find(|path| path.extension().is_some_and(|end| end == "jnl"));
    journal.unwrap()
}

#[test]
fn a_flipped_byte_of_an_event_in_a_data_folder_is_found_and_its_place_is_named() {
    let mut rng =
        seeded("a_flipped_byte_of_an_event_in_a_data_folder_is_found_and_its_place_is_named");
    let data = Data::new();
    let (server, log) = filled(&data);
    server.stop();
    let image = copy(data.path());
    let whole = fs::read(journal(image.path())).unwrap();
    let places: Vec<usize> = log
        .iter()
        .map(|event| place_of(&whole, &event.body))
        .collect();
    for n in 0..FLIPS {
        let which = rng.random_range(0..log.len());
        let (event, folder) = (&log[which], copy(image.path()));
        let mut bytes = whole.clone();
        let at = places[which] + rng.random_range(0..event.body.len());
        flip(&mut bytes, at, &mut rng);
        fs::write(journal(folder.path()), bytes).unwrap();
        let mut verify = hookpool();
        verify.arg("verify").arg("--data-dir").arg(folder.path());
        let said = refused(&mut verify, n % 2 == 0);
        let before = event.position - 1;
        if n % 2 == 0 {
            let said: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(said["log"]["intactUpTo"], before, "byte {at}: {said}");
            assert_eq!(
                (&said["log"]["ok"], &said["control"]["ok"]),
                (&false.into(), &true.into())
            );
        } else {
            let named = format!("\nlog: intact up to position {before}, then: ");
            assert!(said.contains(&named), "byte {at}: {said}");
        }
    }
}

fn place_of(bytes: &[u8], body: &str) -> usize {
    memchr::memmem::find(bytes, body.as_bytes()).expect("the body is in the journal")
}

#[test]
fn a_flipped_byte_of_an_export_is_found_and_its_line_and_place_are_named() {
    let mut rng = seeded("a_flipped_byte_of_an_export_is_found_and_its_line_and_place_are_named");
    let (data, desk) = (Data::new(), TempDir::with_prefix("hookpool-desk-").unwrap());
    let (server, _) = filled(&data);
    let mut export = hookpool();
    export
        .args(["export", "--server", &server.url(), "--data-dir"])
        .arg(data.path());
    let whole = succeed(&mut export);
    let file = desk.path().join("history.ndjson");
    for n in 0..FLIPS {
        let mut bytes = whole.clone().into_bytes();
        let at = rng.random_range(0..bytes.len());
        let before = &whole.as_bytes()[..at];
        let (line, last) = (lines(before), events(before));
        flip(&mut bytes, at, &mut rng);
        fs::write(&file, bytes).unwrap();
        let mut verify = hookpool();
        verify.arg("verify").arg("--export").arg(&file);
        let said = refused(&mut verify, n % 2 == 0);
        if n % 2 == 0 {
            let said: Value = serde_json::from_str(&said).unwrap();
            let said = &said["export"];
            assert_eq!(
                (&said["line"], &said["last"]),
                (&(line + 1).into(), &last.into()),
                "byte {at}: {said}"
            );
        } else {
            let named = format!("\nexport: intact up to position {last}, then: ");
            assert!(said.contains(&named), "byte {at}: {said}");
        }
    }
}

fn lines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// Events in whole lines; their positions begin with 1.
fn events(text: &[u8]) -> usize {
    let text = String::from_utf8_lossy(text);
    let lines = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    lines
        .filter(|line| line.starts_with(r#"{"position":"#))
        .count()
}
