//! Which path means what. Segments are compared as sent: no decoding, no trailing slashes, no aliases.

use std::fmt;

use hookpool_core::{event::RequestId, position::Position};

/// A path of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Webhook {
        stream: &'a str,
    },
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
    Enable { name: &'a str, enabled: bool },
    Followers,
    Readers,
    Reader { name: &'a str },
    Rejections,
    Rejection { id: RequestId },
    RetryRejection { id: RequestId },
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
            ["healthz"] => Self::Healthz,
            ["readyz"] => Self::Readyz,
            ["metrics"] => Self::Metrics,
            ["api", "webhook", stream] => Self::Webhook {
                stream: name(stream)?,
            },
            ["api", "hooks", hook] if !hook.is_empty() => Self::Hook { hook: Secret(hook) },
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

    /// The methods that the path takes.
    pub(crate) fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Webhook { .. } | Self::Tickets => &["POST"],
            Self::Hook { .. } => &["OPTIONS", "POST"],
            Self::Admin(route) => route.methods(),
            Self::Generations { route, .. } => route.methods(),
            _ => &["GET", "HEAD"],
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
            ["followers"] => Self::Followers,
            ["readers"] => Self::Readers,
            ["readers", one] => Self::Reader { name: name(one)? },
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

    fn rejection(segment: &str) -> Option<Self> {
        match segment.split_once(':') {
            None => RequestId::parse(segment).map(|id| Self::Rejection { id }),
            Some((id, "retry")) => RequestId::parse(id).map(|id| Self::RetryRejection { id }),
            Some(_) => None,
        }
    }

    /// The query parameters that the path takes.
    pub(crate) fn parameters(&self) -> &'static [&'static str] {
        match self {
            Self::Export => &["after", "until", "stream", "format"],
            Self::Blocks => &["log", "after"],
            Self::Rejections => &["connector", "reason", "after", "limit"],
            Self::RetryRejections => &["connector"],
            _ => &[],
        }
    }

    fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Connectors | Self::Readers => &["GET", "HEAD", "POST"],
            Self::Connector { .. } => &["GET", "HEAD", "PATCH"],
            Self::Followers
            | Self::Head
            | Self::Export
            | Self::Blocks
            | Self::Rejections
            | Self::Rejection { .. } => &["GET", "HEAD"],
            Self::RotateKey { .. }
            | Self::RotateSigningKey { .. }
            | Self::RotateHook { .. }
            | Self::Enable { .. }
            | Self::RetryRejection { .. }
            | Self::RetryRejections => &["POST"],
            Self::Key { .. } | Self::Hook { .. } | Self::Reader { .. } => &["DELETE"],
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

    fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Projection => &["GET", "HEAD", "PUT"],
            Self::Rebuilds => &["GET", "HEAD", "POST"],
            Self::Rebuild { .. } | Self::Diff { .. } | Self::Quarantine => &["GET", "HEAD"],
            Self::Retention => &["GET", "HEAD", "PUT", "DELETE"],
            Self::Act { .. } | Self::Rollback | Self::Release => &["POST"],
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
            "/",
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
