//! Who sent a delivery, and whether these bytes are what they sent. Nothing is parsed before this.
//!
//! In two steps, so that the body of a stranger is never read: [`admit`] looks at the headers alone, [`Admitted::verify`] at
//! the bytes. There is no other way to a [`Verified`].

mod admit;
mod delivery;
mod entries;
mod header;
mod signed;
#[cfg(test)]
mod tests;
mod verified;

use thiserror::Error;

pub use admit::{Admitted, Proof, admit, admit_any, admit_hook, must_be_hook};
pub use header::{Header, Headers};
pub use verified::Verified;

/// Why a delivery is refused. What the sender is told is one status for all (`api.md` section 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// No key that may write to this stream: unknown, revoked, malformed, of another stream, sent twice.
    #[error("find a key that may write to the stream")]
    Unauthorized,
    /// Signature or timestamp missing, repeated, malformed or wrong.
    #[error("match the signature")]
    SignatureInvalid,
    /// A well-formed timestamp further from the clock than the scheme tolerates.
    #[error("take a timestamp outside the window")]
    TimestampOutOfRange,
}
