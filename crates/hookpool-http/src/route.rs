//! Which path means what. Segments are compared as sent: no decoding, no trailing slashes, no aliases.

mod table;

use std::fmt;

use hookpool_core::position::Position;

#[cfg(test)]
pub(crate) use table::ALL;
pub(crate) use table::{HOOK, Row};

/// A path of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Webhook {
        stream: &'a str,
    },
    /// Many events in one request.
    Ingest,
    /// The segment is a secret.
    Hook {
        hook: Secret<'a>,
    },
    Streams,
    Stream {
        stream: &'a str,
    },
    Items {
        stream: &'a str,
    },
    /// `id` is still percent-encoded.
    Item {
        stream: &'a str,
        id: &'a str,
    },
    /// `id` is still percent-encoded.
    History {
        stream: &'a str,
        id: &'a str,
    },
    Diff {
        stream: &'a str,
    },
    Log {
        stream: &'a str,
    },
    LogEvent {
        stream: &'a str,
        position: Position,
    },
    Changes {
        stream: &'a str,
    },
    /// Of the streams that the query names.
    AllChanges,
    Tickets,
    Admin(AdminRoute<'a>),
    Generations {
        stream: &'a str,
        route: GenerationsRoute<'a>,
    },
    Console,
    OpenApi,
    Healthz,
    Readyz,
    Metrics,
}

/// A segment that must not be told to anybody, not even to the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secret<'a>(pub(crate) &'a str);

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A path under `/api/admin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdminRoute<'a> {
    Connectors,
    Connector { name: &'a str },
    RotateKey { name: &'a str },
    RotateSigningKey { name: &'a str },
    RotateHook { name: &'a str },
    Key { name: &'a str, key_id: &'a str },
    Hook { name: &'a str, key_id: &'a str },
    SigningKey { name: &'a str, key_id: &'a str },
    Enable { name: &'a str, enabled: bool },
    Followers,
    Readers,
    Reader { name: &'a str },
    Operators,
    Operator { key_id: &'a str },
    Rejections,
    Rejection { id: &'a str },
    RetryRejection { id: &'a str },
    RetryRejections,
    Head,
    Export,
    Blocks,
}

/// A path under `/api/admin/streams/{s}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GenerationsRoute<'a> {
    Projection,
    Rebuilds,
    Rebuild { id: &'a str },
    Diff { id: &'a str },
    Act { id: &'a str, act: RebuildAct },
    Rollback,
    Release,
    Quarantine,
    Retention,
}

/// What can be done with a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RebuildAct {
    Promote,
    Cancel,
    Pause,
    Resume,
}

impl<'a> Route<'a> {
    pub(crate) fn parse(path: &'a str) -> Option<Self> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        Some(match segments.as_slice() {
            [""] => Self::Console,
            ["healthz"] => Self::Healthz,
            ["readyz"] => Self::Readyz,
            ["metrics"] => Self::Metrics,
            ["api", "openapi.json"] => Self::OpenApi,
            ["api", "webhook", stream] => Self::Webhook {
                stream: name(stream)?,
            },
            ["api", "hooks", hook] if !hook.is_empty() => Self::Hook { hook: Secret(hook) },
            ["api", "ingest"] => Self::Ingest,
            ["api", "changes"] => Self::AllChanges,
            ["api", "tickets"] => Self::Tickets,
            ["api", "streams"] => Self::Streams,
            ["api", "streams", stream, rest @ ..] => Self::of_stream(name(stream)?, rest)?,
            ["api", "admin", "streams", one, rest @ ..] => GenerationsRoute::parse(one, rest)?,
            ["api", "admin", rest @ ..] => Self::Admin(AdminRoute::parse(rest)?),
            _ => return None,
        })
    }

    fn of_stream(stream: &'a str, rest: &[&'a str]) -> Option<Self> {
        Some(match rest {
            [] => Self::Stream { stream },
            ["items"] => Self::Items { stream },
            ["items", id] => Self::Item { stream, id },
            ["items", id, "history"] => Self::History { stream, id },
            ["diff"] => Self::Diff { stream },
            ["log"] => Self::Log { stream },
            ["log", position] => Self::LogEvent {
                stream,
                position: decimal(position)?,
            },
            ["changes"] => Self::Changes { stream },
            _ => return None,
        })
    }

    /// What the path takes.
    pub(crate) fn row(&self) -> &'static Row {
        match self {
            Self::Webhook { .. } => table::WEBHOOK,
            Self::Hook { .. } => HOOK,
            Self::Ingest => table::INGEST,
            Self::Streams => table::STREAMS,
            Self::Stream { .. } => table::STREAM,
            Self::Items { .. } => table::ITEMS,
            Self::Item { .. } => table::ITEM,
            Self::History { .. } => table::HISTORY,
            Self::Diff { .. } => table::DIFF,
            Self::Log { .. } => table::LOG,
            Self::LogEvent { .. } => table::LOG_EVENT,
            Self::Changes { .. } => table::CHANGES,
            Self::AllChanges => table::ALL_CHANGES,
            Self::Tickets => table::TICKETS,
            Self::Admin(route) => route.row(),
            Self::Generations { route, .. } => route.row(),
            Self::Console => table::CONSOLE,
            Self::OpenApi => table::OPENAPI,
            Self::Healthz => table::HEALTHZ,
            Self::Readyz => table::READYZ,
            Self::Metrics => table::METRICS,
        }
    }
}

