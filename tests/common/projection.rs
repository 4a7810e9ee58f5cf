//! Items under a projection, folded from the bytes in the log: a second reading of `docs/projections.md`.
//!
//! The rules stay the JSON that an operator sends and are looked up event by event; bodies are taken apart by `serde_json`.

mod time;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use serde_json::value::RawValue;

use super::fold::{Event, Field, Fields, Object, Pool, as_served};
use values::{Mark, convert, mark_of};

/// A field as it is stored: its JSON text, and whether that is shown as a string because it is nested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    nested: bool,
    text: String,
}

impl Stored {
    fn of(text: &str) -> Self {
        Self {
            nested: text.starts_with(['{', '[']),
            text: text.to_owned(),
        }
    }

    fn is_null(&self) -> bool {
        self.text == "null"
    }

    pub(crate) fn served(&self) -> Field {
        if self.nested {
            return Field::String(self.text.clone());
        }
        as_served(&raw(&self.text))
    }
}

/// An item, and per field the position of the event that set it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Item {
    pub(crate) fields: BTreeMap<String, (Stored, u64)>,
    /// Of the last event that touched it.
    pub(crate) position: u64,
    newest: Option<Mark>,
}

/// What a projection makes of a log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Projected {
    pub(crate) items: BTreeMap<String, Item>,
    pub(crate) quarantined: Vec<u64>,
    pub(crate) superseded: u64,
}

/// A line of a difference: kind, item, and old and new value of each field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) kind: String,
    pub(crate) item_id: String,
    pub(crate) fields: BTreeMap<String, (Option<Field>, Option<Field>)>,
}

/// The event does not fit.
struct Unfit;

type Set = BTreeMap<String, Stored>;

pub(crate) fn project(rules: &Value, events: &[Event]) -> Projected {
    let mut projected = Projected::default();
    for event in events {
        projected.take(rules, event);
    }
    projected
}

impl Projected {
    /// Takes one more event.
    pub(crate) fn take(&mut self, rules: &Value, event: &Event) {
        if self.try_take(rules, event).is_err() {
            self.quarantined.push(event.position);
        }
    }

    fn try_take(&mut self, rules: &Value, event: &Event) -> Result<(), Unfit> {
        let body: Object = serde_json::from_str(&event.body).unwrap();
        let id = item_id(rules, &body, &event.item_id)?;
        let mark = match rules["order-by"].as_str() {
            Some(source) => find(&body, source).map_or(Ok(None), |value| mark_of(value.get()))?,
            None => None,
        };
        let set = fields_of(rules, &body)?;
        let item = self.items.entry(id).or_default();
        item.position = event.position;
        match (mark, &item.newest) {
            (Some(mark), Some(newest)) if mark < *newest => self.superseded += 1,
            (mark, _) => {
                item.newest = mark.or_else(|| item.newest.take());
                item.take(rules, set, event.position);
            }
        }
        Ok(())
    }

    /// As `GET /items` shows it.
    pub(crate) fn served(&self) -> Pool {
        let fields = |item: &Item| -> Fields {
            let served =
                |(name, (stored, _)): (&String, &(Stored, u64))| (name.clone(), stored.served());
            item.fields.iter().map(served).collect()
        };
        self.items
            .iter()
            .map(|(id, item)| (id.clone(), fields(item)))
            .collect()
    }
}

impl Item {
    fn take(&mut self, rules: &Value, set: Set, position: u64) {
        if rules["merge"] == "replace" {
            self.fields.clear();
        }
        for (name, stored) in set {
            if stored.is_null() && rules["nulls"] == "delete" {
                self.fields.remove(&name);
            } else {
                self.fields.insert(name, (stored, position));
            }
        }
        for (name, rule) in rules_of_fields(rules) {
            if let Some(default) = rule.get("default")
                && !self.fields.contains_key(name)
            {
                let stored = typed(rule, &default.to_string()).ok().unwrap();
                self.fields.insert(name.clone(), (stored, position));
            }
        }
    }
}

/// The lines between two states of a stream, in byte order of the ids.
pub(crate) fn difference(old: &Projected, new: &Projected) -> Vec<Difference> {
    let ids: BTreeSet<&String> = old.items.keys().chain(new.items.keys()).collect();
    let line = |id: &String| {
        let (old, new) = (old.items.get(id), new.items.get(id));
        let kind = match (old, new) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        let fields = different(old, new);
        let same = kind == "changed" && fields.is_empty();
        (!same).then(|| Difference {
            kind: kind.to_owned(),
            item_id: id.clone(),
            fields,
        })
    };
    ids.into_iter().filter_map(line).collect()
}

