//! The engine held at chosen moments, where what runs beside it can be looked at.

#![expect(clippy::unwrap_used, reason = "a test")]

mod rebuild;
mod retention;
mod world;
