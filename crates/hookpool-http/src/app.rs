//! One request from filter to answer.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Buf;
use futures_util::{Stream, StreamExt};
use hookpool_core::{
    event::RequestId,
    key::KeyId,
    registry::Access,
    verify::{Header, Headers},
};
use hookpool_engine::Engine;
use hookpool_store::{EventLog, PoolStore};
use warp::{
    Filter, Rejection,
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    reply::Response,
};

use crate::{
    admin, body, bulk, changes, console,
    failures::Failures,
    followers::Followers,
    generations, hooks, ingest,
    metrics::Metrics,
    openapi, ops,
    pages::PageChains,
    past,
    peer::{Network, Peer},
    problem::{Code, Problem},
    read,
    refusal::Refusal,
    rejected::{self, Seen},
    route::Route,
    viewer::{self, Tickets},
};

/// What an operator may set about the edge.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Largest body in bytes.
    pub body_bytes: usize,
    /// Longest time that a body may take.
    pub body_timeout: Duration,
    /// Largest body of many events in bytes; each of them is at most [`Self::body_bytes`].
    pub bulk_bytes: usize,
    /// Longest time that one may take.
    pub bulk_timeout: Duration,
    /// How the server is reached from outside, without a slash at the end: for the URLs in answers.
    pub public_url: String,
    /// Origins whose pages may read, each as browsers send it: `https://app.example.com`.
    pub cors_origins: Vec<String>,
    /// Proxies that are believed whom they speak for.
    pub trusted_proxies: Vec<Network>,
    /// How often in a minute an address may show what is no key.
    pub failures_per_minute: u32,
    /// Change streams at a time; who comes then is told to come back later.
    pub followers_max: usize,
    /// How long a connection or a chain of pages may hold a view of the pool, which keeps in memory what was written since: who reads a snapshot for longer reads
    /// the rest as it was, from newer views.
    pub view_lifetime: Duration,
}

/// What every handler may use.
pub(crate) struct App<L, P: PoolStore> {
    pub(crate) engine: Arc<Engine<L, P>>,
    pub(crate) settings: Settings,
    pub(crate) pages: PageChains<P::Snapshot>,
    pub(crate) metrics: Metrics,
    pub(crate) tickets: Tickets,
    pub(crate) followers: Arc<Followers>,
    pub(crate) feeds: changes::Feeds,
    pub(crate) failures: Failures,
}

/// A request without its body.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) query: String,
    /// What may be in the query.
    pub(crate) parameters: &'static [&'static str],
    pub(crate) headers: HeaderMap,
    pub(crate) id: RequestId,
    /// Where it came from, if it came over a connection.
    pub(crate) peer: Option<Peer>,
    /// What was read of it.
    pub(crate) seen: Seen,
}

impl Request {
    /// A header that may come once.
    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> Header<'_> {
        Header::from_values(self.headers.get_all(name).iter().map(HeaderValue::as_bytes))
    }

    /// Which of these media types the client likes best by its `Accept` (RFC 9110, 12.5.1); of equals the first. `None` if it takes
    /// none of them; the first if it does not say.
    pub(crate) fn best_of(&self, offers: &[&str]) -> Option<usize> {
        let values = self
            .headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let ranges: Vec<_> = values
            .flat_map(|value| value.split(','))
            .filter_map(Range::parse)
            .collect();
        if ranges.is_empty() {
            return Some(0);
        }
        let quality = |offer: &str| {
            let matching = ranges.iter().filter(|range| range.matches(offer));
            // The most specific range speaks for a type.
            matching
                .max_by_key(|range| range.specificity())
                .map_or(0, |range| range.quality)
        };
        let qualities = offers.iter().map(|offer| quality(offer)).enumerate();
        let liked: Vec<_> = qualities.filter(|(_, quality)| *quality > 0).collect();
        liked
            .into_iter()
            .rev()
            .max_by_key(|(_, quality)| *quality)
            .map(|(offer, _)| offer)
    }
}

impl Headers for Request {
    fn header(&self, name: &str) -> Header<'_> {
        Self::header(self, name)
    }
}

/// One media range of `Accept`.
struct Range<'a> {
    media: &'a str,
    /// In thousandths.
    quality: u32,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().filter(|media| !media.is_empty())?;
        let q = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality = q
            .and_then(|q| q.parse::<f64>().ok())
            .unwrap_or(1.0)
            .clamp(0.0, 1.0);
        #[expect(clippy::cast_possible_truncation, reason = "clamped to 0 to 1000")]
        let quality = (quality * 1_000.0).round() as u32;
        Some(Self { media, quality })
    }

    fn matches(&self, offer: &str) -> bool {
        match self.media.strip_suffix("/*") {
            Some("*") => true,
            Some(major) => offer
                .split('/')
                .next()
                .is_some_and(|of| of.eq_ignore_ascii_case(major)),
            None => self.media.eq_ignore_ascii_case(offer),
        }
    }

    fn specificity(&self) -> u8 {
        match self.media {
            "*/*" => 0,
            media if media.ends_with("/*") => 1,
            _ => 2,
        }
    }
}