fn different(
    old: Option<&Item>,
    new: Option<&Item>,
) -> BTreeMap<String, (Option<Field>, Option<Field>)> {
    let stored = |item: Option<&Item>, name: &str| Some(item?.fields.get(name)?.0.clone());
    let items = [old, new].into_iter().flatten();
    let names: BTreeSet<&String> = items.flat_map(|item| item.fields.keys()).collect();
    let sides = |name: &String| {
        let (old, new) = (stored(old, name), stored(new, name));
        let served = |side: &Option<Stored>| side.as_ref().map(Stored::served);
        (old != new).then(|| (name.clone(), (served(&old), served(&new))))
    };
    names.into_iter().filter_map(sides).collect()
}

fn item_id(rules: &Value, body: &Object, fixed: &str) -> Result<String, Unfit> {
    let found = rules["id"].as_str().and_then(|source| find(body, source));
    let text = match found.as_deref().map(RawValue::get) {
        None | Some("null" | "\"\"") => return Ok(fixed.to_owned()),
        Some(nested) if nested.starts_with(['{', '[']) => return Ok(fixed.to_owned()),
        Some(string) if string.starts_with('"') => serde_json::from_str(string).unwrap(),
        Some(scalar) => scalar.to_owned(),
    };
    let fits = text.len() <= 256 && !text.chars().any(char::is_control);
    fits.then_some(text).ok_or(Unfit)
}

/// What the event names under these rules.
fn fields_of(rules: &Value, body: &Object) -> Result<Set, Unfit> {
    let mut set = Set::new();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for (name, rule) in rules_of_fields(rules) {
        let source = rule["from"].as_str().unwrap_or(name);
        taken.insert(name.clone());
        taken.extend(whole(source));
        if rule["drop"] == true {
            continue;
        }
        let Some(value) = find_from(body, rule, name) else {
            continue;
        };
        match rule["flatten"].as_str() {
            Some(between) => flatten(&mut set, name.clone(), &value, between)?,
            None => add(&mut set, name.clone(), typed(rule, value.get())?)?,
        }
    }
    if rules["unknown"] != "drop" {
        for (name, value) in body.iter().filter(|(name, _)| !taken.contains(*name)) {
            let stored = Stored::of(value.get());
            set.entry(name.clone()).or_insert(stored);
        }
    }
    Ok(set)
}

fn rules_of_fields(rules: &Value) -> impl Iterator<Item = (&String, &Value)> {
    rules["fields"].as_object().into_iter().flatten()
}

/// A field without `from` is the property of its name, whatever that looks like.
fn find_from(body: &Object, rule: &Value, name: &str) -> Option<Box<RawValue>> {
    match rule["from"].as_str() {
        Some(source) => find(body, source),
        None => body.get(name).cloned(),
    }
}

fn add(set: &mut Set, name: String, stored: Stored) -> Result<(), Unfit> {
    match set.insert(name, stored) {
        None => Ok(()),
        Some(_) => Err(Unfit),
    }
}

fn flatten(set: &mut Set, name: String, value: &RawValue, between: &str) -> Result<(), Unfit> {
    if name.len() > 1024 {
        return Err(Unfit);
    }
    if !value.get().starts_with('{') {
        return add(set, name, Stored::of(value.get()));
    }
    let members: Object = serde_json::from_str(value.get()).unwrap();
    members.iter().try_for_each(|(member, value)| {
        flatten(set, format!("{name}{between}{member}"), value, between)
    })
}

fn typed(rule: &Value, text: &str) -> Result<Stored, Unfit> {
    match rule["type"].as_str() {
        Some(into) => convert(text, into)
            .map(|text| Stored::of(&text))
            .ok_or(Unfit),
        None => Ok(Stored::of(text)),
    }
}

/// The property that a source takes whole.
fn whole(source: &str) -> Option<String> {
    match source.strip_prefix('/') {
        None => Some(source.to_owned()),
        Some(rest) => (!rest.contains('/')).then(|| unescaped(rest)),
    }
}

fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// A property, or what a JSON Pointer leads to.
fn find(body: &Object, source: &str) -> Option<Box<RawValue>> {
    let Some(pointer) = source.strip_prefix('/') else {
        return body.get(source).cloned();
    };
    let mut tokens = pointer.split('/').map(unescaped);
    let first = body.get(&tokens.next()?).cloned()?;
    tokens.try_fold(first, |value, token| below(&value, &token))
}

fn below(value: &RawValue, token: &str) -> Option<Box<RawValue>> {
    let text = value.get();
    if text.starts_with('{') {
        return serde_json::from_str::<Object>(text).unwrap().remove(token);
    }
    if !text.starts_with('[') || (token.starts_with('0') && token != "0") {
        return None;
    }
    let index: usize = token.parse().ok()?;
    let mut elements: Vec<Box<RawValue>> = serde_json::from_str(text).unwrap();
    (index < elements.len()).then(|| elements.swap_remove(index))
}

fn raw(text: &str) -> Box<RawValue> {
    serde_json::from_str(text).unwrap()
}
