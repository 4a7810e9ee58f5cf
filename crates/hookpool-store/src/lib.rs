//! What a log and a pool must promise, in prose and code.
