//! What is wrong with a signed delivery whose key was good: said to operators, never to the sender. It computes many MACs, so it runs off the
//! way of requests and within a budget.

mod rewritten;

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    name::ConnectorName,
    registry::{Connector, Registry},
    scheme::{DeliveryAt, Description, Encoding, Part, Scheme, TimestampAt},
    sign::{KeyMistake, SigningKey},
    time::Timestamp,
    verify::{Header, Headers},
};

pub use rewritten::Rewriting;

/// Bodies over this are compared as they are and no other way.
const REWRITTEN_BYTES_MAX: usize = 64 << 10;
/// Other connectors whose keys are tried.
const OTHERS_MAX: usize = 50;

/// Something that is wrong, or that would match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "finding",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum Finding {
    /// A header that the scheme needs did not come.
    MissingHeader {
        /// Which.
        header: String,
    },
    /// A header came more than once.
    RepeatedHeader {
        /// Which.
        header: String,
    },
    /// The headers are those of another scheme.
    OtherScheme {
        /// Its name.
        scheme: String,
    },
    /// The timestamp is no number of seconds.
    MalformedTimestamp,
    /// The timestamp has so many digits that it counts milliseconds, or less.
    NotInSeconds,
    /// The timestamp is outside the window: behind the clock, or ahead if negative.
    Skew {
        /// How far, in seconds.
        behind: i64,
        /// How far it may be.
        allowed: u64,
    },
    /// Nothing in the signature header is one.
    MalformedSignature {
        /// What stands before a good one.
        prefix: String,
        /// How a good one is written.
        encoding: Encoding,
    },
    /// The prefix is missing or another one.
    WrongPrefix {
        /// The right one.
        prefix: String,
    },
    /// The signature is written otherwise.
    WrongEncoding {
        /// The right way.
        encoding: Encoding,
    },
    /// It matches a body that was changed on its way.
    Rewritten {
        /// How.
        body: Rewriting,
    },
    /// It matches if only the body is signed.
    WithoutTimestamp,
    /// It matches under what was mistaken for the key.
    MistakenKey {
        /// How.
        key: KeyMistake,
    },
    /// It matches a signing key that was rotated away.
    ExpiredKey,
    /// It matches the key of another connector.
    OtherConnector {
        /// Whose.
        connector: ConnectorName,
    },
    /// It matches: the connector was changed meanwhile, or the form alone was wrong.
    Matches,
    /// Nothing that was tried matches: most likely another key, or another body.
    NoMatch,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingHeader { header } => write!(f, "{header} is missing"),
            Self::RepeatedHeader { header } => write!(f, "{header} came more than once"),
            Self::OtherScheme { scheme } => write!(f, "the headers are those of the scheme {scheme}: make a connector of that scheme"),
            Self::MalformedTimestamp => f.write_str("the timestamp is not 1 to 12 digits"),
            Self::NotInSeconds => f.write_str("the timestamp is in milliseconds or less: it has to be in seconds"),
            Self::Skew { behind, allowed } => {
                let direction = if *behind < 0 { "ahead of" } else { "behind" };
                let seconds = behind.unsigned_abs();
                write!(f, "the timestamp is {seconds} s {direction} the server's clock, and {allowed} s are allowed: set the sender's clock, and sign each attempt anew")
            }
            Self::MalformedSignature { prefix, encoding } => {
                write!(f, "the signature is not {prefix:?} and {}", written(*encoding))
            }
            Self::WrongPrefix { prefix } if prefix.is_empty() => {
                f.write_str("the signature has a prefix, and has to have none")
            }
            Self::WrongPrefix { prefix } => {
                write!(f, "the signature does not begin with {prefix:?}, exactly so")
            }
            Self::WrongEncoding { encoding } => {
                write!(f, "the signature is not written as {}", written(*encoding))
            }
            Self::Rewritten { body } => write!(f, "the signature matches the body {body}: the sender signs other bytes than it sends, or a proxy changes them"),
            Self::WithoutTimestamp => f.write_str("the signature matches the body alone: the timestamp has to be signed too"),
            Self::MistakenKey { key } => {
                let how = match key {
                    KeyMistake::WithoutPrefix => "the key without its prefix: all of it is the key",
                    KeyMistake::NotDecoded => "the text of the key: what is behind its prefix has to be decoded from base64",
                    KeyMistake::LineFeed => "the key with a line feed behind it: the sender reads it from a file, line end included",
                };
                write!(f, "the signature matches {how}")
            }
            Self::ExpiredKey => f.write_str("the signature matches a signing key that was rotated away"),
            Self::OtherConnector { connector } => {
                write!(f, "the signature matches the signing key of the connector {connector}")
            }
            Self::Matches => f.write_str("otherwise the signature matches"),
            Self::NoMatch => f.write_str("the signature matches nothing that was tried: most likely it was made with another key; give the sender the key again, or hookpool connector rotate-signing-key"),
        }
    }
}

