use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use warp::http::Method;

use super::DOCUMENT;
use crate::{
    problem::Code,
    route::{ALL, Route},
};

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

fn texts(of: &Value) -> impl Iterator<Item = &str> {
    of.as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
}

/// What a `$ref` of the document points to; anything else is itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(place) => {
            let pointer = place.strip_prefix('#').unwrap();
            document
                .pointer(pointer)
                .unwrap_or_else(|| panic!("{place} is nowhere"))
        }
        None => value,
    }
}

/// The query parameters of each operation, by path and method. A ticket is one, and is described as a key.
fn operations(document: &Value) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut operations = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().iter();
        for (method, operation) in methods.filter(|(member, _)| *member != "parameters") {
            let own = operation["parameters"].as_array();
            let shared = item["parameters"].as_array();
            let parameters = own.into_iter().chain(shared).flatten();
            let keys = operation["security"].as_array().into_iter().flatten();
            let keys = keys.flat_map(|key| key.as_object().unwrap().keys());
            let keys = keys.map(|key| &document["components"]["securitySchemes"][key]);
            let named = parameters.map(|it| resolved(document, it)).chain(keys);
            let queried = named.filter(|it| it["in"] == "query");
            let names = queried.map(|it| it["name"].as_str().unwrap().to_owned());
            operations.insert((path.clone(), method.to_uppercase()), names.collect());
        }
    }
    operations
}

#[test]
fn the_document_has_the_paths_methods_and_query_parameters_that_the_router_takes_and_no_others() {
    let mut taken = BTreeMap::new();
    for row in ALL {
        for (method, parameters) in row.calls {
            let names: BTreeSet<_> = parameters.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(
                names.len(),
                parameters.len(),
                "{} names one twice",
                row.path
            );
            let call = (row.path.to_owned(), (*method).to_owned());
            assert_eq!(
                taken.insert(call, names),
                None,
                "{} is there twice",
                row.path
            );
        }
    }
    assert_eq!(operations(&document()), taken);
}

#[test]
fn each_path_of_the_table_is_the_one_that_the_router_reads() {
    for row in ALL {
        // Good for every part that varies: a name, an id, a number.
        let mut path = row.path.to_owned();
        while let (Some(begin), Some(end)) = (path.find('{'), path.find('}')) {
            path.replace_range(begin..=end, "1");
        }
        let route = Route::parse(&path).unwrap_or_else(|| panic!("{path} leads nowhere"));
        assert_eq!(route.row().path, row.path);
    }
}

#[test]
fn what_can_be_got_can_also_be_asked_for_its_head_with_the_same_parameters() {
    for row in ALL {
        let methods: BTreeSet<_> = row.methods().collect();
        assert_eq!(
            methods.contains("GET"),
            methods.contains("HEAD"),
            "{}",
            row.path
        );
        assert_eq!(row.parameters(&Method::GET), row.parameters(&Method::HEAD));
        assert!(row.calls.iter().all(|(method, _)| methods.contains(method)));
    }
}

#[test]
fn the_document_has_the_codes_of_problems_with_their_status_and_no_others() {
    let document = document();
    let mut written = BTreeSet::new();
    for row in document["components"]["schemas"]["Problem"]["oneOf"]
        .as_array()
        .unwrap()
    {
        let status = row["properties"]["status"]["const"].as_u64().unwrap();
        for code in texts(&row["properties"]["code"]["enum"]) {
            assert!(
                written.insert((code.to_owned(), status)),
                "{code} is there twice"
            );
        }
    }
    let known = Code::ALL.iter().map(|code| {
        let (status, name, _) = code.row();
        (name.to_owned(), u64::from(status.as_u16()))
    });
    assert_eq!(written, known.collect());
}

#[test]
fn the_document_is_of_this_version_and_names_each_operation_once() {
    let document = document();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut names = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            if let Some(name) = operation["operationId"].as_str() {
                assert!(names.insert(name), "{name} is there twice");
            }
        }
    }
    assert_eq!(names.len(), operations(&document).len());
}

#[test]
fn rules_are_described_as_their_own_schema_describes_them() {
    let document = document();
    let written = &document["components"]["schemas"];
    let names = [("source", "Source"), ("field", "FieldRule")];
    let mut known = hookpool_core::projection::SCHEMA.to_owned();
    for (name, component) in names {
        let (from, to) = (
            format!("#/$defs/{name}"),
            format!("#/components/schemas/{component}"),
        );
        known = known.replace(&from, &to);
    }
    let mut known: Value = serde_json::from_str(&known).unwrap();
    let known = known.as_object_mut().unwrap();
    let parts = known.remove("$defs").unwrap();
    for (name, component) in names {
        assert_eq!(written[component], parts[name]);
    }
    known.remove("$schema");
    known.remove("title");
    assert_eq!(written["Rules"].as_object().unwrap(), known);
}
