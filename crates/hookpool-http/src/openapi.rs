//! `GET /api/openapi.json`: the whole surface for programs, as it is written in `openapi.json`.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};
use warp::{http::header, reply::Response};

use crate::{
    app::{Request, set},
    problem::Problem,
    query::Query,
    read::{matches_etag, not_modified},
    render::json_response,
};

/// Written by hand and served to the letter.
const DOCUMENT: &str = include_str!("openapi.json");

static ETAG: LazyLock<String> =
    LazyLock::new(|| format!("\"{}\"", const_hex::encode(Sha256::digest(DOCUMENT))));

/// The document; who has it asks with each use whether it is another one by now, since that comes with a new server.
pub(crate) fn answer(request: &Request) -> Result<Response, Problem> {
    Query::of(request)?;
    let mut response = if matches_etag(request, &ETAG) {
        not_modified(&ETAG)
    } else {
        json_response(DOCUMENT.to_owned())
    };
    set(&mut response, header::ETAG, &ETAG);
    set(&mut response, header::CACHE_CONTROL, "no-cache");
    Ok(response)
}

#[cfg(test)]
mod tests;
