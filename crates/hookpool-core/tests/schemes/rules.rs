//! What each scheme takes and what it refuses.

use hookpool_core::{
    bulk::{Form, Terms, bulk},
    event::{Idempotency, RequestId},
    idempotency::IdempotencyKey,
    json,
    registry::RegistryError,
    scheme::{CustomError, DeliveryAt, Scheme, SchemeError, SecretError},
    time::Timestamp,
    verify::VerifyError,
};
use serde_json::{Value, json as value};

use crate::sender::{NOW, Sender, Sent, custom, schemes};

const BODY: &[u8] = br#"{"id":"evt_1","n":1}"#;

/// A vector that a sender's documentation shows.
#[track_caller]
fn vector(scheme: Scheme, key: &str, now: u64, headers: &[(&str, &str)], body: &str) {
    let sender = Sender::with_key(scheme, key).unwrap();
    let headers: Vec<(&str, &str)> = headers.to_vec();
    sender.deliver_at(now, &headers, body.as_bytes()).unwrap();
    let other = format!("{body} ");
    let refused = sender.deliver_at(now, &headers, other.as_bytes());
    assert_eq!(refused.err(), Some(VerifyError::SignatureInvalid));
}

#[test]
fn published_vectors_are_accepted() {
    vector(
        Scheme::Github,
        "It's a Secret to Everybody",
        NOW,
        &[(
            "X-Hub-Signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        )],
        "Hello, World!",
    );
    vector(
        Scheme::Slack,
        "8f742231b10e8888abcd99yyyzzz85a5",
        1_531_420_618,
        &[
            ("X-Slack-Request-Timestamp", "1531420618"),
            (
                "X-Slack-Signature",
                "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            ),
        ],
        "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
    );
    vector(
        Scheme::StandardWebhooks,
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        1_614_265_330,
        &[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            (
                "webhook-signature",
                "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg== v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ],
        r#"{"test": 2432232314}"#,
    );
    vector(
        Scheme::Hookpool,
        "whsk_your_signing_key_here",
        NOW,
        &[
            ("x-webhook-timestamp", "1700000000"),
            (
                "x-webhook-signature",
                "sha256=65bf7c973453b208f75bc0c018c6d7afad6ac71ec5f7b3fd40c16bbfe5a4a02e",
            ),
        ],
        r#"{"region":"North","sales":142000}"#,
    );
    // printf '%s.%s' 1700000000 '{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_0123456789abcdef
    vector(
        Scheme::Stripe,
        "whsec_0123456789abcdef",
        NOW,
        &[(
            "Stripe-Signature",
            "t=1700000000,v1=dea1657bd5053cb0f8a75ebf0bd3d22e0cdeb79563b44db6b88864e522fb8bc4,v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39",
        )],
        r#"{"id":"evt_1"}"#,
    );
    // printf '%s' '{"id":1}' | openssl dgst -sha256 -hmac shopify-secret-0123 -binary | openssl base64
    vector(
        Scheme::Shopify,
        "shopify-secret-0123",
        NOW,
        &[(
            "X-Shopify-Hmac-Sha256",
            "LPuW/XxuPq5JnydZN083PmhOxBEQhCWd7bytwWaZF00=",
        )],
        r#"{"id":1}"#,
    );
}

/// How far its timestamps may be off; `None` if it has none.
fn tolerance(scheme: &Scheme) -> Option<u64> {
    match scheme {
        Scheme::Github | Scheme::Shopify => None,
        Scheme::Custom(_) => Some(60),
        _ => Some(300),
    }
}

#[test]
fn a_timestamp_counts_up_to_its_tolerance_and_not_a_second_more() {
    for scheme in schemes() {
        let sender = Sender::new(scheme);
        let Some(tolerance) = tolerance(&sender.scheme) else {
            let headers = sender.signed(0, BODY);
            assert!(
                sender
                    .deliver_at(u64::from(u32::MAX), &headers, BODY)
                    .is_ok()
            );
            continue;
        };
        for at in [NOW - tolerance, NOW, NOW + tolerance] {
            let headers = sender.signed(at, BODY);
            assert!(sender.deliver(&headers, BODY).is_ok(), "{}", sender.scheme);
        }
        for at in [NOW - tolerance - 1, NOW + tolerance + 1, 0] {
            let headers = sender.signed(at, BODY);
            assert_eq!(
                sender.deliver(&headers, BODY).err(),
                Some(VerifyError::TimestampOutOfRange),
                "{}",
                sender.scheme
            );
        }
    }
}

#[test]
fn every_header_of_a_scheme_must_come_exactly_once() {
    for scheme in schemes() {
        let sender = Sender::new(scheme);
        let good = sender.signed(NOW, BODY);
        // GitHub and Shopify may leave out what they name deliveries by.
        let optional = ["X-GitHub-Delivery", "X-Shopify-Event-Id"];
        for n in 0..good.len() {
            let mut twice = good.clone();
            twice.push(good[n].clone());
            let refused = Some(VerifyError::SignatureInvalid);
            let name = &good[n].0;
            assert_eq!(sender.deliver(&twice, BODY).err(), refused, "{name} twice");
            let mut without = good.clone();
            without.remove(n);
            let refused = refused.filter(|_| !optional.contains(&name.as_str()));
            assert_eq!(sender.deliver(&without, BODY).err(), refused, "no {name}");
        }
    }
}

#[test]
fn rotated_keys_overlap_and_then_end() {
    for scheme in schemes() {
        let mut sender = Sender::new(scheme);
        let new = sender.scheme.generate_key(&[8; 64]).unwrap();
        sender.rotate(new.expose(), NOW + 10);
        let both = |at: u64| {
            let old = sender.signed(NOW, BODY);
            let new = sender.signed_with(new.expose(), NOW, BODY);
            (
                sender.deliver_at(at, &old, BODY).is_ok(),
                sender.deliver_at(at, &new, BODY).is_ok(),
            )
        };
        assert_eq!(both(NOW + 9), (true, true), "{}", sender.scheme);
        assert_eq!(both(NOW + 10), (false, true), "{}", sender.scheme);
    }
}

/// What a delivery is known by when it comes again.
fn delivery(sender: &Sender, headers: &Sent, body: &[u8]) -> Option<[u8; 16]> {
    let verified = sender.deliver(headers, body).unwrap();
    let object = json::object(body).unwrap();
    verified.delivery(&object.fields).map(|key| key.0)
}

#[test]
fn a_delivery_is_known_by_its_senders_id_whatever_else_changes() {
    let retried = br#"{"id":"evt_1","event_id":"Ev1","pending_webhooks":2}"#;
    let first = br#"{"id":"evt_1","event_id":"Ev1","pending_webhooks":1}"#;
    let other = br#"{"id":"evt_2","event_id":"Ev2","pending_webhooks":1}"#;
    for scheme in schemes() {
        let sender = Sender::new(scheme);
        let key = |at: u64, body: &[u8]| delivery(&sender, &sender.signed(at, body), body);
        let known = key(NOW, first);
        assert_eq!(known, key(NOW - 9, retried), "{}", sender.scheme);
        match sender.scheme.description().delivery {
            None => assert_eq!(known, None),
            Some(DeliveryAt::Body(_)) => {
                assert!(known.is_some());
                assert_ne!(known, key(NOW, other), "{}", sender.scheme);
                for nameless in [
                    &br#"{"id":true,"event_id":""}"#[..],
                    br#"{"id":null,"event_id":{}}"#,
                    br#"{"id":[],"event_id":false}"#,
                    b"{}",
                ] {
                    assert_eq!(key(NOW, nameless), None, "{}", sender.scheme);
                }
                let number = br#"{"id":7,"event_id":7}"#;
                assert!(key(NOW, number).is_some(), "{}", sender.scheme);
            }
            Some(DeliveryAt::SignedHeader(_) | DeliveryAt::TrustedHeader { .. }) => {
                assert!(known.is_some());
                assert_eq!(known, key(NOW, other), "{}", sender.scheme);
            }
        }
    }
    let shopify = Sender::new(Scheme::Shopify);
    let mut headers = shopify.signed(NOW, first);
    let untold = delivery(&shopify, &headers, first);
    headers.push(("X-Shopify-Topic".to_owned(), b"orders/paid".to_vec()));
    let paid = delivery(&shopify, &headers, first);
    assert_ne!(untold, paid, "one event, told under two topics");
    let github = Sender::new(Scheme::Github);
    let mut headers = github.signed(NOW, first);
    headers.retain(|(name, _)| name != "X-GitHub-Delivery");
    assert_eq!(delivery(&github, &headers, first), None);
}

/// What a request of many events is known by when it comes again.
fn of_many(sender: &Sender, at: u64, key: Option<&str>) -> Option<Idempotency> {
    let body = b"{\"id\":\"evt_1\",\"event_id\":\"Ev1\"}\n{\"id\":2}";
    let verified = sender.deliver(&sender.signed(at, body), body).unwrap();
    let now = Timestamp::from_seconds(NOW);
    let terms = Terms {
        now,
        request_id: RequestId::new(now, &[0; 10]),
        random: [0; 10],
        body_bytes_max: 1 << 20,
    };
    let key = key.map(|key| IdempotencyKey::parse(key.as_bytes()).unwrap());
    let request = bulk(
        &verified,
        &Form::Lines { id_field: None },
        key.as_ref(),
        terms,
    )
    .unwrap();
    assert_eq!(request.rest.len(), 1);
    assert!(request.rest.iter().all(|event| event.idempotency.is_none()));
    request.first.idempotency
}

#[test]
fn a_request_of_many_events_is_known_by_its_senders_header_and_else_by_what_was_signed() {
    for scheme in schemes() {
        let sender = Sender::new(scheme);
        let scheme = &sender.scheme;
        let (own, anew) = (of_many(&sender, NOW, None), of_many(&sender, NOW - 9, None));
        let is_named = matches!(
            scheme.description().delivery,
            Some(DeliveryAt::SignedHeader(_) | DeliveryAt::TrustedHeader { .. })
        );
        let own = own.unwrap();
        // It is signed anew, and has the same name.
        assert_eq!(Some(own) == anew, is_named, "{scheme}");
        assert_eq!((own.request, own.events), (None, 2), "{scheme}");
        // A key of the request comes before both, and knows what was asked.
        let keyed = of_many(&sender, NOW, Some("k")).unwrap();
        assert_eq!(
            Some(keyed),
            of_many(&sender, NOW - 9, Some("k")),
            "{scheme}"
        );
        assert!(keyed.key != own.key && keyed.request.is_some(), "{scheme}");
        assert_eq!(keyed.events, 2);
    }
}

/// The headers with another value for the one that holds signatures.
fn with_signatures(headers: &Sent, change: impl Fn(&str) -> String) -> Sent {
    let mut headers = headers.clone();
    let (_, value) = headers.last_mut().unwrap();
    *value = change(str::from_utf8(value).unwrap()).into_bytes();
    headers
}

#[test]
fn of_a_list_one_good_signature_is_enough_and_sixteen_are_the_most() {
    let stripe = Sender::new(Scheme::Stripe);
    let good = stripe.signed(NOW, BODY);
    let wrong = format!("v1={}", "0".repeat(64));
    let takes = |change: &dyn Fn(&str) -> String| {
        stripe
            .deliver(&with_signatures(&good, change), BODY)
            .is_ok()
    };
    assert!(takes(&|it| format!("{it},{wrong}")));
    assert!(takes(&|it| it.replace(",v1=", &format!(",{wrong},v1="))));
    assert!(takes(&|it| format!("v2=x,{it},v0=y,scheme")));
    assert!(takes(&|it| format!(
        "{it}{}",
        format!(",{wrong}").repeat(15)
    )));
    assert!(!takes(&|it| format!(
        "{it}{}",
        format!(",{wrong}").repeat(16)
    )));
    assert!(!takes(&|it| format!("{it},t=1700000000")), "two timestamps");
    assert!(!takes(&|it| it.replace("v1=", "v0=")));
    assert!(!takes(&|it| format!("{it},v1=short")));
    assert!(!takes(&|it| it.replace("t=", "T=")));

    let standard = Sender::new(Scheme::StandardWebhooks);
    let good = standard.signed(NOW, BODY);
    let takes = |change: &dyn Fn(&str) -> String| {
        standard
            .deliver(&with_signatures(&good, change), BODY)
            .is_ok()
    };
    assert!(takes(&|it| format!("v1a,xyz {it} v2,abc")));
    assert!(!takes(&|it| it.replace("v1,", "v1a,")));
    assert!(!takes(&|it| it.replace(' ', ",").replace("v1,", "v1 ")));
}

#[test]
fn an_id_can_not_move_the_dots_of_what_is_signed() {
    let sender = Sender::new(Scheme::StandardWebhooks);
    // Signed was `a` . `1` . `1700000000.{}`; it reads the same with the id `a.1`.
    let key = sender.scheme.generate_key(&[7; 64]).unwrap();
    let key = sender.scheme.key(key.expose()).unwrap();
    let headers = sender.scheme.sign(&key, 1, "a", b"1700000000.{}");
    let signature = headers.last().unwrap().1.clone();
    let moved = vec![
        ("webhook-id", "a.1"),
        ("webhook-timestamp", "1700000000"),
        ("webhook-signature", signature.as_str()),
    ];
    let outcome = sender.deliver(&moved, b"{}");
    assert_eq!(outcome.err(), Some(VerifyError::SignatureInvalid));
}

/// The same where the id stands behind the body, and is ended by what is before it.
#[test]
fn an_id_can_not_take_a_part_of_the_body() {
    let written = value!({"header": "X-Sig", "template": "{body}:/{id}", "deliveryHeader": "X-Id"});
    let sender = Sender::new(Scheme::try_from(written).unwrap());
    // Signed was `{}:/` `:/a`, which is `{}` `:/` `:/a`, and nothing else: no id holds the `/` before it.
    let key = sender.scheme.generate_key(&[7; 64]).unwrap();
    let key = sender.scheme.key(key.expose()).unwrap();
    let deliver = |id: &str, body: &[u8], signed: (&str, &[u8])| {
        let headers = sender.scheme.sign(&key, 0, signed.0, signed.1);
        let signature = headers.last().unwrap().1.clone();
        let headers = [("X-Id", id), ("X-Sig", &signature)];
        sender.deliver(&headers, body).err()
    };
    let refused = Some(VerifyError::SignatureInvalid);
    assert_eq!(deliver("a", b"{}:/b", ("a", b"{}:/b")), None);
    assert_eq!(deliver("b:/a", b"{}", ("a", b"{}:/b")), refused);
    assert_eq!(deliver("b:/a", b"{}", ("b:/a", b"{}")), refused);
}

#[test]
fn a_custom_scheme_signs_the_id_that_its_template_holds_and_trusts_any_other() {
    let scheme = |template: &str| {
        let written = value!({"header": "X-Sig", "template": template, "deliveryHeader": "X-Id"});
        Sender::new(Scheme::try_from(written).unwrap())
    };
    let renamed = |sender: &Sender, id: Option<&str>| {
        let mut headers = sender.signed(NOW, BODY);
        headers.retain(|(name, _)| name != "X-Id");
        headers.extend(id.map(|id| ("X-Id".to_owned(), id.as_bytes().to_vec())));
        let verified = sender.deliver(&headers, BODY);
        verified.map(|it| {
            it.delivery(&json::object(BODY).unwrap().fields)
                .map(|it| it.0)
        })
    };
    let refused = Err(VerifyError::SignatureInvalid);
    let signed = scheme("{id}.{body}");
    let trusted = scheme("{body}");
    assert!(renamed(&signed, Some("msg_1")).unwrap().is_some());
    assert_eq!(renamed(&signed, Some("msg_2")), refused);
    assert_eq!(renamed(&signed, None), refused);
    let [one, other] = ["msg_1", "msg_2"].map(|id| renamed(&trusted, Some(id)).unwrap());
    assert!(one.is_some() && other.is_some() && one != other);
    assert_eq!(renamed(&trusted, None), Ok(None));
    for bad in ["", "a b", "é", &*"x".repeat(256)] {
        assert_eq!(renamed(&trusted, Some(bad)), refused, "{bad}");
    }
}

#[test]
fn signatures_have_one_spelling() {
    for scheme in schemes() {
        let sender = Sender::new(scheme);
        let good = sender.signed(NOW, BODY);
        for (change, why) in [
            (
                &(|it: &str| format!("{it} ")) as &dyn Fn(&str) -> String,
                "a blank behind",
            ),
            (&|it| format!(" {it}"), "a blank before"),
            (&|it| it.replace('=', ":"), "other signs"),
            (
                &|it| it.get(1..).unwrap().to_owned(),
                "the start is missing",
            ),
            (
                &|it| it.get(..it.len() - 1).unwrap().to_owned(),
                "the end is missing",
            ),
            (&|it| format!("{it}0"), "one digit more"),
            (&|_| String::new(), "nothing"),
        ] {
            let headers = with_signatures(&good, change);
            let is_list = matches!(sender.scheme, Scheme::StandardWebhooks);
            if is_list && why.contains("blank") {
                continue;
            }
            assert!(
                sender.deliver(&headers, BODY).is_err(),
                "{}: {why}",
                sender.scheme
            );
        }
    }
}

#[test]
fn keys_that_are_no_secret_are_refused_and_not_told() {
    let refused = |scheme: Scheme, key: &str| match Sender::with_key(scheme, key) {
        Err(RegistryError::Secret(error)) => {
            let told = error.to_string();
            assert!(key.trim().len() < 4 || !told.contains(key.trim()), "{told}");
            Some(error)
        }
        Err(other) => panic!("{other}"),
        Ok(_) => None,
    };
    for scheme in schemes() {
        for short in [
            "",
            " ",
            "\t\n",
            "                        ",
            "short",
            "fifteen-letters",
            "  fifteen-letters  ",
        ] {
            assert_eq!(
                refused(scheme.clone(), short),
                Some(SecretError::TooShort),
                "{short:?}"
            );
        }
        let long = "x".repeat(513);
        assert_eq!(refused(scheme.clone(), &long), Some(SecretError::TooLong));
        let key = scheme.generate_key(&[1; 64]).unwrap();
        let key = key.expose();
        assert_eq!(refused(scheme.clone(), key), None);
        for bad in [
            format!("{key}\n"),
            format!(" {key}"),
            format!("{key}\u{a0}"),
            key.replacen('B', "\0", 1),
        ] {
            if bad != key {
                assert_eq!(
                    refused(scheme.clone(), &bad),
                    Some(SecretError::Space),
                    "{scheme} {bad:?}"
                );
            }
        }
    }
    for bad in [
        "whsec_not-base64-at-all!",
        "whsec_MTIzNDU2Nzg5MDEyMzQ1",
        "whsec_whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    ] {
        assert_eq!(
            refused(Scheme::StandardWebhooks, bad),
            Some(SecretError::NotBase64),
            "{bad}"
        );
    }
    assert_eq!(
        refused(Scheme::StandardWebhooks, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        None
    );
    assert_eq!(refused(Scheme::Github, "It's a Secret to Everybody"), None);
}

#[test]
fn a_custom_scheme_is_one_that_nobody_can_misread() {
    let base = value!({"header": "X-Sig", "template": "{body}"});
    let with = |members: Value| {
        let mut written = base.clone();
        let members = members.as_object().unwrap().clone();
        written.as_object_mut().unwrap().extend(members);
        Scheme::try_from(written)
    };
    for good in [
        value!({}),
        value!({"prefix": "sha256=", "encoding": "base64"}),
        value!({"template": "v1:{timestamp}:{body}", "timestampHeader": "X-Time", "tolerance": 1}),
        value!({"template": "{body}.{timestamp}", "timestampHeader": "X-Time", "tolerance": 300}),
        value!({"template": "1{timestamp}.{body}2", "timestampHeader": "X-Time"}),
        value!({"template": "{timestamp}.1{body}", "timestampHeader": "X-Time"}),
        value!({"deliveryHeader": "X-Id"}),
        value!({"deliveryField": "event_id"}),
        value!({"deliveryField": "/event/id"}),
        value!({"template": "{id}.{body}", "deliveryHeader": "X-Id"}),
        value!({"template": "{body}.{id}", "deliveryHeader": "X-Id"}),
        value!({"template": "{timestamp}.{id}.{body}", "timestampHeader": "X-Time", "deliveryHeader": "X-Id"}),
    ] {
        assert!(with(good.clone()).is_ok(), "{good}");
    }
    use CustomError::{Ambiguous, Delivery, Header, Prefix, Template, Timestamp, Tolerance};
    let named = |template: &str| value!({"template": template, "deliveryHeader": "X-Id"});
    let stamped = |template: &str| value!({"template": template, "timestampHeader": "X-Time"});
    for (bad, error) in [
        (value!({"header": ""}), Header),
        (value!({"header": "X Sig"}), Header),
        (value!({"header": "X-Sig:"}), Header),
        (value!({"header": "Authorization"}), Header),
        (value!({"header": "x".repeat(65)}), Header),
        (
            value!({"template": "{timestamp}.{body}", "timestampHeader": "x-sig"}),
            Header,
        ),
        (value!({"prefix": "a b"}), Prefix),
        (value!({"prefix": "x".repeat(33)}), Prefix),
        (value!({"template": ""}), Template),
        (value!({"template": "body"}), Template),
        (value!({"template": "{body}{body}"}), Template),
        (value!({"template": "{id}.{body}"}), Delivery),
        (
            value!({"template": "{id}.{body}", "deliveryField": "id"}),
            Delivery,
        ),
        (
            value!({"deliveryHeader": "X-Id", "deliveryField": "id"}),
            Delivery,
        ),
        (value!({"deliveryField": ""}), Delivery),
        (value!({"deliveryField": "/a~2"}), Delivery),
        (value!({"deliveryHeader": "x-sig"}), Header),
        (value!({"deliveryHeader": "Idempotency-Key"}), Header),
        (value!({"deliveryHeader": ""}), Header),
        (
            value!({"template": "{timestamp}.{body}", "timestampHeader": "X-Time", "deliveryHeader": "x-TIME"}),
            Header,
        ),
        (named("{id}.{id}.{body}"), Template),
        (named("{id}{body}"), Ambiguous),
        (named("{body}{id}"), Ambiguous),
        (named("{id}a{body}"), Ambiguous),
        (named("{id}-{body}"), Ambiguous),
        (named("{body}._{id}"), Ambiguous),
        (
            value!({"template": "{timestamp}{id}.{body}", "timestampHeader": "X-Time", "deliveryHeader": "X-Id"}),
            Ambiguous,
        ),
        (
            value!({"template": "{id}{timestamp}.{body}", "timestampHeader": "X-Time", "deliveryHeader": "X-Id"}),
            Ambiguous,
        ),
        (value!({"template": "{{body}}"}), Template),
        (value!({"template": "{body"}), Template),
        (value!({"template": "{body}}"}), Template),
        (value!({"template": "a b{body}"}), Template),
        (stamped("{timestamp}.{timestamp}.{body}"), Template),
        (value!({"template": "{timestamp}.{body}"}), Timestamp),
        (value!({"timestampHeader": "X-Time"}), Timestamp),
        (stamped("{timestamp}{body}"), Ambiguous),
        (stamped("{body}{timestamp}"), Ambiguous),
        (stamped("{timestamp}1{body}"), Ambiguous),
        (stamped("{body}.0{timestamp}"), Ambiguous),
        (value!({"tolerance": 60}), Tolerance),
        (
            value!({"template": "{timestamp}.{body}", "timestampHeader": "X-Time", "tolerance": 0}),
            Tolerance,
        ),
        (
            value!({"template": "{timestamp}.{body}", "timestampHeader": "X-Time", "tolerance": 301}),
            Tolerance,
        ),
    ] {
        assert_eq!(with(bad.clone()), Err(SchemeError::Custom(error)), "{bad}");
    }
    for bad in [
        value!({"encoding": "base32"}),
        value!({"secret": "x"}),
        value!({"tolerance": -1}),
        value!({"header": 1}),
    ] {
        assert_eq!(with(bad.clone()), Err(SchemeError::Members), "{bad}");
    }
    for bad in [
        value!("githib"),
        value!("custom"),
        value!("GitHub"),
        value!(1),
        value!(null),
        value!([]),
    ] {
        assert_eq!(
            Scheme::try_from(bad.clone()),
            Err(SchemeError::Unknown),
            "{bad}"
        );
    }
    let written = serde_json::to_value(custom()).unwrap();
    assert_eq!(Scheme::try_from(written), Ok(custom()));
}

#[test]
fn slack_gets_its_challenge_back_and_nobody_else_is_asked() {
    let asked = |scheme: Scheme, body: &str| {
        let sender = Sender::new(scheme);
        let headers = sender.signed(NOW, body.as_bytes());
        sender
            .deliver(&headers, body.as_bytes())
            .unwrap()
            .challenge()
    };
    let question = r#"{"token":"t","challenge":"3eZbrw","type":"url_verification"}"#;
    assert_eq!(asked(Scheme::Slack, question).as_deref(), Some("3eZbrw"));
    for scheme in schemes().into_iter().filter(|it| *it != Scheme::Slack) {
        assert_eq!(asked(scheme, question), None);
    }
    for event in [
        r#"{"type":"event_callback","event_id":"Ev1","challenge":"url_verification"}"#,
        r#"{"type":"url_verification"}"#,
        r#"{"type":"url_verification","challenge":1}"#,
        "url_verification",
    ] {
        assert_eq!(asked(Scheme::Slack, event), None, "{event}");
    }
}
