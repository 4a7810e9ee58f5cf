//! Secrets that tests were handed, and the search for them: in what a server logs, in its refusals and metrics, and in its data folder.
//!
//! The fixtures do it for every test: a server is searched when it ends, a data folder before it is removed. Only hashes and sealed
//! keys may be there; the one file that holds a secret on purpose is `operator.key`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aho_corasick::AhoCorasick;
use serde_json::Value;

use super::hex;

/// Of the refusals of one server so many bytes are kept.
const REFUSALS_BYTES_MAX: usize = 8 << 20;
const BLOCK_BYTES: usize = 1 << 20;
/// Longer than any form of a secret.
const OVERLAP_BYTES: usize = 512;

#[derive(Default)]
struct Planted {
    /// By data folder: what outlives a server is searched for in the next one too.
    secrets: BTreeMap<PathBuf, BTreeSet<String>>,
    refusals: BTreeMap<SocketAddr, Vec<u8>>,
}

static PLANTED: Mutex<Planted> = Mutex::new(Planted {
    secrets: BTreeMap::new(),
    refusals: BTreeMap::new(),
});

fn with<T>(act: impl FnOnce(&mut Planted) -> T) -> T {
    act(&mut PLANTED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// From now on nothing of this may be found in what the folder's servers leave behind. Of a key it is the secret part.
pub(crate) fn plant(data: &Path, secret: &str) {
    let secret = secret.rsplit('_').next().unwrap_or(secret);
    assert!(secret.len() >= 16, "found anywhere: {secret}");
    with(|planted| {
        let secrets = planted.secrets.entry(data.to_owned()).or_default();
        secrets.insert(secret.to_owned());
    });
}

/// Every key in an answer.
pub(crate) fn plant_all(data: &Path, answer: &Value) {
    const KINDS: [&str; 6] = ["ik_", "rk_", "ok_", "hk_", "tk_", "whsk_"];
    match answer {
        Value::String(text) => {
            let last = text.rsplit('/').next().unwrap_or(text);
            let secret = last.rsplit('_').next().unwrap_or(last);
            if KINDS.iter().any(|kind| last.starts_with(kind)) && secret.len() >= 16 {
                plant(data, last);
            }
        }
        Value::Array(all) => all.iter().for_each(|value| plant_all(data, value)),
        Value::Object(all) => all.values().for_each(|value| plant_all(data, value)),
        _ => {}
    }
}

/// Keeps what a server said instead of an answer.
pub(crate) fn refused(server: SocketAddr, said: &[u8]) {
    with(|planted| {
        let kept = planted.refusals.entry(server).or_default();
        if kept.len() + said.len() <= REFUSALS_BYTES_MAX {
            kept.extend_from_slice(said);
        }
    });
}

/// Searches what a server left behind when it ended.
pub(crate) fn search_server(data: &Path, server: SocketAddr, logs: &str, metrics: &str) {
    let (secrets, refusals) = with(|planted| {
        let secrets = planted.secrets.get(data).cloned().unwrap_or_default();
        (
            secrets,
            planted.refusals.remove(&server).unwrap_or_default(),
        )
    });
    let search = Search::new(&secrets);
    let places = [
        ("the logs", logs.as_bytes()),
        ("the metrics", metrics.as_bytes()),
        ("a refusal", &refusals),
    ];
    let found: Vec<String> = places
        .iter()
        .filter_map(|(place, bytes)| {
            search
                .first(bytes)
                .map(|what| format!("{what} is in {place}"))
        })
        .collect();
    let bytes = places.iter().map(|(_, bytes)| bytes.len()).sum();
    report(&secrets, bytes, &found);
}

/// Searches a folder before it is removed, and forgets its secrets.
pub(crate) fn search_folder(folder: &Path) {
    let secrets: BTreeSet<String> = with(|planted| {
        let inside = planted
            .secrets
            .extract_if(.., |data, _| data.starts_with(folder));
        inside.flat_map(|(_, secrets)| secrets).collect()
    });
    if secrets.is_empty() {
        return;
    }
    let search = Search::new(&secrets);
    let (mut bytes, mut found) = (0, Vec::new());
    each_file(folder, &mut |path| {
        let seen = search.file(path);
        bytes += seen.0;
        found.extend(
            seen.1
                .map(|what| format!("{what} is in {}", path.display())),
        );
    });
    report(&secrets, bytes, &found);
}

/// Fails the test, unless it has failed already; a search that found nothing counts for the summary of `tests/run`.
fn report(secrets: &BTreeSet<String>, bytes: usize, found: &[String]) {
    if found.is_empty()
        && let Some(summary) = std::env::var_os("HOOKPOOL_CANARIES")
    {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(summary)
            .unwrap();
        writeln!(file, "{} {bytes}", secrets.len()).unwrap();
    }
    if !found.is_empty() {
        let all = found.join("\n");
        if std::thread::panicking() {
            eprintln!("secrets were found:\n{all}");
        } else {
            panic!("secrets were found:\n{all}");
        }
    }
}

/// All forms of some secrets at once.
struct Search {
    forms: AhoCorasick,
    names: Vec<String>,
}

impl Search {
    fn new(secrets: &BTreeSet<String>) -> Self {
        let (mut forms, mut names) = (Vec::new(), Vec::new());
        for secret in secrets {
            for (name, form) in forms_of(secret) {
                forms.push(form);
                names.push(format!(
                    "a secret that begins with {} ({name})",
                    &secret[..6]
                ));
            }
        }
        let forms = AhoCorasick::new(&forms).unwrap();
        Self { forms, names }
    }

    fn first(&self, bytes: &[u8]) -> Option<&str> {
        let found = self.forms.find(bytes)?;
        Some(&self.names[found.pattern().as_usize()])
    }

    /// Bytes that were looked at, and what was found; holes of a file have none.
    fn file(&self, path: &Path) -> (usize, Option<&str>) {
        let Ok(mut file) = File::open(path) else {
            return (0, None);
        };
        let (mut at, mut looked_at) = (0, 0);
        let mut block = vec![0; BLOCK_BYTES];
        while let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
            file.seek(SeekFrom::Start(data)).unwrap();
            let read = read_block(&mut file, &mut block);
            if let Some(found) = self.first(&block[..read]) {
                return (looked_at + read, Some(found));
            }
            looked_at += read;
            if read < block.len() {
                break;
            }
            at = data + (read - OVERLAP_BYTES) as u64;
        }
        (looked_at, None)
    }
}

fn read_block(file: &mut File, block: &mut [u8]) -> usize {
    let mut read = 0;
    while let Ok(more @ 1..) = file.read(&mut block[read..]) {
        read += more;
    }
    read
}

/// As it is, reversed, in hex, and in base64 at any place. A secret is letters and digits, which a URL shows as they are.
fn forms_of(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = secret.as_bytes();
    let reversed = bytes.iter().rev().copied().collect();
    let mut forms = vec![
        ("as it is", bytes.to_vec()),
        ("reversed", reversed),
        ("in hex", hex(bytes).into_bytes()),
        ("in hex", hex(bytes).to_uppercase().into_bytes()),
    ];
    for before in 0..3 {
        let padded = [&[0; 2][..before.min(2)], bytes].concat();
        let text = base64(&padded).into_bytes();
        // The digits that depend on nothing beside the secret.
        let (first, last) = (before * 8_usize.div_ceil(6), padded.len() * 8 / 6);
        forms.push(("in base64", text[first.min(4)..last].to_vec()));
    }
    forms
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |n: usize| usize::from(group.get(n).copied().unwrap_or(0));
        let bits = (0..3).fold(0, |bits, n| bits << 8 | byte(n));
        for n in 0..4 {
            let digit = char::from(DIGITS[bits >> (18 - 6 * n) & 63]);
            text.push(if n <= group.len() { digit } else { '=' });
        }
    }
    text
}

