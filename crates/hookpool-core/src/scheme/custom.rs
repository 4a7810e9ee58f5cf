//! A scheme that an operator describes. It is refused where two different deliveries could share one signed text.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{DeliveryAt, Description, Encoding, KeyForm, Part, TimestampAt, beside};
use crate::{sign::WINDOW_SECONDS, source::Source};

/// A custom scheme, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomScheme {
    written: Written,
    description: Description,
}

/// The same as it is written: `{"header":"X-Signature","prefix":"sha256=","template":"{timestamp}.{body}",...}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Written {
    header: String,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    encoding: Encoding,
    template: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_header: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tolerance: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delivery_header: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delivery_field: Option<String>,
}

/// Why a description is not one of a scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CustomError {
    /// A header that can't be one, or that has another task.
    #[error(
        "header, timestampHeader and deliveryHeader are different names of HTTP headers that have no other meaning, at most 64 characters long"
    )]
    Header,
    /// A prefix that no header can hold.
    #[error("prefix is at most 32 visible characters")]
    Prefix,
    /// A template without one body, or with something that is no part.
    #[error(
        "template is a text of at most 128 visible characters with {{body}} exactly once, {{timestamp}} and {{id}} at most once and no other braces"
    )]
    Template,
    /// A template that two deliveries could fill with one text.
    #[error(
        "template is ambiguous: put a text between {{timestamp}} and {{body}} that has no digit beside {{timestamp}}, as in {{timestamp}}.{{body}}; beside {{id}} it has no letter, digit, - or _"
    )]
    Ambiguous,
    /// A timestamp that is not signed, or signed but not sent.
    #[error("timestampHeader and {{timestamp}} in the template go together")]
    Timestamp,
    /// A tolerance out of bounds, or of no timestamp.
    #[error("tolerance is 1 to 300 seconds, and needs timestampHeader")]
    Tolerance,
    /// An id of the delivery in two places or none, or signed but not sent.
    #[error(
        "name the delivery id once: deliveryHeader, which {{id}} in the template needs, or deliveryField, a property of the body or a JSON Pointer like /event/id"
    )]
    Delivery,
}

const HEADER_MAX: usize = 64;
const PREFIX_MAX: usize = 32;
const TEMPLATE_MAX: usize = 128;

/// Headers with a meaning of their own here or to whoever is in between.
const TAKEN: [&str; 13] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "idempotency-key",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
];

impl CustomScheme {
    pub(super) fn description(&self) -> &Description {
        &self.description
    }

    pub(super) fn written(&self) -> &Written {
        &self.written
    }
}

impl TryFrom<Written> for CustomScheme {
    type Error = CustomError;

    fn try_from(written: Written) -> Result<Self, CustomError> {
        let timestamp = written.timestamp_header.clone();
        must_be_headers([
            Some(&written.header),
            timestamp.as_ref(),
            written.delivery_header.as_ref(),
        ])?;
        if written.prefix.len() > PREFIX_MAX || !is_visible(&written.prefix) {
            return Err(CustomError::Prefix);
        }
        let template = parts(&written.template)?;
        if template.contains(&Part::Timestamp) != timestamp.is_some() {
            return Err(CustomError::Timestamp);
        }
        if !is_unambiguous(&template) {
            return Err(CustomError::Ambiguous);
        }
        let bounds = written
            .tolerance
            .is_none_or(|seconds| (1..=WINDOW_SECONDS).contains(&seconds) && timestamp.is_some());
        if !bounds {
            return Err(CustomError::Tolerance);
        }
        let delivery = delivery(&written, template.contains(&Part::Id))?;
        let description = Description {
            signature: Cow::Owned(written.header.clone()),
            separator: None,
            prefix: Cow::Owned(written.prefix.clone()),
            encoding: written.encoding,
            template: Cow::Owned(template),
            timestamp: timestamp.map(|name| TimestampAt::Header(Cow::Owned(name))),
            tolerance: written.tolerance.unwrap_or(WINDOW_SECONDS),
            key: KeyForm::Text("whsk_"),
            delivery,
            challenge: false,
        };
        Ok(Self {
            written,
            description,
        })
    }
}

/// Where the sender names the delivery: what is a part of the template is signed, another header is trusted.
fn delivery(written: &Written, is_signed: bool) -> Result<Option<DeliveryAt>, CustomError> {
    let header = written.delivery_header.clone().map(Cow::Owned);
    let field = written.delivery_field.clone();
    Ok(match (header, field) {
        (Some(name), None) if is_signed => Some(DeliveryAt::SignedHeader(name)),
        (None, Some(_)) | (None, None) if is_signed => return Err(CustomError::Delivery),
        (Some(id), None) => Some(DeliveryAt::TrustedHeader { id, scope: None }),
        (None, Some(place)) => {
            let place = Source::try_from(place).map_err(|_| CustomError::Delivery)?;
            Some(DeliveryAt::Body(place))
        }
        (None, None) => None,
        (Some(_), Some(_)) => return Err(CustomError::Delivery),
    })
}

/// Each is free, and there is none twice.
fn must_be_headers(names: [Option<&String>; 3]) -> Result<(), CustomError> {
    let names: Vec<&String> = names.into_iter().flatten().collect();
    let twice = |(n, name): (usize, &&String)| {
        let mut before = names.iter().take(n);
        before.any(|other| other.eq_ignore_ascii_case(name))
    };
    if names.iter().all(|name| is_header(name)) && !names.iter().enumerate().any(twice) {
        Ok(())
    } else {
        Err(CustomError::Header)
    }
}

/// A token of RFC 9110 that is free.
fn is_header(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=HEADER_MAX).contains(&name.len())
        && name.bytes().all(token)
        && !TAKEN.iter().any(|taken| name.eq_ignore_ascii_case(taken))
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn parts(template: &str) -> Result<Vec<Part>, CustomError> {
    if template.len() > TEMPLATE_MAX || !is_visible(template) {
        return Err(CustomError::Template);
    }
    let mut parts = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let (part, after) = if let Some(after) = rest.strip_prefix("{body}") {
            (Part::Body, after)
        } else if let Some(after) = rest.strip_prefix("{timestamp}") {
            (Part::Timestamp, after)
        } else if let Some(after) = rest.strip_prefix("{id}") {
            (Part::Id, after)
        } else {
            let end = rest.find('{').unwrap_or(rest.len());
            let (text, after) = rest.split_at_checked(end).unwrap_or_default();
            if text.is_empty() || text.contains('}') {
                return Err(CustomError::Template);
            }
            (Part::Text(Cow::Owned(text.to_owned())), after)
        };
        parts.push(part);
        rest = after;
    }
    let count = |wanted: &Part| parts.iter().filter(|part| *part == wanted).count();
    if count(&Part::Body) == 1 && count(&Part::Timestamp) <= 1 && count(&Part::Id) <= 1 {
        Ok(parts)
    } else {
        Err(CustomError::Template)
    }
}

/// Whether a text that was signed can be taken apart in one way only: what is neither body nor fixed must end, or begin, where nothing of it
/// can be. The bytes around an id are such that no id that senders use holds them; [`Description::ends_id`] refuses those that do.
fn is_unambiguous(template: &[Part]) -> bool {
    let is_free = |part: Part, of_part: fn(u8) -> bool| {
        !template.contains(&part) || beside(template, &part).is_some_and(|byte| !of_part(byte))
    };
    is_free(Part::Timestamp, |byte| byte.is_ascii_digit())
        && is_free(Part::Id, |byte| {
            byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
        })
}
