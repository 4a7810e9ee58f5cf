//! Forged deliveries over HTTP: changed bodies, signatures, timestamps and ids of every scheme, none of which becomes an event.
//!
//! `HOOKPOOL_HTTP_FORGERIES` says how many.

use rand::Rng;
use rand::rngs::StdRng;

use super::{Made, of_scheme, to_hook};
use crate::common::server::Data;
use crate::common::signer::{Headers, SCHEMES, headers};
use crate::common::{now_s, number_from_env, seeded};

/// Headers that a scheme only trusts, or that have nothing to do with it.
const UNSIGNED: [&str; 6] = [
    "X-GitHub-Event",
    "X-GitHub-Delivery",
    "X-Shopify-Topic",
    "X-Shopify-Event-Id",
    "X-Acme-Id",
    "",
];

/// Another character where one was, of those that a header can hold and that mean something else.
fn change(random: &mut StdRng, text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    loop {
        let byte = random.random_range(b'!'..=b'~');
        if !byte.eq_ignore_ascii_case(&bytes[at]) {
            bytes[at] = byte;
            return String::from_utf8(bytes).unwrap();
        }
    }
}

fn forge(random: &mut StdRng, scheme: &str, made: &Made, n: u64) -> (Headers, String) {
    let body = format!(
        r#"{{"id":"evt_{n}","event_id":"Ev{n}","n":{}}}"#,
        random.random::<u32>()
    );
    let mut signed = headers(
        scheme,
        made.key(),
        &format!("d{n}"),
        now_s(),
        body.as_bytes(),
    );
    let names: Vec<usize> = (0..signed.len())
        .filter(|at| !UNSIGNED.contains(&signed[*at].0))
        .collect();
    let header = names[random.random_range(0..names.len())];
    match random.random_range(0..6) {
        0 => {
            let at = random.random_range(0..body.len());
            return (signed, change(random, &body, at));
        }
        1 => return (signed, format!("{body} ")),
        2 => drop(signed.remove(header)),
        3 => {
            let again = signed[header].clone();
            signed.push(again);
        }
        4 => {
            let half = signed[header].1.len() / 2;
            signed[header].1.truncate(half);
        }
        _ => {
            // Stripe's v0 is another version's, and no part of what counts.
            let value = &signed[header].1;
            let end = value.find(",v0=").unwrap_or(value.len());
            let at = random.random_range(0..end);
            signed[header].1 = change(random, value, at);
        }
    }
    (signed, body)
}

#[test]
fn no_forgery_becomes_an_event() {
    let mut random = seeded("http forgeries");
    let count = number_from_env("HOOKPOOL_HTTP_FORGERIES").unwrap_or(700);
    let data = Data::new();
    let server = data.serve();
    let made: Vec<Made> = SCHEMES.map(|it| of_scheme(&server, it)).to_vec();
    let mut connection = server.connect();
    for n in 0..count {
        let which = random.random_range(0..SCHEMES.len());
        let (scheme, made) = (SCHEMES[which], &made[which]);
        let (headers, body) = forge(&mut random, scheme, made, n);
        let answer = connection.call(&to_hook(made, &headers, &body)).unwrap();
        assert_eq!(answer.status, 401, "{scheme}: {headers:?} {body}");
        let code = answer.problem();
        assert!(
            code == "SIGNATURE_INVALID" || code == "TIMESTAMP_OUT_OF_RANGE",
            "{code}"
        );
    }
    for scheme in SCHEMES {
        assert!(server.log(scheme).is_empty(), "{scheme}");
    }
    eprintln!("http forgeries: {count} refused");
}
