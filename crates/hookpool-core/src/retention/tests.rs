use proptest::{prelude::*, sample::select};

use super::*;
use crate::fold::tests::{deletion, event};

const RULES: [&str; 10] = [
    "{}",
    r#"{"nulls":"delete"}"#,
    r#"{"order-by":"v"}"#,
    r#"{"merge":"replace"}"#,
    r#"{"nulls":"delete","order-by":"v"}"#,
    r#"{"merge":"replace","order-by":"v"}"#,
    r#"{"merge":"replace","nulls":"delete","order-by":"v","unknown":"drop","fields":{"a":{}}}"#,
    r#"{"fields":{"a":{"default":7},"b":{"default":null}}}"#,
    r#"{"nulls":"delete","order-by":"v","fields":{"a":{"default":7}}}"#,
    r#"{"merge":"replace","nulls":"delete","order-by":"v","fields":{"a":{"default":7},"c":{"from":"b"}}}"#,
];

fn projection(rules: &str) -> Projection {
    Projection::new(1, serde_json::from_str(rules).unwrap()).unwrap()
}

/// Stands for a deletion among bodies.
const DELETION: &str = "";

/// Bodies with few names and few values, so that they get in each other's way; one in seven is a deletion.
fn bodies() -> impl Strategy<Value = Vec<String>> {
    let value = || select(vec!["", "", "null", "1", "2", "3"]);
    let body = [value(), value(), value(), value()].prop_map(|values| {
        let named = ["a", "b", "c", "v"].into_iter().zip(values);
        let members = named.filter(|(_, value)| !value.is_empty());
        let members: Vec<_> = members
            .map(|(name, value)| format!(r#""{name}":{value}"#))
            .collect();
        format!("{{{}}}", members.join(","))
    });
    let body = prop_oneof![6 => body, 1 => Just(DELETION.to_owned())];
    proptest::collection::vec(body, 1..24)
}

fn scan<'p>(projection: &'p Projection, events: &[Event]) -> Needs<'p> {
    let mut needs = Needs::new(projection);
    for event in events {
        needs.take(event).unwrap();
    }
    needs
}

fn events(bodies: &[String]) -> Vec<Event> {
    let numbered = (1..).zip(bodies);
    numbered
        .map(|(position, body)| match body.as_str() {
            DELETION => deletion(position, "North"),
            body => event(position, "North", body),
        })
        .collect()
}

/// What is needed of these events, by whichever way the rules ask for.
fn needed(projection: &Projection, events: &[Event]) -> BTreeSet<Position> {
    let needs = scan(projection, events);
    if projection.only_adds() {
        assert_eq!(sources(needs.item()), needs.needed());
    }
    needs.needed()
}

fn only(events: &[Event], kept: &BTreeSet<Position>) -> Vec<Event> {
    let kept = events.iter().filter(|event| kept.contains(&event.position));
    kept.cloned().collect()
}

#[test]
fn a_field_that_was_taken_away_needs_what_took_it() {
    let bodies = [
        r#"{"a":1,"b":1}"#,
        r#"{"a":null}"#,
        r#"{"b":2}"#,
        r#"{"b":3}"#,
    ];
    let events = events(&bodies.map(str::to_owned));
    let projection = projection(r#"{"nulls":"delete"}"#);
    let expected = BTreeSet::from([Position(2), Position(4)]);
    assert_eq!(needed(&projection, &events), expected);
}

#[test]
fn an_order_needs_what_brought_it_and_a_late_event_what_it_was_late_for() {
    let bodies = [
        r#"{"v":2,"a":1}"#,
        r#"{"v":1,"a":9}"#,
        r#"{"v":3,"b":1}"#,
        r#"{"a":2,"b":2,"v":3}"#,
    ];
    let events = events(&bodies.map(str::to_owned));
    let projection = projection(r#"{"order-by":"v"}"#);
    // The second event is not needed, but whoever still has it needs the first.
    let expected = BTreeSet::from([Position(1), Position(4)]);
    assert_eq!(needed(&projection, &events), expected);
}

#[test]
fn a_deletion_is_needed_also_of_an_item_that_came_back() {
    let bodies = [r#"{"a":1}"#, DELETION, r#"{"b":1}"#, DELETION, r#"{"c":1}"#];
    let events = events(&bodies.map(str::to_owned));
    let plain = Projection::default();
    // Whoever still has what was before it needs it.
    let expected = BTreeSet::from([Position(4), Position(5)]);
    assert_eq!(needed(&plain, &events), expected);
    let expected = BTreeSet::from([Position(4)]);
    assert_eq!(needed(&plain, &events[..4]), expected);
    let deleted = scan(&plain, &events[..4]).item().clone();
    assert_eq!(refolds(&deleted, &events[3..4], &plain), Ok(true));
    assert_eq!(refolds(&deleted, &events[..1], &plain), Ok(false));
}

#[test]
fn events_that_make_another_item_are_no_proof() {
    let events = events(&[r#"{"a":1}"#.to_owned(), r#"{"b":1}"#.to_owned()]);
    let projection = Projection::default();
    let item = scan(&projection, &events).item().clone();
    assert_eq!(refolds(&item, &events, &projection), Ok(true));
    assert_eq!(refolds(&item, &events[1..], &projection), Ok(false));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// The log is dropped from twice, and a copy of it is made meanwhile, block after block: whatever the copy has then, it folds to the
    /// same item, and so does the log at every moment of both drops.
    #[test]
    fn any_part_that_holds_what_is_needed_folds_to_the_same_item(
        bodies in bodies(),
        rules in select(RULES.to_vec()),
        floors in (0usize..24, 0usize..24),
        mut copied in proptest::collection::vec((0u8..5, any::<bool>()), 24),
    ) {
        let (projection, all) = (projection(rules), events(&bodies));
        let later = floors.0.max(floors.1).min(all.len());
        let earlier = floors.0.min(floors.1).min(later);
        let first = needed(&projection, &all[..earlier]);
        let after_first = [only(&all[..earlier], &first), all[earlier..later].to_vec()].concat();
        let second = needed(&projection, &after_first);
        let item = scan(&projection, &all[..later]).item().clone();
        let refolded = scan(&projection, &after_first);
        prop_assert_eq!(refolded.item(), &item);
        prop_assert!(refolds(&item, &only(&after_first, &second), &projection).unwrap());
        // A block is copied at some moment: before, in the middle of, between or after the drops, and never before the block before it.
        copied.sort_by_key(|(moment, _)| *moment);
        let copy: Vec<_> = all[..later]
            .iter()
            .zip(&copied)
            .filter(|(event, (moment, there))| {
                let expired = event.position.0 <= earlier as u64;
                let dropped_at = match () {
                    () if expired && !first.contains(&event.position) => 1,
                    () if !second.contains(&event.position) => 3,
                    () => 9,
                };
                *moment < dropped_at || (*moment == dropped_at && *there)
            })
            .map(|(event, _)| event.clone())
            .collect();
        prop_assert!(
            refolds(&item, &copy, &projection).unwrap(),
            "{} of {:?}: {:?}", rules, bodies, copy.iter().map(|event| event.position).collect::<Vec<_>>()
        );
    }
}
