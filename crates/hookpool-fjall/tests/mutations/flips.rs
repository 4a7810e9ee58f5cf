//! One flipped byte in a copy of a log's folder: `verify` finds it, and names the position before what it broke.

use std::sync::Mutex;

use super::*;

/// Bytes of a batch of fjall's before its first value, which is the block: its start, and the header and key of an item.
const BEFORE_BLOCK: usize = 13 + 21 + 8;
const HEADER: usize = hookpool_core::codec::HEADER_BYTES;

/// What a byte of a file is there for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In a block in a journal; everything up to here is before it.
    Journal { after: Position },
    /// In the batch around a block in a journal, which is found in this batch or, if it is the batch's number, in the next one.
    Batch { after: Position, next: Position },
    /// In the number of the last batch, that nothing follows.
    LastNumber,
    /// In a block in a table. `None` where nothing in the file tells a block from other bytes.
    Table { event: Option<Position> },
    /// Behind everything that was written to a journal.
    Unused,
    /// Says where something is, how long it is, or what its checksum is.
    Other,
}

/// Blocks by file, so that they are looked for once.
struct Places(BTreeMap<PathBuf, Vec<(Range<usize>, Position)>>);

impl Places {
    fn new(base: &Base) -> Self {
        let blocks = |(name, bytes): (&PathBuf, &Vec<u8>)| (name.clone(), blocks_in(bytes));
        Self(base.files.iter().map(blocks).collect())
    }

    fn of(&self, base: &Base, file: &Path, at: usize) -> Place {
        let blocks = &self.0[file];
        let bytes = &base.files[file];
        if file.extension().is_some_and(|extension| extension == "jnl") {
            return journal_place(blocks, bytes, at);
        }
        let within = |(range, _): &&(Range<usize>, Position)| range.contains(&at);
        let Some((range, before)) = blocks.iter().find(within) else {
            return Place::Other;
        };
        let event = event_at(&bytes[range.clone()], at - range.start);
        // A damaged header of the first or last block is not known to be one.
        let edge = range.start == blocks[0].0.start || range.end == blocks[blocks.len() - 1].0.end;
        let known = event.is_some() || !edge;
        let event = known.then(|| before.plus(event.unwrap_or(0) + 1));
        Place::Table { event }
    }
}

fn journal_place(blocks: &[(Range<usize>, Position)], bytes: &[u8], at: usize) -> Place {
    // The last bytes of a batch are no zeros.
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    if at >= used {
        return Place::Unused;
    }
    let begun = |(range, _): &(Range<usize>, Position)| range.start - BEFORE_BLOCK <= at;
    let n = blocks.partition_point(begun) - 1;
    let (range, after) = &blocks[n];
    if range.contains(&at) {
        return Place::Journal { after: *after };
    }
    let number = range.start - BEFORE_BLOCK + 5..range.start - BEFORE_BLOCK + 13;
    match blocks.get(n + 1) {
        Some((_, next)) => Place::Batch {
            after: *after,
            next: *next,
        },
        None if number.contains(&at) => Place::LastNumber,
        None => Place::Batch {
            after: *after,
            next: *after,
        },
    }
}

/// Which event of a block a byte belongs to; `None` in its header.
fn event_at(block: &[u8], at: usize) -> Option<u64> {
    let length = |at: usize| {
        let bytes: [u8; 4] = block[at..at + 4].try_into().unwrap();
        usize::try_from(u32::from_le_bytes(bytes)).unwrap()
    };
    let (mut event, mut start) = (0, HEADER);
    while start < block.len() {
        let end = start + 12 + length(start + 4) + length(start + 8);
        if (start..end).contains(&at) {
            return Some(event);
        }
        (event, start) = (event + 1, end);
    }
    None
}

/// A byte to change, and how.
struct Flip<'a> {
    file: &'a PathBuf,
    at: usize,
    with: u8,
}

