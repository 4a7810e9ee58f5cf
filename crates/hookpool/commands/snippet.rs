//! Programs to copy: how a producer posts to a new connector, made of what its scheme describes; and what to enter at senders that have
//! a form for it.

mod bash;
mod node;
mod python;

use hookpool_client::{CreatedConnector, Scheme, Secret};
use hookpool_core::scheme::{DeliveryAt, Description, Encoding, KeyForm, Part, TimestampAt};
use serde_json::{Map, Value};

/// Everything to get a first event in.
pub(super) fn first_event(connector: &CreatedConnector) -> String {
    if connector.hook_url.is_none() {
        return format!("\nSend a first event:\n\n{}", bash::program(connector));
    }
    format!(
        "\n{}\n\nOr send a first event yourself.\n\n--- bash\n{}\n\n--- node\n{}\n\n--- python\n{}",
        steps(&connector.name, &connector.scheme),
        bash::program(connector),
        node::program(connector),
        python::program(connector)
    )
}

/// What the sender must set, and how its own key comes to the connector of this name.
pub(super) fn steps(name: &str, scheme: &Scheme) -> String {
    let hand_over = format!("hookpool connector rotate-signing-key {name} --signing-key-file -");
    match scheme {
        Scheme::Hookpool => {
            "At the sender: the hook url; where it can sign, X-Webhook-Timestamp and X-Webhook-Signature with the signing key.".to_owned()
        }
        Scheme::StandardWebhooks => format!(
            "At the sender (Svix, or any that follows standardwebhooks.com): the hook url as endpoint, the signing key as its secret. \
             Where the sender shows a secret of its own, hand it over on standard input:\n  {hand_over}"
        ),
        Scheme::Github => {
            "At GitHub, Settings > Webhooks > Add webhook:\n  Payload URL   the hook url\n  Content type  application/json\n  \
             Secret        the signing key".to_owned()
        }
        Scheme::Stripe => format!(
            "At Stripe, Developers > Webhooks > Add endpoint: the hook url as Endpoint URL. Then copy its signing secret (whsec_...) and \
             hand it over on standard input:\n  {hand_over}"
        ),
        Scheme::Slack => format!(
            "At Slack, api.slack.com/apps > your app > Basic Information: copy the Signing Secret and hand it over on standard input first:\n  \
             {hand_over}\nThen Event Subscriptions > Request URL: the hook url. Its check is answered."
        ),
        Scheme::Shopify => format!(
            "At Shopify, Settings > Notifications > Webhooks > Create webhook: format JSON, the hook url as URL. Then copy the secret that \
             is shown below the list (of an app: its client secret) and hand it over on standard input:\n  {hand_over}"
        ),
        Scheme::Custom(_) => {
            "At the sender: the hook url, and the signing key as its secret.".to_owned()
        }
    }
}

/// A piece of a text that is put together when the program runs.
enum Piece {
    Text(String),
    Timestamp,
    Id,
    Body,
    Signature,
}

/// What a program needs to know of its connector.
struct Plan<'a> {
    url: &'a str,
    body: String,
    /// Those that are as they are, and those that are put together.
    headers: Vec<(String, Vec<Piece>)>,
    signing: Option<Signing<'a>>,
}

struct Signing<'a> {
    key: &'a Secret,
    form: KeyForm,
    encoding: Encoding,
    signed: Vec<Piece>,
    has_timestamp: bool,
    has_id: bool,
}

impl<'a> Plan<'a> {
    /// `language` is a part of the body, so that the programs send different events.
    fn new(connector: &'a CreatedConnector, language: &str) -> Self {
        let description = connector.scheme.description();
        let text = |name: &str, value: String| (name.to_owned(), vec![Piece::Text(value)]);
        let mut headers = vec![text("Content-Type", "application/json".to_owned())];
        let url = match &connector.hook_url {
            Some(hook) => hook.expose(),
            None => {
                let key = connector.ingest_key.expose();
                headers.push(text("Authorization", format!("Bearer {key}")));
                connector.url.as_str()
            }
        };
        let signing = connector.signing_key.as_ref().map(|key| {
            headers.extend(signed_headers(description));
            Signing {
                key,
                form: description.key,
                encoding: description.encoding,
                signed: description.template.iter().map(Piece::of).collect(),
                has_timestamp: description.timestamp.is_some(),
                has_id: id_header(description).is_some(),
            }
        });
        Self {
            url,
            body: body(connector, language),
            headers,
            signing,
        }
    }
}

