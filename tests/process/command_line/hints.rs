//! What is not there is named, beside the command that shows what is.

use super::{at, ends};
use crate::common::server::Data;

#[test]
fn what_is_not_there_is_named_beside_the_command_that_lists_it() {
    let data = Data::new();
    let server = data.serve();
    let sales = server.add_connector("sales", false);
    server.post(&sales, r#"{"id":"North"}"#).expect(202);
    server.post(&sales, r#"{"id":"South"}"#).expect(202);
    server.call(&sales.deletion("South")).expect(202);
    ends(0, &mut at(&server, "rebuild start sales --wait"));
    ends(0, &mut at(&server, "rebuild promote sales --any"));

    let unknown = "0192f0c4-7a1e-7c3b-9c1d-2f6f0b1c9a10";
    for (line, what, list) in [
        (
            "items get sales nope",
            "item nope of sales",
            "items list sales`",
        ),
        (
            "items get sales North --at 0",
            "item North of sales",
            "items list sales --at 0`",
        ),
        (
            "items get sales South",
            "item South of sales",
            "items history`",
        ),
        (
            "items history sales nope",
            "item nope of sales",
            "items list sales`",
        ),
        (
            "log show sales 42",
            "position 42 of sales",
            "log list sales`",
        ),
        (
            "log show sales 42 --raw",
            "position 42 of sales",
            "log list sales`",
        ),
        (
            "rebuild diff sales",
            "rebuild of sales",
            "rebuild list sales`",
        ),
        (
            "projection show sales --version 9",
            "version 9 of the rules of sales",
            "projection show sales`",
        ),
        ("operator revoke X", "operator key X", "operator list`"),
        ("reader revoke X", "reader X", "reader list`"),
        (
            &format!("rejections show {unknown}"),
            unknown,
            "rejections list`",
        ),
        (
            &format!("rejections retry {unknown}"),
            unknown,
            "rejections list`",
        ),
        (
            "connector revoke-hook sales X",
            "hook X of sales",
            "connector show sales`",
        ),
        (
            "connector revoke-signing-key sales X",
            "signing key X of sales",
            "connector show sales`",
        ),
        // The stream is what is not there.
        ("items list nope", "", "connector list`"),
        ("rebuild list nope", "", "connector list`"),
        ("connector show nope", "", "connector list`"),
    ] {
        let (_, said) = ends(3, &mut at(&server, line));
        let (error, hint) = said.split_once("\nhint: ").unwrap();
        assert!(error.contains(what), "{line}\n{said}");
        assert!(
            hint.contains(&format!("`hookpool {list}")),
            "{line}\n{said}"
        );
    }
}
