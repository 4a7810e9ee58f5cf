//! Pages of other origins: named ones may read and fetch tickets, all others see nothing.

use serde_json::json;

use crate::common::http::{Request, Response};
use crate::common::server::{Data, Server};

const NAMED: &str = "https://app.example.com";
const STRANGE: &str = "https://app.example.com.evil.example";

fn from(request: Request, origin: &str) -> Request {
    request.header("Origin", origin)
}

fn preflight(server: &Server, target: &str, origin: &str, method: &str) -> Response {
    let request = from(Request::new("OPTIONS", target), origin);
    server.call(&request.header("Access-Control-Request-Method", method))
}

fn allowed(response: &Response) -> Option<&str> {
    response.header("Access-Control-Allow-Origin")
}

#[test]
fn a_page_of_a_named_origin_may_read_and_fetch_tickets_and_no_other() {
    let data = Data::new();
    let named = format!("{NAMED},http://127.0.0.1:8000");
    let server = Server::try_start_with(data.path(), &[("HOOKPOOL_CORS_ORIGINS", &named)]).unwrap();
    let connector = server.add_connector("sales", false);
    let key = server.add_reader("page", &["sales"]);
    server.post(&connector, r#"{"id":"a"}"#).expect(202);

    let items = Request::get("/api/streams/sales/items").bearer(&key);
    let read = server.call(&from(items.clone(), NAMED));
    assert_eq!(allowed(&read.expect(200)), Some(NAMED));
    let refused = server.call(&from(Request::get("/api/streams/sales/items"), NAMED));
    let refused = refused.expect(401);
    assert_eq!(allowed(&refused), Some(NAMED), "a page has to see why");
    assert_eq!(refused.header("Vary"), Some("Origin"));
    assert_eq!(refused.header("Access-Control-Allow-Credentials"), None);
    let ticket = Request::post("/api/tickets").bearer(&key);
    let ticket = ticket.body(json!({"streams": ["sales"]}).to_string());
    assert_eq!(
        allowed(&server.call(&from(ticket, NAMED)).expect(201)),
        Some(NAMED)
    );
    for strange in [STRANGE, "null", "https://APP.example.com"] {
        let read = server.call(&from(items.clone(), strange)).expect(200);
        assert_eq!(allowed(&read), None, "{strange}");
    }

    for (target, method) in [
        ("/api/tickets", "POST"),
        ("/api/streams/sales/changes", "GET"),
        ("/api/changes?stream=sales", "GET"),
    ] {
        let answer = preflight(&server, target, NAMED, method).expect(204);
        assert_eq!(allowed(&answer), Some(NAMED));
        let methods = answer.header("Access-Control-Allow-Methods").unwrap();
        assert!(methods.contains(method), "{target}: {methods}");
        let headers = answer.header("Access-Control-Allow-Headers").unwrap();
        assert!(headers.contains("Authorization"), "{headers}");
        let strange = preflight(&server, target, STRANGE, method).expect(405);
        assert_eq!(allowed(&strange), None, "{target}");
    }
    for closed in ["/api/webhook/sales", "/api/admin/readers", "/metrics"] {
        let answer = preflight(&server, closed, NAMED, "GET").expect(405);
        assert_eq!(allowed(&answer), None, "{closed}");
        let answer = server.call(&from(Request::get(closed).bearer(&key), NAMED));
        assert_eq!(allowed(&answer), None, "{closed}");
    }
    server.stop();
}

#[test]
fn without_the_setting_no_origin_is_named() {
    let data = Data::new();
    let server = data.serve();
    server.add_connector("sales", false);
    let items = Request::get("/api/streams/sales/items").bearer(&server.operator_key);
    let answer = server.call(&from(items, NAMED)).expect(200);
    assert_eq!((allowed(&answer), answer.header("Vary")), (None, None));
    preflight(&server, "/api/tickets", NAMED, "POST").expect(405);
    server.stop();
}
