//! The folder of one log: `format`, `witness`, `lock`, `db/`, and sometimes `accept`, `torn` and `dropped`. Not what is inside `db/`.

use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use hookpool_core::{
    codec::Digest,
    position::{Epoch, Position},
};

use crate::{error::OpenError, witness::Witness};

/// What a folder may hold, by the number in its file `format`. Every layout ever written stays readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layout {
    /// Blocks as they were committed.
    Whole = 1,
    /// Also blocks that lost events. A program that does not know them must not look for the end of a journal that holds some.
    Thinned = 2,
}

/// The last layout that is known.
const FORMAT: u64 = Layout::Thinned as u64;
const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "lock";
const ACCEPT_FILE: &str = "accept";
const TORN_FILE: &str = "torn";
const DROPPED_FILE: &str = "dropped";

/// The database.
pub(crate) fn db(dir: &Path) -> PathBuf {
    dir.join("db")
}

/// A database that is being created; it takes its name when it is whole.
pub(crate) fn unfinished_db(dir: &Path) -> PathBuf {
    dir.join("db.new")
}

/// Makes the folder if need be, and keeps every other handle out until the file is dropped.
///
/// Our own lock, since everything that is checked before fjall opens must be checked under it.
pub(crate) fn lock(dir: &Path) -> Result<File, OpenError> {
    let unusable = |error| OpenError::unusable(dir, error);
    fs::create_dir_all(dir).map_err(unusable)?;
    let file = File::create(dir.join(LOCK_FILE)).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { dir: dir.into() }),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// Replaces a file as one, durably.
pub(crate) fn write_atomic(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let unfinished = dir.join(format!("{name}.new"));
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, dir.join(name))?;
    sync(dir)
}

/// Makes the names in a folder durable.
pub(crate) fn sync(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Writes which format this is and which log.
pub(crate) fn write_format(dir: &Path, layout: Layout, epoch: Epoch) -> std::io::Result<()> {
    write_atomic(dir, FORMAT_FILE, format_text(layout, epoch).as_bytes())
}

/// Two lines for a person, one against damage.
fn format_text(layout: Layout, epoch: Epoch) -> String {
    let text = format!("hookpool-log {}\nepoch {epoch}\n", layout as u64);
    let crc = crc32fast::hash(text.as_bytes());
    format!("{text}crc {crc:08x}\n")
}

/// Which format this is and which log.
pub(crate) fn read_format(dir: &Path) -> Result<(Layout, Epoch), OpenError> {
    let damaged = || OpenError::damaged(dir, "the file `format` is missing or damaged");
    let text = match fs::read(dir.join(FORMAT_FILE)) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| damaged())?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(damaged()),
        Err(error) => return Err(OpenError::unusable(dir, error)),
    };
    let mut lines = text.lines();
    let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
    let found: u64 = value("hookpool-log")
        .and_then(|number| number.parse().ok())
        .ok_or_else(damaged)?;
    if found > FORMAT {
        return Err(OpenError::NewerFormat {
            dir: dir.into(),
            found,
            known: FORMAT,
        });
    }
    let epoch = value("epoch")
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .map(Epoch)
        .ok_or_else(damaged)?;
    [Layout::Whole, Layout::Thinned]
        .into_iter()
        .find(|layout| text == format_text(*layout, epoch))
        .map(|layout| (layout, epoch))
        .ok_or_else(damaged)
}

/// The line that accepts a log as it is, for the file `accept`.
pub(crate) fn accept_line(end: &Witness) -> String {
    format!("{} {} {:?}", end.epoch, end.head, end.digest)
}

/// What an operator accepts, if anything.
pub(crate) fn read_accept(dir: &Path) -> Option<Witness> {
    let text = fs::read_to_string(dir.join(ACCEPT_FILE)).ok()?;
    let mut words = text.split_ascii_whitespace();
    let epoch = u64::from_str_radix(words.next()?, 16).ok()?;
    let head = words.next()?.parse().ok()?;
    let digest: [u8; 32] = const_hex::decode_to_array(words.next()?).ok()?;
    Some(Witness {
        epoch: Epoch(epoch),
        head: Position(head),
        digest: Digest(digest),
    })
}

/// It is used once.
pub(crate) fn remove_accept(dir: &Path) -> std::io::Result<()> {
    match fs::remove_file(dir.join(ACCEPT_FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => sync(dir),
    }
}

/// Keeps what is about to be cut off a journal.
pub(crate) fn save_torn(dir: &Path, bytes: &[u8]) -> std::io::Result<()> {
    write_atomic(dir, TORN_FILE, bytes)
}

/// How many dropped bytes still lie in tables, as far as that was noted; only that they are given back soon enough hangs on it.
pub(crate) fn read_dropped(dir: &Path) -> u64 {
    let text = fs::read_to_string(dir.join(DROPPED_FILE)).unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

/// Notes it for the next start.
pub(crate) fn write_dropped(dir: &Path, bytes: u64) -> std::io::Result<()> {
    write_atomic(dir, DROPPED_FILE, format!("{bytes}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_read_back_and_every_flipped_bit_is_found() {
        let dir = tempfile::tempdir().unwrap();
        for layout in [Layout::Whole, Layout::Thinned] {
            write_format(dir.path(), layout, Epoch(7)).unwrap();
            assert_eq!(read_format(dir.path()).unwrap(), (layout, Epoch(7)));
            let good = fs::read(dir.path().join(FORMAT_FILE)).unwrap();
            for bit in 0..good.len() * 8 {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                fs::write(dir.path().join(FORMAT_FILE), bytes).unwrap();
                assert!(read_format(dir.path()).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join(FORMAT_FILE),
            "hookpool-log 3\nwhatever else\n",
        )
        .unwrap();
        let error = read_format(dir.path()).unwrap_err();
        assert!(
            matches!(error, OpenError::NewerFormat { found: 3, .. }),
            "{error}"
        );
    }

    #[test]
    fn an_accepted_end_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let end = Witness {
            epoch: Epoch(1),
            head: Position(2),
            digest: Digest([3; 32]),
        };
        fs::write(dir.path().join(ACCEPT_FILE), accept_line(&end) + "\n").unwrap();
        assert_eq!(read_accept(dir.path()), Some(end));
        remove_accept(dir.path()).unwrap();
        assert_eq!(read_accept(dir.path()), None);
    }

    #[test]
    fn a_folder_is_open_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(OpenError::Locked { .. })));
        drop(first);
        lock(dir.path()).unwrap();
    }
}