impl<'a> AdminRoute<'a> {
    fn parse(segments: &[&'a str]) -> Option<Self> {
        Some(match segments {
            ["connectors"] => Self::Connectors,
            ["connectors", one] => Self::connector(one)?,
            ["connectors", one, "keys:rotate"] => Self::RotateKey { name: name(one)? },
            ["connectors", one, "signing-keys:rotate"] => {
                Self::RotateSigningKey { name: name(one)? }
            }
            ["connectors", one, "hooks:rotate"] => Self::RotateHook { name: name(one)? },
            ["connectors", one, "keys", key_id] => Self::Key {
                name: name(one)?,
                key_id,
            },
            ["connectors", one, "hooks", key_id] => Self::Hook {
                name: name(one)?,
                key_id,
            },
            ["connectors", one, "signing-keys", key_id] => Self::SigningKey {
                name: name(one)?,
                key_id,
            },
            ["followers"] => Self::Followers,
            ["readers"] => Self::Readers,
            ["readers", one] => Self::Reader { name: name(one)? },
            ["operators"] => Self::Operators,
            ["operators", key_id] => Self::Operator { key_id },
            ["rejections"] => Self::Rejections,
            ["rejections:retry"] => Self::RetryRejections,
            ["rejections", one] => Self::rejection(one)?,
            ["head"] => Self::Head,
            ["export"] => Self::Export,
            ["blocks"] => Self::Blocks,
            _ => return None,
        })
    }

    fn connector(segment: &'a str) -> Option<Self> {
        let (text, action) = segment
            .split_once(':')
            .map_or((segment, None), |(name, action)| (name, Some(action)));
        let name = name(text)?;
        Some(match action {
            None => Self::Connector { name },
            Some("enable") => Self::Enable {
                name,
                enabled: true,
            },
            Some("disable") => Self::Enable {
                name,
                enabled: false,
            },
            Some(_) => return None,
        })
    }

    fn rejection(segment: &'a str) -> Option<Self> {
        match segment.split_once(':') {
            None => Some(Self::Rejection { id: segment }),
            Some((id, "retry")) => Some(Self::RetryRejection { id }),
            Some(_) => None,
        }
    }

    fn row(self) -> &'static Row {
        match self {
            Self::Connectors => table::CONNECTORS,
            Self::Connector { .. } => table::CONNECTOR,
            Self::RotateKey { .. } => table::ROTATE_KEY,
            Self::RotateSigningKey { .. } => table::ROTATE_SIGNING_KEY,
            Self::RotateHook { .. } => table::ROTATE_HOOK,
            Self::Key { .. } => table::KEY,
            Self::Hook { .. } => table::REVOKE_HOOK,
            Self::SigningKey { .. } => table::SIGNING_KEY,
            Self::Enable { enabled: true, .. } => table::ENABLE,
            Self::Enable { enabled: false, .. } => table::DISABLE,
            Self::Followers => table::FOLLOWERS,
            Self::Readers => table::READERS,
            Self::Reader { .. } => table::READER,
            Self::Operators => table::OPERATORS,
            Self::Operator { .. } => table::OPERATOR,
            Self::Head => table::HEAD,
            Self::Rejections => table::REJECTIONS,
            Self::Rejection { .. } => table::REJECTION,
            Self::RetryRejection { .. } => table::RETRY_REJECTION,
            Self::RetryRejections => table::RETRY_REJECTIONS,
            Self::Export => table::EXPORT,
            Self::Blocks => table::BLOCKS,
        }
    }
}

