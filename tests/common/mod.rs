//! What the tests that spawn the real binary share: a data folder, a server on it, a raw HTTP client, a parser for
//! server-sent events, a fold of the log, and the OpenAPI document, which every answer is held against. Nothing here uses the project's own packages, so that a mistake in them
//! can't hide behind itself.

pub(crate) mod canary;
pub(crate) mod fold;
pub(crate) mod follower;
pub(crate) mod hostile;
pub(crate) mod http;
pub(crate) mod openapi;
pub(crate) mod program;
pub(crate) mod projection;
pub(crate) mod server;
pub(crate) mod shared;
pub(crate) mod signer;
pub(crate) mod sse;
pub(crate) mod terminal;

use std::time::{Duration, Instant, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use rand::SeedableRng;
use rand::rngs::StdRng;
use sha2::Sha256;

/// Unix seconds.
pub(crate) fn now_s() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// The value of `X-Webhook-Signature` as the product page defines it.
pub(crate) fn sign(key: &str, timestamp: &str, body: &[u8]) -> String {
    let signed = [timestamp.as_bytes(), b".", body].concat();
    format!("sha256={}", hex(&hmac(key.as_bytes(), &signed)))
}

/// HMAC-SHA256.
pub(crate) fn hmac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(bytes);
    mac.finalize().into_bytes().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Looks every few milliseconds until `look` finds something, for at most `limit`.
pub(crate) fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A generator from `HOOKPOOL_SEED`, or from a new seed; the seed is printed so that a failure can be repeated.
pub(crate) fn seeded(test: &str) -> StdRng {
    let seed = number_from_env("HOOKPOOL_SEED").unwrap_or_else(|| rand::random_range(0..1 << 32));
    eprintln!("{test}: repeat with HOOKPOOL_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// A number from the environment; a malformed one fails the test rather than passing for absent.
pub(crate) fn number_from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}
