//! `GET /`: a page that looks at streams, items, changes and operations with the key that is typed into it. It has no rights of its own:
//! everything that it shows comes over the API that everybody has.

use std::sync::LazyLock;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use warp::{http::header, reply::Response};

use crate::{
    app::{Request, set},
    problem::Problem,
    query::Query,
};

/// One file: the page loads nothing.
const PAGE: &str = include_str!("console.html");

/// Only the script and the style of the page itself run, it speaks to this server only, and no other page may show it in a frame.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let [script, style] = ["script", "style"].map(|tag| {
        let hash = BASE64_STANDARD.encode(Sha256::digest(inside(tag)));
        format!("{tag}-src 'sha256-{hash}'")
    });
    format!(
        "default-src 'none'; {script}; {style}; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// What stands in the one element of this name.
fn inside(tag: &str) -> &'static str {
    let begin = PAGE.split_once(&format!("<{tag}>"));
    let text = begin.and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
    text.map_or("", |(text, _)| text)
}

/// The page, for whoever asks: a key is needed for what it shows.
pub(crate) fn answer(request: &Request) -> Result<Response, Problem> {
    Query::of(request)?;
    let mut response = Response::new(PAGE.into());
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::CACHE_CONTROL, "no-cache"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        set(&mut response, name, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_and_writes_no_markup() {
        assert!(!inside("script").is_empty() && !inside("style").is_empty());
        for bad in [
            "http://",
            "https://",
            "src=",
            "innerHTML",
            "outerHTML",
            "document.write",
            "eval(",
            "Storage",
            " style=",
        ] {
            assert!(!PAGE.contains(bad), "{bad}");
        }
        assert_eq!(PAGE.matches("<script").count(), 1);
    }
}
