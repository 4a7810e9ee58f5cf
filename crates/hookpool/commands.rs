//! The commands that ask a server, and the two that ask nobody: a file each.

pub(crate) mod backup;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod connector;
pub(crate) mod export;
pub(crate) mod health;
pub(crate) mod ingest;
pub(crate) mod items;
pub(crate) mod log;
pub(crate) mod operator;
pub(crate) mod projection;
pub(crate) mod quarantine;
pub(crate) mod reader;
pub(crate) mod rebuild;
pub(crate) mod rejections;
pub(crate) mod retention;
pub(crate) mod send;
mod snippet;
pub(crate) mod tail;
pub(crate) mod top;
