use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::{
    event::{NewEvent, RequestId},
    name::{ItemId, StreamName},
};

pub(crate) fn event(position: u64, item: &str, body: &str) -> Event {
    Event {
        position: Position(position),
        event: NewEvent {
            time: Timestamp(position * 1_000),
            stream: StreamName::new("sales").unwrap(),
            op: Op::Upsert,
            item_id: ItemId::new(item).unwrap(),
            generated_id: false,
            duplicate_keys: false,
            field_count: 0,
            connector: ConnectorName::new("till").unwrap(),
            request_id: RequestId([1; 16]),
            dedupe: None,
            idempotency: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
        },
    }
}

pub(crate) fn deletion(position: u64, item: &str) -> Event {
    let mut deletion = event(position, item, "");
    deletion.event.op = Op::Delete;
    deletion
}

/// Folds one event, and checks that event, projection and note together say what became of it.
pub(crate) fn apply(item: &mut Item, event: &Event, projection: &Projection) -> Option<Note> {
    let fields = || event.event.fields().unwrap();
    let before = item.clone();
    let note = match projection.read(event, fields()) {
        Ok(change) => item.apply(event, &change, projection),
        Err(unfit) => Some(Note::Quarantined(unfit)),
    };
    let was_there = before.is_there();
    let told = effect(event, fields(), note.as_ref(), projection).unwrap();
    let mut expected: BTreeMap<&str, Value<'_>> = shown(&before);
    if let Some(change) = &told {
        assert!(change.set().all(|(name, _)| !change.unset.contains(name)));
        expected.retain(|name, _| !change.unset.contains(*name));
        expected.extend(change.set());
        if event.event.op == Op::Delete {
            assert!(was_there, "a deletion of nothing is not told");
            expected.clear();
        }
    }
    assert_eq!(shown(item), expected);
    assert_eq!(
        item.text_bytes,
        Item::new(
            item.position,
            None,
            Positions::default(),
            item.fields.clone()
        )
        .text_bytes
    );
    note
}

fn shown(item: &Item) -> BTreeMap<&str, Value<'_>> {
    item.fields
        .iter()
        .map(|(name, field)| (name.as_ref(), field.value()))
        .collect()
}

fn under(projection: &Projection, bodies: &[&str]) -> Item {
    let mut item = Item::default();
    for (position, body) in (1..).zip(bodies) {
        apply(&mut item, &event(position, "North", body), projection);
    }
    item
}

pub(crate) fn folded(bodies: &[&str]) -> Item {
    under(&Projection::default(), bodies)
}

fn projection(rules: &str) -> Projection {
    Projection::new(1, serde_json::from_str(rules).unwrap()).unwrap()
}

/// The fields under these rules, as JSON.
fn check_under(rules: &str, bodies: &[&str], expected: &str) {
    let item = under(&projection(rules), bodies);
    let fields: Vec<_> = shown(&item)
        .iter()
        .map(|(name, value)| format!("{name}={}", value.text))
        .collect();
    assert_eq!(fields.join(" "), expected, "{rules}");
}

fn check(bodies: &[&str], expected: &[(&str, &str, u64)]) {
    let item = folded(bodies);
    let fields: Vec<_> = item
        .fields
        .iter()
        .map(|(name, field)| (name.as_ref(), field.text.as_ref(), field.source.position.0))
        .collect();
    assert_eq!(fields, expected);
}

