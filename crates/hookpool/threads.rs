//! The threads of the process: those that take requests, and those that write to followers.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that read pages for who is behind: more than the disk can use would only take the cores from ingest.
const BLOCKING_THREADS: usize = 8;

/// What everything runs on.
pub(crate) fn start() -> io::Result<Runtime> {
    multi_thread().build()
}

fn multi_thread() -> Builder {
    let mut threads = Builder::new_multi_thread();
    threads.max_blocking_threads(BLOCKING_THREADS).enable_all();
    threads
}

/// What writes to followers runs on.
///
/// Ten thousand of them that are woken at once are one queue, and a request would wait behind it; between threads the kernel shares the cores.
pub(crate) struct Followers {
    handle: Handle,
    threads: Option<Runtime>,
}

impl Followers {
    pub(crate) fn start() -> io::Result<Self> {
        let threads = multi_thread().thread_name("followers").build()?;
        Ok(Self {
            handle: threads.handle().clone(),
            threads: Some(threads),
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Followers {
    fn drop(&mut self) {
        // A runtime that is simply dropped waits for its threads, which may not be done where others run.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}
