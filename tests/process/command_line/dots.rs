//! Ids that no URL can name, as `docs/protocol.md` has them: they are taken, listed and followed, but not asked for by path.

use super::{at, ends};
use crate::common::server::{Data, position};

#[test]
fn an_item_that_no_url_names_is_listed_and_followed() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    for id in [".", ".."] {
        let body = format!(r#"{{"id":"{id}","n":"of {id}"}}"#);
        let last = position(&server.post(&sales, body).expect(202)).to_string();
        let row = format!(r#"n="of {id}""#);
        let (listed, _) = ends(0, &mut at(&server, "items list sales"));
        assert!(listed.contains(&row), "{listed}");
        let mut tail = at(&server, "tail sales --item");
        let (followed, _) = ends(0, tail.args([id, "--until", &last]));
        assert_eq!(followed.lines().count(), 1, "{followed}");
        assert!(followed.contains(&row), "{followed}");
        let (_, said) = ends(2, at(&server, "items get sales").arg(id));
        assert!(said.contains("a URL can't hold"), "{said}");
        let mut delete = at(&server, "delete sales");
        delete.env("HOOKPOOL_INGEST_KEY", &sales.ingest_key);
        ends(2, delete.arg(id));
    }
}