fn each_file(folder: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        // The one place of an operator's first key.
        if path.is_dir() {
            each_file(&path, visit);
        } else if path.is_file() && !path.ends_with("operator.key") {
            visit(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "Zt9qLw3PbXc7RkV1nY5sDf8hGj2mKa4eUo6iTr0W";

    fn found(text: &str) -> bool {
        Search::new(&BTreeSet::from([SECRET.to_owned()]))
            .first(text.as_bytes())
            .is_some()
    }

    #[test]
    fn a_secret_is_found_in_every_form_and_place() {
        let reversed: String = SECRET.chars().rev().collect();
        for text in [
            SECRET.to_owned(),
            reversed,
            hex(SECRET.as_bytes()),
            hex(SECRET.as_bytes()).to_uppercase(),
        ] {
            assert!(found(&format!("x {text} y")), "{text}");
        }
        for before in ["", "a", "ab", "abc", "Bearer ik_0123_"] {
            assert!(
                found(&base64(format!("{before}{SECRET}").as_bytes())),
                "{before:?}"
            );
            assert!(
                found(&base64(format!("{before}{SECRET} and more").as_bytes())),
                "{before:?}"
            );
        }
        assert!(!found(&SECRET[1..]) && !found("nothing"));
    }

    #[test]
    fn a_secret_is_found_behind_a_hole_and_across_blocks_of_a_file() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        for at in [0, BLOCK_BYTES - 10, (64 << 20) - 7] {
            let mut file = File::create(&path).unwrap();
            file.set_len(80 << 20).unwrap();
            file.write_all(&vec![b'x'; BLOCK_BYTES + 100]).unwrap();
            file.seek(SeekFrom::Start(at as u64)).unwrap();
            file.write_all(SECRET.as_bytes()).unwrap();
            let search = Search::new(&BTreeSet::from([SECRET.to_owned()]));
            assert!(search.file(&path).1.is_some(), "at {at}");
        }
    }

    #[test]
    #[should_panic(expected = "is in the logs")]
    fn a_secret_that_is_logged_fails_the_test() {
        let data = Path::new("/nowhere/logged");
        plant(data, &format!("ik_0123_{SECRET}"));
        let log = format!("WARN refused authorization=\"Bearer ik_0123_{SECRET}\"");
        search_server(data, SocketAddr::from(([127, 0, 0, 1], 1)), &log, "");
    }

    #[test]
    #[should_panic(expected = "secrets were found")]
    fn a_secret_that_is_stored_fails_the_test() {
        let folder = tempfile::TempDir::new().unwrap();
        plant(folder.path(), &format!("whsk_{SECRET}"));
        std::fs::write(folder.path().join("events"), SECRET).unwrap();
        search_folder(folder.path());
    }
}
