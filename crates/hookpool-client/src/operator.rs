//! Connectors and read keys: who may write and who may read.

use hookpool_core::{key::Secret, limits::Limits, scheme::Scheme};
use reqwest::{Method, RequestBuilder};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{consumer::Consumer, error::Error, secret, server::Server};

/// Hands out keys and takes them back, with an operator key.
#[derive(Debug, Clone)]
pub struct Operator {
    pub(crate) server: Server,
    pub(crate) key: Secret,
}

/// What a connector does with a signed delivery that comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Replay {
    /// Gives the first answer and records nothing.
    #[default]
    Collapse,
    /// Records it again.
    Allow,
}

/// A connector to be made.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewConnector {
    /// The stream it writes to.
    pub stream: String,
    /// Its name; the stream's if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether deliveries must be signed.
    pub signed: bool,
    /// The property that holds the item id, or a JSON Pointer to it, for deliveries that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_field: Option<String>,
    /// About repeated deliveries.
    pub replay: Replay,
    /// How its sender signs; with it there is a hook. The page's own way, without a hook, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The sender's own signing key; one is made if it is left out.
    #[serde(skip_serializing_if = "Option::is_none", with = "secret::optional")]
    pub signing_key: Option<Secret>,
    /// What it may send.
    #[serde(skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// Whether bodies of refused deliveries are kept, so that they can be tried again.
    pub keep_rejected: bool,
}

/// What a connector is to do otherwise; what is left out stays.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorChange {
    /// The property that holds the item id, or a JSON Pointer to it; `Some(None)` is `id` again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_field: Option<Option<String>>,
    /// About repeated deliveries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// What it may send, all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Whether bodies of refused deliveries are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_rejected: Option<bool>,
}

/// A connector just made, with the secrets that are never shown again. Serializing it shows them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedConnector {
    /// Its name.
    pub name: String,
    /// The stream it writes to.
    pub stream: String,
    /// The public part of the ingest key.
    pub key_id: String,
    /// The ingest key.
    #[serde(with = "secret::required")]
    pub ingest_key: Secret,
    /// The signing key, if it is signed.
    #[serde(with = "secret::optional")]
    pub signing_key: Option<Secret>,
    /// Where to post.
    pub url: String,
    /// Where senders post that can set no headers; the hook in it is a secret.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "secret::optional"
    )]
    pub hook_url: Option<Secret>,
    /// How its sender signs.
    #[serde(default)]
    pub scheme: Scheme,
    /// The property that holds the item id.
    pub id_field: Option<String>,
    /// About repeated deliveries.
    pub replay: Replay,
    /// RFC 3339.
    pub created_at: String,
}

/// A connector without its secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connector {
    /// Its name.
    pub name: String,
    /// The stream it writes to.
    pub stream: String,
    /// Whether it takes deliveries.
    pub enabled: bool,
    /// How its sender signs.
    #[serde(default)]
    pub scheme: Scheme,
    /// The property that holds the item id.
    pub id_field: Option<String>,
    /// About repeated deliveries.
    pub replay: Replay,
    /// What it may send.
    #[serde(default)]
    pub limits: Limits,
    /// Whether bodies of refused deliveries are kept.
    #[serde(default)]
    pub keep_rejected: bool,
    /// RFC 3339.
    pub created_at: String,
    /// Ingest keys that are accepted or will expire.
    pub keys: Vec<ConnectorKey>,
    /// The same for hooks; none if its scheme was not named.
    #[serde(default)]
    pub hooks: Vec<ConnectorKey>,
    /// The same for signing keys; none if it is unsigned.
    pub signing_keys: Vec<ConnectorKey>,
}

/// A key by its public part.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorKey {
    /// The public part.
    pub key_id: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; `None` if it stays.
    pub expires_at: Option<String>,
}

/// A new ingest key. Serializing it shows the key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotatedKey {
    /// The connector.
    pub name: String,
    /// The stream it writes to.
    pub stream: String,
    /// The public part of the key.
    pub key_id: String,
    /// The key.
    #[serde(with = "secret::required")]
    pub ingest_key: Secret,
}

/// A new hook. Serializing it shows the hook.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotatedHook {
    /// The connector.
    pub name: String,
    /// The stream it writes to.
    pub stream: String,
    /// The public part of the hook.
    pub key_id: String,
    /// Where to post.
    #[serde(with = "secret::required")]
    pub hook_url: Secret,
}