fn written(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Hex => "64 hex digits",
        Encoding::Base64 => "44 characters of base64",
    }
}

/// What there is of a refused delivery.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// Its headers.
    pub headers: &'a dyn Headers,
    /// All of its body, if that was read.
    pub body: Option<&'a [u8]>,
    /// When it came.
    pub at: Timestamp,
}

impl fmt::Debug for Evidence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Evidence(..)")
    }
}

/// Finds what is wrong with the signature of a delivery to a signed connector.
#[must_use]
pub fn diagnose(
    registry: &Registry,
    connector: &Connector,
    evidence: Evidence<'_>,
) -> Vec<Finding> {
    let scheme = connector.scheme.description();
    let mut found = Vec::new();
    let timestamp = timestamp(scheme, evidence, &mut found);
    let Some(header) = present(&scheme.signature, evidence.headers, &mut found) else {
        found.extend(other_scheme(connector, evidence.headers));
        return found;
    };
    let entries = entries(scheme, header);
    if entries.is_empty() {
        found.push(Finding::MalformedSignature {
            prefix: scheme.prefix.to_string(),
            encoding: scheme.encoding,
        });
        return found;
    }
    if let Some(Entry { wrong, .. }) = entries.iter().min_by_key(|entry| entry.wrong.len()) {
        found.extend(wrong.iter().cloned());
    }
    if let Some(body) = evidence.body {
        let id = id(scheme, evidence.headers);
        let case = Case {
            connector,
            scheme,
            entries: &entries,
            timestamp,
            id,
            body,
        };
        match case.matching(registry, evidence.at) {
            Some(Finding::Matches) if found.is_empty() => found.push(Finding::Matches),
            Some(Finding::Matches) => {}
            Some(finding) => found.push(finding),
            None => found.push(Finding::NoMatch),
        }
    }
    found
}

/// A header that has to come once.
fn present<'a>(name: &str, headers: &'a dyn Headers, found: &mut Vec<Finding>) -> Option<&'a [u8]> {
    let header = name.to_owned();
    match headers.header(name) {
        Header::One(value) => return Some(value),
        Header::Absent => found.push(Finding::MissingHeader { header }),
        Header::Repeated => found.push(Finding::RepeatedHeader { header }),
    }
    None
}

fn other_scheme(connector: &Connector, headers: &dyn Headers) -> Option<Finding> {
    let mut others = Scheme::NAMED
        .iter()
        .filter(|other| **other != connector.scheme);
    let other = others.find(|other| {
        let header = headers.header(&other.description().signature);
        matches!(header, Header::One(_) | Header::Repeated)
    })?;
    Some(Finding::OtherScheme {
        scheme: other.name().to_owned(),
    })
}

/// The digits as sent, and what is wrong with them.
fn timestamp<'a>(
    scheme: &Description,
    evidence: Evidence<'a>,
    found: &mut Vec<Finding>,
) -> &'a [u8] {
    let digits = match &scheme.timestamp {
        None => return &[],
        Some(TimestampAt::Header(name)) => present(name, evidence.headers, found),
        Some(TimestampAt::Entry(prefix)) => match evidence.headers.header(&scheme.signature) {
            Header::One(list) => {
                let separator = scheme.separator.unwrap_or(b',');
                let mut entries = list.split(|byte| *byte == separator);
                let digits = entries.find_map(|entry| entry.strip_prefix(prefix.as_bytes()));
                if digits.is_none() {
                    found.push(Finding::MalformedTimestamp);
                }
                digits
            }
            Header::Absent | Header::Repeated => None,
        },
    };
    let Some(digits) = digits else { return &[] };
    let seconds = std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match seconds.and_then(|text| text.parse::<u64>().ok()) {
        None => found.push(Finding::MalformedTimestamp),
        Some(_) if digits.len() > 12 => found.push(Finding::NotInSeconds),
        Some(seconds) => {
            let now = i64::try_from(evidence.at.seconds()).unwrap_or(i64::MAX);
            let behind = now.saturating_sub(i64::try_from(seconds).unwrap_or(i64::MAX));
            let allowed = scheme.tolerance;
            if behind.unsigned_abs() > allowed {
                found.push(Finding::Skew { behind, allowed });
            }
        }
    }
    digits
}

