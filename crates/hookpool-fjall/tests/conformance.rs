//! The fjall log and pool keep every promise, also when they are closed and opened again.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::path::PathBuf;

use hookpool_core::position::Epoch;
use hookpool_fjall::{FjallLog, FjallPool, Options, RejectionFolder};
use hookpool_store::conformance::{LogFixture, PoolFixture, RejectionsFixture};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }
}

impl LogFixture for Folder {
    type Log = FjallLog;

    async fn create(&mut self) -> FjallLog {
        FjallLog::open(&self.path(), Options::new(Epoch(1))).unwrap()
    }

    async fn reopen(&mut self, log: FjallLog) -> FjallLog {
        drop(log);
        FjallLog::open(&self.path(), Options::new(Epoch(2))).unwrap()
    }
}

impl PoolFixture for Folder {
    type Pool = FjallPool;

    fn create(&mut self) -> FjallPool {
        FjallPool::open(&self.path()).unwrap()
    }

    fn reopen(&mut self, pool: FjallPool) -> FjallPool {
        drop(pool);
        FjallPool::open(&self.path()).unwrap()
    }
}

mod log {
    hookpool_store::log_conformance!(super::Folder::new());
}

mod pool {
    hookpool_store::pool_conformance!(super::Folder::new());
}

impl RejectionsFixture for Folder {
    type Rejections = RejectionFolder;

    fn create(&mut self) -> RejectionFolder {
        RejectionFolder::open(&self.path()).unwrap()
    }

    fn reopen(&mut self, rejections: RejectionFolder) -> RejectionFolder {
        drop(rejections);
        RejectionFolder::open(&self.path()).unwrap()
    }
}

mod rejections {
    hookpool_store::rejections_conformance!(super::Folder::new());
}
