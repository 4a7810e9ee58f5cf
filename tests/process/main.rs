//! Claims about the real binary: each test spawns it and speaks to it over sockets, files and signals.
//!
//! Tests that need programs from outside, or minutes, are ignored here and run by `tests/run`.
#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]
#![expect(clippy::disallowed_methods, reason = "these tests wait in real time")]
#![expect(clippy::print_stderr, reason = "seeds and counts are for people")]

#[path = "../common/mod.rs"]
mod common;

mod bulk;
mod canaries;
mod changes_contract;
mod command_line;
mod console;
mod consumers;
mod core_dumps;
mod corpus;
mod cors;
mod deadlines;
mod deletions;
mod demo;
mod examples;
mod flips;
mod framing;
mod github;
mod history;
mod idempotency;
mod ingest_contract;
mod kill_loop;
#[cfg(target_os = "linux")]
mod large_items;
mod limits;
mod mutations;
mod openapi;
mod operators;
mod page;
mod past;
mod read_contract;
mod rebuild;
mod refusals;
mod rejections;
mod restart;
mod retention;
mod runbook;
mod schemes;
mod selected;
mod sse_readers;
mod swarm;
mod tls;
mod top;
mod unavailable;
