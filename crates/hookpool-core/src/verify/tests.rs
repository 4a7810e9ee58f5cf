use bytes::Bytes;

use super::*;
use crate::{registry::tests::World, sign::signature, time::Timestamp};

const NOW: u64 = 1_700_000_000;
const NONE: [(&str, &str); 0] = [];
const BODY: &[u8] = br#"{"region":"North"}"#;

fn delivery(
    world: &World,
    stream: &str,
    key: &str,
    signature: &str,
    timestamp: &str,
) -> Result<Verified, VerifyError> {
    let bearer = format!("Bearer {key}");
    let headers = [
        ("X-Webhook-Signature", signature),
        ("X-Webhook-Timestamp", timestamp),
    ];
    let proof = Proof {
        authorization: Header::One(bearer.as_bytes()),
        headers: &headers,
    };
    let now = Timestamp::from_seconds(NOW);
    admit(&world.registry, stream, proof, now)?.verify(Bytes::from_static(BODY), now)
}

fn signed(world: &World, timestamp: u64) -> Result<Verified, VerifyError> {
    let signature = signature(&world.signing_key, timestamp, BODY);
    delivery(
        world,
        "signed",
        &world.signed_key,
        &signature,
        &timestamp.to_string(),
    )
}

#[test]
fn three_hundred_seconds_are_in_and_301_are_out() {
    let world = World::new();
    for good in [NOW - 300, NOW, NOW + 300] {
        assert!(signed(&world, good).is_ok(), "{good}");
    }
    for bad in [NOW - 301, NOW + 301, 0, 999_999_999_999] {
        assert_eq!(
            signed(&world, bad).err(),
            Some(VerifyError::TimestampOutOfRange),
            "{bad}"
        );
    }
}

#[test]
fn a_body_that_arrives_after_the_window_is_refused() {
    let world = World::new();
    let text = signature(&world.signing_key, NOW, BODY);
    let bearer = format!("Bearer {}", world.signed_key);
    let headers = [
        ("X-Webhook-Signature", text.as_str()),
        ("X-Webhook-Timestamp", "1700000000"),
    ];
    let proof = Proof {
        authorization: Header::One(bearer.as_bytes()),
        headers: &headers,
    };
    let admitted = admit(
        &world.registry,
        "signed",
        proof,
        Timestamp::from_seconds(NOW + 300),
    )
    .unwrap();
    let late = admitted.verify(Bytes::from_static(BODY), Timestamp::from_seconds(NOW + 301));
    assert_eq!(late.err(), Some(VerifyError::TimestampOutOfRange));
}

#[test]
fn a_key_that_is_taken_away_while_the_body_arrives_does_not_count() {
    let mut world = World::new();
    let bearer = format!("Bearer {}", world.plain_key);
    let proof = Proof {
        authorization: Header::One(bearer.as_bytes()),
        headers: &NONE,
    };
    let now = Timestamp::from_seconds(NOW);
    let admitted = || admit(&world.registry, "plain", proof, now).unwrap();
    let (first, second, third) = (admitted(), admitted(), admitted());
    assert!(first.renewed(&world.registry, now).is_ok());
    world.rotate_plain(Timestamp::from_seconds(NOW + 10));
    assert!(
        second.renewed(&world.registry, now).is_ok(),
        "the old key works until its overlap ends"
    );
    let late = third.renewed(&world.registry, Timestamp::from_seconds(NOW + 10));
    assert_eq!(late.err(), Some(VerifyError::Unauthorized));
}

#[test]
fn a_signing_key_that_is_revoked_while_the_body_arrives_does_not_count() {
    let mut world = World::new();
    let text = signature(&world.signing_key, NOW, BODY);
    let bearer = format!("Bearer {}", world.signed_key);
    let headers = [
        ("X-Webhook-Signature", text.as_str()),
        ("X-Webhook-Timestamp", "1700000000"),
    ];
    let proof = Proof {
        authorization: Header::One(bearer.as_bytes()),
        headers: &headers,
    };
    let now = Timestamp::from_seconds(NOW);
    world.add_signing_key(8, Timestamp::from_seconds(NOW + 10));
    let admitted = || admit(&world.registry, "signed", proof, now).unwrap();
    let (first, second) = (admitted(), admitted());
    let outcome = |admitted: Admitted, world: &World| {
        let admitted = admitted.renewed(&world.registry, now)?;
        admitted.verify(Bytes::from_static(BODY), now)
    };
    assert!(outcome(first, &world).is_ok());
    world.revoke_signing_key(4).unwrap();
    let refused = outcome(second, &world);
    assert_eq!(refused.err(), Some(VerifyError::SignatureInvalid));
}

