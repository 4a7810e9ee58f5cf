use super::*;
use crate::{fold::tests::event, source::Source};

fn projection(rules: &str) -> Projection {
    Projection::new(1, serde_json::from_str(rules).unwrap()).unwrap()
}

/// Item id, fields set, fields unset, or why the event doesn't fit.
fn read(rules: &str, body: &str) -> Result<(String, String, String), Unfit> {
    let (projection, event) = (projection(rules), event(1, "fixed", body));
    let fields = json::object(event.event.body.as_ref()).unwrap().fields;
    let change = projection.read(&event, fields)?;
    let set: Vec<_> = change
        .set()
        .map(|(name, value)| format!("{name}={}", value.text))
        .collect();
    let unset: Vec<_> = change.unset.iter().map(AsRef::as_ref).collect();
    Ok((
        change.item_id.as_str().to_owned(),
        set.join(" "),
        unset.join(" "),
    ))
}

fn check(rules: &str, body: &str, expected: (&str, &str, &str)) {
    let (id, set, unset) = read(rules, body).unwrap();
    assert_eq!(
        (id.as_str(), set.as_str(), unset.as_str()),
        expected,
        "{rules}"
    );
}

const PUSH: &str = r#"{"ref":"main","repository":{"id":1296269,"full_name":"o/h","owner":{"login":"o","tags":[1]}},"n":"7"}"#;

