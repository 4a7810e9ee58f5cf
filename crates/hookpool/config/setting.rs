//! How the text of a setting becomes a value. Errors are what follows the name in a sentence.

use std::{fmt, net::SocketAddr, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

use hookpool_http::Network;

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

impl Setting for u32 {
    const KIND: &str = "NUMBER";

    fn parse(text: &str) -> Result<Self, String> {
        within(text, 1..=1_000_000)
            .ok_or_else(|| "is not a whole number from 1 to 1000000".to_owned())
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

/// Origins as browsers send them: scheme, host, and a port that is not the scheme's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origins(pub(crate) Vec<String>);

impl Setting for Origins {
    const KIND: &str = "URL,...";

    fn parse(text: &str) -> Result<Self, String> {
        let origins = text
            .split(',')
            .map(str::trim)
            .filter(|origin| !origin.is_empty());
        let origins: Vec<_> = origins.map(ToOwned::to_owned).collect();
        if origins.iter().all(|origin| is_origin(origin)) {
            Ok(Self(origins))
        } else {
            Err(
                "is not a list of origins such as https://app.example.com, without a path"
                    .to_owned(),
            )
        }
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

/// Addresses of proxies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Networks(pub(crate) Vec<Network>);

impl Setting for Networks {
    const KIND: &str = "ADDRESS,...";

    fn parse(text: &str) -> Result<Self, String> {
        let networks = text.split(',').map(str::trim).filter(|it| !it.is_empty());
        let networks: Result<Vec<_>, _> = networks.map(str::parse).collect();
        networks.map(Self).map_err(|_| {
            "is not a list of addresses such as 192.0.2.1 or networks such as 192.0.2.0/24"
                .to_owned()
        })
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

/// Whether a browser would send exactly this. `*` and `null`, which stand for anybody, are none.
fn is_origin(text: &str) -> bool {
    let Some((scheme @ ("http" | "https"), host)) = text.split_once("://") else {
        return false;
    };
    let default_port = if scheme == "http" { ":80" } else { ":443" };
    let plain = |byte: u8| {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || matches!(byte, b'.' | b'-' | b':' | b'[' | b']')
    };
    !host.is_empty() && host.bytes().all(plain) && !host.ends_with(default_port)
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

/// Whether a crash may leave a core dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CoreDumps {
    On,
    Off,
}

impl Setting for CoreDumps {
    const KIND: &str = "on|off";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("is not one of on, off".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        let origins = Origins::parse("https://a.example, http://[::1]:8000,").unwrap();
        assert_eq!(origins.0, ["https://a.example", "http://[::1]:8000"]);
        for bad in [
            "*",
            "null",
            "a.example",
            "https://",
            "https://a.example/",
            "https://A.example",
            "https://*.example",
            "https://a.example:443",
            "http://u@h",
            "https://a.example https://b.example",
        ] {
            assert!(Origins::parse(bad).is_err(), "{bad}");
        }
    }
}