/// A new signing key. Serializing it shows the key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotatedSigningKey {
    /// The connector.
    pub name: String,
    /// The stream it writes to.
    pub stream: String,
    /// The public name of the key.
    pub key_id: String,
    /// The key.
    #[serde(with = "secret::required")]
    pub signing_key: Secret,
}

/// A change stream that somebody has open.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Following {
    /// The stream.
    pub stream: String,
    /// The name of the read key; `None` for an operator key.
    pub reader: Option<String>,
    /// Up to where everything was handed to the connection; `None` in a snapshot.
    pub position: Option<u64>,
    /// How far that is behind the last event of the stream, in positions of the log.
    pub lag: Option<u64>,
    /// RFC 3339.
    pub opened_at: String,
}

/// A read key just made. Serializing it shows the key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedReader {
    /// Its name.
    pub name: String,
    /// The public part of the key.
    pub key_id: String,
    /// The streams it may read; `*` is every stream.
    pub streams: Vec<String>,
    /// The key.
    #[serde(with = "secret::required")]
    pub read_key: Secret,
    /// RFC 3339.
    pub created_at: String,
}

/// A read key without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reader {
    /// Its name.
    pub name: String,
    /// The public part of the key.
    pub key_id: String,
    /// The streams it may read; `*` is every stream.
    pub streams: Vec<String>,
    /// RFC 3339.
    pub created_at: String,
}

/// An operator key just made. Serializing it shows the key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedOperator {
    /// Its name.
    pub name: String,
    /// The public part of the key.
    pub key_id: String,
    /// The key.
    #[serde(with = "secret::required")]
    pub operator_key: Secret,
    /// RFC 3339.
    pub created_at: String,
}

/// An operator key without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatorKey {
    /// Its name; `None` where it was made in the data folder.
    pub name: Option<String>,
    /// The public part of the key.
    pub key_id: String,
    /// RFC 3339.
    pub created_at: String,
}

#[derive(Deserialize)]
struct Connectors {
    connectors: Vec<Connector>,
}

#[derive(Deserialize)]
struct Followers {
    followers: Vec<Following>,
}

#[derive(Deserialize)]
struct Readers {
    readers: Vec<Reader>,
}

#[derive(Deserialize)]
struct Operators {
    operators: Vec<OperatorKey>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Overlap {
    overlap_seconds: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewSigningKey<'a> {
    overlap_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_key: Option<&'a str>,
}

#[derive(Serialize)]
struct NewReader<'a> {
    name: &'a str,
    streams: &'a [String],
}

#[derive(Serialize)]
struct NewOperator<'a> {
    name: &'a str,
}

/// Every call fails as [`Error`] says; `CONFLICT` is a name that is taken, 404 one that is not there.
impl Operator {
    /// An operator with its key.
    #[must_use]
    pub fn new(server: Server, key: Secret) -> Self {
        Self { server, key }
    }

    /// A consumer with the same key, which reads every stream.
    #[must_use]
    pub fn consumer(&self) -> Consumer {
        Consumer::new(self.server.clone(), self.key.clone())
    }

    /// The change streams that are open, oldest first.
    pub async fn followers(&self) -> Result<Vec<Following>, Error> {
        Ok(self.get::<Followers>(&["followers"]).await?.followers)
    }

    /// Makes a connector and its keys.
    pub async fn add_connector(&self, new: &NewConnector) -> Result<CreatedConnector, Error> {
        self.post(&["connectors"], new).await
    }

    /// All connectors.
    pub async fn connectors(&self) -> Result<Vec<Connector>, Error> {
        Ok(self.get::<Connectors>(&["connectors"]).await?.connectors)
    }

    /// One connector.
    pub async fn connector(&self, name: &str) -> Result<Connector, Error> {
        self.get(&["connectors", name]).await
    }

    /// Makes a new ingest key; the old ones expire after the overlap.
    pub async fn rotate_key(&self, name: &str, overlap_seconds: u64) -> Result<RotatedKey, Error> {
        let path = ["connectors", name, "keys:rotate"];
        self.post(&path, &Overlap { overlap_seconds }).await
    }