impl<'a> Flip<'a> {
    /// Most where most bytes are, some in every file.
    fn random(base: &'a Base, random: &mut Random) -> Self {
        let files: Vec<_> = base
            .files
            .iter()
            .filter(|(_, bytes)| !bytes.is_empty())
            .collect();
        let all: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut n = random.below(all);
        let by_size = files.iter().find(|(_, bytes)| {
            let here = n < bytes.len();
            n = n.saturating_sub(if here { 0 } else { bytes.len() });
            here
        });
        let (file, bytes) = match random.below(3) {
            0 => files[random.below(files.len())],
            _ => *by_size.unwrap(),
        };
        Self {
            file,
            at: random.below(bytes.len()),
            with: u8::try_from(1 + random.below(255)).unwrap(),
        }
    }
}

/// Fails unless the flip is found at its place, or changes nothing because nothing is there.
fn found(base: &Base, flip: &Flip<'_>, place: &Place) -> &'static str {
    let dir = in_memory();
    let mut files = base.files.clone();
    files.get_mut(flip.file).unwrap()[flip.at] ^= flip.with;
    write_files(dir.path(), &files);
    let context = format!("{} at {}, {place:?}", flip.file.display(), flip.at);
    let report = match verify(dir.path(), |_| {}) {
        Ok(report) => report,
        Err(error) => {
            assert_eq!(*place, Place::Other, "{context}: {error}");
            let text = error.to_string();
            assert!(
                text.contains("format") || text.contains("version"),
                "{context}: {text}"
            );
            return "found, refused";
        }
    };
    let Some(problem) = report.problem else {
        let idle = matches!(place, Place::Unused | Place::LastNumber);
        assert!(idle, "not found: {context}");
        assert_eq!(report.events, base.events.len() as u64, "{context}");
        return "whole: it says nothing";
    };
    match place {
        Place::Journal { after } => {
            assert_eq!(problem.after, *after, "{context}: {}", problem.what);
            "found, position right"
        }
        Place::Table { event: Some(event) } => {
            let named = format!("at position {event};");
            assert!(problem.what.contains(&named), "{context}: {}", problem.what);
            "found, position right"
        }
        Place::Batch { after, next } => {
            let right = [*after, *next].contains(&problem.after);
            assert!(right, "{context}: {problem:?}");
            "found, position right"
        }
        Place::Table { event: None } | Place::Unused | Place::LastNumber | Place::Other => "found",
    }
}

fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        TempDir::new_in(memory).unwrap()
    } else {
        TempDir::new().unwrap()
    }
}

/// A folder before damage, and what its bytes are there for.
struct Image {
    name: &'static str,
    base: Base,
    places: Places,
}

impl Image {
    fn new(name: &'static str, make: fn(&Path)) -> Self {
        let base = Base::new(make);
        let places = Places::new(&base);
        Self { name, base, places }
    }

    /// What becomes of a flip, with the image and the kind of place.
    fn judge(&self, flip: &Flip<'_>) -> (&'static str, String, &'static str) {
        let place = self.places.of(&self.base, flip.file, flip.at);
        let kind = format!("{place:?}");
        let kind = kind.split(' ').next().unwrap().to_owned();
        (self.name, kind, found(&self.base, flip, &place))
    }
}

#[test]
fn verify_finds_every_flipped_byte_and_names_the_position_before_it() {
    let count = from_environment("HOOKPOOL_FLIPS", 10_000);
    let mut random = Random(from_environment("HOOKPOOL_SEED", 0xf11f));
    let images = [
        Image::new("journal", journal_only),
        Image::new("tables and journal", tables_and_journal),
        Image::new("killed", killed),
    ];
    let images = images.iter().cycle();
    let flips = images.map(|image| (image, Flip::random(&image.base, &mut random)));
    let flips: Vec<_> = flips.take(usize::try_from(count).unwrap()).collect();
    let counts = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for part in flips.chunks(flips.len().div_ceil(2)) {
            let counts = &counts;
            scope.spawn(move || {
                for (image, flip) in part {
                    let outcome = image.judge(flip);
                    *counts.lock().unwrap().entry(outcome).or_default() += 1;
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap();
    assert_eq!(counts.values().sum::<u64>(), count);
    println!("{count} flipped bytes");
    for ((image, place, outcome), count) in counts {
        println!("  {image:<20} {place:<10} {outcome:<24} {count}");
    }
}
