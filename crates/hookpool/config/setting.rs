//! How the text of a setting becomes a value. Errors are what follows the name in a sentence.

use std::{fmt, net::SocketAddr, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

pub(super) trait Setting: Sized {
    /// What a value is called in help texts.
    const KIND: &str;

    fn parse(text: &str) -> Result<Self, String>;

    /// The value of a setting that was not set and has no default.
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: Setting> Setting for Option<T> {
    const KIND: &str = T::KIND;

    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl Setting for PathBuf {
    const KIND: &str = "PATH";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("is empty".to_owned())
        } else {
            Ok(text.into())
        }
    }
}

impl Setting for SocketAddr {
    const KIND: &str = "ADDRESS";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| "is not an address with a port, such as 127.0.0.1:8080".to_owned())
    }
}

impl Setting for usize {
    const KIND: &str = "NUMBER";

    fn parse(text: &str) -> Result<Self, String> {
        within(text, 1..=Self::MAX).ok_or_else(|| "is not a whole number from 1 on".to_owned())
    }
}

impl Setting for Duration {
    const KIND: &str = "SECONDS";

    fn parse(text: &str) -> Result<Self, String> {
        within(text, 1..=86_400)
            .map(Self::from_secs)
            .ok_or_else(|| "is not a whole number of seconds from 1 to 86400".to_owned())
    }
}

fn within<T: FromStr + PartialOrd>(text: &str, range: RangeInclusive<T>) -> Option<T> {
    text.parse().ok().filter(|number| range.contains(number))
}

/// `http://` or `https://` and a host, without a slash at its end.
#[derive(Debug, Clone)]
pub(crate) struct PublicUrl(String);

impl Setting for PublicUrl {
    const KIND: &str = "URL";

    fn parse(text: &str) -> Result<Self, String> {
        let is_url = ["http://", "https://"].iter().any(|scheme| {
            text.strip_prefix(scheme)
                .is_some_and(|host| !host.is_empty())
        });
        if is_url {
            Ok(Self(text.trim_end_matches('/').to_owned()))
        } else {
            Err("does not start with http:// or https://".to_owned())
        }
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the server's log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl Setting for LogFormat {
    const KIND: &str = "text|json";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("is not one of text, json".to_owned()),
        }
    }
}
