//! Claims about how senders sign, over the public face of the verifier: golden vectors that others published, the rules of each scheme,
//! keys that come and go, and many mutations of signed deliveries, none of which passes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod mutations;
mod rules;
mod sender;