fn id<'a>(scheme: &Description, headers: &'a dyn Headers) -> &'a [u8] {
    match &scheme.delivery {
        Some(DeliveryAt::SignedHeader(name)) => match headers.header(name) {
            Header::One(id) => id,
            Header::Absent | Header::Repeated => &[],
        },
        Some(DeliveryAt::TrustedHeader { .. } | DeliveryAt::Body(_)) | None => &[],
    }
}

/// Something in the signature header that could be a MAC.
struct Entry {
    mac: [u8; 32],
    wrong: Vec<Finding>,
}

/// Prefixes that senders write.
const PREFIXES: [&str; 6] = ["sha256=", "v1=", "v0=", "v1,", "hmac-sha256=", ""];

fn entries(scheme: &Description, header: &[u8]) -> Vec<Entry> {
    let all: Vec<&[u8]> = match scheme.separator {
        Some(separator) => header.split(|byte| *byte == separator).collect(),
        None => vec![header],
    };
    all.into_iter()
        .take(16)
        .filter_map(|entry| read(scheme, entry))
        .collect()
}

fn read(scheme: &Description, entry: &[u8]) -> Option<Entry> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let own = std::iter::once(&*scheme.prefix).chain(PREFIXES);
    own.enumerate().find_map(|(n, prefix)| {
        let (start, rest) = text.split_at_checked(prefix.len())?;
        if !start.eq_ignore_ascii_case(prefix) {
            return None;
        }
        let (mac, encoding) = decode(rest)?;
        let mut wrong = Vec::new();
        if n > 0 || start != scheme.prefix || text.len() != entry.len() {
            wrong.push(Finding::WrongPrefix {
                prefix: scheme.prefix.to_string(),
            });
        }
        if encoding != Some(scheme.encoding) {
            wrong.push(Finding::WrongEncoding {
                encoding: scheme.encoding,
            });
        }
        Some(Entry { mac, wrong })
    })
}

/// 32 bytes in any of the usual spellings; the encoding if it is one of ours.
fn decode(text: &str) -> Option<([u8; 32], Option<Encoding>)> {
    let exact = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).ok();
    if text.len() == 64
        && let Ok(mac) = const_hex::decode_to_array(text)
    {
        return Some((mac, Some(Encoding::Hex)));
    }
    if let Some(mac) = BASE64_STANDARD.decode(text).ok().and_then(exact) {
        return Some((mac, Some(Encoding::Base64)));
    }
    let url_safe = text
        .trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_");
    let mac = BASE64_URL_SAFE_NO_PAD
        .decode(url_safe)
        .ok()
        .and_then(exact)?;
    Some((mac, None))
}

struct Case<'a> {
    connector: &'a Connector,
    scheme: &'a Description,
    entries: &'a [Entry],
    timestamp: &'a [u8],
    id: &'a [u8],
    body: &'a [u8],
}

