//! Keys that producers, readers and operators present: `<kind>_<id>_<secret>`.

use std::{borrow::Borrow, fmt};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a key is for; its prefix says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// `ik`: appends to the stream of one connector.
    Ingest,
    /// `rk`: reads the streams it names.
    Read,
    /// `ok`: operates.
    Operator,
    /// `hk`: appends to the stream of one connector, as a part of a URL.
    Hook,
}

impl KeyKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Ingest => "ik_",
            Self::Read => "rk_",
            Self::Operator => "ok_",
            Self::Hook => "hk_",
        }
    }
}

/// The public part of a key: 12 lower-case hex digits when made here. Safe to log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(Box<str>);

impl KeyId {
    /// The id of six random bytes.
    #[must_use]
    pub fn from_random(random: [u8; 6]) -> Self {
        Self(const_hex::encode(random).into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for KeyId {
    /// An id as somebody names it; whether there is such a key is another question.
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Borrow<str> for KeyId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A secret text that is shown once, to the one who asked for it. It has no `Debug` text and no comparison.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes a text into keeping.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself; the name is long so that each use is seen.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// 40 letters and digits from 64 random bytes, each character equally likely: 238 bits.
///
/// Bytes of 248 and more are skipped (62 x 4 = 248). `None` if too few are left, which asks for new bytes: once in 10^17 calls.
pub(crate) fn text(random: &[u8; 64]) -> Option<String> {
    let text: String = random
        .iter()
        .filter(|b| **b < 248)
        .filter_map(|b| ALPHABET.get(usize::from(b % 62)))
        .take(40)
        .map(|b| char::from(*b))
        .collect();
    (text.len() == 40).then_some(text)
}

/// A new key of a kind: the full text, shown once, and what is kept of it. `None` asks for new random bytes.
#[must_use]
pub fn generate(kind: KeyKind, id: &KeyId, random: &[u8; 64]) -> Option<(Secret, SecretHash)> {
    let secret = text(random)?;
    let hash = SecretHash::of(&secret);
    Some((Secret(format!("{}{id}_{secret}", kind.prefix())), hash))
}

/// SHA-256 of a secret: all that is kept of it. The secret has 238 random bits, so a slow hash would add nothing.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// A hash that no secret has, for the comparison that is made when the id is unknown.
    pub(crate) const NONE: Self = Self([0; 32]);

    /// Whether this is the hash of the presented secret; takes the same time either way.
    #[must_use]
    pub fn matches(&self, presented: &PresentedKey<'_>) -> bool {
        Self::of(presented.secret).0.ct_eq(&self.0).into()
    }
}

impl From<SecretHash> for String {
    fn from(hash: SecretHash) -> Self {
        const_hex::encode(hash.0)
    }
}

impl TryFrom<String> for SecretHash {
    type Error = const_hex::FromHexError;

    fn try_from(hex: String) -> Result<Self, Self::Error> {
        const_hex::decode_to_array(hex).map(Self)
    }
}

/// A key as somebody sent it: split, not yet believed.
#[derive(Clone, Copy)]
pub struct PresentedKey<'a> {
    /// From the prefix.
    pub kind: KeyKind,
    /// What is looked up.
    pub id: &'a str,
    secret: &'a str,
}

impl fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresentedKey({:?} {})", self.kind, self.id)
    }
}

impl<'a> PresentedKey<'a> {
    /// From the value of `Authorization`: `Bearer`, in any case, one space, then the key and nothing else.
    #[must_use]
    pub fn from_authorization(value: &'a [u8]) -> Option<Self> {
        let (scheme, key) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            Self::parse(key)
        } else {
            None
        }
    }

    /// From the text of a key. The secret may hold underscores; the id may not.
    #[must_use]
    pub fn parse(key: &'a str) -> Option<Self> {
        let kinds = [
            KeyKind::Ingest,
            KeyKind::Read,
            KeyKind::Operator,
            KeyKind::Hook,
        ];
        let (kind, rest) = kinds
            .into_iter()
            .find_map(|kind| Some((kind, key.strip_prefix(kind.prefix())?)))?;
        let (id, secret) = rest.split_once('_')?;
        let visible = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        (visible(id) && visible(secret) && key.len() <= 256).then_some(Self { kind, id, secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(kind: KeyKind) -> (String, SecretHash) {
        let random = std::array::from_fn(|i| u8::try_from(i * 3).unwrap());
        let (secret, hash) = generate(kind, &KeyId::from_random([0xab; 6]), &random).unwrap();
        (secret.expose().to_owned(), hash)
    }

    #[test]
    fn a_made_key_is_accepted_by_its_hash_only() {
        let (key, hash) = made(KeyKind::Ingest);
        assert!(
            key.starts_with("ik_abababababab_") && key.len() == 16 + 40,
            "{key}"
        );
        let presented = PresentedKey::parse(&key).unwrap();
        assert!(hash.matches(&presented));
        let other = format!("{key}x");
        assert!(!hash.matches(&PresentedKey::parse(&other).unwrap()));
        assert!(!SecretHash::NONE.matches(&presented));
    }

    #[test]
    fn too_few_usable_random_bytes_ask_for_more() {
        assert!(text(&[255; 64]).is_none());
        assert!(text(&[1; 64]).is_some());
    }

    #[test]
    fn authorization_takes_one_spelling_and_any_case_of_bearer() {
        for good in ["Bearer ik_a_b", "bearer ik_a_b", "BEARER ik_a_b_c"] {
            assert!(
                PresentedKey::from_authorization(good.as_bytes()).is_some(),
                "{good}"
            );
        }
        let long = format!("Bearer ik_a_{}", "x".repeat(300));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer  ik_a_b",
            "Bearer\tik_a_b",
            "Bearer ik_a_b ",
            "Basic ik_a_b",
            "ik_a_b",
            "Bearer ik_",
            "Bearer ik__",
            "Bearer ik_a",
            "Bearer ik_a_",
            "Bearer IK_a_b",
            "Bearer whsk_abc_d",
            "Bearer ik_a_b, Bearer ik_a_b",
            "Bearer ik_ä_b",
            long.as_str(),
        ] {
            assert!(
                PresentedKey::from_authorization(bad.as_bytes()).is_none(),
                "{bad}"
            );
        }
        assert!(PresentedKey::from_authorization(b"Bearer ik_a_\xff").is_none());
    }

    #[test]
    fn secrets_have_no_debug_text() {
        let (key, _) = made(KeyKind::Read);
        let shown = format!(
            "{:?} {:?}",
            PresentedKey::parse(&key).unwrap(),
            Secret::new(key.clone())
        );
        assert!(!shown.contains(key.rsplit('_').next().unwrap()), "{shown}");
    }
}
