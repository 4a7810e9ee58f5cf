//! How senders sign, as data: which header holds what, what the MAC is over, how the key is written, where the delivery names itself.
//!
//! The one engine that follows a description is [`crate::verify`]; [`Scheme::sign`] is its other side. No code per sender.

mod custom;
mod secret;
mod send;

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use custom::{CustomError, CustomScheme};
pub use secret::SecretError;

use crate::{sign::WINDOW_SECONDS, source::Source};

/// Signatures that are looked at in one header; a sender that rotates has two.
pub const SIGNATURES_MAX: usize = 16;
/// Longest delivery id in bytes.
pub const DELIVERY_ID_BYTES_MAX: usize = 255;

/// How the sender of a connector signs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value", into = "Written")]
pub enum Scheme {
    /// The page's own.
    #[default]
    Hookpool,
    /// [Standard Webhooks](https://www.standardwebhooks.com) 1.0, as of Svix and many others.
    StandardWebhooks,
    /// GitHub's.
    Github,
    /// Stripe's.
    Stripe,
    /// Slack's.
    Slack,
    /// Shopify's.
    Shopify,
    /// One that an operator describes.
    Custom(Arc<CustomScheme>),
}

/// What a scheme is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Header with the signatures.
    pub signature: Cow<'static, str>,
    /// What stands between the entries of that header; `None` where all of it is one signature.
    pub separator: Option<u8>,
    /// What stands before each signature; in a list, entries without it are another version's and skipped.
    pub prefix: Cow<'static, str>,
    /// How a signature is written.
    pub encoding: Encoding,
    /// What the MAC is over.
    pub template: Cow<'static, [Part]>,
    /// Where the timestamp is; `None` if the sender gives none.
    pub timestamp: Option<TimestampAt>,
    /// Seconds that the timestamp may be off, either way; the bound itself is in.
    pub tolerance: u64,
    /// How the key is written.
    pub key: KeyForm,
    /// Where the sender names the delivery, the same on every retry.
    pub delivery: Option<DeliveryAt>,
    /// Whether the sender asks once for the `challenge` of its `url_verification` back.
    pub challenge: bool,
}

/// How a signature is written. Each has one spelling, but for the case of hex digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// 64 hex digits.
    #[default]
    Hex,
    /// 44 characters of base64, padding included.
    Base64,
}

/// A piece of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The delivery id, as sent.
    Id,
    /// The digits of the timestamp, as sent.
    Timestamp,
    /// The raw body.
    Body,
    /// This text.
    Text(Cow<'static, str>),
}

