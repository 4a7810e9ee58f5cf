//! Damage at rest: whatever is done to one file of a data folder, the events are all there or the server refuses to start.
//! Never does it go on with fewer.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::fold::{Event, assert_same, fold};
use crate::common::program::{both, hookpool, output_within, succeed};
use crate::common::server::{Connector, Data, Server, position};
use crate::common::{eventually, number_from_env, seeded};

const STREAMS: [&str; 2] = ["sales", "builds"];
const EVENTS: usize = 300;
/// One of so many mutations is also tried on the real server.
const SERVED: u64 = 8;

#[test]
fn a_little_damage_is_never_silent() {
    damage("a_little_damage_is_never_silent", 48);
}

#[test]
#[ignore = "needs minutes: tests/run"]
fn much_damage_is_never_silent() {
    damage(
        "much_damage_is_never_silent",
        number_from_env("HOOKPOOL_MUTATIONS").unwrap_or(2000),
    );
}

fn damage(test: &str, mutations: u64) {
    let mut rng = seeded(test);
    let started = Instant::now();
    let images = [Image::make(End::Stopped), Image::make(End::Killed)];
    let plans: Vec<(u64, &Image, Mutation)> = (0..mutations)
        .map(|n| {
            let image = &images[rng.random_range(0..images.len())];
            (n, image, image.mutation(&mut rng))
        })
        .collect();

    let queue = Mutex::new(plans.iter());
    let counts = Mutex::new(BTreeMap::<(String, &str), u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((n, image, mutation)) = queue.lock().unwrap().next() else {
                        break;
                    };
                    let outcome = image.judge(mutation, n % SERVED == 0);
                    let folder = mutation.folder();
                    *counts.lock().unwrap().entry((folder, outcome)).or_default() += 1;
                }
            });
        }
    });

    let counts = counts.into_inner().unwrap();
    assert_eq!(counts.values().sum::<u64>(), mutations);
    assert!(
        counts.keys().any(|(_, outcome)| *outcome == "refused"),
        "nothing was ever damaged"
    );
    eprintln!("{mutations} mutations in {:.0?}", started.elapsed());
    for ((folder, outcome), count) in counts {
        eprintln!("  {folder:<12} {outcome:<8} {count}");
    }
}

/// How the server that wrote an image ended.
#[derive(Debug, Clone, Copy)]
enum End {
    Stopped,
    Killed,
}

/// A data folder with what it holds.
struct Image {
    end: End,
    now: TempDir,
    /// The same folder, 100 events younger.
    older: TempDir,
    logs: Vec<Vec<Event>>,
    /// What `verify` says of the undamaged folder.
    verified: Value,
}

impl Image {
    fn make(end: End) -> Self {
        let data = Data::new();
        let server = data.serve();
        let connectors = [
            server.add_connector(STREAMS[0], true),
            server.add_connector(STREAMS[1], false),
        ];
        fill(&server, &connectors, 0..EVENTS - 100);
        server.stop();
        let older = copy(data.path());
        let server = data.serve();
        fill(&server, &connectors, EVENTS - 100..EVENTS);
        let logs: Vec<Vec<Event>> = STREAMS.iter().map(|stream| server.log(stream)).collect();
        assert_eq!(logs.iter().map(Vec::len).sum::<usize>(), EVENTS);
        match end {
            End::Stopped => server.stop(),
            End::Killed => {
                // The promise holds for what was witnessed: the witness is not written for each batch.
                let last = logs.iter().flatten().map(|event| event.position).max();
                await_witness(&data.path().join("log"), last.unwrap());
                server.kill9();
            }
        }
        let now = copy(data.path());
        let mut verify = verify(data.path());
        let verified = serde_json::from_str(&succeed(&mut verify)).unwrap();
        Self {
            end,
            now,
            older,
            logs,
            verified,
        }
    }

    /// Something to do to one file. Positions lie where the file has content: much of it may be set aside and empty.
    fn mutation(&self, rng: &mut StdRng) -> Mutation {
        let files = files(self.now.path());
        let file = files[rng.random_range(0..files.len())].clone();
        let bytes = fs::read(self.now.path().join(&file)).unwrap();
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1) as u64;
        let at = |rng: &mut StdRng| rng.random_range(0..used.max(1));
        let harm = match rng.random_range(0..10) {
            0..4 => Harm::Flip {
                byte: at(rng),
                bit: rng.random_range(0..8),
            },
            4..6 => Harm::Truncate { length: at(rng) },
            6..8 => Harm::Zero {
                sector: at(rng) / 512,
            },
            8 => Harm::Delete,
            _ => Harm::Older,
        };
        Mutation { file, harm }
    }

    /// What comes of a damaged copy; anything but intact, refused, or refused and mended as told fails here.
    fn judge(&self, mutation: &Mutation, serve: bool) -> &'static str {
        let folder = copy(self.now.path());
        mutation.apply(folder.path(), self.older.path());
        let context = format!("{mutation:?} of the image {:?}", self.end);
        let output = output_within(Duration::from_secs(60), &mut verify(folder.path()));
        let verdict = match output.status.code() {
            Some(0) => {
                assert_eq!(self.verified, said(&output), "{context}");
                "intact"
            }
            Some(6) => {
                let said = said(&output);
                let problems = [&said["log"]["problem"], &said["control"]["problem"]];
                assert!(
                    problems.iter().any(|problem| problem.is_string()),
                    "{context}: {said}"
                );
                "refused"
            }
            _ => {
                let refusal = format!(
                    "{}: {}",
                    output.status,
                    String::from_utf8_lossy(&output.stderr)
                );
                assert_names_a_way_out(&refusal, &context);
                "refused"
            }
        };
        if serve {
            return self.judge_served(folder.path(), &format!("{context}, {verdict} to verify"));
        }
        verdict
    }

    /// The same question to the real server, which has to give the events themselves.
    fn judge_served(&self, folder: &Path, context: &str) -> &'static str {
        let refusal = match Server::try_start(folder) {
            Ok(mut server) => {
                if server.settles() {
                    self.compare(&server, context);
                    server.kill9();
                    return "intact";
                }
                // Some damage to the pool is only met when the next event is applied; the server then ends by itself.
                server.last_words()
            }
            Err(refusal) => refusal,
        };
        assert_names_a_way_out(&refusal, context);
        let derived = refusal.contains(&format!("{}: ", folder.join("pool").display()))
            || refusal.contains("delete the pool folder");
        if !derived {
            return "refused";
        }
        fs::remove_dir_all(folder.join("pool")).unwrap();
        self.compare(&Server::start(folder), context);
        "mended"
    }

    fn compare(&self, server: &Server, context: &str) {
        for (stream, log) in STREAMS.iter().zip(&self.logs) {
            assert_same(&server.log(stream), log, context);
            let (_, items) = server.items(stream, log.last().unwrap().position);
            assert_eq!(items, fold(log), "{context}");
        }
    }
}