#[test]
fn given_fields_overwrite_and_others_stay() {
    check(
        &[r#"{"a":1,"b":2}"#, r#"{"b":3,"c":4}"#],
        &[("a", "1", 1), ("b", "3", 2), ("c", "4", 2)],
    );
}

#[test]
fn null_is_stored_and_deletes_nothing() {
    check(
        &[r#"{"a":1,"b":2}"#, r#"{"a":null}"#],
        &[("a", "null", 2), ("b", "2", 1)],
    );
}

#[test]
fn numbers_and_nested_texts_stay_as_sent() {
    check(
        &[r#"{"n":1.0e+2,"o":{ "x" : 1 }}"#],
        &[("n", "1.0e+2", 1), ("o", r#"{ "x" : 1 }"#, 1)],
    );
}

#[test]
fn an_empty_object_touches_the_item_and_sets_nothing() {
    let item = folded(&[r#"{"a":1}"#, "{}"]);
    assert_eq!((item.position, item.fields.len()), (Position(2), 1));
}

#[test]
#[should_panic(expected = "in order, once")]
fn folding_an_event_twice_is_a_bug() {
    let mut item = folded(&["{}"]);
    apply(&mut item, &event(1, "North", "{}"), &Projection::default());
}

#[test]
fn replace_drops_what_an_event_does_not_name() {
    let rules = r#"{"merge":"replace"}"#;
    check_under(rules, &[r#"{"a":1,"b":2}"#, r#"{"b":3}"#], "b=3");
}

#[test]
fn a_default_comes_back_in_a_replaced_item_and_does_not_go_away() {
    let rules = projection(r#"{"merge":"replace","fields":{"a":{"default":7}}}"#);
    let mut item = under(&rules, &[r#"{"b":1}"#]);
    let note = apply(&mut item, &event(2, "North", r#"{"c":1}"#), &rules);
    let expected = Note::Adjusted {
        defaulted: vec!["a".into()],
        unset: vec!["b".into()],
    };
    assert_eq!(note, Some(expected));
}

#[test]
fn nulls_can_delete_and_a_default_takes_their_place() {
    let rules = r#"{"nulls":"delete","fields":{"a":{"default":7}}}"#;
    check_under(rules, &[r#"{"b":1}"#], "a=7 b=1");
    check_under(
        rules,
        &[r#"{"a":1,"b":1}"#, r#"{"a":null,"b":null}"#],
        "a=7",
    );
}

#[test]
fn a_default_overwrites_no_value() {
    let rules = r#"{"fields":{"a":{"default":"x"}}}"#;
    check_under(rules, &[r#"{"a":"y"}"#, r#"{"b":1}"#], r#"a="y" b=1"#);
}

#[test]
fn an_older_event_changes_nothing_and_an_equal_one_does() {
    let rules = r#"{"order-by":"/v"}"#;
    let bodies = [
        r#"{"v":2,"a":1}"#,
        r#"{"v":1,"a":2,"b":2}"#,
        r#"{"v":"2.0","a":3}"#,
        r#"{"c":4}"#,
    ];
    check_under(rules, &bodies, r#"a=3 c=4 v="2.0""#);
    let mut item = under(&projection(rules), &bodies[..1]);
    let older = event(9, "North", bodies[1]);
    assert_eq!(
        apply(&mut item, &older, &projection(rules)),
        Some(Note::Superseded)
    );
    assert_eq!(item.position, Position(9));
}

/// Folds bodies and, where there is none, deletions.
fn with_deletions(rules: &str, bodies: &[Option<&str>]) -> Item {
    let (projection, mut item) = (projection(rules), Item::default());
    for (position, body) in (1..).zip(bodies) {
        let event = match body {
            Some(body) => event(position, "North", body),
            None => deletion(position, "North"),
        };
        apply(&mut item, &event, &projection);
    }
    item
}

fn fields_of(item: &Item) -> String {
    let fields = shown(item);
    let fields = fields.iter();
    let fields: Vec<_> = fields
        .map(|(name, value)| format!("{name}={}", value.text))
        .collect();
    fields.join(" ")
}

#[test]
fn a_deleted_item_has_no_fields_and_is_not_there_and_keeps_its_events() {
    let item = with_deletions("{}", &[Some(r#"{"a":1}"#), None]);
    assert!(!item.is_there() && item.fields().is_empty());
    assert_eq!((item.text_bytes(), item.position), (0, Position(2)));
    let recent = item.recent.iter();
    assert!(recent.eq([Position(1), Position(2)]));
    assert_eq!(item.deleted, Some(Position(2)));
}

#[test]
fn what_comes_after_a_deletion_starts_from_nothing() {
    for rules in ["{}", r#"{"nulls":"delete"}"#, r#"{"merge":"replace"}"#] {
        let item = with_deletions(rules, &[Some(r#"{"a":1}"#), None, Some(r#"{"b":2}"#)]);
        assert!(item.is_there());
        assert_eq!(fields_of(&item), "b=2", "{rules}");
    }
    let rules = r#"{"fields":{"a":{"default":7}}}"#;
    let bodies = [Some(r#"{"a":1}"#), None, Some("{}")];
    assert_eq!(fields_of(&with_deletions(rules, &bodies[..2])), "");
    assert_eq!(fields_of(&with_deletions(rules, &bodies)), "a=7");
}

#[test]
fn an_older_event_does_not_bring_a_deleted_item_back_and_a_newer_one_does() {
    let rules = r#"{"order-by":"v"}"#;
    let late = [Some(r#"{"v":5}"#), None, Some(r#"{"v":4,"a":1}"#)];
    let item = with_deletions(rules, &late);
    assert!(!item.is_there());
    assert_eq!(item.position, Position(3));
    let newer = [Some(r#"{"v":5}"#), None, Some(r#"{"v":6,"a":1}"#)];
    assert_eq!(fields_of(&with_deletions(rules, &newer)), "a=1 v=6");
}

#[test]
fn a_deletion_is_applied_in_log_order_and_needs_no_item() {
    let item = with_deletions(r#"{"order-by":"v"}"#, &[None]);
    assert!(!item.is_there());
    assert_eq!((item.position, item.order), (Position(1), None));
}

#[test]
fn a_full_history_holds_its_events_and_the_item_after_them() {
    let bodies = vec!["{}"; HISTORY_EVENTS];
    let mut item = folded(&bodies[1..]);
    assert_eq!(item.take_history(), None);
    apply(&mut item, &event(64, "North", "{}"), &Projection::default());
    let history = item.take_history().unwrap();
    let positions: Vec<_> = history
        .positions
        .iter()
        .map(|position| position.0)
        .collect();
    assert_eq!(positions, (1..=64).collect::<Vec<_>>());
    assert!(item.recent.is_empty() && history.after == item);
}

#[test]
fn an_event_that_would_make_an_item_too_large_is_quarantined_and_changes_nothing() {
    let big = "x".repeat(ITEM_BYTES_MAX / 2 - 10);
    let mut item = folded(&[
        &format!(r#"{{"a":"{big}"}}"#),
        &format!(r#"{{"b":"{big}"}}"#),
    ]);
    let before = item.clone();
    let over = event(3, "North", &format!(r#"{{"c":"{}"}}"#, "x".repeat(30)));
    let note = apply(&mut item, &over, &Projection::default());
    assert_eq!(
        (note, &item),
        (Some(Note::Quarantined(Unfit::TooLarge)), &before)
    );
    let same = event(4, "North", &format!(r#"{{"a":"{big}"}}"#));
    assert_eq!(apply(&mut item, &same, &Projection::default()), None);
}
