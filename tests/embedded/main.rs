//! The engine and the HTTP edge inside this process, over a log and a pool in a folder: for what can't be done, or seen, from outside.
//!
//! Events are appended to the log by its contract, so that a test says what is one commit.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "these tests take real time")]
#![expect(clippy::print_stderr, reason = "seeds and counts are for people")]

mod catch_up;
mod cut_passage;
mod downloads;
mod feeds;
mod histories;
mod merged;
mod moments;
mod node;
mod slow;
mod slow_diff;
mod slow_pages;
mod slow_passage;
mod slow_reader;
mod snapshots;
mod until;
mod wide;

fn number_from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap())
}
