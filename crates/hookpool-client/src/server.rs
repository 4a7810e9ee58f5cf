//! Where a server is and how it is asked; what is asked is for the others to know.

use std::time::Duration;

use bytes::Bytes;
use hookpool_core::key::Secret;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url, header::HeaderMap, redirect,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use crate::{
    error::{Error, read_json},
    problem::Problem,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a whole exchange other than a change stream.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A server by its URL, with its connections. Clones share them.
#[derive(Debug, Clone)]
pub struct Server {
    base: Url,
    http: Client,
}

/// How far a ready server is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ready {
    /// `ready`.
    pub status: String,
    /// The last durable position.
    pub position: u64,
    /// The last position that the pool shows.
    pub applied: u64,
}

impl Server {
    /// The server at an `http` or `https` URL, with a path if it lives below one. Nothing is sent yet.
    ///
    /// Proxies of the environment (`HTTPS_PROXY`, `NO_PROXY`) are used except for loopback addresses; redirects are never
    /// followed, because a key must not travel to another host.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not such a URL.
    pub fn new(url: &str) -> Result<Self, Error> {
        let base = parse(url).map_err(|why| Error::Invalid(format!("the server URL {why}")))?;
        let http = client(&base)
            .map_err(|error| Error::Invalid(format!("the HTTP client can't be made: {error}")))?;
        Ok(Self { base, http })
    }

    /// Asks `/readyz`.
    ///
    /// # Errors
    /// [`Error::Problem`] while it is starting, stopping or failed.
    pub async fn ready(&self) -> Result<Ready, Error> {
        self.json(self.get(&["readyz"], None)?).await
    }

    /// The URL without a slash at its end, for messages.
    #[must_use]
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    pub(crate) fn get(&self, path: &[&str], key: Option<&Secret>) -> Result<RequestBuilder, Error> {
        self.request(Method::GET, path, key)
    }

    pub(crate) fn request(
        &self,
        method: Method,
        path: &[&str],
        key: Option<&Secret>,
    ) -> Result<RequestBuilder, Error> {
        let request = self.http.request(method, self.at(path)?);
        Ok(match key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        })
    }

    /// Sends and waits for the head of an answer that is a success; anything else is an error.
    pub(crate) async fn head(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(Error::Problem(Box::new(Problem::read(response).await)))
        }
    }

    pub(crate) async fn head_and_body(
        &self,
        request: RequestBuilder,
    ) -> Result<(HeaderMap, Bytes), Error> {
        self.head_and_body_within(ANSWER_TIMEOUT, request).await
    }

    pub(crate) async fn head_and_body_within(
        &self,
        limit: Duration,
        request: RequestBuilder,
    ) -> Result<(HeaderMap, Bytes), Error> {
        let mut response = self.head(request.timeout(limit)).await?;
        let headers = std::mem::take(response.headers_mut());
        let body = response
            .bytes()
            .await
            .map_err(|error| self.failed(&error))?;
        Ok((headers, body))
    }

    pub(crate) async fn body(&self, request: RequestBuilder) -> Result<Bytes, Error> {
        Ok(self.head_and_body(request).await?.1)
    }

    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, Error> {
        let body = self.body(request).await?;
        read_json(&body)
    }

    /// The same for a call that may take as long as it takes.
    pub(crate) async fn json_without_limit<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, Error> {
        let response = self.head(request).await?;
        let body = response
            .bytes()
            .await
            .map_err(|error| self.failed(&error))?;
        read_json(&body)
    }

    /// An answer without a body, 204.
    pub(crate) async fn done(&self, request: RequestBuilder) -> Result<(), Error> {
        let response = self.head(request.timeout(ANSWER_TIMEOUT)).await?;
        if response.status() == StatusCode::NO_CONTENT {
            Ok(())
        } else {
            Err(Error::Protocol(format!(
                "{} instead of 204",
                response.status()
            )))
        }
    }

    pub(crate) fn failed(&self, error: &reqwest::Error) -> Error {
        if error.is_builder() {
            return Error::Invalid(format!("the request can't be made: {error}"));
        }
        Error::unreachable(self.url(), error)
    }

    /// The head of an answer that is read piece by piece.
    pub(crate) async fn head_within(
        &self,
        limit: Duration,
        request: RequestBuilder,
    ) -> Result<Response, Error> {
        match timeout(limit, self.head(request)).await {
            Ok(head) => head,
            Err(_) => Err(self.lost("it took too long")),
        }
    }

    /// The next piece of an answer; `None` at the end that the server meant. Anything else is an error.
    pub(crate) async fn piece_within(
        &self,
        limit: Duration,
        response: &mut Response,
    ) -> Result<Option<Bytes>, Error> {
        match timeout(limit, response.chunk()).await {
            Ok(piece) => piece.map_err(|error| self.failed(&error)),
            Err(_) => Err(self.lost("it stopped sending")),
        }
    }

    /// An answer that stopped coming.
    pub(crate) fn lost(&self, reason: &str) -> Error {
        Error::Unreachable {
            server: self.url().to_owned(),
            reason: reason.to_owned(),
            sent: true,
        }
    }

    fn at(&self, path: &[&str]) -> Result<Url, Error> {
        // A URL can't name these: every client and proxy resolves them away, percent-encoded or not.
        if let Some(part) = path.iter().find(|part| matches!(**part, "" | "." | "..")) {
            return Err(Error::Invalid(format!(
                "a URL can't hold the name or id {part:?}"
            )));
        }
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        Ok(url)
    }
}

