//! The HTTP edge: requests in, answers and server-sent events out.
//!
//! The only package that knows warp, status codes and SSE framing. [`routes`] is the whole surface as one warp filter; [`server`]
//! runs it under a hyper accept loop with the limits that warp's own server lacks. What is served is not what is stored: the
//! shapes of answers are in the `*_json` functions and structs of this package.

mod admin;
mod app;
mod body;
mod bulk;
mod changes;
mod console;
mod cors;
mod failures;
mod followers;
mod generations;
mod history;
mod hooks;
mod ingest;
mod lease;
mod metrics;
mod openapi;
mod ops;
mod pace;
mod pages;
mod past;
mod peer;
mod problem;
mod query;
mod read;
mod refusal;
mod rehearsal;
mod rejected;
mod rejections;
mod render;
mod retention;
mod route;
pub mod server;
mod sse;
mod viewer;

pub use app::{Settings, routes};
pub use peer::{Network, NotANetwork};
pub use sse::encode_change;
