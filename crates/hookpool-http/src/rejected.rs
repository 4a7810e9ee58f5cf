//! What a problem with a delivery leaves behind: the budget of its address, a count, and what its operator will want to know. The sender is told
//! none of it.

use std::{borrow::Cow, net::IpAddr, sync::OnceLock};

use bytes::Bytes;
use hookpool_core::{
    bulk::Form,
    idempotency::Call,
    name::StreamName,
    rate::Wait,
    rejection::{Credential, HeaderShape, Reason, Rejection, Shown, Unkept, Way},
};
use hookpool_engine::rejections::{Delivery, Refused};
use hookpool_store::{EventLog, PoolStore};
use warp::http::{HeaderName, HeaderValue, Method, header};

use crate::{
    app::{App, Request},
    bulk, peer,
    problem::{Code, Problem},
    query::Query,
    route::{Route, Secret},
};

/// Headers that are told of, and the bytes of their names.
const HEADERS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 64;
/// Never looked at again.
const CREDENTIALS: [HeaderName; 3] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::PROXY_AUTHORIZATION,
];

/// What was read of a delivery until it was refused.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    begun: OnceLock<()>,
    body: OnceLock<Bytes>,
    other_stream: OnceLock<Option<StreamName>>,
}

impl Seen {
    /// Its body is read from now on.
    pub(crate) fn begin(&self) {
        self.begun.get_or_init(|| ());
    }

    /// Its body is this.
    pub(crate) fn body(&self, body: &Bytes) {
        self.body.get_or_init(|| body.clone());
    }

    /// It names a stream that its key does not write to; which, if that is a name at all.
    pub(crate) fn other_stream(&self, named: Option<StreamName>) {
        self.other_stream.get_or_init(|| named);
    }
}

/// A delivery that is being refused.
pub(crate) struct Rejected {
    reason: Reason,
    way: Way,
    stream: Option<String>,
    shown: Shown,
}

/// What is answered in the end, and what is to be noted.
pub(crate) fn judge<L: EventLog, P: PoolStore>(
    app: &App<L, P>,
    request: &Request,
    route: Option<Route<'_>>,
    problem: Problem,
) -> (Problem, Option<Rejected>) {
    let meant = route.and_then(|route| Meant::of(route, request));
    if problem.code() == Code::Unauthorized
        && let Err(wait) = app.spend(request)
    {
        if meant.is_some() {
            app.engine.rejections().count(Reason::AddressBudget, None);
        }
        return (Problem::wait(Code::TooManyFailures, wait.seconds), None);
    }
    let rejected =
        meant
            .zip(problem.code().rejection())
            .map(|(Meant { way, stream, hook }, reason)| {
                let credential = match hook {
                    Some(hook) => Credential::Hook(hook),
                    None => Credential::Authorization(request.header(header::AUTHORIZATION)),
                };
                let mut stream = stream.map(Cow::into_owned);
                let mut shown = app.engine.shown(credential, stream.as_deref());
                if let Some(named) = request.seen.other_stream.get() {
                    shown.reason.get_or_insert(Reason::OtherStream);
                    stream = Some(
                        named
                            .as_ref()
                            .map(StreamName::to_string)
                            .unwrap_or_default(),
                    );
                }
                Rejected {
                    // What is wrong with a credential is the credential's to say.
                    reason: reason.or(shown.reason).unwrap_or(Reason::Other),
                    way,
                    stream,
                    shown,
                }
            });
    (problem, rejected)
}

/// What a request that delivers was meant for.
struct Meant<'a> {
    way: Way,
    stream: Option<Cow<'a, str>>,
    hook: Option<&'a str>,
}

impl<'a> Meant<'a> {
    /// `None` if it does not deliver.
    fn of(route: Route<'a>, request: &Request) -> Option<Self> {
        let to = |way, stream: &'a str| Self {
            way,
            stream: Some(stream.into()),
            hook: None,
        };
        match route {
            Route::Webhook { stream } => Some(to(Way::Webhook, stream)),
            Route::Hook { hook: Secret(hook) } if request.method == Method::POST => Some(Self {
                way: Way::Hook,
                stream: None,
                hook: Some(hook),
            }),
            // What its body names instead is told when it was read.
            Route::Ingest => Some(Self {
                way: Way::Ingest,
                stream: named(request).map(Cow::Owned),
                hook: None,
            }),
            Route::Item { stream, .. } if request.method == Method::DELETE => {
                Some(to(Way::Delete, stream))
            }
            _ => None,
        }
    }
}

