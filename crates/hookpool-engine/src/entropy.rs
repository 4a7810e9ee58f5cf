//! The only place that draws random numbers.

use std::sync::{Arc, Mutex, PoisonError};

use rand::{RngCore, SeedableRng, rngs::StdRng};

/// Where random bytes come from.
#[derive(Debug, Clone, Default)]
pub enum Entropy {
    /// The operating system, through a generator per thread that is fit for keys.
    #[default]
    System,
    /// A seed, for runs that can be repeated. Never for keys that guard anything.
    Seeded(Arc<Mutex<StdRng>>),
}

impl Entropy {
    /// The same bytes in every run.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match self {
            Self::System => rand::rng().fill_bytes(&mut bytes),
            Self::Seeded(rng) => rng
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .fill_bytes(&mut bytes),
        }
        bytes
    }
}