/// The whole HTTP surface. Paths, methods and errors are decided in one handler that always answers, so no rejection of warp's decides a status.
pub fn routes<L: EventLog, P: PoolStore>(
    engine: Arc<Engine<L, P>>,
    settings: Settings,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    let failures = Failures::new(settings.failures_per_minute);
    let pages = PageChains::new(settings.view_lifetime);
    let app = Arc::new(App {
        engine,
        settings,
        failures,
        pages,
        metrics: Metrics::default(),
        tickets: Tickets::default(),
        followers: Arc::default(),
        feeds: changes::Feeds::default(),
    });
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional())
        .and(warp::ext::optional())
        .and(warp::body::stream())
        .then(
            move |method, path: warp::path::FullPath, query, headers, peer, refusal, body| {
                let app = Arc::clone(&app);
                async move {
                    let route = Route::parse(path.as_str());
                    let request = Request {
                        parameters: route.map_or(&[], |route| route.row().parameters(&method)),
                        method,
                        query,
                        headers,
                        id: app.engine.request_id(),
                        peer,
                        seen: Seen::default(),
                    };
                    answer(&app, request, route, refusal, body).await
                }
            },
        )
}

async fn answer<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: Request,
    route: Option<Route<'_>>,
    refusal: Option<Refusal>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
) -> Response {
    let mut body = pin!(body.fuse());
    let outcome = match refusal {
        None => handle(app, &request, route, body.as_mut()).await,
        Some(refusal) => Err(refusal.into()),
    };
    let mut response = match outcome {
        Ok(response) => response,
        Err(problem) => {
            let (problem, rejected) = rejected::judge(app, &request, route, problem);
            let wanted = rejected
                .as_ref()
                .is_some_and(|it| it.wants_body(app, &request));
            let bytes_max = match route {
                Some(Route::Ingest) => app.settings.bulk_bytes,
                _ => app.settings.body_bytes,
            };
            let rest = body::discard(&request, body, bytes_max, wanted).await;
            if let Some(rejected) = rejected {
                rejected.note(app, &request, &problem, rest);
            }
            problem.into_response(request.id)
        }
    };
    app.metrics.count(response.status().as_u16());
    set(&mut response, X_REQUEST_ID, &request.id.to_string());
    app.show_to_page(&request, route.as_ref(), &mut response);
    response
}

async fn handle<L: EventLog, P: PoolStore>(
    app: &Arc<App<L, P>>,
    request: &Request,
    route: Option<Route<'_>>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
) -> Result<Response, Problem> {
    let route = route.ok_or(Code::NotFound)?;
    if let Some(answer) = app.preflight(request, &route) {
        return Ok(answer);
    }
    let row = route.row();
    if row.methods().all(|method| method != request.method) {
        return Err(Problem::method_not_allowed(row));
    }
    match route {
        Route::Webhook { stream } => ingest::webhook(app, request, stream, body).await,
        Route::Ingest => bulk::ingest(app, request, body).await,
        Route::Hook { hook } => hooks::hook(app, request, hook, body).await,
        Route::Streams => read::streams(app, request).await,
        Route::Stream { stream } => read::stream(app, request, stream).await,
        Route::Items { stream } => read::items(app, request, stream).await,
        Route::Item { stream, id } if request.method == Method::DELETE => {
            ingest::delete(app, request, stream, id, body).await
        }
        Route::Item { stream, id } => read::item(app, request, stream, id).await,
        Route::History { stream, id } => past::history(app, request, stream, id).await,
        Route::Diff { stream } => past::diff(app, request, stream).await,
        Route::Log { stream } => read::log(app, request, stream).await,
        Route::LogEvent { stream, position } => {
            read::log_event(app, request, stream, position).await
        }
        Route::Changes { stream } => changes::of_stream(app, request, stream),
        Route::AllChanges => changes::of_streams(app, request),
        Route::Tickets => viewer::ticket(app, request, body).await,
        Route::Admin(route) => admin::handle(app, request, route, body).await,
        Route::Generations { stream, route } => {
            generations::handle(app, request, stream, route, body).await
        }
        Route::Console => console::answer(request),
        Route::OpenApi => openapi::answer(request),
        Route::Healthz => Ok(ops::healthz()),
        Route::Readyz => ops::readyz(app),
        Route::Metrics => ops::metrics(app),
    }
}

impl<L: EventLog, P: PoolStore> App<L, P> {
    /// Who asks, if they may read or operate at all.
    pub(crate) fn access(&self, request: &Request) -> Result<Access, Problem> {
        let key = request.header(header::AUTHORIZATION).presented_key();
        key.and_then(|key| self.engine.access(&key))
            .ok_or_else(|| Code::Unauthorized.into())
    }

    /// Whether an operator's key is not revoked by now: asked again for each part of what takes long.
    pub(crate) fn may_operate(&self, author: &KeyId) -> bool {
        let registry = self.engine.control().registry();
        registry.operator(author.as_str()).is_some()
    }
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Sets a header whose value is ours: digits, names, fixed words.
pub(crate) fn set(response: &mut Response, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            response.headers_mut().insert(name, value);
        }
        Err(error) => tracing::error!(%name, %error, "a header value of ours is not one"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(accept: &str) -> Option<usize> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        let request = Request {
            method: Method::GET,
            query: String::new(),
            parameters: &[],
            headers,
            id: RequestId([0; 16]),
            peer: None,
            seen: Seen::default(),
        };
        request.best_of(&["text/event-stream", "application/x-ndjson"])
    }

    #[test]
    fn the_best_liked_media_type_is_served() {
        for (accept, expected) in [
            ("", Some(0)),
            ("*/*", Some(0)),
            ("text/event-stream", Some(0)),
            ("TEXT/*", Some(0)),
            ("application/*", Some(1)),
            ("application/x-ndjson, */*;q=0.1", Some(1)),
            ("text/event-stream;q=0, application/x-ndjson", Some(1)),
            ("text/event-stream;q=0, */*", Some(1)),
            (
                "text/event-stream;q=0.5, application/x-ndjson;q=0.6",
                Some(1),
            ),
            ("application/json", None),
            ("*/*;q=0", None),
        ] {
            assert_eq!(best(accept), expected, "{accept}");
        }
    }
}
