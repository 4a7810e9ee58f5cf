//! The `hookpool` binary: chooses a backend and starts the rest.

fn main() {}
