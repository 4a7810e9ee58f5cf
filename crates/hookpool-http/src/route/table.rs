//! What each path takes: its methods, and the query parameters of each. The router draws from here, and `openapi.json` is held against it.

use std::slice;

use warp::http::Method;

/// A path with what it takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// As the document writes it: what varies is in braces.
    pub(crate) path: &'static str,
    pub(crate) calls: &'static [Call],
}

/// A method and the query parameters that are known with it.
type Call = (&'static str, &'static [&'static str]);

impl Row {
    /// The methods that the path takes; what can be got can also be asked for its head.
    pub(crate) fn methods(&self) -> impl Iterator<Item = &'static str> + use<> {
        let calls: &'static [Call] = self.calls;
        let taken = |(method, _): &'static Call| match *method {
            "GET" => &["GET", "HEAD"],
            _ => slice::from_ref(method),
        };
        calls.iter().flat_map(taken).copied()
    }

    /// The query parameters that are known with a method; none with one that the path does not take.
    pub(crate) fn parameters(&self, method: &Method) -> &'static [&'static str] {
        let method = match method.as_str() {
            "HEAD" => "GET",
            method => method,
        };
        let call = self.calls.iter().find(|(taken, _)| *taken == method);
        call.map_or(&[], |(_, parameters)| parameters)
    }
}

/// One constant for each row, and all of them for the test.
macro_rules! rows {
    ($($name:ident = $path:literal { $($method:ident: [$($parameter:literal),*],)+ })+) => {
        $(pub(crate) const $name: &Row = &Row {
            path: $path,
            calls: &[$((stringify!($method), &[$($parameter),*])),+],
        };)+

        #[cfg(test)]
        pub(crate) const ALL: &[&Row] = &[$($name),+];
    };
}

rows! {
    WEBHOOK = "/api/webhook/{stream}" {
        POST: ["dryRun", "idField"],
    }
    HOOK = "/api/hooks/{hookId}" {
        OPTIONS: [],
        POST: ["dryRun", "idField"],
    }
    INGEST = "/api/ingest" {
        POST: ["idField", "stream"],
    }
    STREAMS = "/api/streams" {
        GET: ["minPosition"],
    }
    STREAM = "/api/streams/{stream}" {
        GET: ["hash", "minPosition"],
    }
    ITEMS = "/api/streams/{stream}/items" {
        GET: ["limit", "after", "at", "expand", "fields", "minPosition", "where"],
    }
    ITEM = "/api/streams/{stream}/items/{item}" {
        GET: ["meta", "at", "expand", "minPosition"],
        DELETE: [],
    }
    HISTORY = "/api/streams/{stream}/items/{item}/history" {
        GET: ["after", "limit", "at", "expand", "minPosition"],
    }
    DIFF = "/api/streams/{stream}/diff" {
        GET: ["from", "to", "expand"],
    }
    LOG = "/api/streams/{stream}/log" {
        GET: ["after", "until", "limit", "body", "at", "minPosition"],
    }
    LOG_EVENT = "/api/streams/{stream}/log/{position}" {
        GET: ["at", "minPosition"],
    }
    CHANGES = "/api/streams/{stream}/changes" {
        GET: ["after", "conflate", "expand", "fields", "heartbeat", "item", "last_event_id", "ticket", "until", "where"],
    }
    ALL_CHANGES = "/api/changes" {
        GET: ["stream", "after", "conflate", "expand", "fields", "heartbeat", "item", "last_event_id", "ticket", "until", "where"],
    }
    TICKETS = "/api/tickets" {
        POST: [],
    }
    CONNECTORS = "/api/admin/connectors" {
        GET: [],
        POST: [],
    }
    CONNECTOR = "/api/admin/connectors/{connector}" {
        GET: [],
        PATCH: [],
    }
    ENABLE = "/api/admin/connectors/{connector}:enable" {
        POST: [],
    }
    DISABLE = "/api/admin/connectors/{connector}:disable" {
        POST: [],
    }
    ROTATE_KEY = "/api/admin/connectors/{connector}/keys:rotate" {
        POST: [],
    }
    ROTATE_SIGNING_KEY = "/api/admin/connectors/{connector}/signing-keys:rotate" {
        POST: [],
    }
    ROTATE_HOOK = "/api/admin/connectors/{connector}/hooks:rotate" {
        POST: [],
    }
    REVOKE_HOOK = "/api/admin/connectors/{connector}/hooks/{keyId}" {
        DELETE: [],
    }
    KEY = "/api/admin/connectors/{connector}/keys/{keyId}" {
        DELETE: [],
    }
    SIGNING_KEY = "/api/admin/connectors/{connector}/signing-keys/{keyId}" {
        DELETE: [],
    }
    READERS = "/api/admin/readers" {
        GET: [],
        POST: [],
    }
    READER = "/api/admin/readers/{reader}" {
        DELETE: [],
    }
    OPERATORS = "/api/admin/operators" {
        GET: [],
        POST: [],
    }
    OPERATOR = "/api/admin/operators/{keyId}" {
        DELETE: [],
    }
    FOLLOWERS = "/api/admin/followers" {
        GET: [],
    }
    REJECTIONS = "/api/admin/rejections" {
        GET: ["connector", "reason", "after", "limit"],
    }
    REJECTION = "/api/admin/rejections/{rejection}" {
        GET: [],
    }
    RETRY_REJECTION = "/api/admin/rejections/{rejection}:retry" {
        POST: ["force"],
    }
    RETRY_REJECTIONS = "/api/admin/rejections:retry" {
        POST: ["connector", "after", "force"],
    }
    HEAD = "/api/admin/head" {
        GET: [],
    }
    EXPORT = "/api/admin/export" {
        GET: ["after", "until", "stream", "format"],
    }
    BLOCKS = "/api/admin/blocks" {
        GET: ["log", "after"],
    }
    PROJECTION = "/api/admin/streams/{stream}/projection" {
        GET: ["version"],
        PUT: ["check", "item"],
    }
    REBUILDS = "/api/admin/streams/{stream}/rebuilds" {
        GET: [],
        POST: [],
    }
    REBUILD = "/api/admin/streams/{stream}/rebuilds/{rebuild}" {
        GET: [],
    }
    REBUILD_DIFF = "/api/admin/streams/{stream}/rebuilds/{rebuild}/diff" {
        GET: ["limit"],
    }
    PROMOTE = "/api/admin/streams/{stream}/rebuilds/{rebuild}:promote" {
        POST: [],
    }
    CANCEL = "/api/admin/streams/{stream}/rebuilds/{rebuild}:cancel" {
        POST: [],
    }
    PAUSE = "/api/admin/streams/{stream}/rebuilds/{rebuild}:pause" {
        POST: [],
    }
    RESUME = "/api/admin/streams/{stream}/rebuilds/{rebuild}:resume" {
        POST: [],
    }
    ROLLBACK = "/api/admin/streams/{stream}:rollback" {
        POST: [],
    }
    RELEASE = "/api/admin/streams/{stream}:release" {
        POST: [],
    }
    QUARANTINE = "/api/admin/streams/{stream}/quarantine" {
        GET: ["generation", "after", "limit"],
    }
    RETENTION = "/api/admin/streams/{stream}/retention" {
        GET: [],
        PUT: ["check"],
        DELETE: [],
    }
    CONSOLE = "/" {
        GET: [],
    }
    OPENAPI = "/api/openapi.json" {
        GET: [],
    }
    HEALTHZ = "/healthz" {
        GET: [],
    }
    READYZ = "/readyz" {
        GET: [],
    }
    METRICS = "/metrics" {
        GET: [],
    }
}
