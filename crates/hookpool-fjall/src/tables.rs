//! Checks the manifests and table files of a fjall database before fjall opens it.
//!
//! fjall 3.1.13 trusts `current`, deletes what it does not name, and allocates what a damaged table of contents asks for. The
//! checksums are all there (in `current`, in the version files, behind each table of contents); here they are looked at.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use hookpool_core::codec::find_damage;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

/// Bytes of the end of an archive ("sfa"): magic, version, checksum type, checksum(16), place(8) and length(8) of the contents.
const TRAILER_BYTES: usize = 38;
/// A table of contents has a dozen entries of some 30 bytes.
const CONTENTS_BYTES_MAX: u64 = 1 << 20;
const LEVELS_MAX: u8 = 16;
/// fjall's own keyspace, which names the others.
const META_KEYSPACE: u64 = 0;

/// What is wrong, as the middle of a sentence.
pub(crate) type Finding = String;

/// The whole of fjall's file `version`.
const VERSION: &[u8] = b"FJL\x03";

/// Checks the tables of keyspaces 0 (fjall's own) to `keyspaces`; whole tables, newest first, while `bytes_max` lasts.
pub(crate) fn check(db: &Path, keyspaces: u64, bytes_max: u64) -> Result<(), Finding> {
    let version = db.join("version");
    let bytes = fs::read(&version).map_err(|error| unreadable(&version, &error))?;
    if bytes != VERSION {
        return Err(damaged(&version));
    }
    let mut budget = bytes_max;
    for keyspace in META_KEYSPACE..=keyspaces {
        let folder = db.join("keyspaces").join(keyspace.to_string());
        let mut tables = manifest(&folder)?;
        tables.sort_unstable_by_key(|table| std::cmp::Reverse(table.id));
        for table in tables {
            table.check(&folder, keyspace == META_KEYSPACE, &mut budget)?;
        }
    }
    Ok(())
}

/// A table as the manifest names it.
#[derive(Debug)]
struct Table {
    id: u64,
    checksum: u128,
}

impl Table {
    fn check(&self, folder: &Path, always: bool, budget: &mut u64) -> Result<(), Finding> {
        let path = folder.join("tables").join(self.id.to_string());
        let mut file = File::open(&path).map_err(|error| unreadable(&path, &error))?;
        let bytes = contents(&mut file)
            .map_err(|error| unreadable(&path, &error))?
            .ok_or_else(|| damaged(&path))?
            .file_bytes;
        if !always && *budget < bytes {
            *budget = 0;
            return Ok(());
        }
        *budget = budget.saturating_sub(bytes);
        let checksum = checksum(&mut file).map_err(|error| unreadable(&path, &error))?;
        if checksum == self.checksum {
            return Ok(());
        }
        // Compressed blocks can't be looked into, and where other parts of the file are damaged there is no position to name.
        let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
        Err(match find_damage(&bytes.into()) {
            Some(position) => format!("{} at position {position}", damaged(&path)),
            None => damaged(&path),
        })
    }
}

/// The tables of a keyspace, from the version that `current` names.
fn manifest(folder: &Path) -> Result<Vec<Table>, Finding> {
    let current = folder.join("current");
    // version(8) checksum(16) checksum type(1), as fjall writes it.
    let bytes = fs::read(&current).map_err(|error| unreadable(&current, &error))?;
    let fields: &[u8; 25] = bytes.as_slice().try_into().map_err(|_| damaged(&current))?;
    let mut reader = Reader(fields);
    let (Some(version), Some(expected), Some(0)) = (reader.u64(), reader.u128(), reader.u8())
    else {
        return Err(damaged(&current));
    };
    no_newer_version(folder, version)?;
    let path = folder.join(format!("v{version}"));
    let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
    if xxh3_128(&bytes) != expected {
        return Err(damaged(&path));
    }
    tables(&path, &bytes).ok_or_else(|| damaged(&path))
}

/// A kill may leave the next version unnamed; more than that means that `current` is an old one.
fn no_newer_version(folder: &Path, version: u64) -> Result<(), Finding> {
    let entries = fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(folder, &error))?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix('v')?.parse().ok());
        if number.is_some_and(|number: u64| number > version.saturating_add(1)) {
            return Err(format!(
                "`{}` names version {version}, but there is a newer one",
                folder.join("current").display()
            ));
        }
    }
    Ok(())
}

/// The section `tables` of a version file.
fn tables(path: &Path, bytes: &[u8]) -> Option<Vec<Table>> {
    let mut file = File::open(path).ok()?;
    let contents = contents(&mut file).ok()??;
    let (at, length) = contents.section(b"tables")?;
    let at = usize::try_from(at).ok()?;
    let end = at.checked_add(usize::try_from(length).ok()?)?;
    let mut reader = Reader(bytes.get(at..end)?);
    let mut tables = Vec::new();
    let levels = reader.u8().filter(|levels| *levels <= LEVELS_MAX)?;
    for _ in 0..levels {
        for _ in 0..reader.u8()? {
            for _ in 0..reader.u32()? {
                let id = reader.u64()?;
                let 0 = reader.u8()? else { return None };
                let checksum = reader.u128()?;
                let _sequence_number = reader.u64()?;
                tables.push(Table { id, checksum });
            }
        }
    }
    Some(tables)
}

/// The table of contents of an archive.
#[derive(Debug)]
struct Contents {
    file_bytes: u64,
    bytes: Vec<u8>,
}

/// Reads it if its place and checksum are right.
fn contents(file: &mut File) -> std::io::Result<Option<Contents>> {
    let file_bytes = file.metadata()?.len();
    let Some(end) = file_bytes.checked_sub(TRAILER_BYTES as u64) else {
        return Ok(None);
    };
    let mut trailer = [0; TRAILER_BYTES];
    file.seek(SeekFrom::Start(end))?;
    file.read_exact(&mut trailer)?;
    let mut reader = Reader(&trailer);
    let start = (reader.take(), reader.u8(), reader.u8());
    let (Some(checksum), Some(at), Some(length)) = (reader.u128(), reader.u64(), reader.u64())
    else {
        return Ok(None);
    };
    let fits = at.checked_add(length) == Some(end) && length <= CONTENTS_BYTES_MAX;
    if start != (Some(*b"SFA!"), Some(1), Some(0)) || !fits {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes)?;
    Ok((xxh3_128(&bytes) == checksum).then_some(Contents { file_bytes, bytes }))
}

impl Contents {
    /// Place and length of a section.
    fn section(&self, name: &[u8]) -> Option<(u64, u64)> {
        let mut reader = Reader(&self.bytes);
        let magic: [u8; 4] = reader.take()?;
        if magic != *b"TOC!" {
            return None;
        }
        for _ in 0..reader.u32()? {
            let (at, length) = (reader.u64()?, reader.u64()?);
            let name_bytes = u16::from_le_bytes(reader.take()?);
            if reader.slice(name_bytes.into())? == name {
                return Some((at, length));
            }
        }
        None
    }
}

/// Of a whole file.
fn checksum(file: &mut File) -> std::io::Result<u128> {
    let mut hash = Xxh3Default::new();
    let mut buffer = vec![0; 1 << 16];
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.digest128()),
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

fn damaged(path: &Path) -> Finding {
    format!("`{}` is damaged", path.display())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Finding {
    if error.kind() == ErrorKind::NotFound {
        format!("`{}` is missing", path.display())
    } else {
        format!("`{}` can't be read ({error})", path.display())
    }
}

/// Takes numbers off the front of a slice, little endian.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn slice(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_le_bytes)
    }
}
