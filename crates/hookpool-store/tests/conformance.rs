//! The memory reference keeps every promise.

use hookpool_core::position::Epoch;
use hookpool_store::{
    conformance::{LogFixture, PoolFixture, RejectionsFixture},
    memory::{MemoryLog, MemoryPool, MemoryRejections},
};

struct Memory;

impl LogFixture for Memory {
    type Log = MemoryLog;

    async fn create(&mut self) -> MemoryLog {
        MemoryLog::new(Epoch(1))
    }

    async fn reopen(&mut self, log: MemoryLog) -> MemoryLog {
        log
    }
}

impl PoolFixture for Memory {
    type Pool = MemoryPool;

    fn create(&mut self) -> MemoryPool {
        MemoryPool::default()
    }

    fn reopen(&mut self, pool: MemoryPool) -> MemoryPool {
        pool
    }
}

mod log {
    hookpool_store::log_conformance!(super::Memory);
}

mod pool {
    hookpool_store::pool_conformance!(super::Memory);
}

impl RejectionsFixture for Memory {
    type Rejections = MemoryRejections;

    fn create(&mut self) -> MemoryRejections {
        MemoryRejections::default()
    }

    fn reopen(&mut self, rejections: MemoryRejections) -> MemoryRejections {
        rejections
    }
}

mod rejections {
    hookpool_store::rejections_conformance!(super::Memory);
}
