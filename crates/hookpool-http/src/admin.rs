//! `/api/admin`: connectors, readers and operators, under an operator key.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use hookpool_core::{
    control::{ControlChange, Streams},
    key::{KeyId, Secret},
    limits::Limits,
    name::{ConnectorName, NameError, StreamName},
    registry::{Access, Connector, Keyed, Operator, Reader, Replay},
    scheme::Scheme,
};
use hookpool_engine::control::{ConnectorSpec, NewKey};
use hookpool_store::{EventLog, PoolStore};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Map, Value, json};
use warp::{
    http::{Method, StatusCode, header},
    reply::Response,
};

use crate::{
    app::{App, Request, set},
    body, followers, history,
    problem::{Code, Problem},
    query::Query,
    rejections,
    render::json_response,
    route::AdminRoute,
};

/// Bodies of operators are small.
const BODY_BYTES_MAX: usize = 64 << 10;
const BODY_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConnectorBody {
    stream: StreamName,
    name: Option<ConnectorName>,
    #[serde(default)]
    signed: bool,
    id_field: Option<String>,
    #[serde(default)]
    replay: Replay,
    /// A name, or a description.
    scheme: Option<Value>,
    signing_key: Option<String>,
    #[serde(default, deserialize_with = "limits")]
    limits: Option<Limits>,
    #[serde(default)]
    keep_rejected: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ChangeBody {
    /// `null` is `id` again.
    #[serde(default, deserialize_with = "given")]
    id_field: Option<Option<String>>,
    replay: Option<Replay>,
    /// All of them; `{}` is none.
    #[serde(default, deserialize_with = "limits")]
    limits: Option<Limits>,
    keep_rejected: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RotateBody {
    #[serde(default)]
    overlap_seconds: u64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RotateSigningBody {
    #[serde(default)]
    overlap_seconds: u64,
    signing_key: Option<String>,
}

/// As an object, of which each member says something.
fn limits<'de, D: Deserializer<'de>>(member: D) -> Result<Option<Limits>, D::Error> {
    let Some(members) = Option::<Map<String, Value>>::deserialize(member)? else {
        return Ok(None);
    };
    if members.values().any(Value::is_null) {
        return Err(D::Error::custom("a limit is left out where there is none"));
    }
    let limits = serde_json::from_value(Value::Object(members));
    limits.map(Some).map_err(D::Error::custom)
}

/// Tells a `null` from a member that is left out.
fn given<'de, D: Deserializer<'de>>(member: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(member).map(Some)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReaderBody {
    name: ConnectorName,
    streams: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OperatorBody {
    name: ConnectorName,
}

/// Who operates, and what they sent.
pub(crate) async fn operator<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    request: &Request,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<(KeyId, Bytes), Problem> {
    let Access::Operator(author) = app.access(request)? else {
        return Err(Code::Unauthorized.into());
    };
    // Whoever reads sends nothing; what comes along all the same is no part of what is asked, and no reason to refuse.
    if matches!(request.method, Method::GET | Method::HEAD) {
        return Ok((author, Bytes::new()));
    }
    body::must_fit(request, BODY_BYTES_MAX)?;
    let body = body::capped(body, BODY_BYTES_MAX, BODY_PATIENCE).await?;
    // A key that was revoked while the body came does nothing any more.
    app.access(request)?;
    Ok((author, body))
}

/// Operates, for whoever holds an operator key.
pub(crate) async fn handle<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    route: AdminRoute<'_>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, Problem> {
    let (author, body) = operator(app, request, body).await?;
    let query = Query::of(request)?;
    let admin = Admin { app, author };
    let post = request.method == Method::POST;
    match route {
        AdminRoute::Connectors if post => admin.add_connector(parse(&body)?).await,
        AdminRoute::Connectors => Ok(admin.connectors()),
        AdminRoute::Connector { name } if request.method == Method::PATCH => {
            admin.change_connector(named(name)?, parse(&body)?).await
        }
        AdminRoute::Connector { name } => admin.connector(name),
        AdminRoute::RotateKey { name } => {
            admin
                .rotate_key(named(name)?, parse_or_default(&body)?)
                .await
        }
        AdminRoute::RotateSigningKey { name } => {
            admin
                .rotate_signing_key(named(name)?, parse_or_default(&body)?)
                .await
        }
        AdminRoute::RotateHook { name } => {
            admin
                .rotate_hook(named(name)?, parse_or_default(&body)?)
                .await
        }
        AdminRoute::Key { name, key_id } => admin.revoke_key(named(name)?, key_id).await,
        AdminRoute::Hook { name, key_id } => admin.revoke_hook(named(name)?, key_id).await,
        AdminRoute::SigningKey { name, key_id } => {
            admin.revoke_signing_key(named(name)?, key_id).await
        }
        AdminRoute::Enable { name, enabled } => admin.enable(named(name)?, enabled).await,
        AdminRoute::Followers => followers::answer(app).await,
        AdminRoute::Readers if post => admin.add_reader(parse(&body)?).await,
        AdminRoute::Readers => Ok(admin.readers()),
        AdminRoute::Reader { name } => admin.revoke_reader(named(name)?).await,
        AdminRoute::Operators if post => admin.add_operator(parse(&body)?).await,
        AdminRoute::Operators => Ok(admin.operators()),
        AdminRoute::Operator { key_id } => admin.revoke_operator(KeyId::from(key_id)).await,
        AdminRoute::Rejections => rejections::list(app, &query),
        AdminRoute::Rejection { id } => rejections::one(app, id),
        AdminRoute::RetryRejection { id } => rejections::retry(app, id, &query).await,
        AdminRoute::RetryRejections => rejections::retry_all(app, &query).await,
        AdminRoute::Head => history::head(app),
        AdminRoute::Export => history::export(app, admin.author, &query).await,
        AdminRoute::Blocks => history::blocks(app, admin.author, &query),
    }
}

struct Admin<'a, L, P: PoolStore> {
    app: &'a App<L, P>,
    author: KeyId,
}

impl<L: EventLog, P: PoolStore> Admin<'_, L, P> {
    async fn add_connector(&self, body: ConnectorBody) -> Result<Response, Problem> {
        let stream = body.stream;
        let name = match body.name {
            Some(name) => name,
            None => ConnectorName::new(stream.as_str()).map_err(bad_name)?,
        };
        let id_field = body.id_field.filter(|name| !name.is_empty());
        let scheme = body.scheme.map(Scheme::try_from).transpose();
        let scheme =
            scheme.map_err(|error| Problem::with(Code::InvalidPayload, error.to_string()))?;
        // Only the page's own senders may go unsigned.
        let is_others = scheme.as_ref().is_some_and(|it| *it != Scheme::Hookpool);
        let spec = ConnectorSpec {
            name: name.clone(),
            stream,
            signed: body.signed || is_others || body.signing_key.is_some(),
            id_field,
            replay: body.replay,
            scheme,
            signing_key: body.signing_key.map(Secret::new),
            limits: checked(body.limits.unwrap_or_default())?,
            keep_rejected: body.keep_rejected,
        };
        let made = self
            .app
            .engine
            .control()
            .add_connector(&self.author, spec)
            .await?;
        let registry = self.app.engine.control().registry();
        let connector = registry.connector(name.as_str()).ok_or(Code::NotFound)?;
        let mut answer = json!({
            "name": connector.name.as_str(),
            "stream": connector.stream.as_str(),
            "scheme": connector.scheme,
            "keyId": made.ingest_key.key_id.as_str(),
            "ingestKey": made.ingest_key.secret.expose(),
            "signingKey": made.signing_key.as_ref().map(|key| key.secret.expose()),
            "url": format!("{}/api/webhook/{}", self.app.settings.public_url, connector.stream),
            "idField": connector.id_field,
            "replay": connector.replay,
            "createdAt": connector.created_at.to_string(),
        });
        if let (Some(hook), Some(members)) = (&made.hook, answer.as_object_mut()) {
            members.insert("hookUrl".into(), self.hook_url(hook).into());
        }
        Ok(created(&answer))
    }

    fn hook_url(&self, hook: &NewKey) -> String {
        let public = &self.app.settings.public_url;
        format!("{public}/api/hooks/{}", hook.secret.expose())
    }

    fn connectors(&self) -> Response {
        let registry = self.app.engine.control().registry();
        let connectors: Vec<_> = registry
            .connectors()
            .map(|connector| connector_json(connector))
            .collect();
        json_response(json!({ "connectors": connectors }).to_string())
    }

    fn connector(&self, name: &str) -> Result<Response, Problem> {
        let registry = self.app.engine.control().registry();
        let connector = registry.connector(name).ok_or(Code::NotFound)?;
        Ok(json_response(connector_json(connector).to_string()))
    }

    async fn rotate_key(&self, name: ConnectorName, body: RotateBody) -> Result<Response, Problem> {
        let key = self
            .app
            .engine
            .control()
            .rotate_key(&self.author, name.clone(), body.overlap_seconds)
            .await?;
        self.rotated(&name, &key, "ingestKey", key.secret.expose())
    }

    async fn rotate_hook(
        &self,
        name: ConnectorName,
        body: RotateBody,
    ) -> Result<Response, Problem> {
        let control = self.app.engine.control();
        let overlap = body.overlap_seconds;
        let hook = control.rotate_hook(&self.author, name.clone(), overlap);
        let hook = hook.await?;
        self.rotated(&name, &hook, "hookUrl", &self.hook_url(&hook))
    }

    async fn rotate_signing_key(
        &self,
        name: ConnectorName,
        body: RotateSigningBody,
    ) -> Result<Response, Problem> {
        let control = self.app.engine.control();
        let given = body.signing_key.map(Secret::new);
        let overlap = body.overlap_seconds;
        let key = control.rotate_signing_key(&self.author, name.clone(), given, overlap);
        let key = key.await?;
        self.rotated(&name, &key, "signingKey", key.secret.expose())
    }

    fn rotated(
        &self,
        name: &ConnectorName,
        key: &NewKey,
        member: &str,
        text: &str,
    ) -> Result<Response, Problem> {
        let registry = self.app.engine.control().registry();
        let connector = registry.connector(name.as_str()).ok_or(Code::NotFound)?;
        let (stream, key_id) = (connector.stream.as_str(), key.key_id.as_str());
        let answer =
            json!({ "name": name.as_str(), "stream": stream, "keyId": key_id, member: text });
        Ok(secret(&answer))
    }

    async fn revoke_key(
        &self,
        connector: ConnectorName,
        key_id: &str,
    ) -> Result<Response, Problem> {
        let key_id = KeyId::from(key_id);
        let subject = connector.to_string();
        self.change(
            &subject,
            ControlChange::IngestKeyRevoked { connector, key_id },
        )
        .await?;
        Ok(no_content())
    }

    async fn revoke_hook(
        &self,
        connector: ConnectorName,
        key_id: &str,
    ) -> Result<Response, Problem> {
        let key_id = KeyId::from(key_id);
        let subject = connector.to_string();
        self.change(&subject, ControlChange::HookRevoked { connector, key_id })
            .await?;
        Ok(no_content())
    }

    async fn revoke_signing_key(
        &self,
        connector: ConnectorName,
        key_id: &str,
    ) -> Result<Response, Problem> {
        let key_id = KeyId::from(key_id);
        let subject = connector.to_string();
        let change = ControlChange::SigningKeyRevoked { connector, key_id };
        self.change(&subject, change).await?;
        Ok(no_content())
    }

    /// What a connector does with deliveries; who sends them and how they are signed stays what it was made for.
    async fn change_connector(
        &self,
        connector: ConnectorName,
        body: ChangeBody,
    ) -> Result<Response, Problem> {
        let name = connector.to_string();
        let change = ControlChange::ConnectorChanged {
            connector,
            id_field: body.id_field.map(Option::unwrap_or_default),
            replay: body.replay,
            limits: body.limits.map(checked).transpose()?,
            keep_rejected: body.keep_rejected,
        };
        self.change(&name, change).await?;
        self.connector(&name)
    }

    async fn enable(&self, connector: ConnectorName, enabled: bool) -> Result<Response, Problem> {
        let name = connector.to_string();
        self.change(
            &name,
            ControlChange::ConnectorEnabled { connector, enabled },
        )
        .await?;
        self.connector(&name)
    }

    async fn add_reader(&self, body: ReaderBody) -> Result<Response, Problem> {
        let name = body.name.clone();
        let streams = streams(&body.streams)?;
        let key = self
            .app
            .engine
            .control()
            .add_reader(&self.author, body.name, streams)
            .await?;
        let registry = self.app.engine.control().registry();
        let mut answer = reader_json(registry.reader(name.as_str()).ok_or(Code::NotFound)?);
        if let Some(members) = answer.as_object_mut() {
            members.insert("readKey".into(), key.secret.expose().into());
        }
        Ok(created(&answer))
    }

    fn readers(&self) -> Response {
        let registry = self.app.engine.control().registry();
        let readers: Vec<_> = registry
            .readers()
            .map(|reader| reader_json(reader))
            .collect();
        json_response(json!({ "readers": readers }).to_string())
    }

    async fn revoke_reader(&self, reader: ConnectorName) -> Result<Response, Problem> {
        let subject = reader.to_string();
        self.change(&subject, ControlChange::ReaderRevoked { reader })
            .await?;
        Ok(no_content())
    }

    async fn add_operator(&self, body: OperatorBody) -> Result<Response, Problem> {
        let control = self.app.engine.control();
        let key = control.add_operator(&self.author, body.name).await?;
        let registry = control.registry();
        let operator = registry.operator(key.key_id.as_str());
        let mut answer = operator_json(operator.ok_or(Code::NotFound)?);
        if let Some(members) = answer.as_object_mut() {
            members.insert("operatorKey".into(), key.secret.expose().into());
        }
        Ok(created(&answer))
    }

    fn operators(&self) -> Response {
        let registry = self.app.engine.control().registry();
        let operators = registry.operators();
        let operators: Vec<_> = operators.iter().map(|one| operator_json(one)).collect();
        json_response(json!({ "operators": operators }).to_string())
    }

    async fn revoke_operator(&self, key_id: KeyId) -> Result<Response, Problem> {
        let subject = key_id.to_string();
        self.change(&subject, ControlChange::OperatorRevoked { key_id })
            .await?;
        Ok(no_content())
    }

    async fn change(&self, subject: &str, change: ControlChange) -> Result<(), Problem> {
        Ok(self
            .app
            .engine
            .control()
            .change(&self.author, subject, change)
            .await?)
    }
}

fn checked(limits: Limits) -> Result<Limits, Problem> {
    if limits.fit() {
        Ok(limits)
    } else {
        Err(Problem::with(
            Code::InvalidPayload,
            "limits: burst needs eventsPerSecond",
        ))
    }
}

fn connector_json(connector: &Connector) -> Value {
    json!({
        "name": connector.name.as_str(),
        "stream": connector.stream.as_str(),
        "enabled": connector.enabled,
        "scheme": connector.scheme,
        "idField": connector.id_field,
        "replay": connector.replay,
        "limits": connector.limits,
        "keepRejected": connector.keep_rejected,
        "createdAt": connector.created_at.to_string(),
        "keys": keys_json(&connector.keys),
        "hooks": keys_json(&connector.hooks),
        "signingKeys": keys_json(&connector.signing_keys),
    })
}

fn keys_json<T>(keys: &[Keyed<T>]) -> Vec<Value> {
    let key = |key: &Keyed<T>| {
        json!({
            "keyId": key.key_id.as_str(),
            "createdAt": key.created_at.to_string(),
            "expiresAt": key.expires_at.map(|end| end.to_string()),
        })
    };
    keys.iter().map(key).collect()
}

fn reader_json(reader: &Reader) -> Value {
    let streams = match &reader.streams {
        Streams::All => vec!["*"],
        Streams::Only(streams) => streams.iter().map(StreamName::as_str).collect(),
    };
    json!({
        "name": reader.name.as_str(),
        "keyId": reader.key.key_id.as_str(),
        "streams": streams,
        "createdAt": reader.key.created_at.to_string(),
    })
}

fn operator_json(operator: &Operator) -> Value {
    json!({
        "name": operator.name.as_ref().map(ConnectorName::as_str),
        "keyId": operator.key.key_id.as_str(),
        "createdAt": operator.key.created_at.to_string(),
    })
}

fn streams(names: &[String]) -> Result<Streams, Problem> {
    match names {
        [] => Err(Problem::with(
            Code::InvalidPayload,
            "streams names at least one stream, or is [\"*\"]",
        )),
        [all] if all == "*" => Ok(Streams::All),
        names => {
            let names: Result<Vec<_>, _> = names.iter().map(|name| StreamName::new(name)).collect();
            names.map(Streams::Only).map_err(bad_name)
        }
    }
}

/// Refuses what is no JSON object: serde would take an array for the members in their order.
pub(crate) fn must_be_object(body: &[u8]) -> Result<(), Problem> {
    match body.trim_ascii_start().first() {
        Some(b'{') => Ok(()),
        _ => Err(Problem::with(
            Code::InvalidPayload,
            "the body is not a JSON object",
        )),
    }
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    must_be_object(body)?;
    // Serde's message may quote the body; an operator's own body holds no secret, but the rule is one for all.
    serde_json::from_slice(body).map_err(|error| {
        let place = format!(
            "the body is not what this call takes, at line {} column {}",
            error.line(),
            error.column()
        );
        Problem::with(Code::InvalidPayload, place)
    })
}

pub(crate) fn parse_or_default<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() {
        Ok(T::default())
    } else {
        parse(body)
    }
}

fn named(name: &str) -> Result<ConnectorName, Problem> {
    ConnectorName::new(name).map_err(|_| Code::NotFound.into())
}

fn bad_name(error: NameError) -> Problem {
    Problem::with(Code::InvalidPayload, error.to_string())
}

pub(crate) fn created(answer: &Value) -> Response {
    let mut response = secret(answer);
    *response.status_mut() = StatusCode::CREATED;
    response
}

/// An answer with a secret in it, which nobody on the way may keep.
fn secret(answer: &Value) -> Response {
    let mut response = json_response(answer.to_string());
    set(&mut response, header::CACHE_CONTROL, "no-store");
    response
}

fn no_content() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