impl Case<'_> {
    /// The first guess that makes it match.
    fn matching(&self, registry: &Registry, at: Timestamp) -> Option<Finding> {
        let template = &*self.scheme.template;
        if self.fits(self.connector.signing_keys(at), template, self.body) {
            return Some(Finding::Matches);
        }
        let all = || self.connector.all_signing_keys();
        if self.fits(all(), template, self.body) {
            return Some(Finding::ExpiredKey);
        }
        if template != [Part::Body] && self.fits(all(), &[Part::Body], self.body) {
            return Some(Finding::WithoutTimestamp);
        }
        let mistaken = all().flat_map(SigningKey::mistaken);
        for (key, mistaken) in mistaken {
            if self.fits(std::iter::once(&mistaken), template, self.body) {
                return Some(Finding::MistakenKey { key });
            }
        }
        if self.body.len() <= REWRITTEN_BYTES_MAX {
            let mut rewritten = rewritten::all(self.body).into_iter();
            let body = rewritten.find(|(_, body)| self.fits(all(), template, body));
            if let Some((body, _)) = body {
                return Some(Finding::Rewritten { body });
            }
        }
        let mut others = registry
            .connectors()
            .filter(|other| other.name != self.connector.name)
            .take(OTHERS_MAX);
        let other =
            others.find(|other| self.fits(other.all_signing_keys(), template, self.body))?;
        Some(Finding::OtherConnector {
            connector: other.name.clone(),
        })
    }

    fn fits<'k>(
        &self,
        mut keys: impl Iterator<Item = &'k SigningKey>,
        template: &[Part],
        body: &[u8],
    ) -> bool {
        keys.any(|key| {
            let mac = key.mac(template, [self.timestamp, self.id, body]);
            self.entries.iter().any(|entry| entry.mac == mac)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{registry::tests::World, sign::signature};

    const NOW: u64 = 1_700_000_000;
    const BODY: &[u8] = br#"{"region": "North"}"#;

    fn found(world: &World, headers: Vec<(&str, String)>, body: &[u8]) -> Vec<Finding> {
        let connector = world.registry.connector("signed").unwrap();
        let evidence = Evidence {
            headers: &headers,
            body: Some(body),
            at: Timestamp::from_seconds(NOW),
        };
        diagnose(&world.registry, connector, evidence)
    }

    fn with(signature: String, timestamp: &str) -> Vec<(&'static str, String)> {
        vec![
            ("x-webhook-signature", signature),
            ("x-webhook-timestamp", timestamp.to_owned()),
        ]
    }

    fn hex(key: &str, body: &[u8]) -> String {
        signature(key, NOW, body)
            .strip_prefix("sha256=")
            .unwrap()
            .to_owned()
    }

    fn mac(key: &str, text: &[u8]) -> [u8; 32] {
        SigningKey::new(key).mac(&[Part::Body], [&[], &[], text])
    }

    #[test]
    fn each_mistake_is_named_and_none_is_made_up() {
        let world = World::new();
        let key = &*world.signing_key;
        let now = NOW.to_string();
        let signed = |body: &[u8]| with(signature(key, NOW, body), &now);
        let prefix = || Finding::WrongPrefix {
            prefix: "sha256=".to_owned(),
        };
        let good = hex(key, BODY);
        let bytes: [u8; 32] = const_hex::decode_to_array(&good).unwrap();
        let base64 = BASE64_STANDARD.encode(bytes);
        let late = (NOW - 3_612).to_string();
        let compact = br#"{"region":"North"}"#;
        let key_line = format!("{key}\n");
        let cases = [
            (signed(BODY), vec![Finding::Matches]),
            (with(good.clone(), &now), vec![prefix()]),
            (with(format!("SHA256={good}"), &now), vec![prefix()]),
            (
                with(format!("sha256={base64}"), &now),
                vec![Finding::WrongEncoding {
                    encoding: Encoding::Hex,
                }],
            ),
            (
                signed(compact),
                vec![Finding::Rewritten {
                    body: Rewriting::Compact,
                }],
            ),
            (
                signed(&[BODY, b"\n"].concat()),
                vec![Finding::Rewritten {
                    body: Rewriting::LineFeedAdded,
                }],
            ),
            (
                with(
                    format!("sha256={}", const_hex::encode(mac(key, BODY))),
                    &now,
                ),
                vec![Finding::WithoutTimestamp],
            ),
            (
                with(
                    signature(key.strip_prefix("whsk_").unwrap(), NOW, BODY),
                    &now,
                ),
                vec![Finding::MistakenKey {
                    key: KeyMistake::WithoutPrefix,
                }],
            ),
            (
                with(signature(&key_line, NOW, BODY), &now),
                vec![Finding::MistakenKey {
                    key: KeyMistake::LineFeed,
                }],
            ),
            (
                with(signature("whsk_of_somebody_else", NOW, BODY), &now),
                vec![Finding::NoMatch],
            ),
            (
                with(signature(key, NOW - 3_612, BODY), &late),
                vec![Finding::Skew {
                    behind: 3_612,
                    allowed: 300,
                }],
            ),
            (
                with(signature(key, NOW, BODY), "1700000000000"),
                vec![Finding::NotInSeconds, Finding::NoMatch],
            ),
            (
                with("sha256=abc".to_owned(), &now),
                vec![Finding::MalformedSignature {
                    prefix: "sha256=".to_owned(),
                    encoding: Encoding::Hex,
                }],
            ),
            (
                vec![
                    ("x-webhook-timestamp", now.clone()),
                    ("x-hub-signature-256", good),
                ],
                vec![
                    Finding::MissingHeader {
                        header: "X-Webhook-Signature".to_owned(),
                    },
                    Finding::OtherScheme {
                        scheme: "github".to_owned(),
                    },
                ],
            ),
        ];
        for (headers, expected) in cases {
            assert_eq!(
                found(&world, headers.clone(), BODY),
                expected,
                "{headers:?}"
            );
        }
    }

    #[test]
    fn what_is_said_is_a_sentence_without_secrets() {
        let skew = Finding::Skew {
            behind: 3_612,
            allowed: 300,
        };
        assert!(
            skew.to_string()
                .starts_with("the timestamp is 3612 s behind the server's clock")
        );
    }
}