#[test]
fn malformed_timestamps_are_refused_before_any_window() {
    let world = World::new();
    for bad in [
        "",
        "1.2",
        "+1700000000",
        " 1700000000",
        "1700000000 ",
        "1e9",
        "0x1",
        "-1",
        "1700000000000",
        "2023-11-14",
        "\u{661}",
    ] {
        let text = signature(&world.signing_key, NOW, BODY);
        let outcome = delivery(&world, "signed", &world.signed_key, &text, bad);
        assert_eq!(outcome.err(), Some(VerifyError::SignatureInvalid), "{bad}");
    }
}

#[test]
fn leading_zeros_count_in_the_mac_as_sent() {
    let world = World::new();
    let text = signature(&world.signing_key, NOW, BODY);
    let outcome = delivery(&world, "signed", &world.signed_key, &text, "01700000000");
    assert_eq!(outcome.err(), Some(VerifyError::SignatureInvalid));
}

#[test]
fn only_the_pages_spelling_of_a_signature_counts() {
    let world = World::new();
    let text = signature(&world.signing_key, NOW, BODY);
    let hex = text.strip_prefix("sha256=").unwrap().to_owned();
    let send =
        |signature: &str| delivery(&world, "signed", &world.signed_key, signature, "1700000000");
    assert!(send(&format!("sha256={}", hex.to_uppercase())).is_ok());
    for bad in [
        hex.clone(),
        format!("SHA256={hex}"),
        format!("sha1={hex}"),
        format!("sha256:{hex}"),
        format!(" {text}"),
        format!("{text} "),
        format!("{text},{text}"),
        format!("sha256={}", hex.get(..62).unwrap()),
        format!("sha256={hex}00"),
        format!("sha256=0x{}", hex.get(2..).unwrap()),
        format!("sha256={}g", hex.get(..63).unwrap()),
        "sha256=".to_owned(),
        String::new(),
        format!("sha256=0x{hex}"),
    ] {
        assert_eq!(
            send(&bad).err(),
            Some(VerifyError::SignatureInvalid),
            "{bad}"
        );
    }
}

#[test]
fn missing_and_repeated_signature_headers_are_refused() {
    let world = World::new();
    let text = signature(&world.signing_key, NOW, BODY);
    let bearer = format!("Bearer {}", world.signed_key);
    let (good_signature, good_timestamp) = (
        ("X-Webhook-Signature", text.as_str()),
        ("X-Webhook-Timestamp", "1700000000"),
    );
    for headers in [
        vec![good_timestamp],
        vec![good_signature],
        vec![],
        vec![good_signature, good_signature, good_timestamp],
        vec![good_signature, good_timestamp, good_timestamp],
    ] {
        let proof = Proof {
            authorization: Header::One(bearer.as_bytes()),
            headers: &headers,
        };
        let outcome = admit(
            &world.registry,
            "signed",
            proof,
            Timestamp::from_seconds(NOW),
        );
        assert_eq!(outcome.err(), Some(VerifyError::SignatureInvalid));
    }
}

#[test]
fn without_a_signing_key_signature_headers_are_ignored() {
    let world = World::new();
    assert!(delivery(&world, "plain", &world.plain_key, "nonsense", "nonsense").is_ok());
}

#[test]
fn unknown_wrong_foreign_and_misused_keys_are_one_error() {
    let world = World::new();
    let wrong = format!("{}x", world.plain_key);
    for (stream, key) in [
        ("plain", "ik_000000000000_nothing"),
        ("plain", wrong.as_str()),
        ("plain", world.signed_key.as_str()),
        ("nowhere", world.plain_key.as_str()),
        ("plain", world.read_key.as_str()),
        ("plain", "whsk_abc"),
    ] {
        let outcome = delivery(&world, stream, key, "", "");
        assert_eq!(
            outcome.err(),
            Some(VerifyError::Unauthorized),
            "{stream} {key}"
        );
    }
}

#[test]
fn equal_signed_deliveries_share_a_dedupe_key_and_others_do_not() {
    let world = World::new();
    let first = signed(&world, NOW).unwrap().dedupe;
    assert!(first.is_some());
    assert_eq!(first, signed(&world, NOW).unwrap().dedupe);
    assert_ne!(first, signed(&world, NOW + 1).unwrap().dedupe);
    assert!(
        delivery(&world, "plain", &world.plain_key, "", "")
            .unwrap()
            .dedupe
            .is_none()
    );
}
