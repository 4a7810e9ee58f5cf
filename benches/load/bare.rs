//! The other side of the ratio: warp's own server, a route, and nothing else.

use warp::{Filter, http::StatusCode};

/// Makes this program serve the bare route.
pub(crate) const ARGUMENT: &str = "serve-bare-route";

const ANSWER: &str = r#"{"status":"accepted","itemId":"North","fieldsUpdated":2}"#;

#[expect(
    clippy::disallowed_methods,
    reason = "bare: what a first try with warp looks like"
)]
pub(crate) fn serve() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let route = warp::path!("api" / "webhook" / String)
            .and(warp::post())
            .and(warp::body::bytes())
            .map(|_stream, _body| warp::reply::with_status(ANSWER, StatusCode::ACCEPTED));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("listening on http://{}", listener.local_addr().unwrap());
        warp::serve(route).incoming(listener).run().await;
    });
}