fn said(verify: &Output) -> Value {
    serde_json::from_slice(&verify.stdout).unwrap_or_else(|e| panic!("{e}: {}", both(verify)))
}

/// A refusal is the program's own, in a sentence that says what to do. The database may panic over damage that it does not
/// expect: what counts is that this is caught, and 101 would say that it was not.
fn assert_names_a_way_out(refusal: &str, context: &str) {
    let own = refusal.starts_with("exit status: ") && !refusal.starts_with("exit status: 101");
    assert!(own, "{context}: {refusal}");
    let ways = [
        "restore",
        "delete this folder",
        "delete the pool folder",
        "accept",
        "start that version",
    ];
    assert!(
        ways.iter().any(|way| refusal.contains(way)),
        "{context}: no way out: {refusal}"
    );
}

#[derive(Debug)]
struct Mutation {
    /// Relative to the data folder.
    file: PathBuf,
    harm: Harm,
}

#[derive(Debug)]
enum Harm {
    Flip {
        byte: u64,
        bit: u8,
    },
    Truncate {
        length: u64,
    },
    Zero {
        sector: u64,
    },
    Delete,
    /// An earlier state of this file alone; a file that did not exist then stays.
    Older,
}

impl Mutation {
    fn apply(&self, folder: &Path, older: &Path) {
        let path = folder.join(&self.file);
        let open = || {
            fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap()
        };
        match self.harm {
            Harm::Flip { byte, bit } => {
                let (file, mut buffer) = (open(), [0]);
                if file.read_at(&mut buffer, byte).unwrap() == 1 {
                    file.write_all_at(&[buffer[0] ^ (1 << bit)], byte).unwrap();
                }
            }
            Harm::Truncate { length } => open().set_len(length).unwrap(),
            Harm::Zero { sector } => {
                let file = open();
                let start = sector * 512;
                let length = file
                    .metadata()
                    .unwrap()
                    .len()
                    .saturating_sub(start)
                    .min(512);
                file.write_all_at(&vec![0; usize::try_from(length).unwrap()], start)
                    .unwrap();
            }
            Harm::Delete => fs::remove_file(&path).unwrap(),
            Harm::Older => {
                let earlier = older.join(&self.file);
                if earlier.exists() {
                    fs::copy(earlier, &path).unwrap();
                }
            }
        }
    }

    /// The first part of the file's path: `log`, `control`, `pool`, or the name of a file at the top.
    fn folder(&self) -> String {
        self.file
            .iter()
            .next()
            .unwrap()
            .to_string_lossy()
            .into_owned()
    }
}

fn fill(server: &Server, connectors: &[Connector; 2], events: std::ops::Range<usize>) {
    let mut connection = server.connect();
    let mut last = [0; 2];
    for n in events {
        let body = format!(
            r#"{{"id":"item-{}","n":{n},"text":"{}"}}"#,
            n % 20,
            "x".repeat(n % 97)
        );
        let request = connectors[n % 2].delivery(body.as_bytes());
        last[n % 2] = position(&connection.call(&request).unwrap().expect(202));
    }
    for (stream, last) in STREAMS.iter().zip(last) {
        server.items(stream, last);
    }
}

/// Until the witness of a log has seen it up to its head, which is at this place in the file.
fn await_witness(log: &Path, head: u64) {
    let limit = Duration::from_secs(20);
    eventually("the log is witnessed", limit, || {
        let witness = fs::read(log.join("witness")).unwrap();
        (witness[16..24] == head.to_le_bytes()).then_some(())
    });
}

fn verify(folder: &Path) -> Command {
    let mut command = hookpool();
    command
        .arg("verify")
        .arg("--data-dir")
        .arg(folder)
        .args(["--output", "json"]);
    command
}

/// A copy with its holes: much of a database's files is set aside and empty. In memory where the system has a place for
/// that: opening a copy syncs it, and here nothing depends on the disk.
pub(crate) fn copy(folder: &Path) -> TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let copy = TempDir::with_prefix_in("hookpool-damage-", parent).unwrap();
    let from = folder.join(".");
    succeed(
        Command::new("cp")
            .args(["-a", "--sparse=always"])
            .arg(from)
            .arg(copy.path()),
    );
    copy
}

/// All files but the operator's copy of a key, relative to the folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, &mut found);
    let mut found: Vec<PathBuf> = found
        .iter()
        .map(|path| path.strip_prefix(folder).unwrap().to_owned())
        .collect();
    found.retain(|path| path != Path::new("operator.key"));
    found.sort();
    found
}