/// Where the timestamp is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimestampAt {
    /// In a header of its own.
    Header(Cow<'static, str>),
    /// In the list of signatures, behind this prefix.
    Entry(&'static str),
}

/// How a key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// The text is the key; one made here begins with the prefix.
    Text(&'static str),
    /// Base64 of the key, with the prefix before it.
    Base64(&'static str),
}

/// Where the sender names the delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryAt {
    /// In a header that the signature covers, as [`Part::Id`].
    SignedHeader(Cow<'static, str>),
    /// In a header that it does not cover: the sender is trusted with it. With `scope`, together with the value of another one.
    TrustedHeader {
        /// The id.
        id: Cow<'static, str>,
        /// Ids are unique within this.
        scope: Option<&'static str>,
    },
    /// In this place of the body, so signed: a text or a number.
    Body(Source),
}

const fn fixed(text: &'static str) -> Cow<'static, str> {
    Cow::Borrowed(text)
}

const fn literal(text: &'static str) -> Part {
    Part::Text(fixed(text))
}

static HOOKPOOL: Description = Description {
    signature: fixed("X-Webhook-Signature"),
    separator: None,
    prefix: fixed("sha256="),
    encoding: Encoding::Hex,
    template: Cow::Borrowed(&[Part::Timestamp, literal("."), Part::Body]),
    timestamp: Some(TimestampAt::Header(fixed("X-Webhook-Timestamp"))),
    tolerance: WINDOW_SECONDS,
    key: KeyForm::Text("whsk_"),
    delivery: None,
    challenge: false,
};

static STANDARD_WEBHOOKS: Description = Description {
    signature: fixed("webhook-signature"),
    separator: Some(b' '),
    prefix: fixed("v1,"),
    encoding: Encoding::Base64,
    template: Cow::Borrowed(&[
        Part::Id,
        literal("."),
        Part::Timestamp,
        literal("."),
        Part::Body,
    ]),
    timestamp: Some(TimestampAt::Header(fixed("webhook-timestamp"))),
    tolerance: WINDOW_SECONDS,
    key: KeyForm::Base64("whsec_"),
    delivery: Some(DeliveryAt::SignedHeader(fixed("webhook-id"))),
    challenge: false,
};

static GITHUB: Description = Description {
    signature: fixed("X-Hub-Signature-256"),
    separator: None,
    prefix: fixed("sha256="),
    encoding: Encoding::Hex,
    template: Cow::Borrowed(&[Part::Body]),
    timestamp: None,
    tolerance: WINDOW_SECONDS,
    key: KeyForm::Text(""),
    delivery: Some(DeliveryAt::TrustedHeader {
        id: fixed("X-GitHub-Delivery"),
        scope: None,
    }),
    challenge: false,
};

static STRIPE: Description = Description {
    signature: fixed("Stripe-Signature"),
    separator: Some(b','),
    prefix: fixed("v1="),
    encoding: Encoding::Hex,
    template: Cow::Borrowed(&[Part::Timestamp, literal("."), Part::Body]),
    timestamp: Some(TimestampAt::Entry("t=")),
    tolerance: WINDOW_SECONDS,
    key: KeyForm::Text("whsec_"),
    delivery: Some(DeliveryAt::Body(Source::fixed("id"))),
    challenge: false,
};

static SLACK: Description = Description {
    signature: fixed("X-Slack-Signature"),
    separator: None,
    prefix: fixed("v0="),
    encoding: Encoding::Hex,
    template: Cow::Borrowed(&[literal("v0:"), Part::Timestamp, literal(":"), Part::Body]),
    timestamp: Some(TimestampAt::Header(fixed("X-Slack-Request-Timestamp"))),
    tolerance: WINDOW_SECONDS,
    key: KeyForm::Text(""),
    delivery: Some(DeliveryAt::Body(Source::fixed("event_id"))),
    challenge: true,
};

static SHOPIFY: Description = Description {
    signature: fixed("X-Shopify-Hmac-Sha256"),
    separator: None,
    prefix: fixed(""),
    encoding: Encoding::Base64,
    template: Cow::Borrowed(&[Part::Body]),
    timestamp: None,
    tolerance: WINDOW_SECONDS,
    key: KeyForm::Text(""),
    delivery: Some(DeliveryAt::TrustedHeader {
        id: fixed("X-Shopify-Event-Id"),
        scope: Some("X-Shopify-Topic"),
    }),
    challenge: false,
};

impl Scheme {
    /// Those that have a name, in the order of the documentation.
    pub const NAMED: [Self; 6] = [
        Self::Hookpool,
        Self::StandardWebhooks,
        Self::Github,
        Self::Stripe,
        Self::Slack,
        Self::Shopify,
    ];

    /// Its name; every scheme of an operator's is `custom`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hookpool => "hookpool",
            Self::StandardWebhooks => "standard-webhooks",
            Self::Github => "github",
            Self::Stripe => "stripe",
            Self::Slack => "slack",
            Self::Shopify => "shopify",
            Self::Custom(_) => "custom",
        }
    }

    /// What it is made of.
    #[must_use]
    pub fn description(&self) -> &Description {
        match self {
            Self::Hookpool => &HOOKPOOL,
            Self::StandardWebhooks => &STANDARD_WEBHOOKS,
            Self::Github => &GITHUB,
            Self::Stripe => &STRIPE,
            Self::Slack => &SLACK,
            Self::Shopify => &SHOPIFY,
            Self::Custom(custom) => custom.description(),
        }
    }

    /// Whether a connector of this scheme knows the very same request when it comes again.
    #[must_use]
    pub fn knows_repetitions(&self) -> bool {
        let description = self.description();
        description.timestamp.is_some() || description.delivery.is_some()
    }
}

impl Description {
    /// The headers that a delivery is verified by.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        let timestamp = match &self.timestamp {
            Some(TimestampAt::Header(name)) => Some(&**name),
            Some(TimestampAt::Entry(_)) | None => None,
        };
        let (id, scope) = match &self.delivery {
            Some(DeliveryAt::SignedHeader(id)) => (Some(&**id), None),
            Some(DeliveryAt::TrustedHeader { id, scope }) => (Some(&**id), *scope),
            Some(DeliveryAt::Body(_)) | None => (None, None),
        };
        let others = [timestamp, id, scope].into_iter().flatten();
        std::iter::once(&*self.signature).chain(others)
    }

    /// A byte that the delivery id must not hold: with it, two deliveries could share one signed text.
    pub(crate) fn ends_id(&self) -> Option<u8> {
        beside(&self.template, &Part::Id)
    }
}

