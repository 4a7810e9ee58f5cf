//! What would happen to a delivery under the rules that are served, for its sender: what the payload alone says, and nothing of what the
//! item holds, since a key that writes does not read.

use hookpool_core::{
    event::Event,
    json::JsonError,
    projection::{Change, Projection},
};

use crate::render::{Nested, push_fields, push_string};

/// The answer to a dry run of what would be this event.
///
/// # Errors
/// Never, for a body that was shaped.
pub(crate) fn rehearsal_json(event: &Event, projection: &Projection) -> Result<String, JsonError> {
    let read = projection.read(event, event.event.fields()?);
    let (generated, fields) = (event.event.generated_id, event.event.field_count);
    let mut json = String::from(r#"{"status":"dry-run","itemId":"#);
    push_id(&mut json, event, event.event.item_id.as_str());
    json.push_str(&format!(
        r#","generatedId":{generated},"fieldsUpdated":{fields},"projection":{},"quarantine":"#,
        projection.version
    ));
    match read {
        Ok(change) => {
            json.push_str(r#"null,"changes":"#);
            push_change(&mut json, event, &change);
        }
        Err(unfit) => {
            push_string(&mut json, &unfit.to_string());
            json.push_str(r#","changes":null"#);
        }
    }
    json.push('}');
    Ok(json)
}

/// A generated id is not told: the delivery itself would get another one.
fn push_id(json: &mut String, event: &Event, id: &str) {
    if event.event.generated_id && id == event.event.item_id.as_str() {
        json.push_str("null");
    } else {
        push_string(json, id);
    }
}

fn push_change(json: &mut String, event: &Event, change: &Change<'_>) {
    json.push_str(r#"{"itemId":"#);
    push_id(json, event, change.item_id.as_str());
    json.push_str(r#","set":"#);
    push_fields(json, change.set(), Nested::AsString);
    json.push_str(r#","unset":["#);
    for (n, name) in change.unset.iter().enumerate() {
        if n > 0 {
            json.push(',');
        }
        push_string(json, name);
    }
    json.push_str("]}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::tests::event;

    fn check(rules: &str, body: &'static str, expected: &str) {
        let rules = serde_json::from_str(rules).unwrap();
        let projection = Projection::new(3, rules).unwrap();
        let mut event = event(body);
        event.event.field_count = 7;
        assert_eq!(rehearsal_json(&event, &projection).unwrap(), expected);
    }

    #[test]
    fn what_a_payload_would_set_is_told_as_it_would_be_stored() {
        check(
            r#"{"id":"/o/id","nulls":"delete","fields":{"n":{"type":"number"}}}"#,
            r#"{"o":{ "id":1},"n":"1.0","gone":null}"#,
            r#"{"status":"dry-run","itemId":"a","generatedId":false,"fieldsUpdated":7,"projection":3,"quarantine":null,"changes":{"itemId":"1","set":{"n":1.0,"o":"{ \"id\":1}"},"unset":["gone"]}}"#,
        );
    }

    #[test]
    fn why_it_would_go_to_quarantine_is_told_without_its_values() {
        check(
            r#"{"fields":{"n":{"type":"number"}}}"#,
            r#"{"n":"secret"}"#,
            r#"{"status":"dry-run","itemId":"a","generatedId":false,"fieldsUpdated":7,"projection":3,"quarantine":"field n is not a number","changes":null}"#,
        );
    }

    #[test]
    fn an_id_that_would_be_generated_is_not_told() {
        let mut event = event("{}");
        event.event.generated_id = true;
        let json = rehearsal_json(&event, &Projection::default()).unwrap();
        assert_eq!(json.matches(r#""itemId":null"#).count(), 2, "{json}");
    }
}