impl<'a> GenerationsRoute<'a> {
    fn parse(stream: &'a str, rest: &[&'a str]) -> Option<Route<'a>> {
        let (stream, act) = stream
            .split_once(':')
            .map_or((stream, None), |(stream, act)| (stream, Some(act)));
        let route = match (act, rest) {
            (Some("rollback"), []) => Self::Rollback,
            (Some("release"), []) => Self::Release,
            (None, ["projection"]) => Self::Projection,
            (None, ["quarantine"]) => Self::Quarantine,
            (None, ["retention"]) => Self::Retention,
            (None, ["rebuilds"]) => Self::Rebuilds,
            (None, ["rebuilds", id]) => Self::rebuild(id)?,
            (None, ["rebuilds", id, "diff"]) => Self::Diff { id },
            _ => return None,
        };
        let stream = name(stream)?;
        Some(Route::Generations { stream, route })
    }

    fn rebuild(segment: &'a str) -> Option<Self> {
        let Some((id, act)) = segment.split_once(':') else {
            return Some(Self::Rebuild { id: segment });
        };
        let act = match act {
            "promote" => RebuildAct::Promote,
            "cancel" => RebuildAct::Cancel,
            "pause" => RebuildAct::Pause,
            "resume" => RebuildAct::Resume,
            _ => return None,
        };
        Some(Self::Act { id, act })
    }

    fn row(self) -> &'static Row {
        match self {
            Self::Projection => table::PROJECTION,
            Self::Rebuilds => table::REBUILDS,
            Self::Rebuild { .. } => table::REBUILD,
            Self::Diff { .. } => table::REBUILD_DIFF,
            Self::Act { act, .. } => match act {
                RebuildAct::Promote => table::PROMOTE,
                RebuildAct::Cancel => table::CANCEL,
                RebuildAct::Pause => table::PAUSE,
                RebuildAct::Resume => table::RESUME,
            },
            Self::Rollback => table::ROLLBACK,
            Self::Release => table::RELEASE,
            Self::Quarantine => table::QUARANTINE,
            Self::Retention => table::RETENTION,
        }
    }
}

/// A segment that can name a stream, connector or reader.
fn name(segment: &str) -> Option<&str> {
    hookpool_core::name::StreamName::new(segment)
        .is_ok()
        .then_some(segment)
}

fn decimal(segment: &str) -> Option<Position> {
    let digits = !segment.is_empty()
        && !segment.starts_with('0')
        && segment.bytes().all(|byte| byte.is_ascii_digit());
    if digits {
        segment.parse().ok().map(Position)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_no_aliases() {
        assert_eq!(
            Route::parse("/api/webhook/sales"),
            Some(Route::Webhook { stream: "sales" })
        );
        for bad in [
            "",
            "api/webhook/sales",
            "/api/webhook",
            "/api/webhook/",
            "/api/webhook/sales/",
            "/api//webhook/sales",
            "/API/webhook/sales",
            "/api/webhook/%73ales",
            "/api/webhook/..",
            "/api/webhook/a%2Fb",
            "/api/webhook/sales;a=b",
            "/api/webhook/$all",
            "/api/streams/sales/log/+1",
            "/api/streams/sales/log/",
            "/api/ingest/",
            "/api/hooks",
            "/api/hooks/",
            "/api/hooks/hk_a_b/",
            "/api/admin",
            "/api/admin/connectors/sales:explode",
            "/healthz/",
        ] {
            assert_eq!(Route::parse(bad), None, "{bad}");
        }
        let longest = format!("/api/webhook/{}", "a".repeat(64));
        assert!(Route::parse(&longest).is_some());
        assert!(Route::parse(&format!("{longest}a")).is_none());
    }
}