/// The byte beside a part, on its side towards the body: where the part ends, or begins if it is behind the body.
fn beside(template: &[Part], part: &Part) -> Option<u8> {
    let place = |wanted: &Part| template.iter().position(|it| it == wanted);
    let at = place(part)?;
    let is_before = at < place(&Part::Body)?;
    let next = match is_before {
        true => at.checked_add(1)?,
        false => at.checked_sub(1)?,
    };
    match template.get(next)? {
        Part::Text(text) if is_before => text.bytes().next(),
        Part::Text(text) => text.bytes().last(),
        Part::Id | Part::Timestamp | Part::Body => None,
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why something written is no scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SchemeError {
    /// A name that no scheme has.
    #[error(
        "a scheme is hookpool, standard-webhooks, github, stripe, slack or shopify, or an object that describes a custom one"
    )]
    Unknown,
    /// A description that is not one.
    #[error(
        "a custom scheme has header and template, and may have prefix, encoding (hex or base64), timestampHeader, tolerance and deliveryHeader or deliveryField"
    )]
    Members,
    /// A description that can't be followed.
    #[error(transparent)]
    Custom(#[from] CustomError),
}

impl FromStr for Scheme {
    type Err = SchemeError;

    fn from_str(name: &str) -> Result<Self, SchemeError> {
        let mut named = Self::NAMED.into_iter();
        named
            .find(|scheme| scheme.name() == name)
            .ok_or(SchemeError::Unknown)
    }
}

impl TryFrom<serde_json::Value> for Scheme {
    type Error = SchemeError;

    /// A name, or an object that describes a custom scheme.
    fn try_from(written: serde_json::Value) -> Result<Self, SchemeError> {
        if let Some(name) = written.as_str() {
            return name.parse();
        }
        if !written.is_object() {
            return Err(SchemeError::Unknown);
        }
        let custom: custom::Written =
            serde_json::from_value(written).map_err(|_| SchemeError::Members)?;
        Ok(Self::Custom(Arc::new(custom.try_into()?)))
    }
}

/// A scheme as it is recorded.
#[derive(Serialize)]
#[serde(untagged)]
enum Written {
    Named(&'static str),
    Custom(custom::Written),
}

impl From<Scheme> for Written {
    fn from(scheme: Scheme) -> Self {
        if let Scheme::Custom(custom) = &scheme {
            Self::Custom(custom.written().clone())
        } else {
            Self::Named(scheme.name())
        }
    }
}