    /// Adds a signing key, the sender's own or a new one; the old ones expire after the overlap. Turns signing on where it was off.
    pub async fn rotate_signing_key(
        &self,
        name: &str,
        signing_key: Option<&Secret>,
        overlap_seconds: u64,
    ) -> Result<RotatedSigningKey, Error> {
        let path = ["connectors", name, "signing-keys:rotate"];
        let new = NewSigningKey {
            overlap_seconds,
            signing_key: signing_key.map(Secret::expose),
        };
        self.post(&path, &new).await
    }

    /// Makes a new hook; the old ones expire after the overlap.
    pub async fn rotate_hook(
        &self,
        name: &str,
        overlap_seconds: u64,
    ) -> Result<RotatedHook, Error> {
        let path = ["connectors", name, "hooks:rotate"];
        self.post(&path, &Overlap { overlap_seconds }).await
    }

    /// Refuses a hook from now on.
    pub async fn revoke_hook(&self, name: &str, key_id: &str) -> Result<(), Error> {
        self.delete(&["connectors", name, "hooks", key_id]).await
    }

    /// Refuses what is signed with a signing key from now on; `CONFLICT` is the last one that counts.
    pub async fn revoke_signing_key(&self, name: &str, key_id: &str) -> Result<(), Error> {
        self.delete(&["connectors", name, "signing-keys", key_id])
            .await
    }

    /// Changes what a connector does with its deliveries.
    pub async fn change_connector(
        &self,
        name: &str,
        change: &ConnectorChange,
    ) -> Result<Connector, Error> {
        let path = admin(&["connectors", name]);
        let request = self.server.request(Method::PATCH, &path, Some(&self.key))?;
        self.server.json(request.json(change)).await
    }

    /// Refuses an ingest key from now on.
    pub async fn revoke_key(&self, name: &str, key_id: &str) -> Result<(), Error> {
        self.delete(&["connectors", name, "keys", key_id]).await
    }

    /// Refuses all deliveries of a connector.
    pub async fn disable_connector(&self, name: &str) -> Result<Connector, Error> {
        self.act(&["connectors", &format!("{name}:disable")]).await
    }

    /// Takes its deliveries again.
    pub async fn enable_connector(&self, name: &str) -> Result<Connector, Error> {
        self.act(&["connectors", &format!("{name}:enable")]).await
    }

    /// Makes a read key for some streams, `*` for every one.
    pub async fn add_reader(&self, name: &str, streams: &[String]) -> Result<CreatedReader, Error> {
        self.post(&["readers"], &NewReader { name, streams }).await
    }

    /// All read keys.
    pub async fn readers(&self) -> Result<Vec<Reader>, Error> {
        Ok(self.get::<Readers>(&["readers"]).await?.readers)
    }

    /// Refuses a read key from now on; its change streams end.
    pub async fn revoke_reader(&self, name: &str) -> Result<(), Error> {
        self.delete(&["readers", name]).await
    }

    /// Makes another operator key.
    pub async fn add_operator(&self, name: &str) -> Result<CreatedOperator, Error> {
        self.post(&["operators"], &NewOperator { name }).await
    }

    /// All operator keys, oldest first.
    pub async fn operators(&self) -> Result<Vec<OperatorKey>, Error> {
        Ok(self.get::<Operators>(&["operators"]).await?.operators)
    }

    /// Refuses an operator key from now on; `CONFLICT` is the last one, which stays.
    pub async fn revoke_operator(&self, key_id: &str) -> Result<(), Error> {
        self.delete(&["operators", key_id]).await
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn request_of(&self, path: &[&str]) -> Result<RequestBuilder, Error> {
        self.server.get(&admin(path), Some(&self.key))
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Error> {
        self.server.json(self.request_of(path)?).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let request = self
            .server
            .request(Method::POST, &admin(path), Some(&self.key))?;
        self.server.json(request.json(body)).await
    }

    pub(crate) async fn act<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Error> {
        let request = self
            .server
            .request(Method::POST, &admin(path), Some(&self.key))?;
        self.server.json(request).await
    }

    async fn delete(&self, path: &[&str]) -> Result<(), Error> {
        let request = self
            .server
            .request(Method::DELETE, &admin(path), Some(&self.key))?;
        self.server.done(request).await
    }
}

pub(crate) fn admin<'a>(path: &[&'a str]) -> Vec<&'a str> {
    [&["api", "admin"], path].concat()
}
