//! What is kept of refused deliveries: a small file for each, named by its request. No database: they are few, written and removed one by one, and
//! may be lost.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{ErrorKind, Result, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use hookpool_core::event::RequestId;
use hookpool_store::{Cause, RejectionStore};

const END: &str = ".json";

/// A folder of files that only its owner may read.
#[derive(Debug)]
pub struct RejectionFolder(PathBuf);

impl RejectionFolder {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn open(dir: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self(dir.to_owned()))
    }

    fn file(&self, id: RequestId) -> PathBuf {
        self.0.join(format!("{id}{END}"))
    }

    fn write(&self, id: RequestId, bytes: &[u8]) -> Result<()> {
        let unfinished = self.0.join("unfinished");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        // One thread writes. Not synced: it takes its name when it is whole for everybody but a power cut, and that may take it.
        options.open(&unfinished)?.write_all(bytes)?;
        fs::rename(&unfinished, self.file(id))
    }

    fn list(&self) -> Result<Vec<RequestId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(END));
            ids.extend(id.and_then(RequestId::parse));
        }
        Ok(ids)
    }
}

impl RejectionStore for RejectionFolder {
    fn put(&self, id: RequestId, bytes: &[u8]) -> std::result::Result<(), Cause> {
        self.write(id, bytes).map_err(cause)
    }

    fn get(&self, id: RequestId) -> std::result::Result<Option<Vec<u8>>, Cause> {
        if_there(fs::read(self.file(id)))
    }

    fn remove(&self, id: RequestId) -> std::result::Result<(), Cause> {
        if_there(fs::remove_file(self.file(id))).map(drop)
    }

    fn ids(&self) -> std::result::Result<Vec<RequestId>, Cause> {
        self.list().map_err(cause)
    }
}

fn if_there<T>(outcome: Result<T>) -> std::result::Result<Option<T>, Cause> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cause(error)),
    }
}

fn cause(error: std::io::Error) -> Cause {
    Arc::new(error)
}