/// The stream that the query of a request of many events names.
fn named(request: &Request) -> Option<String> {
    Query::new(&request.query).text("stream").ok().flatten()
}

impl Rejected {
    /// Whether the rest of the body is worth reading: only of who showed a good credential, and if none of it was read; a large one only if it is
    /// kept.
    pub(crate) fn wants_body<L: EventLog, P: PoolStore>(
        &self,
        app: &App<L, P>,
        request: &Request,
    ) -> bool {
        self.shown.is_good()
            && request.seen.begun.get().is_none()
            && (self.way != Way::Ingest || self.is_kept(app))
    }

    fn is_kept<L: EventLog, P: PoolStore>(&self, app: &App<L, P>) -> bool {
        let registry = app.engine.control().registry();
        let name = self.shown.connector.as_ref();
        name.and_then(|name| registry.connector(name.as_str()))
            .is_some_and(|connector| connector.keep_rejected)
    }

    /// Notes it.
    pub(crate) fn note<L: EventLog, P: PoolStore>(
        self,
        app: &App<L, P>,
        request: &Request,
        problem: &Problem,
        rest: Option<Bytes>,
    ) {
        let body = request.seen.body.get().cloned().or(rest);
        let registry = app.engine.control().registry();
        let Shown {
            connector, key_id, ..
        } = &self.shown;
        let connector_stream = connector
            .as_ref()
            .filter(|_| self.stream.is_none())
            .and_then(|name| registry.connector(name.as_str()))
            .map(|connector| connector.stream.clone());
        // Any other text in its place may be anything, a key for example.
        let known = self
            .stream
            .as_deref()
            .filter(|stream| registry.has_stream(stream));
        let known = known.and_then(|stream| StreamName::new(stream).ok());
        let rejection = Rejection {
            id: request.id,
            time: app.engine.now(),
            reason: self.reason,
            status: problem.status().as_u16(),
            findings: Vec::new(),
            way: self.way,
            stream: known.or(connector_stream),
            connector: connector.clone(),
            key_id: key_id.clone(),
            address: app.origin(request).map(|address| address.to_string()),
            body_bytes: body.as_ref().map_or(0, Bytes::len) as u64,
            headers: shapes(request),
            kept: false,
            unkept: None,
            known_by: None,
            retried: None,
        };
        let delivery = self.shown.is_good().then(|| Delivery {
            headers: headers(request),
            asked: asked(self.way, request),
            body,
        });
        app.engine.rejections().refuse(Refused {
            rejection,
            delivery,
        });
    }
}

/// What of a request beside its body and headers counts when it is tried again.
fn asked(way: Way, request: &Request) -> Result<(Call, Option<String>), Unkept> {
    let query = Query::new(&request.query);
    let call = match way {
        Way::Webhook | Way::Hook => match query.text("dryRun") {
            Ok(None) => Call::Webhook,
            _ => return Err(Unkept::NoDelivery),
        },
        Way::Delete => return Err(Unkept::NoDelivery),
        Way::Ingest => match bulk::form(request) {
            Ok(Form::Items) => Call::Items,
            Ok(Form::Lines { .. }) => Call::Lines,
            Err(_) => return Err(Unkept::Form),
        },
    };
    Ok((call, query.text("idField").ok().flatten()))
}

fn shapes(request: &Request) -> Vec<HeaderShape> {
    let headers = request.headers.iter().take(HEADERS_MAX);
    let shape = |(name, value): (&HeaderName, &HeaderValue)| HeaderShape {
        name: name.as_str().chars().take(NAME_BYTES_MAX).collect(),
        bytes: value.len(),
    };
    headers.map(shape).collect()
}

fn headers(request: &Request) -> Vec<(String, Bytes)> {
    let headers = request.headers.iter();
    let others = headers.filter(|(name, _)| !CREDENTIALS.contains(name));
    let copied = others.map(|(name, value)| {
        let value = Bytes::copy_from_slice(value.as_bytes());
        (name.as_str().to_owned(), value)
    });
    copied.collect()
}

impl<L: EventLog, P: PoolStore> App<L, P> {
    /// Where a request comes from, if it came over a connection.
    pub(crate) fn origin(&self, request: &Request) -> Option<IpAddr> {
        let peer = request.peer?;
        Some(peer::origin(
            peer,
            &request.headers,
            &self.settings.trusted_proxies,
        ))
    }

    fn spend(&self, request: &Request) -> Result<(), Wait> {
        match self.origin(request) {
            Some(address) => self.failures.spend(address, self.engine.now()),
            None => Ok(()),
        }
    }
}