fn parse(url: &str) -> Result<Url, String> {
    let base = Url::parse(url)
        .map_err(|error| format!("is malformed: {error}; write it like http://127.0.0.1:8080"))?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err("must start with http:// or https://".to_owned());
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err("must not hold a user name or password".to_owned());
    }
    if base.query().is_some() || base.fragment().is_some() {
        return Err("must not hold a query or fragment".to_owned());
    }
    Ok(base)
}

fn client(base: &Url) -> Result<Client, reqwest::Error> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Loses a race only to another provider, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let mut builder = Client::builder()
        .user_agent(concat!("hookpool/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true);
    if base.scheme() == "http" {
        // Plain HTTP needs no certificates; a container without any would fail to load them.
        builder = builder.tls_certs_only([]);
    }
    if is_loopback(base) {
        builder = builder.no_proxy();
    }
    builder.build()
}

fn is_loopback(base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_url_is_http_without_extras() {
        for good in [
            "http://127.0.0.1:8080",
            "https://h.example/",
            "http://[::1]:1/hook/pool",
        ] {
            assert!(Server::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:8080",
            "ftp://h",
            "http://u:p@h",
            "http://h?x",
            "http://h#x",
        ] {
            assert!(matches!(Server::new(bad), Err(Error::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn path_parts_are_encoded_and_kept_below_the_base() {
        let at = |base, path: &[&str]| Server::new(base).unwrap().at(path).unwrap().to_string();
        assert_eq!(at("http://h", &["a", "b"]), "http://h/a/b");
        assert_eq!(at("http://h/x/", &["a"]), "http://h/x/a");
        assert_eq!(
            at("http://h", &["a/b?c#d%2Fe ü"]),
            "http://h/a%2Fb%3Fc%23d%252Fe%20%C3%BC"
        );
    }

    #[test]
    fn dot_segments_are_refused_rather_than_resolved() {
        let server = Server::new("http://h").unwrap();
        for part in ["", ".", ".."] {
            assert!(matches!(
                server.at(&["items", part]),
                Err(Error::Invalid(_))
            ));
        }
    }

    #[test]
    fn loopback_is_known_by_address_and_name() {
        let loopback = |url| is_loopback(&Url::parse(url).unwrap());
        assert!(
            loopback("http://127.0.0.1:1")
                && loopback("http://[::1]")
                && loopback("http://localhost")
        );
        assert!(!loopback("http://10.0.0.1") && !loopback("https://localhost.example"));
    }
}
