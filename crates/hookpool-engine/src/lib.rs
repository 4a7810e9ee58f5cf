//! The running pipeline between the contracts of `hookpool-store` and whoever speaks to the world.
//!
//! Not here: HTTP, status codes, framing, backends. The engine is generic over [`EventLog`](hookpool_store::EventLog) and
//! [`PoolStore`](hookpool_store::PoolStore), and works embedded as well as behind `hookpool-http`. One bounded queue leads forward, to the
//! [`appender`]; everything behind the log pulls by position: the [`projector`], [`follow`]ers, the [`control`] registry.

pub mod appender;
pub mod clock;
pub mod compare;
pub mod control;
pub mod engine;
pub mod entropy;
pub mod follow;
mod material;
pub mod pace;
pub mod past;
pub mod projector;
pub mod rebuild;
pub mod rejections;
pub mod retention;
pub mod status;
mod worker;

pub use engine::{
    AcceptError, Asked, BulkAsked, BulkReceipt, Engine, LogName, Options, Receipt, StartError,
};
