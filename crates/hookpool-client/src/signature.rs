//! The signature of one delivery over all its tries: the same as long as the server takes it for sure.

use hookpool_core::{key::Secret, scheme::Scheme, sign::SigningKey};

use crate::{clock, error::Error};

/// Signs one delivery, under one id however often.
pub(crate) struct Signer {
    scheme: Scheme,
    key: SigningKey,
    /// What the scheme names the delivery by.
    id: String,
    /// `None` if the next try needs another one than was made.
    signature: Option<Signature>,
}

struct Signature {
    /// In Unix seconds.
    at: u64,
    /// Whether an earlier try had it.
    is_used: bool,
    headers: Vec<(String, String)>,
}

impl Signer {
    pub(crate) fn new(scheme: Scheme, key: &Secret, id: String) -> Result<Self, Error> {
        let key = scheme.key(key.expose());
        let key = key.map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(Self {
            scheme,
            key,
            id,
            signature: None,
        })
    }

    /// The headers for the next try. The other half of the window is left for the way of the request, and for clocks that differ.
    pub(crate) fn headers(&mut self, body: &[u8]) -> &[(String, String)] {
        let now = clock::unix_seconds();
        let age_max = self.scheme.description().tolerance / 2;
        let signature = self.signature.take();
        let signature = signature.filter(|made| made.at.abs_diff(now) <= age_max);
        let signature = match signature {
            Some(made) => Signature {
                is_used: true,
                ..made
            },
            None => Signature {
                at: now,
                is_used: false,
                headers: self.scheme.sign(&self.key, now, &self.id, body),
            },
        };
        &self.signature.insert(signature).headers
    }

    /// After a refusal for the age of the signature: makes another one next time, if that can be younger.
    pub(crate) fn renew(&mut self) -> bool {
        self.signature.take_if(|made| made.is_used).is_some()
    }
}
