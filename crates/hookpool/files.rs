//! Files and folders that are there whole or not at all: made under another name, synced, and renamed last.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, BufRead, BufReader, BufWriter, Read as _, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::progress::Progress;

/// No line of ours is longer: a body is far below this, also where each byte is escaped.
const LINE_BYTES_MAX: u64 = 1 << 30;

/// A file that takes its name when it is finished, and the place of one that is there.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
}

impl NewFile {
    /// Begins `<path>.partial`, over one that was left behind.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial)
            .with_context(|| format!("{} can't be written", partial.display()))?;
        Ok(Self {
            path: path.into(),
            partial,
            file: BufWriter::new(file),
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = self.file.write_all(bytes);
        written.with_context(|| format!("{} can't be written", self.partial.display()))
    }

    /// IMPORTANT: synced before it is renamed, and its folder after.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        let mut finish = || {
            self.file.flush()?;
            self.file.get_ref().sync_all()?;
            fs::rename(&self.partial, &self.path)?;
            sync_parent(&self.path)
        };
        finish().with_context(|| format!("{} can't be written", self.path.display()))
    }
}

/// A folder beside its place; removed unless it takes it.
#[derive(Debug)]
pub(crate) struct NewFolder {
    path: PathBuf,
    side: TempDir,
}

impl NewFolder {
    /// Begins a folder for a path where there is nothing yet.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let parent = path.parent().unwrap_or_else(|| Path::new("."));
        make_folder(parent)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let side = tempfile::Builder::new()
            .prefix(&format!("{name}.partial-"))
            .tempdir_in(parent)
            .with_context(|| format!("{} can't be written", parent.display()))?;
        Ok(Self {
            path: path.into(),
            side,
        })
    }

    /// Where it is made.
    pub(crate) fn path(&self) -> &Path {
        self.side.path()
    }

    /// Takes its place, durably. A folder that came there meanwhile is an error.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let finish = || {
            sync(self.side.path())?;
            fs::rename(self.side.path(), &self.path)?;
            sync_parent(&self.path)
        };
        finish().with_context(|| format!("{} can't be made", self.path.display()))
    }
}

/// Refuses a data folder that has one of these already; a pool of another history must not meet a log.
pub(crate) fn must_be_free(dir: &Path, names: &[&str]) -> anyhow::Result<()> {
    for place in names.iter().map(|name| dir.join(name)) {
        ensure!(
            !place.try_exists()?,
            "{} is there already; choose another data folder, or move it away",
            place.display()
        );
    }
    Ok(())
}

/// A folder that only its owner may look into, if it is not there.
pub(crate) fn make_folder(dir: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("{} can't be made", dir.display()))
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    sync(parent.unwrap_or_else(|| Path::new(".")))
}

/// A text that is read line by line, with how far it is.
pub(crate) struct Lines {
    reader: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    /// Bytes read.
    read: u64,
    /// Bytes of it all; 0 if nobody knows.
    total: u64,
}

impl Lines {
    /// A file, or standard input for `-`.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let (reader, total): (Box<dyn BufRead + Send>, u64) = if path == Path::new("-") {
            (Box::new(BufReader::new(io::stdin())), 0)
        } else {
            let open = || {
                let file = File::open(path)?;
                let total = file.metadata()?.len();
                io::Result::Ok((file, total))
            };
            let (file, total) =
                open().with_context(|| format!("{} can't be read", path.display()))?;
            (Box::new(BufReader::new(file)), total)
        };
        Ok(Self {
            reader,
            line: Vec::new(),
            read: 0,
            total,
        })
    }

    /// The next line with its line feed; the last one may have none.
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let mut limited = (&mut self.reader).take(LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut self.line)?;
        self.read += read as u64;
        Ok((read > 0).then_some(&self.line))
    }

    /// Says how far it is.
    pub(crate) fn report(&self, progress: &mut Progress) {
        progress.at(self.read >> 10, self.total >> 10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("export");
        fs::write(&path, "old").unwrap();
        let mut file = NewFile::create(&path).unwrap();
        file.write(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_there_whole_or_not_at_all_and_takes_no_place_that_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data").join("log");
        drop(NewFolder::create(&path).unwrap());
        assert_eq!(fs::read_dir(dir.path().join("data")).unwrap().count(), 0);
        let [first, second] = [(); 2].map(|()| NewFolder::create(&path).unwrap());
        fs::write(first.path().join("file"), "x").unwrap();
        first.finish().unwrap();
        assert!(second.finish().is_err());
        assert_eq!(fs::read(path.join("file")).unwrap(), b"x");
    }
}