impl Piece {
    fn of(part: &Part) -> Self {
        match part {
            Part::Id => Self::Id,
            Part::Timestamp => Self::Timestamp,
            Part::Body => Self::Body,
            Part::Text(text) => Self::Text(text.to_string()),
        }
    }
}

fn id_header(description: &Description) -> Option<&str> {
    match description.delivery.as_ref()? {
        DeliveryAt::SignedHeader(name) | DeliveryAt::TrustedHeader { id: name, .. } => Some(name),
        DeliveryAt::Body(_) => None,
    }
}

fn signed_headers(description: &Description) -> Vec<(String, Vec<Piece>)> {
    let mut headers = Vec::new();
    let mut signature = Vec::new();
    match &description.timestamp {
        Some(TimestampAt::Header(name)) => headers.push((name.to_string(), vec![Piece::Timestamp])),
        Some(TimestampAt::Entry(prefix)) => {
            let separator = description.separator.map_or(' ', char::from);
            signature.push(Piece::Text((*prefix).to_owned()));
            signature.push(Piece::Timestamp);
            signature.push(Piece::Text(separator.to_string()));
        }
        None => {}
    }
    headers.extend(id_header(description).map(|name| (name.to_owned(), vec![Piece::Id])));
    signature.push(Piece::Text(description.prefix.to_string()));
    signature.push(Piece::Signature);
    headers.push((description.signature.to_string(), signature));
    headers
}

/// A body with an item id where the connector looks for it, and a delivery id where the scheme does.
fn body(connector: &CreatedConnector, language: &str) -> String {
    let mut body = Map::new();
    body.insert("hello".to_owned(), language.into());
    if let Some(DeliveryAt::Body(place)) = &connector.scheme.description().delivery {
        put(&mut body, place.as_str(), &format!("evt_first_{language}"));
    }
    put(
        &mut body,
        connector.id_field.as_deref().unwrap_or("id"),
        "first",
    );
    Value::Object(body).to_string()
}

/// Puts a value where a name of a property or a JSON Pointer is, unless something is there.
fn put(body: &mut Map<String, Value>, path: &str, value: &str) {
    match path.strip_prefix('/') {
        None => {
            body.entry(path).or_insert_with(|| value.into());
        }
        Some(pointer) => put_below(body, pointer, value),
    }
}

fn put_below(body: &mut Map<String, Value>, pointer: &str, value: &str) {
    let (token, rest) = match pointer.split_once('/') {
        Some((token, rest)) => (token, Some(rest)),
        None => (pointer, None),
    };
    let name = token.replace("~1", "/").replace("~0", "~");
    let Some(rest) = rest else {
        body.entry(name).or_insert_with(|| value.into());
        return;
    };
    let inner = body.entry(name).or_insert_with(|| Map::new().into());
    if let Some(inner) = inner.as_object_mut() {
        put_below(inner, rest, value);
    }
}

/// Pieces as one expression of a language that joins strings by `+` and writes them as JSON does.
fn joined(pieces: &[Piece], variable: impl Fn(&Piece) -> &'static str) -> String {
    let one = |piece: &Piece| match piece {
        Piece::Text(text) => Value::from(text.as_str()).to_string(),
        variable_piece => variable(variable_piece).to_owned(),
    };
    let pieces = pieces
        .iter()
        .filter(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
    pieces.map(one).collect::<Vec<_>>().join(" + ")
}

#[cfg(test)]
mod tests;