#[test]
fn without_rules_a_body_is_taken_as_it_is() {
    check(
        "{}",
        r#"{"a":1.0,"b":{ "x":1 },"c":null}"#,
        ("fixed", r#"a=1.0 b={ "x":1 } c=null"#, ""),
    );
}

#[test]
fn the_id_may_lie_deep_and_falls_back_to_the_one_fixed_at_append() {
    let rules = r#"{"id":"/repository/id","unknown":"drop"}"#;
    check(rules, PUSH, ("1296269", "", ""));
    for other in [
        r#"{"a":1}"#,
        r#"{"repository":{"id":null}}"#,
        r#"{"repository":{"id":{}}}"#,
        r#"{"repository":1}"#,
    ] {
        check(rules, other, ("fixed", "", ""));
    }
    let long = format!(r#"{{"repository":{{"id":"{}"}}}}"#, "x".repeat(257));
    assert_eq!(read(rules, &long), Err(Unfit::ItemId));
}

#[test]
fn fields_are_mapped_typed_and_dropped() {
    let rules = r#"{"fields":{"repo":{"from":"/repository/full_name","type":"string"},"n":{"type":"number"},"ref":{"drop":true},"repository":{"drop":true}}}"#;
    check(rules, PUSH, ("fixed", r#"n=7 repo="o/h""#, ""));
    let misfit = r#"{"n":"seven"}"#;
    assert_eq!(
        read(rules, misfit),
        Err(Unfit::Type("n".into(), Type::Number))
    );
}

#[test]
fn a_renamed_property_does_not_stay_under_its_old_name() {
    let rules = r#"{"fields":{"branch":{"from":"/ref"}}}"#;
    check(
        rules,
        r#"{"ref":"main","n":1}"#,
        ("fixed", r#"branch="main" n=1"#, ""),
    );
    check(
        r#"{"fields":{"branch":{"from":"ref"}}}"#,
        r#"{"ref":"main"}"#,
        ("fixed", r#"branch="main""#, ""),
    );
}

#[test]
fn what_lies_deeper_is_copied_and_its_property_stays() {
    let rules = r#"{"fields":{"login":{"from":"/o/login"}}}"#;
    check(
        rules,
        r#"{"o":{"login":1}}"#,
        ("fixed", r#"login=1 o={"login":1}"#, ""),
    );
}

#[test]
fn a_nested_object_is_flattened_by_its_paths() {
    let rules = r#"{"unknown":"drop","fields":{"repo":{"from":"/repository","flatten":"."}}}"#;
    let flat = r#"repo.full_name="o/h" repo.id=1296269 repo.owner.login="o" repo.owner.tags=[1]"#;
    check(rules, PUSH, ("fixed", flat, ""));
    check(rules, r#"{"repository":5}"#, ("fixed", "repo=5", ""));
    check(rules, r#"{"repository":{}}"#, ("fixed", "", ""));
    let twice = r#"{"repository":{"a.b":1,"a":{"b":2}}}"#;
    assert_eq!(read(rules, twice), Err(Unfit::Flattened("repo".into())));
    let long = format!(r#"{{"repository":{{"{}":1}}}}"#, "x".repeat(NAME_BYTES_MAX));
    assert_eq!(read(rules, &long), Err(Unfit::Flattened("repo".into())));
}

#[test]
fn nulls_delete_where_they_may() {
    check(
        r#"{"nulls":"delete"}"#,
        r#"{"a":null,"b":"null"}"#,
        ("fixed", r#"b="null""#, "a"),
    );
}

#[test]
fn rules_that_contradict_themselves_are_refused() {
    for bad in [
        r#"{"fields":{"a":{"drop":true,"type":"string"}}}"#,
        r#"{"fields":{"a":{"flatten":".","type":"string"}}}"#,
        r#"{"fields":{"a":{"type":"number","default":"x"}}}"#,
    ] {
        let rules: Rules = serde_json::from_str(bad).unwrap();
        assert!(Projection::new(1, rules).is_err(), "{bad}");
    }
    for bad in [
        r#"{"fields":{"a":{"from":"/a~2"}}}"#,
        r#"{"fields":{"a":{"from":""}}}"#,
        r#"{"id":""}"#,
        r#"{"ids":"a"}"#,
        r#"{"fields":{"a":{"tpye":"string"}}}"#,
        r#"{"merge":"deep"}"#,
    ] {
        assert!(serde_json::from_str::<Rules>(bad).is_err(), "{bad}");
    }
}

#[test]
fn pointers_name_properties_that_hold_slashes_and_tildes() {
    let rules = r#"{"unknown":"drop","fields":{"x":{"from":"/a~1b/c~0d"}}}"#;
    check(rules, r#"{"a/b":{"c~d":1}}"#, ("fixed", "x=1", ""));
}

#[test]
fn a_default_is_converted_like_a_value() {
    let projection =
        projection(r#"{"fields":{"at":{"type":"time","default":"2024-01-01T01:00:00+01:00"}}}"#);
    let defaults: Vec<_> = projection
        .defaults()
        .map(|(name, value)| (name, value.text))
        .collect();
    assert_eq!(defaults, [("at", "\"2024-01-01T00:00:00Z\"")]);
}

#[test]
fn rules_are_written_as_they_were_read() {
    let text = r#"{"id":"/a","merge":"replace","nulls":"delete","unknown":"drop","order-by":"/b","fields":{"c":{"from":"/d/e","type":"number","default":1},"f":{"drop":true}}}"#;
    let rules: Rules = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&rules).unwrap(), text);
}

#[test]
fn rules_that_are_not_stored_yet_are_followed_too() {
    let rules = serde_json::from_str(r#"{"fields":{"n":{"type":"number"}}}"#).unwrap();
    let unstored = Projection::new(0, rules).unwrap();
    let event = event(1, "fixed", r#"{"n":"seven"}"#);
    let fields = json::object(event.event.body.as_ref()).unwrap().fields;
    assert_eq!(
        unstored.read(&event, fields),
        Err(Unfit::Type("n".into(), Type::Number))
    );
}

#[test]
fn the_schema_names_the_keys_of_the_rules() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let names = |object: &serde_json::Value| -> Vec<String> {
        object.as_object().unwrap().keys().cloned().collect()
    };
    let source = || Some(Source::property("a"));
    let field = FieldRule {
        from: source(),
        into: Some(Type::String),
        default: Some("b".into()),
        flatten: Some(".".into()),
        drop: true,
    };
    let rules = Rules {
        id: source(),
        order_by: source(),
        fields: [("c".into(), field)].into(),
        ..Rules::default()
    };
    let written = serde_json::to_value(rules).unwrap();
    assert_eq!(names(&schema["properties"]), names(&written));
    let of_field = &schema["$defs"]["field"]["properties"];
    assert_eq!(names(of_field), names(&written["fields"]["c"]));
}
