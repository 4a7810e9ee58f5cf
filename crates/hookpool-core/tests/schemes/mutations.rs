//! Signed deliveries, changed in every way that a seeded generator comes up with. What means something else is refused; what means the
//! same (hex digits in the other case, entries of other versions, the order of signatures) is still accepted.
//!
//! `HOOKPOOL_FORGERIES` says how many, `HOOKPOOL_SEED` repeats a run.

use std::collections::BTreeSet;

use hookpool_core::scheme::{DeliveryAt, Encoding, Scheme, TimestampAt};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::sender::{NOW, Sender, Sent, schemes};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap())
}

/// What a delivery says, told apart from how it is spelled. Written without the verifier's own code.
struct Meaning {
    body: Vec<u8>,
    signatures: BTreeSet<Vec<u8>>,
    timestamp: Vec<Vec<u8>>,
    /// Of the headers that are signed or sign.
    others: Vec<Vec<u8>>,
}

impl Meaning {
    fn of(scheme: &Scheme, headers: &Sent, body: &[u8]) -> Self {
        let description = scheme.description();
        let all = |name: &str| -> Vec<Vec<u8>> {
            let named = headers
                .iter()
                .filter(|(given, _)| given.eq_ignore_ascii_case(name));
            named.map(|(_, value)| value.clone()).collect()
        };
        let mut timestamp = match &description.timestamp {
            Some(TimestampAt::Header(name)) => all(name),
            _ => Vec::new(),
        };
        let mut signatures = BTreeSet::new();
        let found = all(&description.signature);
        for value in &found {
            let entries: Vec<&[u8]> = match description.separator {
                Some(separator) => value.split(|byte| *byte == separator).collect(),
                None => vec![value],
            };
            for entry in entries {
                if let Some(signature) = entry.strip_prefix(description.prefix.as_bytes()) {
                    signatures.insert(match description.encoding {
                        Encoding::Hex => signature.to_ascii_lowercase(),
                        Encoding::Base64 => signature.to_vec(),
                    });
                } else if let Some(TimestampAt::Entry(prefix)) = &description.timestamp {
                    timestamp.extend(entry.strip_prefix(prefix.as_bytes()).map(<[u8]>::to_vec));
                }
            }
        }
        let mut others = match &description.delivery {
            Some(DeliveryAt::SignedHeader(name)) => all(name),
            _ => Vec::new(),
        };
        // How often the header came is a part of it.
        others.push(vec![u8::try_from(found.len()).unwrap()]);
        Self {
            body: body.to_vec(),
            signatures,
            timestamp,
            others,
        }
    }
}

impl Meaning {
    /// Whether it says what a good delivery says. More signatures beside the good one take nothing away from it.
    fn holds(&self, good: &Self) -> bool {
        let signed = (&self.body, &self.timestamp, &self.others);
        signed == (&good.body, &good.timestamp, &good.others)
            && self.signatures.is_superset(&good.signatures)
    }
}

/// One change to some bytes.
fn mutate(random: &mut StdRng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = |random: &mut StdRng, length: usize| random.random_range(0..length.max(1));
    let n = at(random, bytes.len());
    match random.random_range(0..12) {
        _ if bytes.is_empty() => bytes.push(random.random_range(32..127)),
        0 => bytes[n] ^= 1 << random.random_range(0..8),
        1 => bytes[n] = random.random_range(32..127),
        2 => bytes.insert(n, random.random_range(32..127)),
        3 => drop(bytes.remove(n)),
        4 => bytes.truncate(n),
        5 => bytes.push(*b" ,.=0a{\n".get(random.random_range(0..8)).unwrap()),
        6 => *bytes = other.to_vec(),
        7 => bytes.make_ascii_uppercase(),
        8 => {
            let m = at(random, bytes.len());
            bytes.swap(n, m);
        }
        9 => {
            let copy = bytes[n..].to_vec();
            bytes.extend(copy);
        }
        10 => bytes[n] = bytes[n].wrapping_add(1),
        _ => {
            let more = bytes.clone();
            bytes.push(*b", ;".get(random.random_range(0..3)).unwrap());
            bytes.extend(more);
        }
    }
}

#[test]
fn no_forgery_is_accepted() {
    let seed = number("HOOKPOOL_SEED").unwrap_or_else(|| rand::random_range(0..1 << 32));
    let wanted = number("HOOKPOOL_FORGERIES").unwrap_or(20_000);
    eprintln!("forgeries: repeat with HOOKPOOL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let senders: Vec<Sender> = schemes().into_iter().map(Sender::new).collect();
    let (mut forged, mut same) = (0_u64, 0_u64);
    while forged < wanted {
        let sender = &senders[random.random_range(0..senders.len())];
        let body = format!(
            r#"{{"id":"evt_{}","n":{}}}"#,
            random.random::<u16>(),
            random.random::<u64>()
        );
        let body = body.into_bytes();
        let at = NOW - random.random_range(0..50);
        let good = sender.signed(at, &body);
        let other_body = format!(r#"{{"id":{}}}"#, random.random::<u32>()).into_bytes();
        let other = sender.signed(at - 1, &other_body);
        let (mut headers, mut changed) = (good.clone(), body.clone());
        for _ in 0..random.random_range(1..4) {
            // The ids that only trusted senders have are not signed; a change there is another delivery of the same content.
            let n = random.random_range(0..=headers.len());
            match headers.get_mut(n) {
                None => mutate(&mut random, &mut changed, &other_body),
                Some((name, _))
                    if name.starts_with("X-GitHub-D") || name.starts_with("X-Shopify-E") => {}
                Some((_, value)) if random.random_range(0..20) > 0 => {
                    mutate(&mut random, value, &other[n.min(other.len() - 1)].1);
                }
                Some(_) if random.random() => drop(headers.remove(n)),
                Some(header) => {
                    let again = header.clone();
                    headers.push(again);
                }
            }
        }
        let scheme = &sender.scheme;
        let outcome = sender.deliver(&headers, &changed);
        let meaning = Meaning::of(scheme, &headers, &changed);
        let meant = [(&good, &body), (&other, &other_body)];
        if meant
            .iter()
            .any(|(headers, body)| meaning.holds(&Meaning::of(scheme, headers, body)))
        {
            same += 1;
            // What is left may still be more entries than a header may have, or a broken one beside a good one.
            continue;
        }
        forged += 1;
        assert!(
            outcome.is_err(),
            "{scheme}: {headers:?} {changed:?} after {good:?} {body:?}"
        );
    }
    eprintln!("forgeries: {forged} refused, {same} changes that mean the same left out");
    assert!(same < forged, "most changes must be forgeries");
}
