//! How senders sign, written down once more from their documentation, without the project's own packages.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::hex;
use super::http::Request;

/// Header names and values.
pub(crate) type Headers = Vec<(&'static str, String)>;

/// The schemes that have a name, and some of an operator's: without a delivery id, and with one in each place where it can be.
pub(crate) const SCHEMES: [&str; 10] = [
    "hookpool",
    "standard-webhooks",
    "github",
    "stripe",
    "slack",
    "shopify",
    "custom",
    "custom-signed",
    "custom-trusted",
    "custom-field",
];

/// A scheme as the API takes it.
pub(crate) fn written(scheme: &str) -> Value {
    match scheme {
        "custom" => json!({
            "header": "X-Acme-Signature",
            "prefix": "v9:",
            "encoding": "base64",
            "template": "acme/{body}/{timestamp}",
            "timestampHeader": "X-Acme-Time",
            "tolerance": 120,
        }),
        "custom-signed" => json!({
            "header": "X-Acme-Signature",
            "prefix": "",
            "encoding": "hex",
            "template": "{id}.{timestamp}.{body}",
            "timestampHeader": "X-Acme-Time",
            "deliveryHeader": "X-Acme-Delivery",
        }),
        "custom-trusted" => json!({
            "header": "X-Acme-Signature",
            "prefix": "sha256=",
            "encoding": "hex",
            "template": "{body}",
            "deliveryHeader": "X-Acme-Id",
        }),
        "custom-field" => json!({
            "header": "X-Acme-Signature",
            "prefix": "sha256=",
            "encoding": "hex",
            "template": "{body}",
            "deliveryField": "/meta/delivery",
        }),
        name => name.into(),
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// The headers of a delivery as of a time.
pub(crate) fn headers(scheme: &str, key: &str, id: &str, at: u64, body: &[u8]) -> Headers {
    let time = at.to_string();
    let (at, text) = (time.as_bytes(), key.as_bytes());
    match scheme {
        "hookpool" => {
            let mac = hex(&mac(text, &[at, b".", body]));
            vec![
                ("X-Webhook-Timestamp", time),
                ("X-Webhook-Signature", format!("sha256={mac}")),
            ]
        }
        "standard-webhooks" => {
            let key = BASE64_STANDARD
                .decode(key.strip_prefix("whsec_").unwrap())
                .unwrap();
            let mac = mac(&key, &[id.as_bytes(), b".", at, b".", body]);
            vec![
                ("webhook-id", id.to_owned()),
                ("webhook-timestamp", time),
                (
                    "webhook-signature",
                    format!("v1,{}", BASE64_STANDARD.encode(mac)),
                ),
            ]
        }
        "github" => {
            let mac = hex(&mac(text, &[body]));
            vec![
                ("X-GitHub-Event", "push".to_owned()),
                ("X-GitHub-Delivery", id.to_owned()),
                ("X-Hub-Signature-256", format!("sha256={mac}")),
            ]
        }
        "stripe" => {
            let mac = hex(&mac(text, &[at, b".", body]));
            let old = "6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39";
            vec![("Stripe-Signature", format!("t={time},v1={mac},v0={old}"))]
        }
        "slack" => {
            let mac = hex(&mac(text, &[b"v0:", at, b":", body]));
            vec![
                ("X-Slack-Request-Timestamp", time),
                ("X-Slack-Signature", format!("v0={mac}")),
            ]
        }
        "shopify" => {
            let mac = BASE64_STANDARD.encode(mac(text, &[body]));
            vec![
                ("X-Shopify-Topic", "orders/create".to_owned()),
                ("X-Shopify-Event-Id", id.to_owned()),
                ("X-Shopify-Hmac-Sha256", mac),
            ]
        }
        "custom" => {
            let mac = mac(text, &[b"acme/", body, b"/", at]);
            vec![
                ("X-Acme-Time", time),
                (
                    "X-Acme-Signature",
                    format!("v9:{}", BASE64_STANDARD.encode(mac)),
                ),
            ]
        }
        "custom-signed" => {
            let mac = mac(text, &[id.as_bytes(), b".", at, b".", body]);
            vec![
                ("X-Acme-Delivery", id.to_owned()),
                ("X-Acme-Time", time),
                ("X-Acme-Signature", hex(&mac)),
            ]
        }
        "custom-trusted" => vec![
            ("X-Acme-Id", id.to_owned()),
            (
                "X-Acme-Signature",
                format!("sha256={}", hex(&mac(text, &[body]))),
            ),
        ],
        "custom-field" => {
            let mac = hex(&mac(text, &[body]));
            vec![("X-Acme-Signature", format!("sha256={mac}"))]
        }
        other => panic!("no scheme {other}"),
    }
}

/// A request with these headers.
pub(crate) fn with(request: Request, headers: &Headers) -> Request {
    headers.iter().fold(request, |request, (name, value)| {
        request.header(name, value)
    })
}
