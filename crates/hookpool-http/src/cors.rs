//! Pages of other origins: those that an operator names, exactly, may read and fetch tickets, with the key that the page itself sends.
//! Never with cookies, and nothing that writes or operates.

use warp::{
    http::{HeaderValue, Method, StatusCode, header},
    reply::Response,
};

use crate::{
    app::{App, Request, set},
    route::Route,
};
use hookpool_core::verify::Header;
use hookpool_store::{EventLog, PoolStore};

/// What a page may send besides what every page may.
const REQUEST_HEADERS: &str = "Authorization, Content-Type, If-None-Match, Last-Event-ID, Prefer";
/// What a page may see besides what every page may.
const RESPONSE_HEADERS: &str = "ETag, Link, Retry-After, X-Request-Id";
const MAX_AGE_SECONDS: &str = "600";

impl<L: EventLog, P: PoolStore> App<L, P> {
    /// Answers the question that a browser asks before a page's request, if the page may make it.
    pub(crate) fn preflight(&self, request: &Request, route: &Route<'_>) -> Option<Response> {
        let asks = request.method == Method::OPTIONS
            && request
                .headers
                .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || !is_for_pages(route) {
            return None;
        }
        self.named_origin(request)?;
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        let methods = route.row().methods();
        let methods: Vec<_> = methods.filter(|method| !writes(method)).collect();
        set(
            &mut response,
            header::ACCESS_CONTROL_ALLOW_METHODS,
            &methods.join(", "),
        );
        set(
            &mut response,
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            REQUEST_HEADERS,
        );
        set(
            &mut response,
            header::ACCESS_CONTROL_MAX_AGE,
            MAX_AGE_SECONDS,
        );
        Some(response)
    }

    /// Lets the page that asked see the answer, be it an error, if its origin is one of those that are named.
    pub(crate) fn show_to_page(
        &self,
        request: &Request,
        route: Option<&Route<'_>>,
        response: &mut Response,
    ) {
        let for_pages = route.is_some_and(is_for_pages) && !writes(request.method.as_str());
        if self.settings.cors_origins.is_empty() || !for_pages {
            return;
        }
        // A cache must not give the answer for one origin to another.
        let vary = HeaderValue::from_static("Origin");
        response.headers_mut().append(header::VARY, vary);
        if let Some(origin) = self.named_origin(request) {
            set(response, header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            set(
                response,
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                RESPONSE_HEADERS,
            );
        }
    }

    fn named_origin(&self, request: &Request) -> Option<&str> {
        let Header::One(origin) = request.header(header::ORIGIN) else {
            return None;
        };
        let mut named = self.settings.cors_origins.iter();
        named
            .find(|named| named.as_bytes() == origin)
            .map(String::as_str)
    }
}

/// Of the paths that pages may read, one takes deletions too.
fn writes(method: &str) -> bool {
    method == "DELETE"
}

/// Reads, tickets and what describes them; never ingest, administration or metrics.
fn is_for_pages(route: &Route<'_>) -> bool {
    match route {
        Route::Streams
        | Route::Stream { .. }
        | Route::Items { .. }
        | Route::Item { .. }
        | Route::History { .. }
        | Route::Diff { .. }
        | Route::Log { .. }
        | Route::LogEvent { .. }
        | Route::Changes { .. }
        | Route::AllChanges
        | Route::Tickets
        | Route::OpenApi => true,
        Route::Webhook { .. }
        | Route::Hook { .. }
        | Route::Ingest
        | Route::Admin(_)
        | Route::Generations { .. }
        | Route::Healthz
        | Route::Readyz
        | Route::Console
        | Route::Metrics => false,
    }
}
