//! `hookpool ingest`: a file of events, in requests that are recorded whole and, sent again, once.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal as _, Read},
    path::Path,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hookpool_client::{Error, Ingested, Producer};
use hookpool_core::bulk::EVENTS_MAX;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::send::producer;
use crate::{
    cli::{Globals, IngestArgs},
    exit::Exit,
    output,
    progress::Progress,
};

/// No line is longer: no server takes such an event.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// What is told at the end.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// Repeated ones included.
    events: u64,
    requests: u64,
    /// Requests that were recorded before.
    replayed: u64,
    /// Of the last event.
    position: u64,
}

impl Summary {
    fn count(&mut self, ingested: &Ingested) {
        self.events += ingested.items_received;
        self.requests += 1;
        self.replayed += u64::from(ingested.replayed);
        self.position = ingested.position;
    }
}

pub(crate) async fn run(args: IngestArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let mut producer = producer(&args.stream, &args.keys, globals)?;
    if let Some(name) = &args.id_field {
        producer = producer.id_field(name);
    }
    let name = match args.file.as_path() {
        path if path == Path::new("-") => "standard input".to_owned(),
        path => path.display().to_string(),
    };
    let mut parts = Parts::open(&args.file, args.request_bytes)?;
    let mut progress = Progress::new("ingest");
    let mut summary = Summary::default();
    while let Some(part) = parts.next()? {
        let key = match &args.idempotency_key {
            Some(key) => format!("{key}-{}", summary.requests + 1),
            None => format!("{}-{}", part.digest, summary.requests + 1),
        };
        let ingested = send(&producer, &key, &part, &name, &summary).await?;
        summary.count(&ingested);
        progress.at(parts.read.div_ceil(1024), parts.bytes.div_ceil(1024));
    }
    drop(progress);
    ensure!(
        summary.requests > 0,
        "{name} has no event: it is one JSON object a line"
    );
    print(&summary, args.output.is_json())?;
    Ok(Exit::Ok)
}

async fn send(
    producer: &Producer,
    key: &str,
    part: &Part,
    file: &str,
    before: &Summary,
) -> anyhow::Result<Ingested> {
    let outcome = producer.ingest_as(key, part.lines.clone()).await;
    outcome.with_context_of(|error| {
        let line = error.problem().and_then(|problem| problem.line);
        let place = match line {
            Some(line) => format!("line {}", part.first_line + line - 1),
            None => format!("the lines from {} on", part.first_line),
        };
        format!(
            "sending {place} of {}; {} events before them are recorded, and are not recorded again when the command is run again",
            file,
            before.events
        )
    })
}

/// Context that looks at the error.
trait ContextOf<T> {
    fn with_context_of(self, context: impl FnOnce(&Error) -> String) -> anyhow::Result<T>;
}

impl<T> ContextOf<T> for Result<T, Error> {
    fn with_context_of(self, context: impl FnOnce(&Error) -> String) -> anyhow::Result<T> {
        self.map_err(|error| {
            let context = context(&error);
            anyhow::Error::new(error).context(context)
        })
    }
}

fn print(summary: &Summary, is_json: bool) -> anyhow::Result<()> {
    if is_json {
        return output::json(summary);
    }
    output::facts([
        ("events", summary.events.to_string()),
        ("requests", summary.requests.to_string()),
        ("recorded before", summary.replayed.to_string()),
        ("position", summary.position.to_string()),
    ])
}

/// The lines of one request.
#[derive(Debug)]
struct Part {
    lines: Bytes,
    /// Its number in the file, from 1 on.
    first_line: u64,
    /// Of the file from its start to the end of these lines: what is put right in a later line changes no key before it.
    digest: String,
}

/// Divides a file at ends of lines, always in the same way.
#[derive(Debug)]
struct Parts<R> {
    lines: R,
    /// Of the whole file; 0 where nobody knows.
    bytes: u64,
    read: u64,
    /// The number of the line that comes next.
    line: u64,
    /// Read, and too much for the part before.
    left: Vec<u8>,
    digest: Sha256,
    /// How often each part came, by its digest.
    seen: HashMap<[u8; 32], usize>,
    bytes_max: usize,
}

impl Parts<Box<dyn BufRead>> {
    /// A file, or standard input for `-`, which says nothing of how much it is.
    fn open(path: &Path, bytes_max: usize) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            if io::stdin().is_terminal() {
                output::say("reading one JSON object a line from standard input; Ctrl-D ends it");
            }
            return Ok(Self::new(Box::new(io::stdin().lock()), 0, bytes_max));
        }
        let open = || {
            let file = File::open(path)?;
            let bytes = file.metadata()?.len();
            Ok::<_, io::Error>((file, bytes))
        };
        let (file, bytes) = open().with_context(|| format!("reading {}", path.display()))?;
        Ok(Self::new(Box::new(BufReader::new(file)), bytes, bytes_max))
    }
}

impl<R: BufRead> Parts<R> {
    fn new(lines: R, bytes: u64, bytes_max: usize) -> Self {
        Self {
            lines,
            bytes,
            read: 0,
            line: 1,
            left: Vec::new(),
            digest: Sha256::new(),
            seen: HashMap::new(),
            bytes_max,
        }
    }

    /// The next part that has an event; a line that is larger than a part is one alone.
    fn next(&mut self) -> anyhow::Result<Option<Part>> {
        let (mut part, mut events) = (Vec::new(), 0);
        let mut first_line = self.line;
        loop {
            if self.left.is_empty() {
                self.read_line()?;
            }
            let line = std::mem::take(&mut self.left);
            let is_end = line.is_empty();
            if is_end && events == 0 {
                return Ok(None);
            }
            let is_full = part.len() + line.len() > self.bytes_max || events == EVENTS_MAX;
            if is_end || is_full && events > 0 {
                self.left = line;
                self.digest.update(&part);
                self.tell_apart(&mut part);
                let digest = self.digest.clone().finalize();
                let (short, _) = digest.split_at(16);
                return Ok(Some(Part {
                    lines: part.into(),
                    first_line,
                    digest: const_hex::encode(short),
                }));
            }
            self.line += 1;
            if line.trim_ascii().is_empty() && events == 0 {
                // Nothing to send yet.
                first_line = self.line;
                continue;
            }
            events += usize::from(!line.trim_ascii().is_empty());
            part.extend_from_slice(&line);
        }
    }

    /// Equal bodies that are signed within one second would be one request; a blank line is no event, and makes another body.
    fn tell_apart(&mut self, part: &mut Vec<u8>) {
        let times = self.seen.entry(Sha256::digest(&*part).into()).or_default();
        part.extend(std::iter::repeat_n(b'\n', *times));
        *times += 1;
    }

    fn read_line(&mut self) -> anyhow::Result<()> {
        let mut lines = (&mut self.lines).take(LINE_BYTES_MAX);
        let number = self.line;
        let read = lines.read_until(b'\n', &mut self.left);
        let read = read.with_context(|| format!("reading line {number}"))? as u64;
        ensure!(
            read < LINE_BYTES_MAX,
            "line {number} is longer than {LINE_BYTES_MAX} bytes"
        );
        self.read += read;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines and number of the first one.
    fn parts(text: &str, bytes_max: usize) -> Vec<(String, u64, String)> {
        let mut parts = Parts::new(text.as_bytes(), text.len() as u64, bytes_max);
        std::iter::from_fn(|| parts.next().unwrap())
            .map(|part| {
                let lines = String::from_utf8(part.lines.to_vec()).unwrap();
                (lines, part.first_line, part.digest)
            })
            .collect()
    }

    fn shown(parts: &[(String, u64, String)]) -> Vec<(&str, u64)> {
        parts
            .iter()
            .map(|(text, line, _)| (&**text, *line))
            .collect()
    }

    #[test]
    fn a_file_is_divided_at_ends_of_lines() {
        let text = "\n\naa\nbb\r\n\ncccccccccccc\n \nd";
        assert_eq!(
            shown(&parts(text, 8)),
            [("aa\nbb\r\n\n", 3), ("cccccccccccc\n", 6), ("d", 8)]
        );
        assert_eq!(shown(&parts(" \n\r\n", 8)), []);
        let many = "1\n".repeat(EVENTS_MAX + 1);
        let many = parts(&many, usize::MAX);
        assert_eq!(many.len(), 2);
        assert_eq!((many[1].0.as_str(), many[1].1), ("1\n", 50_001));
    }

    #[test]
    fn equal_parts_are_other_bodies() {
        assert_eq!(
            shown(&parts("a\nb\na\na\n", 2)),
            [("a\n", 1), ("b\n", 2), ("a\n\n", 3), ("a\n\n\n", 4)]
        );
    }

    #[test]
    fn a_key_is_that_of_the_file_up_to_there() {
        let digests = |text| -> Vec<_> { parts(text, 4).into_iter().map(|it| it.2).collect() };
        let first = digests("aa\nbb\ncc\n");
        let later = digests("aa\nbb\nxx\n");
        assert_eq!(first.len(), 3);
        assert_eq!(first[..2], later[..2]);
        assert_ne!(first[2], later[2]);
        assert_ne!(digests("aa\ncc\n")[1], first[2]);
    }
}
